"""What each live change rests on: every fact holding, failing and unknown, with the words a person is given."""

import copy

import pytest
from msgspec import structs

from hotvirt.api import quantity
from hotvirt.api.attachments import Bridge
from hotvirt.preconditions import (
    CpuChange,
    CpuLimit,
    Facts,
    MemoryChange,
    MemoryLimit,
    NicAdd,
    NicLink,
    NicRemove,
    VolumeAdd,
    VolumeRemove,
    blockers,
    check,
    limits,
    sentence,
)
from hotvirt.preconditions.check import FACTS, check_stopped
from hotvirt.preconditions.facts import MAKE_CLAIM, PATCH_VM, READ_CLAIM, Caller, Claim, Places, Quota
from hotvirt.preconditions.room import Demand

GIB = 1 << 30
CLAIM = {"name": "data", "persistentVolumeClaim": {"claimName": "store", "hotpluggable": True}}
DISK = {"name": "data", "disk": {"bus": "scsi"}}
ROOT = {"name": "root", "persistentVolumeClaim": {"claimName": "root"}}
LOG = {"name": "log", "persistentVolumeClaim": {"claimName": "log", "hotpluggable": True}}
VMI = {
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {
        "architecture": "amd64",
        "domain": {
            "memory": {"guest": "1Gi", "maxGuest": "4Gi"},
            "cpu": {"sockets": 2, "maxSockets": 4},
            "devices": {
                "disks": [{"name": "root", "disk": {"bus": "virtio"}}],
                "interfaces": [{"name": "default", "masquerade": {}}, {"name": "dmz", "bridge": {}}],
            },
        },
        "networks": [{"name": "default", "pod": {}}, {"name": "dmz", "multus": {"networkName": "dmz"}}],
        "volumes": [ROOT, LOG],
    },
    "status": {
        "nodeName": "node1",
        "memory": {"guestAtBoot": "1Gi", "guestCurrent": "1Gi"},
        "currentCPUTopology": {"sockets": 2},
        "conditions": [
            {"type": "AgentConnected", "status": "True"},
            {"type": "MemoryHotplugAvailable", "status": "True"},
            {"type": "CPUHotplugAvailable", "status": "True"},
            {"type": "PCIHotplugAvailable", "status": "True"},
        ],
    },
}
ALL = {PATCH_VM: True, READ_CLAIM: True, MAKE_CLAIM: True}
KNOWN = Facts(
    claims={"store": Claim(size="1Gi")}, claim_users={}, room=Demand(cpu=9000, memory=64 * GIB),
    attachments=frozenset({"lan"}), spare=2 * GIB,
    places=Places(ports=1, scsi=9, network="bridge", bridges={"br1": False}), joins={"default/lan": Bridge(name="br1")},
    caller=Caller(name="ann", may=ALL),
    quotas=(Quota(name="q", resource="memory", hard=64 * GIB, used=0),
            Quota(name="q", resource="cpu", hard=9000, used=0)),
)  # fmt: skip
GUARANTEED = {"requests": {"memory": "1Gi"}, "limits": {"memory": "1Gi"}}
SMALL = dict.fromkeys(
    ("domain.memory.guest", "domain.memory.maxGuest", "domain.cpu.sockets", "domain.cpu.maxSockets"), "small"
)
ADD = VolumeAdd(volume=CLAIM, disk=DISK)
ADD_VIRTIO = VolumeAdd(volume=CLAIM, disk={"name": "data", "disk": {"bus": "virtio"}})
NIC = NicAdd({"name": "lan", "bridge": {}}, {"name": "lan", "multus": {"networkName": "lan"}})
CHANGES = {
    "memory": MemoryChange(2 * GIB), "less memory": MemoryChange(512 << 20), "cpu": CpuChange(4),
    "fewer cpus": CpuChange(1), "add": ADD, "max memory": MemoryLimit(2 * GIB), "max cpus": CpuLimit(3),
    "add virtio": ADD_VIRTIO, "remove": VolumeRemove("log"),
}  # fmt: skip
NICS = {"nic": NIC, "no nic": NicRemove("dmz"), "link": NicLink("default", "down")}


def instance(**domain):
    vmi = copy.deepcopy(VMI)
    vmi["spec"]["domain"] |= domain
    return vmi


def saying(kind, status, **more):
    """The instance with this condition."""
    vmi = copy.deepcopy(VMI)
    kept = [each for each in vmi["status"]["conditions"] if each["type"] != kind]
    vmi["status"]["conditions"] = [*kept, {"type": kind, "status": status, **more}]
    return vmi


def roomy(**annotations):
    """The instance with what its QEMU has room for."""
    names = {"memory": limits.MEMORY_ROOM, "sockets": limits.SOCKETS_ROOM}
    told = {names[key]: value for key, value in annotations.items()}
    return {**VMI, "metadata": {**VMI["metadata"], "annotations": told}}


def by_dimm(slots):
    """A guest without the virtio-mem driver."""
    vmi = saying("MemoryHotplugAvailable", "True", reason="DimmsOnly", message="memory comes as DIMMs")
    return {**vmi, "metadata": {**vmi["metadata"], "annotations": {limits.MEMORY_SLOTS: slots}}}


def told_to_use(device, slots):
    """Whatever its kernel knows."""
    annotations = {limits.MEMORY_SLOTS: slots, limits.MEMORY_DEVICE: device}
    return {**VMI, "metadata": {**VMI["metadata"], "annotations": annotations}}


def known(**facts):
    return structs.replace(KNOWN, **facts)


def denied(what):
    return known(caller=Caller(name="system:serviceaccount:shop:bot", may={**ALL, what: False}))


def found(change, id_, *, vmi=VMI, facts=KNOWN):
    return next((finding for finding in check(change, vmi, facts) if finding.id == id_), None)


def volume(**source):
    return VolumeAdd(volume={"name": "data", **source}, disk=DISK)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_all_is_well_when_every_fact_holds(change):
    findings = check(change, VMI, KNOWN)
    assert {finding.status for finding in findings} == {"pass"}
    assert blockers(findings) == []
    assert sentence(findings) == ""
    assert len({finding.id for finding in findings}) == len(findings)


@pytest.mark.parametrize(
    ("change", "asked"),
    [(MemoryChange(2 * GIB), "memory=2Gi"), (CpuChange(4), "sockets=4"), (ADD, "disk=data"),
     (VolumeRemove("log"), "no-disk=log"), (NIC, "nic=lan"), (NicRemove("dmz"), "no-nic=dmz"),
     (NicLink("default", "down"), "nic=default,link=down")],
)  # fmt: skip
def test_a_finding_names_its_change(change, asked):
    assert {finding.change for finding in check(change, VMI, KNOWN)} == {asked}


STAGE = Facts(rollout_strategy="Stage")
NO_LIVE = Facts(disabled_gates=frozenset({"VMLiveUpdateFeatures"}))
NO_DISKS = Facts(disabled_gates=frozenset({"DeclarativeHotplugVolumes"}))
USED = known(claim_users={"store": "VM db"})

FAILS = {
    "memory under Stage": (CHANGES["memory"], VMI, STAGE, "cluster.rollout-strategy",
        ("the cluster applies changes at the next restart only (set spec.configuration.vmRolloutStrategy to "
        "LiveUpdate: kubectl edit kubevirt kubevirt -n kubevirt)")),
    "CPU under Stage": (CHANGES["cpu"], VMI, STAGE, "cluster.rollout-strategy", "the next restart only"),
    "memory with its gate off": (CHANGES["memory"], VMI, NO_LIVE, "cluster.feature-gate",
        ("the feature gate VMLiveUpdateFeatures is off (take it out of "
        "spec.configuration.developerConfiguration.disabledFeatureGates: kubectl edit kubevirt kubevirt -n kubevirt)")),
    "CPU with its own gate off": (CHANGES["cpu"], VMI, Facts(disabled_gates=frozenset({"CPUHotplug"})),
        "cluster.feature-gate", "the feature gate CPUHotplug is off"),
    "a disk with its gate off": (ADD, VMI, NO_DISKS, "cluster.feature-gate", "DeclarativeHotplugVolumes is off"),
    "removal with its gate off": (CHANGES["remove"], VMI, NO_DISKS, "cluster.feature-gate", "is off"),
    "another architecture": (CHANGES["memory"], {**VMI, "spec": {**VMI["spec"], "architecture": "arm64"}}, KNOWN,
        "guest.architecture", "arm64 guests cannot be resized while they run"),
    "too little memory": (MemoryChange(16 << 20), VMI, KNOWN, "memory.least",
        "memory 16Mi is too little for a guest (use at least 32Mi)"),
    "too much memory": (MemoryChange(8 * GIB), VMI, KNOWN, "memory.max-guest",
        ("memory 8Gi is more than the guest's maximum, 4Gi "
        "(use at most 4Gi, or raise domain.memory.maxGuest and restart)")),
    "too much memory, though there is room": (MemoryChange(8 * GIB), roomy(memory="16Gi"), KNOWN, "memory.max-guest",
        ("(use at most 4Gi, or raise domain.memory.maxGuest to 8Gi or more: QEMU has room for up to 16Gi, so no "
        "restart is needed)")),
    "too many sockets, though there is room": (CpuChange(6), roomy(sockets="8"), KNOWN, "cpu.max-sockets",
        "(use at most 4, or raise domain.cpu.maxSockets to 6: QEMU has room for 8, without a restart)"),
    "a maximum beyond the room": (MemoryLimit(32 * GIB), roomy(memory="16Gi"), KNOWN, "memory.headroom",
        ("a maximum of 32Gi is not within QEMU's headroom, up to 16Gi (use at most 16Gi; a restart gives it the new "
        "maximum)")),
    "a maximum where none was": (MemoryLimit(2 * GIB), instance(memory={"guest": "1Gi"}), KNOWN, "memory.headroom",
        ("the guest was started without a maximum, so QEMU has no room for more memory (a restart gives it the new "
        "maximum)")),
    "a maximum below the size": (MemoryLimit(GIB // 2), VMI, KNOWN, "memory.above-size",
        "a maximum of 512Mi is less than the 1Gi that the guest is to have (lower domain.memory.guest first)"),
    "too many sockets ever": (CpuLimit(9), roomy(sockets="8"), KNOWN, "cpu.headroom",
        "a maximum of 9 sockets is not within QEMU's room, 2 to 8 (use at most 8; a restart gives it the new maximum)"),
    "all slots taken": (CHANGES["memory"], by_dimm("16/16"), KNOWN, "memory.dimm-slots",
        "16 of the guest's 16 memory slots are taken (restart it, and it has the memory from the start)"),
    "all slots taken, by the VM's own word": (
        CHANGES["memory"], told_to_use("dimm", "16/16"), KNOWN, "memory.dimm-slots", "memory slots are taken"),
    "memory without a maximum": (MemoryChange(2 * GIB), instance(memory={"guest": "1Gi"}), KNOWN, "memory.max-guest",
        ("the guest was started without a maximum, so memory cannot become 2Gi "
        "(set domain.memory.maxGuest to 2Gi or more, and restart)")),
    "a guest without virtio-mem": (
        CHANGES["memory"], saying("MemoryHotplugAvailable", "False", message="it has no driver virtio_mem"), KNOWN,
        "guest.memory-hotplug", "it has no driver virtio_mem (use a kernel with CONFIG_VIRTIO_MEM"),
    "too many sockets": (CpuChange(5), VMI, KNOWN, "cpu.max-sockets",
        ("5 sockets are not within what the guest started with, 1 to 4 "
        "(use at most 4, or raise domain.cpu.maxSockets and restart)")),
    "more sockets for a guest with CPUs of its own": (
        CpuChange(3), instance(cpu={"sockets": 2, "maxSockets": 4, "dedicatedCpuPlacement": True}), KNOWN,
        "cpu.max-sockets", "so 2 sockets cannot become 3 live (restart the machine"),
    "no sockets": (CpuChange(0), VMI, KNOWN, "cpu.max-sockets", "0 sockets are not within"),
    "sockets without a maximum": (CpuChange(3), instance(cpu={"sockets": 2}), KNOWN, "cpu.max-sockets", "1 to 2"),
    "a kernel without CPU hotplug": (CHANGES["cpu"], saying("CPUHotplugAvailable", "False"), KNOWN, "guest.cpu-hotplug",
        "the guest's kernel cannot take up CPUs (use a kernel with CONFIG_HOTPLUG_CPU)"),
    "a kernel without PCI hotplug": (ADD_VIRTIO, saying("PCIHotplugAvailable", "False"), KNOWN, "guest.pci-hotplug",
        "cannot take up PCI devices (put the disk on bus scsi"),
    "a guest that needs its memory": (
        MemoryChange(512 << 20), VMI, known(spare=164 << 20), "guest.memory-spare",
        ("the guest can do without 100Mi now, and is to have 512Mi less "
        "(free memory in the guest, or ask for less of a change)")),
    "a node without memory": (CHANGES["memory"], VMI, known(room=Demand(9000, GIB)), "node.memory",
        "node node1 has 1Gi of memory free, and 1026Mi more are needed (stop another machine, or ask for less)"),
    "a node without CPUs": (CHANGES["cpu"], VMI, known(room=Demand(100, GIB)), "node.cpu",
        "node1 has 0.1 of CPUs free, and 0.2 more are needed"),
    "a quota without memory": (
        CHANGES["memory"], VMI, known(quotas=(Quota(name="small", resource="memory", hard=2 * GIB, used=GIB),)),
        "quota.memory", "quota small has 1Gi of memory left of 2Gi (raise it: kubectl edit resourcequota small"),
    "a quota without CPUs": (
        CHANGES["cpu"], VMI, known(quotas=(Quota(name="small", resource="cpu", hard=1000, used=900),)), "quota.cpu",
        "quota small has 0.1 of CPUs left of 1"),
    "one who may not": (CHANGES["memory"], VMI, denied(PATCH_VM), "caller.patch-vm",
        ("you may not change VM web (ask an administrator for: kubectl create rolebinding vm-edit -n default "
        "--clusterrole=edit --serviceaccount=shop:bot)")),
    "one who may not read claims": (ADD, VMI, denied(READ_CLAIM), "caller.read-claim", "--clusterrole=view"),
    "one who may not make the claim": (
        ADD, VMI, structs.replace(denied(MAKE_CLAIM), claims={}), "caller.create-claim",
        "you may not create PersistentVolumeClaim store"),
    "a claim that is not there": (ADD, VMI, known(claims={}), "disk.claim",
        "PersistentVolumeClaim store does not exist: the disk would wait for it (create PersistentVolumeClaim store)"),
    "a claim that lost its volume": (ADD, VMI, known(claims={"store": Claim(phase="Lost")}), "disk.claim-bound",
        "claim store has lost its volume (see why: kubectl describe pvc store)"),
    "a claim that may only be read": (
        ADD, VMI, known(claims={"store": Claim(modes=("ReadOnlyMany",))}), "disk.access-mode",
        "claim store is ReadOnlyMany: a disk cannot be written on it (set readonly: true on disk data"),
    "no PCIe port": (ADD_VIRTIO, VMI, known(places=Places(ports=0, scsi=9)), "disk.place",
        "the guest has 0 PCIe ports free (use bus scsi, or restart)"),
    "no SCSI target": (ADD, VMI, known(places=Places(ports=3, scsi=0)), "disk.place",
        "the guest has 0 targets of its SCSI controller free (take a disk away, or restart)"),
    "an IDE disk": (VolumeAdd(volume=CLAIM, disk={"name": "data", "disk": {"bus": "ide"}}), VMI, KNOWN, "disk.bus",
        "bus ide, which cannot hot-plug: IDE disks belong to a machine from its start"),
    "a permanent claim": (volume(persistentVolumeClaim={"claimName": "store"}), VMI, KNOWN, "disk.source",
        ("volume data is not a claim marked hotpluggable (set persistentVolumeClaim.hotpluggable: true, or "
        "hotvirt addvolume web --volume-name=store --persist)")),
    "no claim at all": (volume(emptyDisk={"capacity": "1Gi"}), VMI, KNOWN, "disk.source", "is not a claim"),
    "a bus that cannot": (VolumeAdd(volume=CLAIM, disk={"name": "data", "disk": {"bus": "sata"}}), VMI, KNOWN,
        "disk.bus",
        ("disk data is on bus sata, which cannot hot-plug: SATA disks belong to a machine from its start "
        "(set the bus of disk data to scsi)")),
    "a name that is taken": (VolumeAdd(volume={**CLAIM, "name": "root"}, disk=DISK), VMI, KNOWN, "disk.name",
        "the name root is the name of a volume the guest has already (choose another name)"),
    "a claim in use elsewhere": (ADD, VMI, USED, "disk.claim-free",
        "claim store is in use by VM db (detach it there, or use another claim for data)"),
    "a claim in use here": (
        volume(persistentVolumeClaim={"claimName": "log", "hotpluggable": True}), VMI, Facts(), "disk.claim-free",
        "claim log is in use by volume log of this machine"),
    "more than the limit that is the maximum": (
        MemoryChange(8 * GIB), instance(resources={"limits": {"memory": "4Gi"}}), KNOWN, "memory.max-guest",
        "(use at most 4Gi, or raise domain.resources.limits.memory and restart)"),
    "guaranteed memory grows": (
        MemoryChange(2 * GIB), instance(memory={"guest": "1Gi"}, resources=GUARANTEED), KNOWN, "memory.max-guest",
        "cannot become 2Gi (set domain.memory.maxGuest to 2Gi or more, and restart; from then on raise domain."),
    "memory of an instancetype": (MemoryChange(2 * GIB), VMI, known(sized_by=SMALL), "memory.owner",
        "instancetype small sets domain.memory.guest, so the machine cannot set it itself (name another "),
    "cpus of an instancetype": (CpuChange(4), VMI, known(sized_by=SMALL), "cpu.owner",
        "instancetype small sets domain.cpu.sockets"),
    "a maximum of an instancetype": (MemoryLimit(2 * GIB), VMI, known(sized_by=SMALL), "memory.owner",
        "instancetype small sets domain.memory.maxGuest"),
    "most cpus of an instancetype": (CpuLimit(3), VMI, known(sized_by=SMALL), "cpu.owner",
        "instancetype small sets domain.cpu.maxSockets"),
    "removal of a permanent disk": (VolumeRemove("root"), VMI, KNOWN, "disk.removable",
        "volume root is not attached as hotpluggable (restart to remove it)"),
    "removal of what is not there": (VolumeRemove("x"), VMI, KNOWN, "disk.removable",
        "volume x is not there (there are: root, log)"),
}  # fmt: skip


NIC_FAILS = {
    "a card of the pod network": (NicAdd({"name": "a", "bridge": {}}, {"name": "a", "pod": {}}), KNOWN, "nic.network",
        "the pod network's card belongs to the guest from its start (restart to add it)"),
    "no such network": (NIC, known(attachments=frozenset()), "nic.network",
        "NetworkAttachmentDefinition lan does not exist (create NetworkAttachmentDefinition lan)"),
    "networks not served": (NIC, known(attachments=None), "nic.network", "are not served here (use the pod network)"),
    "a binding that cannot": (NicAdd({"name": "lan", "masquerade": {}}, NIC.network), KNOWN, "nic.binding",
        "binding masquerade, which may not come to a running guest (set bridge: {} on interface lan)"),
    "a binding that only upstream has": (NicAdd({"name": "lan", "sriov": {}}, NIC.network), KNOWN, "nic.binding",
        "binding sriov, which may not come to a running guest (set bridge: {} on interface lan)"),
    "a network of another kind": (NIC, known(joins={"default/lan": "NetworkAttachmentDefinition lan: spec.config is"}),
        "nic.definition", "spec.config is (kubectl edit network-attachment-definition lan)"),
    "a home without root": (NIC, known(places=Places(ports=1, scsi=9, network="user")), "nic.bridge",
        "runs without root: its guests join no network beside the pod network (run the home as root)"),
    "no such bridge": (NIC, known(places=structs.replace(KNOWN.places, bridges={"br0": True})), "nic.bridge",
        "the guest's node has no bridge br1 (make it (ip link add br1 type bridge && ip link set br1 up), or name"),
    "no VLANs there": (NIC, known(joins={"default/lan": Bridge(name="br1", vlan=7)}), "nic.bridge",
        "bridge br1 of the guest's node keeps no VLANs apart (ip link set br1 type bridge vlan_filtering 1, or leave"),
    "a card that is there": (NicAdd({"name": "dmz", "bridge": {}}, NIC.network), KNOWN, "nic.name",
        "the name of a card the guest has already (choose another name)"),
    "no port": (NIC, known(places=Places(ports=0, scsi=1)), "nic.port", "the guest has 0 PCIe ports free"),
    "no such card": (NicLink("x", "up"), KNOWN, "nic.there", "the guest has no card x (there are: default, dmz)"),
    "the pod network's card goes": (NicRemove("default"), KNOWN, "nic.removable", "restart to remove it"),
    "cards with their gate off": (NIC, known(disabled_gates=frozenset({"HotplugNICs"})), "cluster.feature-gate",
        "the feature gate HotplugNICs is off"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "facts", "id_", "says"), NIC_FAILS.values(), ids=NIC_FAILS)
def test_each_fact_of_a_card_failing_is_told_with_its_mend(change, facts, id_, says):
    findings = [each for each in check(change, VMI, facts) if each.id != "nic.live"]
    assert [finding.id for finding in blockers(findings)] == [id_]
    assert says in sentence(findings)


@pytest.mark.parametrize("change", NICS.values(), ids=NICS)
def test_nothing_is_in_the_way_of_a_card_when_every_fact_holds(change):
    assert {each.id for each in blockers(check(change, VMI, KNOWN))} <= {"nic.live"}


def test_a_network_is_that_of_its_namespace():
    wide = known(joins={"other/lan": Bridge(name="br1"), "default/lan": "odd"})
    other = NicAdd(NIC.interface, {"name": "lan", "multus": {"networkName": "other/lan"}})
    assert found(other, "nic.definition", facts=wide).status == "pass"
    assert found(NIC, "nic.definition", facts=wide).status == "fail"
    unheard_of = known(joins={}, places=Places(ports=1, scsi=9))
    assert (found(NIC, "nic.definition", facts=unheard_of), found(NIC, "nic.bridge", facts=unheard_of)) == (None, None)


@pytest.mark.parametrize(
    ("said", "facts", "status", "words"),
    [
        ("default/lan", KNOWN, "pass", "NetworkAttachmentDefinition lan exists"),
        ("other/lan", KNOWN, "fail", "NetworkAttachmentDefinition other/lan does not exist"),
        ("other/lan", known(attachments=frozenset({"other/lan"})), "pass", "other/lan exists"),
        ("lan", known(attachments=frozenset({"other/lan"})), "fail", "NetworkAttachmentDefinition lan does not exist"),
        ("other/lan", known(knows_elsewhere=False), "unknown", "other/lan exists could not be found out"),
    ],
)
def test_a_network_is_of_the_namespace_that_it_names(said, facts, status, words):
    vmi = {**VMI, "metadata": {**VMI["metadata"], "namespace": "default"}}
    change = NicAdd({"name": "lan", "bridge": {}}, {"name": "lan", "multus": {"networkName": said}})
    [found] = [each for each in check(change, vmi, facts) if each.id == "nic.network"]
    assert found.status == status
    assert words in found.message
    assert "other" not in found.actual


def test_every_fact_of_cards_has_a_case():
    told = {finding.id for change in NICS.values() for finding in check(change, VMI, KNOWN)}
    assert told - {"nic.live", "guest.running", "caller.patch-vm"} == {id_ for *_, id_, _ in NIC_FAILS.values()}


IMPERATIVE = {"featureGates": ["HotplugVolumes"], "disabledFeatureGates": ["DeclarativeHotplugVolumes"]}


@pytest.mark.parametrize(
    ("gates", "is_on"),
    [
        (IMPERATIVE, True), ({**IMPERATIVE, "featureGates": ["HotPlugVolumes"]}, True),
        ({**IMPERATIVE, "featureGates": []}, False),
        ({**IMPERATIVE, "disabledFeatureGates": ["DeclarativeHotplugVolumes", "HotplugVolumes"]}, False),
        ({**IMPERATIVE, "featureGates": ["Snapshot"]}, False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("change", [ADD, VolumeRemove("log")], ids=["comes", "goes"])
def test_volumes_come_and_go_where_a_cluster_went_back_to_the_gate_of_before(change, gates, is_on):
    facts = Facts.of_cluster({"spec": {"configuration": {"developerConfiguration": gates}}})
    assert (found(change, "cluster.feature-gate", facts=facts).status == "pass") == is_on


@pytest.mark.parametrize(("change", "vmi", "facts", "id_", "says"), FAILS.values(), ids=FAILS)
def test_each_fact_failing_alone_is_told_with_its_mend(change, vmi, facts, id_, says):
    findings = check(change, vmi, facts)
    missing = {"disk.claim"} if id_ == "caller.create-claim" else set()  # it is only asked of a claim that is missing
    assert {finding.id for finding in blockers(findings)} == {id_} | missing
    told = sentence(findings)
    assert says in told
    assert "\n" not in told


def test_all_that_fails_is_told_at_once():
    vmi = saying("MemoryHotplugAvailable", "False")
    findings = check(MemoryChange(8 * GIB), vmi, Facts(rollout_strategy="Stage"))
    assert len(blockers(findings)) == 3
    assert sentence(findings).count("; ") == 2


def test_every_fact_can_fail_or_is_known_never_to_be_in_the_way():
    """A new fact needs a case above. These are told, and forbid nothing: what they find out is waited for."""
    never = {"memory.alignment", "guest.agent", "guest.running", "guest.memory-release", "guest.cpu-release"}
    told = {finding.id for change in CHANGES.values() for finding in check(change, VMI, KNOWN)}
    told |= {finding.id for finding in check(ADD, VMI, known(claims={}))}
    told |= {finding.id for finding in check(CHANGES["memory"], by_dimm("1/16"), KNOWN)}
    told |= {f"{what}.owner" for what in ("memory", "cpu")}  # of who has an instancetype
    assert told - never == {id_ for *_, id_, _ in FAILS.values()}
    assert set(FACTS) == {type(change) for change in (*CHANGES.values(), *NICS.values())}


SILENT = {**VMI, "status": {}}
UNKNOWN = {
    "agent": (CHANGES["cpu"], SILENT, KNOWN, "guest.agent", "install and start qemu-guest-agent"),
    "virtio-mem": (CHANGES["memory"], SILENT, Facts(), "guest.memory-hotplug", "CONFIG_VIRTIO_MEM"),
    "CPU hotplug": (CHANGES["cpu"], SILENT, Facts(), "guest.cpu-hotplug", "CONFIG_HOTPLUG_CPU"),
    "PCI hotplug": (ADD_VIRTIO, SILENT, Facts(), "guest.pci-hotplug", "scsi"),
    "claim": (ADD, VMI, known(claims={"store": Claim(phase="Pending")}), "disk.claim-bound", "kubectl describe pvc"),
    "a paused guest": (CHANGES["memory"], saying("Paused", "True"), KNOWN, "guest.running", "hotvirt unpause vm/web"),
    "a frozen guest": (
        CHANGES["memory"], {**VMI, "status": {**VMI["status"], "fsFreezeStatus": "frozen"}}, KNOWN, "guest.running",
        "unfreeze"),
    "memory it kept": (
        CHANGES["memory"], saying("HotMemoryChange", "False", message="512Mi left"), KNOWN, "guest.memory-release",
        "ask for less"),
    "CPUs it kept": (
        CpuChange(1), saying("HotVCPUChange", "False", reason="Pinned"), KNOWN, "guest.cpu-release", "unpin"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "vmi", "facts", "id_", "mend"), UNKNOWN.values(), ids=UNKNOWN)
def test_what_is_not_known_forbids_nothing_and_says_what_would_help(change, vmi, facts, id_, mend):
    finding = found(change, id_, vmi=vmi, facts=facts)
    assert finding.status == "unknown"
    assert mend in finding.mend
    assert blockers(check(change, vmi, facts)) == []


def test_what_nobody_asked_is_not_told():
    told = {each.id for change in CHANGES.values() for each in check(change, VMI, Facts())}
    asked = {"node.memory", "node.cpu", "quota.memory", "quota.cpu", "guest.memory-spare", "disk.place",
             "disk.claim", "disk.claim-bound",
             "disk.access-mode", "disk.claim-free", "caller.patch-vm", "caller.read-claim"}  # fmt: skip
    assert told & asked == set()


def test_a_guest_that_is_to_have_what_it_booted_with_needs_no_driver():
    vmi = saying("MemoryHotplugAvailable", "False")
    assert found(MemoryChange(GIB), "guest.memory-hotplug", vmi=vmi) is None
    assert found(MemoryChange(GIB + (2 << 20)), "guest.memory-hotplug", vmi=vmi).status == "fail"


def test_shrinking_asks_nothing_of_node_and_quota():
    full = known(room=Demand(), quotas=(Quota(name="q", resource="memory", hard=GIB, used=GIB),))
    assert blockers(check(MemoryChange(512 << 20), VMI, full)) == []
    assert blockers(check(CpuChange(1), VMI, known(room=Demand()))) == []


def test_a_cluster_that_overcommits_asks_less_of_the_node():
    tight = known(room=Demand(9000, 600 << 20), memory_overcommit=200)
    assert found(MemoryChange(2 * GIB), "node.memory", facts=tight).required == "514Mi free"
    requests = instance(resources={"requests": {"memory": "1Gi"}})
    assert found(MemoryChange(2 * GIB), "node.memory", vmi=requests, facts=tight).required == "1026Mi free"


def test_a_disk_that_is_only_read_may_be_on_a_claim_that_is():
    disk = {"name": "data", "disk": {"bus": "scsi", "readonly": True}}
    facts = known(claims={"store": Claim(modes=("ReadOnlyMany",))})
    assert blockers(check(VolumeAdd(volume=CLAIM, disk=disk), VMI, facts)) == []


def test_a_machine_that_does_not_run_is_changed_by_its_next_start():
    for change in (MemoryChange(8 * GIB), CpuChange(9), ADD, VolumeRemove("log")):
        findings = check_stopped(change, VMI, KNOWN)
        assert findings[0].id == "machine.running"
        assert "VM web does not run: the change holds from its next start" in findings[0].message
        assert blockers(findings) == []
    assert [each.id for each in blockers(check_stopped(CpuChange(9), VMI, denied(PATCH_VM)))] == ["caller.patch-vm"]


def test_memory_comes_in_whole_blocks():
    finding = found(MemoryChange(1500 * 10**6), "memory.alignment")
    assert finding.status == "pass"
    assert finding.message == "memory 1500000000 is given as 1430Mi, in whole blocks of 2Mi"
    exactly = MemoryChange(4 * GIB + 1000)
    assert blockers(check(exactly, VMI, KNOWN)) == [], "what does not fill a block does not count"


@pytest.mark.parametrize(
    ("size", "fits"), [(4 * GIB, True), (4 * GIB + (2 << 20), False), (32 << 20, True), ((32 << 20) - 1, False)]
)
def test_the_edges_of_memory(size, fits):
    assert (blockers(check(MemoryChange(size), VMI, KNOWN)) == []) is fits


@pytest.mark.parametrize(("sockets", "fits"), [(1, True), (4, True), (5, False), (0, False)])
def test_the_edges_of_cpus(sockets, fits):
    assert (blockers(check(CpuChange(sockets), VMI, KNOWN)) == []) is fits


def test_without_a_maximum_a_guest_may_go_back_to_what_it_started_with():
    shrunk = instance(memory={"guest": "512Mi"})
    assert blockers(check(MemoryChange(GIB), shrunk, KNOWN)) == []
    assert blockers(check(MemoryChange(GIB + (2 << 20)), shrunk, KNOWN)) != []


def test_small_guests_grow_like_any_other():
    """Upstream begins at 1Gi: that is a matter of how it migrates."""
    small = instance(memory={"guest": "64Mi", "maxGuest": "256Mi"})
    assert blockers(check(MemoryChange(128 << 20), small, KNOWN)) == []


def test_volumes_come_and_go_under_any_rollout_strategy():
    for change in (ADD, CHANGES["remove"]):
        assert blockers(check(change, VMI, STAGE)) == []


def test_a_shareable_disk_may_be_in_use_elsewhere():
    shared = VolumeAdd(volume=CLAIM, disk={**DISK, "shareable": True})
    assert found(shared, "disk.claim-free", facts=USED).status == "pass"


def test_an_instance_that_says_next_to_nothing_can_be_asked_about():
    bare = {"metadata": {}, "spec": {}}
    for change in CHANGES.values():
        assert check(change, bare, Facts())


@pytest.mark.parametrize(
    ("configuration", "facts"),
    [
        (None, Facts()),
        ({}, Facts()),
        ({"vmRolloutStrategy": "Stage"}, STAGE),
        ({"developerConfiguration": {"disabledFeatureGates": ["VMLiveUpdateFeatures"]}}, NO_LIVE),
    ],
)
def test_facts_of_the_kubevirt_object(configuration, facts):
    kubevirt = None if configuration is None else {"spec": {"configuration": configuration}}
    assert Facts.of_cluster(kubevirt) == facts


def test_sizes_are_shown_as_people_write_them():
    assert found(MemoryChange(quantity.parse_bytes("1536Mi")), "memory.max-guest").actual == "1536Mi"
