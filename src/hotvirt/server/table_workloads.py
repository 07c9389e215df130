"""Columns of the kinds that make pods or lead to them: Deployments and the like, Jobs, Ingresses. Pure."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from hotvirt.server.table_cells import NONE, Doc, at, column, columns, field, pairs
from hotvirt.server.tables import AGE, Column, Columns, age_of, human_duration

_OPERATORS = {"In": "in", "NotIn": "notin"}


def _number(doc: Doc, *path: str, empty: int = 0) -> int:
    value = at(doc, *path)
    return empty if value is None else int(value)


def _replicas(name: str, *path: str, empty: int = 0) -> Column:
    return column(name, lambda doc: _number(doc, *path, empty=empty), f"From {'.'.join(path)}.", kind="integer")


def _ready(doc: Doc) -> str:
    return f"{_number(doc, 'status', 'readyReplicas')}/{_number(doc, 'spec', 'replicas', empty=1)}"


def _containers(key: str, *template: str) -> Callable[[Doc], str]:
    return lambda doc: ",".join(str(each.get(key) or "") for each in at(doc, *template, "spec", "containers") or ())


def _wide(*template: str) -> tuple[Column, Column]:
    return (
        column("Containers", _containers("name", *template), "Names of its pods' containers.", wide=True),
        column("Images", _containers("image", *template), "Images of its pods' containers.", wide=True),
    )


def _chosen(*path: str) -> Callable[[Doc], str]:
    """A label selector, as one would write it on a command line."""

    def read(doc: Doc) -> str:
        selector = at(doc, *path) or {}
        labels = selector.get("matchLabels") or {}
        terms = [f"{key}={value}" for key, value in sorted(labels.items())]
        for term in selector.get("matchExpressions") or ():
            key, operator = term.get("key"), term.get("operator")
            if operator in _OPERATORS:
                terms.append(f"{key} {_OPERATORS[operator]} ({','.join(sorted(term.get('values') or ()))})")
            else:
                terms.append(f"!{key}" if operator == "DoesNotExist" else str(key))
        return ",".join(terms) or NONE

    return read


_TEMPLATE = _wide("spec", "template")
_SELECTOR = column("Selector", _chosen("spec", "selector"), "Labels of its pods.", wide=True)
_READY = column("Ready", _ready, "Pods that are ready, of those wanted.")
_SETS = (
    _replicas("Desired", "spec", "replicas", empty=1),
    _replicas("Current", "status", "replicas"),
    _replicas("Ready", "status", "readyReplicas"),
    AGE,
    *_TEMPLATE,
)


# --- jobs


def _job_status(doc: Doc) -> str:
    true = {c.get("type") for c in at(doc, "status", "conditions") or () if c.get("status") == "True"}
    for ended in ("Complete", "Failed"):
        if ended in true:
            return ended
    if at(doc, "metadata", "deletionTimestamp"):
        return "Terminating"
    return next((each for each in ("Suspended", "FailureTarget", "SuccessCriteriaMet") if each in true), "Running")


def _completions(doc: Doc) -> str:
    done, wanted = _number(doc, "status", "succeeded"), at(doc, "spec", "completions")
    if wanted is not None:
        return f"{done}/{wanted}"
    at_once = _number(doc, "spec", "parallelism")
    return f"{done}/1 of {at_once}" if at_once > 1 else f"{done}/1"


def _job_duration(doc: Doc, now: datetime) -> str:
    begin, end = at(doc, "status", "startTime"), at(doc, "status", "completionTime")
    if not begin:
        return ""
    if not end:
        return age_of(begin, now)
    return human_duration((datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds())


def _suspended(doc: Doc) -> str:
    value = at(doc, "spec", "suspend")
    return "<unset>" if value is None else str(bool(value))


def _last_schedule(doc: Doc, now: datetime) -> str:
    last = at(doc, "status", "lastScheduleTime")
    return age_of(last, now) if last else NONE


# --- ingresses


def _ingress_class(doc: Doc) -> str:
    annotations = at(doc, "metadata", "annotations") or {}
    return str(at(doc, "spec", "ingressClassName") or annotations.get("kubernetes.io/ingress.class") or NONE)


def _hosts(doc: Doc) -> str:
    found = [rule["host"] for rule in at(doc, "spec", "rules") or () if rule.get("host")]
    more = f" + {len(found) - 3} more..." if len(found) > 3 else ""
    return ",".join(found[:3]) + more if found else "*"


def _address(doc: Doc) -> str:
    entries = at(doc, "status", "loadBalancer", "ingress") or ()
    return ",".join(found for each in entries if (found := each.get("ip") or each.get("hostname")))


def _parameters(doc: Doc) -> str:
    given: Any = at(doc, "spec", "parameters")
    if not given:
        return NONE
    group = f".{given['apiGroup']}" if given.get("apiGroup") else ""
    return f"{given.get('kind', '')}{group}/{given.get('name', '')}"


COLUMNS: dict[tuple[str, str], Columns] = {
    ("apps", "deployments"): columns(
        _READY,
        _replicas("Up-to-date", "status", "updatedReplicas"),
        _replicas("Available", "status", "availableReplicas"),
        AGE,
        *_TEMPLATE,
        _SELECTOR,
    ),
    ("apps", "replicasets"): columns(*_SETS, _SELECTOR),
    ("", "replicationcontrollers"): columns(
        *_SETS, column("Selector", pairs("spec", "selector"), "Labels of its pods.", wide=True)
    ),
    ("apps", "statefulsets"): columns(_READY, AGE, *_TEMPLATE),
    ("apps", "daemonsets"): columns(
        _replicas("Desired", "status", "desiredNumberScheduled"),
        _replicas("Current", "status", "currentNumberScheduled"),
        _replicas("Ready", "status", "numberReady"),
        _replicas("Up-to-date", "status", "updatedNumberScheduled"),
        _replicas("Available", "status", "numberAvailable"),
        column("Node Selector", pairs("spec", "template", "spec", "nodeSelector"), "Labels of its nodes."),
        AGE,
        *_TEMPLATE,
        _SELECTOR,
    ),
    ("batch", "jobs"): columns(
        column("Status", _job_status, "How far it is."),
        column("Completions", _completions, "Pods that succeeded, of those wanted."),
        Column("Duration", read_at=_job_duration, description="How long it took, or has taken so far."),
        AGE,
        *_TEMPLATE,
        _SELECTOR,
    ),
    ("batch", "cronjobs"): columns(
        field("Schedule", "spec", "schedule"),
        field("Timezone", "spec", "timeZone", empty=NONE),
        column("Suspend", _suspended, "Whether it pauses."),
        column("Active", lambda doc: len(at(doc, "status", "active") or ()), "Jobs that run.", kind="integer"),
        Column("Last Schedule", read_at=_last_schedule, description="Time since a job was started last."),
        AGE,
        *_wide("spec", "jobTemplate", "spec", "template"),
        column("Selector", _chosen("spec", "jobTemplate", "spec", "selector"), "Labels of its pods.", wide=True),
    ),
    ("networking.k8s.io", "ingresses"): columns(
        column("Class", _ingress_class, "Who serves it."),
        column("Hosts", _hosts, "Hosts it has rules for."),
        column("Address", _address, "Where it is reached."),
        column("Ports", lambda doc: "80, 443" if at(doc, "spec", "tls") else "80", "Ports it is reached at."),
        AGE,
    ),
    ("networking.k8s.io", "ingressclasses"): columns(
        field("Controller", "spec", "controller"),
        column("Parameters", _parameters, "Further settings."),
        AGE,
    ),
    ("networking.k8s.io", "networkpolicies"): columns(
        column("Pod-Selector", _chosen("spec", "podSelector"), "Labels of the pods it is about."), AGE
    ),
}
