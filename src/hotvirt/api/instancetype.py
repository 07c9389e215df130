"""Instancetypes and preferences put into a machine's template. Pure; what is given is never changed.

An instancetype owns CPU and memory: a machine that names one and sets what it sets is in conflict with it, and each
such field is named. A preference only fills in what the machine is silent about (see `instancetype_preference`).
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

from hotvirt.api import instancetype_preference as preferences
from hotvirt.api import quantity, schemas, validation_instancetype
from hotvirt.api.faults import Fault, invalid
from hotvirt.api.validation import Checked

Document = dict[str, Any]

_OF_CPU = {
    "model": "model",
    "dedicatedCPUPlacement": "dedicatedCpuPlacement",
    "isolateEmulatorThread": "isolateEmulatorThread",
    "numa": "numa",
    "realtime": "realtime",
    "maxSockets": "maxSockets",
}
"""An instancetype's fields, and the machine's, that are copied as they are."""
_OF_MEMORY = {"hugepages": "hugepages", "maxGuest": "maxGuest"}
_OF_DOMAIN = ("ioThreadsPolicy", "launchSecurity")
_OF_DEVICES = ("gpus", "hostDevices")
_OF_SPEC = ("nodeSelector", "schedulerName")
TOPOLOGY = ("sockets", "cores", "threads")


class ConflictError(ValueError):
    """The machine, its instancetype and its preference do not go together."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("; ".join(f"{fault.field}: {fault.message}" for fault in faults))
        self.faults = faults


def expand(vm: Document, instancetype: Document | None, preference: Document | None) -> Document:
    """The VM as one that says all this itself, and names neither. ConflictError where they contradict each other.

    `instancetype` and `preference` are whole objects, of the namespaced or the cluster's kind, or None."""
    template, faults = apply(vm["spec"]["template"], instancetype, preference)
    if faults:
        raise ConflictError(faults)
    spec = {key: value for key, value in vm["spec"].items() if key not in ("instancetype", "preference")}
    expanded = {**vm, "spec": {**spec, "template": template}}
    if "status" in vm:
        refs = ("instancetypeRef", "preferenceRef")
        expanded["status"] = {key: value for key, value in vm["status"].items() if key not in refs}
    return expanded


def apply(
    template: Document,
    instancetype: Document | None,
    preference: Document | None,
    *,
    path: str = "spec.template",
) -> tuple[Document, list[Fault]]:
    """The template with both in it, and what is wrong with that. With faults, the template is as it was."""
    faults = _unsound(instancetype=instancetype, preference=preference)
    if faults:
        return template, faults
    size, taste = ((each or {}).get("spec") for each in (instancetype, preference))
    if not size and not taste:
        return template, []
    faults = list(preferences.spread_faults(size, taste))
    if size:
        faults += conflicts(template, size, path=path)
    faults += preferences.unmet(template.get("spec") or {}, size, taste, path=f"{path}.spec")
    if faults:
        return template, faults
    new = deepcopy(template)
    spec = new.setdefault("spec", {})
    spec["domain"] = dict(spec.get("domain") or {})
    if size:
        _apply_size(spec, size, taste)
    if taste:
        preferences.apply(spec, taste)
    if notes := {**((taste or {}).get("annotations") or {}), **((size or {}).get("annotations") or {})}:
        metadata = new["metadata"] = dict(new.get("metadata") or {})
        metadata["annotations"] = {**notes, **(metadata.get("annotations") or {})}
    return new, []


def is_sound(what: str, obj: object) -> bool:
    """Whether it is an instancetype or a preference: a ControllerRevision that somebody names may hold anything."""
    check, type_name = _CHECKS[what]
    if not isinstance(obj, dict) or not isinstance(obj.get("spec"), dict):
        return False
    return schemas.fits(obj["spec"], type_name) and not check(obj).faults


_CHECKS: dict[str, tuple[Callable[[Document], Checked], str]] = {
    "instancetype": (validation_instancetype.instancetype, "VirtualMachineInstancetypeSpec"),
    "preference": (validation_instancetype.preference, "VirtualMachinePreferenceSpec"),
}


def _unsound(**objects: Document | None) -> list[Fault]:
    message = "the ControllerRevision it refers to holds something else: name another, or another revision"
    return [
        invalid(f"spec.{what}", message) for what, obj in objects.items() if obj is not None and not is_sound(what, obj)
    ]


def conflicts(template: Document, size: Document, *, path: str) -> list[Fault]:
    """A fault for each field that both the template and the instancetype's spec set."""
    spec = template.get("spec") or {}
    found = [f"{path}.spec.{field}" for field in _conflicting(spec, size)]
    known = (template.get("metadata") or {}).get("annotations") or {}
    for name, value in (size.get("annotations") or {}).items():
        if known.get(name, value) != value:
            found.append(f"{path}.metadata.annotations[{name}]")
    message = "the instancetype sets this: leave it out; to change it, name another instancetype"
    return [invalid(field, message) for field in found]


def _conflicting(spec: Document, size: Document) -> Iterator[str]:
    domain = spec.get("domain") or {}
    cpu, memory, devices = (domain.get(block) or {} for block in ("cpu", "memory", "devices"))
    resources = domain.get("resources") or {}
    yield from (f"domain.resources.{kind}.{what}" for what in ("cpu", "memory") for kind in ("requests", "limits")
                if what in (resources.get(kind) or {}))  # fmt: skip
    yield from (f"domain.cpu.{field}" for field in TOPOLOGY if cpu.get(field))
    theirs = size.get("cpu") or {}
    yield from (f"domain.cpu.{field}" for source, field in _OF_CPU.items() if cpu.get(field) and _has(theirs, source))
    if _has(memory, "guest"):
        yield "domain.memory.guest"
    theirs = size.get("memory") or {}
    yield from (f"domain.memory.{f}" for source, f in _OF_MEMORY.items() if _has(memory, f) and _has(theirs, source))
    yield from (f"domain.{field}" for field in _OF_DOMAIN if _has(domain, field) and _has(size, field))
    if _threads(domain) is not None and _threads(size) is not None:
        yield "domain.ioThreads.supplementalPoolThreadCount"
    yield from (f"domain.devices.{field}" for field in _OF_DEVICES if devices.get(field) and size.get(field))
    yield from (field for field in _OF_SPEC if spec.get(field) and size.get(field))


def _apply_size(spec: Document, size: Document, taste: Document | None) -> None:
    domain = spec["domain"]
    theirs = size.get("cpu") or {}
    domain["cpu"] = {
        **(domain.get("cpu") or {}),
        **{field: theirs[source] for source, field in _OF_CPU.items() if _has(theirs, source)},
        **preferences.topology(int(theirs.get("guest") or 1), taste),
    }
    theirs = size.get("memory") or {}
    domain["memory"] = {
        **(domain.get("memory") or {}),
        "guest": theirs.get("guest"),
        **{field: theirs[source] for source, field in _OF_MEMORY.items() if _has(theirs, source)},
    }
    if percent := int(theirs.get("overcommitPercent") or 0):
        resources = domain["resources"] = dict(domain.get("resources") or {})
        requested = quantity.parse_bytes(theirs["guest"]) * (100 - percent) // 100
        resources["requests"] = {**(resources.get("requests") or {}), "memory": quantity.format_bytes(requested)}
    domain |= {field: size[field] for field in _OF_DOMAIN if _has(size, field)}
    if (count := _threads(size)) is not None:
        domain["ioThreads"] = {**(domain.get("ioThreads") or {}), "supplementalPoolThreadCount": count}
    if given := {field: size[field] for field in _OF_DEVICES if size.get(field)}:
        domain["devices"] = {**(domain.get("devices") or {}), **given}
    spec |= {field: size[field] for field in _OF_SPEC if size.get(field)}


def _has(where: Document, field: str) -> bool:
    return where.get(field) is not None


def _threads(where: Document) -> Any:
    return (where.get("ioThreads") or {}).get("supplementalPoolThreadCount")
