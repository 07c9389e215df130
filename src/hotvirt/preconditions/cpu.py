"""What a change of the guest's CPUs rests on."""

from typing import Any

from hotvirt.preconditions import cluster
from hotvirt.preconditions.changes import CpuChange
from hotvirt.preconditions.facts import Facts
from hotvirt.preconditions.findings import Finding, verdict

Document = dict[str, Any]


def maximum(change: CpuChange, vmi: Document, _: Facts) -> Finding:
    cpu = (vmi["spec"].get("domain") or {}).get("cpu") or {}
    most = int(cpu.get("maxSockets") or cpu.get("sockets") or 1)
    fits = 1 <= change.sockets <= most
    return Finding(
        id="cpu.max-sockets",
        status=verdict(fits),
        message=f"{change.sockets} sockets are {'' if fits else 'not '}within what the guest started with, 1 to {most}",
        actual=str(change.sockets),
        required=f"1 to {most}",
        mend="" if fits else f"use at most {most}, or raise domain.cpu.maxSockets and restart",
        field="domain.cpu.sockets",
    )


def kernel(_: CpuChange, __: Document, facts: Facts) -> Finding:
    can = facts.cpu_hotplug
    words = {
        True: "the guest's kernel can take up CPUs",
        False: "the guest's kernel cannot take up CPUs",
        None: "whether the guest's kernel can take up CPUs is not known",
    }
    return Finding(
        id="guest.cpu-hotplug",
        status=verdict(can),
        message=words[can],
        actual={True: "there", False: "missing", None: "not asked"}[can],
        required="CONFIG_HOTPLUG_CPU",
        mend="" if can else "use a kernel with CONFIG_HOTPLUG_CPU",
    )


FACTS = (maximum, kernel, cluster.agent)
