"""A VMI's volumes as disks QEMU can be given: files made or found, looked into, and opened.

What a volume needs from the API (claims, their PVs, secrets) is asked through `Lookup`. Files in the pod's directory
last as long as its guest; claims' files are the provisioner's. A volume that cannot be had raises `VolumeError`, which
names it. Calls for different guests may overlap.
"""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal, cast

from msgspec import Struct, structs

from hotvirt.api import disks as api_disks
from hotvirt.api import quantity
from hotvirt.images import bases, catalog, disks, pulled, reference, seed
from hotvirt.images.errors import ImageError
from hotvirt.kube.client import Document
from hotvirt.node import cloudinit, contents, firmware, hostdisks, pulls
from hotvirt.node.places import Places, PodPlace
from hotvirt.node.shown import disk_of, empty_drives, is_hotplugged, machine_disk, shown
from hotvirt.qemu import locks
from hotvirt.qemu.launch import Descriptors
from hotvirt.qemu.machine import BlockSize, Disk, File, Kernel, Layer

Format = Literal["raw", "qcow2"]
SECTOR, BLOCK = 512, 4096
CLAIM_FILES: tuple[tuple[str, Format], ...] = (("disk.img", "raw"), ("disk.qcow2", "qcow2"))
IN_USE = "ClaimInUse"
READ_ONLY, ONE_POD = "ReadOnlyMany", "ReadWriteOncePod"
PROVISIONER = "hotvirt.io/directory"
OWNED = "pv.kubernetes.io/provisioned-by"
Lookup = Callable[[str, str], Awaitable[Document | None]]
"""(kind, name) in the VMI's namespace -> document: kinds are "claim", "volume" (a PV), "secret", "user" (another
VMI that names the claim), "kubevirt" (the KubeVirt object), and those of `contents`."""


class VolumeError(Exception):
    """`reason` is a condition's word; the text names the volume, the fault and the mend."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class ClaimFile(Struct, frozen=True):
    path: Path
    format: Format
    read_only: bool = False
    is_device: bool = False
    below: tuple[bases.Base, ...] = ()
    """What it is an overlay of, nearest first."""
    one_pod: bool = False
    """ReadWriteOncePod: nobody else may use it, not even to read."""

    def open(self, *, read_only: bool) -> int:
        """The file itself. One put there as a link since it was looked at is not opened."""
        how = (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC
        return os.open(self.path, how | (0 if self.is_device else os.O_NOFOLLOW))


class Volumes:
    def __init__(self, places: Places, images: pulls.Pulls | None = None) -> None:
        self._places, self._pulls = places, images or pulls.Pulls(places.images)

    @property
    def places(self) -> Places:
        return self._places

    def to_build(self, vmi: Document) -> list[str]:
        """The images that `prepare` would have to build first."""
        boot = ((vmi["spec"].get("domain") or {}).get("firmware") or {}).get("kernelBoot") or {}
        sources = [boot.get("container"), *(v.get("containerDisk") for v in vmi["spec"].get("volumes") or ())]
        images = [source["image"] for source in sources if source]
        return [image for image in images if catalog.needs_building(image, self._places.images)]

    async def prepare(
        self, vmi: Document, place: PodPlace, descriptors: Descriptors, lookup: Lookup
    ) -> tuple[tuple[Disk, ...], Kernel | None]:
        """All disks of a guest that is about to start, and the kernel it boots, if it boots one."""
        spec = vmi["spec"]
        found = []
        for volume in spec.get("volumes") or ():
            name = volume["name"]
            disk = disk_of(spec, name)
            comes_later = is_hotplugged(volume)
            if disk is None or (comes_later and disk.get("cdrom") is None):
                continue
            if (how := shown(disk)).is_open:
                found.append(machine_disk(name, how, ()))
                continue
            try:
                layers, read_only = await self._layers(vmi, volume, place, descriptors, lookup)
            except ImageError as error:
                raise VolumeError("FailedVolume", f"volume {name!r}: {_source(volume)}: {error}") from error
            except OSError as error:
                raise VolumeError("FailedVolume", f"volume {name!r}: {error.filename}: {error.strerror}") from error
            except VolumeError:
                if not comes_later:
                    raise
                layers, read_only = (), False  # the drive is part of the machine, its disc is not
            if how.kind == "lun" and layers and not layers[0].file.block_device:
                problem = "a lun is a SCSI device of the host, and its claim is a file: say disk in place of lun"
                raise VolumeError("FailedVolume", f"volume {name!r}: {problem}")
            if how.block_size is None:
                how = structs.replace(how, block_size=_of_volume(layers, descriptors))
            found.append(machine_disk(name, how, layers, read_only=read_only))
        found += [machine_disk(each["name"], shown(each), ()) for each in empty_drives(spec)]
        return tuple(found), await self._kernel(vmi, place, descriptors, lookup)

    async def _layers(
        self, vmi: Document, volume: Document, place: PodPlace, descriptors: Descriptors, lookup: Lookup
    ) -> tuple[tuple[Layer, ...], bool]:
        """The opened images, and whether they may only be read, whatever the disk says."""
        name = volume["name"]
        disk = disk_of(vmi["spec"], name)
        read_only = disk is not None and shown(disk).read_only
        if source := volume.get("containerDisk"):
            files = await self._image_disk(name, vmi, source, place, lookup)
            if reference.is_of_registry(source["image"]):
                # Of a start that failed, and its name may mean another image by now. No guest has written to it yet.
                place.disk(name).unlink(missing_ok=True)
            return await _container_disk(place.disk(name), files, descriptors, read_only=read_only), False
        if not volume.get("ephemeral") and (claim_name := api_disks.claim(volume)):
            source = {**(volume.get("persistentVolumeClaim") or {}), "claimName": claim_name}
            claim = await self.claim_file(name, source, lookup)
            await free(name, claim_name, claim, disk, lookup)
            number = descriptors.add(claim.open(read_only=read_only or claim.read_only))
            file = File(fd=number, block_device=claim.is_device)
            return (Layer(file, claim.format), *_below(claim, descriptors)), claim.read_only
        if source := volume.get("emptyDisk"):
            path = place.disk(name)
            _blank(path, quantity.parse_bytes(source["capacity"]))
            return (Layer(descriptors.open(path, read_only=read_only)),), False
        if source := volume.get("ephemeral"):
            source = {**source["persistentVolumeClaim"], "readOnly": True}
            claim = await self.claim_file(name, source, lookup)
            await free(name, source["claimName"], claim, {"disk": {"readonly": True}}, lookup)
            below = Layer(File(str(claim.path), block_device=claim.is_device), claim.format)
            layers = await _container_disk(place.disk(name), below, descriptors, read_only=read_only)
            return (*layers, *_below(claim, descriptors)), False
        if source := volume.get("hostDisk"):
            try:
                path = hostdisks.prepare(source, await lookup("kubevirt", ""), home=self._places.volumes.parent)
            except hostdisks.HostDiskError as error:
                raise VolumeError("FailedVolume", f"volume {name!r}: hostDisk: {error}") from error
            return (Layer(descriptors.open(path, read_only=read_only)),), False
        return (Layer(descriptors.open(await self._disc(vmi, volume, place, lookup), read_only=read_only)),), False

    async def _disc(self, vmi: Document, volume: Document, place: PodPlace, lookup: Lookup) -> Path:
        """The file of a volume that is a small disc made on the spot."""
        name, path = volume["name"], place.disk(volume["name"])
        try:
            disc = await cloudinit.disc(vmi, volume, lookup)
            if disc is None and (content := await contents.of(volume, lookup)) is not None:
                disc = seed.disc(content.label, content.files)
        except contents.ContentError as error:
            raise VolumeError("FailedVolume", f"volume {name!r}: {error}") from error
        if disc is None:
            raise VolumeError("FailedVolume", f"volume {name!r} has a source that is not supported: use a claim")
        seed.write(path, disc)
        return path

    async def _image_disk(
        self, name: str, vmi: Document, source: Document, place: PodPlace, lookup: Lookup
    ) -> Layer:  # fmt: skip
        """An image's disk, by its path."""
        image = source["image"]
        if reference.is_of_registry(image):
            wanted = [source["path"]] if source.get("path") else []
            found = await self._pulled(f"volume {name!r}", vmi, source, place, lookup, wanted=wanted)
            assert found.disk is not None
            return Layer(File(str(found.disk)), "qcow2" if found.disk_format == "qcow2" else "raw")
        files = await catalog.ensure(image, self._places.images)
        if files.disk is None:
            raise VolumeError(
                "FailedVolume", f"volume {name!r}: image {image} has no disk: use it in firmware.kernelBoot"
            )
        return Layer(File(str(files.disk)), "qcow2" if files.disk_format == "qcow2" else "raw")

    async def _pulled(
        self, what: str, vmi: Document, source: Document, place: PodPlace, lookup: Lookup, *, wanted: list[str]
    ) -> pulled.Pulled:
        """A registry's image, once it is here; VolumeError while it is not."""
        auths = None
        if secret_name := source.get("imagePullSecret"):
            secret = await lookup("secret", secret_name)
            if secret is None:
                problem = f"imagePullSecret is {secret_name!r}, but there is no such Secret: create it"
                raise VolumeError("ErrImagePull", f"{what}: {problem}")
            auths = pulls.credentials(secret)
        uid = place.directory.name
        try:
            return await self._pulls.image(vmi, uid, source, wanted=wanted, auths=auths)
        except pulls.NotHere as error:
            raise VolumeError(error.reason, f"{what}: {error}") from error

    async def close(self) -> None:
        await self._pulls.close()

    async def claim_directory(
        self, name: str, source: Document, lookup: Lookup
    ) -> tuple[Document, Document, Path]:  # fmt: skip
        """A claim, its PV and where that is here. VolumeError with reason Pending while it has none yet."""
        claim_name = source["claimName"]
        claim = await lookup("claim", claim_name)
        if claim is None:
            raise VolumeError(
                "FailedPvcNotFound", f"volume {name!r}: there is no PersistentVolumeClaim {claim_name!r}: create it"
            )
        bound_to = (claim.get("spec") or {}).get("volumeName")
        if not bound_to or (claim.get("status") or {}).get("phase") != "Bound":
            raise VolumeError(
                "Pending",
                f"volume {name!r}: claim {claim_name!r} is not bound yet: see kubectl describe pvc {claim_name}",
            )
        volume = await lookup("volume", bound_to)
        path = path_of(volume)
        if path is None:
            raise VolumeError("FailedVolume", f"volume {name!r}: PersistentVolume {bound_to} is not a directory here")
        return claim, volume or {}, path

    async def claim_file(self, name: str, source: Document, lookup: Lookup) -> ClaimFile:
        """The file behind a claim. VolumeError with reason Pending while it has none yet."""
        claim, _, path = await self.claim_directory(name, source, lookup)
        claim_name, bound_to = source["claimName"], claim["spec"]["volumeName"]
        modes = claim["spec"].get("accessModes") or ()
        read_only, one_pod = bool(source.get("readOnly")) or set(modes) == {READ_ONLY}, ONE_POD in modes
        if path.is_block_device():
            return ClaimFile(path, "raw", read_only, is_device=True, one_pod=one_pod)
        bases.mend(path)
        for file, kind in CLAIM_FILES:
            found = path / file
            if found.is_symlink():  # it may be a guest's that has the directory as a file system
                problem = f"{found} is a link: put the disk itself there"
                raise VolumeError("FailedVolume", f"volume {name!r}: claim {claim_name!r}: {problem}")
            if found.exists():
                if found.stat().st_size == 0:
                    problem = f"{found} is empty: copy or download the image again"
                    raise VolumeError("FailedVolume", f"volume {name!r}: claim {claim_name!r}: {problem}")
                # A raw file is whatever its guest wrote there, and QEMU is told that it is raw; only a qcow2 header
                # could lead QEMU to other files.
                try:
                    below = await bases.looked_into(found, self._places.volumes) if kind == "qcow2" else ()
                except ImageError as error:
                    raise VolumeError("FailedVolume", f"volume {name!r}: claim {claim_name!r}: {error}") from error
                return ClaimFile(found, kind, read_only, below=below, one_pod=one_pod)
        raise VolumeError("FailedVolume", f"volume {name!r}: PersistentVolume {bound_to} has no disk.img in {path}")

    async def _kernel(
        self, vmi: Document, place: PodPlace, descriptors: Descriptors, lookup: Lookup
    ) -> Kernel | None:  # fmt: skip
        spec = vmi["spec"]
        boot = ((spec.get("domain") or {}).get("firmware") or {}).get("kernelBoot") or {}
        container = boot.get("container")
        if not container:
            return None
        field = "domain.firmware.kernelBoot.container"
        if reference.is_of_registry(container["image"]):
            return await self._pulled_kernel(field, boot, vmi, place, descriptors, lookup)
        try:
            files = await catalog.ensure(container["image"], self._places.images)
        except ImageError as error:
            raise VolumeError("FailedVolume", f"{field}: {error}") from error
        if files.kernel is None:
            raise VolumeError("FailedVolume", f"{field}: image {container['image']} has no kernel: use hotvirt/tiny")
        kernel = (files.efi_kernel if firmware.wish(spec) else None) or files.kernel
        initrd: File | None = None
        if container.get("initrdPath") and files.initrd is not None:
            initrd = descriptors.open(files.initrd, read_only=True)
        return Kernel(
            descriptors.open(kernel, read_only=True), initrd, str(boot.get("kernelArgs") or files.kernel_args)
        )

    async def _pulled_kernel(
        self, field: str, boot: Document, vmi: Document, place: PodPlace, descriptors: Descriptors, lookup: Lookup
    ) -> Kernel | None:
        container = boot["container"]
        kernel, initrd = container.get("kernelPath"), container.get("initrdPath")
        wanted = [pulled.KERNEL, *(path for path in (kernel, initrd) if path)]
        try:
            found = await self._pulled(field, vmi, container, place, lookup, wanted=wanted)
        except ImageError as error:
            raise VolumeError("ErrImagePull", f"{field}: {error}") from error
        if not kernel:
            raise VolumeError("FailedVolume", f"{field}: an initial RAM disk boots nothing: set kernelPath too")
        opened = {path: descriptors.open(file, read_only=True) for path, file in found.files.items()}
        return Kernel(opened[kernel], opened[initrd] if initrd else None, str(boot.get("kernelArgs") or ""))


def path_of(volume: Document | None) -> Path | None:
    """Where a PV is on this machine, a directory or a block device; None for one that is elsewhere."""
    spec = (volume or {}).get("spec") or {}
    path = (spec.get("local") or spec.get("hostPath") or {}).get("path")
    return Path(path) if path else None


async def capacity(volume: Document, lookup: Lookup) -> int:
    """Bytes that a claim made here is to have; 0 when there is nothing to compare with."""
    claim_name = "" if volume.get("ephemeral") else api_disks.claim(volume)
    claim = await lookup("claim", claim_name) if claim_name else None
    bound_to = ((claim or {}).get("spec") or {}).get("volumeName")
    made = await lookup("volume", bound_to) if bound_to else None
    if made is None or (made["metadata"].get("annotations") or {}).get(OWNED) != PROVISIONER:
        return 0
    return quantity.parse_bytes(made["spec"]["capacity"]["storage"])


async def free(name: str, claim: str, file: ClaimFile, disk: Document | None, lookup: Lookup) -> None:
    """VolumeError when another guest has the claim's file open, where the two could not use it side by side."""
    how = shown(disk or {})
    user = await lookup("user", claim) if file.one_pod else None
    if (user is None or (user.get("status") or {}).get("phase") != "Running") and not locks.taken(
        file.path, read_only=how.read_only or file.read_only, shareable=how.shareable and not file.one_pod
    ):
        return
    user = user or await lookup("user", claim)
    who = f"VM {user['metadata']['name']!r}" if user else "another process"
    raise VolumeError(
        IN_USE,
        f"volume {name!r}: claim {claim!r} is in use by {who}: stop that or detach it there, or use another claim",
    )


def _below(claim: ClaimFile, descriptors: Descriptors) -> tuple[Layer, ...]:
    return tuple(Layer(descriptors.open(b.path, read_only=True), cast("Format", b.format)) for b in claim.below)


async def _container_disk(path: Path, image: Layer, descriptors: Descriptors, *, read_only: bool) -> tuple[Layer, ...]:
    """The image, below what the guest writes, which goes to `path`."""
    below = Layer(descriptors.open(image.file.path, read_only=True), image.format)
    if read_only:
        return (below,)
    if not path.exists():
        await disks.overlay(path, Path(image.file.path), image.format)
    return (Layer(descriptors.open(path, read_only=False), "qcow2"), below)


def _of_volume(layers: tuple[Layer, ...], descriptors: Descriptors) -> BlockSize:
    """The block size of what the image is on; guests can do with 512 to 4096."""
    if not layers or layers[0].file.fd is None:
        return BlockSize()
    size = os.fstatvfs(descriptors.mapping[layers[0].file.fd]).f_bsize
    size = max(SECTOR, min(BLOCK, size))
    return BlockSize(size, size)


def _blank(path: Path, size: int) -> None:
    """An empty disk needs no durability: it goes with its guest. Kept when a start is tried again."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(descriptor, -(-size // SECTOR) * SECTOR)
    finally:
        os.close(descriptor)


def _source(volume: Document) -> str:
    for kind, source in volume.items():
        if kind == "containerDisk":
            return f"containerDisk.image {source.get('image')}"
        if kind == "persistentVolumeClaim":
            return f"persistentVolumeClaim {source.get('claimName')}"
    return next((kind for kind in volume if kind != "name"), "no source")
