"""What may be said of amounts of resources: of containers, in quotas, in limit ranges. Every fault is found. Pure."""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from hotvirt.kube.errors import Cause
from hotvirt.server import quantities
from hotvirt.server.objectmeta import FORBIDDEN, INVALID

Document = dict[str, Any]
OF_CONTAINERS = frozenset({"cpu", "memory", "ephemeral-storage"})
OF_QUOTAS = OF_CONTAINERS | {
    "pods", "services", "replicationcontrollers", "resourcequotas", "secrets", "configmaps", "persistentvolumeclaims",
    "services.nodeports", "services.loadbalancers", "storage", "requests.cpu", "requests.memory", "requests.storage",
    "requests.ephemeral-storage", "limits.cpu", "limits.memory", "limits.ephemeral-storage",
}  # fmt: skip
SCOPES = frozenset({
    "Terminating", "NotTerminating", "BestEffort", "NotBestEffort", "PriorityClass", "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
})  # fmt: skip
_OPPOSITES = (("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating"))
_LIMIT_PAIRS = (  # a value of the first may not be above one of the second; blamed is the third
    ("min", "max", "min", "min value {} is greater than max value {}"),
    ("min", "defaultRequest", "defaultRequest", "min value {} is greater than default request value {}"),
    ("defaultRequest", "max", "defaultRequest", "default request value {} is greater than max value {}"),
    ("defaultRequest", "default", "defaultRequest", "default request value {} is greater than default limit value {}"),
    ("min", "default", "default", "min value {} is greater than default value {}"),
    ("default", "max", "default", "default value {} is greater than max value {}"),
)


def of_containers(spec: Document) -> list[Cause]:
    """Of every container of a pod."""
    causes: list[Cause] = []
    for key in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(key) or ()):
            if isinstance(container, dict) and isinstance(container.get("resources"), dict):
                causes += _resources(container["resources"], f"spec.{key}[{index}].resources")
    return causes


def _resources(resources: Document, at: str) -> list[Cause]:
    causes: list[Cause] = []
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for where, amounts in (("limits", limits), ("requests", requests)):
        for name, amount in amounts.items():
            causes += _name(name, OF_CONTAINERS, "containers", f"{at}.{where}[{name}]")
            causes += negative(amount, f"{at}.{where}[{name}]")
    for name, amount in requests.items():
        if name in limits and quantities.amount(amount) > quantities.amount(limits[name]):
            message = f'Invalid value: "{amount}": must be less than or equal to {name} limit of {limits[name]}'
            causes.append(Cause(INVALID, message, f"{at}.requests"))
    return causes


def _name(name: str, known: frozenset[str], what: str, at: str) -> Iterator[Cause]:
    if "/" not in name and name not in known and not name.startswith(("hugepages-", "requests.hugepages-")):
        yield Cause(INVALID, f'Invalid value: "{name}": must be a standard resource for {what}', at)


def negative(amount: Any, at: str) -> Iterator[Cause]:
    if quantities.amount(amount) < 0:
        yield Cause(INVALID, f'Invalid value: "{amount}": must be greater than or equal to 0', at)


def quota(new: Document, _: Document | None) -> list[Cause]:
    spec = new.get("spec") or {}
    causes: list[Cause] = []
    for name, amount in (spec.get("hard") or {}).items():
        at = f"spec.hard[{name}]"
        causes += [*_name(name, OF_QUOTAS, "quota", at), *negative(amount, at)]
    scopes = spec.get("scopes") or []
    if unknown := [each for each in scopes if each not in SCOPES]:
        causes.append(Cause(INVALID, f"Invalid value: {unknown}: unsupported scope", "spec.scopes"))
    if any(one in scopes and other in scopes for one, other in _OPPOSITES):
        causes.append(Cause(INVALID, f"Invalid value: {scopes}: conflicting scopes", "spec.scopes"))
    return causes


def with_usual_limits(doc: Document) -> Document:
    """A limit range whose items for containers say what is usual: the most where it says nothing else, and of that,
    else of the least, the request."""
    spec = doc.get("spec") or {}
    items = [_with_usual(item) if item.get("type") == "Container" else item for item in spec.get("limits") or ()]
    return {**doc, "spec": {**spec, "limits": items}} if items else doc


def _with_usual(item: Document) -> Document:
    usual = {**(item.get("max") or {}), **(item.get("default") or {})}
    asked = {**(item.get("min") or {}), **usual, **(item.get("defaultRequest") or {})}
    return {**item, **{key: value for key, value in (("default", usual), ("defaultRequest", asked)) if value}}


def limit_range(new: Document, _: Document | None) -> list[Cause]:
    causes: list[Cause] = []
    seen: set[str] = set()
    for index, item in enumerate((new.get("spec") or {}).get("limits") or ()):
        at, kind = f"spec.limits[{index}]", str(item.get("type") or "")
        if kind in seen:
            causes.append(Cause("FieldValueDuplicate", f'Duplicate value: "{kind}"', f"{at}.type"))
        seen.add(kind)
        causes += _limits(item, kind, at)
    return causes


def _limits(item: Document, kind: str, at: str) -> Iterator[Cause]:
    if kind == "Pod":
        for key in ("default", "defaultRequest"):
            if item.get(key):
                yield Cause(FORBIDDEN, "Forbidden: may not be specified when `type` is 'Pod'", f"{at}.{key}")
    for low, high, blamed, words in _LIMIT_PAIRS:
        lows: Mapping[str, Any] = item.get(low) or {}
        highs: Mapping[str, Any] = item.get(high) or {}
        for name in lows.keys() & highs.keys():
            if quantities.amount(lows[name]) > quantities.amount(highs[name]):
                said = words.format(lows[name], highs[name])
                yield Cause(INVALID, f'Invalid value: "{item[blamed][name]}": {said}', f"{at}.{blamed}[{name}]")
    for name, ratio in (item.get("maxLimitRequestRatio") or {}).items():
        if quantities.amount(ratio) < Decimal(1):
            message = f'Invalid value: "{ratio}": ratio {ratio} is less than 1'
            yield Cause(INVALID, message, f"{at}.maxLimitRequestRatio[{name}]")
