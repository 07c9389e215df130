"""Upstream KubeVirt's rules: every fact holding, failing and unknown, and what an ordinary user could not read."""

import copy

import pytest
from msgspec import structs

from hotvirt.preconditions import CpuChange, Facts, MemoryChange, NicAdd, VolumeAdd, VolumeRemove, blockers, upstream
from hotvirt.preconditions.facts import PATCH_VM, Caller, Claim
from hotvirt.preconditions.upstream import Surroundings, check, surroundings

GIB = 1 << 30
VM = {"metadata": {"name": "web"}, "status": {}}
VMI = {
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {
        "domain": {"memory": {"guest": "2Gi", "maxGuest": "8Gi"}, "cpu": {"sockets": 2, "maxSockets": 8}},
        "volumes": [{"name": "root", "persistentVolumeClaim": {"claimName": "root"}}],
    },
    "status": {
        "phase": "Running",
        "memory": {"guestAtBoot": "2Gi", "guestCurrent": "2Gi"},
        "conditions": [{"type": "LiveMigratable", "status": "True"}],
    },
}
GOOD = Surroundings(
    rollout_strategy="LiveUpdate", update_methods=("LiveMigrate",), schedulable_nodes=3, migrating=False,
    facts=Facts(claims={"data": Claim(modes=("ReadWriteMany",))}, claim_users={}, attachments=frozenset({"lan"}),
                caller=Caller(may={PATCH_VM: True})),
)  # fmt: skip
GROW, MORE = MemoryChange(4 * GIB), CpuChange(4)
DISK = VolumeAdd(
    {"name": "data", "persistentVolumeClaim": {"claimName": "data", "hotpluggable": True}},
    {"name": "data", "disk": {"bus": "scsi"}},
)
NIC = NicAdd({"name": "lan", "bridge": {}}, {"name": "lan", "multus": {"networkName": "lan"}})
CHANGES = (GROW, MORE, DISK, NIC)


def around(**given):
    return structs.replace(GOOD, **given)


def instance(change):
    vmi = copy.deepcopy(VMI)
    change(vmi)
    return vmi


def test_upstream_has_another_binding():
    card = NicAdd({"name": "lan", "sriov": {}}, NIC.network)
    assert not blockers(check(card, VM, VMI, GOOD))


def saying(kind, status, **more):
    def change(vmi):
        kept = [each for each in vmi["status"]["conditions"] if each["type"] != kind]
        vmi["status"]["conditions"] = [*kept, {"type": kind, "status": status, **more}]

    return instance(change)


def domain(**parts):
    return instance(lambda vmi: vmi["spec"]["domain"].update(parts))


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_all_is_well_when_every_fact_holds(change):
    findings = check(change, VM, VMI, GOOD)
    assert {each.status for each in findings} == {"pass"}, [each for each in findings if each.status != "pass"]
    assert len({each.id for each in findings}) == len(findings)


PENDING = {"status": {"conditions": [{"type": "RestartRequired", "status": "True", "message": "a field was changed"}]}}
FAILS = {
    "staged": (GROW, VM, VMI, around(rollout_strategy="Stage"), "cluster.rollout-strategy", "next restart only"),
    "the stock installation": (MORE, VM, VMI, around(update_methods=()), "upstream.update-methods", "wait for ever"),
    "evicted instead": (MORE, VM, VMI, around(update_methods=("Evict",)), "upstream.update-methods", "LiveMigrate"),
    "not migratable": (
        GROW, VM, saying("LiveMigratable", "False", message="PVC root is not shared"), GOOD, "upstream.migratable",
        "the guest cannot migrate: PVC root is not shared",
    ),
    "one node": (GROW, VM, VMI, around(schedulable_nodes=1), "upstream.second-node", "no other node"),
    "an edit waits": (GROW, PENDING, VMI, GOOD, "upstream.no-restart-pending", "a field was changed"),
    "it migrates": (GROW, VM, VMI, around(migrating=True), "upstream.no-migration", "is migrating"),
    "a change waits": (MORE, VM, saying("HotVCPUChange", "True"), GOOD, "upstream.no-change-pending", "on its way"),
    "a change failed": (
        GROW, VM, saying("HotMemoryChange", "False"), GOOD, "upstream.no-change-pending", "only a restart helps",
    ),
    "unaligned": (MemoryChange(4 * GIB + 1), VM, VMI, GOOD, "upstream.memory-alignment", "not a multiple of 2Mi"),
    "unaligned pages": (
        MemoryChange(5 * GIB + (2 << 20)), VM,
        domain(memory={"guest": "2Gi", "maxGuest": "8Gi", "hugepages": {"pageSize": "1Gi"}}), GOOD,
        "upstream.memory-alignment", "not a multiple of 1Gi",
    ),
    "too much": (MemoryChange(9 * GIB), VM, VMI, GOOD, "memory.max-guest", "more than the guest's maximum, 8Gi"),
    "no maximum": (GROW, VM, domain(memory={"guest": "2Gi"}), GOOD, "memory.max-guest", "without memory hot-plug"),
    "less than at boot": (MemoryChange(GIB), VM, VMI, GOOD, "upstream.memory-boot-size", "started with, 2Gi"),
    "realtime": (
        GROW, VM, domain(cpu={"sockets": 2, "realtime": {}}), GOOD, "upstream.memory-compatible", "domain.cpu.realtime",
    ),
    "encrypted": (GROW, VM, domain(launchSecurity={"sev": {}}), GOOD, "upstream.memory-compatible", "launchSecurity"),
    "too many sockets": (CpuChange(9), VM, VMI, GOOD, "cpu.max-sockets", "1 to 8"),
    "fewer sockets": (CpuChange(1), VM, VMI, GOOD, "upstream.cpu-never-fewer", "sockets 2 -> 1"),
    "arm": (
        MORE, VM, instance(lambda vmi: vmi["spec"].update(architecture="arm64")), GOOD, "guest.architecture", "arm64",
    ),
    "not permitted": (
        GROW, VM, VMI, around(facts=Facts(caller=Caller(may={PATCH_VM: False}))), "caller.patch-vm",
        "you may not change VM web",
    ),
    "no claim": (DISK, VM, VMI, around(facts=Facts(claims={})), "disk.claim", "does not exist"),
    "no network": (NIC, VM, VMI, around(facts=Facts(attachments=frozenset())), "nic.network", "does not exist"),
    "the pod network": (
        NicAdd({"name": "a", "bridge": {}}, {"name": "a", "pod": {}}), VM, VMI, GOOD, "upstream.nic-network", "not of",
    ),
    "gone, and not hotpluggable": (VolumeRemove("root"), VM, VMI, GOOD, "disk.removable", "not attached"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "vm", "vmi", "known", "id_", "says"), FAILS.values(), ids=FAILS)
def test_each_rule_failing_is_told(change, vm, vmi, known, id_, says):
    failing = blockers(check(change, vm, vmi, known))
    beside = {"nic.network"} if id_ == "upstream.nic-network" else set()
    assert {each.id for each in failing} - beside == {id_}
    found = next(each for each in failing if each.id == id_)
    assert says in found.message + found.mend
    assert found.required


def test_less_than_a_gibibyte_is_never_resized():
    small = instance(lambda vmi: vmi["status"].update(memory={"guestAtBoot": "512Mi"}))
    assert {each.id for each in blockers(check(MemoryChange(768 << 20), VM, small, GOOD))} == {"upstream.memory-least"}


@pytest.mark.parametrize("change", [GROW, MORE], ids=str)
def test_what_an_ordinary_user_cannot_read_is_not_known_and_forbids_nothing(change):
    silent = instance(lambda vmi: vmi.update(status={"phase": "Running"}))
    findings = check(change, VM, silent, Surroundings())
    assert blockers(findings) == []
    unknown = {each.id for each in findings if each.status == "unknown"}
    assert unknown >= {
        "cluster.rollout-strategy", "upstream.update-methods", "upstream.migratable", "upstream.second-node",
    }  # fmt: skip


def test_surroundings_out_of_documents():
    kubevirt = {
        "metadata": {"name": "kv", "namespace": "cnv"},
        "spec": {"workloadUpdateStrategy": {"workloadUpdateMethods": ["LiveMigrate"]}},
    }
    label = {"kubevirt.io/schedulable": "true"}
    nodes = [
        {"metadata": {"labels": label}},
        {"metadata": {"labels": label}, "spec": {"unschedulable": True}},
        {"metadata": {}},
    ]
    migrations = [{"spec": {"vmiName": "web"}, "status": {"phase": "Running"}}]
    found = surroundings(kubevirt, nodes=nodes, migrations=migrations, name="web", facts=Facts())
    assert (found.update_methods, found.schedulable_nodes, found.migrating) == (("LiveMigrate",), 1, True)
    assert found.edit == "kubectl edit kubevirt kv -n cnv"
    nothing = surroundings(None, nodes=None, migrations=None, name="web", facts=Facts())
    assert nothing == Surroundings()
    over = [{"spec": {"vmiName": "web"}, "status": {"phase": "Succeeded"}}, {"spec": {"vmiName": "db"}}]
    assert not surroundings(None, nodes=None, migrations=over, name="web", facts=Facts()).migrating


def test_on_openshift_the_owner_of_the_settings_is_edited():
    owner = {"kind": "HyperConverged", "name": "kubevirt-hyperconverged"}
    metadata = {"name": "kv", "namespace": "openshift-cnv", "ownerReferences": [owner]}
    found = surroundings({"metadata": metadata, "spec": {}}, nodes=None, migrations=None, name="web", facts=Facts())
    mend = next(each for each in check(GROW, VM, VMI, found) if each.id == "upstream.update-methods").mend
    assert "kubectl edit hyperconverged kubevirt-hyperconverged -n openshift-cnv" in mend


def test_how_far_it_could_go():
    assert upstream.reach(VMI) == (("2Gi", "8Gi", 8 * GIB), (2, 8))
