"""What a change of the guest's CPUs rests on."""

from typing import Any

from hotvirt.preconditions import guest, limits, space
from hotvirt.preconditions.changes import CpuChange
from hotvirt.preconditions.facts import Facts
from hotvirt.preconditions.findings import Finding, verdict

Document = dict[str, Any]


def most_sockets(vmi: Document) -> int:
    """How many are declared as the most."""
    cpu = (vmi["spec"].get("domain") or {}).get("cpu") or {}
    return int(cpu.get("maxSockets") or cpu.get("sockets") or 1)


def _dedicated(change: CpuChange, cpu: Document) -> Finding:
    has = int(cpu.get("sockets") or 1)
    fits = change.sockets == has
    words = f"so it keeps its {has} sockets" if fits else f"so {has} sockets cannot become {change.sockets} live"
    return Finding(
        id="cpu.max-sockets",
        status=verdict(fits),
        message=f"the guest has CPUs of the host for itself (dedicatedCpuPlacement) from its start, {words}",
        actual=str(change.sockets),
        required=str(has),
        mend="" if fits else "restart the machine: it is then given as many as it asks for",
        field="domain.cpu.sockets",
    )


def maximum(change: CpuChange, vmi: Document, _: Facts) -> Finding:
    cpu = (vmi["spec"].get("domain") or {}).get("cpu") or {}
    if cpu.get("dedicatedCpuPlacement"):
        return _dedicated(change, cpu)
    most = most_sockets(vmi)
    fits = 1 <= change.sockets <= most
    room = limits.sockets_room(vmi)
    how = (
        "and restart" if change.sockets > room else f"to {change.sockets}: QEMU has room for {room}, without a restart"
    )
    return Finding(
        id="cpu.max-sockets",
        status=verdict(fits),
        message=f"{change.sockets} sockets are {'' if fits else 'not '}within what the guest started with, 1 to {most}",
        actual=str(change.sockets),
        required=f"1 to {most}",
        mend="" if fits else f"use at most {most}, or raise domain.cpu.maxSockets {how}",
        field="domain.cpu.sockets",
    )


FACTS = (maximum, space.node, space.quota, guest.standing, guest.agent, guest.cpu_hotplug, guest.cpu_release)
