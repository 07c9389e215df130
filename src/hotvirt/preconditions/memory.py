"""What a change of the guest's memory rests on."""

from typing import Any

from hotvirt.api import quantity
from hotvirt.api.defaults import guest_memory, whole_blocks
from hotvirt.preconditions import cluster
from hotvirt.preconditions.changes import MemoryChange
from hotvirt.preconditions.facts import Facts
from hotvirt.preconditions.findings import Finding, verdict

Document = dict[str, Any]
LEAST = 32 << 20
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


def maximum(change: MemoryChange, vmi: Document, _: Facts) -> Finding:
    """Without a declared maximum there is room up to what the guest started with."""
    wanted = quantity.format_bytes(change.guest)
    domain, status = vmi["spec"].get("domain") or {}, vmi.get("status") or {}
    declared = (domain.get("memory") or {}).get("maxGuest")
    if declared is not None:
        most = str(declared)
        fits = whole_blocks(change.guest) <= whole_blocks(quantity.parse_bytes(declared))
        message = f"memory {wanted} is {'within' if fits else 'more than'} the guest's maximum, {most}"
        mend = f"use at most {most}, or raise domain.memory.maxGuest and restart"
    else:
        at_boot = (status.get("memory") or {}).get("guestAtBoot")
        size = quantity.parse_bytes(at_boot) if at_boot is not None else guest_memory(domain)
        most = "what it started with" if size is None else quantity.format_bytes(size)
        fits = size is None or whole_blocks(change.guest) <= size
        message = f"the guest was started without a maximum, so memory can{'' if fits else 'not'} become {wanted}"
        mend = f"set domain.memory.maxGuest to {wanted} or more, and restart"
    return Finding(
        id="memory.max-guest",
        status=verdict(fits),
        message=message,
        actual=wanted,
        required=f"at most {most}",
        mend="" if fits else mend,
        field=FIELD,
    )


def driver(_: MemoryChange, __: Document, facts: Facts) -> Finding:
    can = facts.memory_hotplug
    words = {
        True: "the guest's kernel can take up memory",
        False: "the guest's kernel has no virtio-mem driver, so it would not use the memory",
        None: "whether the guest's kernel can take up memory (virtio-mem) is not known",
    }
    return Finding(
        id="guest.memory-hotplug",
        status=verdict(can),
        message=words[can],
        actual={True: "there", False: "missing", None: "not asked"}[can],
        required="driver virtio_mem",
        mend="" if can else "use a kernel with CONFIG_VIRTIO_MEM (Linux 5.8 or newer), or VirtIO drivers on Windows",
    )


FACTS = (alignment, least, maximum, driver, cluster.agent)
