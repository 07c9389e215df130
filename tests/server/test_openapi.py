# ruff: noqa: E501  # the tables read better unbroken
"""OpenAPI documents: complete, self-consistent, and saying what clients look for."""

import json
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec import Struct

from hotvirt.kube import resources
from hotvirt.kube.resources import Resource
from hotvirt.server import openapi, openapi_protobuf
from hotvirt.server.registry import ALL_VERBS
from hotvirt.server.schema import Schema, compile_schema

THING: dict[str, Any] = {
    "type": "object",
    "description": "A thing.",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "size": {"type": "integer", "default": 1, "description": "How big."},
                "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {"a": {"type": "string"}}},
                "none": {"type": "string", "nullable": True},
                "port": {"x-kubernetes-int-or-string": True},
                "one": {"type": "object", "oneOf": [{"required": ["x"]}], "properties": {"x": {"type": "string"}}},
                "embedded": {"type": "object", "x-kubernetes-embedded-resource": True, "properties": {"spec": {"type": "object"}}},
            },
        }
    },
}  # fmt: skip


class Sub(Struct, frozen=True):
    name: str
    kind: str
    verbs: tuple[str, ...] = ("get", "update", "patch")
    group: str = ""
    version: str = ""


class Row(Struct, frozen=True):
    resource: Resource
    schema: Schema | None = None
    verbs: tuple[str, ...] = ALL_VERBS
    subresources: tuple[Sub, ...] = ()


ROWS = [
    Row(Resource("example.com", "v1", "things", "Thing"), compile_schema(THING), subresources=(
        Sub("status", "Thing"), Sub("scale", "Scale", group="autoscaling", version="v1"))),
    Row(resources.PODS, subresources=(Sub("status", "Pod"), Sub("binding", "Binding", ("create",)), Sub("log", "Pod", ("get",)))),
    Row(resources.NAMESPACES),
    Row(resources.CRDS),
    Row(Resource("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False), verbs=("create",)),
]  # fmt: skip
GVK = "x-kubernetes-group-version-kind"


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for below in node.values():
            yield from references(below)
    elif isinstance(node, list):
        for below in node:
            yield from references(below)


def find(document: Any, reference: str) -> Any:
    for part in reference.removeprefix("#/").split("/"):
        document = document[part]
    return document


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                yield path, method, operation


@pytest.fixture(scope="module")
def every() -> list[dict[str, Any]]:
    groups = sorted({row.resource.api_version for row in ROWS})
    documents = [openapi.v3(ROWS, group) for group in groups]
    assert all(documents)
    return [openapi.v2(ROWS), *(d for d in documents if d)]


def test_every_reference_leads_somewhere_and_every_operation_has_a_name_of_its_own(every: list[dict[str, Any]]) -> None:
    for document in every:
        for reference in set(references(document)):
            assert find(document, reference)
        names = [operation["operationId"] for _, _, operation in operations(document)]
        assert len(names) == len(set(names))
        for path, method, operation in operations(document):
            assert operation["responses"], (path, method)
            assert operation[GVK]["kind"]
            item = document["paths"][path]
            places = {p["name"] for p in item.get("parameters", ()) if p["in"] == "path"}
            assert places == {part[1:-1] for part in path.split("/") if part.startswith("{")}


def test_paths_and_verbs() -> None:
    document = openapi.v3(ROWS, "example.com/v1")
    assert document is not None
    at = "/apis/example.com/v1/namespaces/{namespace}/things"
    assert {path: sorted(item.keys() - {"parameters"}) for path, item in document["paths"].items()} == {
        "/apis/example.com/v1/things": ["get"],
        at: ["delete", "get", "post"],
        at + "/{name}": ["delete", "get", "patch", "put"],
        at + "/{name}/status": ["get", "patch", "put"],
        at + "/{name}/scale": ["get", "patch", "put"],
    }
    patch = document["paths"][at + "/{name}"]["patch"]
    assert {p["name"] for p in patch["parameters"]} >= {"dryRun", "fieldManager", "fieldValidation", "force"}
    assert patch[GVK] == {"group": "example.com", "version": "v1", "kind": "Thing"}
    assert patch["x-kubernetes-action"] == "patch"
    assert "application/apply-patch+yaml" in patch["requestBody"]["content"]
    assert document["paths"][at + "/{name}/scale"]["get"][GVK]["group"] == "autoscaling"
    core = openapi.v3(ROWS, "v1")
    assert core is not None
    assert "/api/v1/namespaces/{namespace}/pods/{name}/binding" in core["paths"]
    assert "/api/v1/namespaces/{name}" in core["paths"]
    assert openapi.v3(ROWS, "nobody.com/v1") is None


def test_schemas_say_which_kind_they_are() -> None:
    document = openapi.v3(ROWS, "v1")
    assert document is not None
    schemas = document["components"]["schemas"]
    pod = schemas["io.k8s.api.core.v1.Pod"]
    assert pod[GVK] == [{"group": "", "version": "v1", "kind": "Pod"}]
    assert schemas["io.k8s.api.core.v1.PodList"][GVK][0]["kind"] == "PodList"
    assert pod["properties"]["metadata"]["allOf"] == [
        {"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
    ]
    assert pod["properties"]["spec"]["properties"]["containers"]["x-kubernetes-list-map-keys"] == ["name"]
    thing = openapi.v3(ROWS, "example.com/v1")
    assert thing is not None
    spec = thing["components"]["schemas"]["com.example.v1.Thing"]["properties"]["spec"]["properties"]
    assert spec["size"] == {"type": "integer", "default": 1, "description": "How big."}
    assert spec["port"]["allOf"] == [{"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.util.intstr.IntOrString"}]
    requests = find(pod, "properties/spec/properties/resources/properties/requests/additionalProperties")
    assert requests["allOf"] == [{"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.api.resource.Quantity"}]
    assert "allOf" in spec["embedded"]["properties"]["metadata"]


def test_v2_says_nothing_that_its_clients_would_misread() -> None:
    spec = openapi.v2(ROWS)["definitions"]["com.example.v1.Thing"]["properties"]["spec"]["properties"]
    assert spec["any"] == {"x-kubernetes-preserve-unknown-fields": True}
    assert spec["none"] == {}
    assert spec["port"] == {"x-kubernetes-int-or-string": True}
    assert "oneOf" not in spec["one"]
    assert spec["size"] == {"type": "integer", "description": "How big."}


def test_v2_leaves_built_in_kinds_that_are_not_described_in_full_to_what_kubectl_knows() -> None:
    rows = [*ROWS, Row(resources.SERVICE_ACCOUNTS)]
    definitions = openapi.v2(rows)["definitions"]
    assert GVK not in definitions["io.k8s.api.core.v1.Pod"]
    assert GVK in definitions["com.example.v1.Thing"]
    account = definitions["io.k8s.api.core.v1.ServiceAccount"]
    assert account[GVK] == [{"group": "", "version": "v1", "kind": "ServiceAccount"}]
    assert account["properties"]["secrets"]["x-kubernetes-patch-merge-key"] == "name"
    containers = definitions["io.k8s.api.core.v1.Pod"]["properties"]["spec"]["properties"]["containers"]
    assert containers["x-kubernetes-patch-strategy"] == "merge"
    assert containers["items"]["properties"]["env"]["x-kubernetes-patch-merge-key"] == "name"


def decoded(body: bytes) -> list[tuple[int, Any]]:
    """The fields of one protobuf message, by hand."""
    found: list[tuple[int, Any]] = []
    at = 0

    def varint() -> int:
        nonlocal at
        number = shift = 0
        while True:
            byte = body[at]
            at += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number

    while at < len(body):
        tag = varint()
        if tag & 7 == 2:
            size = varint()
            found.append((tag >> 3, body[at : at + size]))
            at += size
        elif tag & 7 == 1:
            found.append((tag >> 3, struct.unpack("<d", body[at : at + 8])[0]))
            at += 8
        else:
            found.append((tag >> 3, varint()))
    return found


def test_the_protobuf_form_carries_the_same() -> None:
    document = openapi.v2(ROWS)
    top = dict(decoded(openapi_protobuf.encode(document)))
    assert top[1] == b"2.0"
    paths = [dict(decoded(entry)) for _, entry in decoded(top[8])]
    assert [path[1].decode() for path in paths] == list(document["paths"])
    definitions = {dict(decoded(entry))[1].decode(): dict(decoded(entry))[2] for _, entry in decoded(top[9])}
    assert list(definitions) == list(document["definitions"])
    thing = decoded(definitions["com.example.v1.Thing"])
    assert (4, b"A thing.") in thing
    extension = dict(decoded(next(body for number, body in thing if number == 31)))
    assert extension[1].decode() == GVK
    assert json.loads(dict(decoded(extension[2]))[2])[0]["kind"] == "Thing"


def test_the_index_points_at_each_document_and_changes_with_it() -> None:
    paths = openapi.v3_index(ROWS)["paths"]
    assert set(paths) == {
        "api/v1",
        "apis/apiextensions.k8s.io/v1",
        "apis/authorization.k8s.io/v1",
        "apis/example.com/v1",
    }
    assert paths["api/v1"]["serverRelativeURL"].startswith("/openapi/v3/api/v1?hash=")
    changed = [Row(ROWS[0].resource, compile_schema({**THING, "description": "Another."})), *ROWS[1:]]
    again = openapi.v3_index(changed)["paths"]
    assert {key for key in paths if paths[key] != again[key]} == {"apis/example.com/v1"}
