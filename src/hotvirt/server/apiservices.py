"""APIServices: one object for each version of each group that is served, as Kubernetes' aggregator lists them.

All groups are answered by this process, also those that are mounted beside the stored ones, so all are "Local". An
APIService that names a service of somebody's is kept and called unavailable: no request is forwarded here. Pure.
"""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from hotvirt.kube.errors import Cause
from hotvirt.server.objectmeta import INVALID, REQUIRED

Document = dict[str, Any]
STORE = "apiregistration.k8s.io/apiservices"
MANAGED = "kube-aggregator.kubernetes.io/automanaged"
BUILT_IN, CUSTOM = "onstart", "true"
# How far in front a group's resources are looked for: Kubernetes' numbers. Those of others come after all of these.
_PRIORITIES = {
    "": 18000, "apps": 17800, "events.k8s.io": 17750, "authentication.k8s.io": 17700, "authorization.k8s.io": 17600,
    "autoscaling": 17500, "batch": 17400, "certificates.k8s.io": 17300, "networking.k8s.io": 17200, "policy": 17100,
    "rbac.authorization.k8s.io": 17000, "storage.k8s.io": 16800, "apiextensions.k8s.io": 16700,
    "admissionregistration.k8s.io": 16700, "scheduling.k8s.io": 16600, "coordination.k8s.io": 16500,
    "node.k8s.io": 16300, "discovery.k8s.io": 16200,
}  # fmt: skip
_OTHERS = 1000
OWN_GROUP = "apiregistration.k8s.io"  # not listed by itself


class Version(Struct, frozen=True):
    group: str
    version: str
    managed: str

    @property
    def name(self) -> str:
        return f"{self.version}.{self.group}"


def complete_status(store: str, doc: Document, now: str) -> Document:
    """For `Verbs`: an APIService about to be stored, with its condition."""
    if store != STORE:
        return doc
    condition: Document = {"type": "Available", "status": "True", "reason": "Local"}
    condition["message"] = "Local APIServices are always available"
    if (doc.get("spec") or {}).get("service"):
        condition |= {"status": "False", "reason": "NotForwarded"}
        condition["message"] = "this server forwards no requests to other API servers: serve the group as a CRD instead"
    before: Document = next(
        (c for c in (doc.get("status") or {}).get("conditions") or () if c.get("type") == "Available"), {}
    )
    is_same = before.get("status") == condition["status"]
    condition["lastTransitionTime"] = before.get("lastTransitionTime") if is_same else now
    return {**doc, "status": {"conditions": [condition]}}


def check(new: Document, _: Document | None) -> list[Cause]:
    spec = new.get("spec") or {}
    group, version, name = spec.get("group") or "", spec.get("version") or "", new["metadata"].get("name")
    causes = []
    if name != f"{version}.{group}":
        message = f'Invalid value: "{name}": must be `spec.version+"."+spec.group`: "{version}.{group}"'
        causes.append(Cause(INVALID, message, "metadata.name"))
    if not version:
        causes.append(Cause(REQUIRED, "Required value", "spec.version"))
    for key, most in (("groupPriorityMinimum", 20000), ("versionPriority", 1000)):
        value = spec.get(key)
        if not isinstance(value, int) or not 0 < value <= most:
            message = f"Invalid value: {value or 0}: must be positive and at most {most}"
            causes.append(Cause(INVALID, message, f"spec.{key}"))
    return causes


def api_service(wanted: Version, versions: Sequence[str]) -> Document:
    """`versions` are all of its group, the preferred one first. Pure."""
    priority = _PRIORITIES.get(wanted.group, _OTHERS)
    place = len(versions) - versions.index(wanted.version) + (10 if wanted.group in _PRIORITIES else 100)
    return {
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": wanted.name, "labels": {MANAGED: wanted.managed}},
        "spec": {
            **({"group": wanted.group} if wanted.group else {}), "version": wanted.version,
            "groupPriorityMinimum": priority, "versionPriority": place,
        },
    }  # fmt: skip
