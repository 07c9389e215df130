"""Memory dumps that VMs ask for: `status.memoryDumpRequest`, carried out phase by phase where the guest runs.

    Associating   the claim's directory is found, the file named
    InProgress    QEMU writes; the guest stands still meanwhile
    Unmounting    the file is brought to the disk
    Completed     or Failed, with the reason; either stays until a new request, or until the claim is let go of
    Dissociating  the request is forgotten; the file stays in the claim

Each phase is written before what follows it is done, and QEMU goes on without us, so a home that dies is taken up by
the next one. Of one VM one worker does this at a time.
"""

import asyncio
import logging
import os
from datetime import datetime
from pathlib import Path

from hotvirt.api import quantity
from hotvirt.images import publish
from hotvirt.kube import statuses
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import NotFound
from hotvirt.kube.events import EventKind, Recorder
from hotvirt.kube.informer import Key, SharedInformers
from hotvirt.kube.reconciler import DONE, Controller, Result, itself
from hotvirt.kube.resources import CLAIMS, VMIS, VMS, VOLUMES
from hotvirt.kube.times import Clock, stamp
from hotvirt.node.agent import FINAL, NodeAgent
from hotvirt.node.guest import Guest
from hotvirt.node.volumes import path_of
from hotvirt.qemu import dump
from hotvirt.qemu.dump import DumpState
from hotvirt.qemu.errors import HotplugError, QemuError
from hotvirt.qemu.state import read_memory

log = logging.getLogger(__name__)

DONE_PHASES = ("Completed", "Failed")
LOOK_AGAIN = 5.0
MIB = 1 << 20
MARGIN = 2 * MIB
"""For the tables of the dump."""


class DumpError(Exception):
    """The text says what is wrong and the mend."""


class MemoryDumps:
    def __init__(
        self, client: Client, informers: SharedInformers, *, agent: NodeAgent, node: str, recorder: Recorder,
        clock: Clock,
    ) -> None:  # fmt: skip
        self._client, self._agent, self._node = client, agent, node
        self._recorder, self._clock = recorder, clock
        self._vms, self._vmis = informers.of(VMS), informers.of(VMIS)
        self._claims, self._pvs = informers.of(CLAIMS), informers.of(VOLUMES)
        self.controller = Controller("memory-dumps", self.reconcile, workers=2)
        self.controller.watch(self._vms, when=lambda change: change.new is not None and is_pending(change.new))
        self.controller.watch(self._vmis, itself, when=lambda change: _is_over(change.new))
        self.controller.needs(self._claims, self._pvs)

    async def reconcile(self, key: Key) -> Result:
        vm = self._vms.get(key.name, key.namespace)
        if vm is None or not is_pending(vm):
            return DONE
        request = request_of(vm)
        if request["phase"] == "Dissociating":
            return await self._forget(key, vm)
        vmi = self._vmis.get(key.name, key.namespace)
        if _is_over(vmi):
            return await self._fail(key, "the guest stopped before its memory was dumped: start the VM and ask again")
        if ((vmi or {}).get("status") or {}).get("nodeName") != self._node:
            return DONE  # its node does it
        guest = await self._agent.guest_of(key)
        if guest is None or guest.is_gone:
            return Result(requeue_after=LOOK_AGAIN)
        try:
            return await self._go_on(vm, request, guest)
        except DumpError as error:
            return await self._fail(key, str(error))
        except HotplugError as error:
            return await self._fail(key, str(error))
        except OSError as error:
            return await self._fail(key, f"the file in the claim cannot be written: {error.strerror}")
        except QemuError as error:
            return await self._fail(key, f"QEMU ended, or did not answer, before the memory was dumped: {error}")

    async def _go_on(self, vm: Document, request: Document, guest: Guest) -> Result:
        directory = self._directory(vm["metadata"]["namespace"], str(request.get("claimName") or ""))
        if directory is None:
            return Result(requeue_after=LOOK_AGAIN)
        if request["phase"] == "Associating":
            now = self._clock()
            name = file_name(vm["metadata"]["name"], str(request["claimName"]), now)
            vm = await self._write(vm, {"phase": "InProgress", "fileName": name, "startTimestamp": stamp(now)})
            self._tell(vm, "Normal", "MemoryDumpInProgress", f"dumping the guest's memory into {name}")
            request = request_of(vm)
        path = directory / _checked(request)
        if request["phase"] == "InProgress":
            await _check_room(guest, directory, path)
            try:
                await bring_about(guest, path)
            except HotplugError:
                path.unlink(missing_ok=True)
                raise
            vm = await self._write(vm, {"phase": "Unmounting"})
        for each in (path, path.parent):
            await asyncio.to_thread(publish.sync_path, each)
        vm = await self._write(vm, {"phase": "Completed", "endTimestamp": stamp(self._clock())})
        self._tell(vm, "Normal", "MemoryDumpCompleted", f"the guest's memory is in {path.name}")
        return DONE

    async def _forget(self, key: Key, vm: Document) -> Result:
        """QEMU cannot be told to stop writing: what it has begun is waited for."""
        guest = self._agent.guests.get(key)
        if guest is not None and not guest.is_gone:
            try:
                if (await dump.state(guest.monitor)).status == "active":
                    return Result(requeue_after=LOOK_AGAIN)
            except QemuError as error:
                log.debug("query-dump of %s: %s", key, error)
        await self._write(vm, None)
        return DONE

    async def _fail(self, key: Key, why: str) -> Result:
        vm = self._vms.get(key.name, key.namespace)  # with the phases that were written meanwhile
        if vm is None or not is_pending(vm):
            return DONE
        vm = await self._write(vm, {"phase": "Failed", "message": why, "endTimestamp": stamp(self._clock())})
        self._tell(vm, "Warning", "MemoryDumpFailed", why)
        return DONE

    def _directory(self, namespace: str, claim_name: str) -> Path | None:
        """Of the claim; None while it has none."""
        claim = self._claims.get(claim_name, namespace)
        if claim is None:
            raise DumpError(f"there is no PersistentVolumeClaim {claim_name!r}: create it, and ask again")
        path = path_of(self._pvs.get((claim.get("spec") or {}).get("volumeName") or ""))
        if path is not None and path.is_block_device():
            raise DumpError(f"claim {claim_name!r} is a block device: name one with a directory")
        return path

    def _tell(self, vm: Document, kind: EventKind, reason: str, message: str) -> None:
        self._recorder.event(vm, kind, reason, message)

    async def _write(self, vm: Document, fields: Document | None) -> Document:
        """Under the version that was decided on: a request that was taken back meanwhile stays taken back."""
        try:
            return await statuses.write(self._client, self._vms, vm, {"memoryDumpRequest": fields})
        except NotFound:
            return vm


async def _check_room(guest: Guest, directory: Path, path: Path) -> None:
    """Before the guest is made to stand still for a file that will not be whole."""
    memory = await read_memory(guest.monitor)
    needed = memory.fixed + memory.plugged + MARGIN
    found = os.statvfs(directory)
    free = found.f_bavail * found.f_frsize + (path.stat().st_blocks * 512 if path.exists() else 0)
    if free < needed:
        shown = [quantity.format_bytes(size // MIB * MIB) for size in (free, needed)]
        raise DumpError(f"the claim has {shown[0]} free, and the dump needs {shown[1]}: make room, and ask again")


async def bring_about(guest: Guest, path: Path) -> None:
    """The memory is in the file when this returns, also when an earlier home began it. Raises HotplugError when QEMU
    could not, QemuError when it is gone."""
    state = await dump.state(guest.monitor)
    if state.status == "active":
        state = await dump.wait(guest.monitor)
    if is_written(state, path, noted=_noted(guest.place.dump)):
        return
    guest.place.dump.write_text(path.name)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        await dump.begin(guest.monitor, descriptor)
    finally:
        os.close(descriptor)
    await dump.wait(guest.monitor)


# Pure


def is_written(state: DumpState, path: Path, *, noted: str) -> bool:
    """Whether the last dump of this QEMU was the one into this file, and is whole. (Not quite pure: looks at its
    size.)"""
    if noted != path.name or state.status != "completed" or not state.total:
        return False
    return path.exists() and path.stat().st_size >= state.total


def request_of(vm: Document) -> Document:
    found: Document = (vm.get("status") or {}).get("memoryDumpRequest") or {}
    return found


def is_pending(vm: Document) -> bool:
    """Whether there is something to do."""
    phase = request_of(vm).get("phase")
    return bool(phase) and phase not in DONE_PHASES


def file_name(vm: str, claim: str, now: datetime) -> str:
    return f"{vm}-{claim}-{now:%Y%m%d-%H%M%S}.memory.dump"


def _is_over(vmi: Document | None) -> bool:
    return vmi is None or (vmi.get("status") or {}).get("phase") in FINAL


def _checked(request: Document) -> str:
    """The name is in a status that others can write."""
    name = str(request.get("fileName") or "")
    if not name or "/" in name or name.startswith("."):
        raise DumpError(f"fileName {name[:60]!r} is no name of a file: remove the request, and ask again")
    return name


def _noted(note: Path) -> str:
    try:
        return note.read_text()
    except FileNotFoundError:
        return ""
