# ruff: noqa: E501  # the tables read better unbroken
"""CRDs: what is refused with which path, what is served, and the status that the server writes."""

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotvirt.server import crd

SPEC: dict[str, Any] = {"type": "object", "properties": {"size": {"type": "integer"}}}


def version(name: str = "v1", *, storage: bool = True, **more: Any) -> dict[str, Any]:
    openapi = {"type": "object", "properties": {"spec": SPEC}}
    return {"name": name, "served": True, "storage": storage, "schema": {"openAPIV3Schema": openapi}, **more}


def make(*versions: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com",
            "names": {"plural": "things", "kind": "Thing"},
            "scope": "Namespaced",
            "versions": list(versions) or [version()],
            **spec,
        },
    }


def schema(**node: Any) -> dict[str, Any]:
    """A CRD whose `spec.x` is the node."""
    spec = {"type": "object", "properties": {"x": node}}
    openapi = {"type": "object", "properties": {"spec": spec}}
    return make(version(schema={"openAPIV3Schema": openapi}))


def faults(doc: dict[str, Any]) -> list[tuple[str, str]]:
    return [(cause.field, cause.message) for cause in crd.check(doc)]


def test_a_good_one_has_no_faults() -> None:
    columns = [{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]
    scale = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
    good = make(
        version("v1", additionalPrinterColumns=columns, subresources={"status": {}, "scale": scale}),
        version("v1alpha3", storage=False, deprecated=True),
    )
    before = copy.deepcopy(good)
    assert faults(good) == []
    assert good == before


@pytest.mark.parametrize(
    ("doc", "field", "words"),
    [
        ({"spec": {}}, "spec.group", "Required value"),
        (make(scope="Galaxy"), "spec.scope", 'Unsupported value: "Galaxy": supported values: "Cluster", "Namespaced"'),
        (make(group="example"), "metadata.name", 'must be spec.names.plural+"."+spec.group'),
        (make(group="example"), "spec.group", "should be a domain with at least one dot"),
        (make(names={"plural": "Things", "kind": "Thing"}), "spec.names.plural", "must be a DNS label"),
        (make(names={"plural": "things", "kind": "Thing", "shortNames": ["t_"]}), "spec.names.shortNames[0]", "DNS label"),
        (make(names={"plural": "things", "kind": "Thing", "listKind": "Thing"}), "spec.names.listKind", "may not be the same"),
        (make(version(), version("v2")), "spec.versions", "must have exactly one version marked as storage version"),
        (make(version(), version(storage=False)), "spec.versions[1].name", 'Duplicate value: "v1"'),
        (make(version("V1")), "spec.versions[0].name", "DNS label"),
        (make(version(schema={})), "spec.versions[0].schema.openAPIV3Schema", "Required value: schemas are required"),
        (make(version(schema={"openAPIV3Schema": {"type": "string"}})), "spec.versions[0].schema.openAPIV3Schema.type",
         'Invalid value: "string": must be object at the root'),
        (make(conversion={"strategy": "Webhook"}), "spec.conversion.strategy", 'supported values: "None"'),
        (make(preserveUnknownFields=True), "spec.preserveUnknownFields", "must be false"),
        (make(version(deprecationWarning="x")), "spec.versions[0].deprecationWarning", "only be set for deprecated"),
        (make(version(additionalPrinterColumns=[{"name": "A", "type": "text", "jsonPath": ".a"}])),
         "spec.versions[0].additionalPrinterColumns[0].type", 'Unsupported value: "text"'),
        (make(version(additionalPrinterColumns=[{"name": "A", "type": "string", "jsonPath": ".a["}])),
         "spec.versions[0].additionalPrinterColumns[0].jsonPath", "can't read"),
        (make(version(subresources={"scale": {"specReplicasPath": ".status.n", "statusReplicasPath": ".status.n"}})),
         "spec.versions[0].subresources.scale.specReplicasPath", "should be a json path under .spec"),
        (make(version(selectableFields=[{"jsonPath": ".spec.list[0]"}])),
         "spec.versions[0].selectableFields[0].jsonPath", "must be a plain path"),
    ],
)  # fmt: skip
def test_refusals(doc: dict[str, Any], field: str, words: str) -> None:
    found = dict(faults(doc))
    assert words in found.get(field, str(found))
    assert field in found


X = "spec.versions[0].schema.openAPIV3Schema.properties[spec].properties[x]"


@pytest.mark.parametrize(
    ("node", "field", "words"),
    [
        ({}, ".type", "Required value: must not be empty for specified object fields"),
        ({"type": "text"}, ".type", 'Unsupported value: "text": supported values: "array"'),
        ({"type": "array"}, ".items", "Required value: must be specified"),
        ({"type": "array", "items": {}}, ".items.type", "Required value: must not be empty for array items"),
        ({"type": "array", "items": [SPEC]}, ".items", "must be a schema object"),
        ({"type": "array", "items": SPEC, "uniqueItems": True}, ".uniqueItems", "Forbidden"),
        ({"type": "object", "additionalProperties": SPEC, "properties": {"a": SPEC}}, ".additionalProperties", "mutual"),
        ({"type": "object", "additionalProperties": False}, ".additionalProperties", "cannot be set to false"),
        ({"$ref": "#/x", "type": "object"}, ".$ref", "not supported"),
        ({"type": "string", "pattern": "("}, ".pattern", "must be a valid regular expression"),
        ({"type": "string", "pattern": 3}, ".pattern", "must be a regular expression"),
        ({"type": "string", "minLength": "3"}, ".minLength", "must be a number"),
        ({"type": "string", "enum": "a"}, ".enum", "must be a list of values"),
        ({"type": "object", "properties": []}, ".properties", "must be an object of schemas"),
        ({"type": "object", "properties": {"a": 1}}, ".properties[a]", "must be a schema object"),
        ({"type": "integer", "x-kubernetes-int-or-string": True}, ".type", "must be empty if x-kubernetes-int-or-string"),
        ({"type": "object", "allOf": [{"properties": {"a": {"type": "object"}}}]}, ".allOf[0].properties[a].type",
         "must be empty to be structural"),
        ({"type": "object", "not": {"default": 1}}, ".not.default", "must be empty to be structural"),
        ({"type": "string", "x-kubernetes-embedded-resource": True}, ".type", "must be object"),
        ({"type": "array", "items": SPEC, "x-kubernetes-list-type": "bag"}, ".x-kubernetes-list-type", 'value: "bag"'),
        ({"type": "array", "items": SPEC, "x-kubernetes-list-type": "map"}, ".x-kubernetes-list-map-keys", "Required"),
        ({"type": "array", "items": SPEC, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["no"]},
         ".x-kubernetes-list-map-keys[0]", "must be one of the item's properties"),
        ({"type": "array", "items": SPEC, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["size"]},
         ".items.properties[size].default", "so it must have a default"),
        ({"type": "integer", "default": "1"}, ".default", "must be of type integer"),
        ({**SPEC, "default": {"colour": 1}}, ".default.colour", "must not have unknown fields"),
    ],
)  # fmt: skip
def test_what_is_not_structural(node: dict[str, Any], field: str, words: str) -> None:
    found = dict(faults(schema(**node)))
    assert words in found.get(X + field, str(found))
    assert X + field in found


@pytest.mark.parametrize(
    "node",
    [
        {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]},
        {"x-kubernetes-preserve-unknown-fields": True},
        {"type": "object", "additionalProperties": True},
        {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string"}}},
        {"type": "object", "x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True},
        {**SPEC, "default": {"size": 1}, "nullable": True, "oneOf": [{"required": ["size"]}, {"not": {"required": ["size"]}}]},
        {"type": "array", "items": {**SPEC, "required": ["size"]}, "x-kubernetes-list-type": "map",
         "x-kubernetes-list-map-keys": ["size"]},
        {"type": "string", "pattern": "^[[:alpha:]]+$", "x-kubernetes-validations": [{"rule": "self != ''"}]},
    ],
)  # fmt: skip
def test_what_is_structural(node: dict[str, Any]) -> None:
    assert faults(schema(**node)) == []


def test_served_versions() -> None:
    scale = {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n"}
    doc = make(
        version("v1alpha3", storage=False, deprecated=True),
        version("v1", subresources={"status": {}, "scale": scale}, selectableFields=[{"jsonPath": ".spec.size"}]),
        version("v2", storage=False) | {"served": False},
        names={"plural": "things", "kind": "Thing", "shortNames": ["th"], "categories": ["all"]},
    )
    first, second = crd.served(doc)
    assert (first.name, first.resource.api_version, first.resource.plural, first.resource.namespaced) == (
        "v1", "example.com/v1", "things", True,
    )  # fmt: skip
    assert (first.singular, first.list_kind, first.short_names, first.categories) == (
        "thing", "ThingList", ("th",), ("all",),
    )  # fmt: skip
    assert first.status
    assert first.storage
    assert first.scale == scale
    assert first.selectable_fields == ("spec.size",)
    assert first.schema["properties"]["spec"] == SPEC
    assert second.deprecation_warning == "example.com/v1alpha3 Thing is deprecated"
    assert not second.status
    assert crd.storage_version(doc) == "v1"


def test_version_order() -> None:
    names = ["v1beta1", "foo", "v10", "v2", "v1alpha1", "v1", "v11beta2", "bar", "v1beta2"]
    assert sorted(names, key=crd.version_rank) == [
        "v10", "v2", "v1", "v11beta2", "v1beta2", "v1beta1", "v1alpha1", "bar", "foo",
    ]  # fmt: skip


def test_status() -> None:
    doc = make()
    first = crd.status_of(doc, "2026-01-01T00:00:00Z")
    assert [(c["type"], c["status"]) for c in first["conditions"]] == [
        ("NamesAccepted", "True"),
        ("Established", "True"),
    ]
    assert first["acceptedNames"] == {"plural": "things", "kind": "Thing", "singular": "thing", "listKind": "ThingList"}
    assert first["storedVersions"] == ["v1"]
    again = crd.status_of({**make(version("v2")), "status": first}, "2026-02-02T00:00:00Z")
    assert again["storedVersions"] == ["v1", "v2"]
    assert again["conditions"] == first["conditions"]
    refused = crd.status_of({**doc, "status": first}, "2026-03-03T00:00:00Z", conflict='"things" is already in use')
    assert refused["conditions"][0]["message"] == '"things" is already in use'
    assert {c["status"] for c in refused["conditions"]} == {"False"}
    assert {c["lastTransitionTime"] for c in refused["conditions"]} == {"2026-03-03T00:00:00Z"}


_words = st.sampled_from([
    "type", "properties", "items", "additionalProperties", "default", "enum", "required", "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys", "allOf", "not", "pattern", "nullable", "minimum", "x",
])  # fmt: skip
_junk = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(["object", "array", "string", "map", "x", "("]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_words, inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=60, deadline=None)
@given(_junk)
def test_no_schema_however_odd_breaks_the_check_and_a_good_one_compiles(node: Any) -> None:
    from hotvirt.server.schema import compile_schema

    openapi = {"type": "object", "properties": {"spec": node}}
    if not crd.check(make(version(schema={"openAPIV3Schema": openapi}))):
        compile_schema(openapi).validate({"spec": {"x": 1}})
