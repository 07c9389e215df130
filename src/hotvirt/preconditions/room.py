"""How much of a node is taken and left, by what its pods request. Pure.

Here, below the controllers, because whoever asks whether a change is possible counts as those do who grant it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

from hotvirt.api.quantity import parse_bytes, parse_cpu

Document = dict[str, Any]
FINAL = ("Succeeded", "Failed")


HUGE = ("hugepages-2Mi", "hugepages-1Gi")
"""Memory that a node has set aside in large pages: counted apart from the rest."""


DEDICATES = "cpumanager"
"""KubeVirt's label of nodes that give CPUs to one pod alone, and what pods select that need such ones."""
SHARED_CPUS = 1
"""Of a node's, those that stay for the home and all other machines."""


class Demand(Struct, frozen=True):
    """`cpu` in thousandths, `memory` in bytes, as is what is in huge pages: of each size in HUGE. `dedicated`: CPUs
    that nobody else is to have."""

    cpu: int = 0
    memory: int = 0
    huge: tuple[int, ...] = (0, 0)
    dedicated: int = 0

    def __add__(self, other: "Demand") -> "Demand":
        huge = tuple(one + more for one, more in zip(self.huge, other.huge, strict=True))
        return Demand(self.cpu + other.cpu, self.memory + other.memory, huge, self.dedicated + other.dedicated)

    def __sub__(self, other: "Demand") -> "Demand":
        huge = tuple(one - less for one, less in zip(self.huge, other.huge, strict=True))
        return Demand(self.cpu - other.cpu, self.memory - other.memory, huge, self.dedicated - other.dedicated)


def demand(pod: Document) -> Demand:
    """What the pod's containers request together."""
    total = Demand()
    for container in (pod.get("spec") or {}).get("containers") or ():
        total += requested(container.get("resources") or {})
    if ((pod.get("spec") or {}).get("nodeSelector") or {}).get(DEDICATES) == "true":
        total += Demand(dedicated=total.cpu // 1000)
    return total


def requested(resources: Document) -> Demand:
    return _read(resources.get("requests") or {})


def _read(amounts: Mapping[str, Any]) -> Demand:
    huge = tuple(parse_bytes(amounts.get(size) or 0) for size in HUGE)
    return Demand(parse_cpu(amounts.get("cpu") or 0), parse_bytes(amounts.get("memory") or 0), huge)


def used(pods: Iterable[Document], bound: Mapping[str, str] | None = None) -> dict[str, Demand]:
    """What pods hold on each node. `bound`: nodes, by pod uid, of those that do not show theirs yet."""
    found: dict[str, Demand] = {}
    for pod in pods:
        node = pod["spec"].get("nodeName") or (bound or {}).get(pod["metadata"]["uid"])
        if node and not is_over(pod):
            found[node] = found.get(node, Demand()) + demand(pod)
    return found


def free(node: Document, taken: Demand) -> Demand:
    return allocatable(node) - taken


def allocatable(node: Document) -> Demand:
    has = _read((node.get("status") or {}).get("allocatable") or {})
    return has + Demand(dedicated=max(0, has.cpu // 1000 - SHARED_CPUS))


def is_over(pod: Document) -> bool:
    return (pod.get("status") or {}).get("phase") in FINAL
