"""What a machine keeps beside its disks is put in its place when it is restored; embedded home only.

A restore writes the machine with `STATE_FROM`, which names the content of the snapshot: a group of the machine's own
namespace, so nobody comes by another's. The state is copied aside, swapped in, and then the annotation is taken away;
until then no guest of the machine is started (`is_awaited`), so each step done twice is done once. A snapshot of
before machines' state was kept has none of it: then the machine keeps what it has. Of one machine one worker does this.
"""

import asyncio
import logging
import shutil
from pathlib import Path

from hotvirt.api import snapshots
from hotvirt.images import copying
from hotvirt.images.errors import ImageError
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import NotFound
from hotvirt.kube.events import Recorder
from hotvirt.kube.informer import Informer, Key, SharedInformers, key_of
from hotvirt.kube.reconciler import DONE, Controller, Result
from hotvirt.kube.resources import CLAIMS, VMIS, VMS
from hotvirt.node import keptmemory, machinestate
from hotvirt.node.places import Places
from hotvirt.node.snapshotfiles import Group, is_name
from hotvirt.node.volumes import Lookup

log = logging.getLogger(__name__)

RETRY = 5.0


class RestoredState:
    def __init__(self, client: Client, informers: SharedInformers, *, places: Places, recorder: Recorder) -> None:
        self._client, self._places, self._recorder = client, places, recorder
        self._vms, self._vmis, self._claims = informers.of(VMS), informers.of(VMIS), informers.of(CLAIMS)
        self.controller = Controller("restored-state", self.reconcile, workers=2)
        self.controller.watch(self._vms)
        self.controller.watch(self._vmis, lambda vmi: [key_of(vmi)], when=lambda change: change.new is None)
        self.controller.needs(self._claims)

    async def reconcile(self, key: Key) -> Result:
        vm = self._vms.get(key.name, key.namespace)
        if vm is None or not is_awaited(vm):
            return DONE
        vmi = self._vmis.get(key.name, key.namespace)
        if vmi is not None and (vmi.get("status") or {}).get("phase") == "Running":
            return DONE  # its end brings this up again
        name, memory = snapshots.state_from(vm)
        whole = Group(self._places, Key(key.namespace, name)).whole if is_name(name) else None
        try:
            said = await self._put(vm, whole, memory=memory)
        except (ImageError, OSError) as error:
            message = f"what it keeps beside its disks cannot be restored: {error}"
            self._recorder.event(vm, "Warning", "StateNotRestored", message)
            return Result(requeue_after=RETRY)
        if said:
            self._recorder.event(vm, "Warning", "StateNotRestored", said)
        patch = {"metadata": {"annotations": {snapshots.STATE_FROM: None}}}
        try:
            self._vms.observe(await self._client.patch(VMS, key.name, patch, key.namespace))
        except NotFound:
            pass
        return DONE

    async def _put(self, vm: Document, whole: Path | None, *, memory: bool) -> str:
        """What there is not, in words."""
        kept = whole / "machine" if whole is not None else None
        if kept is None or not kept.is_dir():
            return "the snapshot holds nothing of what the machine keeps beside its disks, so that stays as it is"
        uid = vm["metadata"]["uid"]
        new, old = (self._places.machines / f".{word}-{uid}" for word in ("new", "old"))
        for each in (new, old):
            shutil.rmtree(each, ignore_errors=True)  # of a home that died
        new.mkdir(mode=0o711, parents=True)
        await asyncio.to_thread(_copy, kept, new)
        said = await self._memory(vm, kept, new) if memory else ""
        await asyncio.to_thread(machinestate.sync, new)
        place = self._places.machines / uid
        if place.exists():
            place.rename(old)
        new.rename(place)
        await asyncio.to_thread(machinestate.sync, self._places.machines)
        shutil.rmtree(old, ignore_errors=True)
        return said

    async def _memory(self, vm: Document, kept: Path, new: Path) -> str:
        about = keptmemory.read(kept / keptmemory.ABOUT)
        if about is None or not (kept / keptmemory.FILE).exists():
            return "the snapshot holds no memory, so the machine boots from its disks"
        await copying.copy_disk(kept / keptmemory.FILE, new / keptmemory.FILE)
        keptmemory.note(new, keptmemory.with_claims(about, claims_of(vm, self._claims)))
        return ""


def is_awaited(vm: Document) -> bool:
    return bool(snapshots.state_from(vm)[0])


async def refusal(vmi: Document, lookup: Lookup) -> str:
    """Why no guest is to start yet: the API itself is asked, as caches may lag behind each other."""
    owners = vmi["metadata"].get("ownerReferences") or ()
    name = next((str(each["name"]) for each in owners if each.get("kind") == VMS.kind), "")
    vm = await lookup("machine", name) if name else None
    return "what the machine keeps beside its disks is being restored" if vm is not None and is_awaited(vm) else ""


def claims_of(vm: Document, claims: Informer) -> dict[str, str]:
    """Volume -> the uid of its claim."""
    found = {v: claims.get(name, vm["metadata"]["namespace"]) for v, name in snapshots.claims(vm).items()}
    return {volume: str(claim["metadata"]["uid"]) for volume, claim in found.items() if claim is not None}


def _copy(kept: Path, new: Path) -> None:
    for each in kept.iterdir():
        if each.is_dir():
            shutil.copytree(each, new / each.name)
        elif not each.name.startswith(machinestate.MEMORY):
            shutil.copy(each, new / each.name)
