"""What each verb of an instance asks of its state: a table of states and verbs, and of what reaches the guest."""

from types import SimpleNamespace

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from hotvirt.kube.admission import User
from hotvirt.kube.aggregated import RequestContext
from hotvirt.kube.errors import ApiError, NotFound
from hotvirt.webhooks import routing
from hotvirt.webhooks.guests import GuestStream
from hotvirt.webhooks.subresources import UNSUPPORTED, KubeVirtSubresources

POD_NETWORK = {
    "networks": [{"name": "default", "pod": {}}, {"name": "lan", "multus": {"networkName": "lan"}}],
    "domain": {"devices": {"interfaces": [{"name": "lan", "bridge": {}}, {"name": "default", "masquerade": {}}]}},
}


def vmi(*conditions, phase="Running", spec=None, **status):
    return {
        "metadata": {"name": "web", "namespace": "shop", "resourceVersion": "3"},
        "spec": spec or POD_NETWORK,
        "status": {"phase": phase, "conditions": [{"type": c, "status": "True"} for c in conditions], **status},
    }


def devices(**switches):
    return {"domain": {"devices": switches}}


PROBED = {**POD_NETWORK, "livenessProbe": {"tcpSocket": {"port": 22}, "periodSeconds": 5}}
PINGED = {**POD_NETWORK, "livenessProbe": {"guestAgentPing": {}, "periodSeconds": 5}}
NO_ACPI = {"domain": {"features": {"acpi": {"enabled": False}}}}
PLAIN, AGENT, PAUSED = vmi(), vmi("AgentConnected"), vmi("AgentConnected", "Paused")
PENDING, OVER = vmi(phase="Scheduling"), vmi("AgentConnected", phase="Succeeded")
FREEZE = {"unfreezeTimeout": "5m0s"}

TABLE = {
    # verb of the instance: (state, body, the guest is told, or what is refused with)
    "pause": ("pause", PLAIN, {}, "pause"),
    "pause one that is paused": ("pause", PAUSED, {}, (409, "VMI is already paused")),
    "pause one with a probe": ("pause", vmi(spec=PROBED), {}, (403, "LivenessProbe")),
    "pause one whose agent is pinged": ("pause", vmi(spec=PINGED), {}, "pause"),
    "pause one that starts": ("pause", PENDING, {}, (409, "VMI is not running (its phase is Scheduling)")),
    "unpause": ("unpause", PAUSED, {}, "unpause"),
    "unpause one that runs": ("unpause", PLAIN, {}, (409, "VMI is not paused")),
    "freeze": ("freeze", AGENT, FREEZE, ("freeze", 300.0)),
    "freeze for ever": ("freeze", AGENT, {"unfreezeTimeout": "0s"}, ("freeze", 0.0)),
    "freeze for no time said": ("freeze", AGENT, {}, (400, "Unfreeze timeout in freeze request is not set")),
    "freeze for nonsense": ("freeze", AGENT, {"unfreezeTimeout": "-1s"}, (400, "is not a duration")),
    "freeze without an agent": ("freeze", PLAIN, FREEZE, (409, "does not have guest agent connected")),
    "freeze while paused": ("freeze", PAUSED, FREEZE, (409, "VMI is paused")),
    "unfreeze": ("unfreeze", AGENT, {}, "unfreeze"),
    "unfreeze without an agent": ("unfreeze", PLAIN, {}, (409, "does not have guest agent connected")),
    "reset": ("reset", PLAIN, {}, "reset"),
    "reset while paused": ("reset", PAUSED, {}, "reset"),
    "reset one that is over": ("reset", OVER, {}, (409, "VMI is not running (its phase is Succeeded)")),
    "soft reboot": ("softreboot", AGENT, {}, "soft_reboot"),
    "soft reboot by ACPI": ("softreboot", PLAIN, {}, "soft_reboot"),
    "soft reboot while paused": ("softreboot", PAUSED, {}, (409, "VMI is paused")),
    "soft reboot without both": ("softreboot", vmi(spec=NO_ACPI), {}, (409, "neither have the agent connected nor")),
    "soft reboot by agent alone": ("softreboot", vmi("AgentConnected", spec=NO_ACPI), {}, "soft_reboot"),
}


class Writer:
    closed = False

    def close(self):
        self.closed = True

    async def wait_closed(self):
        return


class Guests:
    def __init__(self):
        self.told = None

    def __getattr__(self, name):
        async def tell(namespace, instance, **how):
            assert (namespace, instance) == ("shop", "web")
            self.told = (name, *how.values()) if how else name
            if name in ("console", "vnc", "port_forward"):
                self.stream = GuestStream(None, Writer())
                return self.stream
            return b"png" if name == "screenshot" else []

        return tell


class Store:
    def __init__(self, **objects):
        self._objects, self.patches, self.created = objects, [], []

    async def get(self, resource, name, namespace=None):
        if resource.plural not in self._objects:
            raise NotFound(f'{resource.plural} "{name}" not found')
        return self._objects[resource.plural]

    async def list(self, resource, namespace=None, **_):
        return {"items": []}

    async def patch(self, resource, name, patch, namespace=None, *, subresource="", dry_run=False):
        self.patches.append((resource.plural, subresource, patch, dry_run))
        return {"metadata": {"resourceVersion": "9"}}

    async def create(self, resource, obj, namespace=None, *, dry_run=False):
        self.created.append((resource.plural, obj["spec"], dry_run))
        return obj


async def ask(method, path, *, body=None, query="", **objects):
    """(status, body or message, guests, store)."""
    guests, store = Guests(), Store(**objects)
    group = KubeVirtSubresources(lambda: store, lambda: guests, version={"gitVersion": "v1"})
    request = make_mocked_request(method, f"/x?{query}")
    data = web.json_response(body).body if body is not None else b""
    request.read = lambda: _later(data)
    plural, name, subresource, *rest = [*path.split("/"), "", "", ""][: max(3, path.count("/") + 1)]
    context = RequestContext(User("eve"), "v1", "shop", plural, name, subresource, "/".join(rest))
    try:
        answer = await group.handle(request, context)
    except ApiError as error:
        return SimpleNamespace(status=error.code, said=error.message, guests=guests, store=store)
    return SimpleNamespace(status=answer.status, said=answer.body, guests=guests, store=store)


async def _later(data):
    return data


@pytest.mark.parametrize(("verb", "state", "body", "expected"), TABLE.values(), ids=TABLE)
async def test_states_and_verbs(verb, state, body, expected):
    path = f"virtualmachineinstances/web/{verb}"
    answer = await ask("PUT", path, body=body, virtualmachineinstances=state)
    if isinstance(expected, tuple) and isinstance(expected[0], int):
        assert (answer.status, expected[1] in answer.said, answer.guests.told) == (expected[0], True, None), answer.said
        return
    assert (answer.status, answer.guests.told) == (200, expected), answer.said
    for how in ({"body": {**body, "dryRun": ["All"]}}, {"body": body, "query": "dryRun=All"}):
        tried = await ask("PUT", path, virtualmachineinstances=state, **how)
        assert (tried.status, tried.guests.told) == (200, None), "a dry run reaches no guest"
    absent = await ask("PUT", path, body=body)
    assert (absent.status, absent.guests.told) == (404, None)


READS = {
    "users": ("userlist", AGENT, "", "users"),
    "filesystems": ("filesystemlist", AGENT, "", "filesystems"),
    "users of one without an agent": ("userlist", PLAIN, "", (409, "does not have guest agent connected")),
    "users while frozen": ("userlist", vmi("AgentConnected", fsFreezeStatus="frozen"), "", (409, "unfreeze it first")),
    "filesystems while paused": ("filesystemlist", PAUSED, "", (409, "hotvirt unpause web")),
    "screenshot": ("vnc/screenshot", PLAIN, "", ("screenshot", False)),
    "screenshot with a nudge": ("vnc/screenshot", PAUSED, "moveCursor=true", ("screenshot", True)),
    "screenshot of no display": (
        "vnc/screenshot", vmi(spec=devices(autoattachGraphicsDevice=False)), "", (400, "No graphics devices"),
    ),
    "screenshot with nonsense": ("vnc/screenshot", PLAIN, "moveCursor=left", (400, "moveCursor is 'left'")),
    "screen of one that is over": ("vnc", OVER, "", (409, "VMI is not running")),
    "screen of no display": ("vnc", vmi(spec=devices(autoattachGraphicsDevice=False)), "", (400, "No graphics")),
    "no console": ("console", vmi(spec=devices(autoattachSerialConsole=False)), "", (400, "No serial consoles")),
    "console of one that starts": ("console", PENDING, "", (400, "VMI is not running")),  # so virtctl tries again
    "console without a WebSocket": ("console", PLAIN, "", (400, "connect to it with a WebSocket")),
    "no port": ("portforward", PLAIN, "", (400, "is no port")),
    "port 0": ("portforward/0", PLAIN, "", (400, "is no port")),
    "port 65536": ("portforward/65536/tcp", PLAIN, "", (400, "is no port")),
    "a port of many digits": (f"portforward/{'9' * 5000}", PLAIN, "", (400, "is no port")),
    "another kind of digits": ("portforward/٢٢", PLAIN, "", (400, "is no port")),
    "another protocol": ("portforward/22/sctp", PLAIN, "", (400, "protocol 'sctp' cannot be forwarded")),
    "more than a protocol": ("portforward/22/tcp/x", PLAIN, "", (400, "cannot be forwarded")),
    "a port while paused": ("portforward/22", PAUSED, "", (409, "VMI is paused")),
    "a port without a network": ("portforward/22", vmi(spec=devices()), "", (409, "no network interfaces")),
}  # fmt: skip


@pytest.mark.parametrize(("verb", "state", "query", "expected"), READS.values(), ids=READS)
async def test_states_and_reads(verb, state, query, expected):
    answer = await ask("GET", f"virtualmachineinstances/web/{verb}", query=query, virtualmachineinstances=state)
    if isinstance(expected, tuple) and isinstance(expected[0], int):
        assert (answer.status, expected[1] in answer.said, answer.guests.told) == (expected[0], True, None), answer.said
        return
    assert (answer.status, answer.guests.told) == (200, expected), answer.said


@pytest.mark.parametrize(
    ("verb", "query", "told"),
    [
        ("console", "preserveSession=true", ("console", True)),
        ("vnc", "preserveSession=1", ("vnc", True)),
        ("portforward/22/udp", "", ("port_forward", 22, "udp", "default")),
        ("portforward/65535", "", ("port_forward", 65535, "tcp", "default")),
    ],
)
async def test_who_asks_without_a_websocket_learns_whether_it_could_be_had(verb, query, told):
    answer = await ask("GET", f"virtualmachineinstances/web/{verb}", query=query, virtualmachineinstances=PLAIN)
    assert (answer.status, answer.guests.told, answer.guests.stream.writer.closed) == (400, told, True)


async def test_a_paused_guest_stays_so_while_a_snapshot_is_taken():
    vm = {"metadata": {"name": "web"}, "status": {"snapshotInProgress": "monday"}}
    answer = await ask("PUT", "virtualmachineinstances/web/unpause", virtualmachineinstances=PAUSED, virtualmachines=vm)
    assert (answer.status, "snapshot 'monday' is in progress" in answer.said) == (409, True)


VM = {"metadata": {"name": "web", "namespace": "shop", "resourceVersion": "7"}, "spec": {"template": {"spec": {}}}}


async def test_migration_is_asked_for_where_it_can_be_done_and_else_refused_with_the_reason():
    stuck = vmi()
    stuck["status"]["conditions"] = [
        {"type": "LiveMigratable", "status": "False", "reason": "NotMigratable", "message": "there is one node"}
    ]
    path = "virtualmachines/web/migrate"
    answer = await ask("PUT", path, virtualmachines=VM, virtualmachineinstances=stuck)
    assert (answer.status, "Reason: NotMigratable, Message: there is one node" in answer.said) == (409, True)
    body = {"addedNodeSelector": {"disk": "fast"}, "dryRun": ["All"]}
    answer = await ask("PUT", path, body=body, virtualmachines=VM, virtualmachineinstances=vmi("LiveMigratable"))
    spec = {"vmiName": "web", "addedNodeSelector": {"disk": "fast"}}
    assert (answer.status, answer.store.created) == (202, [("virtualmachineinstancemigrations", spec, True)])
    assert (await ask("PUT", path, virtualmachines=VM)).status == 404
    assert (await ask("PUT", path, virtualmachines=VM, virtualmachineinstances=OVER)).status == 409


@pytest.mark.parametrize("plural", ["virtualmachines", "virtualmachineinstances"])
async def test_an_evacuation_is_taken_back(plural):
    objects = {"virtualmachines": VM, "virtualmachineinstances": vmi(evacuationNodeName="n1")}
    path = f"{plural}/web/evacuate/cancel"
    answer = await ask("PUT", path, body={"evacuationNodeName": "n1"}, **objects)
    patch = {"metadata": {"resourceVersion": "3"}, "status": {"evacuationNodeName": None}}
    assert (answer.status, answer.store.patches) == (200, [("virtualmachineinstances", "", patch, False)])
    answer = await ask("PUT", path, body={"evacuationNodeName": "n2"}, **objects)
    assert (answer.status, "it is to leave node 'n1'" in answer.said, answer.store.patches) == (409, True, [])
    answer = await ask("PUT", path, body={"evacuationNodeName": ""}, virtualmachines=VM, virtualmachineinstances=vmi())
    assert (answer.status, answer.store.patches) == (200, [])


@pytest.mark.parametrize("verb", UNSUPPORTED)
async def test_what_is_not_supported_says_so_of_machines_that_are_there(verb):
    method, _ = UNSUPPORTED[verb]
    answer = await ask(method, f"virtualmachineinstances/web/{verb}", virtualmachineinstances=PLAIN)
    assert (answer.status, "is not supported here" in answer.said) == (501, True)
    assert (await ask(method, f"virtualmachineinstances/web/{verb}")).status == 404


async def test_health_and_profiler():
    assert (await ask("GET", "healthz")).status == 200
    assert (await ask("GET", "start-cluster-profiler")).status == 403


PATHS = {
    "virtualmachineinstances/web/vnc": ("virtualmachineinstances/vnc", ""),
    "virtualmachineinstances/web/vnc/screenshot": ("virtualmachineinstances/vnc/screenshot", ""),
    "virtualmachineinstances/web/vnc/other": ("virtualmachineinstances/vnc", "other"),
    "virtualmachineinstances/web/portforward/22/tcp": ("virtualmachineinstances/portforward", "22/tcp"),
    "virtualmachineinstances/web": ("", ""),
    "version": ("version", ""),
    "version/x": ("", ""),
    "virtualmachines/web/fly/high": ("", ""),
}


@pytest.mark.parametrize("path", PATHS)
def test_the_longest_name_answers(path):
    group = KubeVirtSubresources(lambda: None, lambda: None, version={})
    plural, name, subresource, *rest = [*path.split("/"), "", "", ""][: max(3, path.count("/") + 1)]
    context = RequestContext(User("eve"), "v1", "shop", plural, name, subresource, "/".join(rest))
    assert routing.split(group._routes, context) == PATHS[path]
