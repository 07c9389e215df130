"""What claims, volumes and storage classes may say, and what of them may change. Every fault is found. Pure."""

from collections.abc import Iterator
from typing import Any

from hotvirt.kube.errors import Cause
from hotvirt.server import quantities
from hotvirt.server.kind_checks import unsupported
from hotvirt.server.objectmeta import FORBIDDEN, INVALID, REQUIRED

Document = dict[str, Any]
ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
VOLUME_MODES = ("Block", "Filesystem")
RECLAIM = ("Delete", "Recycle", "Retain")
BINDING = ("Immediate", "WaitForFirstConsumer")
_CLASS_FIXED = ("parameters", "provisioner", "reclaimPolicy", "volumeBindingMode")


def claim(new: Document, old: Document | None) -> list[Cause]:
    spec = new.get("spec") or {}
    if spec.get("accessModes"):
        causes = list(_modes(spec))
    else:
        causes = [Cause(REQUIRED, "Required value: at least 1 access mode is required", "spec.accessModes")]
    size = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if size is None:
        causes.append(Cause(REQUIRED, "Required value: say how much storage", "spec.resources[storage]"))
    else:
        causes += _positive(size, "spec.resources[storage]")
    return causes if old is None else causes + _claim_changes(new, old)


def _modes(spec: Document) -> Iterator[Cause]:
    modes = spec.get("accessModes") or ()
    for mode in modes:
        if mode not in ACCESS_MODES:
            yield unsupported(mode, ACCESS_MODES, "spec.accessModes")
    if "ReadWriteOncePod" in modes and len(set(modes)) > 1:
        message = "Forbidden: may not use ReadWriteOncePod with other access modes"
        yield Cause(FORBIDDEN, message, "spec.accessModes")
    if (mode := spec.get("volumeMode")) and mode not in VOLUME_MODES:
        yield unsupported(mode, VOLUME_MODES, "spec.volumeMode")


def _positive(amount: Any, at: str) -> Iterator[Cause]:
    if quantities.amount(amount) <= 0:
        yield Cause(INVALID, f'Invalid value: "{amount}": must be greater than zero', at)


def _claim_changes(new: Document, old: Document) -> list[Cause]:
    """A bound claim may grow, and one without a volume be given one; no more."""
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    bound = (new.get("status") or {}).get("phase") == "Bound"
    apart = {"volumeName"} if not before.get("volumeName") else set()
    apart |= {"resources", "volumeAttributesClassName"} if bound else set()
    causes = []
    if {k: v for k, v in spec.items() if k not in apart} != {k: v for k, v in before.items() if k not in apart}:
        message = "Forbidden: spec is immutable after creation except resources.requests for bound claims"
        causes.append(Cause(FORBIDDEN, message, "spec"))
    size, was = (quantities.amount(((s.get("resources") or {}).get("requests") or {}).get("storage"))
                 for s in (spec, before))  # fmt: skip
    has = quantities.amount(((old.get("status") or {}).get("capacity") or {}).get("storage"))
    if size < was and size <= has:
        message = "Forbidden: field can not be less than status.capacity"
        causes.append(Cause(FORBIDDEN, message, "spec.resources.requests.storage"))
    return causes


def volume(new: Document, old: Document | None) -> list[Cause]:
    spec = new.get("spec") or {}
    causes = [*_modes(spec)] if spec.get("accessModes") else [Cause(REQUIRED, "Required value", "spec.accessModes")]
    size = (spec.get("capacity") or {}).get("storage")
    if size is None:
        causes.append(Cause(REQUIRED, "Required value: say how much storage it has", "spec.capacity[storage]"))
    else:
        causes += _positive(size, "spec.capacity[storage]")
    if (policy := spec.get("persistentVolumeReclaimPolicy")) and policy not in RECLAIM:
        causes.append(unsupported(policy, RECLAIM, "spec.persistentVolumeReclaimPolicy"))
    if old is not None and spec.get("volumeMode") != (old.get("spec") or {}).get("volumeMode"):
        message = f'Invalid value: "{spec.get("volumeMode")}": field is immutable'
        causes.append(Cause(INVALID, message, "spec.volumeMode"))
    return causes


def storage_class(new: Document, old: Document | None) -> list[Cause]:
    causes = [] if new.get("provisioner") else [Cause(REQUIRED, "Required value", "provisioner")]
    for key, known in (("reclaimPolicy", RECLAIM), ("volumeBindingMode", BINDING)):
        if (value := new.get(key)) and value not in known:
            causes.append(unsupported(value, known, key))
    if old is None:
        return causes
    changed = [key for key in _CLASS_FIXED if (new.get(key) or None) != (old.get(key) or None)]
    return causes + [Cause(INVALID, f"Invalid value: {new.get(key)!r}: field is immutable", key) for key in changed]
