"""VolumeSnapshots of the directory class -> copies of claims' files; embedded home only.

Snapshots that name the same group (`GROUP`) are taken at one instant: those whose disks a guest has open by one
transaction of its QEMU, with its filesystems frozen before where that is asked for (`FREEZE`) and thawed after in any
case, or with its memory (`MEMORY`, see `instants`); those that nobody has open by copying the file, while no QEMU may
begin to write to it. What their machine keeps beside its disks (`MACHINE`) is kept with them. They become ready
together, when all are whole and on disk (`snapshotfiles`). QEMU goes on copying when the home dies, and the next home
takes that up; when QEMU dies, what there is is thrown away and the snapshot begins anew. Of one group one worker does
this at a time.
"""

import asyncio
import logging
import shutil
from contextlib import suppress
from pathlib import Path

from msgspec import structs

from hotvirt.api import disks as api_disks
from hotvirt.api.quantity import format_bytes
from hotvirt.api.snapshots import DEFAULT_CLASS, FREEZE, INDICATIONS, MACHINE, wants_memory
from hotvirt.images import bases
from hotvirt.images.errors import ImageError
from hotvirt.kube import statuses
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import AlreadyExists, ApiError, NotFound
from hotvirt.kube.events import Recorder
from hotvirt.kube.informer import Change, Key, SharedInformers, key_of
from hotvirt.kube.reconciler import DONE, Controller, Result
from hotvirt.kube.resources import (
    CLAIMS,
    VMIS,
    VMS,
    VOLUME_SNAPSHOT_CLASSES,
    VOLUME_SNAPSHOT_CONTENTS,
    VOLUME_SNAPSHOTS,
    VOLUMES,
)
from hotvirt.kube.times import Clock, parse, stamp
from hotvirt.node import instants, keptmemory, machinestate
from hotvirt.node import snapshotcopies as copies
from hotvirt.node.agent import NodeAgent
from hotvirt.node.directoryclaims import KEEP_FREE
from hotvirt.node.guest import Guest
from hotvirt.node.places import Places
from hotvirt.node.snapshotcopies import Source
from hotvirt.node.snapshotfiles import About, DiskAbout, Group, allocated, by_handle, found, handle, root
from hotvirt.node.snapshotobjects import PROTECTION, content_name, group_of, members, volume_snapshot_content
from hotvirt.node.surroundings import BY_CLAIM
from hotvirt.node.volumes import CLAIM_FILES, OWNED, PROVISIONER
from hotvirt.qemu import backup, locks
from hotvirt.qemu.errors import HotplugError, QemuError
from hotvirt.qemu.state import read_disks

log = logging.getLogger(__name__)

BY_GROUP = "snapshot-group"
RETRY, GOES_ON = 5.0, 0.05


class SnapshotError(Exception):
    """The text says what is wrong and the mend."""


class Snapshots:
    def __init__(
        self, client: Client, informers: SharedInformers, *, agent: NodeAgent, node: str, places: Places,
        recorder: Recorder, clock: Clock,
    ) -> None:  # fmt: skip
        self._client, self._agent, self._node, self._places = client, agent, node, places
        self._recorder, self._clock = recorder, clock
        self._snapshots, self._contents = informers.of(VOLUME_SNAPSHOTS), informers.of(VOLUME_SNAPSHOT_CONTENTS)
        self._classes = informers.of(VOLUME_SNAPSHOT_CLASSES)
        self._claims, self._pvs = informers.of(CLAIMS), informers.of(VOLUMES)
        self._vms, self._vmis = informers.of(VMS), informers.of(VMIS)
        self._snapshots.add_index(BY_GROUP, lambda snapshot: [str(group_of(snapshot))])
        self.controller = Controller("snapshots", self.reconcile, workers=2)
        self.controller.watch(self._snapshots, lambda snapshot: [group_of(snapshot)])
        self.controller.watch(self._classes, lambda _: map(group_of, self._snapshots.list()), when=_is_new)
        self.controller.needs(self._claims, self._pvs, self._vms, self._vmis, self._contents)
        self.contents = Controller("snapshot-contents", self.reconcile_content, workers=1)
        self.contents.watch(self._contents)
        self.contents.watch(self._snapshots, lambda snapshot: [Key("", content_name(snapshot))], when=_is_gone)

    def sweep(self) -> None:
        """What is on disk is looked at once: its objects may have gone while no home ran."""
        for key in found(self._places):
            self.controller.queue.add(key)

    async def reconcile(self, key: Key) -> Result:
        group = Group(self._places, key)
        wanted = [s for s in self._snapshots.by_index(BY_GROUP, str(key)) if not s["metadata"].get("deletionTimestamp")]
        if (about := group.about()) is not None:
            await self._publish(group, about, wanted)
            return DONE
        if not wanted:
            return await self._roll_back(group)
        if not all(self._is_ours(snapshot) for snapshot in wanted):
            return DONE
        if {s["metadata"]["name"] for s in wanted} != members(wanted[0]):
            return DONE  # the others are being made, or one was deleted before all was whole
        try:
            return await self._go_on(group, wanted)
        except (SnapshotError, HotplugError, ImageError, ApiError) as error:
            why = str(error)
        except BlockingIOError:
            why = "a claim came into use while it was copied: it is copied as the guest's disk next"
        except OSError as error:
            why = f"the copy cannot be written: {error.strerror}"
        except QemuError as error:
            why = f"QEMU ended, or did not answer, before the copy was whole: {error}"
        await self._roll_back(group)
        await self._tell_error(wanted, why)
        return Result(requeue_after=RETRY)

    # Taking

    async def _go_on(self, group: Group, wanted: list[Document]) -> Result:
        plan = group.plan()
        guest = await self._agent.guest_of(Key(group.key.namespace, plan.vmi)) if plan and plan.vmi else None
        if plan is not None and plan.created and guest is not None and not guest.is_gone:
            await instants.let_go(guest, plan)
            now = await backup.read(guest.monitor, group.name, count=len(plan.online))
            if now.found and not now.error and group.has_all(plan):
                return await self._finish(group, plan, guest)
        return await self._begin(group, wanted)

    async def _begin(self, group: Group, wanted: list[Document]) -> Result:
        """The instant, and what follows from it."""
        sources, guest = await self._sources(group.key.namespace, wanted)
        kept = guest.last if guest is not None and wants_memory(wanted[0]) else None
        self._check_room(sources, kept.memory.fixed + kept.memory.plugged if kept is not None else 0)
        if (stale := group.plan()) is not None and not await self._stop_copies(group, stale):
            raise SnapshotError(f"the guest of {stale.vmi} does not answer, which an earlier attempt had stopped")
        plan = About(
            disks={source.snapshot: source.about for source in sources},
            vmi="" if guest is None else next(key.name for key, each in self._agent.guests.items() if each is guest),
            online=tuple(source.snapshot for source in sources if source.node),
        )
        group.begin(plan)
        indications: tuple[str, ...] = ()
        memory = await self._machine(group, wanted[0], guest, sources)
        if guest is not None:
            indications = await instants.cut(
                group, plan, guest, [s for s in sources if s.node], freeze=_freeze_seconds(wanted[0]),
                memory=group.machine / keptmemory.FILE if memory is not None else None, now=self._clock(),
            )  # fmt: skip
        if memory is not None:
            keptmemory.note(group.machine, memory)
        plan = structs.replace(plan, created=stamp(self._clock()), indications=indications)
        group.note(plan)
        for source in sources:
            if not source.node:
                await copies.copy(source, group.part)
        return await self._finish(group, plan, guest)

    async def _machine(
        self, group: Group, snapshot: Document, guest: Guest | None, sources: list[Source]
    ) -> keptmemory.About | None:
        """Keeps what the snapshot's machine keeps beside its disks. What there is to say of its memory, when that is
        to be kept too."""
        name = (snapshot["metadata"].get("annotations") or {}).get(MACHINE)
        key = Key(group.key.namespace, str(name))
        vm, vmi = (informer.get(key.name, key.namespace) for informer in (self._vms, self._vmis))
        if not name or vm is None:
            return None
        await asyncio.to_thread(machinestate.copy, self._places, vm["metadata"]["uid"], group.machine)
        if not wants_memory(snapshot):
            return None
        if guest is None or vmi is None or self._agent.guests.get(key) is not guest:
            raise SnapshotError(f"VM {name} does not run, so it has no memory: start it, or take a snapshot without")
        then = keptmemory.started(guest.place)
        why = keptmemory.refusal(vm, vmi, then) or await instants.left_out(guest, sources)
        if why or then is None:
            raise SnapshotError(why)
        return keptmemory.About(shape=then.shape, paused=not (await guest.look()).running)

    async def _finish(self, group: Group, plan: About, guest: Guest | None) -> Result:
        """When the jobs have ended: shows what there is. Called again and again until then."""
        if guest is not None:
            now = await backup.wait(guest.monitor, group.name, count=len(plan.online))
            if now.error or not now.found:
                raise SnapshotError(f"a disk could not be copied: {now.error or 'QEMU was restarted'}")
            if not now.ended:
                return Result(requeue_after=GOES_ON)
            await backup.close(guest.monitor, group.name)
        await asyncio.to_thread(group.show)
        if guest is not None:
            with suppress(QemuError):
                await backup.clear(guest.monitor, group.name)
        return Result(requeue_after=GOES_ON)

    async def _roll_back(self, group: Group) -> Result:
        plan = group.plan()
        if plan is not None and not await self._stop_copies(group, plan):
            return Result(requeue_after=RETRY)  # what is noted is all that tells that the guest is to go on
        group.discard()
        return DONE

    async def _stop_copies(self, group: Group, plan: About) -> bool:
        """Whether nothing stands still for them any more."""
        guest = await self._agent.guest_of(Key(group.key.namespace, plan.vmi)) if plan.vmi else None
        if guest is not None and not guest.is_gone:
            return await instants.stop_copies(guest, group, plan)
        vmi = self._vmis.get(plan.vmi, group.key.namespace) if instants.stands(plan) else None
        # One that runs is not found again yet: its QEMU answers nobody while it writes the memory.
        return vmi is None or (vmi.get("status") or {}).get("phase") != "Running"

    # Looking

    async def _sources(self, namespace: str, wanted: list[Document]) -> tuple[list[Source], Guest | None]:
        sources, guests = [], {}
        for snapshot in wanted:
            source = self._source(namespace, snapshot)
            guest, node = await self._writer(namespace, source, answering=_freeze_seconds(snapshot) is not None)
            if guest is not None:
                guests[guest.uid] = guest
            elif locks.taken(source.path, read_only=True, shareable=False):
                raise SnapshotError(f"claim {source.about.claim} is written by a process that is no guest of this home")
            sources.append(structs.replace(source, node=node))
        if len(guests) > 1:
            raise SnapshotError("the claims are written by several guests, which have no instant in common: stop one")
        return sources, next(iter(guests.values()), None)

    def _source(self, namespace: str, snapshot: Document) -> Source:
        name = snapshot["spec"]["source"].get("persistentVolumeClaimName")
        if not name:
            raise SnapshotError("spec.source.persistentVolumeClaimName: name the claim to take a snapshot of")
        claim = self._claims.get(name, namespace)
        if claim is None:
            raise SnapshotError(f"there is no PersistentVolumeClaim {name!r}: create it, or delete this snapshot")
        volume = self._pvs.get((claim.get("spec") or {}).get("volumeName") or "")
        if volume is None:
            raise SnapshotError(f"claim {name} is not bound yet: see kubectl describe pvc {name}")
        if (volume["metadata"].get("annotations") or {}).get(OWNED) != PROVISIONER:
            raise SnapshotError(f"claim {name} is not of this class: its volume is {volume['metadata']['name']}")
        directory = Path(volume["spec"]["local"]["path"])
        found = next(((directory / file, kind) for file, kind in CLAIM_FILES if (directory / file).exists()), None)
        if found is None:
            raise SnapshotError(f"claim {name} has no disk in {directory}")
        path, kind = found
        metadata = snapshot["metadata"]
        about = DiskAbout(
            uid=metadata["uid"], claim=name, file=f"{metadata['name']}.{kind}", format=kind,
            size=bases.virtual_size(path),
        )  # fmt: skip
        return Source(metadata["name"], path, about)

    async def _writer(self, namespace: str, source: Source, *, answering: bool) -> tuple[Guest | None, str]:
        """The guest that has the claim open to write to, and its node. Where its filesystems are to be held still, one
        that was found again a moment ago (`answering`) has its time to greet."""
        for vmi in self._vmis.by_index(BY_CLAIM, str(Key(namespace, source.about.claim))):
            volume = next((v["name"] for v in vmi["spec"].get("volumes") or () if _writes(v, source.about.claim)), None)
            if volume is None or (vmi.get("status") or {}).get("nodeName") != self._node:
                continue
            guest = await self._agent.guest_of(key_of(vmi), answering=answering)
            if guest is None or guest.is_gone:
                continue
            disk = next((d for d in await read_disks(guest.monitor) if d.name == volume), None)
            if disk is not None and disk.nodes and not disk.read_only:
                return guest, disk.nodes[0]
        return None, ""

    def _check_room(self, sources: list[Source], memory: int) -> None:
        place = root(self._places)
        place.mkdir(mode=0o711, parents=True, exist_ok=True)
        needed, free = sum(allocated(source.path) for source in sources) + memory, shutil.disk_usage(place).free
        if needed > free - KEEP_FREE:
            what = "the disks and the memory hold" if memory else "the disks hold"
            raise SnapshotError(
                f"{what} {format_bytes(needed >> 20 << 20)}, and of {format_bytes(free >> 20 << 20)} that are free in "
                f"{place} {format_bytes(KEEP_FREE)} are to stay so: make room there, or delete snapshots"
            )

    def _class_of(self, snapshot: Document) -> Document | None:
        named = snapshot["spec"].get("volumeSnapshotClassName")
        for each in self._classes.list():
            is_default = (each["metadata"].get("annotations") or {}).get(DEFAULT_CLASS) == "true"
            if each["metadata"]["name"] == named or (not named and is_default):
                return each
        return None

    def _is_ours(self, snapshot: Document) -> bool:
        return (self._class_of(snapshot) or {}).get("driver") == PROVISIONER

    # Telling

    async def _publish(self, group: Group, about: About, wanted: list[Document]) -> None:
        there = {snapshot["metadata"]["uid"] for snapshot in wanted}
        for name, disk in about.disks.items():
            # One that went before it had a content.
            if disk.uid not in there and self._contents.get(f"snapcontent-{disk.uid}") is None:
                await asyncio.to_thread(group.remove, name)
        for snapshot in wanted:
            disk = about.disks[snapshot["metadata"]["name"]]
            if not (snapshot.get("status") or {}).get("readyToUse"):
                await self._show(group, about, snapshot, disk)

    async def _show(self, group: Group, about: About, snapshot: Document, disk: DiskAbout) -> None:
        metadata = snapshot["metadata"]
        content = volume_snapshot_content(snapshot, self._class_of(snapshot), handle(group.key, metadata["name"]))
        try:
            await self._client.create(VOLUME_SNAPSHOT_CONTENTS, content)
        except AlreadyExists:
            pass
        created = parse(about.created)
        status = {
            "readyToUse": True, "restoreSize": disk.size, "snapshotHandle": content["spec"]["source"]["snapshotHandle"],
            "creationTime": int(created.timestamp() * 1e9) if created else 0,
        }  # fmt: skip
        name = content["metadata"]["name"]
        await self._client.patch(VOLUME_SNAPSHOT_CONTENTS, name, {"status": status}, subresource="status")
        note = {"metadata": {"annotations": {INDICATIONS: ",".join(about.indications)}}}
        with suppress(NotFound):
            await self._client.patch(VOLUME_SNAPSHOTS, metadata["name"], note, metadata["namespace"])
            await self._status(snapshot, {
                "boundVolumeSnapshotContentName": name, "creationTime": about.created, "readyToUse": True,
                "restoreSize": format_bytes(disk.size), "error": None,
            })  # fmt: skip
        self._recorder.event(snapshot, "Normal", "SnapshotReady", f"claim {disk.claim} as it was at {about.created}")

    async def _tell_error(self, wanted: list[Document], why: str) -> None:
        for snapshot in wanted:
            if ((snapshot.get("status") or {}).get("error") or {}).get("message") == why:
                continue
            self._recorder.event(snapshot, "Warning", "SnapshotFailed", why)
            with suppress(NotFound):
                error = {"message": why, "time": stamp(self._clock())}
                await self._status(snapshot, {"error": error, "readyToUse": False})

    async def _status(self, snapshot: Document, status: Document) -> None:
        await statuses.write(self._client, self._snapshots, snapshot, status, guarded=False)

    # Going

    async def reconcile_content(self, key: Key) -> Result:
        content = self._contents.get(key.name)
        if content is None or content["spec"].get("driver") != PROVISIONER:
            return DONE
        reference, is_going = content["spec"].get("volumeSnapshotRef") or {}, "deletionTimestamp" in content["metadata"]
        snapshot = self._snapshots.get(reference.get("name") or "", reference.get("namespace") or "")
        if snapshot is not None and snapshot["metadata"]["uid"] == reference.get("uid"):
            return DONE
        is_to_go = content["spec"].get("deletionPolicy") == "Delete"
        with suppress(NotFound):
            if is_to_go and not is_going:
                await self._client.delete(VOLUME_SNAPSHOT_CONTENTS, key.name)
            elif is_going:
                where = by_handle(self._places, str(content["spec"]["source"].get("snapshotHandle") or ""))
                if is_to_go and where is not None:
                    await asyncio.to_thread(where[0].remove, where[1])
                left = [f for f in content["metadata"].get("finalizers") or () if f != PROTECTION]
                await self._client.patch(VOLUME_SNAPSHOT_CONTENTS, key.name, {"metadata": {"finalizers": left}})
        return DONE


# Pure


def _freeze_seconds(snapshot: Document) -> float | None:
    text = (snapshot["metadata"].get("annotations") or {}).get(FREEZE)
    try:
        return max(1.0, float(text)) if text else None
    except ValueError:
        return None


def _writes(volume: Document, claim: str) -> bool:
    return api_disks.claim(volume) == claim and not volume.get("ephemeral")


def _is_new(change: Change) -> bool:
    return change.new is not None


def _is_gone(change: Change) -> bool:
    return change.new is None
