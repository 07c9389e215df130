"""Subresources that are more than a part of the stored object: scale, binding, eviction, token, finalize, and the
review kinds that are asked but never stored. In documents, out documents; the same for HTTP and in-process callers."""

from typing import Any

from hotvirt.kube.client import PatchKind
from hotvirt.kube.errors import Cause, Invalid, MethodNotAllowed, NotFound
from hotvirt.server import bodies, evictions, reviews
from hotvirt.server.access import Access
from hotvirt.server.calls import Call
from hotvirt.server.patches import json_patch, merge_patch
from hotvirt.server.registry import Scale
from hotvirt.server.selectors import field_value
from hotvirt.server.tokens import Tokens
from hotvirt.server.verbs import Verbs

Document = dict[str, Any]


_OBJECTS = (("PUT", "status"), ("PUT", "resize"), ("PUT", "ephemeralcontainers"))


class Subresources:
    def __init__(self, verbs: Verbs, access: Access, tokens: Tokens) -> None:
        self._verbs, self._access, self._tokens = verbs, access, tokens

    async def read(self, call: Call) -> Document:
        """GET of a subresource that is not simply the object."""
        if call.subresource == "scale":
            return await self._read_scale(call)
        entry = await self._verbs.get(call)
        return call.served.shown(self._verbs.store.doc(entry))

    async def write(self, call: Call, method: str, body: Any) -> Document:
        """POST or PUT of one."""
        known = call.served.subresource(call.subresource)
        if known is not None and (method, call.subresource) not in _OBJECTS:
            bodies.check(known.kind, body)
        match (method, call.subresource):
            case ("POST", "binding"):
                await self._verbs.bind(call, body)
                return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
            case ("POST", "eviction"):
                await evictions.evict(self._verbs, call, body)
                return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
            case ("POST", "token"):
                return await self._tokens.issue(call, body)
            case ("PUT", "scale"):
                return await self._write_scale(call, body)
            case ("PUT", "finalize"):
                return await self._finalize(call, body)
            case ("PUT", _):
                entry = await self._verbs.update(call, body)
                return call.served.shown(self._verbs.store.doc(entry))
        raise MethodNotAllowed(f"{call.served.qualified}/{call.subresource} does not take {method}")

    async def review(self, call: Call, body: Document) -> Document:
        """A create of a kind that is only asked: access reviews, token reviews."""
        bodies.check(call.served.resource.kind, body)
        return await reviews.answer(call, body, self._access, self._tokens)

    # -- scale

    async def patch_scale(self, call: Call, kind: PatchKind, patch: Any) -> Document:
        current = await self._read_scale(call)
        new = json_patch(current, patch) if kind == "json" else merge_patch(current, patch)
        return await self._write_scale(call, new)

    async def _read_scale(self, call: Call) -> Document:
        entry = await self._verbs.get(call)
        return _scale_of(call.served.shown(self._verbs.store.doc(entry)), _paths(call))

    async def _write_scale(self, call: Call, scale: Document) -> Document:
        paths = _paths(call)
        bodies.check("Scale", scale)
        replicas = (scale.get("spec") or {}).get("replicas") or 0
        if replicas < 0:
            message = f"Invalid value: {replicas}: must be greater than or equal to 0"
            cause = Cause("FieldValueInvalid", message, "spec.replicas")
            raise Invalid(f'Scale "{call.name}" is invalid: {cause.field}: {cause.message}', causes=[cause])

        def change(old: Document) -> Document:
            new = _with_value(old, paths.spec.split("."), replicas)
            sent = scale.get("metadata") or {}
            meta = {**old["metadata"], **{k: sent[k] for k in ("resourceVersion", "uid") if sent.get(k)}}
            return {**new, "metadata": meta}

        main = Call(
            served=call.served, user=call.user, namespace=call.namespace, name=call.name, dry_run=call.dry_run,
            field_manager=call.field_manager, warnings=call.warnings,
        )  # fmt: skip
        entry = await self._verbs.change(main, change)
        return _scale_of(call.served.shown(self._verbs.store.doc(entry)), paths)

    # -- namespaces

    async def _finalize(self, call: Call, body: Document) -> Document:
        finalizers = (body.get("spec") or {}).get("finalizers") or []
        entry = await self._verbs.change(
            call, lambda old: {**old, "spec": {**(old.get("spec") or {}), "finalizers": finalizers}}
        )
        return self._verbs.store.doc(entry)


def _paths(call: Call) -> Scale:
    if call.served.scale is None:
        raise NotFound(f"{call.served.qualified} has no scale")
    return call.served.scale


def _scale_of(doc: Document, paths: Scale) -> Document:
    meta = doc["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    status: Document = {"replicas": int(field_value(doc, paths.status) or 0)}
    selector = _at(doc, paths.selector) if paths.selector else None
    if isinstance(selector, dict):
        status["selector"] = ",".join(f"{k}={v}" for k, v in (selector.get("matchLabels") or {}).items())
    elif selector:
        status["selector"] = selector
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {k: meta[k] for k in kept if k in meta},
        "spec": {"replicas": int(field_value(doc, paths.spec) or 0)},
        "status": status,
    }


def _at(doc: Any, path: str) -> Any:
    for step in path.split("."):
        doc = doc.get(step) if isinstance(doc, dict) else None
    return doc


def _with_value(doc: Document, path: list[str], value: Any) -> Document:
    if len(path) == 1:
        return {**doc, path[0]: value}
    below = doc.get(path[0])
    return {**doc, path[0]: _with_value(below if isinstance(below, dict) else {}, path[1:], value)}
