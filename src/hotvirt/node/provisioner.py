"""Claims of the directory storage classes -> PersistentVolumes that are files here; embedded home only.

A claim gets a directory with one sparse disk file and a PV for it, named by the claim's uid, so that doing it twice
does it once. The file comes first and whole (temporary name, fsync, rename), then the PV, then the binding. A claim
that something is put into (`imports`) is bound once that file is there. One of a class that waits for its first
consumer is left alone until a machine's instance or a pod names it. A PV whose claim is gone goes, with its file, if
its reclaim policy says so, and a base that no disk needs any more goes with it.

A claim that asks for more than it has grows, if its class allows that: its PV says the new size first, and then the
file is made as large, here when no guest has it open, else by that guest's QEMU (`attachments`), which shows it.
"""

import logging
import shutil
from pathlib import Path

from hotvirt.api import datavolumes
from hotvirt.api import disks as api_disks
from hotvirt.api.quantity import QuantityError, format_bytes, parse_bytes
from hotvirt.images import bases, disks
from hotvirt.images.errors import ImageError
from hotvirt.kube import conditions
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import AlreadyExists, NotFound
from hotvirt.kube.events import Recorder
from hotvirt.kube.informer import Key, SharedInformers
from hotvirt.kube.reconciler import DONE, Controller, Result
from hotvirt.kube.resources import CLAIMS, PODS, STORAGE_CLASSES, VMIS, VMS, VOLUMES
from hotvirt.kube.times import Clock
from hotvirt.node import claimsources
from hotvirt.node.claimsources import ClaimSources, Image, NotYet
from hotvirt.node.places import Places
from hotvirt.node.volumes import CLAIM_FILES, OWNED, PROVISIONER
from hotvirt.qemu import locks

log = logging.getLogger(__name__)

DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
PENDING = "FileSystemResizePending"
SECTOR = 512
KEEP_FREE = 256 << 20
GROWING = 0.5
"""Seconds between looks at a file that a guest's QEMU is to grow."""
USED = "claim-of-provisioner"
LOOK_AGAIN = 15.0
"""Seconds between looks at a file whose claim is gone and which a guest still has open."""


class Provisioner:
    def __init__(
        self, client: Client, informers: SharedInformers, *, node: str, places: Places, recorder: Recorder,
        clock: Clock, look_again: float = LOOK_AGAIN,
    ) -> None:  # fmt: skip
        self._look_again = look_again
        self._client, self._node, self._places, self._recorder, self._clock = client, node, places, recorder, clock
        self._claims, self._volumes = informers.of(CLAIMS), informers.of(VOLUMES)
        self._classes = informers.of(STORAGE_CLASSES)
        self._sources = ClaimSources(informers, places=places)
        self.controller = Controller("provisioner", self.reconcile, workers=2)
        self.controller.watch(self._claims)
        self.controller.watch(self._volumes, _claim_of)
        self.controller.watch(self._sources.snapshots, self._begins_as)
        self.controller.needs(self._sources.contents)
        self.controller.watch(self._classes, lambda _: [_key(c) for c in self._claims.list() if not _bound(c)])
        self._users = informers.of(VMIS), informers.of(PODS), informers.of(VMS)
        for informer, names in zip(self._users, (_named_by_instance, _named_by_pod, _named_for_dump), strict=True):
            informer.add_index(USED, names)
            self.controller.watch(informer, lambda user, names=names: map(_parsed, names(user)))  # type: ignore[misc]

    async def reconcile(self, key: Key) -> Result:
        claim = self._claims.get(key.name, key.namespace)
        is_held = await self._reclaim(key, claim)
        if claim is not None and _bound(claim) and self._has_lost_its_volume(claim):
            return await self._lose(claim)
        result = await self._grow(claim) if claim is not None and _bound(claim) else await self._provide(claim)
        return Result(requeue_after=self._look_again) if is_held and result == DONE else result

    async def _provide(self, claim: Document | None) -> Result:
        if claim is None or claim["metadata"].get("deletionTimestamp") or _bound(claim):
            return DONE
        storage_class = self._class_of(claim)
        if storage_class is None or claim["spec"].get("volumeName"):
            return DONE
        if datavolumes.waits_for_consumer(claim, storage_class):
            await self._choose(claim)
            return DONE  # what follows from it is decided anew
        if (wrong := fault(claim)) is not None:
            self._recorder.event(claim, "Warning", "ProvisioningFailed", wrong)
            return DONE
        name, size, kind = volume_name(claim), asked_size(claim), disk_format(storage_class)
        directory = self._places.volumes / name
        if is_filled_elsewhere(claim) and bases.disk_in(directory) is None:
            return DONE  # whoever fills it touches the claim
        try:
            source = self._sources.of(claim)
        except NotYet as error:
            self._recorder.event(claim, "Normal", "ExternalProvisioning", str(error))
            return Result(requeue_after=15)
        try:
            await self._make(directory, size, kind, source=source)
        except (ImageError, OSError) as error:
            self._recorder.event(claim, "Warning", "ProvisioningFailed", f"the disk file could not be made: {error}")
            return Result(requeue_after=30)
        volume = persistent_volume(claim, storage_class, name=name, path=directory, size=size, node=self._node)
        try:
            self._volumes.observe(await self._client.create(VOLUMES, volume))
        except AlreadyExists:
            pass
        await self._bind(claim, volume, storage_class)
        return DONE

    async def _choose(self, claim: Document) -> None:
        """Of a class that waits: this node, once somebody there is to use the claim."""
        key = str(_key(claim))
        if not any(informer.by_index(USED, key) for informer in self._users):
            message = "waiting for first consumer to be created before binding"
            self._recorder.event(claim, "Normal", "WaitForFirstConsumer", message)
            return
        metadata = claim["metadata"]
        patch = {"metadata": {"annotations": {datavolumes.SELECTED_NODE: self._node}}}
        self._claims.observe(await self._client.patch(CLAIMS, metadata["name"], patch, metadata["namespace"]))

    def _has_lost_its_volume(self, claim: Document) -> bool:
        """Somebody deleted the PersistentVolume of one of ours."""
        volume = claim["spec"].get("volumeName")
        return volume == volume_name(claim) and self._volumes.get(volume) is None

    async def _lose(self, claim: Document) -> Result:
        try:
            self._volumes.observe(await self._client.get(VOLUMES, claim["spec"]["volumeName"]))
        except NotFound:
            await self._claim_status(claim, {"phase": "Lost"})
            message = "its PersistentVolume is gone: delete the claim, and make it anew"
            self._recorder.event(claim, "Warning", "ClaimLost", message)
        return DONE

    async def _grow(self, claim: Document) -> Result:
        volume = self._volumes.get(claim["spec"].get("volumeName") or "")
        size = growth(claim)
        if volume is None or not size or (volume["metadata"].get("annotations") or {}).get(OWNED) != PROVISIONER:
            return DONE
        directory = Path(volume["spec"]["local"]["path"])
        found = next(((directory / name, kind) for name, kind in CLAIM_FILES if (directory / name).exists()), None)
        if found is None:
            return DONE
        has = virtual_size(*found)
        if why := self._obstacle(claim, size - has):
            self._recorder.event(claim, "Warning", "VolumeResizeFailed", why)
            return Result(requeue_after=30)
        if parse_bytes(volume["spec"]["capacity"]["storage"]) < size:
            patch = {"spec": {"capacity": {"storage": format_bytes(size)}}}
            self._volumes.observe(await self._client.patch(VOLUMES, volume["metadata"]["name"], patch))
        if has < size and _in_use(directory):
            await self._growing(claim)
            return Result(requeue_after=GROWING)
        try:
            if has < size:
                await disks.grow(found[0], size, found[1])
        except (ImageError, OSError) as error:
            self._recorder.event(claim, "Warning", "VolumeResizeFailed", f"the disk file could not grow: {error}")
            return Result(requeue_after=GROWING)  # a guest may just have started with it
        await self._grown(claim, size)
        return DONE

    def _obstacle(self, claim: Document, more: int) -> str:
        storage_class = next(
            (c for c in self._classes.list() if c["metadata"]["name"] == claim["spec"].get("storageClassName")), None
        )
        if storage_class is None or not storage_class.get("allowVolumeExpansion"):
            named = claim["spec"].get("storageClassName")
            return f"storage class {named} does not let claims grow: set its allowVolumeExpansion to true"
        free = shutil.disk_usage(self._places.volumes).free
        if more > free - KEEP_FREE:
            return (
                f"it would grow by {format_bytes(more)}, and {format_bytes(free >> 20 << 20)} are free in "
                f"{self._places.volumes}: ask for less, or make room there"
            )
        return ""

    async def _growing(self, claim: Document) -> None:
        """Kubernetes' word for: the rest is done where the volume is in use."""
        old = (claim.get("status") or {}).get("conditions")
        message = "the guest that uses it is given the new size"
        new = conditions.put(old, PENDING, True, now=self._clock(), message=message)
        if new != list(old or ()):
            await self._claim_status(claim, {"conditions": new})

    async def _grown(self, claim: Document, size: int) -> None:
        was = ((claim.get("status") or {}).get("capacity") or {}).get("storage")
        left = conditions.remove((claim.get("status") or {}).get("conditions"), PENDING)
        await self._claim_status(claim, {"capacity": {"storage": format_bytes(size)}, "conditions": left or None})
        message = f"grew from {was} to {format_bytes(size)}"
        self._recorder.event(claim, "Normal", "FileSystemResizeSuccessful", message)

    async def _claim_status(self, claim: Document, status: Document) -> None:
        metadata = claim["metadata"]
        self._claims.observe(
            await self._client.patch(
                CLAIMS, metadata["name"], {"status": status}, metadata["namespace"], subresource="status"
            )
        )

    def _begins_as(self, snapshot: Document) -> list[Key]:
        """Claims that wait for a snapshot to be ready."""
        name, namespace = snapshot["metadata"]["name"], snapshot["metadata"]["namespace"]
        return [
            _key(c) for c in self._claims.list(namespace) if not _bound(c) and claimsources.snapshot_name(c) == name
        ]

    async def _make(self, directory: Path, size: int, kind: str, *, source: Image | None = None) -> None:
        if (disk := bases.disk_in(directory)) is not None:
            if source is not None:
                claimsources.mend(source, disk, self._places.volumes)
            return  # of whatever format: somebody has filled it
        if source is not None and size < source.size:
            raise ImageError(
                f"spec.resources.requests.storage asks for {format_bytes(size)}, and the snapshot it begins as has "
                f"{format_bytes(source.size)}: ask for at least that"
            )
        free = shutil.disk_usage(self._places.volumes).free
        if size > free - KEEP_FREE:
            raise ImageError(
                f"spec.resources.requests.storage asks for {format_bytes(size)}, and {format_bytes(free >> 20 << 20)} "
                f"are free in {self._places.volumes}: ask for less, or make room there"
            )
        directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        file = directory / disk_name(kind)
        if source is None:
            await disks.create(file, size, kind)
        else:
            await claimsources.fill(source, directory, self._places.volumes, size=size, format=kind)

    async def _bind(self, claim: Document, volume: Document, storage_class: Document) -> None:
        metadata = claim["metadata"]
        name, capacity = volume["metadata"]["name"], volume["spec"]["capacity"]
        await self._client.patch(VOLUMES, name, {"status": {"phase": "Bound"}}, subresource="status")
        spec: Document = {"volumeName": name}
        if not claim["spec"].get("storageClassName"):
            spec["storageClassName"] = storage_class["metadata"]["name"]
        annotations = {"pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes"}
        patch = {"metadata": {"annotations": annotations}, "spec": spec}
        await self._client.patch(CLAIMS, metadata["name"], patch, metadata["namespace"])
        status = {"phase": "Bound", "accessModes": claim["spec"]["accessModes"], "capacity": capacity}
        self._claims.observe(
            await self._client.patch(
                CLAIMS, metadata["name"], {"status": status}, metadata["namespace"], subresource="status"
            )
        )
        self._recorder.event(claim, "Normal", "ProvisioningSucceeded", f"made {name}, {capacity['storage']}")

    async def _reclaim(self, key: Key, claim: Document | None) -> bool:
        """Volumes whose claim is gone. Whether one must wait, as a guest still uses it."""
        is_held = False
        for volume in self._volumes.list():
            reference = volume["spec"].get("claimRef") or {}
            if (reference.get("namespace"), reference.get("name")) != (key.namespace, key.name):
                continue
            if claim is not None and claim["metadata"]["uid"] == reference.get("uid"):
                continue
            if (volume["metadata"].get("annotations") or {}).get(OWNED) != PROVISIONER:
                continue
            name = volume["metadata"]["name"]
            if volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete":
                path = Path(volume["spec"]["local"]["path"])
                if _in_use(path):
                    is_held = True
                    await self._release(volume)
                    continue
                await self._release(volume)
                if path.parent == self._places.volumes and path.name == name:
                    shutil.rmtree(path, ignore_errors=True)
                    bases.collect(self._places.volumes)
                try:
                    await self._client.delete(VOLUMES, name)
                except NotFound:
                    pass
            else:
                await self._release(volume)
        return is_held

    async def _release(self, volume: Document) -> None:
        if (volume.get("status") or {}).get("phase") != "Released":
            name = volume["metadata"]["name"]
            await self._client.patch(VOLUMES, name, {"status": {"phase": "Released"}}, subresource="status")

    def _class_of(self, claim: Document) -> Document | None:
        """The claim's storage class if it is ours. "" asks for a volume made by hand."""
        named = claim["spec"].get("storageClassName")
        for each in self._classes.list():
            is_default = (each["metadata"].get("annotations") or {}).get(DEFAULT_CLASS) == "true"
            if each["metadata"]["name"] == named or (named is None and is_default):
                return each if each.get("provisioner") == PROVISIONER else None
        return None


def volume_name(claim: Document) -> str:
    """Of the volume that is made for a claim, and its directory's."""
    return f"pvc-{claim['metadata']['uid']}"


def asked_size(claim: Document) -> int:
    """In whole sectors."""
    return -(-parse_bytes(claim["spec"]["resources"]["requests"]["storage"]) // SECTOR) * SECTOR


def disk_format(storage_class: Document) -> str:
    return str((storage_class.get("parameters") or {}).get("format") or "raw")


def disk_name(kind: str) -> str:
    return "disk.qcow2" if kind == "qcow2" else "disk.img"


def is_filled_elsewhere(claim: Document) -> bool:
    """Something is put into it before it is bound, and not here."""
    reference = datavolumes.reference(claim["spec"])
    return datavolumes.is_populated(claim) and (reference or {}).get("kind") != "VolumeSnapshot"


def growth(claim: Document) -> int:
    """Bytes that a claim is to grow to; 0 when it has what it asks for. Pure."""
    try:
        asked = parse_bytes(claim["spec"]["resources"]["requests"]["storage"])
        has = parse_bytes(((claim.get("status") or {}).get("capacity") or {}).get("storage"))
    except (QuantityError, KeyError):
        return 0
    size = -(-asked // SECTOR) * SECTOR
    return size if size > has else 0


def virtual_size(file: Path, kind: str) -> int:
    """What a guest sees of it."""
    if kind != "qcow2":
        return file.stat().st_size
    with file.open("rb") as opened:
        header = opened.read(32)
    return int.from_bytes(header[24:32], "big")


def fault(claim: Document) -> str | None:
    """What makes the claim impossible here. Pure."""
    spec = claim["spec"]
    try:
        size = parse_bytes(((spec.get("resources") or {}).get("requests") or {}).get("storage"))
    except QuantityError as error:
        return f"spec.resources.requests.storage: {error}"
    if size <= 0:
        return "spec.resources.requests.storage must be more than nothing, such as 1Gi"
    return None


def persistent_volume(
    claim: Document, storage_class: Document, *, name: str, path: Path, size: int, node: str
) -> Document:
    """Pure."""
    metadata = claim["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {OWNED: PROVISIONER}},
        "spec": {
            "capacity": {"storage": format_bytes(size)},
            "accessModes": claim["spec"]["accessModes"],
            "volumeMode": claim["spec"].get("volumeMode") or "Filesystem",
            "storageClassName": storage_class["metadata"]["name"],
            "persistentVolumeReclaimPolicy": storage_class.get("reclaimPolicy") or "Delete",
            "local": {"path": str(path)},
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": metadata["namespace"],
                "name": metadata["name"], "uid": metadata["uid"],
            },
            "nodeAffinity": {
                "required": {
                    "nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}
                    ]
                }
            },
        },
    }  # fmt: skip


def _in_use(directory: Path) -> bool:
    """Whether a QEMU has the disk in there open: its guest must not lose what it writes."""
    for name, _ in CLAIM_FILES:
        try:
            if locks.taken(directory / name, read_only=False, shareable=False):
                return True
        except OSError:
            continue
    return False


def _named_by_instance(vmi: Document) -> list[str]:
    """Claims that an instance which has not ended uses."""
    if (vmi.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return []
    namespace = vmi["metadata"].get("namespace") or ""
    names = [api_disks.claim(volume) for volume in vmi["spec"].get("volumes") or ()]
    return [str(Key(namespace, name)) for name in names if name]


def _named_for_dump(vm: Document) -> list[str]:
    """The claim that a guest's memory is to be dumped into."""
    name = ((vm.get("status") or {}).get("memoryDumpRequest") or {}).get("claimName")
    return [str(Key(vm["metadata"].get("namespace") or "", name))] if name else []


def _named_by_pod(pod: Document) -> list[str]:
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return []
    namespace = pod["metadata"].get("namespace") or ""
    names = [(v.get("persistentVolumeClaim") or {}).get("claimName") for v in pod["spec"].get("volumes") or ()]
    return [str(Key(namespace, name)) for name in names if name]


def _parsed(key: str) -> Key:
    namespace, _, name = key.partition("/")
    return Key(namespace, name)


def _bound(claim: Document) -> bool:
    return (claim.get("status") or {}).get("phase") == "Bound"


def _key(obj: Document) -> Key:
    return Key(obj["metadata"]["namespace"], obj["metadata"]["name"])


def _claim_of(volume: Document) -> list[Key]:
    reference = volume["spec"].get("claimRef") or {}
    return [Key(reference["namespace"], reference["name"])] if reference.get("name") else []
