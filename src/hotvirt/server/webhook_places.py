"""Where a webhook that is named as a Service is reached: at its endpoints, for there is no proxy before them. Pure."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

Document = dict[str, Any]


class Unplaced(Exception):
    """The Service leads nowhere. The text says why."""


def place(
    reference: Document,
    find: Callable[[str, str, str], Document | None],
    slices: Callable[[str], Iterable[Document]],
) -> tuple[str, int]:
    """Host and port. `find(store, namespace, name)` gives an object, `slices(namespace)` all EndpointSlices there."""
    space, name, wanted = reference["namespace"], reference["name"], reference.get("port") or 443
    service = find("/services", space, name)
    if service is None:
        raise Unplaced(f'service "{name}" not found in namespace {space}')
    spec = service.get("spec") or {}
    if spec.get("type") == "ExternalName":
        return str(spec.get("externalName")), wanted
    port = next((each for each in spec.get("ports") or () if each.get("port") == wanted), None)
    if port is None:
        raise Unplaced(f'service "{name}" in namespace {space} has no port {wanted}')
    found = [
        *_endpoints(find("/endpoints", space, name) or {}, port.get("name")),
        *(at for each in slices(space) if _is_of(each, name) for at in _sliced(each, port.get("name"))),
    ]
    if found:
        return found[0]
    raise Unplaced(f'no endpoints available for service "{name}" in namespace {space}')


def _endpoints(endpoints: Document, port_name: str | None) -> Iterator[tuple[str, int]]:
    for subset in endpoints.get("subsets") or ():
        for port in subset.get("ports") or ():
            if (port.get("name") or "") == (port_name or ""):
                yield from ((address["ip"], port["port"]) for address in subset.get("addresses") or ())


def _is_of(slice_: Document, service: str) -> bool:
    return (slice_["metadata"].get("labels") or {}).get("kubernetes.io/service-name") == service


def _sliced(slice_: Document, port_name: str | None) -> Iterator[tuple[str, int]]:
    for port in slice_.get("ports") or ():
        if (port.get("name") or "") != (port_name or ""):
            continue
        for endpoint in slice_.get("endpoints") or ():
            if (endpoint.get("conditions") or {}).get("ready") is not False:
                yield from ((address, port["port"]) for address in endpoint.get("addresses") or ())
