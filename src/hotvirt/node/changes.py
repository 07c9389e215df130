"""Live changes of memory and vCPUs: what the VMI asks for against what its guest has, as jobs of the guest.

Each function decides and, if need be, begins or ends one job; none waits for it. What stays undone stays visible in the
jobs, from which `status` tells. Volumes: `attachments`.
"""

from datetime import datetime, timedelta

from hotvirt.kube.client import Document
from hotvirt.node import guestkernel, render
from hotvirt.node.guest import Guest, fresh
from hotvirt.node.status import SLACK
from hotvirt.preconditions import limits
from hotvirt.preconditions.guest import DIMMS_ONLY
from hotvirt.qemu import cpu
from hotvirt.qemu.memory import resize_memory
from hotvirt.qemu.memorysteps import VIRTIO_MEM, Means
from hotvirt.qemu.progress import Report
from hotvirt.qemu.state import Observed, read_memory

MEMORY_DEADLINE, CPU_DEADLINE = 120.0, 60.0


def means(vmi: Document, kernel: guestkernel.Kernel | None) -> Means:
    """How this guest is given more memory: by its virtio-mem device, unless its kernel takes DIMMs only. Pure."""
    if said := limits.memory_device(vmi):
        return Means(dimms=said == "dimm")
    return Means(dimms=True) if kernel is not None and kernel.memory.reason == DIMMS_ONLY else VIRTIO_MEM


def memory(vmi: Document, guest: Guest, observed: Observed, *, now: datetime) -> None:
    wanted = render.wanted_memory(vmi["spec"])
    has = observed.memory.current
    added = bool(observed.memory.plugged or observed.memory.dimms)
    is_seen = guest.is_settled_seen or guest.view is None or not added
    if not wanted or (
        0 <= has - wanted <= SLACK and guest.settled is not None and abs(guest.settled - wanted) <= SLACK and is_seen
    ):
        guest.drop("memory")
        return

    how = means(vmi, guest.kernel)
    known = fresh(guest, "memory", observed)

    async def run(report: Report) -> None:
        guest.is_settled_seen = False
        agent = guest.answering
        try:
            reached = await resize_memory(
                guest.monitor, agent, wanted, means=how, state=known.memory if known else None,
                timeout=MEMORY_DEADLINE, report=report,
            )  # fmt: skip
            guest.settled, guest.is_settled_seen = reached.current, agent is not None
            guest.note(memory=reached)
        except BaseException:
            if not guest.is_gone:
                guest.settled = (await read_memory(guest.monitor)).current
            raise

    # A job that began without an agent is begun anew with it: only the guest can say that it uses the memory, and how
    # it can have more.
    until = now + timedelta(seconds=MEMORY_DEADLINE)
    guest.want("memory", (wanted, guest.view is not None, how.dimms), run, until=until)


def vcpus(vmi: Document, guest: Guest, observed: Observed, *, now: datetime) -> None:
    topology = render.wanted_topology(vmi["spec"])
    wanted = topology.vcpus
    how = cpu.policy(guest.accelerator)
    plugged = observed.plugged_vcpus
    if guest.vcpus == wanted and (plugged == wanted or (how == "park" and plugged > wanted)):
        guest.has_parked = True
        guest.drop("cpu")
        return
    if guest.view is None:
        return  # who booted with one vCPU too many, or is asked for fewer, needs its agent: it comes, or says so

    known = fresh(guest, "cpu", observed)

    async def run(report: Report) -> None:
        try:
            state = await cpu.set_vcpus(
                guest.monitor, guest.answering, wanted, how=how, slots=known.vcpus if known else None,
                timeout=CPU_DEADLINE, report=report,
            )  # fmt: skip
            guest.vcpus = state.online
            guest.note(vcpus=state.slots)
        finally:
            guest.has_parked = True

    guest.want("cpu", wanted, run, until=now + timedelta(seconds=CPU_DEADLINE))
