"""The paths of groups that are served beside the stored ones, for OpenAPI v2 and v3. Pure.

Such a group says which resources it has and with which verbs, no more: so bodies and answers are described as objects.
"""

from collections.abc import Iterable
from typing import Any

from hotvirt.kube.aggregated import AggregatedGroup, ServedResource

Document = dict[str, Any]
_METHODS = {"get": ("get", "connect"), "update": ("put", "put"), "create": ("post", "post")}
_JSON = "application/json"


def paths(groups: Iterable[AggregatedGroup], *, v3: bool, group_version: str = "") -> Document:
    """Of all groups, or of one version of one."""
    found: Document = {}
    for group in groups:
        for version in group.versions:
            if group_version in ("", f"{group.name}/{version}"):
                for each in group.resources:
                    found[_path(group.name, version, each)] = _item(group.name, version, each, v3=v3)
    return found


def group_versions(groups: Iterable[AggregatedGroup]) -> list[str]:
    return [f"{group.name}/{version}" for group in groups for version in group.versions]


def _path(group: str, version: str, resource: ServedResource) -> str:
    plural, _, subresource = resource.name.partition("/")
    parts = ["/apis", group, version, *(["namespaces", "{namespace}"] if resource.namespaced else []), plural]
    return "/".join([*parts, *(["{name}", subresource] if subresource else [])])


def _item(group: str, version: str, resource: ServedResource, *, v3: bool) -> Document:
    path = _path(group, version, resource)
    places = [_place(name, v3=v3) for name in ("namespace", "name") if f"{{{name}}}" in path]
    item: Document = {"parameters": places} if places else {}
    for verb in resource.verbs:
        method, action = _METHODS[verb]
        item[method] = {
            "description": f"{verb} {resource.name}",
            "operationId": f"{version}{method}{''.join(part.title() for part in resource.name.split('/'))}",
            "tags": [f"{group.partition('.')[0]}_{version}"],
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": resource.kind},
            "responses": {"200": {"description": "OK"}, "401": {"description": "Unauthorized"}},
            **_body(v3=v3, takes=method != "get"),
        }
    return item


def _body(*, v3: bool, takes: bool) -> Document:
    if v3:
        content = {_JSON: {"schema": {"type": "object"}}}
        return {"requestBody": {"content": content, "required": False}} if takes else {}
    body = [{"name": "body", "in": "body", "required": False, "schema": {"type": "object"}}]
    return {"produces": [_JSON], "consumes": [_JSON], "schemes": ["https"], **({"parameters": body} if takes else {})}


def _place(name: str, *, v3: bool) -> Document:
    text = {"type": "string"}
    return {
        "name": name, "in": "path", "required": True, "description": f"The {name}.",
        **({"schema": text} if v3 else {**text, "uniqueItems": True}),
    }  # fmt: skip
