"""The report of preconditions over the API: what is read for it, with whose rights, and what is said without them."""

import pytest

from hotvirt.controllers.templatediff import merged
from hotvirt.kube.admission import AdmissionRequest, User
from hotvirt.kube.aggregated import RequestContext
from hotvirt.kube.errors import BadRequest, Conflict, InternalError, NotFound
from hotvirt.kube.resources import VMS
from hotvirt.webhooks import preconditions
from hotvirt.webhooks.admission import admissions
from hotvirt.webhooks.subresources import HotvirtSubresources

EVE = User("eve", ("devs",))
TEMPLATE = {"domain": {"memory": {"guest": "1Gi", "maxGuest": "4Gi"}, "cpu": {"sockets": 1, "maxSockets": 4}}}
VM = {"metadata": {"name": "web", "namespace": "shop", "uid": "u"}, "spec": {"template": {"spec": TEMPLATE}}}
VMI = {
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": TEMPLATE,
    "status": {"phase": "Running", "nodeName": "n1"},
}
CLAIM = {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}, "status": {"phase": "Bound"}}
NODE = {"metadata": {"name": "n1"}, "status": {"allocatable": {"cpu": "2", "memory": "8Gi"}}}
QUOTA = {"metadata": {"name": "q"}, "status": {"hard": {"memory": "2Gi"}, "used": {"memory": "1900Mi"}}}
ALL = ("patch virtualmachines", "get persistentvolumeclaims", "create persistentvolumeclaims")


class Store:
    """Kinds that are not among `objects` are not served. `may` is what the caller may."""

    def __init__(self, *, may=ALL, **objects):
        self.objects, self.may, self.reviews = {"virtualmachines": [VM], **objects}, may, []

    async def get(self, resource, name, namespace=None):
        for each in self.objects.get(resource.plural, ()):
            if each["metadata"]["name"] == name:
                return each
        raise NotFound(f'{resource.plural} "{name}" not found')

    async def list(self, resource, namespace=None):
        if resource.plural not in self.objects:
            raise NotFound("the server could not find the requested resource")
        return {"items": self.objects[resource.plural]}

    async def create(self, resource, obj, namespace=None):
        assert resource.plural == "subjectaccessreviews"
        self.reviews.append(obj["spec"])
        asked = obj["spec"]["resourceAttributes"]
        return {"status": {"allowed": f"{asked['verb']} {asked['resource']}" in self.may}}


class Guests:
    def __init__(self, error=None, **network):
        self.error, self.network = error, network

    async def places(self, namespace, name):
        if self.error:
            raise self.error
        return {"ports": 2, "scsi": 7, **self.network}

    async def facts(self, namespace, name):
        if self.error:
            raise self.error
        return {"memAvailableBytes": 364 << 20}


FULL = {
    "virtualmachineinstances": [VMI], "persistentvolumeclaims": [CLAIM], "nodes": [NODE], "pods": [],
    "resourcequotas": [QUOTA], "kubevirts": [],
}  # fmt: skip


async def asked(store, *changes, guests=None):
    context = RequestContext(EVE, "v1alpha1", "shop", "virtualmachines", "web", "preconditions", "")
    return await preconditions.report(store, lambda: guests or Guests(), context, changes)


def findings(report, number=0):
    return {each["id"]: each for each in report["changes"][number]["findings"]}


async def test_everything_is_read_for_the_judgement():
    store = Store(**FULL)
    report = await asked(store, "memory=2Gi", "disk=data,bus=virtio")
    memory, disk = findings(report), findings(report, 1)
    assert not report["possible"]
    assert (memory["quota.memory"]["status"], memory["node.memory"]["status"]) == ("fail", "pass")
    assert memory["caller.patch-vm"]["status"] == "pass"
    assert disk["disk.place"]["message"] == "the guest has 2 PCIe ports free"
    assert disk["disk.claim-bound"]["status"] == "pass"
    assert {(each["user"], *each["groups"]) for each in store.reviews} == {("eve", "devs")}
    assert {each["resourceAttributes"]["namespace"] for each in store.reviews} == {"shop"}


async def test_who_may_not_read_claims_learns_nothing_of_them():
    report = await asked(Store(may=(), **FULL), "disk=data")
    found = findings(report)
    assert {each for each in found if each.startswith("disk.claim")} == set()
    assert {each for each in found if found[each]["status"] == "fail"} == {"caller.patch-vm", "caller.read-claim"}
    assert "--user=eve" in found["caller.patch-vm"]["mend"]
    whole = await asked(Store(may=(), **FULL))
    assert "data" not in str(whole["changes"][2])


async def test_what_cannot_be_read_is_not_told():
    report = await asked(Store(virtualmachineinstances=[VMI]), "memory=2Gi", "disk=data")
    told = {*findings(report), *findings(report, 1)}
    assert told & {"node.memory", "quota.memory", "disk.claim", "disk.claim-bound"} == set()


@pytest.mark.parametrize("error", [NotFound("no guest"), InternalError("gone"), Conflict("no")])
async def test_a_node_that_does_not_answer_leaves_its_places_open(error):
    report = await asked(Store(**FULL), "disk=data", guests=Guests(error))
    assert "disk.place" not in findings(report)


LAN = {"metadata": {"name": "lan", "namespace": "shop"}, "spec": {"config": '{"type": "bridge", "bridge": "br1"}'}}
ODD = {"metadata": {"name": "lan", "namespace": "shop"}, "spec": {"config": '{"type": "macvlan"}'}}


@pytest.mark.parametrize(
    ("definition", "network", "fails"),
    [
        (LAN, {"network": "bridge", "bridges": {"br1": False}}, set()),
        (LAN, {"network": "bridge", "bridges": {"br0": False}}, {"nic.bridge"}),
        (LAN, {"network": "user", "bridges": {}}, {"nic.bridge"}),
        (ODD, {"network": "user", "bridges": {}}, {"nic.definition"}),
        (LAN, {}, set()),
    ],
    ids=["there", "no bridge", "no root", "another kind", "an older node says nothing"],
)  # fmt: skip
async def test_a_network_that_the_node_cannot_join_is_told(definition, network, fails):
    store = Store(**FULL, **{"network-attachment-definitions": [definition]})
    report = await asked(store, "nic=lan", guests=Guests(**network))
    assert {id_ for id_, each in findings(report).items() if each["status"] == "fail"} == fails


async def test_what_the_guest_can_spare_is_asked_of_it():
    answers = [{"type": "AgentConnected", "status": "True"}]
    status = {**VMI["status"], "memory": {"guestCurrent": "1Gi"}, "conditions": answers}
    store = Store(**{**FULL, "virtualmachineinstances": [{**VMI, "status": status}]})
    report = await asked(store, "memory=768Mi", "memory=512Mi", "memory=2Gi")
    assert findings(report, 0)["guest.memory-spare"]["status"] == "pass"
    said = findings(report, 1)["guest.memory-spare"]
    assert (said["status"], said["message"]) == (
        "fail",
        "the guest can do without 300Mi now, and is to have 512Mi less",
    )
    assert "guest.memory-spare" not in findings(report, 2)
    assert (await asked(store))["changes"][0]["least"] == "724Mi"
    silent = await asked(store, "memory=512Mi", guests=Guests(InternalError("it hangs")))
    assert "guest.memory-spare" not in findings(silent)


def instancetype(name, *, cpu=(), memory=()):
    spec = {"cpu": {"guest": 1, **dict(cpu)}, "memory": {"guest": "1Gi", **dict(memory)}}
    return {"metadata": {"name": name}, "spec": spec}


PLAIN, FIXED = instancetype("plain"), instancetype("fixed", cpu={"maxSockets": 4}, memory={"maxGuest": "4Gi"})


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
@pytest.mark.parametrize("size", [PLAIN, FIXED, None], ids=["plain", "fixed", "none"])
async def test_what_the_instancetype_sets_is_said_where_the_api_would_refuse_the_edit(size, running):
    """For each change asked about, the edit that makes it is judged by admission, too."""
    base = {} if size else {"memory": {"guest": "1Gi"}}
    vm = {"metadata": VM["metadata"], "spec": {"runStrategy": "Always", "template": {"spec": {"domain": base}}}}
    if size:
        vm["spec"]["instancetype"] = {"name": size["metadata"]["name"]}
    store = Store(
        virtualmachines=[vm], virtualmachineclusterinstancetypes=[PLAIN, FIXED], kubevirts=[],
        virtualmachineinstances=[VMI] if running else [],
    )  # fmt: skip
    edits = {
        "memory=2Gi": {"memory": {"guest": "2Gi"}}, "cpu=2": {"cpu": {"sockets": 2}},
        "max-memory=3Gi": {"memory": {"maxGuest": "3Gi"}}, "max-sockets=3": {"cpu": {"maxSockets": 3}},
    }  # fmt: skip
    report = await asked(store, *edits)
    says = {each["change"]: each["possible"] for each in report["changes"]}
    sizes = {each["metadata"]["name"]: each for each in (PLAIN, FIXED)}
    plugins = admissions(lambda: None, lambda _, name, __: sizes.get(name))
    judge = next(each for each in plugins if VMS in each.resources)
    for change, domain in edits.items():
        edited = {**vm, "spec": {**vm["spec"], "template": {"spec": {"domain": merged(base, domain)}}}}
        refused = (await judge.validate(AdmissionRequest("UPDATE", VMS, "", "shop", "web", EVE, edited, vm))).causes
        assert all("the instancetype sets this" in each.message for each in refused)
        assert says[change] == (not refused), change
    if size:
        assert findings(report)["memory.owner"]["message"].startswith(f"instancetype {size['metadata']['name']} sets")


async def test_a_machine_that_does_not_run():
    report = await asked(Store(**{**FULL, "virtualmachineinstances": []}), "memory=64Gi")
    assert (report["running"], report["possible"]) == (False, True)


async def test_what_is_no_change_is_a_bad_request():
    with pytest.raises(BadRequest, match="change: 'colour' cannot be changed"):
        await asked(Store(**FULL), "colour=red")
    with pytest.raises(BadRequest, match="at most"):
        await asked(Store(**FULL), *["memory=1Gi"] * 40)


async def test_no_such_machine():
    with pytest.raises(NotFound):
        await asked(Store(virtualmachines=[]), "memory=1Gi")


def test_the_group_serves_it_for_reading():
    group = HotvirtSubresources(lambda: None, lambda: None)
    found = next(each for each in group.resources if each.name == "virtualmachines/preconditions")
    assert (found.kind, found.verbs, found.namespaced) == ("PreconditionReport", ("get",), True)
