"""What objects count for, and whether a ResourceQuota lets more of them in. Pure."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from msgspec import Struct

from hotvirt.server import quantities
from hotvirt.server.pods import qos

Document = dict[str, Any]
Usage = dict[str, Decimal]
ONE = Decimal(1)
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
        kind = (doc.get("spec") or {}).get("type")
        used |= {"services.loadbalancers": ONE} if kind == "LoadBalancer" else {}
        used |= {"services.nodeports": ONE} if kind in ("NodePort", "LoadBalancer") else {}
    return used


def _pod(doc: Document) -> Usage:
    if (doc.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return {}
    used: Usage = {"pods": ONE}
    for container in (doc.get("spec") or {}).get("containers") or ():
        resources = container.get("resources") or {}
        for kind in ("requests", "limits"):
            for name, value in (resources.get(kind) or {}).items():
                key = f"{kind}.{name}"
                used[key] = used.get(key, Decimal(0)) + quantities.amount(value)
    for name in _COMPUTE:
        if f"requests.{name}" in used:
            used[name] = used[f"requests.{name}"]
    return used


def _claim(doc: Document) -> Usage:
    spec = doc.get("spec") or {}
    size = quantities.amount(((spec.get("resources") or {}).get("requests") or {}).get("storage"))
    used = {"persistentvolumeclaims": ONE, "requests.storage": size}
    if name := spec.get("storageClassName"):
        prefix = f"{name}.storageclass.storage.k8s.io/"
        used |= {f"{prefix}persistentvolumeclaims": ONE, f"{prefix}requests.storage": size}
    return used


def covers(quota: Document, store: str, doc: Document) -> bool:
    """Whether the quota's scopes (pods only) take the object in."""
    spec = quota.get("spec") or {}
    scopes = set(spec.get("scopes") or ())
    if spec.get("scopeSelector") or scopes - {"Terminating", "NotTerminating", "BestEffort", "NotBestEffort"}:
        return False
    if not scopes:
        return True
    if store != "/pods":
        return False
    pod = doc.get("spec") or {}
    ends = pod.get("activeDeadlineSeconds") is not None
    best_effort = qos(pod) == "BestEffort"
    has = {"Terminating": ends, "NotTerminating": not ends, "BestEffort": best_effort, "NotBestEffort": not best_effort}
    return all(has[scope] for scope in scopes)


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
        for container in (doc.get("spec") or {}).get("containers") or ():
            if resource not in ((container.get("resources") or {}).get(kind or "requests") or {}):
                missing.append(name)
                break
    return missing
