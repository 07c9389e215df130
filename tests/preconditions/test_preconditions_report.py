"""Changes as people write them, facts out of documents, and the report that puts the findings together."""

import pytest

from hotvirt.api.attachments import Bridge
from hotvirt.preconditions import (
    CpuChange,
    Facts,
    MemoryChange,
    NicAdd,
    NicLink,
    NicRemove,
    VolumeAdd,
    VolumeRemove,
    asked,
    check,
    gather,
)
from hotvirt.preconditions.changes import label
from hotvirt.preconditions.facts import Claim, Places, Quota
from hotvirt.preconditions.gather import Read
from hotvirt.preconditions.report import judge
from hotvirt.preconditions.room import Demand

GIB = 1 << 30
TEMPLATE = {
    "domain": {
        "memory": {"guest": "1Gi", "maxGuest": "4Gi"},
        "cpu": {"sockets": 1, "cores": 2, "maxSockets": 4},
        "devices": {"disks": [{"name": "logs", "disk": {"bus": "sata"}}], "interfaces": [{"name": "lan", "sriov": {}}]},
    },
    "volumes": [{"name": "logs", "persistentVolumeClaim": {"claimName": "store", "hotpluggable": True}}],
    "networks": [{"name": "lan", "multus": {"networkName": "lab"}}],
}
VM = {"metadata": {"name": "web", "namespace": "shop", "uid": "u"}, "spec": {"template": {"spec": TEMPLATE}}}
VMI = {
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {"domain": {**TEMPLATE["domain"], "devices": {}}, "volumes": []},
    "status": {"phase": "Running", "nodeName": "n1", "memory": {"guestAtBoot": "1Gi", "guestCurrent": "1Gi"}},
}


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("memory=4Gi", MemoryChange(4 * GIB)),
        ("memory=1500M", MemoryChange(1_500_000_000)),
        ("cpu=4", CpuChange(2)),
        ("vcpus=2", CpuChange(1)),
        ("sockets=3", CpuChange(3)),
        ("no-disk=logs", VolumeRemove("logs")),
        ("no-nic=lan", NicRemove("lan")),
        ("nic=lan,link=down", NicLink("lan", "down")),
        ("nic=dmz", NicAdd({"name": "dmz", "bridge": {}}, {"name": "dmz", "multus": {"networkName": "dmz"}})),
        ("nic=lan", NicAdd({"name": "lan", "sriov": {}}, {"name": "lan", "multus": {"networkName": "lab"}})),
    ],
)
def test_a_change_is_read_as_it_is_written(text, change):
    assert asked.read(text, VM, VMI) == change


def test_what_a_finding_names_can_be_asked_again():
    for text in ("memory=4Gi", "sockets=2", "disk=data", "no-disk=logs", "nic=dmz", "no-nic=lan", "nic=lan,link=up"):
        assert label(asked.read(text, VM, None)) == text


def test_a_disk_of_the_template_is_taken_as_it_stands_there():
    by_name, by_claim = asked.read("disk=logs", VM, None), asked.read("disk=store", VM, None)
    assert by_name == by_claim
    assert by_name.disk == {"name": "logs", "disk": {"bus": "sata"}}
    assert asked.read("disk=logs,bus=virtio", VM, None).disk["disk"] == {"bus": "virtio"}


def test_another_disk_is_a_claim_on_scsi():
    change = asked.read("disk=data,claim=big", VM, None)
    assert change.volume["persistentVolumeClaim"] == {"claimName": "big", "hotpluggable": True}
    assert change.disk == {"name": "data", "disk": {"bus": "scsi"}}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("memory", "is no change; write one of memory=SIZE"),
        ("memory=", "is no change"),
        ("memory=lots", "is not a size"),
        ("memory=1", "less than one block"),
        ("cpu=3", "does not fill sockets of 2"),
        ("cpu=0", "not a number from 1 up"),
        ("cpu=-1", "not a number from 1 up"),
        ("sockets=9999999", "not a number"),
        ("sockets=²", "not a number"),
        ("colour=red", "cannot be changed while a machine runs"),
        ("memory=1Gi,bus=scsi", "bus means nothing with memory"),
        ("disk=data,bus", "write options as in"),
        ("nic=lan,link=sideways", "neither up nor down"),
        ("disk=" + "x" * 999, "is no change"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_how_it_is_written(text, says):
    with pytest.raises(ValueError, match=says):
        asked.read(text, VM, None)


def test_facts_out_of_documents():
    claim = {
        "metadata": {"name": "store"}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "fast"},
        "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}},
    }  # fmt: skip
    waiting = {"metadata": {"name": "new"}, "spec": {"resources": {"requests": {"storage": "2Gi"}}}}
    volumes = [{"name": "a", "persistentVolumeClaim": {"claimName": "store"}}]
    vmis = [
        {"metadata": {"name": "db"}, "spec": {"volumes": volumes}, "status": {"phase": "Running"}},
        {"metadata": {"name": "old"}, "spec": {"volumes": volumes}, "status": {"phase": "Succeeded"}},
        {"metadata": {"name": "web"}, "spec": {"volumes": volumes}},
    ]
    node = {"metadata": {"name": "n1"}, "status": {"allocatable": {"cpu": "2", "memory": "4Gi"}}}
    resources = {"requests": {"cpu": "500m", "memory": "1Gi"}}
    pod = {"metadata": {"uid": "p"}, "spec": {"nodeName": "n1", "containers": [{"resources": resources}]}}
    quota = {"metadata": {"name": "q"}, "status": {
        "hard": {"requests.memory": "2Gi", "cpu": "4", "limits.memory": "1Gi", "pods": "3", "requests.cpu": "x"},
        "used": {"requests.memory": "1Gi"},
    }}  # fmt: skip
    read = Read(claims=[claim, waiting], vmis=vmis, node=node, pods=[pod], quotas=[quota], attachments=[])
    found = gather.facts(read, "web")
    assert found.claims == {
        "store": Claim(size="1Gi", storage_class="fast"), "new": Claim(phase="Pending", modes=(), size="2Gi"),
    }  # fmt: skip
    assert found.claim_users == {"store": "VM db"}
    assert found.room == Demand(cpu=1500, memory=3 * GIB, dedicated=1)
    assert found.quotas == (
        Quota(name="q", resource="memory", hard=2 * GIB, used=GIB), Quota(name="q", resource="cpu", hard=4000, used=0),
    )  # fmt: skip
    assert found.attachments == frozenset()
    nets = [{"metadata": {"name": "lan", "namespace": where}} for where in ("default", "other")]
    found = gather.facts(Read(attachments=nets, knows_elsewhere=False), "web", "default")
    assert (found.attachments, found.knows_elsewhere) == (frozenset({"lan", "other/lan"}), False)
    assert gather.facts(Read(), "web") == Facts()


def test_what_a_network_joins():
    lan = {"metadata": {"name": "lan", "namespace": "shop"},
           "spec": {"config": '{"type": "bridge", "bridge": "br1", "vlan": 7}'}}  # fmt: skip
    odd = {
        "metadata": {"name": "odd", "namespace": "shop"},
        "spec": {"config": '{"type": "macvlan", "master": "eth0"}'},
    }
    found = gather.facts(Read(attachments=[lan, odd]), "web", "shop").joins
    assert found["shop/lan"] == Bridge(name="br1", vlan=7)
    assert "NetworkAttachmentDefinition odd: spec.config is not of type bridge" in found["shop/odd"]


def test_a_report_judges_each_change_by_itself():
    report = judge(["memory=2Gi", "memory=8Gi"], VM, VMI, Facts(), None).document()
    assert (report["kind"], report["rules"], report["running"], report["possible"]) == (
        "PreconditionReport", "hotvirt", True, False,
    )  # fmt: skip
    assert report["metadata"] == {"name": "web", "namespace": "shop"}
    assert [(each["change"], each["possible"]) for each in report["changes"]] == [
        ("memory=2Gi", True), ("memory=8Gi", False),
    ]  # fmt: skip
    failing = [each["id"] for each in report["changes"][1]["findings"] if each["status"] == "fail"]
    assert failing == ["memory.max-guest"]
    assert all(set(each) >= {"id", "status", "message"} for each in report["changes"][0]["findings"])


def test_without_a_change_it_says_how_far_each_can_go():
    facts = Facts(
        claims={"data": Claim(), "used": Claim()}, claim_users={"used": "VM db"}, places=Places(ports=2, scsi=9)
    )
    memory, cpu, disk = judge([], VM, VMI, facts, None).document()["changes"]
    assert (memory["now"], memory["least"], memory["most"]) == ("1Gi", "32Mi", "4Gi")
    assert (cpu["now"], cpu["least"], cpu["most"]) == ("2", "2", "8")
    assert disk["most"] == "free claims: data; places: 9 scsi, 2 virtio"
    assert all(each["possible"] for each in (memory, cpu, disk))


def test_how_far_it_can_go_ends_where_the_nodes_room_does():
    facts = Facts(room=Demand(cpu=450, memory=GIB))
    memory, cpu, _ = judge([], VM, VMI, facts, None).document()["changes"]
    assert memory["most"] == "2046Mi"
    assert cpu["most"] == "6"
    assert memory["possible"]
    assert cpu["possible"]


def test_volumes_that_could_go_are_named():
    vmi = {**VMI, "spec": {**VMI["spec"], "volumes": TEMPLATE["volumes"]}}
    assert judge([], VM, vmi, Facts(), None).document()["changes"][3]["now"] == "logs"


@pytest.mark.parametrize("vmi", [None, {**VMI, "status": {"phase": "Scheduling"}}])
def test_a_machine_that_does_not_run_is_changed_at_its_next_start(vmi):
    report = judge(["memory=16Gi", "cpu=4"], VM, vmi, Facts(), None).document()
    assert (report["running"], report["possible"]) == (False, True)
    assert report["changes"][0]["findings"][0]["id"] == "machine.running"
    whole = judge([], VM, vmi, Facts(), None).document()
    assert [each["change"] for each in whole["changes"]] == ["any"]


def test_a_claim_whose_class_waits_for_a_user_is_bound_by_the_disk():
    metadata = {"name": "lazy", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}
    classes = [{"metadata": metadata, "volumeBindingMode": "WaitForFirstConsumer"}, {"metadata": {"name": "eager"}}]
    of = {"new": {}, "named": {"storageClassName": "lazy"}, "eager": {"storageClassName": "eager"}}
    claims = [{"metadata": {"name": name}, "spec": spec} for name, spec in of.items()]
    found = gather.facts(gather.Read(claims=claims, classes=classes), "web").claims
    assert {name: each.waits for name, each in found.items()} == {"new": True, "named": True, "eager": False}
    disk = {"name": "d", "disk": {"bus": "scsi"}}
    status = {}
    for name in of:
        add = VolumeAdd({"name": "d", "persistentVolumeClaim": {"claimName": name, "hotpluggable": True}}, disk)
        said = {each.id: each for each in check(add, VMI, Facts(claims=found))}["disk.claim-bound"]
        status[name] = (said.status, said.message)
    assert status["new"] == ("pass", "claim new is bound when it is used")
    assert status["eager"] == ("unknown", "claim eager is not bound yet: the disk waits for it")
