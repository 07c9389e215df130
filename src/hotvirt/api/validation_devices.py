"""Disks and volumes, interfaces and networks: each needs its partner, and a place the guest can find it. Pure."""

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from typing import Any

from hotvirt.api import quantity
from hotvirt.api.faults import Fault, duplicate, invalid, not_supported, required
from hotvirt.api.quantity import QuantityError

Document = dict[str, Any]

BUSES = {"disk": ("virtio", "scsi", "sata"), "cdrom": ("sata", "scsi"), "lun": ("scsi",)}
HOTPLUG_BUSES = ("scsi", "virtio")
SOURCES = ("containerDisk", "persistentVolumeClaim", "emptyDisk", "cloudInitNoCloud")
SATA_PORTS = 6
INLINE_LIMIT = 2048
_BINDINGS = ("masquerade", "bridge")
_MODELS = ("virtio", "e1000e", "e1000", "rtl8139")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?")
_MAC = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")
_SERIAL = re.compile(r"[A-Za-z0-9_.+-]{1,256}")


def check(spec: Document, path: str) -> list[Fault]:
    """Faults of the devices, volumes and networks of an instance's spec at `path`."""
    devices = (spec.get("domain") or {}).get("devices") or {}
    disks, volumes = devices.get("disks") or [], spec.get("volumes") or []
    interfaces, networks = devices.get("interfaces") or [], spec.get("networks") or []
    at = f"{path}.domain.devices"
    return [
        *_disks(disks, volumes, f"{at}.disks"),
        *_volumes(volumes, disks, f"{path}.volumes"),
        *_boot_order([("disks", disks), ("interfaces", interfaces)], at),
        *_interfaces(interfaces, networks, f"{at}.interfaces"),
        *_networks(networks, interfaces, f"{path}.networks"),
    ]


def _names(items: Sequence[Document], path: str) -> Iterator[Fault]:
    seen: set[str] = set()
    for index, item in enumerate(items):
        name = item.get("name") or ""
        if name in seen:
            yield duplicate(f"{path}[{index}].name", f"{name!r} is there twice: names must differ")
        elif not _NAME.fullmatch(name):
            yield invalid(f"{path}[{index}].name", f"{name!r} is not a name: use lower case letters, digits and '-'")
        seen.add(name)


def _disks(disks: Sequence[Document], volumes: Sequence[Document], path: str) -> Iterator[Fault]:
    yield from _names(disks, path)
    known = {volume.get("name") for volume in volumes}
    on_sata = 0
    for index, disk in enumerate(disks):
        here = f"{path}[{index}]"
        targets = [kind for kind in BUSES if disk.get(kind) is not None]
        if len(targets) > 1:
            yield invalid(here, f"is {' and '.join(targets)} at once: keep one")
        target = targets[0] if targets else "disk"
        given = disk.get(target) or {}
        bus = given.get("bus") or "sata"
        on_sata += bus == "sata"
        if bus not in BUSES[target]:
            yield invalid(
                f"{here}.{target}.bus", f"{bus!r} is not a bus for a {target}: use {' or '.join(BUSES[target])}"
            )
        elif target == "disk" and bus == "sata" and given.get("readonly"):
            yield invalid(f"{here}.disk.readonly", "a SATA disk cannot be read-only: use bus virtio or scsi")
        if disk.get("name") not in known and target != "cdrom":
            yield invalid(
                f"{here}.name", f"no volume is named {disk.get('name')!r}: add it to volumes, or remove the disk"
            )
        yield from _disk_settings(disk, here)
    if on_sata > SATA_PORTS:
        yield invalid(
            path, f"{on_sata} disks are on the sata bus, which has {SATA_PORTS} ports: use bus virtio or scsi"
        )


def _disk_settings(disk: Document, path: str) -> Iterator[Fault]:
    for field, allowed in (("cache", ("none", "writethrough", "writeback")), ("io", ("native", "threads"))):
        if disk.get(field) not in (None, "", *allowed):
            yield invalid(f"{path}.{field}", f"{disk[field]!r} is unknown: use {' or '.join(allowed)}")
    if (serial := disk.get("serial")) and not _SERIAL.fullmatch(serial):
        yield invalid(f"{path}.serial", "may have up to 256 letters, digits, and _ . + -")


def _volumes(volumes: Sequence[Document], disks: Sequence[Document], path: str) -> Iterator[Fault]:
    yield from _names(volumes, path)
    of_disk = {disk.get("name"): disk for disk in disks}
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
        if kind == "persistentVolumeClaim":
            if (claim := source.get("claimName") or "") in claims:
                yield duplicate(f"{here}.{kind}.claimName", f"claim {claim!r} is used twice: one volume per claim")
            claims.add(source.get("claimName") or "")
            if source.get("hotpluggable"):
                yield from _hotpluggable(of_disk.get(volume.get("name")), volume, here)


def _hotpluggable(disk: Document | None, volume: Document, path: str) -> Iterator[Fault]:
    if disk is None:
        yield invalid(f"{path}.name", f"a hotpluggable volume needs a disk named {volume.get('name')!r}")
        return
    target = next((kind for kind in BUSES if disk.get(kind) is not None), "disk")
    bus = (disk.get(target) or {}).get("bus") or "sata"
    if target != "cdrom" and bus not in HOTPLUG_BUSES:
        yield invalid(f"{path}.persistentVolumeClaim.hotpluggable", f"bus {bus} cannot hot-plug: use scsi or virtio")


def _source(kind: str, source: Document, path: str) -> Iterator[Fault]:
    if kind == "containerDisk" and not source.get("image"):
        yield required(f"{path}.image", "name an image, such as hotvirt/debian:12")
    elif kind == "persistentVolumeClaim" and not source.get("claimName"):
        yield required(f"{path}.claimName", "name a PersistentVolumeClaim of this namespace")
    elif kind == "emptyDisk":
        try:
            size = quantity.parse_bytes(source.get("capacity") or "")
            if size < 1 << 20:
                yield invalid(f"{path}.capacity", "must be at least 1Mi")
        except QuantityError as error:
            yield invalid(f"{path}.capacity", str(error))
    elif kind == "cloudInitNoCloud":
        yield from _cloud_init(source, path)


def _cloud_init(source: Document, path: str) -> Iterator[Fault]:
    for what, secret in (("userData", "secretRef"), ("networkData", "networkDataSecretRef")):
        given = [field for field in (what, f"{what}Base64", secret) if source.get(field)]
        if len(given) > 1:
            yield invalid(path, f"has {' and '.join(given)}: keep one")
        if (text := source.get(what)) and len(text.encode()) > INLINE_LIMIT:
            yield invalid(
                f"{path}.{what}", f"is longer than {INLINE_LIMIT} bytes: put it into a Secret, named in {secret}"
            )
        if encoded := source.get(f"{what}Base64"):
            try:
                if len(base64.b64decode(encoded, validate=True)) > INLINE_LIMIT:
                    yield invalid(f"{path}.{what}Base64", f"is longer than {INLINE_LIMIT} bytes: use {secret}")
            except (binascii.Error, ValueError):
                yield invalid(f"{path}.{what}Base64", "is not base64")
    if not any(source.get(f) for f in ("userData", "userDataBase64", "secretRef", "networkData", "networkDataBase64",
                                       "networkDataSecretRef")):  # fmt: skip
        yield required(f"{path}.userData", "say what cloud-init is to do, inline or by secretRef")


def _boot_order(groups: list[tuple[str, Sequence[Document]]], path: str) -> Iterator[Fault]:
    seen: dict[int, str] = {}
    for group, items in groups:
        for index, item in enumerate(items):
            if (order := item.get("bootOrder")) is None:
                continue
            here = f"{path}.{group}[{index}].bootOrder"
            if order < 1:
                yield invalid(here, f"must be 1 or more, not {order}")
            elif order in seen:
                yield duplicate(here, f"{order} is the boot order of {seen[order]} already")
            seen[order] = str(item.get("name"))


def _interfaces(interfaces: Sequence[Document], networks: Sequence[Document], path: str) -> Iterator[Fault]:
    yield from _names(interfaces, path)
    known = {network.get("name") for network in networks}
    for index, interface in enumerate(interfaces):
        here = f"{path}[{index}]"
        if interface.get("name") not in known:
            yield invalid(f"{here}.name", f"no network is named {interface.get('name')!r}: add it to networks")
        bindings = [each for each in _BINDINGS if interface.get(each) is not None]
        if len(bindings) != 1 and not any(interface.get(k) for k in ("binding", "sriov", "slirp", "macvtap", "passt")):
            yield invalid(here, "needs exactly one of masquerade or bridge")
        if interface.get("model") not in (None, "", *_MODELS):
            yield invalid(f"{here}.model", f"{interface['model']!r} is unknown: use {', '.join(_MODELS)}")
        if mac := interface.get("macAddress"):
            if not _MAC.fullmatch(mac):
                yield invalid(f"{here}.macAddress", f"{mac!r} is not a MAC address: write it like 02:00:00:00:00:01")
            elif int(mac[:2], 16) & 1:
                yield invalid(f"{here}.macAddress", f"{mac} is a multicast address: make the first octet even")
        yield from _ports(interface.get("ports") or (), f"{here}.ports")


def _ports(ports: Sequence[Document], path: str) -> Iterator[Fault]:
    names: set[str] = set()
    for index, port in enumerate(ports):
        if not 0 < (port.get("port") or 0) < 65536:
            yield invalid(f"{path}[{index}].port", f"must be 1 to 65535, not {port.get('port')}")
        if port.get("protocol") not in (None, "", "TCP", "UDP"):
            yield not_supported(f"{path}[{index}].protocol", f"{port['protocol']!r} is unknown: use TCP or UDP")
        if (name := port.get("name")) and name in names:
            yield duplicate(f"{path}[{index}].name", f"{name!r} is there twice: names must differ")
        names.add(port.get("name") or "")


def _networks(networks: Sequence[Document], interfaces: Sequence[Document], path: str) -> Iterator[Fault]:
    yield from _names(networks, path)
    used = {interface.get("name") for interface in interfaces}
    on_pod = 0
    for index, network in enumerate(networks):
        here = f"{path}[{index}]"
        if network.get("pod") is None and network.get("multus") is None:
            yield invalid(here, "needs a type: pod")
        on_pod += network.get("pod") is not None
        if on_pod > 1:
            yield duplicate(f"{here}.pod", "there is one pod network for a machine")
        if network.get("name") not in used:
            yield invalid(
                f"{here}.name", f"no interface is named {network.get('name')!r}: add it to devices.interfaces"
            )
