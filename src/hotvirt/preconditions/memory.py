"""What a change of the guest's memory rests on."""

from typing import Any

from hotvirt.api import quantity
from hotvirt.api.defaults import guest_memory, whole_blocks
from hotvirt.preconditions import guest, limits, space
from hotvirt.preconditions.changes import MemoryChange
from hotvirt.preconditions.facts import Facts
from hotvirt.preconditions.findings import Finding, condition, verdict

Document = dict[str, Any]
LEAST = 32 << 20
RESERVE = 64 << 20
"""Bytes that a guest keeps available when it shrinks."""
FIELD = "domain.memory.guest"


def alignment(change: MemoryChange, _: Document, __: Facts) -> Finding:
    """Never in the way: what does not fill a block is left out, at a start as in a running guest."""
    wanted, given = quantity.format_bytes(change.guest), quantity.format_bytes(whole_blocks(change.guest))
    whole = change.guest == whole_blocks(change.guest)
    return Finding(
        id="memory.alignment",
        status="pass",
        message=f"memory {wanted} is {'given in' if whole else f'given as {given}, in'} whole blocks of 2Mi",
        actual=given,
        required="a multiple of 2Mi",
        field=FIELD,
    )


def least(change: MemoryChange, _: Document, __: Facts) -> Finding:
    enough = change.guest >= LEAST
    wanted = quantity.format_bytes(change.guest)
    return Finding(
        id="memory.least",
        status=verdict(enough),
        message=f"memory {wanted} is {'enough' if enough else 'too little'} for a guest",
        actual=wanted,
        required="at least 32Mi",
        mend="" if enough else "use at least 32Mi",
        field=FIELD,
    )


def most_memory(vmi: Document) -> tuple[int | None, bool]:
    """Bytes up to which it can grow, and whether that was declared. Without a declared maximum there is room up to
    what the guest started with."""
    domain, status = vmi["spec"].get("domain") or {}, vmi.get("status") or {}
    declared = (domain.get("memory") or {}).get("maxGuest")
    if declared is not None:
        return quantity.parse_bytes(declared), True
    at_boot = (status.get("memory") or {}).get("guestAtBoot")
    return (quantity.parse_bytes(at_boot) if at_boot is not None else guest_memory(domain)), False


def _limit(vmi: Document) -> int | None:
    """What the machine's pod may have of memory, as far as it can be plugged: then its guest was started with no room
    for more, or with room up to there."""
    limit = (((vmi["spec"].get("domain") or {}).get("resources") or {}).get("limits") or {}).get("memory")
    return None if limit is None else whole_blocks(quantity.parse_bytes(limit))


def maximum(change: MemoryChange, vmi: Document, _: Facts) -> Finding:
    wanted = quantity.format_bytes(change.guest)
    size, declared = most_memory(vmi)
    most = "what it started with" if size is None else quantity.format_bytes(size)
    fits = size is None or whole_blocks(change.guest) <= whole_blocks(size)
    limit = _limit(vmi)
    if declared:
        message = f"memory {wanted} is {'within' if fits else 'more than'} the guest's maximum, {most}"
        room = limits.memory_room(vmi) or 0
        live = room >= whole_blocks(change.guest)
        field = "domain.resources.limits.memory" if limit == size else "domain.memory.maxGuest"
        mend = f"use at most {most}, or raise {field} " + (
            f"to {wanted} or more: QEMU has room for up to {quantity.format_bytes(room)}, so no restart is needed"
            if live else "and restart"
        )  # fmt: skip
    else:
        message = f"the guest was started without a maximum, so memory can{'' if fits else 'not'} become {wanted}"
        mend = f"set domain.memory.maxGuest to {wanted} or more, and restart"
        if limit is not None and size is not None and limit <= whole_blocks(size):
            message = f"the guest was started with all that its limit allows, {most}, and without a maximum, so memory "
            message += f"can{'' if fits else 'not'} become {wanted}"
            mend += "; from then on raise domain.resources.limits.memory together with its size"
    return Finding(
        id="memory.max-guest",
        status=verdict(fits),
        message=message,
        actual=wanted,
        required=f"at most {most}",
        mend="" if fits else mend,
        field=FIELD,
    )


def slots(change: MemoryChange, vmi: Document, _: Facts) -> Finding | None:
    """A guest that is given DIMMs needs a free slot to grow."""
    told, kernel = limits.slots(vmi), (condition(vmi, guest.MEMORY) or {}).get("reason")
    by_dimms = (limits.memory_device(vmi) or ("dimm" if kernel == guest.DIMMS_ONLY else "")) == "dimm"
    has = ((vmi.get("status") or {}).get("memory") or {}).get("guestCurrent")
    grows = has is None or whole_blocks(change.guest) > quantity.parse_bytes(has)
    if told is None or not by_dimms or not grows:
        return None
    used, count = told
    return Finding(
        id="memory.dimm-slots",
        status=verdict(used < count),
        message=f"{used} of the guest's {count} memory slots are taken",
        actual=f"{count - used} free",
        required="1 free slot",
        mend="" if used < count else "restart it, and it has the memory from the start",
        field=FIELD,
    )


def spare(change: MemoryChange, vmi: Document, facts: Facts) -> Finding | None:
    """A guest that is to have less must be able to do without, or its kernel would end programs for want of memory. No
    more is taken from it than it has available, less a reserve."""
    current = ((vmi.get("status") or {}).get("memory") or {}).get("guestCurrent")
    if facts.spare is None or current is None or (less := quantity.parse_bytes(current) - change.guest) <= 0:
        return None
    can = max(0, facts.spare - RESERVE)
    has, needs = (f"{amount >> 20}Mi" for amount in (can, less))
    return Finding(
        id="guest.memory-spare",
        status=verdict(less <= can),
        message=f"the guest can do without {has} now, and is to have {needs} less",
        actual=f"{has} to spare",
        required=f"{needs} to spare",
        mend="" if less <= can else "free memory in the guest, or ask for less of a change",
        field=FIELD,
    )


FACTS = (
    alignment, least, maximum, space.node, space.quota, guest.standing, guest.agent, guest.memory_hotplug,
    slots, spare, guest.memory_release,
)  # fmt: skip
