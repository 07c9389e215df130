"""Whether a VM's instance is to be started, stopped or left: KubeVirt's run strategies and start/stop requests. Pure.

    strategy         no instance                   instance ended             instance lives
    Always           start, after the back-off     stop (to start anew)       stop if asked to
    RerunOnFailure   start unless stopped by hand  stop if failed             stop if asked to
    Once             start                         leave                      leave
    Manual           start if asked to             stop if a start is asked   stop if asked to
    Halted           leave; on if asked to pause   stop                       stop
    WaitAsReceiver   leave                         leave                      leave

"Stop" deletes the instance; that it then is made again follows from the table's first column. "On" makes a halted
machine one that is kept running, as a start does: one that is to start paused is asked for by a request alone.
"""

from datetime import datetime
from typing import Any, Literal

from msgspec import Struct

from hotvirt.api.defaults import run_strategy
from hotvirt.controllers import spec as specs
from hotvirt.kube.client import Document
from hotvirt.kube.times import parse

Requests = list[Document]


class Step(Struct, frozen=True):
    """`wait`: seconds until a start that is due only then. `paused`: asked to start with its CPUs stopped."""

    action: Literal["start", "stop", "leave", "on"]
    wait: float | None = None
    paused: bool = False


LEAVE, STOP, START, ON = Step("leave"), Step("stop"), Step("start"), Step("on")


def decide(vm: Document, vmi: Document | None, *, failure: Document | None, now: datetime) -> Step:
    """`failure` is the VM's `startFailure` as it is now (see `crashloop`)."""
    strategy, requests = run_strategy(vm), requests_of(vm)
    if strategy == "WaitAsReceiver":
        return LEAVE
    if vmi is None:
        return _absent(strategy, requests, failure, now)
    if specs.is_deleting(vmi):
        return LEAVE
    if specs.is_final(vmi):
        return STOP if _is_replaced(strategy, specs.phase(vmi), requests) else LEAVE
    if strategy == "Halted":
        return STOP
    return STOP if strategy != "Once" and _stop_of(requests, vmi["metadata"]["uid"]) else LEAVE


def remaining(vm: Document, vmi: Document | None, *, started: bool) -> Requests:
    """The requests that have not been carried out."""
    strategy, requests = run_strategy(vm), requests_of(vm)
    if started or not requests:
        return []
    if strategy == "Halted":
        return [r for r in requests if r.get("action") == "Start" and _asks_paused(r)]
    if vmi is None:
        # What keeps a RerunOnFailure machine down after its stop is that the request stays.
        kept = ("Start", "Stop") if strategy == "RerunOnFailure" else ("Start",)
        return [r for r in requests if r.get("action") in kept]
    uid = vmi["metadata"]["uid"]
    stays = not (specs.is_final(vmi) or specs.is_deleting(vmi)) or strategy in ("Always", "Once")
    if stays and not _stop_of(requests, uid):
        return []  # a start is carried out, also one whose controller died before it could say so
    return [r for r in requests if r.get("action") == "Start" or r.get("uid") in (None, "", uid)]


def requests_of(vm: Document) -> Requests:
    return list((vm.get("status") or {}).get("stateChangeRequests") or ())


def _absent(strategy: str, requests: Requests, failure: Document | None, now: datetime) -> Step:
    start = next((r for r in requests if r.get("action") == "Start"), None)
    if strategy == "Halted" and start is not None and _asks_paused(start):
        return ON
    if start is not None and strategy != "Halted":
        return Step("start", paused=_asks_paused(start))
    if strategy in ("Halted", "Manual"):
        return LEAVE
    if strategy == "RerunOnFailure" and any(r.get("action") == "Stop" for r in requests):
        return LEAVE
    retry = parse((failure or {}).get("retryAfterTimestamp"))
    if retry is not None and retry > now:
        return Step("leave", wait=(retry - now).total_seconds())
    return START


def _is_replaced(strategy: str, phase: str, requests: Requests) -> bool:
    """An ended instance makes way: for the next one, or because nothing is to be there."""
    if strategy in ("Always", "Halted") or (strategy == "RerunOnFailure" and phase == "Failed"):
        return True
    return strategy != "Once" and any(r.get("action") == "Start" for r in requests)


def _stop_of(requests: Requests, uid: str) -> bool:
    return any(r.get("action") == "Stop" and r.get("uid") in (None, "", uid) for r in requests)


def _asks_paused(start: Document) -> bool:
    data: Any = start.get("data") or {}
    return str(data.get("paused")).lower() == "true"
