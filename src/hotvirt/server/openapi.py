"""The OpenAPI documents that clients discover: one v2 document for all, and v3 documents, one a group and version.

What is served is handed in as `Described` things (the registry's rows are such). The documents are built anew at each
call and are large: the server keeps the encoded bytes until what it serves changes. Pure.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from hotvirt.kube.aggregated import AggregatedGroup
from hotvirt.kube.resources import Resource
from hotvirt.server import openapi_aggregated
from hotvirt.server.builtin_schemas import schema_for
from hotvirt.server.openapi_paths import Writer
from hotvirt.server.openapi_schemas import (
    anything,
    common,
    identity,
    is_built_in,
    keeps_unknown,
    list_schema,
    name_of,
    published,
)
from hotvirt.server.patches.merge_keys import Merge, of_kind, of_type
from hotvirt.server.schema import Schema

Document = dict[str, Any]
_VERSION = "v1.36.0"


class DescribedSubresource(Protocol):
    """`group` and `version` are those of `kind` where it is not the resource's own; else empty."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def verbs(self) -> tuple[str, ...]: ...
    @property
    def group(self) -> str: ...
    @property
    def version(self) -> str: ...


class Described(Protocol):
    """One served resource. Without a schema the built-in one is taken."""

    @property
    def resource(self) -> Resource: ...
    @property
    def schema(self) -> Schema | None: ...
    @property
    def verbs(self) -> tuple[str, ...]: ...
    @property
    def subresources(self) -> Sequence[DescribedSubresource]: ...


def v2(
    definitions: Iterable[Described], groups: Sequence[AggregatedGroup] = (), *, version: str = _VERSION
) -> Document:
    """The OpenAPI v2 (Swagger) document of everything."""
    paths, schemas = _build(definitions, v3=False)
    paths |= openapi_aggregated.paths(groups, v3=False)
    return {
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": version},
        "paths": paths,
        "definitions": schemas,
        "securityDefinitions": {
            "BearerToken": {"type": "apiKey", "name": "authorization", "in": "header", "description": "A bearer token."}
        },
        "security": [{"BearerToken": []}],
    }


def v3(
    definitions: Iterable[Described],
    group_version: str,
    groups: Sequence[AggregatedGroup] = (),
    *,
    version: str = _VERSION,
) -> Document | None:
    """The OpenAPI v3 document of `kubevirt.io/v1` or `v1`; None when nothing of it is served."""
    wanted = [each for each in definitions if each.resource.api_version == group_version]
    beside = openapi_aggregated.paths(groups, v3=True, group_version=group_version)
    return _v3(wanted, version, beside) if wanted or beside else None


def v3_index(
    definitions: Iterable[Described], aggregated: Sequence[AggregatedGroup] = (), *, version: str = _VERSION
) -> Document:
    """What is at /openapi/v3: where each document is, with a hash that changes as the document does."""
    groups: dict[str, list[Described]] = {}
    for each in definitions:
        groups.setdefault(each.resource.api_version, []).append(each)
    for group_version in openapi_aggregated.group_versions(aggregated):
        groups.setdefault(group_version, [])
    paths = {}
    for group_version, wanted in sorted(groups.items()):
        path = f"{'apis' if '/' in group_version else 'api'}/{group_version}"
        beside = openapi_aggregated.paths(aggregated, v3=True, group_version=group_version)
        digest = hashlib.sha256(msgspec.json.encode(_v3(wanted, version, beside))).hexdigest().upper()
        paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest}"}
    return {"paths": paths}


def _v3(definitions: Iterable[Described], version: str, beside: Document) -> Document:
    paths, schemas = _build(definitions, v3=True)
    paths |= beside
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": version},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "BearerToken": {
                    "type": "apiKey", "name": "authorization", "in": "header", "description": "A bearer token.",
                }
            },
        },
    }  # fmt: skip


def _build(definitions: Iterable[Described], *, v3: bool) -> tuple[Document, Document]:
    paths: Document = {}
    schemas: Document = common(v3=v3)
    writer = Writer(paths, v3=v3)
    for each in definitions:
        resource = each.resource
        name = name_of(resource.group, resource.version, resource.kind)
        list_name = name + "List"
        openapi = each.schema.openapi if each.schema else schema_for(resource.api_version, resource.kind)
        if is_built_in(resource.group):
            openapi = _with_merge_keys(openapi, of_kind(resource.kind))
        schemas[name] = published(openapi, v3=v3, root=True)
        if v3 or not is_built_in(resource.group) or not keeps_unknown(openapi):
            schemas[name] = _identified(schemas[name], resource, resource.kind)
        if "list" in each.verbs:
            schemas[list_name] = _identified(
                list_schema(name, resource.kind, v3=v3), resource, resource.kind + "List"
            )  # fmt: skip
        writer.add(resource, each.verbs, name, list_name)
        for sub in each.subresources:
            group, version = (sub.group, sub.version) if sub.version else (resource.group, resource.version)
            kind_name = name_of(group, version, sub.kind)
            about = identity(group, version, sub.kind)
            if kind_name not in schemas and sub.kind != resource.kind:
                schemas[kind_name] = {**anything(sub.kind), "x-kubernetes-group-version-kind": [about]}
            writer.add_subresource(resource, sub.name, sub.verbs, kind_name, about)
    return paths, schemas


def _with_merge_keys(schema: Document, fields: Mapping[str, Merge]) -> Document:
    """The schema saying how its lists merge: an old kubectl makes its patches by that."""
    properties = dict(schema.get("properties") or {})
    for name, merge in fields.items():
        below = properties.get(name)
        if below is None:
            continue
        marks: Document = {}
        if merge.key or merge.primitive:
            marks["x-kubernetes-patch-strategy"] = "merge,retainKeys" if merge.retain else "merge"
        elif merge.retain:
            marks["x-kubernetes-patch-strategy"] = "retainKeys"
        if merge.key:
            marks["x-kubernetes-patch-merge-key"] = merge.key
        inner = of_type(merge.of)
        if "items" in below:
            below = {**below, "items": _with_merge_keys(below["items"], inner)}
        elif inner:
            below = _with_merge_keys(below, inner)
        properties[name] = {**below, **marks}
    return {**schema, "properties": properties}


def _identified(schema: Document, resource: Resource, kind: str) -> Document:
    return {**schema, "x-kubernetes-group-version-kind": [identity(resource.group, resource.version, kind)]}
