"""The kubelet of the embedded home, for launcher pods only: pod <-> launch receiver process.

A pod bound to this node gets a directory, an address and a waiting receiver, which the node agent later turns into
QEMU; its end is the pod's end. After a restart of the home the process is found again by pid and start time. One key at
a time; the process is watched by one small task a pod. Graceful shutdown is the node agent's (it knows the guest);
here only the deadline is kept.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import NoReturn

from msgspec import DecodeError, json

from hotvirt.kube import conditions
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import Conflict, NotFound
from hotvirt.kube.informer import Change, Informer, Key
from hotvirt.kube.reconciler import DONE, Controller, Result
from hotvirt.kube.resources import PODS
from hotvirt.kube.times import Clock, parse, stamp
from hotvirt.node import oom
from hotvirt.node.cgroups import Cgroups, Limits, limits, requested
from hotvirt.node.network import Network
from hotvirt.node.places import Places, PodPlace
from hotvirt.qemu import launch
from hotvirt.qemu.errors import QemuError
from hotvirt.qemu.process import Identity, Process

log = logging.getLogger(__name__)

LAUNCHER = "virt-launcher"
COMPUTE = "compute"
UNPAUSED = "kubevirt.io/virtual-machine-unpaused"
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
                await self._clear(directory.name)

    async def tend(self, *, every: float = TEND) -> NoReturn:
        """Keeps what each QEMU printed short: a guest that makes its QEMU complain must not fill the disk."""
        while True:
            await asyncio.sleep(every)
            for uid in tuple(self._running):
                launch.trim_log(self._places.pod(uid).log)
                for log in self._places.pod(uid).helper_logs:
                    launch.trim_log(log)

    async def reconcile(self, key: Key) -> Result:
        for uid in tuple(self._gone.pop(key, ())):
            await self._clear(uid)
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
            self._limits[uid] = Limits()
        held = self._confine(pod, process)
        ready = is_ready(pod, self.readiness(uid))
        if status.get("phase") != "Running":
            await self._patch_status(pod, running(pod, self._address(pod), self._clock(), ready=ready))
        elif (found := readiness(pod, self._clock(), ready=ready)) is not None:
            await self._patch_status(pod, found, version=pod["metadata"]["resourceVersion"])
        return DONE if held else Result(requeue_after=TEND)

    def _confine(self, pod: Document, process: Process) -> bool:
        """Keeps up with `pods/resize`. Whether the pod is held to what it says."""
        uid, wanted, pid = pod["metadata"]["uid"], limits(pod), process.identity.pid
        if (place := oom.of_pod(pod)) != self._scores.get(uid):
            oom.hold(pid, place)
            self._scores[uid] = place
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
        for pid in holders(place):
            os.kill(pid, signal.SIGKILL)
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
        patch = ended(
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
        for pid in holders(place):
            os.kill(pid, signal.SIGKILL)
        await self._network.release(uid)
        self._cgroups.remove(uid)
        place.remove()
        self._exits.pop(uid, None)
        self._addresses.pop(uid, None)
        self._limits.pop(uid, None)
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

    async def _patch_status(self, pod: Document, status: Document, *, version: str = "") -> None:
        metadata = pod["metadata"]
        patch: Document = {"status": status, **({"metadata": {"resourceVersion": version}} if version else {})}
        try:
            self._pods.observe(
                await self._client.patch(PODS, metadata["name"], patch, metadata["namespace"], subresource="status")
            )
        except NotFound:
            return

    def _note_gone(self, change: Change) -> None:
        if change.new is None or (change.old and change.old["metadata"]["uid"] != change.new["metadata"]["uid"]):
            metadata = change.old["metadata"] if change.old else {}
            if (change.old or {}).get("spec", {}).get("nodeName") == self._node:
                self._gone.setdefault(Key(metadata["namespace"], metadata["name"]), set()).add(metadata["uid"])
                self.controller.queue.add(Key(metadata["namespace"], metadata["name"]))


def read_identity(path: Path) -> Identity | None:
    try:
        return json.decode(path.read_bytes(), type=Identity)
    except (FileNotFoundError, DecodeError):
        return None


def read_outcome(place: PodPlace) -> str:
    try:
        return place.outcome.read_text().strip()
    except FileNotFoundError:
        return ""


def holders(place: PodPlace, *, of: tuple[Path, ...] = ()) -> list[int]:
    """Processes that have one of the pod's logs open (`of`: one of these): every one that was ever started for it,
    noted or not."""
    wanted, found = {str(log) for log in of or (place.log, *place.helper_logs)}, []
    if not place.log.exists():
        return []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                if os.readlink(process / "fd" / "2") in wanted:
                    found.append(int(process.name))
            except OSError:
                continue
    return found


def is_ready(pod: Document, probed: bool | None) -> bool:
    """Whether the pod's container is, by what its readiness probe says: without one it is, and before it said anything
    it is as it was told to be."""
    if probed is not None or "readinessProbe" not in pod["spec"]["containers"][0]:
        return probed is not False
    return any(
        each.get("name") == COMPUTE and each.get("ready")
        for each in (pod.get("status") or {}).get("containerStatuses") or ()
    )


def running(pod: Document, address: str, now: datetime, *, ready: bool = True) -> Document:
    """Status of a pod whose process waits or runs. Pure."""
    found = (pod.get("status") or {}).get("conditions")
    for kind in ("PodScheduled", "Initialized", *gates(pod)):
        found = conditions.put(found, kind, True, now=now)
    for kind in ("ContainersReady", "Ready"):
        found = conditions.put(found, kind, ready, now=now, **_unready(ready))
    return {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "hostIP": "127.0.0.1",
        "startTime": stamp(now),
        "conditions": found,
        "containerStatuses": [{**_container(pod), **_started(now), "ready": ready}],
        **_beside(pod, _started(now)),
    }


def _started(now: datetime) -> Document:
    return {"ready": True, "started": True, "state": {"running": {"startedAt": stamp(now)}}}


def _beside(pod: Document, state: Document) -> Document:
    """Statuses of what runs beside the first container: nothing of its own, the home does its work."""
    found = pod["spec"].get("initContainers") or ()
    return {"initContainerStatuses": [{**_status_of(each), **state} for each in found]} if found else {}


def gates(pod: Document) -> list[str]:
    """Readiness gates that are open until a guest is paused. Others are for those who set them."""
    found = [each.get("conditionType") for each in pod["spec"].get("readinessGates") or ()]
    return [each for each in found if each == UNPAUSED]


def readiness(pod: Document, now: datetime, *, ready: bool = True) -> Document | None:
    """The status of a running pod with its container ready or not, and `Ready` as that and its readiness gates have it;
    None when it is so. Pure."""
    status = pod.get("status") or {}
    found = list(status.get("conditions") or ())
    asked = [str(each.get("conditionType")) for each in pod["spec"].get("readinessGates") or ()]
    closed = [each for each in asked if not conditions.is_true(found, each)]
    why = _unready(ready)
    new = conditions.put(found, "ContainersReady", ready, now=now, **why)
    if ready and closed:
        words = f"these readiness gates are not True: {', '.join(closed)}"
        why = {"reason": "ReadinessGatesNotReady", "message": words}
    if conditions.is_true(found, "Ready") is not (ready and not closed) or not ready:
        new = conditions.put(new, "Ready", ready and not closed, now=now, **why)
    if new == found:
        return None
    old = status.get("containerStatuses") or ()
    said = [{**each, "ready": ready} if each.get("name") == COMPUTE else each for each in old]
    return {"conditions": new, **({"containerStatuses": said} if said != list(old) else {})}


def _unready(ready: bool) -> dict[str, str]:
    """Why a pod is not ready by its container, as a kubelet words it."""
    if ready:
        return {}
    return {"reason": "ContainersNotReady", "message": f"containers with unready status: [{COMPUTE}]"}


def ended(
    pod: Document, *, outcome: str, code: int | None, log_tail: str, now: datetime, ran_out_of_memory: bool = False
) -> Document:
    """Status of a pod whose process is gone. What the node agent noted counts, else the exit status. Pure."""
    phase = outcome or ("Succeeded" if code == 0 else "Failed")
    found = (pod.get("status") or {}).get("conditions")
    for kind in ("ContainersReady", "Ready"):
        found = conditions.put(
            found, kind, False, now=now, reason="PodCompleted" if phase == "Succeeded" else "PodFailed"
        )
    # As a kubelet has it: 137 for what ended while nobody looked.
    exit_code = 137 if code is None and not outcome else code or 0
    finished = {
        "exitCode": 0 if phase == "Succeeded" else exit_code if exit_code >= 0 else 128 - exit_code,
        "reason": "Completed" if phase == "Succeeded" else "OOMKilled" if ran_out_of_memory else "Error",
        "message": log_tail[-1024:],
        "finishedAt": stamp(now),
    }
    if code is not None and code < 0:
        finished["signal"] = -code
    return {
        "phase": phase,
        "conditions": found,
        "containerStatuses": [{**_container(pod), "ready": False, "started": False, "state": {"terminated": finished}}],
        **_beside(pod, {"ready": False, "started": False, "state": {"terminated": {
            "exitCode": 0, "reason": "Completed", "finishedAt": finished["finishedAt"]}}}),
    }  # fmt: skip


def _container(pod: Document) -> Document:
    return _status_of(pod["spec"]["containers"][0])


def _status_of(container: Document) -> Document:
    return {"name": container["name"], "image": container.get("image", ""), "imageID": "", "restartCount": 0}
