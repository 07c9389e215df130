"""The subresource groups over HTTP: routing, status codes, races, and byte streams both ways."""

import asyncio
import contextlib

import pytest
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestClient, TestServer

from hotvirt.kube.admission import User
from hotvirt.kube.aggregated import RequestContext
from hotvirt.kube.errors import ApiError, Conflict, NotFound
from hotvirt.webhooks.guests import GuestStream
from hotvirt.webhooks.subresources import HotvirtSubresources, KubeVirtSubresources

RUNNING = {
    "metadata": {"name": "web", "uid": "u1", "resourceVersion": "3"},
    "spec": {"domain": {"devices": {}}},
    "status": {"phase": "Running", "conditions": [{"type": "AgentConnected", "status": "True"}]},
}
VM = {"metadata": {"name": "web", "resourceVersion": "7"}, "spec": {"runStrategy": "Halted", "template": {"spec": {}}}}
ADD = {"name": "data", "disk": {"disk": {"bus": "scsi"}}, "volumeSource": {"persistentVolumeClaim": {"claimName": "x"}}}


class Store:
    """A Client for two objects; `conflicts` is how many patches lose a race before one goes through."""

    def __init__(self, **objects):
        self.objects, self.patches, self.conflicts = objects, [], 0

    async def get(self, resource, name, namespace=None):
        if resource.plural not in self.objects:
            raise NotFound(f'{resource.plural} "{name}" not found')
        return self.objects[resource.plural]

    async def list(self, resource, namespace=None):
        return {"items": [self.objects[resource.plural]] if resource.plural in self.objects else []}

    async def patch(self, resource, name, patch, namespace=None, *, subresource="", dry_run=False):
        if self.conflicts:
            self.conflicts -= 1
            raise Conflict("the object has been modified")
        self.patches.append((resource.plural, subresource, patch, dry_run))
        return {"metadata": {"resourceVersion": "8"}}


class Guests:
    def __init__(self):
        self.calls, self.path = [], ""

    async def facts(self, namespace, name):
        return {"memTotalBytes": 5, "onlineCPUs": 1}

    async def guest_os_info(self, namespace, name):
        return {"hostname": "web"}

    async def pause(self, namespace, name):
        self.calls.append(("pause", namespace, name))

    async def unpause(self, namespace, name):
        self.calls.append(("unpause", namespace, name))

    async def soft_reboot(self, namespace, name):
        self.calls.append(("soft_reboot", namespace, name))

    async def console(self, namespace, name, *, preserve=False):
        self.calls.append(("console", preserve))
        return GuestStream(*await asyncio.open_unix_connection(self.path))

    vnc = console


@contextlib.asynccontextmanager
async def serving(store, guests):
    groups = {
        "subresources.kubevirt.io": KubeVirtSubresources(lambda: store, lambda: guests, version={"gitVersion": "v1"}),
        "subresources.hotvirt.io": HotvirtSubresources(lambda: store, lambda: guests),
    }

    async def front(request):
        _, _, group, version, *parts = request.path.split("/")
        parts = parts[2:] if parts[0] == "namespaces" else parts
        parts += [""] * (3 - len(parts))
        context = RequestContext(User("eve"), version, "default", *parts[:3], "/".join(parts[3:]))
        try:
            return await groups[group].handle(request, context)
        except ApiError as error:
            return web.json_response(error.to_status(), status=error.code)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", front)
    async with TestClient(TestServer(app)) as client:
        yield client


VMS = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachines/web"
VMIS = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachineinstances/web"


async def test_start_answers_accepted_and_writes_the_vm():
    store = Store(virtualmachines=VM)
    async with serving(store, Guests()) as client:
        assert (await client.put(f"{VMS}/start")).status == 202
    assert store.patches == [
        ("virtualmachines", "", {"metadata": {"resourceVersion": "7"}, "spec": {"runStrategy": "Always"}}, False)
    ]


async def test_a_lost_race_is_decided_again():
    store = Store(virtualmachines=VM)
    store.conflicts = 3
    async with serving(store, Guests()) as client:
        assert (await client.put(f"{VMS}/addvolume", json=ADD)).status == 202
        store.conflicts = 99
        assert (await client.put(f"{VMS}/addvolume", json=ADD)).status == 409
    assert len(store.patches) == 1


async def test_dry_run_reaches_the_store_as_one():
    store = Store(virtualmachines=VM)
    async with serving(store, Guests()) as client:
        assert (await client.put(f"{VMS}/start", json={"dryRun": ["All"]})).status == 202
        assert (await client.put(f"{VMS}/start", json={"dryRun": ["Some"]})).status == 400
    assert [p[3] for p in store.patches] == [True]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "says"),
    [
        ("PUT", f"{VMS}/fly", b"", 404, "no subresource"),
        ("GET", f"{VMS}/start", b"", 405, "answers PUT"),
        ("PUT", f"{VMS}/start", b"{", 400, "Can not unmarshal"),
        ("PUT", f"{VMS}/start", b"[]", 400, "JSON object"),
        ("PUT", f"{VMIS}/unpause", b"", 409, "VMI is not paused"),
    ],
)
async def test_refusals(method, path, body, status, says):
    async with serving(Store(virtualmachines=VM, virtualmachineinstances=RUNNING), Guests()) as client:
        answer = await client.request(method, path, data=body)
        assert (answer.status, says in (await answer.json())["message"]) == (status, True)


async def test_pause_reaches_the_guest_unless_dry():
    guests = Guests()
    async with serving(Store(virtualmachineinstances=RUNNING), guests) as client:
        assert (await client.put(f"{VMIS}/pause", json={"dryRun": ["All"]})).status == 200
        assert guests.calls == []
        assert (await client.put(f"{VMIS}/pause")).status == 200
    assert guests.calls == [("pause", "default", "web")]


async def test_pause_is_refused_under_a_liveness_probe():
    probed = {**RUNNING, "spec": {**RUNNING["spec"], "livenessProbe": {"tcpSocket": {"port": 1}, "periodSeconds": 5}}}
    async with serving(Store(virtualmachineinstances=probed), Guests()) as client:
        assert (await client.put(f"{VMIS}/pause")).status == 403


async def test_volume_verbs_of_an_owned_instance_point_at_its_vm():
    owned = {
        **RUNNING,
        "metadata": {
            **RUNNING["metadata"],
            "ownerReferences": [{"kind": "VirtualMachine", "name": "web", "controller": True}],
        },
    }
    async with serving(Store(virtualmachineinstances=owned), Guests()) as client:
        answer = await client.put(f"{VMIS}/addvolume", json=ADD)
        assert answer.status == 400
        assert "owned by a VM" in (await answer.json())["message"]


async def test_volumes_of_this_run_only_take_the_old_gate_and_are_noted():
    owner = {"ownerReferences": [{"kind": "VirtualMachine", "name": "web", "controller": True}]}
    owned = {**RUNNING, "metadata": {**RUNNING["metadata"], **owner}}
    developer = {"featureGates": ["HotPlugVolumes"]}
    kubevirt = {"spec": {"configuration": {"developerConfiguration": developer}}}
    store = Store(virtualmachineinstances=owned, kubevirts=kubevirt)
    async with serving(store, Guests()) as client:
        assert (await client.put(f"{VMIS}/addvolume", json=ADD)).status == 202
        plural, _, patch, _ = store.patches.pop()
        assert plural == "virtualmachineinstances"
        assert [volume["name"] for volume in patch["spec"]["volumes"]] == ["data"]
        noted = patch["metadata"]
        assert noted == {"annotations": {"hotvirt.io/temporary-volumes": "data"}, "resourceVersion": "3"}
        # The machine's own is taken away by the machine only; what it never had, also when the gate is gone.
        assert (await client.put(f"{VMIS}/removevolume", json={"name": "data"})).status == 400
        store.objects["virtualmachineinstances"] = {**owned, **patch, "metadata": {**owned["metadata"], **noted}}
        developer["featureGates"] = []
        assert (await client.put(f"{VMIS}/removevolume", json={"name": "data"})).status == 202
        assert store.patches[-1][2]["spec"]["volumes"] == []
        assert store.patches[-1][2]["metadata"]["annotations"] == {"hotvirt.io/temporary-volumes": None}


async def test_facts_need_the_agent():
    facts = "/apis/subresources.hotvirt.io/v1alpha1/namespaces/default/virtualmachineinstances/web/guestfacts"
    async with serving(Store(virtualmachineinstances=RUNNING), Guests()) as client:
        assert (await (await client.get(facts)).json())["memTotalBytes"] == 5
    silent = {**RUNNING, "status": {"phase": "Running"}}
    async with serving(Store(virtualmachineinstances=silent), Guests()) as client:
        answer = await client.get(facts)
        assert answer.status == 409
        assert "guest agent" in (await answer.json())["message"]
    paused = {"phase": "Running", "conditions": [{"type": "Paused", "status": "True"}]}
    async with serving(Store(virtualmachineinstances={**RUNNING, "status": paused}), Guests()) as client:
        assert "hotvirt unpause web" in (await (await client.get(facts)).json())["message"]


async def test_guestfs_says_in_plain_words_that_it_is_not_here():
    async with serving(Store(), Guests()) as client:
        answer = await client.get("/apis/subresources.kubevirt.io/v1/guestfs")
        assert (answer.status, answer.content_type, "guestfish" in await answer.text()) == (501, "text/plain", True)


async def test_version_is_served_without_a_name():
    async with serving(Store(), Guests()) as client:
        assert await (await client.get("/apis/subresources.kubevirt.io/v1/version")).json() == {"gitVersion": "v1"}


@contextlib.asynccontextmanager
async def echoing_guest(path):
    """A unix socket that sends back what it gets, and closes on b'bye'."""

    async def talk(reader, writer):
        while data := await reader.read(4096):
            writer.write(data)
            await writer.drain()
            if data == b"bye":
                break
        writer.close()

    server = await asyncio.start_unix_server(talk, path)
    yield
    server.close()


@pytest.mark.parametrize("protocols", [("plain.kubevirt.io",), ()])
async def test_console_carries_raw_bytes_both_ways(tmp_path, protocols):
    guests = Guests()
    guests.path = str(tmp_path / "serial.sock")
    async with (
        echoing_guest(guests.path),
        serving(Store(virtualmachineinstances=RUNNING), guests) as client,
        client.ws_connect(f"{VMIS}/console", protocols=protocols) as socket,
    ):
        assert socket.protocol == (protocols[0] if protocols else None)
        await socket.send_bytes(b"\x00\xffls\n")
        assert (await socket.receive()).data == b"\x00\xffls\n"
        await socket.send_str("text")
        assert (await socket.receive()).data == b"text"
        await socket.send_bytes(b"bye")
        assert (await socket.receive()).data == b"bye"
        assert (await socket.receive()).type is WSMsgType.CLOSE


async def test_a_leaving_client_frees_the_guests_side(tmp_path):
    guests, closed = Guests(), asyncio.Event()
    guests.path = str(tmp_path / "serial.sock")

    async def talk(reader, writer):
        await reader.read()
        closed.set()
        writer.close()

    server = await asyncio.start_unix_server(talk, guests.path)
    async with serving(Store(virtualmachineinstances=RUNNING), guests) as client:
        async with client.ws_connect(f"{VMIS}/console"):
            pass
        async with asyncio.timeout(5):
            await closed.wait()
    server.close()
