"""Disks and their volumes: each needs its partner, and a place where the guest can find it. Pure."""

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from typing import Any

from hotvirt.api import defaults, quantity, validation_volumes
from hotvirt.api import disks as api_disks
from hotvirt.api.faults import Fault, duplicate, invalid, required
from hotvirt.api.quantity import QuantityError
from hotvirt.api.validation_network import names, pci_address

Document = dict[str, Any]

SOURCES = (
    "containerDisk", "persistentVolumeClaim", "emptyDisk", "ephemeral", "cloudInitNoCloud", "cloudInitConfigDrive",
    "configMap", "secret", "serviceAccount", "downwardAPI", "sysprep", "hostDisk", "dataVolume",
)  # fmt: skip
CLOUD_INIT = ("cloudInitNoCloud", "cloudInitConfigDrive")
SATA_PORTS = 6
INLINE_LIMIT = 2048
SMALLEST_BLOCK, LARGEST_BLOCK = 512, 2 << 20
_NEVER = "cannot be read-only"
_WORDS = {
    "cache": ("none", "writethrough", "writeback"),
    "io": ("native", "threads"),
    "errorPolicy": ("stop", "ignore", "report", "enospace"),
}
_SERIAL = re.compile(r"[A-Za-z0-9_.+-]{1,256}")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,511}")


def check(spec: Document, path: str) -> list[Fault]:
    """Faults of the disks and volumes of an instance's spec at `path`."""
    disks = ((spec.get("domain") or {}).get("devices") or {}).get("disks") or []
    volumes = spec.get("volumes") or []
    at = f"{path}.domain.devices.disks"
    return [
        *_disks(disks, volumes, at), *_sata_ports(disks, spec, at), *_volumes(volumes, disks, f"{path}.volumes"),
    ]  # fmt: skip


def image(name: str, path: str) -> Iterator[Fault]:
    """Faults of an image's name; whether there is such an image is found out when it is needed."""
    if not name:
        yield required(path, "name an image, such as hotvirt/debian:12 (see: hotvirt images list)")
    elif not _IMAGE.fullmatch(name):
        yield invalid(path, f"{name[:80]!r} is not an image name: write it like hotvirt/debian:12 or local/NAME")


def _disks(disks: Sequence[Document], volumes: Sequence[Document], path: str) -> Iterator[Fault]:
    yield from names(disks, path)
    known = api_disks.by_name(volumes)
    for index, disk in enumerate(disks):
        here = f"{path}[{index}]"
        targets, kind, bus = api_disks.targets(disk), api_disks.target(disk), api_disks.bus(disk)
        allowed = api_disks.BUSES[kind]
        if len(targets) > 1:
            yield invalid(here, f"is {' and '.join(targets)} at once: keep one")
        if bus not in allowed:
            yield invalid(f"{here}.{kind}.bus", f"{bus!r} is not a bus for a {kind}: use {' or '.join(allowed)}")
        elif kind == "disk" and bus == "sata" and (disk.get("disk") or {}).get("readonly"):
            yield invalid(f"{here}.disk.readonly", f"a SATA disk {_NEVER}: use bus virtio or scsi")
        if disk.get("name") not in known and kind != "cdrom":
            yield invalid(
                f"{here}.name", f"no volume is named {disk.get('name')!r}: add it to volumes, or remove the disk"
            )
        elif kind == "lun" and not (
            api_disks.claim(known[str(disk.get("name"))]) and not known[str(disk.get("name"))].get("ephemeral")
        ):
            yield invalid(f"{here}.lun", "needs a claim: make its volume a persistentVolumeClaim, or use disk")
        yield from _settings(disk, here)


def _settings(disk: Document, path: str) -> Iterator[Fault]:
    for field, allowed in _WORDS.items():
        if disk.get(field) not in (None, "", *allowed):
            yield invalid(f"{path}.{field}", f"{disk[field]!r} is unknown: use {' or '.join(allowed)}")
    if disk.get("io") == "native" and disk.get("cache") not in (None, "", "none"):
        yield invalid(
            f"{path}.io", f"native needs cache none, not {disk['cache']}: set cache to none, or io to threads"
        )
    if (serial := disk.get("serial")) and not _SERIAL.fullmatch(serial):
        yield invalid(f"{path}.serial", "may have up to 256 letters, digits, and _ . + -")
    kind, bus = api_disks.target(disk), api_disks.bus(disk)
    if address := (disk.get(kind) or {}).get("pciAddress"):
        yield from pci_address(address, f"{path}.{kind}.pciAddress")
        if bus != "virtio":
            yield invalid(f"{path}.{kind}.pciAddress", f"is for bus virtio, not {bus}: remove it, or change the bus")
    if (tray := (disk.get("cdrom") or {}).get("tray")) not in (None, "", "open", "closed"):
        yield invalid(f"{path}.cdrom.tray", f"{tray!r} is unknown: use open or closed")
    if disk.get("dedicatedIOThread") and bus != "virtio":
        yield invalid(f"{path}.dedicatedIOThread", f"is for bus virtio, not {bus}: remove it, or change the bus")
    size = disk.get("blockSize") or {}
    if size.get("custom") is not None and (size.get("matchVolume") or {}).get("enabled"):
        yield invalid(f"{path}.blockSize", "custom and matchVolume exclude each other: keep one")
    elif (custom := size.get("custom")) is not None:
        yield from _block_size(custom, f"{path}.blockSize.custom")


def _block_size(given: Document, path: str) -> Iterator[Fault]:
    logical, physical, discard = (given.get(field) or 0 for field in ("logical", "physical", "discardGranularity"))
    for field, value in (("logical", logical), ("physical", physical)):
        if not SMALLEST_BLOCK <= value <= LARGEST_BLOCK or value & (value - 1):
            yield invalid(f"{path}.{field}", f"must be a power of two from {SMALLEST_BLOCK} to 2Mi, not {value}")
    if logical > physical:
        yield invalid(f"{path}.logical", f"{logical} is above physical, {physical}: raise that, or lower this")
    if discard and logical and discard % logical:
        yield invalid(f"{path}.discardGranularity", f"{discard} is not a multiple of logical, {logical}")


def _sata_ports(disks: Sequence[Document], spec: Document, path: str) -> Iterator[Fault]:
    """Volumes without a disk of their own get one, on SATA."""
    count = sum(api_disks.bus(disk) == "sata" for disk in (*disks, *defaults.silent_disks(spec)))
    if count > SATA_PORTS:
        yield invalid(path, f"{count} disks are on the sata bus, which has {SATA_PORTS} ports: use bus virtio or scsi")


def _volumes(volumes: Sequence[Document], disks: Sequence[Document], path: str) -> Iterator[Fault]:
    yield from names(volumes, path)
    yield from validation_volumes.together(volumes, path)
    of_disk = api_disks.by_name(disks)
    claims: set[str] = set()
    for index, volume in enumerate(volumes):
        here = f"{path}[{index}]"
        sources = [key for key in volume if key != "name" and volume[key] is not None]
        if len(sources) != 1:
            said = f"has {' and '.join(sources)}" if sources else "has no source"
            yield invalid(here, f"{said}: a volume needs exactly one of {', '.join(SOURCES)}")
            continue
        kind, source = sources[0], volume[sources[0]]
        yield from _source(kind, source, f"{here}.{kind}")
        if (field := api_disks.HOTPLUG_SOURCES.get(kind)) is not None:
            if (claim := source.get(field) or "") in claims:
                yield duplicate(f"{here}.{kind}.{field}", f"claim {claim!r} is used twice: one volume per claim")
            claims.add(source.get(field) or "")
            disk = of_disk.get(str(volume.get("name")))
            if source.get("hotpluggable"):
                yield from _hotpluggable(disk, f"{here}.{kind}")
            elif (
                source.get("readOnly")
                and api_disks.target(disk or {}) == "disk"
                and api_disks.bus(disk or {}) == "sata"
            ):
                yield invalid(f"{here}.{kind}.readOnly", f"a SATA disk {_NEVER}: use bus virtio or scsi for its disk")


def _hotpluggable(disk: Document | None, path: str) -> Iterator[Fault]:
    if disk is None:
        return  # it will be on a bus that can
    bus = api_disks.bus(disk)
    if api_disks.target(disk) != "cdrom" and bus not in api_disks.HOTPLUG_BUSES:
        yield invalid(f"{path}.hotpluggable", f"bus {bus} cannot hot-plug: set the disk's bus to scsi")


def _source(kind: str, source: Document, path: str) -> Iterator[Fault]:
    if kind == "containerDisk":
        yield from image(source.get("image") or "", f"{path}.image")
    elif kind == "persistentVolumeClaim" and not source.get("claimName"):
        yield required(f"{path}.claimName", "name a PersistentVolumeClaim of this namespace")
    elif kind == "dataVolume" and not source.get("name"):
        yield required(f"{path}.name", "name a DataVolume of this namespace")
    elif kind == "emptyDisk":
        try:
            size = quantity.parse_bytes(source.get("capacity") or "")
            if size < 1 << 20:
                yield invalid(f"{path}.capacity", "must be at least 1Mi")
        except QuantityError as error:
            yield invalid(f"{path}.capacity", str(error))
    elif kind in CLOUD_INIT:
        yield from _cloud_init(source, path)
    yield from validation_volumes.source(kind, source, path)


def _cloud_init(source: Document, path: str) -> Iterator[Fault]:
    empty = True
    for what, secret in (("userData", "secretRef"), ("networkData", "networkDataSecretRef")):
        given = [field for field in (what, f"{what}Base64", secret) if source.get(field)]
        empty = empty and not given
        if len(given) > 1:
            yield invalid(path, f"has {' and '.join(given)}: keep one")
        if (text := source.get(what)) and len(text.encode()) > INLINE_LIMIT:
            yield invalid(
                f"{path}.{what}", f"is longer than {INLINE_LIMIT} bytes: put it into a Secret, named in {secret}"
            )
        if encoded := source.get(f"{what}Base64"):
            yield from _base64(encoded, f"{path}.{what}Base64", secret)
        if source.get(secret) and not source[secret].get("name"):
            yield required(f"{path}.{secret}.name", f"name the Secret whose key {what.lower()} has the text")
    if empty:
        yield required(f"{path}.userData", "say what cloud-init is to do, inline or by secretRef")


def _base64(encoded: str, path: str, secret: str) -> Iterator[Fault]:
    try:
        size = len(base64.b64decode(encoded, validate=True))
    except (binascii.Error, ValueError):
        yield invalid(path, "is not base64: make it with base64 -w0 FILE")
        return
    if size > INLINE_LIMIT:
        yield invalid(path, f"holds more than {INLINE_LIMIT} bytes: put it into a Secret, named in {secret}")
