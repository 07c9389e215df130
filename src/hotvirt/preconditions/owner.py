"""Who says how large a machine is: what its instancetype sets, the API lets no edit of the machine itself set."""

from typing import Any

from hotvirt.preconditions.changes import CpuChange, CpuLimit, MemoryChange, MemoryLimit
from hotvirt.preconditions.facts import Facts
from hotvirt.preconditions.findings import Finding, machine

Document = dict[str, Any]
MEMORY, SOCKETS = "domain.memory.guest", "domain.cpu.sockets"
MOST_MEMORY, MOST_SOCKETS = "domain.memory.maxGuest", "domain.cpu.maxSockets"
_SETS: dict[type, tuple[str, str]] = {
    MemoryChange: ("memory.owner", MEMORY),
    CpuChange: ("cpu.owner", SOCKETS),
    MemoryLimit: ("memory.owner", MOST_MEMORY),
    CpuLimit: ("cpu.owner", MOST_SOCKETS),
}


def owner(change: MemoryChange | CpuChange | MemoryLimit | CpuLimit, vmi: Document, facts: Facts) -> Finding | None:
    """Told only where it is not the machine's own: then whoever wants another size names another instancetype."""
    id_, field = _SETS[type(change)]
    if not (name := facts.sized_by.get(field)):
        return None
    patch = '{"spec":{"instancetype":{"name":"OTHER","revisionName":null}}}'
    return Finding(
        id=id_,
        status="fail",
        message=f"instancetype {name} sets {field}, so the machine cannot set it itself",
        actual=f"set by instancetype {name}",
        required="set by the machine, or by nobody",
        mend=f"name another instancetype: kubectl patch vm {machine(vmi)} --type=merge -p '{patch}'",
        field=field,
    )
