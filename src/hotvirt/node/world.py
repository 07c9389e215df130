"""What the cluster's objects say about the pod network, as far as a node acts on it. Pure.

The parts that routing, filtering and names have in common: which pods there are, and where a service's ports lead.
"""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from msgspec import Struct

from hotvirt.kube.client import Document

SERVICE_NETWORK = IPv4Network("10.96.0.0/16")
"""Services' addresses come from here."""
DOMAIN = "cluster.local"
SERVICE_NAME = "kubernetes.io/service-name"
FINAL = ("Succeeded", "Failed")
CREATED_BY = "kubevirt.io/created-by"


class World(Struct, frozen=True, kw_only=True):
    """Objects of all namespaces, in the order of their names."""

    services: tuple[Document, ...] = ()
    slices: tuple[Document, ...] = ()
    policies: tuple[Document, ...] = ()
    pods: tuple[Document, ...] = ()
    namespaces: tuple[Document, ...] = ()
    instances: tuple[Document, ...] = ()


class ServicePort(Struct, frozen=True, kw_only=True):
    """One port of a service that has an address, and where it leads now: `targets` are addresses and port numbers."""

    service: str
    address: str
    protocol: str
    port: int
    node_port: int
    sticky: bool
    targets: tuple[tuple[str, int], ...]


def name_of(obj: Document) -> str:
    return f"{obj['metadata'].get('namespace') or ''}/{obj['metadata']['name']}"


def is_headless(service: Document) -> bool:
    return (service.get("spec") or {}).get("clusterIP") == "None"


def address_of(pod: Document) -> str:
    """Of a pod that has not ended; "" for none."""
    status = pod.get("status") or {}
    return "" if status.get("phase") in FINAL else str(status.get("podIP") or "")


def slices_by_service(world: World) -> dict[str, list[Document]]:
    found: dict[str, list[Document]] = {}
    for each in world.slices:
        metadata = each["metadata"]
        if (named := (metadata.get("labels") or {}).get(SERVICE_NAME)) and each.get("addressType", "IPv4") == "IPv4":
            found.setdefault(f"{metadata['namespace']}/{named}", []).append(each)
    return found


def served(endpoints: Iterable[Document]) -> Iterator[Document]:
    """Endpoints that take new connections: those that are ready."""
    for each in endpoints:
        if (each.get("conditions") or {}).get("ready") is not False and each.get("addresses"):
            yield each


def service_ports(world: World) -> list[ServicePort]:
    """Of services that have an address of their own."""
    slices, found = slices_by_service(world), []
    for service in world.services:
        spec = service.get("spec") or {}
        address = str(spec.get("clusterIP") or "")
        if spec.get("type") == "ExternalName" or not is_address(address):
            continue
        found += [
                ServicePort(
                    service=name_of(service), address=address, protocol=str(port.get("protocol") or "TCP").lower(),
                    port=int(port["port"]), node_port=int(port.get("nodePort") or 0),
                    sticky=spec.get("sessionAffinity") == "ClientIP",
                    targets=_targets(slices.get(name_of(service), ()), port),
                )
                for port in spec.get("ports") or ()
            ]  # fmt: skip
    return found


def _targets(slices: Iterable[Document], port: Document) -> tuple[tuple[str, int], ...]:
    """In the order of their addresses, so that the same endpoints make the same rules."""
    name, protocol = port.get("name") or "", port.get("protocol") or "TCP"
    found = set()
    for each in slices:
        for there in each.get("ports") or ():
            if (there.get("name") or "") == name and (there.get("protocol") or "TCP") == protocol and there.get("port"):
                found |= {
                    (address, int(there["port"]))
                    for endpoint in served(each.get("endpoints") or ())
                    for address in endpoint["addresses"]
                    if is_address(address)
                }
    return tuple(sorted(found, key=lambda target: (IPv4Address(target[0]), target[1])))


def is_address(text: Any) -> bool:
    try:
        IPv4Address(text)
    except ValueError:
        return False
    return True
