"""The paths and operations of one resource, for OpenAPI v2 and v3. Pure."""

from collections.abc import Iterable
from typing import Any

from hotvirt.kube.resources import Resource
from hotvirt.server.openapi_schemas import DELETE_OPTIONS_NAME, PATCH_NAME, STATUS_NAME, identity, reference

Document = dict[str, Any]

# Strategic merge patches are accepted for built-in kinds but not announced: kubectl would take the merge keys from
# these schemas, which are short; without the announcement it uses those it was built with.
PATCH_TYPES = ("application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml")
_JSON = "application/json"

_TEXT, _FLAG, _COUNT = {"type": "string"}, {"type": "boolean"}, {"type": "integer"}
_PRETTY = ("pretty", _TEXT, "Indent the answer.")
_LISTING = (
    _PRETTY,
    ("labelSelector", _TEXT, "Only objects whose labels match."),
    ("fieldSelector", _TEXT, "Only objects whose fields match."),
    ("limit", _COUNT, "At most this many; the rest with continue."),
    ("continue", _TEXT, "Where the last page ended."),
    ("resourceVersion", _TEXT, "How fresh the answer must be, or where a watch begins."),
    ("resourceVersionMatch", _TEXT, "Exact or NotOlderThan."),
    ("timeoutSeconds", _COUNT, "End after so many seconds."),
    ("watch", _FLAG, "Send changes as they happen."),
    ("allowWatchBookmarks", _FLAG, "Send the version now and then."),
    ("sendInitialEvents", _FLAG, "Begin a watch with what is there."),
)
_WRITING = (
    _PRETTY,
    ("dryRun", _TEXT, "All: only try."),
    ("fieldManager", _TEXT, "Who owns the fields written."),
    ("fieldValidation", _TEXT, "What to do with unknown fields: Ignore, Warn or Strict."),
)
_PATCHING = (*_WRITING, ("force", _FLAG, "Take fields from other managers (apply only)."))
_DELETING = (
    _PRETTY,
    ("dryRun", _TEXT, "All: only try."),
    ("gracePeriodSeconds", _COUNT, "Seconds for an orderly end."),
    ("propagationPolicy", _TEXT, "What becomes of objects it owns."),
    ("orphanDependents", _FLAG, "Old form of propagationPolicy Orphan."),
)
_ACTIONS: dict[str, tuple[str, str, tuple[Any, ...]]] = {
    # verb: HTTP method, action, parameters
    "list": ("get", "list", _LISTING),
    "create": ("post", "post", _WRITING),
    "deletecollection": ("delete", "deletecollection", (*_LISTING, *_DELETING[1:])),
    "get": ("get", "get", (_PRETTY,)),
    "update": ("put", "put", _WRITING),
    "patch": ("patch", "patch", _PATCHING),
    "delete": ("delete", "delete", _DELETING),
}
_ON_COLLECTION, _ON_OBJECT = ("list", "create", "deletecollection"), ("get", "update", "patch", "delete")


class Writer:
    """Writes the path items of one document version into `paths`."""

    def __init__(self, paths: Document, *, v3: bool) -> None:
        self.paths, self.v3 = paths, v3

    def add(self, resource: Resource, verbs: Iterable[str], name: str, list_name: str) -> None:
        """The resource's collection and objects. `name` and `list_name` are definitions."""
        known = set(verbs)
        scope = "{namespace}" if resource.namespaced else None
        collection, one = resource.path(scope), resource.path(scope, "{name}")
        self._add(collection, resource, known & set(_ON_COLLECTION), name, list_name)
        self._add(one, resource, known & set(_ON_OBJECT), name, list_name)
        if resource.namespaced and "list" in known:
            self._add(resource.path(), resource, {"list"}, name, list_name, suffix="ForAllNamespaces")

    def add_subresource(
        self, resource: Resource, subresource: str, verbs: Iterable[str], name: str, kind: Document
    ) -> None:
        path = resource.path("{namespace}" if resource.namespaced else None, "{name}", subresource)
        self._add(path, resource, set(verbs) & set(_ACTIONS), name, name, suffix=_title(subresource), kind=kind)

    def _add(
        self,
        path: str,
        resource: Resource,
        verbs: set[str],
        name: str,
        list_name: str,
        *,
        suffix: str = "",
        kind: Document | None = None,
    ) -> None:
        if not verbs:
            return
        item: Document = self.paths.setdefault(path, {})
        if places := [self._place(place) for place in ("namespace", "name") if f"{{{place}}}" in path]:
            item["parameters"] = places
        about = kind or identity(resource.group, resource.version, resource.kind)
        for verb in sorted(verbs):
            method, action, parameters = _ACTIONS[verb]
            operation = self._operation(verb, name, list_name, parameters)
            operation["operationId"] = _operation_id(resource, verb, suffix)
            operation["tags"] = [_title(resource.group.split(".")[0] or "core").lower() + "_" + resource.version]
            operation["x-kubernetes-action"] = action
            operation["x-kubernetes-group-version-kind"] = about
            item[method] = operation

    def _place(self, name: str) -> Document:
        return self._parameter(name, _TEXT, f"The {name}.", place="path")

    def _parameter(self, name: str, schema: Document, about: str, *, place: str = "query") -> Document:
        made: Document = {"name": name, "in": place, "description": about}
        if place == "path":
            made["required"] = True
        return {**made, "schema": schema} if self.v3 else {**made, **schema, "uniqueItems": True}

    def _operation(self, verb: str, name: str, list_name: str, parameters: Iterable[Any]) -> Document:
        body = {"create": name, "update": name, "patch": PATCH_NAME, "delete": DELETE_OPTIONS_NAME}.get(verb)
        answer = {"list": list_name, "delete": STATUS_NAME, "deletecollection": STATUS_NAME}.get(verb, name)
        codes = {"create": ("200", "201", "202"), "update": ("200", "201"), "patch": ("200", "201")}.get(verb, ("200",))
        made: Document = {
            "description": f"{verb} {name.rsplit('.', 1)[-1]}",
            "parameters": [self._parameter(*parameter) for parameter in parameters],
            "responses": {code: self._answer(answer) for code in codes} | {"401": {"description": "Unauthorized"}},
        }
        takes = PATCH_TYPES if verb == "patch" else (_JSON,)
        if self.v3:
            if body:
                content = {kind: {"schema": reference(body, v3=True)} for kind in takes}
                made["requestBody"] = {"content": content, "required": verb != "delete"}
            return made
        made["consumes"], made["produces"] = list(takes), [_JSON]
        made["schemes"] = ["https"]
        if body:
            made["parameters"].append(
                {"name": "body", "in": "body", "required": verb != "delete", "schema": reference(body, v3=False)}
            )
        return made

    def _answer(self, name: str) -> Document:
        schema = reference(name, v3=self.v3)
        return {"description": "OK", **({"content": {_JSON: {"schema": schema}}} if self.v3 else {"schema": schema})}


def _title(text: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in text.replace("-", ".").replace("/", ".").split("."))


def _operation_id(resource: Resource, verb: str, suffix: str) -> str:
    scope = "Namespaced" if resource.namespaced and suffix != "ForAllNamespaces" else ""
    word = {"get": "read", "update": "replace", "deletecollection": "deleteCollection"}.get(verb, verb)
    return f"{word}{_title(resource.group or 'core')}{_title(resource.version)}{scope}{resource.kind}{suffix}"
