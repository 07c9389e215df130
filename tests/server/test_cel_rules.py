"""x-kubernetes-validations: what is refused of a CRD's rules, and what they refuse of objects."""

from typing import Any

import pytest

from hotvirt.server import cel_rule_checks, cel_rules
from hotvirt.server.crd import check as check_crd
from hotvirt.server.schema import Schema, compile_schema

Doc = dict[str, Any]
TEXT: Doc = {"type": "string"}
NUMBER: Doc = {"type": "integer"}
RULES = "x-kubernetes-validations"


def of(*rules: Doc, **properties: Doc) -> Doc:
    return {"type": "object", "properties": properties, **({RULES: list(rules)} if rules else {})}


def root(spec: Doc, *rules: Doc) -> Doc:
    return of(*rules, spec=spec)


def ruled(schema: Doc, *rules: str | Doc) -> Doc:
    return {**schema, RULES: [{"rule": rule} if isinstance(rule, str) else rule for rule in rules]}


def compiled(openapi: Doc) -> Schema:
    assert cel_rule_checks.check(openapi, "f") == []
    return compile_schema(openapi, evaluator=cel_rules.evaluator(openapi))


def thing(spec: Any, **meta: Any) -> Doc:
    return {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a", **meta}, "spec": spec}


def faults(openapi: Doc, spec: Any, old: Any = None) -> list[tuple[str, str]]:
    causes = compiled(openapi).validate(thing(spec), thing(old) if old is not None else None)
    return [(cause.field, cause.message) for cause in causes]


# -- objects


SCALE = root(
    of(
        {"rule": "self.min <= self.now && self.now <= self.max", "message": "out of bounds", "fieldPath": ".now"},
        {"rule": "self.now != 3", "messageExpression": "'not %d'.format([self.now])", "reason": "FieldValueForbidden"},
        {"rule": "has(self.a__dash__b) || !has(self.__namespace__)", "reason": "FieldValueRequired"},
        min=NUMBER, now=NUMBER, max=NUMBER, **{"a-b": TEXT, "namespace": TEXT},
    )
)  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "told"),
    [({"min": 1, "now": 2, "max": 3}, []),
     ({"min": 1, "now": 9, "max": 3}, [("spec.now", "Invalid value: out of bounds")]),
     ({"min": 1, "now": 3, "max": 3}, [("spec", "Forbidden: not 3")]),
     ({"min": 1, "now": 2, "max": 3, "namespace": "x"},
      [("spec", "Required value: failed rule: has(self.a__dash__b) || !has(self.__namespace__)")]),
     ({"min": 1, "now": 2, "max": 3, "namespace": "x", "a-b": "y"}, []),
     ({"min": 1, "now": 2}, [("spec", 'Invalid value: "object": no such key: max evaluating rule: out of bounds')])],
)  # fmt: skip
def test_rules_about_an_object(spec: Doc, told: list[tuple[str, str]]) -> None:
    assert faults(SCALE, spec) == told


def test_every_fault_is_found_in_one_pass() -> None:
    both = root(ruled(of(a=ruled(NUMBER, "self > 1"), b=ruled(NUMBER, "self > 1")), "self.a == self.b"))
    assert [field for field, _ in faults(both, {"a": 0, "b": 1})] == ["spec", "spec.a", "spec.b"]


def test_rules_are_not_asked_about_what_has_not_the_right_shape() -> None:
    found = faults(root(of(a=ruled(NUMBER, "self > 1"), b=TEXT)), {"a": 0, "b": 1})
    assert [field for field, _ in found] == ["spec.b", "<nil>"]
    assert "some validation rules were not checked" in found[1][1]
    bounded = root(of(a=ruled({**NUMBER, "minimum": 5}, "self > 7")))
    assert [field for field, _ in faults(bounded, {"a": 0})] == ["spec.a", "spec.a"]  # a wrong value can be judged


@pytest.mark.parametrize(
    ("schema", "rule", "good", "bad"),
    [({"x-kubernetes-int-or-string": True}, "type(self) == int ? self > 0 : self.endsWith('%')", ["5%", 3], [0, "x"]),
     ({**TEXT, "format": "date-time"}, "self < timestamp('2030-01-01T00:00:00Z')",
      ["2029-12-31T23:59:59Z", "2030-01-01T00:30:00+01:00"], ["2031-01-01T00:00:00.5Z"]),
     ({**TEXT, "format": "date"}, "self.getFullYear() == 2030", ["2030-05-01"], ["2031-05-01"]),
     ({**TEXT, "format": "duration"}, "self >= duration('1m')", ["60s", "1h1m"], ["59s", "1ms"]),
     ({**TEXT, "format": "byte"}, "self.size() == 1", ["YQ=="], ["YWI="]),
     ({"type": "number"}, "self / 2.0 <= 1.0", [2, 1.5], [3]),
     (NUMBER, "self % 2 == 0", [2], [3]),
     ({**TEXT, "nullable": True}, "self != ''", ["x", None], [""]),
     ({"type": "array", "items": NUMBER}, "self.sum() < 10 && self.isSorted()", [[1, 2], []], [[2, 1], [9, 9]]),
     ({"type": "object", "additionalProperties": NUMBER}, "self.all(k, k.matches('^[a-z]+$') && self[k] > 0)",
      [{"a": 1}], [{"a": 0}, {"A-": 1}]),
     ({"type": "array", "items": {"type": "array", "items": TEXT}}, "self.all(l, l.all(t, t.size() < 3))",
      [[["a"]]], [[["abc"]]]),
     ({"type": "object", "additionalProperties": {"type": "array", "items": TEXT}}, "self.all(k, size(self[k]) > 0)",
      [{"a": ["b"]}], [{"a": []}]),
     ({"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {"a": NUMBER}}, "self.a > 0",
      [{"a": 1, "what": "ever"}], [{"a": 0}]),
     ({"type": "object", "x-kubernetes-embedded-resource": True, "properties": {}},
      "self.kind == 'Pod' && self.metadata.name != ''",
      [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}],
      [{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}}])],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_values_by_their_schema(schema: Doc, rule: str, good: list[Any], bad: list[Any]) -> None:
    openapi = root(of(x=ruled(schema, rule)))
    assert [faults(openapi, {"x": each}) for each in good] == [[]] * len(good)
    assert [[field for field, _ in faults(openapi, {"x": each})] for each in bad] == [["spec.x"]] * len(bad)


def test_where_rules_see_the_fields_of_their_node() -> None:
    named = of({"rule": "self.metadata.name.startsWith('a')"}, spec=of())
    assert compiled(named).validate(thing({})) == []
    wrong = compiled(named).validate({**thing({}), "metadata": {"name": "b"}})
    assert [(cause.field, cause.message) for cause in wrong] == [
        ("<nil>", "Invalid value: failed rule: self.metadata.name.startsWith('a')")
    ]
    inside = root({"type": "object", "additionalProperties": {"type": "array", "items": ruled(TEXT, "self != 'x'")}})
    assert [field for field, _ in faults(inside, {"k.1": ["a", "x"]})] == ["spec[k.1][1]"]


def test_a_message_that_cannot_be_made_gives_way_to_the_fixed_one() -> None:
    for expression in ("'%d'.format([self.missing])", "''", "'two' + '\\n' + 'lines'"):
        rule = {"rule": "self.a > 1", "messageExpression": expression, "message": "fixed"}
        openapi = root(of(rule, a=NUMBER, missing=NUMBER))
        assert faults(openapi, {"a": 1}) == [("spec", "Invalid value: fixed")]


def test_a_rule_that_got_too_costly_for_the_object_stops_the_rest() -> None:
    openapi = root(of(l=ruled({"type": "array", "items": NUMBER},
                              "self.all(a, self.all(b, self.all(c, a + b + c > 0)))", "self.size() < 3")))  # fmt: skip
    assert faults(openapi, {"l": [1, 2]}) == []
    ((field, words),) = faults(openapi, {"l": list(range(500))})
    assert field == "spec.l"
    assert "no further validation rules will be run due to call cost exceeds limit" in words


# -- changes


FIXED = root(of(a=ruled(TEXT, {"rule": "self == oldSelf", "message": "can't be changed"}), b=TEXT))


def test_immutability() -> None:
    assert faults(FIXED, {"a": "x"}) == []
    assert faults(FIXED, {"a": "x", "b": "y"}, {"a": "x"}) == []
    assert faults(FIXED, {"a": "y"}, {"a": "x"}) == [("spec.a", 'Invalid value: "y": can\'t be changed')]
    assert faults(FIXED, {}, {"a": "x"}) == []  # the value is gone: a rule on the parent would see it
    assert faults(FIXED, {"a": "x"}, {"b": "x"}) == []
    kept = root(ruled(of(a=TEXT), "!has(oldSelf.a) || has(self.a)"))
    assert faults(kept, {}, {}) == []
    assert [field for field, _ in faults(kept, {}, {"a": "x"})] == ["spec"]


def test_items_are_paired_by_their_keys() -> None:
    item = {**of(name=TEXT, size=ruled(NUMBER, "self >= oldSelf")), "required": ["name"]}
    openapi = root(of(disks={"type": "array", "items": item, "x-kubernetes-list-type": "map",
                             "x-kubernetes-list-map-keys": ["name"]}))  # fmt: skip
    old = {"disks": [{"name": "a", "size": 1}, {"name": "b", "size": 5}]}
    grown = {"disks": [{"name": "b", "size": 6}, {"name": "c", "size": 0}, {"name": "a", "size": 1}]}
    assert faults(openapi, grown, old) == []
    shrunk = {"disks": [{"name": "new", "size": 9}, {"name": "b", "size": 4}]}
    assert [field for field, _ in faults(openapi, shrunk, old)] == ["spec.disks[1].size"]


def test_unordered_lists_are_the_same_in_any_order() -> None:
    tags = {"type": "array", "items": TEXT, "x-kubernetes-list-type": "set"}
    same = {"rule": "self == oldSelf", "message": "fixed"}
    assert faults(root(of(tags=ruled(tags, same))), {"tags": ["a", "b"]}, {"tags": ["b", "a"]}) == []
    assert faults(root(of(same, tags=tags)), {"tags": ["a", "b"]}, {"tags": ["b", "a"]}) == []
    assert len(faults(root(of(same, tags=tags)), {"tags": ["a", "c"]}, {"tags": ["b", "a"]})) == 1
    ordered = {**tags, "x-kubernetes-list-type": "atomic"}
    assert len(faults(root(of(same, tags=ordered)), {"tags": ["a", "b"]}, {"tags": ["b", "a"]})) == 1


def test_an_optional_old_value_is_asked_about_at_creation_too() -> None:
    rule = {"rule": "oldSelf.hasValue() ? self >= oldSelf.value() : self == 0", "optionalOldSelf": True}
    openapi = root(of(a=ruled(NUMBER, rule)))
    assert faults(openapi, {"a": 0}) == []
    assert len(faults(openapi, {"a": 1})) == 1
    assert faults(openapi, {"a": 1}, {"a": 0}) == []
    assert len(faults(openapi, {"a": 1}, {"a": 2})) == 1
    deeper = {"rule": "oldSelf.?a.orValue(9) >= 0", "optionalOldSelf": True}
    assert faults(root(of(deeper, a=NUMBER)), {"a": 1}, {"a": 0}) == []


def test_what_was_stored_before_a_rule_is_let_through_until_it_is_changed() -> None:
    openapi = root(of(a=ruled(NUMBER, "self > 5"), b=ruled(of(c=NUMBER), "self.c > 5")))
    assert faults(openapi, {"a": 1, "b": {"c": 6}}, {"a": 1}) == []
    assert [field for field, _ in faults(openapi, {"a": 2, "b": {"c": 1}}, {"a": 1, "b": {"c": 1}})] == ["spec.a"]


# -- definitions


def bad(spec: Doc) -> list[tuple[str, str]]:
    return [(c.field.removeprefix("f.properties[spec]."), c.message) for c in cel_rule_checks.check(root(spec), "f")]


@pytest.mark.parametrize(
    ("rule", "field", "words"),
    [({"rule": "self.nme == ''"}, "rule", "undefined field 'nme'"),
     ({"rule": "self.count > 'x'"}, "rule", "no matching overload for '_>_' applied to '(int, string)'"),
     ({"rule": "self == 3"}, "rule", "applied to '(object, int)'"),
     ({"rule": "self.count +"}, "rule", "Syntax error"),
     ({"rule": "self.count"}, "rule", "must evaluate to bool"),
     ({"rule": "  "}, "rule", "Required value: rule is not specified"),
     ({}, "rule", "Required value: rule is not specified"),
     ({"rule": 3}, "rule", "must be a string"),
     ({"rule": "object == self"}, "rule", "undeclared reference to 'object'"),
     ({"rule": "self.metadata == self"}, "rule", "undefined field 'metadata'"),
     ({"rule": "self.labels.all(k, self.labels[k].size() > 'x')"}, "rule", "no matching overload"),
     ({"rule": "self.items.all(i, i.x == 1)"}, "rule", "undefined field 'x'"),
     ({"rule": "true\n&& true"}, "message", "must be specified if rule contains line breaks"),
     ({"rule": "true", "message": " "}, "message", "must be non-empty"),
     ({"rule": "true", "message": "a\nb"}, "message", "must not contain line breaks"),
     ({"rule": "true", "messageExpression": "self.count"}, "messageExpression", "must evaluate to string"),
     ({"rule": "true", "messageExpression": "self.x"}, "messageExpression", "undefined field 'x'"),
     ({"rule": "true", "reason": "Because"}, "reason", "Unsupported value"),
     ({"rule": "true", "fieldPath": ".x"}, "fieldPath", "does not refer to a valid field"),
     ({"rule": "true", "fieldPath": "count"}, "fieldPath", "expected [ or ."),
     ({"rule": "true", "optionalOldSelf": True}, "optionalOldSelf", "may not be set if oldSelf is not used"),
     ({"rule": "oldSelf.nme == ''", "optionalOldSelf": True}, "rule", "no matching overload|undefined field"),
     ({"rule": "true) || (oldSelf.hasValue()", "optionalOldSelf": True}, "rule", "Syntax error")],
    ids=lambda value: str(value)[:50],
)  # fmt: skip
def test_rules_that_are_refused(rule: Doc, field: str, words: str) -> None:
    spec = of(rule, name=TEXT, count=NUMBER, labels={"type": "object", "additionalProperties": TEXT},
              items={"type": "array", "items": of(y=NUMBER)})  # fmt: skip
    ((where, told),) = bad(spec)
    assert where == f"{RULES}[0].{field}"
    assert any(each in told for each in words.split("|")), told


def test_there_is_a_limit_to_rules() -> None:
    assert bad(ruled(of(a=NUMBER), *["self.a > 1"] * 100)) == []
    ((field, words),) = bad(ruled(of(a=NUMBER), *["self.a > 1"] * 501))
    assert "at most 500 rules" in words
    ((field, words),) = bad(ruled(of(a=NUMBER), *[f"self.a > {'1' * 9000}"] * 40))
    assert (field, "all rules together" in words) == (f"f.{RULES}", True)


def test_an_old_value_needs_items_with_keys() -> None:
    plain = of(l={"type": "array", "items": of(x=ruled(NUMBER, "self == oldSelf"))})
    ((field, words),) = bad(plain)
    assert field == f"properties[l].items.properties[x].{RULES}[0].rule"
    why = "oldSelf cannot be used on the uncorrelatable portion of the schema within f.properties[spec].properties[l]"
    assert words == f'Invalid value: "self == oldSelf": {why}'


def test_a_definition_is_refused_with_the_path_of_its_rule(definition: Doc) -> None:
    spec = definition["spec"]["versions"][1]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec[RULES] = [{"rule": "true"}, {"rule": "self.colour == 'red'"}]
    at = f"schema.openAPIV3Schema.properties[spec].{RULES}[1].rule"
    assert [cause.field for cause in check_crd(definition)] == [f"spec.versions[{i}].{at}" for i in (0, 1)]


def test_names_that_no_expression_can_say_do_no_harm() -> None:
    names = ("1a", "ä", "$x", "a b", "fooBar", "foo_bar", "foo__bar", "foo.bar", "FooBar", "class", "Object1", "has")
    maps: Doc = {"type": "object", "additionalProperties": of(x=TEXT)}
    openapi = root(of({"rule": "self.fooBar.all(k, self.fooBar[k].x != '') && !has(self.foo__dot__bar)"},
                      **dict.fromkeys(names, maps)))  # fmt: skip
    assert faults(openapi, {"1a": {}, "ä": {}, "fooBar": {"k": {"x": "y"}}, "foo_bar": {"k": {"x": ""}}}) == []
    assert len(faults(openapi, {"fooBar": {}, "foo.bar": {}})) == 1


def test_without_the_library_rules_are_refused_and_not_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    from hotvirt.server.cel import engine

    def absent() -> Any:
        raise engine.CompileError("CEL is not installed here: pip install cel-expr-python protobuf")

    monkeypatch.setattr("hotvirt.server.cel.types.library", absent)
    ((field, words),) = bad(ruled(of(a=NUMBER), "self.a > 12345"))
    assert (field, "CEL is not installed here" in words) == (f"{RULES}[0].rule", True)
    openapi = root(ruled(of(a=NUMBER), "self.a > 123456"))
    schema = compile_schema(openapi, evaluator=cel_rules.evaluator(openapi))
    assert "rule compile error" in schema.validate(thing({"a": 1}))[0].message
    cel_rules._recent.clear()
