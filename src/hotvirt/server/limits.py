"""LimitRanges: requests and limits for containers that state none, and the bounds of all. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from hotvirt.server import podamounts, quantities
from hotvirt.server.pods import qos

Document = dict[str, Any]
STORES = ("/pods", "/persistentvolumeclaims")
CONTAINERS = ("containers", "initContainers")


def with_defaults(store: str, pod: Document, ranges: Iterable[Document]) -> Document:
    """A pod with the defaults of its containers filled in; others as they are."""
    items = [item for item in _items(ranges) if item.get("type") == "Container"]
    spec = pod.get("spec") or {}
    if store != "/pods" or not items or not spec.get("containers"):
        return pod
    filled = {key: [_filled(each, items) for each in spec[key]] for key in CONTAINERS if spec.get(key)}
    spec = {**spec, **filled}
    return {**pod, "spec": spec, "status": {**(pod.get("status") or {}), "qosClass": qos(spec)}}


def _filled(container: Document, items: Iterable[Document]) -> Document:
    resources: Document = dict(container.get("resources") or {})
    for item in items:
        usual: Document = item.get("default") or {}
        limits = {**usual, **(resources.get("limits") or {})}
        requests = {**usual, **(item.get("defaultRequest") or {}), **(resources.get("requests") or {})}
        resources |= {k: v for k, v in (("limits", limits), ("requests", requests)) if v}
    return {**container, "resources": resources}


def check(store: str, doc: Document, ranges: Iterable[Document]) -> list[str]:
    """Every bound that the pod, its containers or the claim break, each as a sentence."""
    broken: list[str] = []
    spec = doc.get("spec") or {}
    for item in _items(ranges):
        if store == "/pods" and item.get("type") == "Container":
            for key in CONTAINERS:
                for index, container in enumerate(spec.get(key) or ()):
                    at = f"spec.{key}[{index}].resources"
                    broken += _bounds(item, container.get("resources") or {}, at)
        elif store == "/pods" and item.get("type") == "Pod":
            whole = {word: podamounts.total(spec, word) for word in ("requests", "limits")}
            broken += _bounds(item, whole, "spec.containers")
        elif store == "/persistentvolumeclaims" and item.get("type") == "PersistentVolumeClaim":
            broken += _bounds(item, spec.get("resources") or {}, "spec.resources")
    return broken


def _bounds(item: Document, resources: Mapping[str, Any], at: str) -> Iterator[str]:
    kind = item.get("type")
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for name, least in (item.get("min") or {}).items():
        asked = requests.get(name, limits.get(name))
        if asked is None or _number(asked) < quantities.amount(least):
            shown = "none is requested" if asked is None else f"{_shown(asked, least)} is requested"
            yield f"{at}: minimum {name} usage per {kind} is {least}, but {shown}: request at least that"
    for name, most in (item.get("max") or {}).items():
        asked = requests.get(name) if kind == "PersistentVolumeClaim" else limits.get(name)
        if asked is None or _number(asked) > quantities.amount(most):
            shown = "there is none" if asked is None else f"it is {_shown(asked, most)}"
            yield f"{at}: maximum {name} usage per {kind} is {most}, but {shown}: ask for at most that"
    for name, most in (item.get("maxLimitRequestRatio") or {}).items():
        start = f"{at}: {name} max limit to request ratio per {kind}"
        yield from _ratio(name, most, requests.get(name), limits.get(name), start=start)


def _ratio(name: str, most: Any, request: Any, limit: Any, *, start: str) -> Iterator[str]:
    for word, value in (("request", request), ("limit", limit)):
        if value is None or not _number(value):
            yield f"{start} is {most}, but no {word} is specified or it is 0: state how much {name} it is"
            return
    ratio = _number(limit) / _number(request)
    if ratio > quantities.amount(most):
        yield f"{start} is {most}, but the ratio is {ratio:.2f}: raise the request, or lower the limit"


def _number(value: Any) -> Decimal:
    return value if isinstance(value, Decimal) else quantities.amount(value)


def _shown(value: Any, like: Any) -> str:
    return quantities.show(value, like=like) if isinstance(value, Decimal) else str(value)


def _items(ranges: Iterable[Document]) -> Iterable[Document]:
    for found in ranges:
        yield from (found.get("spec") or {}).get("limits") or ()
