"""What objects count for, and whether a ResourceQuota lets more of them in. Pure."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from msgspec import Struct

from hotvirt.server import podamounts, quantities
from hotvirt.server.pods import qos

Document = dict[str, Any]
Usage = dict[str, Decimal]
ONE = Decimal(1)
WORDS: tuple[podamounts.Word, ...] = ("requests", "limits")
_COMPUTE = ("cpu", "memory", "ephemeral-storage")
_COUNTED_BY_NAME = ("/configmaps", "/secrets", "/services", "/replicationcontrollers", "/resourcequotas")


class Excess(Struct, frozen=True):
    """One resource of one quota that would be passed."""

    name: str
    requested: Decimal
    used: Decimal
    limit: str

    def shown(self) -> tuple[str, str, str]:
        requested = quantities.show(self.requested, like=self.limit)
        used = quantities.show(self.used, like=self.limit)
        return f"{self.name}={requested}", f"{self.name}={used}", f"{self.name}={self.limit}"


def usage_of(store: str, doc: Document) -> Usage:
    """`store` is the kind's name in keys: `/pods`, `kubevirt.io/virtualmachines`."""
    group, _, plural = store.partition("/")
    used: Usage = {f"count/{plural}.{group}" if group else f"count/{plural}": ONE}
    if store in _COUNTED_BY_NAME:
        used[plural] = ONE
    if store == "/pods":
        used |= _pod(doc)
    elif store == "/persistentvolumeclaims":
        used |= _claim(doc)
    elif store == "/services":
        used |= _service(doc.get("spec") or {})
    return used


def _pod(doc: Document) -> Usage:
    if (doc.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return {}
    used: Usage = {"pods": ONE}
    for kind in WORDS:
        used |= {f"{kind}.{name}": value for name, value in podamounts.total(doc.get("spec") or {}, kind).items()}
    for name in _COMPUTE:
        if f"requests.{name}" in used:
            used[name] = used[f"requests.{name}"]
    return used


def _service(spec: Document) -> Usage:
    """Every port of it takes a node port, but of a balancer that needs none."""
    kind, ports = spec.get("type"), spec.get("ports") or ()
    if kind not in ("NodePort", "LoadBalancer"):
        return {}
    spared = kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is False
    count = sum(1 for port in ports if port.get("nodePort") or not spared)
    balancer = {"services.loadbalancers": ONE} if kind == "LoadBalancer" else {}
    return {"services.nodeports": Decimal(count), **balancer}


def _claim(doc: Document) -> Usage:
    spec = doc.get("spec") or {}
    size = quantities.amount(((spec.get("resources") or {}).get("requests") or {}).get("storage"))
    used = {"persistentvolumeclaims": ONE, "requests.storage": size}
    if name := spec.get("storageClassName"):
        prefix = f"{name}.storageclass.storage.k8s.io/"
        used |= {f"{prefix}persistentvolumeclaims": ONE, f"{prefix}requests.storage": size}
    return used


def covers(quota: Document, store: str, doc: Document) -> bool:
    """Whether the quota's scopes (of pods, one of claims) take the object in: all of them must."""
    spec = quota.get("spec") or {}
    terms = [{"scopeName": scope, "operator": "Exists"} for scope in spec.get("scopes") or ()]
    terms += (spec.get("scopeSelector") or {}).get("matchExpressions") or ()
    return all(_in_scope(term, store, doc.get("spec") or {}) for term in terms)


def _in_scope(term: Document, store: str, spec: Document) -> bool:
    scope = term.get("scopeName")
    if scope == "VolumeAttributesClass":
        return store == "/persistentvolumeclaims" and _has(term, spec.get("volumeAttributesClassName"))
    if store != "/pods":
        return False
    ends, best_effort = spec.get("activeDeadlineSeconds") is not None, qos(spec) == "BestEffort"
    match scope:
        case "PriorityClass":
            return _has(term, spec.get("priorityClassName"))
        case "CrossNamespacePodAffinity":
            return _looks_elsewhere(spec.get("affinity") or {})
        case "Terminating" | "NotTerminating":
            return ends is (scope == "Terminating")
        case "BestEffort" | "NotBestEffort":
            return best_effort is (scope == "BestEffort")
    return False


def _has(term: Document, value: str | None) -> bool:
    match term.get("operator"):
        case "In":
            return value in (term.get("values") or ())
        case "NotIn":
            return value not in (term.get("values") or ())
        case "DoesNotExist":
            return not value
    return bool(value)


def _looks_elsewhere(affinity: Document) -> bool:
    """Whether a pod wishes to be near to, or far from, pods of other namespaces."""
    for kind in ("podAffinity", "podAntiAffinity"):
        wishes = affinity.get(kind) or {}
        terms = list(wishes.get("requiredDuringSchedulingIgnoredDuringExecution") or ())
        terms += [
            each.get("podAffinityTerm") or {}
            for each in wishes.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        ]
        if any(term.get("namespaces") or term.get("namespaceSelector") is not None for term in terms):
            return True
    return False


def total(usages: Iterable[Usage]) -> Usage:
    found: Usage = {}
    for usage in usages:
        for name, value in usage.items():
            found[name] = found.get(name, Decimal(0)) + value
    return found


def hard(quota: Document) -> Mapping[str, str]:
    return {name: str(value) for name, value in ((quota.get("spec") or {}).get("hard") or {}).items()}


def excesses(quota: Document, used: Usage, added: Usage) -> list[Excess]:
    """`added` is what the write adds to `used`; only what grows can pass a limit."""
    found = []
    for name, limit in hard(quota).items():
        more = added.get(name, Decimal(0))
        if more > 0 and used.get(name, Decimal(0)) + more > quantities.amount(limit):
            found.append(Excess(name, more, used.get(name, Decimal(0)), limit))
    return found


def unstated(quota: Document, store: str, doc: Document) -> list[str]:
    """Requests and limits that a limited pod must state, since it could not be counted otherwise."""
    if store != "/pods":
        return []
    missing = []
    for name in hard(quota):
        kind, _, resource = name.rpartition(".")
        if resource not in _COMPUTE or kind not in ("", "requests", "limits"):
            continue
        spec = doc.get("spec") or {}
        for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
            if resource not in ((container.get("resources") or {}).get(kind or "requests") or {}):
                missing.append(name)
                break
    return missing
