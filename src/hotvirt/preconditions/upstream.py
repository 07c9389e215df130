"""Judges a change by the rules of an upstream KubeVirt, from the objects that an ordinary user can read there. Pure.

There, CPUs and memory change by a live migration to a new pod: so the guest must be able to migrate, something must
start the migration, a second node must take it, and one unrelated edit that waits for a restart holds everything up.
Volumes are attached in place by a helper pod. Facts as of KubeVirt 1.9.
"""

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct, structs

from hotvirt.api import defaults, quantity
from hotvirt.preconditions import cluster, disk, nic
from hotvirt.preconditions.changes import Change, CpuChange, MemoryChange, NicAdd, VolumeAdd, VolumeRemove, label
from hotvirt.preconditions.facts import Facts
from hotvirt.preconditions.findings import Finding, condition, machine, verdict
from hotvirt.preconditions.owner import owner

Document = dict[str, Any]
LEAST = 1 << 30
SCHEDULABLE = "kubevirt.io/schedulable"
METHODS = "spec.workloadUpdateStrategy.workloadUpdateMethods"


class Surroundings(Struct, frozen=True, kw_only=True):
    """What is known beside the VM and its instance; None where the caller may not read it."""

    rollout_strategy: str | None = None
    update_methods: tuple[str, ...] | None = None
    schedulable_nodes: int | None = None
    migrating: bool | None = None
    edit: str = "kubectl edit kubevirt kubevirt -n kubevirt"
    """How the cluster's settings are changed."""
    facts: Facts = Facts()


def surroundings(
    kubevirt: Document | None, *, nodes: list[Document] | None, migrations: list[Document] | None, name: str,
    facts: Facts,
) -> Surroundings:  # fmt: skip
    """Out of documents."""
    spec = (kubevirt or {}).get("spec") or {}
    metadata = (kubevirt or {}).get("metadata") or {}
    methods = (spec.get("workloadUpdateStrategy") or {}).get("workloadUpdateMethods") or ()
    return Surroundings(
        rollout_strategy=None if kubevirt is None else facts.rollout_strategy,
        update_methods=None if kubevirt is None else tuple(map(str, methods)),
        schedulable_nodes=None if nodes is None else sum(_is_schedulable(each) for each in nodes),
        migrating=None if migrations is None else any(_is_under_way(each, name) for each in migrations),
        edit=_edit(metadata),
        facts=facts,
    )


def check(change: Change, vm: Document, vmi: Document, around: Surroundings) -> list[Finding]:
    found = [fact(change, vm, vmi, around) for fact in FACTS.get(type(change), ())]
    told = [fact(change, vmi, around.facts) for fact in SHARED.get(type(change), ())]
    return [structs.replace(each, change=label(change)) for each in (*found, *told) if each is not None]


def is_upstream_nic(change: NicAdd) -> bool:
    return "multus" in change.network


# By migration


def rollout(_: Change, __: Document, ___: Document, around: Surroundings) -> Finding:
    found = around.rollout_strategy
    live = None if found is None else found == "LiveUpdate"
    words = {
        True: "changes reach running guests",
        False: "the cluster applies changes at the next restart only",
        None: "the KubeVirt object cannot be read",
    }
    mend = f"set spec.configuration.vmRolloutStrategy to LiveUpdate: {around.edit}"
    return Finding(
        id="cluster.rollout-strategy", status=verdict(live), message=words[live], actual=found or "not known",
        required="LiveUpdate", mend="" if live else mend,
    )  # fmt: skip


def methods(_: Change, __: Document, ___: Document, around: Surroundings) -> Finding:
    """Empty in the stock installation: then the change is accepted, and waits for ever."""
    found = around.update_methods
    holds = None if found is None else "LiveMigrate" in found
    words = {
        True: "the cluster migrates guests that were changed",
        False: "nothing in the cluster would start the migration that makes the change: it would wait for ever",
        None: "the KubeVirt object cannot be read",
    }
    return Finding(
        id="upstream.update-methods", status=verdict(holds), message=words[holds],
        actual="not known" if found is None else ", ".join(found) or "none", required="LiveMigrate",
        mend="" if holds else f"add LiveMigrate to {METHODS}: {around.edit}",
    )  # fmt: skip


def migratable(_: Change, __: Document, vmi: Document, ___: Surroundings) -> Finding:
    found = condition(vmi, "LiveMigratable") or {}
    can = {"True": True, "False": False}.get(str(found.get("status")))
    why = str(found.get("message") or found.get("reason") or "no reason given")
    words = {
        True: "the guest can migrate",
        False: f"the guest cannot migrate: {why}",
        None: "whether the guest can migrate is not reported",
    }
    return Finding(
        id="upstream.migratable", status=verdict(can), message=words[can],
        actual=str(found.get("reason") or ("LiveMigratable" if can else "not known")), required="LiveMigratable",
        mend="" if can else "take away what holds it to its node (ReadWriteOnce volumes, a bridge, host devices)",
    )  # fmt: skip


def second_node(_: Change, __: Document, ___: Document, around: Surroundings) -> Finding:
    count = around.schedulable_nodes
    holds = None if count is None else count >= 2
    words = {True: "there is another node to migrate to", False: "there is no other node to migrate to",
             None: "nodes cannot be read with these rights"}  # fmt: skip
    return Finding(
        id="upstream.second-node", status=verdict(holds), message=words[holds],
        actual="not known" if count is None else f"{count} schedulable", required="2 schedulable nodes",
        mend="" if holds else "kubectl get nodes -l kubevirt.io/schedulable=true, as one who may; add or uncordon one",
    )  # fmt: skip


def no_restart_pending(_: Change, vm: Document, vmi: Document, __: Surroundings) -> Finding:
    found = condition(vm, "RestartRequired") or {}
    pending = found.get("status") == "True"
    said = str(found.get("message") or "no field is named")
    return Finding(
        id="upstream.no-restart-pending", status=verdict(not pending),
        message=f"an edit waits for a restart and holds up all others: {said}" if pending else "no edit waits",
        actual="RestartRequired" if pending else "none", required="no RestartRequired",
        mend=f"take that edit back, or: virtctl restart {machine(vmi)}" if pending else "",
    )  # fmt: skip


def no_migration(_: Change, __: Document, vmi: Document, around: Surroundings) -> Finding:
    state = (vmi.get("status") or {}).get("migrationState") or {}
    now = bool(state) and not state.get("completed") and not state.get("failed")
    busy = now or bool(around.migrating)
    return Finding(
        id="upstream.no-migration", status=verdict(not busy),
        message="the guest is migrating, and takes no other change meanwhile" if busy else "the guest is not migrating",
        actual="migrating" if busy else "none", required="none",
        mend="wait: kubectl get vmim" if busy else "",
    )  # fmt: skip


def no_change_pending(change: Change, __: Document, vmi: Document, ___: Surroundings) -> Finding:
    """A second hot-plug while one waits is an error there; a memory change that failed needs a restart."""
    kind = "HotMemoryChange" if isinstance(change, MemoryChange) else "HotVCPUChange"
    found = str((condition(vmi, kind) or {}).get("status") or "")
    words = {"": "no other change is on its way", "True": f"another change is on its way ({kind})",
             "False": f"the last change failed ({kind}): only a restart helps"}  # fmt: skip
    return Finding(
        id="upstream.no-change-pending", status=verdict(not found), message=words.get(found, words["True"]),
        actual=f"{kind}={found}" if found else "none", required="none",
        mend="" if not found else f"virtctl restart {machine(vmi)}" if found == "False" else "wait, or take it back",
    )  # fmt: skip


# Memory


def memory_size(change: MemoryChange, __: Document, ___: Document, ____: Surroundings) -> Finding:
    wanted = quantity.format_bytes(change.guest)
    fits = change.guest >= LEAST
    return Finding(
        id="upstream.memory-least", status=verdict(fits), actual=wanted, required="at least 1Gi",
        message=f"memory {wanted} is {'at least' if fits else 'less than'} the 1Gi from which it is resized there",
        mend="" if fits else "use 1Gi or more, or restart", field="domain.memory.guest",
    )  # fmt: skip


def memory_alignment(change: MemoryChange, __: Document, vmi: Document, ___: Surroundings) -> Finding:
    hugepages = ((vmi["spec"].get("domain") or {}).get("memory") or {}).get("hugepages") or {}
    block = 1 << 30 if hugepages.get("pageSize") == "1Gi" else defaults.BLOCK
    wanted, whole = quantity.format_bytes(change.guest), change.guest % block == 0
    size = quantity.format_bytes(block)
    return Finding(
        id="upstream.memory-alignment", status=verdict(whole), actual=wanted, required=f"a multiple of {size}",
        message=f"memory {wanted} is {'' if whole else 'not '}a multiple of {size}",
        mend="" if whole else f"use {quantity.format_bytes(max(block, change.guest // block * block))}",
        field="domain.memory.guest",
    )  # fmt: skip


def memory_maximum(change: MemoryChange, __: Document, vmi: Document, ___: Surroundings) -> Finding:
    most = ((vmi["spec"].get("domain") or {}).get("memory") or {}).get("maxGuest")
    wanted = quantity.format_bytes(change.guest)
    fits = most is not None and change.guest <= quantity.parse_bytes(most)
    message = (
        f"memory {wanted} is {'within' if fits else 'more than'} the guest's maximum, {most}" if most is not None
        else "the guest was started without memory hot-plug (it has no maxGuest)"
    )  # fmt: skip
    return Finding(
        id="memory.max-guest", status=verdict(fits), message=message, actual=wanted,
        required=f"at most {most or 'a maxGuest'}", field="domain.memory.guest",
        mend="" if fits else f"set domain.memory.maxGuest to {wanted} or more, and restart",
    )  # fmt: skip


def memory_at_boot(change: MemoryChange, __: Document, vmi: Document, ___: Surroundings) -> Finding:
    at_boot = ((vmi.get("status") or {}).get("memory") or {}).get("guestAtBoot")
    wanted = quantity.format_bytes(change.guest)
    fits = None if at_boot is None else change.guest >= quantity.parse_bytes(at_boot)
    words = {True: "not below what the guest started with", False: f"below what the guest started with, {at_boot}",
             None: "measured against a start size that is not reported"}  # fmt: skip
    return Finding(
        id="upstream.memory-boot-size", status=verdict(fits), message=f"memory {wanted} is {words[fits]}",
        actual=wanted, required=f"at least {at_boot or 'the size at boot'}", field="domain.memory.guest",
        mend="" if fits else "restart to have less than at boot",
    )  # fmt: skip


def memory_compatible(_: MemoryChange, __: Document, vmi: Document, ___: Surroundings) -> Finding:
    domain = vmi["spec"].get("domain") or {}
    cpu = domain.get("cpu") or {}
    numa = cpu.get("numa") or {}
    against = [
        name for name, has in {
            "domain.cpu.realtime": cpu.get("realtime") is not None,
            "domain.cpu.numa.guestMappingPassthrough": numa.get("guestMappingPassthrough") is not None,
            "domain.launchSecurity": domain.get("launchSecurity") is not None,
        }.items() if has
    ]  # fmt: skip
    return Finding(
        id="upstream.memory-compatible", status=verdict(not against), actual=", ".join(against) or "none",
        message=f"{' and '.join(against)} and memory hot-plug exclude each other" if against else "nothing excludes it",
        required="no realtime, NUMA mapping or launch security", mend="restart to have another size" if against else "",
    )  # fmt: skip


# CPUs


def sockets(change: CpuChange, __: Document, vmi: Document, ___: Surroundings) -> Finding:
    cpu = (vmi["spec"].get("domain") or {}).get("cpu") or {}
    most = int(cpu.get("maxSockets") or cpu.get("sockets") or 1)
    fits = 1 <= change.sockets <= most
    return Finding(
        id="cpu.max-sockets", status=verdict(fits), actual=str(change.sockets), required=f"1 to {most}",
        message=f"{change.sockets} sockets are {'' if fits else 'not '}within what the guest started with, 1 to {most}",
        mend="" if fits else f"use at most {most}, or raise domain.cpu.maxSockets and restart",
        field="domain.cpu.sockets",
    )  # fmt: skip


def sockets_grow(change: CpuChange, __: Document, vmi: Document, ___: Surroundings) -> Finding:
    has = int(((vmi["spec"].get("domain") or {}).get("cpu") or {}).get("sockets") or 1)
    fits = change.sockets >= has
    return Finding(
        id="upstream.cpu-never-fewer", status=verdict(fits), actual=str(change.sockets), required=f"at least {has}",
        message=f"sockets {has} -> {change.sockets}: CPUs are {'added' if fits else 'never taken away'} while it runs",
        mend="" if fits else "restart to have fewer", field="domain.cpu.sockets",
    )  # fmt: skip


# Cards


def nic_in_place(change: NicAdd, __: Document, ___: Document, ____: Surroundings) -> Finding:
    fits = is_upstream_nic(change)
    return Finding(
        id="upstream.nic-network", status=verdict(fits),
        message=f"the card is {'' if fits else 'not '}of a second network", actual="multus" if fits else "pod",
        required="a Multus network", mend="" if fits else "restart to add it",
    )  # fmt: skip


Fact = Callable[[Any, Document, Document, Surroundings], Finding | None]
MIGRATES: tuple[Fact, ...] = (rollout, no_restart_pending, methods, migratable, second_node, no_migration)
FACTS: Mapping[type, tuple[Fact, ...]] = {
    MemoryChange: (
        *MIGRATES, no_change_pending, memory_size, memory_alignment, memory_maximum, memory_at_boot, memory_compatible,
    ),
    CpuChange: (*MIGRATES, no_change_pending, sockets, sockets_grow),
    VolumeAdd: (no_migration,),
    VolumeRemove: (no_migration,),
    NicAdd: (nic_in_place, no_migration),
}  # fmt: skip
SHARED: Mapping[type, tuple[Callable[[Any, Document, Facts], Finding | None], ...]] = {
    MemoryChange: (cluster.patch_vm, owner, cluster.architecture, cluster.gate),
    CpuChange: (cluster.patch_vm, owner, cluster.architecture, cluster.gate),
    VolumeAdd: (
        cluster.patch_vm, cluster.gate, disk.name_free, disk.source, disk.bus, disk.claim_exists, disk.claim_bound,
        disk.access_mode, disk.claim_free, disk.read_claim, disk.make_claim,
    ),
    VolumeRemove: (cluster.patch_vm, cluster.gate, disk.removable),
    NicAdd: (cluster.patch_vm, cluster.gate, nic.name_free, nic.network, nic.upstream_binding),
}  # fmt: skip
"""Facts that are the same here and there."""


def _edit(metadata: Document) -> str:
    """Where an operator of operators owns the KubeVirt object (OpenShift), that one's is edited: it has the same field,
    and would take an edit of the other back."""
    owner = next((o for o in metadata.get("ownerReferences") or () if o.get("kind") == "HyperConverged"), None)
    kind, name = ("hyperconverged", owner.get("name")) if owner else ("kubevirt", metadata.get("name") or "kubevirt")
    return f"kubectl edit {kind} {name} -n {metadata.get('namespace') or 'kubevirt'}"


def _is_schedulable(node: Document) -> bool:
    labels = (node.get("metadata") or {}).get("labels") or {}
    return labels.get(SCHEDULABLE) == "true" and not (node.get("spec") or {}).get("unschedulable")


def _is_under_way(migration: Document, name: str) -> bool:
    phase = (migration.get("status") or {}).get("phase")
    return (migration.get("spec") or {}).get("vmiName") == name and phase not in ("Succeeded", "Failed")


def reach(vmi: Document) -> tuple[tuple[str, str, int], tuple[int, int]]:
    """Memory now and at most (as text, and in bytes), sockets now and at most."""
    domain = vmi["spec"].get("domain") or {}
    memory, cpu = domain.get("memory") or {}, domain.get("cpu") or {}
    size = defaults.guest_memory(domain) or 0
    most = quantity.parse_bytes(memory["maxGuest"]) if memory.get("maxGuest") else size
    now = str(((vmi.get("status") or {}).get("memory") or {}).get("guestCurrent") or quantity.format_bytes(size))
    has = int(cpu.get("sockets") or 1)
    return (now, quantity.format_bytes(most), most), (has, int(cpu.get("maxSockets") or has))
