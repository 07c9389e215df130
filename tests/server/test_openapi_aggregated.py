"""The paths of groups beside the stored ones, in both versions of OpenAPI."""

from types import SimpleNamespace

import pytest

from hotvirt.kube.aggregated import ServedResource
from hotvirt.server import openapi, openapi_protobuf

DOORS = SimpleNamespace(
    name="doors.example.com",
    versions=("v1", "v1beta1"),
    resources=(
        ServedResource("houses/open", "House", verbs=("update",)),
        ServedResource("houses/look/inside", "House"),
        ServedResource("plan", "", namespaced=True, verbs=("update",)),
        ServedResource("version", "", namespaced=False),
    ),
)
BASE = "/apis/doors.example.com/v1"
PATHS = {
    f"{BASE}/namespaces/{{namespace}}/houses/{{name}}/open": "put",
    f"{BASE}/namespaces/{{namespace}}/houses/{{name}}/look/inside": "get",
    f"{BASE}/namespaces/{{namespace}}/plan": "put",
    f"{BASE}/version": "get",
}


def test_each_resource_has_its_path_and_method():
    document = openapi.v3((), "doors.example.com/v1", (DOORS,))
    assert {path: set(item) - {"parameters"} for path, item in document["paths"].items()} == {
        path: {method} for path, method in PATHS.items()
    }
    assert openapi.v3((), "doors.example.com/v2", (DOORS,)) is None
    whole = openapi.v2((), (DOORS,))["paths"]
    assert len(whole) == 2 * len(PATHS)
    assert whole[f"{BASE}/version"]["get"]["x-kubernetes-group-version-kind"]["group"] == "doors.example.com"
    assert openapi_protobuf.encode(openapi.v2((), (DOORS,)))


@pytest.mark.parametrize("path", PATHS)
def test_places_are_named(path):
    for paths in (openapi.v2((), (DOORS,))["paths"], openapi.v3((), "doors.example.com/v1", (DOORS,))["paths"]):
        named = [each["name"] for each in paths[path].get("parameters", ()) if each["in"] == "path"]
        assert named == [place for place in ("namespace", "name") if f"{{{place}}}" in path]


def test_the_index_names_both_versions():
    assert openapi.v3_index((), (DOORS,))["paths"].keys() == {
        "apis/doors.example.com/v1", "apis/doors.example.com/v1beta1"
    }  # fmt: skip


def test_operations_have_names_of_their_own():
    paths = openapi.v2((), (DOORS,))["paths"].values()
    names = [operation["operationId"] for item in paths for key, operation in item.items() if key != "parameters"]
    assert len(names) == len(set(names))
