"""Judges one change to one running guest: a finding for each fact it rests on. Pure.

Only what hotvirt needs is asked. Upstream asks more, since it moves the guest to a new pod: a second node, a migratable
guest, at least 1 GiB. None of that matters to a change made in the running QEMU.
"""

from collections.abc import Callable
from typing import Any

from msgspec import structs

from hotvirt.preconditions import cluster, cpu, disk, memory
from hotvirt.preconditions.changes import Change, CpuChange, MemoryChange, VolumeAdd, VolumeRemove, label
from hotvirt.preconditions.facts import Facts
from hotvirt.preconditions.findings import Finding

Document = dict[str, Any]
Fact = Callable[[Any, Document, Facts], Finding | None]
"""(change, running instance, facts) -> what was found; None when the change does not rest on it."""

FACTS: dict[type, tuple[Fact, ...]] = {
    MemoryChange: (cluster.rollout, cluster.gate, cluster.architecture, *memory.FACTS),
    CpuChange: (cluster.rollout, cluster.gate, cluster.architecture, *cpu.FACTS),
    # Volumes come and go under any rollout strategy, as upstream.
    VolumeAdd: (cluster.gate, *disk.ADD),
    VolumeRemove: (cluster.gate, *disk.REMOVE),
}


def check(change: Change, vmi: Document, facts: Facts) -> list[Finding]:
    """`vmi` is the running instance: its limits were fixed when it started."""
    found = (fact(change, vmi, facts) for fact in FACTS[type(change)])
    return [structs.replace(finding, change=label(change)) for finding in found if finding is not None]
