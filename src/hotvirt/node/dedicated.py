"""CPUs of the host for one guest alone (`dedicatedCpuPlacement`): which, and who runs on them.

Each vCPU's thread is bound to a CPU of its own; QEMU's other threads share these, or have one more
(`isolateEmulatorThread`). All other guests, and the home's own threads, run on what is left, which is never nothing.
Other processes of the machine, dnsmasq among them, are not moved.

What was given is noted in the pod's directory, so a home that starts anew gives the same, and nothing of it twice: one
worker does all of this. A guest whose QEMU is gone needs its CPUs no more, whatever else of it is still there.
"""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from msgspec import DecodeError, Struct, json

from hotvirt.kube.client import Document
from hotvirt.kube.events import Recorder
from hotvirt.kube.informer import Change, Key, SharedInformers, key_of
from hotvirt.kube.reconciler import DONE, Controller, Result
from hotvirt.kube.resources import VMIS
from hotvirt.node import render
from hotvirt.node.agent import NodeAgent
from hotvirt.node.guest import Guest
from hotvirt.node.places import Places, PodPlace
from hotvirt.node.podprocess import holders, read_identity
from hotvirt.preconditions.room import FINAL, SHARED_CPUS
from hotvirt.qemu.errors import QemuError
from hotvirt.qemu.process import alive

log = logging.getLogger(__name__)

DEDICATED = "node-dedicated-cpus"
RETRY = 1.0
"""Seconds between looks for a guest that is on its way up, or for CPUs of one that is on its way down."""


class Wish(Struct, frozen=True):
    vcpus: int
    isolated: bool = False
    """One more, for QEMU's other threads."""

    @property
    def count(self) -> int:
        return self.vcpus + self.isolated


def wish(spec: Document) -> Wish | None:
    """None: it shares CPUs with all others. Pure."""
    cpu = (spec.get("domain") or {}).get("cpu") or {}
    if not cpu.get("dedicatedCpuPlacement"):
        return None
    return Wish(render.wanted_topology(spec).vcpus, bool(cpu.get("isolateEmulatorThread")))


def choose(wanted: int, host: Sequence[int], taken: Iterable[int]) -> tuple[int, ...] | None:
    """That many CPUs; None when there are too few. The host's first stay for all. Pure."""
    given = set(taken)
    free = [cpu for cpu in sorted(host)[SHARED_CPUS:] if cpu not in given]
    return tuple(free[:wanted]) if len(free) >= wanted else None


def plan(
    wanted: Wish, cpus: Sequence[int], vcpu_threads: Sequence[int], threads: Iterable[int]
) -> dict[int, frozenset[int]]:  # fmt: skip
    """Thread -> the CPUs that it is to run on. vCPUs beyond those asked for are parked (see `hotvirt.qemu.cpu`), and
    run with QEMU's other threads. Pure."""
    others = frozenset(cpus[wanted.vcpus :] if wanted.isolated else cpus)
    pinned = dict(zip(vcpu_threads[: wanted.vcpus], (frozenset([cpu]) for cpu in cpus), strict=False))
    return {thread: pinned.get(thread, others) for thread in (*threads, *pinned)}


class DedicatedCpus:
    def __init__(
        self, informers: SharedInformers, *, agent: NodeAgent, node: str, places: Places, recorder: Recorder,
    ) -> None:  # fmt: skip
        self._agent, self._node, self._places, self._recorder = agent, node, places, recorder
        self._host = sorted(os.sched_getaffinity(0))
        self._shared = frozenset(self._host)
        self._told: set[str] = set()
        self._vmis = informers.of(VMIS)
        self.controller = Controller("dedicated-cpus", self.reconcile, workers=1)
        self._vmis.add_index(DEDICATED, lambda vmi: ["here"] if wish(vmi["spec"]) else [])
        self.controller.watch(self._vmis, when=_is_dedicated)  # all others begin where the home itself runs

    async def reconcile(self, key: Key) -> Result:
        vmi = self._vmis.get(key.name, key.namespace)
        given = self._given()
        uid, wanted = (_pod(vmi, self._node), wish(vmi["spec"])) if vmi is not None else ("", None)
        place = self._places.pod(uid)
        result = DONE
        if wanted is not None and uid and _lives(place):
            if uid not in given and (cpus := choose(wanted.count, self._host, _all(given))) is not None:
                place.cpus.write_bytes(json.encode(cpus))
                given[uid] = cpus
            if uid not in given:
                log.info("%s waits for %d CPUs of its own: others have not given theirs back yet", key, wanted.count)
                result = Result(requeue_after=RETRY)
        self._share(given)
        if vmi is not None and wanted is not None and uid in given:
            result = await self._bind(vmi, uid, wanted, given[uid])
        return result

    def _given(self) -> dict[str, tuple[int, ...]]:
        """By pod, of those whose process lives."""
        found = {}
        for vmi in self._vmis.by_index(DEDICATED, "here"):
            uid = _pod(vmi, self._node)
            if uid and (cpus := _read(self._places.pod(uid))) and _lives(self._places.pod(uid)):
                found[uid] = cpus
        return found

    def _share(self, given: Mapping[str, tuple[int, ...]]) -> None:
        """All others run on what is left. New processes of the home begin there, as it does itself."""
        left = frozenset(self._host) - frozenset(_all(given))
        if left == self._shared:
            return
        self._shared = left
        log.info("CPUs that all share: %s", ", ".join(map(str, sorted(left))))
        _run_on(dict.fromkeys(_threads(os.getpid()), left))
        for vmi in self._vmis.list():
            uid = _pod(vmi, self._node)
            if uid and uid not in given:
                for pid in holders(self._places.pod(uid)):
                    _run_on(dict.fromkeys(_threads(pid), left))

    async def _bind(self, vmi: Document, uid: str, wanted: Wish, cpus: tuple[int, ...]) -> Result:
        guest = self._agent.guests.get(key_of(vmi))
        if guest is None or guest.uid != uid:
            return Result(requeue_after=RETRY)
        try:
            vcpus = await _vcpu_threads(guest)
        except QemuError as error:
            log.debug("vCPUs of %s: %s", key_of(vmi), error)
            return DONE if guest.is_gone else Result(requeue_after=RETRY)
        place = self._places.pod(uid)
        threads = [thread for pid in holders(place) for thread in _threads(pid)]
        _run_on(plan(wanted, cpus, vcpus, threads))
        if uid not in self._told:
            self._told.add(uid)
            words = ", ".join(f"vCPU {number} on CPU {cpu}" for number, cpu in enumerate(cpus[: wanted.vcpus]))
            rest = f", QEMU's other threads on CPU {cpus[-1]}" if wanted.isolated else ""
            self._recorder.event(vmi, "Normal", "CPUsDedicated", f"{words}{rest}")
        return DONE


async def _vcpu_threads(guest: Guest) -> list[int]:
    found = await guest.monitor.execute("query-cpus-fast")
    return [int(each["thread-id"]) for each in sorted(found, key=lambda each: int(each["cpu-index"]))]


def _is_dedicated(change: Change) -> bool:
    return any(wish(vmi["spec"]) for vmi in (change.old, change.new) if vmi is not None)


def _pod(vmi: Document, node: str) -> str:
    """The uid of the pod here that an instance which has not ended runs in."""
    status = vmi.get("status") or {}
    if status.get("phase") in FINAL:
        return ""
    return next((uid for uid, where in (status.get("activePods") or {}).items() if where == node), "")


def _lives(place: PodPlace) -> bool:
    identity = read_identity(place.pid)
    return identity is not None and alive(identity)


def _read(place: PodPlace) -> tuple[int, ...]:
    try:
        return json.decode(place.cpus.read_bytes(), type=tuple[int, ...])
    except (FileNotFoundError, DecodeError):
        return ()


def _all(given: Mapping[str, tuple[int, ...]]) -> list[int]:
    return [cpu for cpus in given.values() for cpu in cpus]


def _threads(pid: int) -> list[int]:
    try:
        return [int(thread.name) for thread in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return []


def _run_on(wanted: Mapping[int, frozenset[int]]) -> None:
    for thread, cpus in wanted.items():
        try:
            if os.sched_getaffinity(thread) != cpus:
                os.sched_setaffinity(thread, cpus)
        except ProcessLookupError:
            continue
        except OSError as error:
            log.warning("thread %d cannot run on CPUs %s: %s", thread, sorted(cpus), error)
