"""LimitRanges: requests and limits for containers that state none, and the bounds of all. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from hotvirt.server import quantities
from hotvirt.server.pods import qos

Document = dict[str, Any]
STORES = ("/pods", "/persistentvolumeclaims")


def with_defaults(store: str, pod: Document, ranges: Iterable[Document]) -> Document:
    """A pod with the defaults of its containers filled in; others as they are."""
    items = [item for item in _items(ranges) if item.get("type") == "Container"]
    spec = pod.get("spec") or {}
    if store != "/pods" or not items or not spec.get("containers"):
        return pod
    containers = []
    for container in spec["containers"]:
        resources: Document = dict(container.get("resources") or {})
        for item in items:
            usual: Document = item.get("default") or {}
            limits = {**usual, **(resources.get("limits") or {})}
            requests = {**usual, **(item.get("defaultRequest") or {}), **(resources.get("requests") or {})}
            resources |= {k: v for k, v in (("limits", limits), ("requests", requests)) if v}
        containers.append({**container, "resources": resources})
    spec = {**spec, "containers": containers}
    return {**pod, "spec": spec, "status": {**(pod.get("status") or {}), "qosClass": qos(spec)}}


def check(store: str, doc: Document, ranges: Iterable[Document]) -> list[str]:
    """Every bound that the pod's containers or the claim break, each as a sentence."""
    broken: list[str] = []
    for item in _items(ranges):
        if store == "/pods" and item.get("type") == "Container":
            for index, container in enumerate((doc.get("spec") or {}).get("containers") or ()):
                broken += _bounds(item, container.get("resources") or {}, f"spec.containers[{index}].resources")
        elif store == "/persistentvolumeclaims" and item.get("type") == "PersistentVolumeClaim":
            broken += _bounds(item, (doc.get("spec") or {}).get("resources") or {}, "spec.resources")
    return broken


def _bounds(item: Document, resources: Mapping[str, Any], at: str) -> list[str]:
    broken: list[str] = []
    kind = item.get("type")
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for name, least in (item.get("min") or {}).items():
        asked = requests.get(name, limits.get(name))
        if asked is None or quantities.amount(asked) < quantities.amount(least):
            shown = "none is requested" if asked is None else f"{asked} is requested"
            broken.append(f"{at}: minimum {name} usage per {kind} is {least}, but {shown}: request at least that")
    for name, most in (item.get("max") or {}).items():
        asked = limits.get(name) if kind == "Container" else requests.get(name)
        if asked is None or quantities.amount(asked) > quantities.amount(most):
            shown = "there is none" if asked is None else f"it is {asked}"
            broken.append(f"{at}: maximum {name} usage per {kind} is {most}, but {shown}: ask for at most that")
    return broken


def _items(ranges: Iterable[Document]) -> Iterable[Document]:
    for found in ranges:
        yield from (found.get("spec") or {}).get("limits") or ()
