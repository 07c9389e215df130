"""What each live change rests on: every fact holding, failing and unknown, with the words a person is given."""

import copy

import pytest

from hotvirt.api import quantity
from hotvirt.preconditions import (
    CpuChange,
    Facts,
    MemoryChange,
    VolumeAdd,
    VolumeRemove,
    blockers,
    check,
    sentence,
)
from hotvirt.preconditions.check import FACTS

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
            "devices": {"disks": [{"name": "root", "disk": {"bus": "virtio"}}]},
        },
        "volumes": [ROOT, LOG],
    },
    "status": {"memory": {"guestAtBoot": "1Gi"}, "conditions": [{"type": "AgentConnected", "status": "True"}]},
}
KNOWN = Facts(claims=frozenset({"store"}), claim_users={}, memory_hotplug=True, cpu_hotplug=True)
ADD = VolumeAdd(volume=CLAIM, disk=DISK)
CHANGES = {"memory": MemoryChange(2 * GIB), "cpu": CpuChange(4), "add": ADD, "remove": VolumeRemove("log")}


def instance(**domain):
    vmi = copy.deepcopy(VMI)
    vmi["spec"]["domain"] |= domain
    return vmi


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
     (VolumeRemove("log"), "no disk=log")],
)  # fmt: skip
def test_a_finding_names_its_change(change, asked):
    assert {finding.change for finding in check(change, VMI, KNOWN)} == {asked}


STAGE = Facts(rollout_strategy="Stage")
NO_LIVE = Facts(disabled_gates=frozenset({"VMLiveUpdateFeatures"}))
NO_DISKS = Facts(disabled_gates=frozenset({"DeclarativeHotplugVolumes"}))
USED = Facts(claims=frozenset({"store"}), claim_users={"store": "vm db"})

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
    "memory without a maximum": (MemoryChange(2 * GIB), instance(memory={"guest": "1Gi"}), KNOWN, "memory.max-guest",
        ("the guest was started without a maximum, so memory cannot become 2Gi "
        "(set domain.memory.maxGuest to 2Gi or more, and restart)")),
    "a guest without virtio-mem": (CHANGES["memory"], VMI, Facts(memory_hotplug=False), "guest.memory-hotplug",
        "the guest's kernel has no virtio-mem driver"),
    "too many sockets": (CpuChange(5), VMI, KNOWN, "cpu.max-sockets",
        ("5 sockets are not within what the guest started with, 1 to 4 "
        "(use at most 4, or raise domain.cpu.maxSockets and restart)")),
    "no sockets": (CpuChange(0), VMI, KNOWN, "cpu.max-sockets", "0 sockets are not within"),
    "sockets without a maximum": (CpuChange(3), instance(cpu={"sockets": 2}), KNOWN, "cpu.max-sockets", "1 to 2"),
    "a kernel without CPU hotplug": (CHANGES["cpu"], VMI, Facts(cpu_hotplug=False), "guest.cpu-hotplug",
        "the guest's kernel cannot take up CPUs (use a kernel with CONFIG_HOTPLUG_CPU)"),
    "a permanent claim": (volume(persistentVolumeClaim={"claimName": "store"}), VMI, KNOWN, "disk.source",
        ("volume data is not a claim marked hotpluggable (set persistentVolumeClaim.hotpluggable: true, or "
        "hotvirt addvolume web --volume-name=store --persist)")),
    "no claim at all": (volume(emptyDisk={"capacity": "1Gi"}), VMI, KNOWN, "disk.source", "is not a claim"),
    "a bus that cannot": (VolumeAdd(volume=CLAIM, disk={"name": "data", "disk": {"bus": "sata"}}), VMI, KNOWN,
        "disk.bus", "disk data is on bus sata, which cannot hot-plug (set the bus of disk data to scsi)"),
    "a name that is taken": (VolumeAdd(volume={**CLAIM, "name": "root"}, disk=DISK), VMI, KNOWN, "disk.name",
        "the name root is the name of a volume the guest has already (choose another name)"),
    "a claim in use elsewhere": (ADD, VMI, USED, "disk.claim-free",
        "claim store is in use by vm db (detach it there, or use another claim for data)"),
    "a claim in use here": (
        volume(persistentVolumeClaim={"claimName": "log", "hotpluggable": True}), VMI, Facts(), "disk.claim-free",
        "claim log is in use by volume log of this machine"),
    "removal of a permanent disk": (VolumeRemove("root"), VMI, KNOWN, "disk.removable",
        "volume root is not attached as hotpluggable (restart to remove it)"),
    "removal of what is not there": (VolumeRemove("x"), VMI, KNOWN, "disk.removable",
        "volume x is not there (there are: root, log)"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "vmi", "facts", "id_", "says"), FAILS.values(), ids=FAILS)
def test_each_fact_failing_alone_is_told_with_its_mend(change, vmi, facts, id_, says):
    findings = check(change, vmi, facts)
    assert [finding.id for finding in blockers(findings)] == [id_]
    told = sentence(findings)
    assert says in told
    assert "\n" not in told


def test_all_that_fails_is_told_at_once():
    findings = check(MemoryChange(8 * GIB), VMI, Facts(rollout_strategy="Stage", memory_hotplug=False))
    assert len(blockers(findings)) == 3
    assert sentence(findings).count("; ") == 2


def test_every_fact_can_fail_or_is_known_never_to_be_in_the_way():
    """A new fact needs a case above. These are told, and forbid nothing: what they find out is waited for."""
    never = {"memory.alignment", "guest.agent", "disk.claim"}
    told = {finding.id for change in CHANGES.values() for finding in check(change, VMI, KNOWN)}
    assert told - never == {id_ for *_, id_, _ in FAILS.values()}
    assert set(FACTS) == {type(change) for change in CHANGES.values()}


UNKNOWN = {
    "agent": (CHANGES["cpu"], {**VMI, "status": {}}, KNOWN, "guest.agent", "install and start qemu-guest-agent"),
    "virtio-mem": (CHANGES["memory"], VMI, Facts(), "guest.memory-hotplug", "CONFIG_VIRTIO_MEM"),
    "CPU hotplug": (CHANGES["cpu"], VMI, Facts(), "guest.cpu-hotplug", "CONFIG_HOTPLUG_CPU"),
    "claim": (ADD, VMI, Facts(claims=frozenset()), "disk.claim", "create PersistentVolumeClaim store"),
}


@pytest.mark.parametrize(("change", "vmi", "facts", "id_", "mend"), UNKNOWN.values(), ids=UNKNOWN)
def test_what_is_not_known_forbids_nothing_and_says_what_would_help(change, vmi, facts, id_, mend):
    finding = found(change, id_, vmi=vmi, facts=facts)
    assert finding.status == "unknown"
    assert mend in finding.mend
    assert blockers(check(change, vmi, facts)) == []


def test_what_nobody_asked_is_not_told():
    assert found(ADD, "disk.claim", facts=Facts()) is None
    assert found(ADD, "disk.claim-free", facts=Facts()) is None


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
