"""Schemas as OpenAPI documents carry them: names of definitions, the common ones, and what each version can't say.

OpenAPI v2 knows no nullable, no oneOf, no int-or-string; kubectl takes an absent type for "anything", so such nodes
lose their type there, as Kubernetes publishes them. Pure.
"""

from collections.abc import Mapping
from typing import Any

from hotvirt.server.schema_meta import OBJECT_META

Document = dict[str, Any]
_META = "io.k8s.apimachinery.pkg.apis.meta.v1"
OBJECT_META_NAME, LIST_META_NAME = f"{_META}.ObjectMeta", f"{_META}.ListMeta"
STATUS_NAME, DELETE_OPTIONS_NAME = f"{_META}.Status", f"{_META}.DeleteOptions"
PATCH_NAME, WATCH_EVENT_NAME = f"{_META}.Patch", f"{_META}.WatchEvent"
QUANTITY_NAME = "io.k8s.apimachinery.pkg.api.resource.Quantity"
INT_OR_STRING_NAME = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
_TEXT: Document = {"type": "string"}
_EITHER = [{"type": "integer"}, {"type": "string"}]
_V3_ONLY = ("nullable", "default", "allOf", "anyOf", "oneOf", "not")


def is_built_in(group: str) -> bool:
    """Whether the group is one of Kubernetes' own."""
    return "." not in group or group.endswith(".k8s.io")


def name_of(group: str, version: str, kind: str) -> str:
    """`io.kubevirt.v1.VirtualMachine`, `io.k8s.api.core.v1.Pod`."""
    if is_built_in(group):
        return f"io.k8s.api.{group.split('.')[0] or 'core'}.{version}.{kind}"
    return f"{'.'.join(reversed(group.split('.')))}.{version}.{kind}"


def identity(group: str, version: str, kind: str) -> Document:
    return {"group": group, "version": version, "kind": kind}


def reference(name: str, *, v3: bool) -> Document:
    return {"$ref": f"#/{'components/schemas' if v3 else 'definitions'}/{name}"}


def published(schema: Mapping[str, Any], *, v3: bool, root: bool = False) -> Document:
    """A structural schema for the document; metadata of the root and of embedded objects becomes a reference."""
    result: Document = dict(schema)
    resource = root or bool(schema.get("x-kubernetes-embedded-resource"))
    if not v3:
        result.pop("x-kubernetes-validations", None)
    if not v3 and _is_anything(schema, root=root):
        kept = {key: value for key, value in result.items() if key == "description" or key.startswith("x-kubernetes-")}
        return {**kept, "type": "object"} if schema.get("x-kubernetes-embedded-resource") else kept
    if "properties" in schema:
        result["properties"] = {name: published(below, v3=v3) for name, below in schema["properties"].items()}
    if resource:
        about = (schema.get("properties") or {}).get("metadata", {}).get("description") or OBJECT_META["description"]
        result["properties"] = {**(result.get("properties") or {}), **_head(v3=v3, about=about)}
    if isinstance(schema.get("items"), dict):
        result["items"] = published(schema["items"], v3=v3)
    if isinstance(schema.get("additionalProperties"), dict):
        result["additionalProperties"] = published(schema["additionalProperties"], v3=v3)
    if not v3:
        for word in _V3_ONLY:
            result.pop(word, None)
    elif schema.get("x-kubernetes-int-or-string"):
        result.pop("anyOf", None)
        result["allOf"] = [
            reference(QUANTITY_NAME if schema.get("format") == "quantity" else INT_OR_STRING_NAME, v3=True)
        ]
    return result


def keeps_unknown(schema: Mapping[str, Any]) -> bool:
    """Whether something in the schema is open. Of a built-in kind v2 then does not say which kind it is: kubectl, up to
    1.29 at least, would make its patches by this description, and those before 1.21 crash on what has no type. Without
    it they use what they were built with."""
    inner = [*(schema.get("properties") or {}).values()]
    inner += [schema[word] for word in ("items", "additionalProperties") if isinstance(schema.get(word), dict)]
    return bool(schema.get("x-kubernetes-preserve-unknown-fields")) or any(keeps_unknown(below) for below in inner)


def _is_anything(schema: Mapping[str, Any], *, root: bool) -> bool:
    """Nodes whose inside v2 clients must not look at."""
    if schema.get("nullable") or schema.get("x-kubernetes-int-or-string"):
        return True
    return bool(schema.get("x-kubernetes-preserve-unknown-fields")) and not root


def _head(*, v3: bool, about: str) -> Document:
    to_meta = reference(OBJECT_META_NAME, v3=v3)
    return {
        "apiVersion": {**_TEXT, "description": "Group and version of the kind."},
        "kind": {**_TEXT, "description": "Name of the kind."},
        "metadata": {"description": about, "allOf": [to_meta], "default": {}}
        if v3
        else {**to_meta, "description": about},
    }


def list_schema(item_name: str, kind: str, *, v3: bool) -> Document:
    """The schema of a kind's list."""
    items = reference(item_name, v3=v3)
    meta = reference(LIST_META_NAME, v3=v3)
    about = "Version of the list, and where it goes on."
    return {
        "type": "object",
        "description": f"A list of {kind}.",
        "required": ["items"],
        "properties": {
            **_HEAD,
            "metadata": {"description": about, "allOf": [meta]} if v3 else {**meta, "description": about},
            "items": {"type": "array", "description": "The objects.", "items": items},
        },
    }


def _texts(description: str) -> Document:
    return {"type": "array", "description": description, "items": _TEXT}


def _of(description: str, **properties: Document) -> Document:
    return {"type": "object", "description": description, "properties": properties}


def _text(description: str) -> Document:
    return {**_TEXT, "description": description}


_HEAD = {"apiVersion": _text("Group and version of the kind."), "kind": _text("Name of the kind.")}
_LIST_META = _of(
    "Version of a list, and where it goes on.",
    resourceVersion=_text("Version of everything listed: where a watch may begin."),
    remainingItemCount={"type": "integer", "format": "int64", "description": "How many are left."},
    selfLink=_text("No longer filled in."),
    **{"continue": _text("Send it back for the next page.")},
)
_STATUS = _of(
    "Outcome of a call that gives no object.",
    **_HEAD,
    status=_text("Success or Failure."),
    message=_text("What happened, for people."),
    reason=_text("What happened, for programs."),
    code={"type": "integer", "format": "int32", "description": "The HTTP status."},
    details={"type": "object", "description": "Which object, and every cause."},
)
_DELETE_OPTIONS = _of(
    "How to delete.",
    **_HEAD,
    gracePeriodSeconds={"type": "integer", "format": "int64", "description": "Seconds for an orderly end; 0 is now."},
    propagationPolicy=_text("What becomes of objects it owns: Foreground, Background or Orphan."),
    orphanDependents={"type": "boolean", "description": "Old form of propagationPolicy Orphan."},
    dryRun=_texts("All: only try."),
    preconditions=_of("What must be true of the object.", uid=_text("Its UID."), resourceVersion=_text("Its version.")),
    ignoreStoreReadErrorWithClusterBreakingPotential={"type": "boolean", "description": "Delete what can't be read."},
)
_WATCH_EVENT = _of("One change.", type=_text("ADDED, MODIFIED, DELETED, BOOKMARK or ERROR."), object={"type": "object"})


_SCALARS: Document = {
    QUANTITY_NAME: {"description": "An amount such as 500m, 2, 1Gi.", "oneOf": _EITHER},
    INT_OR_STRING_NAME: {"description": "A number or a text.", "format": "int-or-string", "oneOf": _EITHER},
}


def common(*, v3: bool) -> Document:
    """Definitions that every document needs."""
    return {
        OBJECT_META_NAME: published(OBJECT_META, v3=v3),
        LIST_META_NAME: _LIST_META,
        STATUS_NAME: {**_STATUS, "x-kubernetes-group-version-kind": [identity("", "v1", "Status")]},
        DELETE_OPTIONS_NAME: _DELETE_OPTIONS,
        PATCH_NAME: {"type": "object", "description": "A change to an object, in the form its content type names."},
        WATCH_EVENT_NAME: _WATCH_EVENT,
        **(_SCALARS if v3 else {}),
    }


def anything(kind: str) -> Document:
    """A kind that only a subresource speaks, and that is not described here."""
    properties = {"metadata": {"type": "object"}, **_HEAD}
    return {
        "type": "object",
        "description": f"{kind}, not described further.",
        "properties": properties,
        "x-kubernetes-preserve-unknown-fields": True,
    }
