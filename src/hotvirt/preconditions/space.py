"""Whether the node and the namespace's quota have what a guest would grow by.

The growth of the launcher pod's requests is reckoned as its controller does: the guest's own, the page tables QEMU
needs for it, and a share of a CPU for each vCPU.
"""

from typing import Any

from hotvirt.api import defaults, quantity
from hotvirt.preconditions.changes import CpuChange, MemoryChange
from hotvirt.preconditions.facts import Facts, Quota
from hotvirt.preconditions.findings import Finding, verdict
from hotvirt.preconditions.room import Demand

Document = dict[str, Any]
PAGE_TABLES = 512
"""Bytes of guest memory to one of page tables."""
WORDS = {"memory": "memory", "cpu": "CPUs"}
WAITS = "stop another machine, or ask for less"


def more(change: MemoryChange | CpuChange, vmi: Document, facts: Facts) -> Demand:
    """What the instance's pod would ask for beyond what it does. A request of the VM's own follows the guest; else the
    cluster may have less asked for than the guest has."""
    domain = vmi["spec"].get("domain") or {}
    if isinstance(change, MemoryChange):
        growth = defaults.whole_blocks(change.guest) - (defaults.guest_memory(domain) or 0)
        named = ((domain.get("resources") or {}).get("requests") or {}).get("memory") is not None
        share = growth if named else growth * 100 // facts.memory_overcommit
        return Demand(memory=share + growth // PAGE_TABLES)
    cpu = domain.get("cpu") or {}
    each = int(cpu.get("cores") or 1) * int(cpu.get("threads") or 1)
    return Demand(cpu=(change.sockets - defaults.sockets(domain)) * each * 1000 // facts.cpu_ratio)


def node(change: MemoryChange | CpuChange, vmi: Document, facts: Facts) -> Finding | None:
    if facts.room is None:
        return None
    wanted, what, left = _of(change, more(change, vmi, facts), facts.room)
    fits = wanted <= 0 or wanted <= left
    node = (vmi.get("status") or {}).get("nodeName")
    name = f"node {node}" if node else "its node"
    has, needs = _shown(what, max(0, left)), _shown(what, max(0, wanted))
    return Finding(
        id=f"node.{what}",
        status=verdict(fits),
        message=f"{name} has {has} of {WORDS[what]} free, and {needs} more are needed",
        actual=f"{has} free",
        required=f"{needs} free",
        mend="" if fits else WAITS,
    )


def quota(change: MemoryChange | CpuChange, vmi: Document, facts: Facts) -> Finding | None:
    """The quota that is nearest to its end; None where there is none for this resource."""
    if facts.quotas is None:
        return None
    wanted, what, _ = _of(change, more(change, vmi, facts), Demand())
    lines = sorted((each.hard - each.used, each.name, each) for each in facts.quotas if each.resource == what)
    if not lines:
        return None
    left, name, line = lines[0]
    fits = wanted <= 0 or wanted <= left
    return Finding(
        id=f"quota.{what}",
        status=verdict(fits),
        message=f"quota {name} has {_shown(what, max(0, left))} of {WORDS[what]} left of {_shown(what, line.hard)}",
        actual=f"{_shown(what, max(0, left))} left",
        required=f"{_shown(what, max(0, wanted))} left",
        mend="" if fits else f"raise it: kubectl edit resourcequota {name}; or {WAITS}",
    )


def exceeded(wanted: Demand, quotas: tuple[Quota, ...]) -> str:
    """The first of these quotas that has less left than is wanted more; "" for none. For who knows exactly how much."""
    for each in quotas:
        more = wanted.memory if each.resource == "memory" else wanted.cpu
        if more > 0 and more > each.hard - each.used:
            left = _shown(each.resource, max(0, each.hard - each.used))
            return f"quota {each.name} has {left} of {WORDS[each.resource]} left"
    return ""


def _of(change: MemoryChange | CpuChange, wanted: Demand, left: Demand) -> tuple[int, str, int]:
    if isinstance(change, MemoryChange):
        return wanted.memory, "memory", left.memory
    return wanted.cpu, "cpu", left.cpu


def _shown(what: str, amount: int) -> str:
    if what == "cpu":
        return f"{amount / 1000:g}"
    mib, gib = 1 << 20, 1 << 30
    if amount >= 10 * gib:
        return f"{amount / gib:.1f}Gi"
    return quantity.format_bytes(amount // mib * mib)
