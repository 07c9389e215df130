"""What Kubernetes does for single built-in kinds on a write: defaults, what may not change, what must be there.

A table of pure functions by store name. `complete` gets a document it may change at its top level (nested parts are
replaced, never written into) and a way to read other kinds; `check` finds every fault, `old` being None on create.
Kinds without a row are stored as they are.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Struct

from hotvirt.kube import networkpolicies
from hotvirt.kube.errors import Cause
from hotvirt.server import (
    amount_checks,
    apiservices,
    autoscalers,
    bookkeeping_checks,
    crd,
    kind_checks,
    pods,
    policy_configs,
    rbac_checks,
    services,
    storage_checks,
    webhook_configs,
    workloads,
)
from hotvirt.server.objectmeta import FORBIDDEN, INVALID

Document = dict[str, Any]
Lookup = Callable[[str], Iterable[Document]]
RBAC = "rbac.authorization.k8s.io"


class Rules(Struct, frozen=True):
    complete: Callable[[Document, Lookup], Document] | None = None
    check: Callable[[Document, Document | None], list[Cause]] | None = None


def for_kind(store: str) -> Rules:
    return _RULES.get(store, _NONE)


def _spec_defaults(defaults: Document, *, status: Document | None = None) -> Callable[[Document, Lookup], Document]:
    def complete(doc: Document, _: Lookup) -> Document:
        spec = doc.get("spec") or {}
        doc = {**doc, "spec": {**{k: v for k, v in defaults.items() if k not in spec}, **spec}}
        if status and "status" not in doc:
            doc["status"] = status
        return doc

    return complete


def _top_defaults(defaults: Document) -> Callable[[Document, Lookup], Document]:
    return lambda doc, _: {**doc, **{k: v for k, v in defaults.items() if k not in doc}}


def _namespace(doc: Document, _: Lookup) -> Document:
    meta = doc["metadata"]
    labels = {**(meta.get("labels") or {}), "kubernetes.io/metadata.name": meta["name"]}
    spec = dict(doc.get("spec") or {})
    spec.setdefault("finalizers", ["kubernetes"])
    return {**doc, "metadata": {**meta, "labels": labels}, "spec": spec,
            "status": doc.get("status") or {"phase": "Active"}}  # fmt: skip


def _secret(doc: Document, _: Lookup) -> Document:
    texts = doc.get("stringData")
    if isinstance(texts, dict):
        coded = {k: base64.b64encode(str(v).encode()).decode() for k, v in texts.items()}
        doc = {**{k: v for k, v in doc.items() if k != "stringData"}, "data": {**(doc.get("data") or {}), **coded}}
    return doc if doc.get("type") else {**doc, "type": "Opaque"}


def _claim(doc: Document, lookup: Lookup) -> Document:
    doc = _spec_defaults({"volumeMode": "Filesystem"}, status={"phase": "Pending"})(doc, lookup)
    spec = doc["spec"]
    if "storageClassName" not in spec and not spec.get("volumeName"):
        for known in lookup("storage.k8s.io/storageclasses"):
            annotations = known["metadata"].get("annotations") or {}
            if annotations.get("storageclass.kubernetes.io/is-default-class") == "true":
                return {**doc, "spec": {**spec, "storageClassName": known["metadata"]["name"]}}
    return doc


def _workload(usual: Document) -> Callable[[Document, Lookup], Document]:
    return lambda doc, _: workloads.complete(doc, usual)


def _autoscaler(doc: Document, _: Lookup) -> Document:
    return autoscalers.with_defaults(doc)


def _check_data(new: Document, old: Document | None) -> list[Cause]:
    causes = kind_checks.size(new)
    key_pattern = re.compile(r"[-._a-zA-Z0-9]{1,253}\Z")
    for where in ("data", "binaryData"):
        for key in new.get(where) or {}:
            if not key_pattern.match(key) or key in (".", ".."):
                message = f'Invalid value: "{key}": a valid key consists of letters, digits, "-", "_" or "."'
                causes.append(Cause(INVALID, message, f"{where}[{key}]"))
    if old and old.get("immutable"):
        if not new.get("immutable"):
            causes.append(Cause(FORBIDDEN, "Forbidden: field is immutable when `immutable` is set", "immutable"))
        changed = [w for w in ("data", "binaryData") if (new.get(w) or {}) != (old.get(w) or {})]
        causes += [Cause(FORBIDDEN, "Forbidden: field is immutable when `immutable` is set", w) for w in changed]
    return causes


def _check_secret(new: Document, old: Document | None) -> list[Cause]:
    causes = _check_data(new, old) + kind_checks.keys_of_type(new) + kind_checks.token(new)
    for key, value in (new.get("data") or {}).items():
        try:
            base64.b64decode(value or "", validate=True)
        except (binascii.Error, ValueError, TypeError):
            message = "Invalid value: must be base64: put plain text into stringData"
            causes.append(Cause(INVALID, message, f"data[{key}]"))
    if old and new.get("type") != old.get("type"):
        causes.append(Cause(INVALID, f'Invalid value: "{new.get("type")}": field is immutable', "type"))
    return causes


def _complete_binding(doc: Document, _: Lookup) -> Document:
    role = doc.get("roleRef")
    if isinstance(role, dict):
        doc = {**doc, "roleRef": {"apiGroup": RBAC, **role}}
    if isinstance(doc.get("subjects"), list):
        doc = {**doc, "subjects": [_subject(s) for s in doc["subjects"]]}
    return doc


def _subject(subject: Any) -> Any:
    if not isinstance(subject, dict) or subject.get("apiGroup") or subject.get("kind") == "ServiceAccount":
        return subject
    return {**subject, "apiGroup": RBAC}


def _complete_crd(doc: Document, _: Lookup) -> Document:
    return crd.default(doc)


def _check_crd(new: Document, old: Document | None) -> list[Cause]:
    causes = crd.check(new)
    if old is not None and not causes:
        for path in (("group",), ("scope",), ("names", "kind"), ("names", "plural")):
            after, before = new["spec"], old["spec"]
            for step in path:
                after, before = after.get(step), before.get(step)
            if after != before:
                at = "spec." + ".".join(path)
                causes.append(Cause(INVALID, f'Invalid value: "{after}": field is immutable', at))
    return causes


def _complete_webhooks(doc: Document, _: Lookup) -> Document:
    return webhook_configs.complete(doc)


def _check_webhooks(new: Document, _: Document | None) -> list[Cause]:
    return webhook_configs.check(new)


_NONE = Rules()
_workloads = {store: Rules(_workload(usual)) for store, usual in workloads.USUAL.items()}
_webhooks = Rules(_complete_webhooks, _check_webhooks)
_binding = Rules(_complete_binding, rbac_checks.binding)
_RULES: dict[str, Rules] = {
    **_workloads,
    "/namespaces": Rules(_namespace),
    "/pods": Rules(pods.complete, pods.check),
    "/secrets": Rules(_secret, _check_secret),
    "/configmaps": Rules(None, _check_data),
    "/persistentvolumeclaims": Rules(_claim, storage_checks.claim),
    "/persistentvolumes": Rules(
        _spec_defaults(
            {"volumeMode": "Filesystem", "persistentVolumeReclaimPolicy": "Retain"}, status={"phase": "Pending"}
        ),
        storage_checks.volume,
    ),
    "/resourcequotas": Rules(None, amount_checks.quota),
    "/limitranges": Rules(lambda doc, _: amount_checks.with_usual_limits(doc), amount_checks.limit_range),
    "/services": Rules(services.complete, services.check),
    "/events": Rules(None, bookkeeping_checks.event),
    "/endpoints": Rules(None, bookkeeping_checks.endpoints),
    "discovery.k8s.io/endpointslices": Rules(None, bookkeeping_checks.endpoint_slice),
    "coordination.k8s.io/leases": Rules(None, bookkeeping_checks.lease),
    "apps/controllerrevisions": Rules(None, bookkeeping_checks.revision),
    "scheduling.k8s.io/priorityclasses": Rules(
        bookkeeping_checks.complete_priority_class, bookkeeping_checks.priority_class
    ),
    "autoscaling/horizontalpodautoscalers": Rules(_autoscaler, kind_checks.autoscaler),
    apiservices.STORE: Rules(None, apiservices.check),
    "policy/poddisruptionbudgets": Rules(None, kind_checks.budget),
    "networking.k8s.io/networkpolicies": Rules(
        lambda doc, _: networkpolicies.complete(doc), lambda new, _: networkpolicies.check(new)
    ),
    "storage.k8s.io/storageclasses": Rules(
        _top_defaults({"reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"}), storage_checks.storage_class
    ),
    f"{RBAC}/roles": Rules(None, rbac_checks.role),
    f"{RBAC}/clusterroles": Rules(_top_defaults({"rules": None}), rbac_checks.role),
    f"{RBAC}/rolebindings": _binding,
    f"{RBAC}/clusterrolebindings": _binding,
    webhook_configs.VALIDATING: _webhooks,
    webhook_configs.MUTATING: _webhooks,
    policy_configs.POLICIES: Rules(
        lambda doc, _: policy_configs.complete(doc), lambda new, _: policy_configs.check(new)
    ),
    policy_configs.BINDINGS: Rules(
        lambda doc, _: policy_configs.complete_binding(doc), lambda new, _: policy_configs.check_binding(new)
    ),
    "apiextensions.k8s.io/customresourcedefinitions": Rules(_complete_crd, _check_crd),
}
