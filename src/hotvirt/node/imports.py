"""What is put into claims before they are bound: images from elsewhere, uploads, copies; embedded home only.

For each such claim one task works in the volume's directory, below `work/`, until the disk is there under its name;
then the provisioner binds the claim. What a kill leaves in `work/` is gone on with or begun anew. How far it is, what
went wrong and how often is said in the claim's annotations (`api.datavolumes`), from which a DataVolume's status comes.
A failure is tried again with growing pauses, unless trying again is useless. At most `AT_ONCE` tasks copy at a time.
"""

import asyncio
import contextlib
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from hotvirt.api import datavolumes
from hotvirt.images import bases, copying, download, taking
from hotvirt.images.errors import ImageError, TooLarge, UnsafeImage
from hotvirt.kube.backoff import Backoff
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import ApiError
from hotvirt.kube.events import Recorder
from hotvirt.kube.informer import Key, SharedInformers, key_of
from hotvirt.kube.reconciler import DONE, Controller, Result
from hotvirt.kube.resources import CLAIMS, DATA_VOLUMES, STORAGE_CLASSES, VOLUMES
from hotvirt.node.directoryclaims import asked_size, disk_format, volume_name
from hotvirt.node.filling import RECEIVED, WORK, Filling, Given, Job
from hotvirt.node.importrequests import NotYet, Requests
from hotvirt.node.places import Places
from hotvirt.node.volumes import PROVISIONER

log = logging.getLogger(__name__)

INCOMING = "incoming"
AT_ONCE = 2
BACKOFF = Backoff(base=2, cap=300)
SAY_EVERY = 2.0
WAIT = 2.0
"""Seconds between looks whether what is to be copied is free."""
FIRST_USER = 61183
"""Who converts what came from outside: the number below those of guests."""


class _Running:
    """A task for a claim, and what became of those before it."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self.task: asyncio.Task[None] | None = None
        self.failures = 0
        self.retry_at = 0.0
        self.said_at = 0.0
        self.is_final = False
        self.done = asyncio.Event()
        self.error = ""


class Imports:
    def __init__(
        self, client: Client, informers: SharedInformers, *, places: Places, recorder: Recorder, user: int | None,
        stall: float = download.STALL, backoff: Backoff = BACKOFF, monotonic: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._client, self._places, self._recorder = client, places, recorder
        self._backoff, self._monotonic = backoff, monotonic
        self._claims, self._pvs = informers.of(CLAIMS), informers.of(VOLUMES)
        self._classes = informers.of(STORAGE_CLASSES)
        self._requests = Requests(client, informers)
        self._filling = Filling(client, informers, places=places, user=user, stall=stall)
        self._running: dict[str, _Running] = {}
        self._writers: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self.controller = Controller("imports", self.reconcile, workers=2)
        self.controller.watch(self._claims)
        self.controller.watch(informers.of(DATA_VOLUMES))
        self.controller.needs(self._classes, *self._requests.needs, *self._filling.needs)

    async def close(self) -> None:
        """Ends what goes on; the next home goes on with it."""
        tasks = [*(each.task for each in self._running.values() if each.task is not None), *self._writers]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._running.clear()

    async def begin(self) -> None:
        """When the node starts, once caches are filled: before any task."""
        for informer in (self._pvs, self._claims):
            await informer.synced()
        self._sweep()

    def _sweep(self) -> None:
        """What nobody will come back for, and what a kill interrupted."""
        known = {volume["metadata"]["name"] for volume in self._pvs.list()}
        known |= {volume_name(claim) for claim in self._claims.list()}
        for directory in self._places.volumes.glob("pvc-*"):
            if directory.name not in known and bases.disk_in(directory) is None:
                # A disk that is whole is left: its volume may have been retained, and then deleted.
                shutil.rmtree(directory, ignore_errors=True)
                continue
            try:
                copying.sweep(directory)
                bases.mend(directory)
                if bases.disk_in(directory) is not None:
                    taking.clear(directory / WORK)
            except OSError as error:  # whoever uses that claim is told; all other guests are to run
                log.error("%s stays as an earlier home left it: %s", directory, error)
        try:
            bases.collect(self._places.volumes)
        except OSError as error:
            log.error("bases that no disk needs any more stay: %s", error)

    async def reconcile(self, key: Key) -> Result:
        claim = self._claims.get(key.name, key.namespace)
        going = claim is None or bool(claim["metadata"].get("deletionTimestamp"))
        for uid in [uid for uid, running in self._running.items() if running.key == key]:
            if going or claim is None or claim["metadata"]["uid"] != uid:
                await self._call_off(uid)
        if claim is None or going:
            return DONE
        uid = claim["metadata"]["uid"]
        try:
            job = await self._job(claim)
        except NotYet as waits:
            self._event(claim, waits.reason, str(waits))
            await self._say(claim, phase="Pending", running="false", reason="Pending", message=str(waits))
            return Result(requeue_after=WAIT)
        if job is None:
            self._running.pop(uid, None)
            return DONE
        if bases.disk_in(job.directory) is not None:
            await self._succeeded(job)
            return DONE
        running = self._running.setdefault(uid, _Running(key))
        if datavolumes.annotations(claim).get(datavolumes.POD_PHASE) == "Failed":
            return DONE  # for good, as an earlier home found out
        if running.is_final or (running.task is not None and not running.task.done()):
            return DONE
        if (wait := running.retry_at - self._monotonic()) > 0:
            return Result(requeue_after=wait)
        if job.request.kind == "upload" and not (job.work / RECEIVED).exists():
            await self._say(job.claim, phase="Running", ready="true", running="true", reason="Pod is running")
            return DONE
        running.task = asyncio.create_task(self._run(job, running), name=f"import {key}")
        return DONE

    async def _call_off(self, uid: str) -> None:
        running = self._running.pop(uid)
        if running.task is not None:
            running.task.cancel()
            await asyncio.gather(running.task, return_exceptions=True)
        directory = self._places.volumes / f"pvc-{uid}"
        if not any(volume["metadata"]["name"] == directory.name for volume in self._pvs.list()):
            shutil.rmtree(directory, ignore_errors=True)
            bases.collect(self._places.volumes)

    async def _job(self, claim: Document) -> Job | None:
        """None for a claim that is none of ours, or not yet."""
        if (claim.get("status") or {}).get("phase") == "Bound" or claim["spec"].get("volumeName"):
            return None
        name = claim["spec"].get("storageClassName")
        storage_class = next((c for c in self._classes.list() if c["metadata"]["name"] == name), None)
        if storage_class is None or storage_class.get("provisioner") != PROVISIONER:
            return None
        if not datavolumes.is_populated(claim) or datavolumes.waits_for_consumer(claim, storage_class):
            return None
        if (request := await self._requests.of(claim)) is None:
            return None
        return Job(
            claim=claim, request=request, directory=self._places.volumes / volume_name(claim),
            format=disk_format(storage_class), size=asked_size(claim),
        )  # fmt: skip

    # The task

    async def _run(self, job: Job, running: _Running) -> None:
        key = key_of(job.claim)
        try:
            async with self._turns:
                await self._say(job.claim, phase="Running", running="true", reason="Pod is running", ready="true")
                await self._filling.fill(job, self._teller(job, running))
        except asyncio.CancelledError:
            raise
        except NotYet as waits:
            running.retry_at = self._monotonic() + WAIT
            self._event(job.claim, waits.reason, str(waits))
            await self._said(job.claim, phase="Pending", running="false", reason=waits.reason, message=str(waits))
        except (Given, UnsafeImage, TooLarge) as error:
            await self._failed(job, running, str(error), is_final=job.request.kind != "upload")
        except (ImageError, OSError) as error:
            await self._failed(job, running, str(error), is_final=False)
        except ApiError as error:
            await self._failed(job, running, error.message, is_final=False)
        except Exception as error:
            log.exception("%s: filling the claim failed", key)
            await self._failed(job, running, f"{type(error).__name__}: {error}", is_final=False)
        finally:
            running.done.set()
            self.controller.queue.add(key)

    async def _failed(self, job: Job, running: _Running, message: str, *, is_final: bool) -> None:
        running.failures += 1
        running.is_final, running.error = is_final, message
        running.retry_at = self._monotonic() + self._backoff.delay(running.failures)
        if job.request.kind == "upload":
            running.retry_at = 0.0
            (job.work / RECEIVED).unlink(missing_ok=True)
        self._recorder.event(job.claim, "Warning", "Error", message)
        metadata = job.claim["metadata"]
        current = self._claims.get(metadata["name"], metadata["namespace"]) or job.claim
        restarts = int(datavolumes.annotations(current).get(datavolumes.RESTARTS) or 0)
        await self._said(
            job.claim, phase="Failed" if is_final else "Running", running="false", reason="Error", message=message,
            restarts=restarts + 1, ready="true" if job.request.kind == "upload" else "false",
        )  # fmt: skip

    # Uploads

    def upload(self, key: Key, uid: str) -> Path | None:
        """Where an upload to a claim is to be written; None when it does not wait for one."""
        claim = self._claims.get(key.name, key.namespace)
        if claim is None or claim["metadata"]["uid"] != uid:
            return None
        running, said = self._running.get(uid), datavolumes.annotations(claim)
        if running is None or said.get(datavolumes.POD_READY) != "true" or said.get(datavolumes.POD_PHASE) != "Running":
            return None
        if running.task is not None and not running.task.done():
            return None
        work = self._places.volumes / volume_name(claim) / WORK
        work.mkdir(mode=0o711, parents=True, exist_ok=True)
        return work / INCOMING

    def received(self, key: Key, uid: str) -> asyncio.Event:
        """The upload is whole and on disk, as `RECEIVED`: it is taken in now. The event tells of the end."""
        running = self._running.setdefault(uid, _Running(key))
        running.done = asyncio.Event()
        running.error = ""
        self.controller.queue.add(key)
        return running.done

    def outcome(self, uid: str) -> str:
        """What went wrong with the last attempt."""
        running = self._running.get(uid)
        return running.error if running is not None else ""

    def size_of(self, key: Key) -> int:
        """Bytes of the claim; 0 when it is gone."""
        claim = self._claims.get(key.name, key.namespace)
        return asked_size(claim) if claim is not None else 0

    # Saying how it is

    def _teller(self, job: Job, running: _Running) -> Callable[[float], None]:
        loop = asyncio.get_running_loop()

        def tell(fraction: float) -> None:
            now = self._monotonic()
            if now - running.said_at >= SAY_EVERY:
                running.said_at = now
                loop.call_soon_threadsafe(self._progress, job, running, fraction)

        return tell

    def _progress(self, job: Job, running: _Running, fraction: float) -> None:
        if running.task is None or running.task.done():
            return
        text = f"{100 * min(fraction, 1.0):.2f}%"
        writer = asyncio.create_task(self._said(job.claim, progress=text))
        self._writers.add(writer)
        writer.add_done_callback(self._writers.discard)

    async def _succeeded(self, job: Job) -> None:
        await self._say(
            job.claim, phase="Succeeded", running="false", reason="Completed", message="", progress="100.0%",
            ready="false",
        )  # fmt: skip
        # Afterwards, as letting go of a large download takes a while; what a kill leaves of it goes with `_sweep`.
        await asyncio.to_thread(taking.clear, job.work)

    def _event(self, claim: Document, reason: str, message: str) -> None:
        """Once for each thing that it waits for."""
        current = self._claims.get(claim["metadata"]["name"], claim["metadata"]["namespace"]) or claim
        if datavolumes.annotations(current).get(datavolumes.RUNNING_MESSAGE) != message:
            self._recorder.event(claim, "Warning", reason, message)

    async def _said(self, claim: Document, **said: object) -> None:
        with contextlib.suppress(ApiError):
            await self._say(claim, **said)

    async def _say(self, claim: Document, **said: object) -> None:
        current = self._claims.get(claim["metadata"]["name"], claim["metadata"]["namespace"])
        if current is None or current["metadata"]["uid"] != claim["metadata"]["uid"]:
            return
        new = {_WORDS[word]: str(value) for word, value in said.items()}
        old = datavolumes.annotations(current)
        if all(old.get(name, "") == value for name, value in new.items()):
            return
        metadata = claim["metadata"]
        self._claims.observe(
            await self._client.patch(
                CLAIMS, metadata["name"], {"metadata": {"annotations": new}}, metadata["namespace"]
            )
        )


_WORDS = {
    "phase": datavolumes.POD_PHASE, "ready": datavolumes.POD_READY, "restarts": datavolumes.RESTARTS,
    "running": datavolumes.RUNNING, "reason": datavolumes.RUNNING_REASON, "message": datavolumes.RUNNING_MESSAGE,
    "progress": datavolumes.PROGRESS,
}  # fmt: skip
