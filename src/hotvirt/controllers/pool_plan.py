"""What a VirtualMachinePool has to do: which machines come, change, restart and go. Pure.

    outdated machine       gets the pool's template (unless updates are unmanaged)
    its guest, then        follows live as far as it can; what is left needs a restart
    strategy proactive     restarts it, broken ones first, and others only while maxUnavailable holds

A machine's label `kubevirt.io/vm-pool-revision-name` says which state of the pool it was made from, its guest's label
from which the guest was; the states are kept as ControllerRevisions.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct

from hotvirt.api import labelselectors
from hotvirt.api.defaults import run_strategy
from hotvirt.api.validation_sets import seconds
from hotvirt.controllers import replicas
from hotvirt.controllers import spec as specs
from hotvirt.controllers.pool_objects import is_marked, number, revision_name, revision_of
from hotvirt.controllers.replicas import BURST
from hotvirt.kube import conditions
from hotvirt.kube.client import Document
from hotvirt.kube.times import parse

FAILING = (
    "CrashLoopBackOff", "ErrorUnschedulable", "DataVolumeError", "ErrorPvcNotFound", "ErrImagePull", "ImagePullBackOff",
)  # fmt: skip
"""Printable statuses of machines that cannot start."""
FAILURES, FAILING_SECONDS = 3, 300.0


class Seen(Struct, frozen=True):
    """`vms` are the pool's, by their number; `vmis` their own instances, by name; `revisions` the pool's spec as it
    was, by the revision's name."""

    pool: Document
    vms: tuple[Document, ...] = ()
    vmis: Mapping[str, Document] = {}
    revisions: Mapping[str, Document] = {}


class Scale(Struct, frozen=True):
    """`let_out`: machines that others deleted, and that wait for us. `wait`: seconds until a failing one is replaced.
    `more`: that was one burst of several."""

    create: int = 0
    delete: tuple[Document, ...] = ()
    let_out: tuple[Document, ...] = ()
    wait: float | None = None
    more: bool = False


class Update(Struct, frozen=True):
    """`write`: machines that get the template. `relabel`: guests that have it all, with their revision's name.
    `replace`: machines whose disks are to be others, which a restart does not bring about."""

    write: tuple[Document, ...] = ()
    restart: tuple[tuple[Document, Document], ...] = ()
    relabel: tuple[tuple[Document, str], ...] = ()
    replace: tuple[Document, ...] = ()


# How many


def scale(seen: Seen, now: datetime) -> Scale:
    pool = seen.pool
    living = [vm for vm in seen.vms if not specs.is_deleting(vm)]
    failing, wait = _failing(pool, living, now)
    if failing:
        return Scale(delete=tuple(failing[:BURST]), wait=wait, more=len(failing) > BURST)
    missing = replicas.wanted(pool) - len(seen.vms)
    if missing > 0:
        return Scale(create=min(BURST, missing), wait=wait, more=missing > BURST)
    leaving = tuple(vm for vm in seen.vms if specs.is_deleting(vm) and is_marked(vm))
    surplus = len(living) - replicas.wanted(pool)
    if surplus <= 0 or not _scales_in(pool):
        return Scale(let_out=leaving, wait=wait)
    policy = _policy(pool, "scaleInStrategy")
    chosen = selected(living, policy)[:surplus]
    return Scale(delete=tuple(chosen[:BURST]), let_out=leaving, wait=wait, more=len(chosen) > BURST)


def _scales_in(pool: Document) -> bool:
    strategy = pool["spec"].get("scaleInStrategy") or {}
    return strategy.get("unmanaged") is None and strategy.get("opportunistic") is None


def _failing(pool: Document, living: list[Document], now: datetime) -> tuple[list[Document], float | None]:
    """Machines that autohealing replaces, and seconds until another is due."""
    healing = pool["spec"].get("autohealing")
    if healing is None:
        return [], None
    threshold = int(healing.get("startUpFailureThreshold") or FAILURES)
    said = healing.get("minFailingToStartDuration")
    patience = FAILING_SECONDS if said is None else seconds(said)
    due: list[Document] = []
    waits: list[float] = []
    for vm in living:
        status = vm.get("status") or {}
        if int((status.get("startFailure") or {}).get("consecutiveFailCount") or 0) >= threshold:
            due.append(vm)
            continue
        ready = conditions.of(vm, "Ready") or {}
        since = parse(ready.get("lastTransitionTime"))
        if status.get("printableStatus") in FAILING and ready.get("status") == "False" and since is not None:
            left = patience - (now - since).total_seconds()
            if left <= 0:
                due.append(vm)
            else:
                waits.append(left)
    return due, min(waits, default=None)


# Which


def selected(vms: list[Document], policy: Document) -> list[Document]:
    """Those that the policy chooses, in its order. Random is by the machines' uids, so that a repeated decision picks
    the same ones."""
    selectors = policy.get("selectors") or {}
    found = [vm for vm in vms if _matches(vm, selectors)]
    match policy.get("sortPolicy"):
        case "AscendingOrder":
            return sorted(found, key=number)
        case "DescendingOrder":
            return sorted(found, key=number, reverse=True)
        case "Newest":
            return sorted(found, key=_age, reverse=True)
        case "Oldest":
            return sorted(found, key=_age)
    return sorted(found, key=lambda vm: hashlib.sha256(vm["metadata"]["uid"].encode()).digest())


def _matches(vm: Document, selectors: Document) -> bool:
    template = vm["spec"].get("template") or {}
    labels = {**((template.get("metadata") or {}).get("labels") or {}), **(vm["metadata"].get("labels") or {})}
    nodes = (template.get("spec") or {}).get("nodeSelector") or {}
    by_label = selectors.get("labelSelector")
    return (by_label is None or labelselectors.matches(by_label, labels)) and all(
        labelselectors.fits(each, nodes) for each in selectors.get("nodeSelectorRequirementMatcher") or ()
    )


def _policy(pool: Document, strategy: str) -> Document:
    return ((pool["spec"].get(strategy) or {}).get("proactive") or {}).get("selectionPolicy") or {}


def _age(vm: Document) -> tuple[str, int]:
    return str(vm["metadata"].get("creationTimestamp") or ""), number(vm)


def free_numbers(base: str, taken: set[str], count: int) -> list[int]:
    """The lowest numbers that make names nobody has."""
    found: list[int] = []
    at = 0
    while len(found) < count:
        if f"{base}-{at}" not in taken:
            found.append(at)
        at += 1
    return found


# Updates


def update(seen: Seen) -> Update:
    strategy = seen.pool["spec"].get("updateStrategy") or {}
    if strategy.get("unmanaged") is not None:
        return Update()
    living = [vm for vm in seen.vms if not specs.is_deleting(vm)]
    chosen = selected(living, _policy(seen.pool, "updateStrategy"))
    current = _current(seen)
    if outdated := [vm for vm in chosen if revision_of(vm) not in current]:
        return Update(write=tuple(outdated[:BURST]))
    due = [(vm, seen.vmis[vm["metadata"]["name"]]) for vm in chosen if vm["metadata"]["name"] in seen.vmis]
    due = [(vm, vmi) for vm, vmi in due if not specs.is_deleting(vmi) and revision_of(vm) != revision_of(vmi)]
    relabel = tuple((vmi, revision_of(vm)) for vm, vmi in due if _is_settled(vm) and not _is_labelled(seen, vm, vmi))
    if strategy.get("opportunistic") is not None:
        return Update(relabel=relabel)
    replace = [(vm, vmi) for vm, vmi in due if _has_other_disks(seen, vm, vmi)]
    restart = [(vm, vmi) for vm, vmi in due if (vm, vmi) not in replace and _needs_restart(seen, vm, vmi)]
    room = max_unavailable(seen.pool) - sum(_is_unavailable(seen, vm) for vm in living)
    going = _within([*replace, *restart], room)
    return Update(
        restart=tuple(pair for pair in going if pair in restart),
        relabel=relabel,
        replace=tuple(vm for vm, vmi in going if (vm, vmi) in replace),
    )


def _within(pairs: list[tuple[Document, Document]], room: int) -> list[tuple[Document, Document]]:
    """Broken ones lose nothing; of the others, as many as there is room for."""
    broken = [pair for pair in pairs if not replicas.is_ready(pair[1])]
    return broken + [pair for pair in pairs if pair not in broken][: max(0, room)]


def _current(seen: Seen) -> set[str]:
    """States of the pool with the template that it has now."""
    wanted = seen.pool["spec"].get("virtualMachineTemplate")
    return {name for name, spec in seen.revisions.items() if spec.get("virtualMachineTemplate") == wanted}


def _is_settled(vm: Document) -> bool:
    """The guest has all that its machine says."""
    status = vm.get("status") or {}
    return _is_seen(vm) and status.get("observedGeneration") == vm["metadata"].get("generation")


def _needs_restart(seen: Seen, vm: Document, vmi: Document) -> bool:
    """What is left of the update is not live."""
    waits = conditions.is_true((vm.get("status") or {}).get("conditions"), "RestartRequired")
    return _is_seen(vm) and (waits or (_is_settled(vm) and _is_labelled(seen, vm, vmi)))


def _is_labelled(seen: Seen, vm: Document, vmi: Document) -> bool:
    """The template gives guests other labels or annotations, which they have from their start on."""
    had, has = (seen.revisions.get(revision_of(each)) for each in (vmi, vm))
    return had is not None and has is not None and _metadata(had) != _metadata(has)


def _metadata(pool_spec: Document) -> Any:
    template = ((pool_spec.get("virtualMachineTemplate") or {}).get("spec") or {}).get("template") or {}
    return template.get("metadata") or {}


def _is_seen(vm: Document) -> bool:
    """Its controller has compared it with its guest since the update."""
    return bool((vm.get("status") or {}).get("desiredGeneration") == vm["metadata"].get("generation"))


def _has_other_disks(seen: Seen, vm: Document, vmi: Document) -> bool:
    had, has = (seen.revisions.get(revision_of(each)) for each in (vmi, vm))
    return had is not None and has is not None and _data_volumes(had) != _data_volumes(has)


def _data_volumes(pool_spec: Document) -> Any:
    return ((pool_spec.get("virtualMachineTemplate") or {}).get("spec") or {}).get("dataVolumeTemplates") or []


def _is_unavailable(seen: Seen, vm: Document) -> bool:
    """One that nobody wants to run is not missed."""
    vmi = seen.vmis.get(vm["metadata"]["name"])
    if vmi is None:
        return run_strategy(vm) not in ("Halted", "Manual")
    return specs.is_deleting(vmi) or not replicas.is_ready(vmi)


def max_unavailable(pool: Document) -> int:
    """A number of machines, at least one."""
    said = pool["spec"].get("maxUnavailable")
    if isinstance(said, int):
        return max(1, said)
    percent = int(str(said or "100%").removesuffix("%"))
    return max(1, replicas.wanted(pool) * percent // 100)


def restarts_by_request(vm: Document) -> bool:
    """Whether its instance, deleted, would not be made again by itself."""
    return run_strategy(vm) == "Manual"


def unused(seen: Seen) -> list[str]:
    """Revisions that no machine and no guest was made from."""
    used = {revision_of(each) for each in (*seen.vms, *seen.vmis.values())}
    return sorted(seen.revisions.keys() - used - {revision_name(seen.pool)})
