"""The node agent: VMI <-> QEMU. KubeVirt's virt-handler.

Level-triggered: a VMI of this node is compared with what QEMU, its monitor and the guest's agent report, and brought
closer. One key is with one worker at a time. Everything is found again after a restart: guests by their pod's
directory, their state by asking them. Writes of the VMI carry its resourceVersion, since the instance controller
writes the same object.
"""

import asyncio
import logging
from collections.abc import Callable

from hotvirt.api import configuration, quantity
from hotvirt.kube import conditions
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import ApiError, Conflict, NotFound, Unreachable
from hotvirt.kube.events import Recorder
from hotvirt.kube.informer import Change, Key, SharedInformers, key_of
from hotvirt.kube.reconciler import DONE, Controller, Result, in_index, owner
from hotvirt.kube.resources import VMIS
from hotvirt.kube.times import Clock
from hotvirt.node import (
    attachments,
    cards,
    changes,
    consolelog,
    freezing,
    holding,
    keptmemory,
    newstatus,
    power,
    start,
    status,
    stopping,
    unhealthy,
)
from hotvirt.node.bootturns import BootTurns
from hotvirt.node.cgroups import Cgroups, requested
from hotvirt.node.guest import Guest
from hotvirt.node.hostfacts import HostFacts
from hotvirt.node.network import Network
from hotvirt.node.ownwrites import OwnWrites
from hotvirt.node.places import Places, PodPlace
from hotvirt.node.podprocess import read_identity, read_outcome
from hotvirt.node.pulls import REASONS as PULL_REASONS
from hotvirt.node.pulls import Pulls
from hotvirt.node.seen import Seen
from hotvirt.node.surroundings import BY_CLAIM, Surroundings
from hotvirt.node.volumes import IN_USE, VolumeError, Volumes
from hotvirt.qemu import launch
from hotvirt.qemu.errors import QemuError, QemuTimeout
from hotvirt.qemu.process import alive
from hotvirt.qemu.state import Observed

log = logging.getLogger(__name__)

FINAL = ("Succeeded", "Failed")
RETRY_START = 15.0
RETRY_CARD = 3.0
"""Seconds between looks for a network that a card waits for, which no event tells of."""
TAKE_OVER = 15.0
"""Seconds that a question about a guest waits for it to be found again after a restart of the home."""


class NodeAgent:
    def __init__(
        self, client: Client, informers: SharedInformers, *, facts: HostFacts, places: Places, network: Network,
        recorder: Recorder, clock: Clock, cgroups: Cgroups | None = None,
    ) -> None:  # fmt: skip
        self._cgroups = cgroups or Cgroups(None)
        self._boots = BootTurns(self._cgroups, turns=facts.cpus if facts.emulates else 0)
        self._console_logs = consolelog.ConsoleLogs()
        self._client, self._facts, self._places = client, facts, places
        self._network, self._recorder, self._clock = network, recorder, clock
        self._around = Surroundings(client, informers, has_guest=lambda key: key in self.guests)
        self._vmis = self._around.vmis
        pulls = Pulls(places.images, say=recorder.event, wake=lambda vmi: self._poked(key_of(vmi)))
        self._volumes = Volumes(places, pulls)
        self.guests: dict[Key, Guest] = {}
        self._moved = asyncio.Event()  # replaced whenever it is set
        self.controller = Controller("node-agent", self.reconcile, workers=16)
        self._own = OwnWrites(self.controller.queue.add)
        """Writes of a status that change nothing of what is to be done."""
        self.controller.watch(self._vmis, when=lambda change: not self._own.is_own(change))
        pods = self._around.pods
        self.controller.watch(pods, owner(VMIS.kind), when=lambda change: change.new is None or _is_going(change.new))
        self.controller.watch(pods, self._around.users_of_its_claims, when=_has_ended)
        self.controller.watch(self._around.claims, in_index(self._vmis, BY_CLAIM))
        self.controller.watch(self._around.volumes, self._around.users_of_volume)

    async def close(self) -> None:
        """Let go of all guests; they run on."""
        for guest in list(self.guests.values()):
            await guest.close()
        self.guests.clear()
        await self._volumes.close()
        self._console_logs.close()

    async def guest_of(self, key: Key, *, answering: bool = False) -> Guest | None:
        """The guest, if there is one. One that the VMI tells of and that is not found again yet, or whose agent did
        answer and has not greeted yet (`answering`), is waited for."""
        try:
            async with asyncio.timeout(TAKE_OVER):
                await self._vmis.synced()
                while is_awaited(self._vmis.get(key.name, key.namespace), self.guests.get(key), answering=answering):
                    await self._moved.wait()
        except TimeoutError:
            pass
        return self.guests.get(key)

    @property
    def network(self) -> Network:
        return self._network

    def address_of(self, guest: Guest, namespace: str) -> str:
        """Of its pod, "" when the pod has none (any more)."""
        return self._around.address(namespace, guest.uid)

    def _tell_waiting(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    async def reconcile(self, key: Key) -> Result:
        self._tell_waiting()
        vmi = self._vmis.get(key.name, key.namespace)
        current = vmi.get("status") or {} if vmi else {}
        uid = next((u for u, node in (current.get("activePods") or {}).items() if node == self._facts.node_name), "")
        guest = self.guests.get(key)
        if vmi is None or current.get("phase") in FINAL or (guest is not None and guest.uid != uid):
            await self._let_go(key)
            if vmi is None or current.get("phase") in FINAL:
                return DONE
        if not uid or current.get("phase") not in ("Scheduled", "Running"):
            return DONE
        guest = self.guests.get(key)
        if guest is None or guest.is_gone:
            await self._let_go(key)
            return await self._find_or_start(key, vmi, uid)
        return await self._look_after(key, vmi, guest)

    # Finding and starting

    async def _find_or_start(self, key: Key, vmi: Document, uid: str) -> Result:
        place = self._places.pod(uid)
        if place.qmp.exists():
            try:
                guest = await self._going_on(vmi, await self._connect(key, place, uid))
                return await self._look_after(key, vmi, guest)
            except QemuError as error:
                if not self._lives(place):
                    await self._ended(key, vmi, place, str(error))
                    return DONE
                if not place.launch.exists():  # QEMU runs, and its monitor does not answer
                    if self._time_to_stop(vmi, uid) == 0:
                        stopping.kill(place)
                    return await self._is_silent(vmi, error)
        if not self._lives(place) or _is_going(vmi):
            return DONE  # the pod's end is the pod runner's to tell
        result = await self._start(key, vmi, place, uid)
        self._in_its_turn(key, vmi)
        return result

    async def _start(self, key: Key, vmi: Document, place: PodPlace, uid: str) -> Result:
        if not (address := self._around.address(key.namespace, uid)):
            return DONE  # the pods' cache lags; its next event brings this up again
        for image in self._volumes.to_build(vmi):
            message = f"building image {image} on this machine before its first use, which can take minutes"
            self._recorder.event(vmi, "Normal", "BuildingImage", message)
        try:
            said = await start.start(
                vmi, place, uid=uid, address=address, facts=self._facts, network=self._network,
                attachment=self._around.attachment(vmi), volumes=self._volumes, lookup=self._around.lookup(key, uid),
                now=self._clock(), cgroups=self._cgroups,
                smbios=configuration.of(self._around.kubevirt()).get("smbios"), console_log=self._console_log(vmi),
            )  # fmt: skip
            if said:
                self._recorder.event(vmi, "Warning", "MemoryNotResumed", f"the guest boots from its disks: {said}")
            guest = await self._going_on(vmi, await self._connect(key, place, uid))
        except VolumeError as error:
            return await self._cannot_start(vmi, error.reason, str(error))
        except start.StartError as error:
            return await self._cannot_start(vmi, error.reason, str(error))
        except QemuTimeout as error:
            if self._lives(place):
                return await self._is_silent(vmi, error)
            await self._ended(key, vmi, place, str(error))
            return DONE
        except QemuError as error:
            await self._ended(key, vmi, place, str(error))
            return DONE
        except (ApiError, Unreachable):
            raise  # the queue's to judge, and to try again
        except Exception as error:  # of what nobody thought of: who waits for the guest is told so much at least
            log.exception("guest %s cannot be started", key)
            return await self._cannot_start(vmi, "FailedStart", status.of_our_own(error))
        return await self._look_after(key, vmi, guest)

    def _in_its_turn(self, key: Key, vmi: Document) -> None:
        """Boots. Not before its VMI says that it runs: a QEMU that is held back takes long to answer."""
        guest = self.guests.get(key)
        if guest is None or guest.view is not None or vmi["spec"].get("startStrategy") == "Paused":
            return
        if (pod := self._around.pod(key.namespace, guest.uid)) is not None:
            self._boots.began(guest.uid, millis=requested(pod))

    async def _connect(self, key: Key, place: PodPlace, uid: str, *, timeout: float = 10.0) -> Guest:
        guest = await Guest.connect(
            place, name=str(key), uid=uid, accelerator=self._facts.acceleration.kind,
            poke=lambda: self._poked(key), timeout=timeout,
        )  # fmt: skip
        place.launch.unlink(missing_ok=True)  # left by a home that died just as QEMU began
        self._console_logs.resume(place)
        self.guests[key] = guest
        self._tell_waiting()
        return guest

    async def _going_on(self, vmi: Document, guest: Guest) -> Guest:
        """One that waits for the memory that was kept for it has it, and goes on."""
        said = await keptmemory.resume(guest, self._places, vmi)
        if said == "":
            self._recorder.event(vmi, "Normal", "MemoryResumed", "the guest goes on from the memory that was restored")
        elif said is not None:
            self._recorder.event(vmi, "Warning", "MemoryNotResumed", f"the guest boots from its disks: {said}")
        return guest

    def _poked(self, key: Key) -> None:
        self._tell_waiting()
        self.controller.queue.add(key)

    async def _is_silent(self, vmi: Document, error: QemuError) -> Result:
        """QEMU is there, and takes its time on a busy machine, or hangs: that is for people to judge."""
        log.warning("guest %s does not answer: %s", key_of(vmi), error)
        if vmi["status"].get("phase") == "Scheduled":
            message = "QEMU was started and does not answer yet; is the machine busy? To start over: hotvirt restart"
            if (patch := status.out_of_sync(vmi, status.SILENT, message, now=self._clock())) is not None:
                await self._patch(vmi, patch)
        return Result(requeue_after=5)

    async def _cannot_start(self, vmi: Document, reason: str, message: str) -> Result:
        patch = status.out_of_sync(vmi, reason, message, now=self._clock())
        if patch is not None:
            await self._patch(vmi, patch)
            if reason not in PULL_REASONS:  # of those, events tell already
                self._recorder.event(vmi, "Warning", "SyncFailed", message)
        return Result(requeue_after=RETRY_START)

    # A guest that is there

    async def _look_after(self, key: Key, vmi: Document, guest: Guest) -> Result:
        if (seconds := self._time_to_stop(vmi, guest.uid)) is not None:
            if guest.stopping is None and seconds > 0:
                self._recorder.event(vmi, "Normal", "ShuttingDown", "Signaled Graceful Shutdown")
            elif guest.stopping is None:
                self._recorder.event(vmi, "Normal", "Deleted", "Signaled Deletion")
            # First, as a QEMU that hangs answers no question. A guest that has only lost its pod was not to end.
            stopping.shut_down(guest, seconds=seconds, else_="Succeeded" if _is_going(vmi) else "Failed")
        if seconds is not None or guest.view is not None:
            self._boots.over(guest.uid)
        noted = guest.noted() if seconds is None else None
        try:
            observed = noted or await guest.look(wanted=vmi["spec"])
        except QemuError as error:
            if self._lives(guest.place):
                return Result(requeue_after=1)
            await self._ended(key, vmi, guest.place, str(error))
            return DONE
        stays = seconds is None and vmi["spec"]["domain"].get("rebootPolicy") != "Terminate"
        if observed.status == "shutdown" and stays and power.is_to_reboot(guest.place, self._clock()):
            await power.switch_on_again(guest)
            return DONE  # its events bring this up again
        if (end := status.ENDS.get(observed.status)) is not None:
            await self._over(key, vmi, guest, end)
            return DONE
        if seconds is not None:
            return DONE
        result = await self._bring_closer(vmi, guest, observed)
        if noted is not None:
            self._poked(key)  # that was told at once; now look at all of it
        return result

    async def _bring_closer(self, vmi: Document, guest: Guest, observed: Observed) -> Result:
        if not vmi["status"].get("interfaces"):
            vmi = _addressed(vmi, self.address_of(guest, vmi["metadata"]["namespace"]))
        if guest.settled is None:
            published = ((vmi.get("status") or {}).get("memory") or {}).get("guestCurrent")
            now = observed.memory.current
            guest.settled = min(now, quantity.parse_bytes(published)) if published else now
        later = [freezing.watch(guest, self._clock()), await power.press_again(guest, self._clock())]
        waiting: dict[str, tuple[str, str]] = {}
        unplugged: dict[str, tuple[str, str]] = {}
        if guest.view is None or not guest.view.frozen:
            guest.recount()
            changes.memory(vmi, guest, observed, now=self._clock())
            changes.vcpus(vmi, guest, observed, now=self._clock())
            lookup = self._around.lookup(key_of(vmi), guest.uid)
            waiting = await attachments.volumes(vmi, guest, observed, self._volumes, lookup)
            unplugged = await cards.cards(vmi, guest, observed, self._network, self._around.attachment(vmi))
        seen = Seen(
            observed=observed, view=guest.view, vcpus=guest.vcpus if guest.has_parked else None,
            settled=guest.settled, jobs=guest.jobs, volume_errors=waiting, kernel=guest.kernel,
            claims=self._around.claims_of(vmi), links=guest.links, card_errors=unplugged, unheard=guest.is_unheard,
            held=holding.held(guest.place),
        )  # fmt: skip
        pod = self._around.pod(vmi["metadata"]["namespace"], guest.uid) or {}
        ready = conditions.is_true((pod.get("status") or {}).get("conditions"), "Ready")
        patch = status.running(vmi, seen, self._facts, now=self._clock(), pod_ready=ready)
        if patch is not None:
            for event in newstatus.events(vmi, patch):
                self._recorder.event(vmi, *event)
            await self._patch(vmi, patch)
        again = [job.retry_at for job in guest.jobs.values() if job.error is not None and not job.is_running]
        moment = asyncio.get_running_loop().time()
        if unplugged:
            again.append(moment + RETRY_CARD)
        if any(reason == IN_USE for reason, _ in waiting.values()):
            again.append(moment + RETRY_START)  # who uses it need not be of this home, and then no event tells
        again += [moment + seconds for seconds in later if seconds is not None]
        return Result(requeue_after=max(0.1, min(again) - moment)) if again else DONE

    # Ends

    def _time_to_stop(self, vmi: Document, uid: str) -> float | None:
        """Seconds the guest still has, when it is to stop; None when it is not."""
        pod, note = self._around.pod(vmi["metadata"]["namespace"], uid), unhealthy.read(self._places.pod(uid))
        return stopping.seconds_left(vmi, pod, note, now=self._clock())

    async def _over(self, key: Key, vmi: Document, guest: Guest, end: status.End) -> None:
        """The guest has stopped and QEMU waits to be dismissed."""
        end = self._judged(vmi, guest.place, end)
        guest.place.outcome.write_text(end.phase)
        await self._finish(vmi, end)
        await stopping.dismiss(guest, end.phase)
        await self._let_go(key)

    async def _ended(self, key: Key, vmi: Document, place: PodPlace, why: str) -> None:
        """QEMU is gone. What was noted before counts; else it died, and its last words say why."""
        await self._let_go(key)
        noted = read_outcome(place)
        end = status.end_of_qemu(noted, cut_off=place.cut_off.exists(), log=launch.read_log(place.log), why=why)
        if not noted and (killed := self._cgroups.killed_for(place.directory.name)):
            end = status.out_of_memory(killed)
        if not noted:
            try:
                place.outcome.write_text(end.phase)
            except FileNotFoundError:
                pass  # the pod was cleaned up already
        pod = self._around.pod(key.namespace, place.directory.name)
        if not noted and not _is_going(vmi) and (pod is None or _is_going(pod)):
            end = status.WITHOUT_POD
        await self._finish(vmi, self._judged(vmi, place, end))

    def _judged(self, vmi: Document, place: PodPlace, end: status.End) -> status.End:
        """A guest that was stopped for its liveness probe has failed, however it took that."""
        note = None if _is_going(vmi) else unhealthy.read(place)
        return status.unhealthy(note.words) if note is not None else end

    async def _finish(self, vmi: Document, end: status.End) -> None:
        await self._patch(vmi, status.final(vmi, end, now=self._clock()))
        self._recorder.event(vmi, "Normal" if end.phase == "Succeeded" else "Warning", "Stopped", end.message)

    async def _let_go(self, key: Key) -> None:
        self._own.forget(key)
        if (guest := self.guests.pop(key, None)) is not None:
            self._boots.over(guest.uid)
            await guest.close()

    # Small parts

    def _lives(self, place: PodPlace) -> bool:
        identity = read_identity(place.pid)
        return identity is not None and alive(identity)

    def _console_log(self, vmi: Document) -> Callable[[PodPlace], int] | None:
        options = configuration.of(self._around.kubevirt()).get("virtualMachineOptions") or {}
        return self._console_logs.writer if consolelog.is_wanted(vmi["spec"], options) else None

    async def _patch(self, vmi: Document, patch: Document) -> None:
        metadata, key = vmi["metadata"], key_of(vmi)
        guarded = {**patch, "metadata": {**patch.get("metadata", {}), "resourceVersion": metadata["resourceVersion"]}}
        try:
            with self._own.writing(key) as own:
                written = await self._client.patch(VMIS, metadata["name"], guarded, metadata["namespace"])
                if (vmi.get("status") or {}).get("phase") == (written.get("status") or {}).get("phase") == "Running":
                    own.version = written["metadata"]["resourceVersion"]
                self._vmis.observe(written)
        except NotFound:
            return
        except Conflict:
            log.debug("status of %s was written by another part meanwhile", metadata["name"])
            raise


def _has_ended(change: Change) -> bool:
    return change.new is None or (change.new.get("status") or {}).get("phase") in FINAL


def is_awaited(vmi: Document | None, guest: Guest | None, *, answering: bool) -> bool:
    """Whether what the VMI tells of its guest is not found (again) yet. Pure."""
    current = (vmi or {}).get("status") or {}
    if current.get("phase") != "Running":
        return False
    if guest is None or guest.is_gone:
        return True
    return answering and guest.answering is None and conditions.is_true(current.get("conditions"), "AgentConnected")


def _is_going(obj: Document) -> bool:
    return bool(obj["metadata"].get("deletionTimestamp"))


def _addressed(vmi: Document, address: str) -> Document:
    """The instance as if its first interface's address were published: it is, with the next write."""
    interfaces = ((vmi["spec"]["domain"].get("devices") or {}).get("interfaces") or ())[:1]
    if not interfaces or not address:
        return vmi
    entry = {"name": interfaces[0]["name"], "ipAddress": address}
    return {**vmi, "status": {**vmi["status"], "interfaces": [entry]}}
