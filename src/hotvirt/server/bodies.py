"""The shapes of bodies that are asked or told but never stored: reviews, token requests, bindings, evictions, scales,
delete options. Checked before anything reads them; fields that are not named here are let through."""

from functools import cache
from typing import Any

from hotvirt.kube.errors import BadRequest
from hotvirt.server.schema import Schema, compile_schema

Document = dict[str, Any]
_TEXT: Document = {"type": "string", "nullable": True}
_TEXTS: Document = {"type": "array", "items": {"type": "string"}, "nullable": True}
_NUMBER: Document = {"type": "integer", "nullable": True}


def _object(**properties: Document) -> Document:
    return {
        "type": "object", "nullable": True, "properties": properties, "x-kubernetes-preserve-unknown-fields": True,
    }  # fmt: skip


_OPTIONS = _object(
    gracePeriodSeconds=_NUMBER,
    propagationPolicy=_TEXT,
    orphanDependents={"type": "boolean", "nullable": True},
    dryRun=_TEXTS,
    preconditions=_object(uid=_TEXT, resourceVersion=_TEXT),
)
_ASKED_FOR = _object(
    **dict.fromkeys(("verb", "group", "version", "resource", "subresource", "namespace", "name"), _TEXT)
)  # fmt: skip
_REVIEW = _object(
    resourceAttributes=_ASKED_FOR,
    nonResourceAttributes=_object(path=_TEXT, verb=_TEXT),
    user=_TEXT,
    uid=_TEXT,
    groups=_TEXTS,
    extra={"type": "object", "additionalProperties": _TEXTS, "nullable": True},
)
_SPECS: dict[str, Document] = {
    "SelfSubjectAccessReview": _object(spec=_REVIEW),
    "SubjectAccessReview": _object(spec=_REVIEW),
    "LocalSubjectAccessReview": _object(spec=_REVIEW),
    "SelfSubjectRulesReview": _object(spec=_object(namespace=_TEXT)),
    "SelfSubjectReview": _object(),
    "TokenReview": _object(spec=_object(token=_TEXT, audiences=_TEXTS)),
    "TokenRequest": _object(
        spec=_object(
            expirationSeconds=_NUMBER, audiences=_TEXTS, boundObjectRef=_object(kind=_TEXT, name=_TEXT, uid=_TEXT)
        )
    ),
    "Binding": _object(target=_object(kind=_TEXT, name=_TEXT)),
    "Eviction": _object(deleteOptions=_OPTIONS),
    "Scale": _object(spec=_object(replicas=_NUMBER)),
    "Namespace": _object(spec=_object(finalizers=_TEXTS)),
    "DeleteOptions": _OPTIONS,
}


def check(kind: str, body: Any) -> Document:
    """`body`, when it has the shape of a `kind`. BadRequest names every field that has not."""
    if not isinstance(body, dict):
        raise BadRequest(f"the body must be one JSON object, a {kind}")
    if body.get("kind") not in (None, "", kind):
        raise BadRequest(f"the object provided is a {body['kind']}, expected a {kind}")
    schema = _compiled(kind)
    # Pruned first, since clients in Go send nulls for what they leave out.
    faults = schema.validate(schema.prune({**body, "metadata": body.get("metadata") or {}})[0]) if schema else []
    if faults:
        raise BadRequest(f"{kind} can't be read: " + ", ".join(f"{f.field}: {f.message}" for f in faults))
    return body


@cache
def _compiled(kind: str) -> Schema | None:
    return compile_schema(_SPECS[kind]) if kind in _SPECS else None
