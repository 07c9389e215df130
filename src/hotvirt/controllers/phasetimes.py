"""How long instances take to reach their phases, counted as they change: `observe` is an informer's handler.

Kept apart from `metrics`, which is loaded only when somebody asks for metrics.
"""

from bisect import bisect_left
from datetime import datetime
from typing import Any

from msgspec import Struct

from hotvirt.kube.informer import Change
from hotvirt.kube.times import parse

Document = dict[str, Any]
BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 180, 300, 600)
"""Upper edges, seconds; what takes longer is in one more."""


class Counts(Struct):
    """`below[i]`: how many took up to BUCKETS[i] seconds, the last: all. `total` is the sum of the seconds."""

    below: list[int]
    total: float = 0.0

    def add(self, seconds: float) -> None:
        for index in range(bisect_left(BUCKETS, seconds), len(self.below)):
            self.below[index] += 1
        self.total += seconds


class PhaseTimes:
    """`from_creation` by phase; `between` by phase and the one before it."""

    def __init__(self) -> None:
        self.from_creation: dict[tuple[str, ...], Counts] = {}
        self.between: dict[tuple[str, ...], Counts] = {}

    def observe(self, change: Change) -> None:
        if change.new is None or change.relisted:
            return
        moments = _moments(change.new)
        fresh = moments.keys() - (_moments(change.old).keys() if change.old is not None else set())
        created = parse(change.new["metadata"].get("creationTimestamp"))
        if not fresh or created is None:
            return
        ordered = sorted(moments.items(), key=lambda each: each[1])
        for index, (phase, moment) in enumerate(ordered):
            if phase in fresh:
                _count(self.from_creation, (phase,), (moment - created).total_seconds())
                if index:
                    last, before = ordered[index - 1]
                    _count(self.between, (phase, last), (moment - before).total_seconds())


def _count(counted: dict[tuple[str, ...], Counts], labels: tuple[str, ...], seconds: float) -> None:
    counted.setdefault(labels, Counts([0] * (len(BUCKETS) + 1))).add(max(0.0, seconds))


def _moments(vmi: Document) -> dict[str, datetime]:
    entries = (vmi.get("status") or {}).get("phaseTransitionTimestamps") or ()
    found = {str(each.get("phase")): parse(each.get("phaseTransitionTimestamp")) for each in entries}
    return {phase: moment for phase, moment in found.items() if moment is not None}
