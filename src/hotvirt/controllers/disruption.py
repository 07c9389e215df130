"""PodDisruptionBudgets -> their status: how many of their pods may be away now. A cluster has a controller of its own.

A pod's owner is one virtual machine, so the pods that there are are the pods that there should be: a share in per cent
is one of them. Pods that have ended count for nothing. The API takes evictions off `disruptionsAllowed` and notes the
pods in `disruptedPods`; a note falls once its pod is on its way, or after two minutes in which it was not.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct

from hotvirt.api import labelselectors
from hotvirt.kube import conditions, statuses
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import NotFound
from hotvirt.kube.informer import Key, SharedInformers, key_of
from hotvirt.kube.reconciler import DONE, Controller, Result
from hotvirt.kube.resources import DISRUPTION_BUDGETS, PODS
from hotvirt.kube.times import Clock, parse

NOTED = timedelta(minutes=2)
FINAL = ("Succeeded", "Failed")
CONDITION = "DisruptionAllowed"


class Verdict(Struct, frozen=True):
    """`again`: seconds after which a note falls without anybody telling."""

    status: Document
    again: float | None


def matches(budget: Document, pod: Document) -> bool:
    """A budget without a selector is about no pod, one with an empty selector about all."""
    return labelselectors.matches((budget.get("spec") or {}).get("selector"), pod["metadata"].get("labels"))


def judge(budget: Document, pods: Iterable[Document], now: datetime) -> Verdict:
    """`pods` are those of its namespace. Pure."""
    spec, before = budget.get("spec") or {}, budget.get("status") or {}
    found = {
        pod["metadata"]["name"]: pod
        for pod in pods
        if matches(budget, pod) and (pod.get("status") or {}).get("phase") not in FINAL
    }
    noted = _noted(before.get("disruptedPods") or {}, found, now)
    healthy = sum(
        conditions.is_true((pod.get("status") or {}).get("conditions"), "Ready")
        and not pod["metadata"].get("deletionTimestamp")
        and name not in noted
        for name, pod in found.items()
    )
    expected = len(found)
    desired = wanted(spec, expected)
    allowed = max(0, healthy - desired) if expected else 0
    status: Document = {
        "observedGeneration": budget["metadata"].get("generation", 1),
        "expectedPods": expected, "desiredHealthy": desired, "currentHealthy": healthy, "disruptionsAllowed": allowed,
        "conditions": _conditions(before.get("conditions"), allowed, budget["metadata"].get("generation", 1), now),
    }  # fmt: skip
    if noted:
        status["disruptedPods"] = noted
    ages = [(parse(at) or now) + NOTED - now for at in noted.values()]
    return Verdict(status, min(age.total_seconds() for age in ages) if ages else None)


def wanted(spec: Document, expected: int) -> int:
    """How many must be healthy. Pure."""
    if (least := spec.get("minAvailable")) is not None:
        return _share(least, expected)
    if (most := spec.get("maxUnavailable")) is not None:
        return max(0, expected - _share(most, expected))
    return 0


def _share(value: Any, of: int) -> int:
    """A number, or per cent rounded up."""
    text = str(value)
    return -(-of * int(text[:-1]) // 100) if text.endswith("%") else int(text)


def _noted(notes: Document, found: Document, now: datetime) -> Document:
    kept = {}
    for name, at in notes.items():
        pod, noted = found.get(name), parse(at)
        if pod is not None and not pod["metadata"].get("deletionTimestamp") and noted and now - noted < NOTED:
            kept[name] = at
    return kept


def _conditions(before: Any, allowed: int, generation: int, now: datetime) -> list[Document]:
    reason = "SufficientPods" if allowed else "InsufficientPods"
    made = conditions.put(before, CONDITION, bool(allowed), now=now, reason=reason)
    return [
        {**{k: v for k, v in each.items() if k != "lastProbeTime"}, "observedGeneration": generation}
        if each["type"] == CONDITION
        else each
        for each in made
    ]


class DisruptionController:
    def __init__(self, client: Client, informers: SharedInformers, *, clock: Clock, **_: Any) -> None:
        self._client, self._clock = client, clock
        self._budgets, self._pods = informers.of(DISRUPTION_BUDGETS), informers.of(PODS)
        self.controller = Controller("disruption", self.reconcile)
        self.controller.watch(self._budgets)
        self.controller.watch(self._pods, self._about)

    async def reconcile(self, key: Key) -> Result:
        budget = self._budgets.get(key.name, key.namespace)
        if budget is None:
            return DONE
        verdict = judge(budget, self._pods.list(key.namespace), self._clock())
        before = budget.get("status") or {}
        if {**verdict.status, "disruptedPods": verdict.status.get("disruptedPods") or {}} != {
            **before, "disruptedPods": before.get("disruptedPods") or {},
        }:  # fmt: skip
            dropped = dict.fromkeys(before.get("disruptedPods") or {})
            status = {**verdict.status, "disruptedPods": {**dropped, **verdict.status.get("disruptedPods", {})}}
            try:
                await statuses.write(self._client, self._budgets, budget, status)
            except NotFound:
                return DONE
        return Result(requeue_after=verdict.again) if verdict.again is not None else DONE

    def _about(self, pod: Document) -> list[Key]:
        return [key_of(each) for each in self._budgets.list(pod["metadata"]["namespace"]) if matches(each, pod)]
