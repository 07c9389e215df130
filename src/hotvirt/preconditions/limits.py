"""What raising or lowering a declared maximum of a running guest rests on: how far QEMU was started.

The node agent asks QEMU and publishes it as annotations of the instance. Without them the declared maximum is all that
is known.
"""

from typing import Any

from hotvirt.api import defaults, quantity
from hotvirt.preconditions.changes import CpuLimit, MemoryLimit
from hotvirt.preconditions.facts import Facts
from hotvirt.preconditions.findings import Finding, verdict

Document = dict[str, Any]
MEMORY_ROOM, SOCKETS_ROOM = "hotvirt.io/memory-room", "hotvirt.io/sockets-room"
"""Annotations of an instance: up to where its QEMU can go, whatever maximum is declared."""
MEMORY_SLOTS = "hotvirt.io/memory-slots"
"""Annotation: DIMMs plugged and places for them, such as 2/16."""
MEMORY_DEVICE = "hotvirt.io/memory-device"
"""Annotation of a VM's template: `dimm` or `virtio-mem`, for who knows better than the guest's kernel tells."""


def memory_room(vmi: Document) -> int | None:
    """Bytes; None when the guest was started without room for more."""
    told = _annotation(vmi, MEMORY_ROOM)
    declared = ((vmi["spec"].get("domain") or {}).get("memory") or {}).get("maxGuest")
    if (size := told if told is not None else declared) is None:
        return None
    return defaults.whole_blocks(quantity.parse_bytes(size))


def sockets_room(vmi: Document) -> int:
    cpu = (vmi["spec"].get("domain") or {}).get("cpu") or {}
    return int(_annotation(vmi, SOCKETS_ROOM) or cpu.get("maxSockets") or cpu.get("sockets") or 1)


def slots(vmi: Document) -> tuple[int, int] | None:
    """DIMMs plugged, and how many there can be; None when it is not told."""
    used, _, all_of_them = (_annotation(vmi, MEMORY_SLOTS) or "").partition("/")
    return (int(used), int(all_of_them)) if used.isdecimal() and all_of_them.isdecimal() else None


def memory_device(vmi: Document) -> str:
    """What the VM says that its guest is to be given memory by; "" when that is the guest's kernel's to tell."""
    said = _annotation(vmi, MEMORY_DEVICE)
    return said if said in ("dimm", "virtio-mem") else ""


def of_memory(change: MemoryLimit, vmi: Document, _: Facts) -> Finding:
    wanted, room = quantity.format_bytes(change.most), memory_room(vmi)
    fits = room is not None and defaults.whole_blocks(change.most) <= room
    up_to = "nothing beyond its first size" if room is None else quantity.format_bytes(room)
    if room is None:
        message = "the guest was started without a maximum, so QEMU has no room for more memory"
    else:
        message = f"a maximum of {wanted} is {'' if fits else 'not '}within QEMU's headroom, up to {up_to}"
    restart = "a restart gives it the new maximum"
    return Finding(
        id="memory.headroom",
        status=verdict(fits),
        message=message,
        actual=wanted,
        required=f"at most {up_to}",
        mend="" if fits else restart if room is None else f"use at most {up_to}; {restart}",
        field="domain.memory.maxGuest",
    )


def of_memory_in_use(change: MemoryLimit, vmi: Document, _: Facts) -> Finding:
    has = defaults.guest_memory(vmi["spec"].get("domain") or {}) or 0
    fits = defaults.whole_blocks(change.most) >= has
    wanted, size = quantity.format_bytes(change.most), quantity.format_bytes(has)
    return Finding(
        id="memory.above-size",
        status=verdict(fits),
        message=f"a maximum of {wanted} {'covers' if fits else 'is less than'} the {size} that the guest is to have",
        actual=wanted,
        required=f"at least {size}",
        mend="" if fits else "lower domain.memory.guest first",
        field="domain.memory.maxGuest",
    )


def of_sockets(change: CpuLimit, vmi: Document, _: Facts) -> Finding:
    room, has = sockets_room(vmi), defaults.sockets(vmi["spec"].get("domain") or {})
    fits = has <= change.sockets <= room
    return Finding(
        id="cpu.headroom",
        status=verdict(fits),
        message=f"a maximum of {change.sockets} sockets is {'' if fits else 'not '}within QEMU's room, {has} to {room}",
        actual=str(change.sockets),
        required=f"{has} to {room}",
        mend="" if fits else f"use at most {room}; a restart gives it the new maximum",
        field="domain.cpu.maxSockets",
    )


def _annotation(vmi: Document, name: str) -> str | None:
    found = ((vmi.get("metadata") or {}).get("annotations") or {}).get(name)
    return None if found is None else str(found)


MEMORY, CPU = (of_memory, of_memory_in_use), (of_sockets,)
