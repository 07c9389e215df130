"""What a pod asks for in all: of its containers together, or of one that runs before them if that is more. Pure."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Literal

from hotvirt.server import quantities

Document = dict[str, Any]
Amounts = dict[str, Decimal]
Word = Literal["requests", "limits"]


def total(spec: Document, word: Word) -> Amounts:
    """By resource. Init containers run one after another, but those that restart always (sidecars) stay."""
    found, largest = _sum(spec.get("containers") or (), word), Amounts()
    sidecars = Amounts()
    for container in spec.get("initContainers") or ():
        own = _sum([container], word)
        if container.get("restartPolicy") == "Always":
            sidecars = added(sidecars, own)
            own = sidecars
        else:
            own = added(own, sidecars)
        largest = {name: max(largest.get(name, Decimal(0)), own.get(name, Decimal(0))) for name in largest | own}
    found = added(found, sidecars)
    found = {name: max(found.get(name, Decimal(0)), largest.get(name, Decimal(0))) for name in found | largest}
    overhead = {name: quantities.amount(value) for name, value in (spec.get("overhead") or {}).items()}
    if word == "limits":  # overhead bounds nothing that is unbounded
        overhead = {name: value for name, value in overhead.items() if name in found}
    return added(found, overhead)


def added(one: Mapping[str, Decimal], other: Mapping[str, Decimal]) -> Amounts:
    return {name: one.get(name, Decimal(0)) + other.get(name, Decimal(0)) for name in one | other}  # type: ignore[operator]


def _sum(containers: Iterable[Document], word: Word) -> Amounts:
    found: Amounts = {}
    for container in containers:
        asked = (container.get("resources") or {}).get(word) or {}
        found = added(found, {name: quantities.amount(value) for name, value in asked.items()})
    return found
