"""How long a machine that keeps failing waits before its next start: `status.startFailure`. Pure.

An instance counts as failed early when it never came to Running, or lived for less than `STABLE` seconds after it. The
n-th such failure in a row waits 10 n² seconds and up to half as long again at random, five minutes at most. One that
ran and lost its pod (it was deleted, or evicted by force) did not fail.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from hotvirt.api.defaults import run_strategy
from hotvirt.controllers import spec as specs
from hotvirt.kube import conditions
from hotvirt.kube.client import Document
from hotvirt.kube.times import stamp

STABLE = 30.0
LONGEST = 300.0


def update(vm: Document, vmi: Document | None, *, now: datetime, draw: Callable[[], float]) -> Document | None:
    """The VM's `startFailure` as it should be now."""
    known: Document | None = (vm.get("status") or {}).get("startFailure")
    if run_strategy(vm) in ("Halted", "Manual", "WaitAsReceiver"):
        return None
    if vmi is None:
        return known
    phase, uid = specs.phase(vmi), vmi["metadata"]["uid"]
    if phase == "Failed":
        if known is not None and known.get("lastFailedVMIUID") == uid:
            return known
        if _lost_its_pod(vmi):
            return known
        return _counted(known, uid, now=now, draw=draw) if _failed_early(vmi, now) else None
    return None if phase == "Succeeded" or _age(vmi, now) >= STABLE else known


def settles_in(failure: Document | None, vmi: Document | None, now: datetime) -> float | None:
    """Seconds until a running instance counts as stable, when that would end a series of failures."""
    if failure is None or vmi is None or specs.phase(vmi) != "Running":
        return None
    return max(0.0, STABLE - _age(vmi, now))


def _counted(known: Document | None, uid: str, *, now: datetime, draw: Callable[[], float]) -> Document:
    count = int((known or {}).get("consecutiveFailCount") or 0) + 1
    seconds = min(LONGEST, 10.0 * count * count * (1 + draw() / 2))
    return {
        "consecutiveFailCount": count,
        "lastFailedVMIUID": uid,
        "retryAfterTimestamp": stamp(now + timedelta(seconds=seconds)),
    }


def _failed_early(vmi: Document, now: datetime) -> bool:
    ran = specs.reached(vmi, "Running")
    return ran is None or ((specs.reached(vmi, "Failed") or now) - ran).total_seconds() < STABLE


def _lost_its_pod(vmi: Document) -> bool:
    ready = conditions.of(vmi, "Ready") or {}
    return specs.reached(vmi, "Running") is not None and ready.get("reason") in ("PodNotExists", "PodTerminating")


def _age(vmi: Document, now: datetime) -> float:
    """Seconds since the instance came to Running; 0 before."""
    ran = specs.reached(vmi, "Running")
    return (now - ran).total_seconds() if ran is not None else 0.0
