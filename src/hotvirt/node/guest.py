"""One running guest as the node agent holds it: its monitor, its agent, and what is being changed in it.

Nothing here is needed to survive: a new home makes the same object from the pod's directory (`connect`). Several jobs
may run at once for a guest (memory, CPUs, volumes), one of each kind; a job whose target changed is cancelled and begun
anew, which every qemu function allows. `poke` is called whenever something may have changed.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, TypeVar

from msgspec import Struct, structs

from hotvirt.kube.client import Document
from hotvirt.node import clock, guestkernel
from hotvirt.node.guestkernel import Kernel
from hotvirt.node.places import PodPlace
from hotvirt.qemu import state
from hotvirt.qemu.errors import AgentError, AgentRefused, HotplugError, QemuError, QemuTimeout
from hotvirt.qemu.guestagent import AgentInfo, GuestAgent
from hotvirt.qemu.machine import AcceleratorKind
from hotvirt.qemu.progress import Progress, Report, pauses
from hotvirt.qemu.qmp import Monitor
from hotvirt.qemu.state import DiskState, Observed

T = TypeVar("T")
log = logging.getLogger(__name__)

POKES = (
    "SHUTDOWN", "STOP", "RESUME", "RESET", "GUEST_PANICKED", "VSERPORT_CHANGE", "BLOCK_IO_ERROR", "WATCHDOG",
    "DEVICE_DELETED",
)  # fmt: skip
"""The last also long after it was asked for, by a guest that is slow: a DIMM then takes memory along that was counted
on."""
AGENT_PORT = "agent-port"
"""The device that QEMU tells of when the guest opens or closes it."""
RETRY = 20.0
RETRIES = {"GuestUses": 3.0, "NetworkNotFound": 3.0, "GuestNeedsMemory": 5.0, "MemoryInUse": 300.0}
"""Seconds by the reason: what a person may end at any moment, and what was tried long enough."""
LOOK = 10.0
YOUNG = 1.0
"""Seconds for which what QEMU said counts while it works at a change, if nothing tells of another: each question of a
busy QEMU stands in the way of what it is to do."""
SETTLES = (1.0, 4.0, 15.0, 60.0)
"""Pauses between looks at a guest that has just started."""
RECOUNT_EVERY = 5.0
"""Seconds between two counts of a guest's vCPUs: a guest that keeps changing them keeps the node no busier."""
SILENT, SILENT_MOST = 20.0, 160.0
"""Seconds without a word of an agent, after which it is asked anew, on a new connection. Each time they are more: a
guest that is that slow would else never come to an answer."""
GREETING = 20.0
"""Seconds that the agent of a guest which an earlier home left may take to answer before it counts as gone."""


class AgentView(Struct, frozen=True, kw_only=True):
    """What the guest said of itself when its agent connected; bounded and cleaned by `GuestAgent`."""

    info: AgentInfo
    os: dict[str, str] = {}
    hostname: str = ""
    interfaces: tuple[dict[str, Any], ...] = ()
    frozen: bool = False
    """Its filesystems are frozen. Then its agent tells no more than its version, and the rest is as it was before."""


class Job(Struct):
    """A change on its way. `error` is set when it ended without reaching its target."""

    target: object
    task: "asyncio.Task[None] | None" = None
    error: HotplugError | None = None
    progress: Progress | None = None
    retry_at: float = 0.0
    until: datetime | None = None
    """When it is given up, if it has a deadline."""

    @property
    def is_running(self) -> bool:
        return self.task is not None and not self.task.done()


class Guest:
    """Made by `connect`; `close` lets go of it and leaves it running."""

    def __init__(
        self, place: PodPlace, monitor: Monitor, *, uid: str, accelerator: AcceleratorKind, poke: Callable[[], None]
    ) -> None:
        self.place, self.monitor, self.uid, self.accelerator = place, monitor, uid, accelerator
        self.agent = GuestAgent(place.agent)
        self.view: AgentView | None = None
        """None while no agent answers."""
        self.kernel: Kernel | None = None
        """What its kernel can take up. None until it was asked: what was published before stays true meanwhile."""
        self._unheard_until = asyncio.get_running_loop().time() + GREETING
        self.vcpus: int | None = None
        """Online in the guest, as last asked; None when it was not asked yet."""
        self.has_parked = False
        """Whether the guest was seen with the vCPUs it is to have. Before that it may have one more, see
        `hotvirt.qemu.cpu.boot_vcpus`, which is nobody's business."""
        self.last: Observed | None = None
        """QEMU as it was read last, and as jobs have found it since."""
        self._notes, self._is_noted = 0, False
        self._stirs = 0
        """How often something happened that only another look can tell of."""
        self._looked: tuple[Document | None, int] | None = None
        self._looked_until = 0.0
        self.settled: int | None = None
        """Bytes of memory the guest was last verified to have."""
        self.is_settled_seen = False
        """Whether the guest itself said so. Its agent may come after the memory, and has to bring it online."""
        self.jobs: dict[str, Job] = {}
        self.links: dict[str, bool] = {}
        """Interface -> whether its cable is in, of those that this home has plugged in or out."""
        self.is_freezing = False
        """Whether it is being asked to freeze its filesystems."""
        self.stopping: asyncio.Task[bool] | None = None
        """Sees to its end, once that was asked for (`hotvirt.node.stopping`)."""
        self.poke = poke
        self.stops_by = 0.0
        self._greeting: asyncio.Task[None] | None = None
        self._settling: asyncio.Task[None] | None = None
        self._recounting: asyncio.Task[None] | None = None
        self._stood_still = False
        """Whether its clock is slow by the time that it stood still, as far as nobody has told its agent."""
        self._clock: asyncio.Task[None] | None = None
        self._recount_at = 0.0
        self._tasks = [asyncio.create_task(self._follow(), name=f"guest-events {uid}")]
        self._look_again_at = asyncio.get_running_loop().call_later(GREETING, self._count_as_heard)
        self.greet()

    @classmethod
    async def connect(
        cls, place: PodPlace, *, name: str, uid: str, accelerator: AcceleratorKind, poke: Callable[[], None],
        timeout: float = 10.0,
    ) -> "Guest":  # fmt: skip
        """QemuError when no QEMU answers there."""
        monitor = await Monitor.connect(place.qmp, name=name, timeout=timeout)
        return cls(place, monitor, uid=uid, accelerator=accelerator, poke=poke)

    @property
    def is_gone(self) -> bool:
        return self.monitor.closed.done()

    @property
    def answering(self) -> GuestAgent | None:
        """The agent, when it is known to answer."""
        return self.agent if self.view is not None else None

    @property
    def is_unheard(self) -> bool:
        """Whether it was found so lately that its agent may answer and was not heard yet."""
        return self.view is None and asyncio.get_running_loop().time() < self._unheard_until

    async def observe(self) -> Observed:
        """All there is to know. QemuTimeout soon: a QEMU that hangs must not hold up what is to be done about it."""
        return await self._within(state.observe(self.monitor))

    async def look(self, *, wanted: Document | None = None) -> Observed:
        """What there is to do something about, as `observe`. `wanted` is the spec that this is for: for the same it
        is not asked again while a job is on its way and nothing happened. The end of the job is another look."""
        loop, notes, occasion = asyncio.get_running_loop(), self._notes, (wanted, self._stirs)
        is_young = wanted is not None and self._looked == occasion and loop.time() < self._looked_until
        if self.last is not None and is_young and any(job.is_running for job in self.jobs.values()):
            return self.last
        seen = await self._within(state.look(self.monitor))
        if self._notes == notes:
            self.last, self._looked, self._looked_until = seen, occasion, loop.time() + YOUNG
        return seen

    async def _within(self, asking: Awaitable[Observed]) -> Observed:
        try:
            async with asyncio.timeout(LOOK):
                return await asking
        except TimeoutError as error:
            raise QemuTimeout(f"QEMU of {self.monitor.name} did not answer within {LOOK:g} s") from error

    def note(self, **parts: Any) -> None:
        """What a job found at its end, as fields of `Observed`: it is told of before all else is asked again."""
        if self.last is not None:
            self.last = structs.replace(self.last, is_noted=True, **parts)
            self._notes, self._is_noted = self._notes + 1, True

    def note_disk(self, name: str, disk: DiskState | None) -> None:
        """What has become of this disk; None: it went."""
        if self.last is not None:
            others = tuple(each for each in self.last.disks if each.name != name)
            self.note(disks=others if disk is None else (*others, disk))

    def noted(self) -> Observed | None:
        """What is known when a job has noted something since this was asked last. Its other parts may be older."""
        is_noted, self._is_noted = self._is_noted, False
        return self.last if is_noted else None

    # What happens by itself

    async def _follow(self) -> None:
        with self.monitor.events(*POKES) as events:
            self.poke()
            async for event in events:
                self._stirs += 1
                if event.name == "VSERPORT_CHANGE" and event.data.get("id") == AGENT_PORT:
                    if event.data.get("open"):
                        self.greet()
                    else:
                        self._forget()
                elif event.name == "RESUME":
                    self._stood_still = True
                    self._tell_time()
                elif event.name == "RESET":
                    self._forget()
                    self._stood_still = False
                    self.vcpus, self.kernel, self.is_settled_seen = None, guestkernel.BOOTING, False
                    for note in (self.place.frozen, self.place.reboot):  # what they were for is over
                        note.unlink(missing_ok=True)
                self.poke()
        self.poke()

    def greet(self) -> None:
        """Ask the agent who it is, as soon as it answers. What was asked before may be lost, as with a reset."""
        if self._greeting is not None:
            self._greeting.cancel()
        self._greeting = asyncio.create_task(self._wait_for_agent(), name=f"guest-agent {self.uid}")

    async def _wait_for_agent(self) -> None:
        """Until the agent answers and has said what there is to know. On a busy machine that may take some tries. Ends
        before that with the guest alone: no event need come of an agent that is there already."""
        waits = pauses(0.5, longest=5.0)  # a guest that stood still may be back at any moment
        patience, said = pauses(SILENT, longest=SILENT_MOST, growth=2.0), ""
        while True:
            try:
                await self.agent.wait_ready(timeout=next(patience))
                vcpus = await _unless_refused(self.agent.get_vcpus())
                view = await self._ask()
                break
            except AgentError as error:
                if self.is_gone:
                    return
                if str(error) != said:  # a guest may well have no agent, for as long as it runs
                    log.info("guest agent of %s: %s", self.monitor.name, said := str(error))
                await asyncio.sleep(next(waits))
        self._recount_at = asyncio.get_running_loop().time() + RECOUNT_EVERY
        self.vcpus, self.view = None if vcpus is None else sum(each.online for each in vcpus), view
        self.poke()
        self._tell_time()
        self.look_again()

    def _tell_time(self) -> None:
        """Once its agent answers: one that goes on from a snapshot's memory has not greeted yet."""
        if self._stood_still and (agent := self.answering) is not None:
            self._stood_still = False
            if self._clock is not None:
                self._clock.cancel()
            self._clock = asyncio.create_task(clock.set_right(self.monitor, agent), name=f"guest-clock {self.uid}")

    def look_again(self) -> None:
        """Something came that the guest takes a while to set up."""
        if self._settling is not None:
            self._settling.cancel()
        self._settling = asyncio.create_task(self._settle(), name=f"guest-settling {self.uid}")

    async def _ask(self) -> AgentView:
        info = await self.agent.info()
        if await _unless_refused(self.agent.fsfreeze_status()) == "frozen":
            return structs.replace(self.view or AgentView(info=info), frozen=True)
        return AgentView(
            info=info,
            os=await _unless_refused(self.agent.osinfo()) or {},
            hostname=await _unless_refused(self.agent.hostname()) or "",
            interfaces=tuple(await _unless_refused(self.agent.network_interfaces()) or ()),
        )

    async def _settle(self) -> None:
        """An agent may answer long before the guest has its network and its name, and nothing tells when it has."""
        for pause in SETTLES:
            await asyncio.sleep(pause)
            if (before := self.view) is None:
                return
            try:
                view = await self._ask()
                kernel = await self._ask_kernel(view)
            except AgentError as error:
                log.debug("guest agent of %s: %s", self.monitor.name, error)
                continue
            if self.view is before and (view, kernel) != (before, self.kernel):
                self.view, self.kernel = view, kernel
                self.poke()

    async def _ask_kernel(self, view: AgentView) -> Kernel | None:
        """What is known, for a guest that is frozen (its files cannot be opened) and for one that has said it all."""
        known = self.kernel
        if view.frozen or (known is not None and known is not guestkernel.BOOTING and known.is_settled):
            return known
        try:
            waited = known is not None and known.memory.reason == "DriverNotLoaded"
            return await guestkernel.ask(
                self.agent, os_id=view.os.get("id", ""), commands=view.info.commands, waited=waited
            )
        except AgentError as error:  # what else it says of itself counts all the same
            log.debug("guest agent of %s: %s", self.monitor.name, error)
            return known

    def recount(self) -> None:
        """Have the guest's vCPUs counted again, as it may take some on- or offline by itself and no event tells. Called
        whenever the guest is looked at for some other cause, so nothing is asked of a guest that nobody looks at."""
        if self.view is not None and (self._recounting is None or self._recounting.done()):
            self._recounting = asyncio.create_task(self._recount(), name=f"guest-recount {self.uid}")

    async def _recount(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._recount_at - loop.time())
        self._recount_at = loop.time() + RECOUNT_EVERY
        if any(job.is_running for job in self.jobs.values()):
            return  # its end is the next cause to look
        before = self.vcpus
        try:
            self.counted(sum(each.online for each in await self.agent.get_vcpus()), before=before)
        except AgentError as error:
            log.debug("guest agent of %s: %s", self.monitor.name, error)

    def counted(self, online: int, *, before: int | None) -> None:
        """The guest says it has so many vCPUs online, asked when `vcpus` was `before`: what changed them meanwhile
        knows better."""
        job = self.jobs.get("cpu")
        if before is None or self.vcpus != before or online == before or (job is not None and job.is_running):
            return
        self.vcpus = online
        self.poke()

    def _count_as_heard(self) -> None:
        if self.view is None:
            self.poke()

    def _forget(self) -> None:
        """Its agent went. How many vCPUs it has online stays as it said last: nobody can change that without the agent.
        Its kernel is asked anew when the agent comes back: drivers come and go. What it said before it went may be read
        only now, so nobody waits for that."""
        self.view = None
        if self.kernel is not guestkernel.BOOTING:
            self.kernel = None
        for task in (self._greeting, self._settling, self._recounting):
            if task is not None:
                task.cancel()
        self._unheard_until = 0.0

    # Changes

    def want(
        self, kind: str, target: object, run: Callable[[Report], Awaitable[None]], *, until: datetime | None = None
    ) -> None:
        """See to it that `target` is being reached. A failed job is tried again after a while, or when it is wanted
        anew after `drop`."""
        now = asyncio.get_running_loop().time()
        job = self.jobs.get(kind)
        if job is not None and job.target == target and (job.is_running or now < job.retry_at):
            return
        if job is not None and job.task is not None:
            job.task.cancel()
        previous = job.task if job is not None else None
        error = job.error if job is not None and job.target == target else None
        job = self.jobs[kind] = Job(target, error=error, until=until)
        job.task = asyncio.create_task(self._run(kind, job, previous, run), name=f"guest-{kind} {self.uid}")

    def drop(self, kind: str) -> None:
        """The change is not wanted any more, or is done."""
        job = self.jobs.pop(kind, None)
        if job is not None and job.task is not None:
            self._stirs += job.is_running
            job.task.cancel()

    async def _run(
        self, kind: str, job: Job, previous: "asyncio.Task[None] | None", run: Callable[[Report], Awaitable[None]]
    ) -> None:
        def report(progress: Progress) -> None:
            job.progress = progress

        if previous is not None:
            await asyncio.wait([previous])  # one call at a time for a guest
        try:
            await run(report)
            job.error = None
        except HotplugError as error:
            job.error = error
        except QemuError as error:
            job.error = HotplugError("Failed", str(error))
        except OSError as error:  # such as a disk's file that went after it was looked at
            told = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            job.error = HotplugError("Failed", told)
        except Exception as error:
            log.exception("%s of %s failed", kind, self.monitor.name)
            job.error = HotplugError("Failed", f"{type(error).__name__}: {error}")
        job.retry_at = asyncio.get_running_loop().time() + (RETRIES.get(job.error.reason, RETRY) if job.error else 0.0)
        if job.error:
            log.info("%s of %s: %s", kind, self.monitor.name, job.error)
        self._stirs += 1
        self.poke()

    async def close(self) -> None:
        helpers = [*self._tasks, self._greeting, self._settling, self._recounting, self._clock, self.stopping]
        for task in [*helpers, *(job.task for job in self.jobs.values())]:
            if task is not None and task is not asyncio.current_task():
                task.cancel()
        self._look_again_at.cancel()
        self.agent.close()
        await self.monitor.close()


def fresh(guest: Guest, kind: str, observed: Observed) -> Observed | None:
    """What was just read, for a job to begin with: unless one of its kind is changing it."""
    job = guest.jobs.get(kind)
    return None if observed.is_noted or (job is not None and job.is_running) else observed


async def _unless_refused(call: Awaitable[T]) -> T | None:
    try:
        return await call
    except AgentRefused:
        return None
