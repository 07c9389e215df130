"""Judges one change to one running guest: a finding for each fact it rests on. Pure.

Only what hotvirt needs is asked. Upstream asks more, since it moves the guest to a new pod: a second node, a migratable
guest, at least 1 GiB (see `upstream`). None of that matters to a change made in the running QEMU.
"""

from collections.abc import Callable
from typing import Any

from msgspec import structs

from hotvirt.preconditions import cluster, cpu, disk, limits, memory, nic
from hotvirt.preconditions.changes import (
    Change,
    CpuChange,
    CpuLimit,
    MemoryChange,
    MemoryLimit,
    NicAdd,
    NicLink,
    NicRemove,
    VolumeAdd,
    VolumeRemove,
    label,
)
from hotvirt.preconditions.facts import Facts
from hotvirt.preconditions.findings import Finding
from hotvirt.preconditions.owner import owner

Document = dict[str, Any]
Fact = Callable[[Any, Document, Facts], Finding | None]
"""(change, running instance, facts) -> what was found; None when the change does not rest on it."""

SIZE: tuple[Fact, ...] = (cluster.patch_vm, owner, cluster.rollout, cluster.gate, cluster.architecture)
FACTS: dict[type, tuple[Fact, ...]] = {
    MemoryChange: (*SIZE, *memory.FACTS),
    CpuChange: (*SIZE, *cpu.FACTS),
    MemoryLimit: (*SIZE, *limits.MEMORY),
    CpuLimit: (*SIZE, *limits.CPU),
    # Volumes and cards come and go under any rollout strategy, as upstream.
    VolumeAdd: (cluster.patch_vm, cluster.gate, *disk.ADD),
    VolumeRemove: (cluster.patch_vm, cluster.gate, *disk.REMOVE),
    NicAdd: (cluster.patch_vm, cluster.gate, *nic.ADD),
    NicRemove: (cluster.patch_vm, cluster.gate, *nic.REMOVE),
    NicLink: (cluster.patch_vm, cluster.gate, *nic.LINK),
}
AT_A_START: dict[type, tuple[Fact, ...]] = {
    MemoryChange: (cluster.patch_vm, owner, memory.alignment, memory.least),
    CpuChange: (cluster.patch_vm, owner),
    MemoryLimit: (cluster.patch_vm, owner),
    CpuLimit: (cluster.patch_vm, owner),
    VolumeAdd: (
        cluster.patch_vm, disk.name_free, disk.claim_exists, disk.claim_bound, disk.access_mode, disk.claim_free,
        disk.read_claim, disk.make_claim,
    ),
    VolumeRemove: (cluster.patch_vm,),
    NicAdd: (cluster.patch_vm, nic.name_free),
    NicRemove: (cluster.patch_vm, nic.there),
    NicLink: (cluster.patch_vm, nic.there),
}  # fmt: skip
"""What remains to be asked when no guest runs: the change is an edit that holds from the next start."""


def check(change: Change, vmi: Document, facts: Facts) -> list[Finding]:
    """`vmi` is the running instance: its limits were fixed when it started."""
    return _found(FACTS[type(change)], change, vmi, facts)


def check_stopped(change: Change, template: Document, facts: Facts) -> list[Finding]:
    """`template` is an instance as it would be made of the VM now."""
    name = (template.get("metadata") or {}).get("name")
    stands = Finding(
        id="machine.running", status="pass", message=f"VM {name} does not run: the change holds from its next start",
        actual="stopped", required="", change=label(change),
    )  # fmt: skip
    return [stands, *_found(AT_A_START[type(change)], change, template, facts)]


def _found(facts: tuple[Fact, ...], change: Change, vmi: Document, known: Facts) -> list[Finding]:
    found = (fact(change, vmi, known) for fact in facts)
    return [structs.replace(finding, change=label(change)) for finding in found if finding is not None]
