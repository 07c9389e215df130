"""The kubelet of the embedded home, for launcher pods only: pod <-> launch receiver process.

A pod bound to this node gets a directory, an address and a waiting receiver, which the node agent later turns into
QEMU; its end is the pod's end. After a restart of the home the process is found again by pid and start time. One key at
a time; the process is watched by one small task a pod. Graceful shutdown is the node agent's (it knows the guest);
here only the deadline is kept.
"""

import asyncio
import logging
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from msgspec import json

from hotvirt.kube import statuses
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import Conflict, NotFound
from hotvirt.kube.informer import Change, Informer, Key
from hotvirt.kube.reconciler import DONE, Controller, Result
from hotvirt.kube.resources import PODS
from hotvirt.kube.times import Clock, parse
from hotvirt.node import oom, podstatus
from hotvirt.node.cgroups import Cgroups, Limits, limits, requested
from hotvirt.node.network import Network
from hotvirt.node.places import Places
from hotvirt.node.podprocess import end_holders, read_identity, read_outcome
from hotvirt.qemu import launch
from hotvirt.qemu.errors import QemuError
from hotvirt.qemu.process import Process

log = logging.getLogger(__name__)

LAUNCHER = "virt-launcher"
FINAL = ("Succeeded", "Failed")
TEND = 60.0


class PodRunner:
    def __init__(
        self, client: Client, pods: Informer, *, node: str, places: Places, network: Network, cgroups: Cgroups,
        clock: Clock,
    ) -> None:  # fmt: skip
        self._client, self._pods, self._node = client, pods, node
        self._places, self._network, self._cgroups, self._clock = places, network, cgroups, clock
        self._running: dict[str, Process] = {}
        self._exits: dict[str, int | None] = {}
        self._addresses: dict[str, str] = {}
        self._limits: dict[str, Limits] = {}
        self._asked: dict[str, int] = {}
        self._scores: dict[str, int] = {}
        self._gone: dict[Key, set[str]] = {}
        self._watchers: set[asyncio.Task[None]] = set()
        self.readiness: Callable[[str], bool | None] = lambda _uid: None
        """What the readiness probe of a pod of this uid says; None when it has said nothing (yet)."""
        self.controller = Controller("pod-runner", self.reconcile)
        self.controller.watch(pods)
        pods.add_handler(self._note_gone)

    async def sweep(self) -> None:
        """At start, with the cache filled: directories of pods that went while nobody looked."""
        known = {pod["metadata"]["uid"] for pod in self._pods.list()}
        if not self._places.pods.exists():
            return
        for directory in list(self._places.pods.iterdir()):
            if directory.name not in known:
                log.info("pod %s is gone: cleaning up after it", directory.name)
                try:
                    await self._clear(directory.name)
                except Exception:
                    # One that cannot be cleaned up must not keep the node, and all other guests, from starting.
                    log.exception("what pod %s had stays for the next home", directory.name)
        self._cgroups.sweep(known)

    async def tend(self, *, every: float = TEND) -> NoReturn:
        """Keeps what each QEMU printed short: a guest that makes its QEMU complain must not fill the disk. And removes
        the groups that a pod's last process, on its way out, had kept."""
        while True:
            await asyncio.sleep(every)
            for uid in tuple(self._running):
                place = self._places.pod(uid)
                for printed in (place.log, *place.helper_logs):
                    try:
                        launch.trim_log(printed)
                    except OSError as error:  # a disk that is full is no reason to let go of all guests
                        log.warning("%s stays as it is: %s", printed, error.strerror)
            self._cgroups.sweep({pod["metadata"]["uid"] for pod in self._pods.list()} | self._running.keys())

    async def reconcile(self, key: Key) -> Result:
        while gone := self._gone.get(key):
            uid = next(iter(gone))
            await self._clear(uid)  # one that fails stays to be tried again
            gone.discard(uid)
        self._gone.pop(key, None)
        pod = self._pods.get(key.name, key.namespace)
        if pod is None or pod["spec"].get("nodeName") != self._node:
            return DONE
        status = pod.get("status") or {}
        if pod["metadata"].get("labels", {}).get("kubevirt.io") != LAUNCHER:
            return await self._foreign(pod)
        uid = pod["metadata"]["uid"]
        process = self._process(pod)
        if pod["metadata"].get("deletionTimestamp"):
            return await self._end(pod, process)
        if status.get("phase") in FINAL:
            return DONE
        if process is None:
            if uid in self._exits or self._places.pod(uid).pid.exists() or status.get("phase") == "Running":
                await self._finish(pod)
                return DONE
            process = self._start(uid)
            self._cgroups.join(uid, process.identity.pid, millis=requested(pod))
            self._limits[uid], self._asked[uid] = Limits(), requested(pod)
        held = self._confine(pod, process)
        ready = podstatus.is_ready(pod, self.readiness(uid))
        if status.get("phase") != "Running":
            await self._patch_status(pod, podstatus.running(pod, self._address(pod), self._clock(), ready=ready))
        elif (found := podstatus.readiness(pod, self._clock(), ready=ready)) is not None:
            await self._patch_status(pod, found, guarded=True)
        return DONE if held else Result(requeue_after=TEND)

    def _confine(self, pod: Document, process: Process) -> bool:
        """Keeps up with `pods/resize`. Whether the pod is held to what it says."""
        uid, wanted, pid = pod["metadata"]["uid"], limits(pod), process.identity.pid
        if (place := oom.of_pod(pod)) != self._scores.get(uid):
            oom.hold(pid, place)
            self._scores[uid] = place
        if (asked := requested(pod)) != self._asked.get(uid):
            self._cgroups.weigh(uid, millis=asked)
            self._asked[uid] = asked
        if (known := self._limits.get(uid)) == wanted:
            return True
        held = self._cgroups.confine(uid, pid, wanted, may_lower=known is not None)
        if held:
            self._limits[uid] = wanted
        return held

    def _address(self, pod: Document) -> str:
        uid = pod["metadata"]["uid"]
        known = (pod.get("status") or {}).get("podIP") or self._addresses.get(uid)
        if not known:
            taken = {(each.get("status") or {}).get("podIP") for each in self._pods.list()}
            known = self._network.address({each for each in taken if each} | set(self._addresses.values()))
        self._addresses[uid] = known
        return known

    # Processes

    def _process(self, pod: Document) -> Process | None:
        """The pod's living process, adopted if an earlier home started it."""
        uid = pod["metadata"]["uid"]
        if (process := self._running.get(uid)) is not None or uid in self._exits:
            return process
        identity = read_identity(self._places.pod(uid).pid)
        process = Process.open(identity) if identity else None
        if process is not None:
            log.info("adopted pod %s, process %d", pod["metadata"]["name"], process.identity.pid)
            self._watch(uid, process)
        return process

    def _start(self, uid: str) -> Process:
        place = self._places.pod(uid)
        place.prepare()
        # An earlier home may have died between starting the process and noting it.
        end_holders(place)
        with launch.listening_socket(place.launch) as listener:
            identity = launch.spawn_receiver(listener, log=place.log)
        temporary = place.directory / ".pid"
        temporary.write_bytes(json.encode(identity))
        temporary.rename(place.pid)
        process = Process.open(identity)
        if process is None:
            raise QemuError(f"the launch receiver ended at once: {launch.read_log(place.log)}")
        self._watch(uid, process)
        return process

    def _watch(self, uid: str, process: Process) -> None:
        self._running[uid] = process

        async def watch() -> None:
            with process:
                code = await process.wait()
            self._running.pop(uid, None)
            for each in self._pods.list():
                if each["metadata"]["uid"] == uid:  # else it is cleaned up already, and nobody asks
                    self._exits[uid], metadata = code, each["metadata"]
                    self.controller.queue.add(Key(metadata["namespace"], metadata["name"]))

        task = asyncio.create_task(watch(), name=f"pod-process-{uid}")
        self._watchers.add(task)
        task.add_done_callback(self._watchers.discard)

    # Ends

    async def _end(self, pod: Document, process: Process | None) -> Result:
        """The pod is to go: at once without a guest, else when the guest is down, at the latest at the deadline."""
        uid = pod["metadata"]["uid"]
        if process is not None:
            deadline = parse(pod["metadata"]["deletionTimestamp"]) or self._clock()
            left = (deadline - self._clock()).total_seconds()
            if self._places.pod(uid).qmp.exists() and left > 0:
                return Result(requeue_after=left)
            process.send(signal.SIGKILL)
            return DONE  # its watcher brings the pod up again
        if (pod.get("status") or {}).get("phase") not in FINAL:
            await self._finish(pod)
        await self._clear(uid)
        try:
            await self._client.delete(
                PODS, pod["metadata"]["name"], pod["metadata"]["namespace"], uid=uid, grace_period_seconds=0
            )
        except (NotFound, Conflict):
            pass
        return DONE

    async def _finish(self, pod: Document) -> None:
        uid = pod["metadata"]["uid"]
        place = self._places.pod(uid)
        patch = podstatus.ended(
            pod, outcome=read_outcome(place), code=self._exits.get(uid), log_tail=launch.read_log(place.log),
            now=self._clock(), ran_out_of_memory=self._cgroups.ran_out_of_memory(uid),
        )  # fmt: skip
        await self._patch_status(pod, patch)

    async def _clear(self, uid: str) -> None:
        place = self._places.pod(uid)
        if uid not in self._running:
            identity = read_identity(place.pid)
            orphan = Process.open(identity) if identity else None
            if orphan is not None:
                with orphan:
                    await orphan.stop(grace=0)
        elif (process := self._running.get(uid)) is not None:
            process.send(signal.SIGKILL)
            await process.wait()
        end_holders(place)
        await self._network.release(uid)
        self._cgroups.remove(uid)
        place.remove()
        self._exits.pop(uid, None)
        self._addresses.pop(uid, None)
        self._limits.pop(uid, None)
        self._asked.pop(uid, None)
        self._scores.pop(uid, None)

    async def _foreign(self, pod: Document) -> Result:
        if (pod.get("status") or {}).get("phase") in FINAL:
            if pod["metadata"].get("deletionTimestamp"):
                metadata = pod["metadata"]
                try:
                    await self._client.delete(PODS, metadata["name"], metadata["namespace"], grace_period_seconds=0)
                except NotFound:
                    pass
            return DONE
        message = "this home runs the pods of virtual machines only: run containers in a Kubernetes cluster"
        await self._patch_status(pod, {"phase": "Failed", "reason": "NotALauncher", "message": message})
        return DONE

    async def _patch_status(self, pod: Document, status: Document, *, guarded: bool = False) -> None:
        with suppress(NotFound):
            await statuses.write(self._client, self._pods, pod, status, guarded=guarded)

    def _note_gone(self, change: Change) -> None:
        if change.new is None or (change.old and change.old["metadata"]["uid"] != change.new["metadata"]["uid"]):
            metadata = change.old["metadata"] if change.old else {}
            if (change.old or {}).get("spec", {}).get("nodeName") == self._node:
                self._gone.setdefault(Key(metadata["namespace"], metadata["name"]), set()).add(metadata["uid"])
                self.controller.queue.add(Key(metadata["namespace"], metadata["name"]))
