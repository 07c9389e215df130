"""Sources of volumes: what KubeVirt asks of each kind, and which of them need a feature gate. Pure."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from hotvirt.api import downward, gates, quantity
from hotvirt.api.faults import Fault, invalid, required
from hotvirt.api.quantity import QuantityError

Document = dict[str, Any]

LONGEST_LABEL = 32
PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_NAMED = {
    "configMap": ("name", "name a ConfigMap of this namespace"),
    "secret": ("secretName", "name a Secret of this namespace"),
    "serviceAccount": ("serviceAccountName", "name a ServiceAccount of this namespace"),
}


def source(kind: str, given: Document, path: str) -> Iterator[Fault]:
    """Faults of one volume's source. One that is no object is the schema's to refuse."""
    if not isinstance(given, dict):
        return
    if kind in _NAMED:
        field, mend = _NAMED[kind]
        if not given.get(field):
            yield required(f"{path}.{field}", mend)
    if label := given.get("volumeLabel"):
        yield from _label(str(label), f"{path}.volumeLabel")
    if kind == "containerDisk":
        yield from pull(given, path)
    elif kind == "downwardAPI":
        yield from _downward(given, path)
    elif kind == "sysprep":
        yield from _sysprep(given, path)
    elif kind == "ephemeral":
        if not (given.get("persistentVolumeClaim") or {}).get("claimName"):
            yield required(f"{path}.persistentVolumeClaim.claimName", "name a PersistentVolumeClaim of this namespace")
    elif kind == "hostDisk":
        yield from _host_disk(given, path)


def together(volumes: Sequence[Document], path: str) -> Iterator[Fault]:
    """Kinds of which there may be one."""
    found = [index for index, volume in enumerate(volumes) if volume.get("serviceAccount")]
    for index in found[1:]:
        yield invalid(f"{path}[{index}].serviceAccount", "there may be one serviceAccount volume: remove the others")


def gated(spec: Document, path: str, listed: Collection[str]) -> Iterator[Fault]:
    """Faults of what is only allowed with feature gates that are not among those `listed`."""
    for index, volume in enumerate(spec.get("volumes") or ()):
        if volume.get("hostDisk") and gates.HOST_DISK not in listed:
            yield invalid(f"{path}.volumes[{index}].hostDisk", gates.not_on(gates.HOST_DISK))


def pull(given: Document, path: str) -> Iterator[Fault]:
    """How an image is pulled, and the paths in it."""
    policy = given.get("imagePullPolicy")
    if policy not in (None, "", *PULL_POLICIES):
        yield invalid(f"{path}.imagePullPolicy", f"{policy!r} is unknown: use {', '.join(PULL_POLICIES)}")
    for field in ("path", "kernelPath", "initrdPath"):
        if (inside := given.get(field)) and (not str(inside).startswith("/") or ".." in str(inside).split("/")):
            yield invalid(
                f"{path}.{field}", f"{inside!r} is not an absolute path in the image: write it like /disk/a.img"
            )


def _label(label: str, path: str) -> Iterator[Fault]:
    if len(label) > LONGEST_LABEL or not (label.isascii() and label.isprintable()):
        yield invalid(path, f"may have up to {LONGEST_LABEL} ASCII characters: shorten it")


def _downward(given: Document, path: str) -> Iterator[Fault]:
    for index, item in enumerate(given.get("fields") or ()):
        here = f"{path}.fields[{index}]"
        name = str(item.get("path") or "")
        if not name:
            yield required(f"{here}.path", "say what the file is to be called")
        elif name.startswith("/") or ".." in name.split("/"):
            yield invalid(f"{here}.path", f"{name!r} must be relative and without '..'")
        field, resource = item.get("fieldRef"), item.get("resourceFieldRef")
        if bool(field) == bool(resource):
            yield invalid(here, "needs one of fieldRef and resourceFieldRef")
        elif field and not downward.is_field(str(field.get("fieldPath") or "")):
            message = f"{field.get('fieldPath')!r} is unknown: use {', '.join(downward.FIELDS)}"
            yield invalid(f"{here}.fieldRef.fieldPath", message)
        elif resource and not downward.is_resource(str(resource.get("resource") or "")):
            message = f"{resource.get('resource')!r} is unknown: use {', '.join(downward.RESOURCES)}"
            yield invalid(f"{here}.resourceFieldRef.resource", message)


def _sysprep(given: Document, path: str) -> Iterator[Fault]:
    found = [kind for kind in ("configMap", "secret") if given.get(kind) is not None]
    if len(found) != 1:
        yield invalid(path, "needs one of configMap and secret, which holds autounattend.xml or unattend.xml")
    elif not given[found[0]].get("name"):
        yield required(f"{path}.{found[0]}.name", "name what holds autounattend.xml or unattend.xml")


def _host_disk(given: Document, path: str) -> Iterator[Fault]:
    where, kind = str(given.get("path") or ""), given.get("type")
    if not where:
        yield required(f"{path}.path", "say where on the node the disk image is")
    elif not where.startswith("/") or ".." in where.split("/"):
        yield invalid(f"{path}.path", f"{where!r} is not an absolute path without '..': give the whole path")
    if kind not in ("Disk", "DiskOrCreate"):
        yield invalid(f"{path}.type", f"{kind!r} is unknown: use Disk or DiskOrCreate")
        return
    capacity = given.get("capacity")
    if capacity and kind == "Disk":
        yield invalid(f"{path}.capacity", "is for type DiskOrCreate: remove it, the file has its size")
    elif not capacity and kind == "DiskOrCreate":
        yield required(f"{path}.capacity", "say how large the disk is to be made, such as 10Gi")
    elif capacity:
        try:
            if quantity.parse_bytes(capacity) < 1 << 20:
                yield invalid(f"{path}.capacity", "must be at least 1Mi")
        except QuantityError as error:
            yield invalid(f"{path}.capacity", str(error))
