"""Asks all guests of a node what their probes are to ask: `spec.readinessProbe` and `spec.livenessProbe`.

One loop sleeps until the next question is due, for however many guests there are; a small task holds a question while
it is on its way, one of each probe at most. What readiness says goes into the pod's status by way of the pod runner,
and from there to its instance, its VM and the endpoints of services. A liveness probe that failed is noted in the pod's
directory before anything else, so that also the next home ends that guest; the node agent does so.
"""

import asyncio
import heapq
import logging
from collections.abc import Callable
from datetime import datetime
from typing import NoReturn

from hotvirt.kube.client import Document
from hotvirt.kube.events import Recorder
from hotvirt.kube.informer import Change, Informer, Key, key_of
from hotvirt.kube.times import Clock, parse
from hotvirt.node import probes, unhealthy
from hotvirt.node.agent import NodeAgent
from hotvirt.node.network import of_the_pod
from hotvirt.node.places import Places
from hotvirt.node.podstatus import COMPUTE
from hotvirt.node.probes import Answer, Probe, Track
from hotvirt.node.probing import Way, ask
from hotvirt.node.surroundings import BY_UID

log = logging.getLogger(__name__)


class Guest:
    """The probes of one guest, by its pod's uid."""

    def __init__(self, key: Key, tracks: tuple[Track, ...]) -> None:
        self.key, self.tracks = key, tracks


class Prober:
    """`run` is one task; `readiness` is asked by the pod runner, `wake` by nobody but the informers' handlers."""

    def __init__(
        self, vmis: Informer, pods: Informer, *, agent: NodeAgent, node: str, places: Places, recorder: Recorder,
        clock: Clock,
    ) -> None:  # fmt: skip
        self._vmis, self._pods, self._agent, self._node = vmis, pods, agent, node
        self._places, self._recorder, self._clock = places, recorder, clock
        self._guests: dict[str, Guest] = {}
        self._due: list[tuple[float, int, str, Track]] = []
        self._number = 0
        self._wake = asyncio.Event()
        self.changed: Callable[[Document], None] = lambda _pod: None
        """Told the pod whose readiness changed."""
        vmis.add_handler(self._note)

    def readiness(self, uid: str) -> bool | None:
        """What the readiness probe of a pod's guest says; None when it has not said anything."""
        guest = self._guests.get(uid)
        return next((each.word for each in guest.tracks if each.probe.kind == "readiness"), None) if guest else None

    async def run(self) -> NoReturn:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while True:
                self._wake.clear()
                while self._due and self._due[0][0] <= loop.time():
                    _, _, uid, track = heapq.heappop(self._due)
                    guest = self._guests.get(uid)
                    if guest is not None and any(track is each for each in guest.tracks):
                        group.create_task(self._turn(uid, guest, track), name=f"probe-{track.probe.kind} {uid}")
                try:
                    async with asyncio.timeout_at(self._due[0][0] if self._due else None):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    # Which guests there are

    def _note(self, change: Change) -> None:
        vmi = change.new
        status = (vmi or {}).get("status") or {}
        uid = next((u for u, node in (status.get("activePods") or {}).items() if node == self._node), "")
        if change.old is not None:
            for old in ((change.old.get("status") or {}).get("activePods") or {}).keys() - {uid}:
                self._guests.pop(old, None)
        if vmi is None or not uid:
            return
        asked = probes.of(vmi)
        if status.get("phase") != "Running" or vmi["metadata"].get("deletionTimestamp") or not asked:
            self._guests.pop(uid, None)
        elif uid not in self._guests and not self._places.pod(uid).unhealthy.exists():
            self._begin(uid, vmi, asked)

    def _begin(self, uid: str, vmi: Document, asked: tuple[Probe, ...]) -> None:
        now = asyncio.get_running_loop().time()
        since = now - max(0.0, (self._clock() - (_running_since(vmi) or self._clock())).total_seconds())
        tracks = tuple(Track(p, probes.first_due(p, uid, running_since=since, now=now)) for p in asked)
        self._guests[uid] = Guest(key_of(vmi), tracks)
        for track in tracks:
            self._put(uid, track)

    def _put(self, uid: str, track: Track) -> None:
        self._number += 1
        heapq.heappush(self._due, (track.due, self._number, uid, track))
        self._wake.set()

    # Asking

    async def _turn(self, uid: str, guest: Guest, track: Track) -> None:
        now = asyncio.get_running_loop().time
        vmi, pod = self._vmis.get(guest.key.name, guest.key.namespace), self._pod(guest.key, uid)
        held = self._agent.guests.get(guest.key)
        if vmi is None or pod is None:
            return
        if held is None or held.uid != uid or held.is_gone:
            track.skip(now())  # it is being found again, or its end is about to be seen
        elif probes.is_mute(vmi, track.probe, frozen=held.view is not None and held.view.frozen):
            track.skip(now())
        else:
            try:
                answer = await ask(track.probe, held, self._way(vmi, pod))
            except Exception:
                # Of what a guest said that nobody thought of: the probes of all others, and the node, go on.
                log.exception("the %s probe of %s cannot be asked", track.probe.kind, guest.key)
                answer = Answer(False, "it could not be asked: the home's log tells why")
            if self._guests.get(uid) is not guest or held.is_gone:
                return
            changed = track.take(answer, now())
            self._tell(vmi, pod, track, answer)
            if changed and self._acted(vmi, pod, uid, track, answer):
                return
        self._put(uid, track)

    def _acted(self, vmi: Document, pod: Document, uid: str, track: Track, answer: Answer) -> bool:
        """See to what a probe's new word asks for; whether the guest is at its end by that."""
        if track.probe.kind == "readiness":
            self.changed(pod)
            return False
        if answer.ok:
            return False
        self._guests.pop(uid, None)
        if not unhealthy.write(self._places.pod(uid), answer.words, now=self._clock()):
            return True
        self._recorder.event(pod, "Normal", "Killing", f"Container {COMPUTE} failed liveness probe")
        self._agent.controller.queue.add(key_of(vmi))
        return True

    def _tell(self, vmi: Document, pod: Document, track: Track, answer: Answer) -> None:
        if track.is_news(answer):
            message = f"{track.probe.kind.capitalize()} probe failed: {answer.words}"
            for about in (pod, vmi):
                self._recorder.event(about, "Warning", "Unhealthy", message)

    def _way(self, vmi: Document, pod: Document) -> Way:
        if self._agent.network.kind != "user":
            return Way(address=str((pod.get("status") or {}).get("podIP") or ""))
        interfaces = of_the_pod(vmi)
        return Way(interface=str(interfaces[0][1]["name"]) if interfaces else "")

    def _pod(self, key: Key, uid: str) -> Document | None:
        found = self._pods.by_index(BY_UID, uid)
        return found[0] if found and found[0]["metadata"]["namespace"] == key.namespace else None


def _running_since(vmi: Document) -> datetime | None:
    found = (vmi.get("status") or {}).get("phaseTransitionTimestamps") or ()
    return next((parse(e.get("phaseTransitionTimestamp")) for e in found if e.get("phase") == "Running"), None)
