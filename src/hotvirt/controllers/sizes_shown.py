"""A running VM's size as it was asked for and as the guest has it, told as conditions of the VM. Pure.

KubeVirt's VM status has no field for either, and a printer column is one JSONPath: so `MemoryAsAsked` and `CPUAsAsked`
have "asked/actual" for their message, and `ResizePending`, there only while they differ, has the reason. They are part
of the status that is written anyway, go when the guest does, and `kubectl wait` can wait for them. What they come to
is told in events too (`story`), so that `kubectl describe vm` has all of it in order.
"""

from collections.abc import Iterator
from datetime import datetime

from hotvirt.api.quantity import QuantityError, format_bytes, parse_bytes
from hotvirt.controllers import spec as specs
from hotvirt.controllers.liveupdate import Refusal, Update
from hotvirt.controllers.templatediff import diff
from hotvirt.kube import conditions
from hotvirt.kube.client import Document
from hotvirt.kube.events import EventKind

MEMORY, CPU, PENDING = "MemoryAsAsked", "CPUAsAsked", "ResizePending"
TYPES = (MEMORY, CPU, PENDING)
ON_ITS_WAY = "on its way"
MOST = 8


def put(
    found: list[Document], vm: Document, vmi: Document | None, update: Update | None, *, now: datetime
) -> list[Document]:
    """With the three conditions as they should be."""
    if vmi is None or specs.phase(vmi) != "Running":
        return conditions.remove(found, *TYPES)
    waits: list[str] = []
    for kind, asked, has, reason in (_memory(vm, vmi, update), _cpus(vm, vmi, update)):
        if not asked or not has:
            found = conditions.remove(found, kind)
            continue
        fits = asked == has
        found = conditions.put(
            found, kind, fits, now=now, reason="AsAsked" if fits else "Differs", message=f"{asked}/{has}"
        )
        if not fits:
            waits.append(reason)
    if not waits:
        return conditions.remove(found, PENDING)
    return conditions.put(found, PENDING, True, now=now, reason="Differs", message="; ".join(waits))


def changes(before: Document, after: Document) -> str:
    """What the running instance is told to become, in one line; "" for nothing."""
    found = [str(each) for each in diff(before, after)]
    return "; ".join(found[:MOST]) + (f"; and {len(found) - MOST} more" if len(found) > MOST else "")


def story(vm: Document, status: Document) -> Iterator[tuple[EventKind, str, str]]:
    """Events for what a new status says and the old one does not: a change that came about, one that is stuck, an edit
    that needs no restart any more."""
    if (new := status.get("conditions")) is None:
        return
    old = (vm.get("status") or {}).get("conditions")
    pending, was = conditions.get(new, PENDING), conditions.get(old, PENDING)
    sizes = [(conditions.get(new, kind) or {}).get("message", "").partition("/")[2] for kind in (MEMORY, CPU)]
    if was is not None and pending is None and all(sizes):
        yield "Normal", "Resized", f"The guest has what was asked: {sizes[0]} of memory, {sizes[1]} CPUs"
    for kind in ("HotMemoryChange", "HotVCPUChange"):
        now, before = conditions.get(new, kind) or {}, conditions.get(old, kind) or {}
        if now.get("status") == "False" and before.get("status") != "False":
            yield "Warning", str(now.get("reason") or kind), f"The guest did not follow: {now.get('message') or kind}"
    if conditions.get(old, "RestartRequired") and not conditions.get(new, "RestartRequired") and all(sizes):
        yield "Normal", "RestartNotRequired", "No edit waits for a restart any more"


def _memory(vm: Document, vmi: Document, update: Update | None) -> tuple[str, str, str, str]:
    size = specs.guest_memory(specs.template_spec(vm))
    current = ((vmi.get("status") or {}).get("memory") or {}).get("guestCurrent")
    try:
        has = "" if current is None else format_bytes(parse_bytes(current))
    except QuantityError:
        has = ""
    return MEMORY, "" if size is None else format_bytes(size), has, _why(vmi, update, "memory", "HotMemoryChange")


def _cpus(vm: Document, vmi: Document, update: Update | None) -> tuple[str, str, str, str]:
    topology = (vmi.get("status") or {}).get("currentCPUTopology") or {}
    count = 1
    for part in ("sockets", "cores", "threads"):
        count *= int(topology.get(part) or 1)
    has = str(count) if topology else ""
    return CPU, str(specs.vcpus(specs.template_spec(vm))), has, _why(vmi, update, "cpu", "HotVCPUChange")


def _why(vmi: Document, update: Update | None, what: str, kind: str) -> str:
    """The first that is known: it takes a restart, it waits for room, or what the node says of the change."""
    if update is not None and (refusal := _about(update.refusals, what)) is not None:
        return f"{what} needs a restart: {refusal.why}"
    if update is not None and (refusal := _about(update.held, what)) is not None:
        return f"{what}: {refusal.why}"
    found = conditions.of(vmi, kind) or {}
    return f"{what}: {found.get('message') or ON_ITS_WAY}"


def _about(refusals: tuple[Refusal, ...], what: str) -> Refusal | None:
    return next((each for each in refusals if f".{what}" in each.field), None)
