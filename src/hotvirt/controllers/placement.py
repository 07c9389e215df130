"""Which node a pod fits on, whether it may grow there, or in numbers why not. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from hotvirt.api import labelselectors
from hotvirt.api.quantity import parse_bytes
from hotvirt.kube import conditions
from hotvirt.kube.client import Document
from hotvirt.kube.informer import Change
from hotvirt.preconditions.room import (
    DEDICATES,
    FINAL,
    HUGE,
    Demand,
    allocatable,
    demand,
    free,
    is_over,
    requested,
    used,
)

__all__ = (
    "FINAL", "Demand", "Unfit", "demand", "free", "frees_room", "node_changed", "place", "requested", "shortage",
    "size", "used",
)  # fmt: skip

LAUNCHER = ("kubevirt.io", "virt-launcher")


class Unfit(Struct, frozen=True):
    """No node: the message names each node's reason and the mend."""

    message: str


def frees_room(change: Change) -> bool:
    """A pod went, ended or shrank."""
    if change.old is None or not change.old["spec"].get("nodeName"):
        return False
    if change.new is None:
        return True
    less = demand(change.old) - demand(change.new)
    return less.memory > 0 or less.cpu > 0 or any(less.huge) or (is_over(change.new) and not is_over(change.old))


def node_changed(change: Change) -> bool:
    """A node is new, or differs by more than a heartbeat."""
    if change.old is None or change.new is None:
        return change.new is not None
    return _shape(change.old) != _shape(change.new)


def _shape(node: Document) -> tuple[object, ...]:
    ready = (conditions.of(node, "Ready") or {}).get("status")
    allocatable = (node.get("status") or {}).get("allocatable")
    return node["metadata"].get("labels"), node.get("spec"), allocatable, ready


def shortage(more: Demand, left: Demand) -> str:
    """Why a machine cannot have so much more on its node; "" when it can."""
    if more.memory > 0 and more.memory > left.memory:
        return f"its node has {size(max(0, left.memory))} of memory free, and {size(more.memory)} more are asked for"
    if more.cpu > 0 and more.cpu > left.cpu:
        return f"its node has {max(0, left.cpu) / 1000:g} CPUs free, and {more.cpu / 1000:g} more are asked for"
    return ""


def place(pod: Document, nodes: Sequence[Document], used: Mapping[str, Demand]) -> str | Unfit:
    """The name of the node with the most memory left of those where the pod fits."""
    if not nodes:
        return Unfit("0/0 nodes can run it: no node is registered; is the node agent running?")
    if unsupported := _unsupported(pod):
        return Unfit(unsupported)
    wanted = demand(pod)
    fitting: list[tuple[int, str]] = []
    reasons: list[str] = []
    for node in nodes:
        name = node["metadata"]["name"]
        taken = used.get(name, Demand())
        if reason := _reason_against(pod, wanted, node=node, taken=taken):
            reasons.append(f"{name}: {reason}")
        else:
            fitting.append((allocatable(node).memory - taken.memory, name))
    if fitting:
        return max(fitting)[1]
    return Unfit(f"0/{len(nodes)} nodes can run it: {'; '.join(sorted(reasons))}")


def _reason_against(pod: Document, wanted: Demand, *, node: Document, taken: Demand) -> str:
    """Why this node will not do; "" when it will."""
    name, spec = node["metadata"]["name"], node.get("spec") or {}
    ready = conditions.of(node, "Ready")
    if ready is not None and ready.get("status") != "True":
        return f"it is not ready ({ready.get('message') or ready.get('reason') or 'no reason given'})"
    if spec.get("unschedulable"):
        return f"it takes no new pods (allow it with: kubectl uncordon {name})"
    for check in (_selector_reason, _affinity_reason, _taint_reason):
        if reason := check(pod, node):
            return reason
    return _room_reason(pod, wanted, allocatable(node), taken)


def _room_reason(pod: Document, wanted: Demand, has: Demand, taken: Demand) -> str:
    guest = (pod["metadata"].get("labels") or {}).get(LAUNCHER[0]) == LAUNCHER[1]
    if taken.memory + wanted.memory > has.memory:
        free = max(0, has.memory - taken.memory)
        asked = f"{size(wanted.memory)} of memory asked for{' (guest and QEMU)' if guest else ''}"
        field = "spec.template.spec.domain.memory.guest" if guest else "its memory requests"
        return f"{asked}, {size(free)} of {size(has.memory)} free; lower {field} or stop another machine"
    if wanted.dedicated and taken.dedicated + wanted.dedicated > has.dedicated:
        left = f"{max(0, has.dedicated - taken.dedicated)} of {has.dedicated} free (one stays for all others)"
        return (
            f"{wanted.dedicated} CPUs of its own asked for, {left}; lower spec.template.spec.domain.cpu.sockets, "
            "stop another machine with dedicatedCpuPlacement, or remove that"
        )
    if taken.cpu + wanted.cpu > has.cpu:
        free = max(0, has.cpu - taken.cpu)
        asked = f"{wanted.cpu / 1000:g} CPUs asked for"
        field = "spec.template.spec.domain.cpu.sockets" if guest else "its CPU requests"
        return f"{asked}, {free / 1000:g} of {has.cpu / 1000:g} free; lower {field} or stop another machine"
    return _pages_reason(wanted, has, taken)


def _pages_reason(wanted: Demand, has: Demand, taken: Demand) -> str:
    for size_, asked, there, used_ in zip(HUGE, wanted.huge, has.huge, taken.huge, strict=True):
        if asked and used_ + asked > there:
            count = -(-(used_ + asked) // parse_bytes(size_.removeprefix("hugepages-")))
            mend = f"sysctl vm.nr_hugepages={count}" if size_ == HUGE[0] else "boot it with hugepagesz=1G hugepages=N"
            free = f"{size(max(0, there - used_))} of {size(there)} free"
            other = "or remove spec.template.spec.domain.memory.hugepages"
            return f"{size(asked)} of {size_} asked for, {free}; make more on that machine ({mend}), {other}"
    return ""


def _selector_reason(pod: Document, node: Document) -> str:
    labels = node["metadata"].get("labels") or {}
    lacking = [f"{k}={v}" for k, v in (pod["spec"].get("nodeSelector") or {}).items() if labels.get(k) != v]
    if not lacking:
        return ""
    mend = f"kubectl label node {node['metadata']['name']} {lacking[0]}"
    if lacking[0] == f"{DEDICATES}=true":
        mend = (
            "it has no CPU to spare for one machine alone: remove spec.template.spec.domain.cpu.dedicatedCpuPlacement"
        )
    if lacking[0].startswith("kubevirt.io/schedulable="):
        mend = "its node agent sets it once it can run guests"
    return f"it lacks the label {', '.join(lacking)} ({mend})"


def _taint_reason(pod: Document, node: Document) -> str:
    tolerations = pod["spec"].get("tolerations") or ()
    for taint in (node.get("spec") or {}).get("taints") or ():
        if taint.get("effect") in ("NoSchedule", "NoExecute") and not any(_tolerates(t, taint) for t in tolerations):
            shown = f"{taint.get('key')}={taint.get('value') or ''}:{taint['effect']}"
            return f"it has the taint {shown}, which spec.template.spec.tolerations does not allow for"
    return ""


def _tolerates(toleration: Document, taint: Document) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if not toleration.get("key"):
        return toleration.get("operator") == "Exists"
    if toleration["key"] != taint.get("key"):
        return False
    return toleration.get("operator") == "Exists" or (toleration.get("value") or "") == (taint.get("value") or "")


def _affinity_reason(pod: Document, node: Document) -> str:
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    terms = required.get("nodeSelectorTerms") or ()
    if not terms or any(_term_fits(term, node) for term in terms):
        return ""
    return "its labels do not fit spec.template.spec.affinity.nodeAffinity"


def _term_fits(term: Document, node: Document) -> bool:
    labels = node["metadata"].get("labels") or {}
    fields = {"metadata.name": node["metadata"]["name"]}
    by_label, by_field = term.get("matchExpressions") or (), term.get("matchFields") or ()
    return bool(by_label or by_field) and all(
        labelselectors.fits(expression, known)
        for expressions, known in ((by_label, labels), (by_field, fields))
        for expression in expressions
    )


def _unsupported(pod: Document) -> str:
    affinity = pod["spec"].get("affinity") or {}
    for kind in ("podAffinity", "podAntiAffinity"):
        if (affinity.get(kind) or {}).get("requiredDuringSchedulingIgnoredDuringExecution"):
            return f"spec.template.spec.affinity.{kind} is not understood by the scheduler of a home; remove it"
    if any(c.get("whenUnsatisfiable", "DoNotSchedule") == "DoNotSchedule" for c in _spreads(pod)):
        return (
            "spec.template.spec.topologySpreadConstraints is not understood by the scheduler of a home; "
            "remove it, or set whenUnsatisfiable: ScheduleAnyway"
        )
    return ""


def _spreads(pod: Document) -> Iterable[Document]:
    return pod["spec"].get("topologySpreadConstraints") or ()


def size(amount: int) -> str:
    """For a person."""
    return f"{amount / (1 << 30):.1f}Gi"
