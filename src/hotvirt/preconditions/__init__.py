"""What must hold for each live change. Pure: (change, running instance, facts) -> list of findings.

The one source of every refusal's words: conditions, events, the CLI and the API print these findings. `facts` are what
is known beside the instance (made of documents by `gather`), `report` puts the findings of several changes together,
`asked` reads a change as people write it, and `upstream` judges by the rules of an upstream KubeVirt.
"""

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
)
from hotvirt.preconditions.check import check
from hotvirt.preconditions.facts import Facts
from hotvirt.preconditions.findings import Finding, blockers, sentence

__all__ = (
    "Change", "CpuChange", "CpuLimit", "Facts", "Finding", "MemoryChange", "MemoryLimit", "NicAdd", "NicLink",
    "NicRemove", "VolumeAdd", "VolumeRemove", "blockers", "check", "sentence",
)  # fmt: skip
