"""Which pods are behind a service, as Endpoints and EndpointSlices say it. Pure.

The two objects tell the same: Endpoints for clients that know nothing newer, slices for the others, of at most 100
addresses each. Pods that have ended are in neither; those on their way out are in slices alone, as terminating.
"""

import hashlib
from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from hotvirt.kube import conditions, owners
from hotvirt.kube.client import Document
from hotvirt.kube.resources import SERVICES

MANAGED_SLICE = "endpointslice.kubernetes.io/managed-by"
MANAGED_ENDPOINTS = "endpoints.kubernetes.io/managed-by"
SLICES_BY, ENDPOINTS_BY = "endpointslice-controller.k8s.io", "endpoint-controller"
SERVICE_NAME = "kubernetes.io/service-name"
HEADLESS = "service.kubernetes.io/headless"
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
SLICE_SIZE, MOST_ADDRESSES = 100, 1000
FINAL = ("Succeeded", "Failed")
Ports = tuple[tuple[str, int, str, str], ...]


class Member(Struct, frozen=True):
    """A pod behind a service. `ports` are name, number, protocol and application protocol of each port it serves."""

    pod: Document
    address: str
    ports: Ports
    ready: bool
    serving: bool
    terminating: bool


def selects(service: Document, pod: Document) -> bool:
    selector = (service.get("spec") or {}).get("selector") or {}
    labels = pod["metadata"].get("labels") or {}
    return bool(selector) and all(labels.get(key) == value for key, value in selector.items())


def members(service: Document, pods: Iterable[Document]) -> list[Member]:
    """In the order of their addresses."""
    found = [each for pod in pods if selects(service, pod) if (each := _member(service, pod)) is not None]
    return sorted(found, key=lambda each: [int(part) if part.isdigit() else 0 for part in each.address.split(".")])


def _member(service: Document, pod: Document) -> Member | None:
    status, spec = pod.get("status") or {}, service["spec"]
    address = status.get("podIP")
    if not address or status.get("phase") in FINAL:
        return None
    is_ready = conditions.is_true(status.get("conditions"), "Ready")
    leaving = bool(pod["metadata"].get("deletionTimestamp"))
    anyhow = bool(spec.get("publishNotReadyAddresses"))
    return Member(pod, address, _ports(spec, pod), anyhow or (is_ready and not leaving), is_ready, leaving)


def _ports(spec: Document, pod: Document) -> Ports:
    """A port whose target the pod has no name for is left out."""
    found = []
    for port in spec.get("ports") or ():
        protocol = port.get("protocol") or "TCP"
        number = _number(port.get("targetPort", port["port"]), protocol, pod)
        if number:
            found.append((port.get("name") or "", number, protocol, port.get("appProtocol") or ""))
    return tuple(found)


def _number(target: Any, protocol: str, pod: Document) -> int:
    if isinstance(target, int):
        return target
    for container in pod["spec"].get("containers") or ():
        for port in container.get("ports") or ():
            if port.get("name") == target and (port.get("protocol") or "TCP") == protocol:
                return int(port["containerPort"])
    return 0


def _shown_ports(ports: Ports) -> list[Document]:
    return [
        {
            "name": name, "port": number, "protocol": protocol, **({"appProtocol": application} if application else {})
        }
        for name, number, protocol, application in ports
    ]  # fmt: skip


def _by_ports(found: Iterable[Member]) -> list[tuple[Ports, list[Member]]]:
    groups: dict[Ports, list[Member]] = {}
    for member in found:
        groups.setdefault(member.ports, []).append(member)
    return sorted(groups.items())


def _reference(pod: Document) -> Document:
    metadata = pod["metadata"]
    return {
        "kind": "Pod", "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
    }  # fmt: skip


def _host(service: Document, pod: Document) -> Document:
    """The name of its own that a pod has below a headless service."""
    spec = pod["spec"]
    ours = spec.get("hostname") and spec.get("subdomain") == service["metadata"]["name"]
    return {"hostname": spec["hostname"]} if ours else {}


def _labels(service: Document, **more: str) -> Document:
    labels = {**(service["metadata"].get("labels") or {}), **more}
    if service["spec"].get("clusterIP") in ("None", None, ""):
        labels[HEADLESS] = ""
    return labels


def endpoints(service: Document, found: Iterable[Member]) -> Document:
    staying = [each for each in found if not each.terminating or each.ready]
    subsets = []
    for ports, group in _by_ports(staying[:MOST_ADDRESSES]):
        if not ports and service["spec"].get("ports"):
            continue
        subset: Document = {}
        for key, ready in (("addresses", True), ("notReadyAddresses", False)):
            addresses = [
                {"ip": m.address, **_host(service, m.pod), "nodeName": m.pod["spec"].get("nodeName"),
                 "targetRef": _reference(m.pod)}
                for m in group if m.ready is ready
            ]  # fmt: skip
            if addresses:
                subset[key] = addresses
        # The name of an unnamed port is left out, as clients expect.
        subset["ports"] = [{k: v for k, v in port.items() if v != ""} for port in _shown_ports(ports)]
        subsets.append({k: v for k, v in subset.items() if v})
    metadata = service["metadata"]
    made: Document = {
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {
            "name": metadata["name"], "namespace": metadata["namespace"],
            "labels": _labels(service, **{MANAGED_ENDPOINTS: ENDPOINTS_BY}),
        },
    }  # fmt: skip
    if len(staying) > MOST_ADDRESSES:
        made["metadata"]["annotations"] = {OVER_CAPACITY: "truncated"}
    return {**made, "subsets": subsets} if subsets else made


def slices(service: Document, found: Iterable[Member]) -> list[Document]:
    """At least one, empty when there are no pods."""
    parts = [
        (ports, group[at : at + SLICE_SIZE])
        for ports, group in _by_ports(found)
        for at in range(0, len(group), SLICE_SIZE)
    ]
    return [_slice(service, number, ports, part) for number, (ports, part) in enumerate(parts or [((), [])])]


def slice_name(service: Document, number: int) -> str:
    """Always the same, so that making it twice makes it once."""
    metadata = service["metadata"]
    mark = hashlib.sha256(f"{metadata['uid']}/{number}".encode()).hexdigest()[:5]
    return f"{metadata['name']}-{mark}"


def _slice(service: Document, number: int, ports: Ports, group: Iterable[Member]) -> Document:
    metadata = service["metadata"]
    return {
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": slice_name(service, number), "namespace": metadata["namespace"],
            "labels": _labels(service, **{SERVICE_NAME: metadata["name"], MANAGED_SLICE: SLICES_BY}),
            "ownerReferences": [owners.reference(SERVICES, service)],
        },
        "addressType": "IPv4",
        "endpoints": [_endpoint(service, member) for member in group],
        "ports": _shown_ports(ports),
    }  # fmt: skip


def _endpoint(service: Document, member: Member) -> Document:
    state = {"ready": member.ready, "serving": member.serving, "terminating": member.terminating}
    return {
        "addresses": [member.address], "conditions": state, **_host(service, member.pod),
        "nodeName": member.pod["spec"].get("nodeName"), "targetRef": _reference(member.pod),
    }  # fmt: skip
