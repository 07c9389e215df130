"""The rules of pods: defaults, what may not change once they exist, binding to a node, growing in place. Pure."""

import re
from collections.abc import Callable, Iterable
from typing import Any

from hotvirt.kube.errors import Cause
from hotvirt.server import amount_checks, kind_checks
from hotvirt.server.bookkeeping_checks import SYSTEM_PRIORITIES
from hotvirt.server.objectmeta import FORBIDDEN, INVALID, REQUIRED

Document = dict[str, Any]
Lookup = Callable[[str], Iterable[Document]]
_DEFAULTS: Document = {
    "restartPolicy": "Always",
    "terminationGracePeriodSeconds": 30,
    "dnsPolicy": "ClusterFirst",
    "serviceAccountName": "default",
    "securityContext": {},
    "schedulerName": "default-scheduler",
    "enableServiceLinks": True,
}
_CONTAINER_DEFAULTS: Document = {
    "resources": {},
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
}
_RESTARTS = ("Always", "OnFailure", "Never")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")
_CHANGEABLE = {"activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "schedulingGates"}


def complete(doc: Document, lookup: Lookup) -> Document:
    spec = doc.get("spec")
    if not isinstance(spec, dict):
        return doc
    filled = {**_priority(spec, lookup), **spec, **{k: v for k, v in _DEFAULTS.items() if k not in spec}}
    for key in ("containers", "initContainers"):
        if isinstance(filled.get(key), list):
            filled[key] = [_container(each) for each in filled[key]]
    doc = {**doc, "spec": filled}
    if "status" not in doc:
        doc["status"] = {"phase": "Pending", "qosClass": qos(filled)}
    return doc


def of_template(spec: Document) -> Document:
    """The spec in a template with what a pod gets by itself, but for what only a pod itself knows."""
    usual = {key: value for key, value in _DEFAULTS.items() if key not in ("serviceAccountName", "enableServiceLinks")}
    filled = {**spec, **{key: value for key, value in usual.items() if key not in spec}}
    for key in ("containers", "initContainers"):
        if isinstance(filled.get(key), list):
            filled[key] = [_container(each) for each in filled[key]]
    return filled


def _priority(spec: Document, lookup: Lookup) -> Document:
    """The number of the class that is named, or of the one for all others. Nothing of a class that is not there."""
    name = spec.get("priorityClassName")
    if "priority" in spec:
        return {}
    if name in SYSTEM_PRIORITIES:
        return {"priority": SYSTEM_PRIORITIES[name]}
    for known in lookup("scheduling.k8s.io/priorityclasses"):
        if known["metadata"]["name"] == name or (not name and known.get("globalDefault")):
            return {"priority": known.get("value") or 0, "priorityClassName": known["metadata"]["name"]}
    return {"priority": 0} if not name else {}


def _container(container: Any) -> Any:
    if not isinstance(container, dict):
        return container
    image = str(container.get("image") or "")
    policy = "Always" if image.endswith(":latest") or ":" not in image.rpartition("/")[2] else "IfNotPresent"
    filled = {**container, **{k: v for k, v in _CONTAINER_DEFAULTS.items() if k not in container}}
    filled.setdefault("imagePullPolicy", policy)
    resources = filled["resources"]
    if isinstance(resources, dict) and isinstance(resources.get("limits"), dict):
        requests = {**resources["limits"], **(resources.get("requests") or {})}
        filled["resources"] = {**resources, "requests": requests}
    return filled


def qos(spec: Document) -> str:
    """BestEffort, Burstable or Guaranteed, by what the containers ask for."""
    asked = [c.get("resources") or {} for c in spec.get("containers") or () if isinstance(c, dict)]
    if not any(r.get("requests") or r.get("limits") for r in asked):
        return "BestEffort"
    for resources in asked:
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        if any(not limits.get(k) or requests.get(k, limits[k]) != limits[k] for k in ("cpu", "memory")):
            return "Burstable"
    return "Guaranteed"


def check(new: Document, old: Document | None) -> list[Cause]:
    spec = new.get("spec")
    if not isinstance(spec, dict):
        return [Cause(REQUIRED, "Required value", "spec")]
    causes = _check_containers(spec) + amount_checks.of_containers(spec)
    if spec.get("restartPolicy") not in _RESTARTS:
        causes.append(kind_checks.unsupported(spec.get("restartPolicy"), _RESTARTS, "spec.restartPolicy"))
    if old is None and spec.get("priorityClassName") and "priority" not in spec:
        message = f"Invalid value: no PriorityClass with name {spec['priorityClassName']} was found"
        causes.append(Cause(INVALID, message, "spec.priorityClassName"))
    if old is not None and not causes and _fixed(spec) != _fixed(old.get("spec") or {}):
        changed = sorted(k for k in spec.keys() | old["spec"].keys() if spec.get(k) != old["spec"].get(k))
        message = (
            f"Forbidden: pod updates may not change fields other than containers[*].image, "
            f"{', '.join(sorted(_CHANGEABLE))} (changed: {', '.join(changed)}); nodeName is set through pods/binding, "
            "requests through pods/resize"
        )
        causes.append(Cause(FORBIDDEN, message, "spec"))
    return causes


def _check_containers(spec: Document) -> list[Cause]:
    containers = spec.get("containers")
    if not isinstance(containers, list) or not containers:
        return [Cause(REQUIRED, "Required value", "spec.containers")]
    causes: list[Cause] = []
    seen: set[str] = set()
    for index, container in enumerate(containers):
        at = f"spec.containers[{index}]"
        name = container.get("name") if isinstance(container, dict) else None
        if not name:
            causes.append(Cause(REQUIRED, "Required value", f"{at}.name"))
        elif name in seen:
            causes.append(Cause("FieldValueDuplicate", f'Duplicate value: "{name}"', f"{at}.name"))
        elif not _NAME.match(name):
            message = f'Invalid value: "{name}": use at most 63 lower-case letters, digits or "-"'
            causes.append(Cause(INVALID, message, f"{at}.name"))
        else:
            seen.add(name)
    return causes


def _fixed(spec: Document) -> Document:
    kept = {"priority": 0, **{k: v for k, v in spec.items() if k not in _CHANGEABLE}}
    for key in ("containers", "initContainers"):
        if isinstance(kept.get(key), list):
            kept[key] = [{k: v for k, v in c.items() if k != "image"} for c in kept[key]]
    return kept


def bind(pod: Document, node: str, now: str) -> Document | None:
    """The pod on `node`; None when it is on one already."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    if spec.get("nodeName"):
        return None
    conditions = [c for c in status.get("conditions") or () if c.get("type") != "PodScheduled"]
    conditions.append({"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now})
    return {**pod, "spec": {**spec, "nodeName": node}, "status": {**status, "conditions": conditions}}


def resized(new: Document, old: Document) -> tuple[Document, list[Cause]]:
    """What pods/resize makes of `old`: the resources of its containers come from `new`, nothing else may differ."""
    asked = {c.get("name"): c for c in (new.get("spec") or {}).get("containers") or () if isinstance(c, dict)}
    causes: list[Cause] = []
    containers = []
    for container in (old.get("spec") or {}).get("containers") or ():
        other = asked.pop(container.get("name"), None)
        if other is None:
            message = f'Forbidden: container "{container.get("name")}" is missing: only resources can change'
            causes.append(Cause(FORBIDDEN, message, "spec.containers"))
            continue
        if {k: v for k, v in other.items() if k != "resources"} != {
            k: v for k, v in container.items() if k != "resources"
        }:
            message = "Forbidden: only cpu and memory resources can change through pods/resize"
            causes.append(Cause(FORBIDDEN, message, f"spec.containers.{container['name']}"))
        containers.append({**container, "resources": other.get("resources") or {}})
    causes += [Cause(INVALID, f'Invalid value: "{n}": no such container', "spec.containers") for n in asked]
    spec = {**old["spec"], "containers": containers}
    return {**old, "spec": spec}, causes + amount_checks.of_containers(spec)
