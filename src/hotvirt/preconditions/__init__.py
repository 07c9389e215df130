"""What must hold for each live change. Pure: (change, running instance, facts) -> list of findings.

The one source of every refusal's words: conditions, events, the CLI and the API print these findings.
"""

from hotvirt.preconditions.changes import Change, CpuChange, MemoryChange, VolumeAdd, VolumeRemove
from hotvirt.preconditions.check import check
from hotvirt.preconditions.facts import Facts
from hotvirt.preconditions.findings import Finding, blockers, sentence

__all__ = (
    "Change", "CpuChange", "Facts", "Finding", "MemoryChange", "VolumeAdd", "VolumeRemove", "blockers", "check",
    "sentence",
)  # fmt: skip
