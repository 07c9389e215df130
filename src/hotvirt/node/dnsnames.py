"""What guests can look up, and the dnsmasq that tells them: services and pods by name, as Kubernetes' DNS has them.

A service with an address has that; a headless one those of its endpoints, and each endpoint that has a hostname its own
name below the service's. Beyond Kubernetes, a guest is found by its hostname below its namespace's pods. Only what a
hosts file can say is said: no SRV records, and no names for ExternalName. Pure.
"""

from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

from hotvirt.kube.client import Document
from hotvirt.node.world import DOMAIN, World, address_of, is_address, is_headless, name_of, served, slices_by_service


def hosts(world: World) -> str:
    """As a hosts file. Several addresses of a name are several lines."""
    found = {*_services(world), *_pods(world)}
    return "".join(f"{address} {name}\n" for address, name in sorted(found))


def searched(namespace: str) -> tuple[str, ...]:
    """Domains in which a guest looks up a name, first to last."""
    return (f"{namespace}.svc.{DOMAIN}", f"svc.{DOMAIN}", DOMAIN, f"{namespace}.pod.{DOMAIN}")


def argv(subnet: IPv4Network, names: Path) -> list[str]:
    """The dnsmasq of all guests, reading that hosts file. What it does not know it asks the host's name servers."""
    return [
        "dnsmasq", "--conf-file=/dev/null", "--bind-interfaces", "--except-interface=lo",
        f"--listen-address={subnet.network_address + 1}", "--no-hosts", f"--addn-hosts={names}", f"--local=/{DOMAIN}/",
    ]  # fmt: skip


def _services(world: World) -> Iterator[tuple[str, str]]:
    slices = slices_by_service(world)
    for service in world.services:
        metadata, spec = service["metadata"], service.get("spec") or {}
        name = f"{metadata['name']}.{metadata['namespace']}.svc.{DOMAIN}"
        if is_headless(service):
            for each in slices.get(name_of(service), ()):
                yield from _endpoints(each, name)
        elif is_address(spec.get("clusterIP")):
            yield spec["clusterIP"], name


def _endpoints(each: Document, name: str) -> Iterator[tuple[str, str]]:
    for endpoint in served(each.get("endpoints") or ()):
        for address in endpoint["addresses"]:
            if is_address(address):
                yield address, name
                if endpoint.get("hostname"):
                    yield address, f"{endpoint['hostname']}.{name}"


def _pods(world: World) -> Iterator[tuple[str, str]]:
    for pod in world.pods:
        if address := address_of(pod):
            below = f"{pod['metadata']['namespace']}.pod.{DOMAIN}"
            yield address, f"{address.replace('.', '-')}.{below}"
            if hostname := (pod.get("spec") or {}).get("hostname"):
                yield address, f"{hostname}.{below}"
