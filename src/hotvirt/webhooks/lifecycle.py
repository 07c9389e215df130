"""What start, stop and restart mean for a VM in a given state: pure decisions, KubeVirt's rules.

Each takes the VM, its VMI (or None) and the verb's options, and returns the writes that carry the verb out, in order;
or raises the refusal. Nothing here waits: the controllers act on the changed objects. A grace period is changed last,
when the instance is asked to stop: one that was to go on would be cut off at some later stop, had the caller died in
between.
"""

from typing import Any, Literal

from msgspec import Struct

from hotvirt.api.defaults import run_strategy
from hotvirt.kube.client import Document
from hotvirt.kube.errors import ApiError, BadRequest, Conflict

ALWAYS_ON = ("Always", "Once")
FINAL_PHASES = ("Succeeded", "Failed")


class Write(Struct, frozen=True):
    """One merge patch: on the VM, on its /status, or on the VMI. VM patches carry the VM's resourceVersion, so that
    a decision made on a stale VM is refused rather than applied."""

    target: Literal["vm", "vm/status", "vmi"]
    patch: Document


def start(vm: Document, vmi: Document | None, options: Document) -> list[Write]:
    if is_live(vmi):
        raise _refusal(vm, "VM is already running")
    strategy = run_strategy(vm)
    if strategy in ALWAYS_ON:
        raise _refusal(vm, f"{strategy} does not support manual start requests; it is started by its run strategy")
    if options.get("paused"):
        # This start alone: the template is left as it is. A halted VM is switched on by the controller that carries it
        # out.
        return [_requests(vm, [{"action": "Start", "data": {"paused": "true"}}])]
    if strategy == "Halted":
        return [_vm_spec(vm, _switch(vm, on=True))]
    return [_requests(vm, [{"action": "Start"}])]


def stop(vm: Document, vmi: Document | None, options: Document) -> list[Write]:
    strategy = run_strategy(vm)
    grace = options.get("gracePeriod")
    if grace is not None and (not isinstance(grace, int) or grace < 0):
        raise BadRequest(f"gracePeriod {grace!r} is not a number of seconds from 0 up")
    shortened = [_grace(grace)] if grace is not None and vmi is not None and is_live(vmi) else []
    if strategy in ALWAYS_ON:
        return [_vm_spec(vm, _switch(vm, on=False)), *shortened]
    if vmi is None or not is_live(vmi):
        raise _refusal(vm, "VM is not running")
    if strategy == "Halted":
        if not shortened or grace >= _grace_of(vmi):  # type: ignore[operator]  # an int when shortened is set
            raise _refusal(
                vm, "Halted does not support manual stop requests; it is stopping already "
                "(a shorter --grace-period hastens it)",
            )  # fmt: skip
        return shortened
    return [_requests(vm, [_stop_request(vmi)]), *shortened]


def restart(vm: Document, vmi: Document | None, options: Document) -> list[Write]:
    strategy = run_strategy(vm)
    grace = options.get("gracePeriodSeconds")
    if grace not in (None, 0):
        raise BadRequest(f"gracePeriodSeconds is {grace!r}: for restart it may only be 0, which forces it")
    if strategy in ("Halted", "Once"):
        raise _refusal(vm, f"{strategy} does not support manual restart requests")
    if vmi is None:
        raise _refusal(vm, f"VM is not running; {_how_it_starts(vm)}")
    # One whose guest has ended by itself makes way for the next: its controller takes the same two requests so.
    forced = [_grace(0)] if grace == 0 and is_live(vmi) else []
    return [_requests(vm, [_stop_request(vmi), {"action": "Start"}]), *forced]


def _how_it_starts(vm: Document) -> str:
    if run_strategy(vm) not in ALWAYS_ON:
        return "start it instead"
    retry = ((vm.get("status") or {}).get("startFailure") or {}).get("retryAfterTimestamp")
    when = f" at {retry}" if retry else ""
    return f"it is started{when} by its run strategy; to try at once, stop it and start it"


def is_live(vmi: Document | None) -> bool:
    """There is an instance, and it has not come to its end."""
    return vmi is not None and (vmi.get("status") or {}).get("phase") not in FINAL_PHASES


def _switch(vm: Document, *, on: bool) -> Document:
    if "runStrategy" in vm["spec"]:
        return {"runStrategy": "Always" if on else "Halted"}
    return {"running": on}


def _vm_spec(vm: Document, spec: Document) -> Write:
    return Write("vm", {"metadata": _version(vm), "spec": spec})


def _requests(vm: Document, wanted: list[Document]) -> Write:
    """A new request takes the place of what has not been carried out yet, as the later word counts."""
    return Write("vm/status", {"metadata": _version(vm), "status": {"stateChangeRequests": wanted}})


def _version(vm: Document) -> Document:
    return {"resourceVersion": vm["metadata"]["resourceVersion"]}


def _stop_request(vmi: Document) -> Document:
    return {"action": "Stop", "uid": vmi["metadata"]["uid"]}


def _grace(seconds: int | None) -> Write:
    return Write("vmi", {"spec": {"terminationGracePeriodSeconds": seconds}})


def _grace_of(vmi: Document) -> int:
    value: Any = vmi["spec"].get("terminationGracePeriodSeconds")
    return 30 if value is None else int(value)


def _refusal(vm: Document, why: str) -> ApiError:
    name = vm["metadata"]["name"]
    return Conflict(
        f'Operation cannot be fulfilled on virtualmachine.kubevirt.io "{name}": {why}',
        group="kubevirt.io", kind="virtualmachine", name=name,
    )  # fmt: skip
