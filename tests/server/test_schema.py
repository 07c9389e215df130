"""Structural schemas: pruning, defaults, every fault at once with Kubernetes' paths, reasons and words."""

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotvirt.kube.errors import Cause
from hotvirt.server import schema
from hotvirt.server.schema import compile_schema


def of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def spec_of(**properties: Any) -> schema.Schema:
    return compile_schema(of(spec=of(**properties)))


TEXT: dict[str, Any] = {"type": "string"}
NUMBER: dict[str, Any] = {"type": "integer"}
HEAD = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a"}}


def faults(compiled: schema.Schema, spec: Any, old: Any = None) -> list[tuple[str, str, str]]:
    before = None if old is None else {**HEAD, "spec": old}
    return [(c.field, c.reason, c.message) for c in compiled.validate({**HEAD, "spec": spec}, before)]


# --- pruning


def test_prune_names_every_unknown_field_and_keeps_the_input() -> None:
    compiled = spec_of(
        a=TEXT,
        list={"type": "array", "items": of(x=TEXT)},
        map={"type": "object", "additionalProperties": of(y=TEXT)},
        open={"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {"in": of(z=TEXT)}},
        any={"x-kubernetes-preserve-unknown-fields": True},
        texts={"type": "object", "additionalProperties": True},
        closed={"type": "object"},
    )
    doc = {
        **HEAD,
        "metadata": {"name": "a", "colour": "red", "labels": {"any": "thing"}},
        "typo": 1,
        "spec": {
            "a": "1",
            "b": 2,
            "list": [{"x": "1"}, {"x": "1", "q": 1}],
            "map": {"k": {"y": "1", "q": 1}},
            "open": {"free": {"x": 1}, "in": {"z": "1", "q": 1}},
            "any": {"x": [{"y": 1}]},
            "texts": {"x": "1"},
            "closed": {"x": 1},
        },
    }
    before = copy.deepcopy(doc)
    kept, unknown = compiled.prune(doc)
    assert doc == before
    assert unknown == (
        "metadata.colour", "typo", "spec.b", "spec.list[1].q", "spec.map.k.q", "spec.open.in.q", "spec.closed.x",
    )  # fmt: skip
    assert kept == {
        **HEAD,
        "metadata": {"name": "a", "labels": {"any": "thing"}},
        "spec": {
            "a": "1",
            "list": [{"x": "1"}, {"x": "1"}],
            "map": {"k": {"y": "1"}},
            "open": {"free": {"x": 1}, "in": {"z": "1"}},
            "any": {"x": [{"y": 1}]},
            "texts": {"x": "1"},
            "closed": {},
        },
    }
    assert compiled.prune(kept) == (kept, ())
    assert compiled.prune(kept)[0] is kept


def test_nulls_go_unless_the_field_is_nullable() -> None:
    compiled = spec_of(a=TEXT, b={**TEXT, "nullable": True}, c={**TEXT, "default": "x"})
    kept, unknown = compiled.prune({**HEAD, "metadata": {"creationTimestamp": None}, "spec": dict.fromkeys("abc")})
    assert unknown == ()
    assert kept == {**HEAD, "metadata": {}, "spec": {"b": None}}
    assert compiled.default(kept)["spec"] == {"b": None, "c": "x"}


def test_embedded_resources_keep_their_head() -> None:
    compiled = spec_of(t={"type": "object", "x-kubernetes-embedded-resource": True, "properties": {"spec": of(a=TEXT)}})
    doc = {**HEAD, "spec": {"t": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "q": 1}, "spec": {}}}}
    kept, unknown = compiled.prune(doc)
    assert unknown == ("spec.t.metadata.q",)
    assert kept["spec"]["t"] == {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {}}
    assert faults(compiled, {"t": {"kind": "Pod"}}) == [
        ("spec.t.apiVersion", "FieldValueRequired", "Required value: must not be empty")
    ]


def test_words_for_strict_and_warn() -> None:
    assert schema.strict_error(["spec.foo"], ["spec.a"]) == (
        'strict decoding error: unknown field "spec.foo", duplicate field "spec.a"'
    )
    assert schema.strict_error([]) is None
    assert schema.field_warnings(["spec.foo"]) == ['unknown field "spec.foo"']


# --- defaults


def test_defaults_reach_every_level_and_share_nothing() -> None:
    compiled = spec_of(
        mode={**TEXT, "default": "auto"},
        box={**of(size={**NUMBER, "default": 3}), "default": {}},
        absent=of(size={**NUMBER, "default": 3}),
        list={"type": "array", "items": of(on={"type": "boolean", "default": True})},
        map={"type": "object", "additionalProperties": of(on={"type": "boolean", "default": True})},
        tags={"type": "array", "items": TEXT, "default": ["a"]},
    )
    doc = {**HEAD, "spec": {"list": [{}, {"on": False}], "map": {"k": {}}}}
    before = copy.deepcopy(doc)
    full = compiled.default(doc)
    assert doc == before
    assert full["spec"] == {
        "mode": "auto",
        "box": {"size": 3},
        "list": [{"on": True}, {"on": False}],
        "map": {"k": {"on": True}},
        "tags": ["a"],
    }
    full["spec"]["tags"].append("b")
    assert compiled.default(doc)["spec"]["tags"] == ["a"]
    assert compiled.default(compiled.default(doc)) is not doc
    done = compiled.default(doc)
    assert compiled.default(done) is done


# --- validation


def test_every_fault_is_found_in_one_pass() -> None:
    compiled = spec_of(
        name=TEXT,
        size=NUMBER,
        on={"type": "boolean"},
        mode={**TEXT, "enum": ["a", "b"]},
        box={**of(x=TEXT), "required": ["x"]},
    )
    assert faults(compiled, {"name": 1, "size": "2", "on": None, "mode": "c", "box": {}}) == [
        ("spec.name", "FieldValueTypeInvalid",
         'Invalid value: "integer": spec.name in body must be of type string: "integer"'),
        ("spec.size", "FieldValueTypeInvalid",
         'Invalid value: "string": spec.size in body must be of type integer: "string"'),
        ("spec.on", "FieldValueTypeInvalid",
         'Invalid value: "null": spec.on in body must be of type boolean: "null"'),
        ("spec.mode", "FieldValueNotSupported", 'Unsupported value: "c": supported values: "a", "b"'),
        ("spec.box.x", "FieldValueRequired", "Required value"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("node", "good", "bad", "words"),
    [
        ({"type": "integer", "minimum": 1}, 1, 0, "should be greater than or equal to 1"),
        ({"type": "integer", "minimum": 1, "exclusiveMinimum": True}, 2, 1, "should be greater than 1"),
        ({"type": "integer", "maximum": 3}, 3, 4, "should be less than or equal to 3"),
        ({"type": "integer", "multipleOf": 2}, 4, 5, "should be a multiple of 2"),
        ({"type": "number", "multipleOf": 0.1}, 0.3, 0.35, "should be a multiple of 0.1"),
        ({"type": "integer"}, 3, 3.5, "must be of type integer"),
        ({"type": "integer"}, 2**63 - 1, 2**63, "must be of type integer"),
        ({"type": "integer", "format": "int32"}, 2**31 - 1, 2**31, "must be of type int32"),
        ({"type": "integer"}, 0, True, "must be of type integer"),
        ({"type": "number"}, 1, "1", "must be of type number"),
        ({"type": "string", "minLength": 2}, "ab", "a", "should be at least 2 chars long"),
        ({"type": "string", "maxLength": 2}, "ab", "abc", "Too long: may not be more than 2 bytes"),
        ({"type": "string", "pattern": "^a+$"}, "aa", "aa\n", "should match '^a+$'"),
        ({"type": "string", "pattern": "^[[:alpha:]-]+$"}, "a-b", "a1", "should match"),
        ({"type": "string", "format": "date-time"}, "2026-01-02T03:04:05Z", "yesterday", "must be of type date-time"),
        ({"type": "string", "format": "ipv4"}, "10.0.0.1", "10.0.0.256", "must be of type ipv4"),
        ({"type": "string", "format": "no-such"}, "x", 1, "must be of type string"),
        ({"type": "array", "items": TEXT, "minItems": 1}, ["a"], [], "should have at least 1 items"),
        ({"type": "array", "items": TEXT, "maxItems": 1}, ["a"], ["a", "b"], "Too many: 2: must have at most 1 items"),
        ({"type": "object", "additionalProperties": TEXT}, {"a": "b"}, {"a": 1}, "spec.x.a in body must be of"),
        ({"type": "object", "minProperties": 1, "additionalProperties": TEXT}, {"a": ""}, {}, "at least 1 properties"),
        ({"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}, "50%", 1.5,
         "must be of type integer or string"),
        ({"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}, {"a": 1}, {"a": 1, "b": 2},
         '"spec.x" must validate one and only one schema (oneOf). Found 2 valid alternatives'),
        ({"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}, {"b": 1}, {},
         '"spec.x" must validate one and only one schema (oneOf). Found none valid'),
        ({"type": "object", "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, {"a": 1, "b": 1}, {},
         '"spec.x" must validate at least one schema (anyOf)'),
        ({"type": "string", "allOf": [{"maxLength": 3}, {"pattern": "a"}]}, "bab", "bbb", "should match 'a'"),
        ({"type": "string", "not": {"enum": ["root"]}}, "me", "root", '"spec.x" must not validate the schema (not)'),
    ],
)  # fmt: skip
def test_one_rule(node: dict[str, Any], good: Any, bad: Any, words: str) -> None:
    compiled = spec_of(x=node)
    assert faults(compiled, {"x": good}) == []
    found = faults(compiled, {"x": bad})
    assert found
    assert words in found[0][2]


def test_int_or_string_takes_both() -> None:
    compiled = spec_of(x={"x-kubernetes-int-or-string": True})
    assert faults(compiled, {"x": 1}) == faults(compiled, {"x": "1"}) == []


def test_nullable() -> None:
    assert faults(spec_of(x={**TEXT, "nullable": True, "enum": ["a"]}), {"x": None}) == []


def test_sets_and_maps_have_no_twins() -> None:
    item = of(name=TEXT, port=NUMBER)
    compiled = spec_of(
        tags={"type": "array", "items": TEXT, "x-kubernetes-list-type": "set"},
        ports={
            "type": "array",
            "items": item,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name", "port"],
        },
    )
    ports = [{"name": "a", "port": 1}, {"name": "a", "port": 2}, {"name": "a", "port": 1}]
    assert faults(compiled, {"tags": ["a", "b", "a"], "ports": ports}) == [
        ("spec.tags[2]", "FieldValueDuplicate", 'Duplicate value: "a"'),
        ("spec.ports[2]", "FieldValueDuplicate", 'Duplicate value: {"name":"a","port":1}'),
    ]


def test_metadata_is_typed_without_the_crd_saying_so() -> None:
    compiled = compile_schema(of(metadata=of(name={**TEXT, "maxLength": 3})))
    doc = {"metadata": {"name": "long", "labels": {"a": 1}, "finalizers": ["x", "x"], "creationTimestamp": "now"}}
    assert {c.field: c.reason for c in compiled.validate(doc)} == {
        "metadata.labels.a": "FieldValueTypeInvalid",
        "metadata.finalizers[1]": "FieldValueDuplicate",
        "metadata.creationTimestamp": "FieldValueTypeInvalid",
        "metadata.name": "FieldValueTooLong",
    }


def test_what_was_wrong_before_and_did_not_change_is_let_through() -> None:
    compiled = spec_of(
        a={**TEXT, "maxLength": 1}, box={**of(x=TEXT), "required": ["x"]}, l={"type": "array", "items": NUMBER}
    )
    wrong = {"a": "long", "box": {}, "l": ["x"]}
    assert len(faults(compiled, wrong)) == 3
    assert faults(compiled, wrong, old=wrong) == []
    assert faults(compiled, {**wrong, "l": [1, "x"]}, old=wrong) == []
    assert [f[0] for f in faults(compiled, {"a": "other", "box": {"y": 1}, "l": ["y"]}, old=wrong)] == [
        "spec.a", "spec.box.x", "spec.l[0]",
    ]  # fmt: skip


def test_a_part_that_is_the_very_one_of_before_counts_in_branches_all_the_same() -> None:
    def holds(number: int) -> dict[str, Any]:
        return {"properties": {"box": {"properties": {"x": {"enum": [number]}}}}}

    spec = {**of(box=of(x=NUMBER), n=NUMBER), "oneOf": [holds(1), holds(2)], "not": holds(4)}
    compiled = compile_schema(of(spec=spec))
    for box in ({"x": 1}, {"x": 3}, {"x": 4}):
        shared = faults(compiled, {"box": box, "n": 2}, old={"box": box, "n": 1})
        assert shared == faults(compiled, {"box": dict(box), "n": 2}, old={"box": box, "n": 1})
        assert bool(shared) == (box["x"] != 1)


def test_cel_rules_are_kept_and_an_evaluator_is_asked_last() -> None:
    rule = {"rule": "self.a > 1", "message": "too small"}
    source = of(spec={**of(a=NUMBER, l={"type": "array", "items": {**of(), "x-kubernetes-validations": [rule]}}),
                      "x-kubernetes-validations": [rule]})  # fmt: skip
    asked: list[Any] = []

    def evaluator(sites: tuple[schema.RuleSite, ...]) -> Any:
        assert [site.path for site in sites] == [("spec",), ("spec", "l", "[]")]
        return lambda doc, old: asked.append((doc, old)) or [Cause("FieldValueInvalid", "too small", "spec")]

    compiled = compile_schema(source, evaluator=evaluator)
    assert compiled.rules[0].rules == (rule,)
    assert [c.message for c in compiled.validate({"spec": {"a": 1}})] == ["too small"]
    assert [c.field for c in compiled.validate({"spec": {"a": "x"}})] == ["spec.a", "<nil>"]  # said, not asked
    assert len(asked) == 1
    assert compile_schema(source).validate({"spec": {"a": 1}}) == []


def test_the_refusal_is_worded_as_kubernetes_words_it() -> None:
    one = schema.invalid(
        [Cause("FieldValueRequired", "Required value", "spec.x")], kind="Thing", group="e.com", name="a"
    )
    assert one.message == 'Thing.e.com "a" is invalid: spec.x: Required value'
    two = schema.invalid([Cause("R", "m", "a"), Cause("R", "n", "b")], kind="Pod", name="a")
    assert two.message == 'Pod "a" is invalid: [a: m, b: n]'
    assert two.to_status()["details"]["causes"][1] == {"reason": "R", "message": "n", "field": "b"}


def test_a_pattern_that_python_cannot_read_is_named() -> None:
    with pytest.raises(ValueError, match="unterminated"):
        spec_of(x={**TEXT, "pattern": "("})


# --- properties

_schemas = st.recursive(
    st.sampled_from([
        TEXT, NUMBER, {"type": "boolean"}, {**TEXT, "default": "d"}, {**NUMBER, "nullable": True},
        {"x-kubernetes-preserve-unknown-fields": True},
    ]),
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from("abc"), inner, max_size=3).map(lambda p: {"type": "object", "properties": p}),
        inner.map(lambda i: {"type": "array", "items": i}),
        inner.map(lambda i: {"type": "object", "additionalProperties": i}),
    ),
    max_leaves=6,
)  # fmt: skip
_docs = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(["", "x"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(_schemas, _docs)
def test_prune_then_default_settles_and_no_input_changes(source: dict[str, Any], spec: Any) -> None:
    compiled = compile_schema(of(spec=source))
    doc = {**HEAD, "spec": spec}
    before = copy.deepcopy(doc)
    kept, _ = compiled.prune(doc)
    full = compiled.default(kept)
    assert compiled.prune(full) == (full, ())
    assert compiled.default(full) == full
    compiled.validate(full)
    assert compiled.validate(full, full) == []
    assert doc == before


@settings(max_examples=60, deadline=None)
@given(_schemas, _docs, _docs)
def test_faults_do_not_depend_on_what_two_documents_share(source: dict[str, Any], kept: Any, changed: Any) -> None:
    compiled = compile_schema(of(spec=of(a=source, b=source)))
    old, new = {"a": kept, "b": {"c": kept}}, {"a": kept, "b": {"c": kept, "d": changed}}
    assert faults(compiled, new, old) == faults(compiled, copy.deepcopy(new), old)
