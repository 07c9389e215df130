"""JSON patch and merge patch: the RFCs' own tables, limits, and inputs that stay as they were."""

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotvirt.kube import errors
from hotvirt.server.patches import json_patch, merge_patch


@pytest.mark.parametrize(
    ("doc", "patch", "result"),
    [  # RFC 7386, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge(doc: Any, patch: Any, result: Any) -> None:
    assert merge_patch(doc, patch) == result


def test_merge_refuses_what_is_no_object() -> None:
    with pytest.raises(errors.BadRequest, match="JSON object"):
        merge_patch({}, ["a"])


_docs = st.dictionaries(
    st.sampled_from("abc"),
    st.recursive(
        st.none() | st.integers(0, 3) | st.text(max_size=2),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
        max_leaves=8,
    ),
    max_size=3,
)


@settings(max_examples=40, deadline=None)
@given(_docs, _docs)
def test_merge_twice_is_merge_once_and_inputs_stay(doc: Any, patch: Any) -> None:
    before = copy.deepcopy((doc, patch))
    once = merge_patch(doc, patch)
    assert merge_patch(once, patch) == once
    once["fresh"] = True
    assert (doc, patch) == before
    for value in patch.values():
        if isinstance(value, dict | list):
            value.clear()
    del once["fresh"]
    assert once == merge_patch(doc, before[1])


def test_merge_copies_only_the_way_to_what_changes() -> None:
    doc = {"spec": {"disks": [{"name": "a"}], "memory": {"guest": "1Gi"}}, "status": {}}
    merged = merge_patch(doc, {"spec": {"memory": {"guest": "2Gi"}}})
    assert merged == {"spec": {"disks": [{"name": "a"}], "memory": {"guest": "2Gi"}}, "status": {}}
    assert merged["spec"]["disks"] is doc["spec"]["disks"]
    assert merged["status"] is doc["status"]
    assert doc["spec"]["memory"] == {"guest": "1Gi"}


def test_json_patch_applies_in_order_on_a_copy() -> None:
    doc = {"spec": {"running": False, "list": [1, 2]}}
    ops = [
        {"op": "test", "path": "/spec/running", "value": False},
        {"op": "replace", "path": "/spec/running", "value": True},
        {"op": "add", "path": "/spec/list/-", "value": {"x": 1}},
        {"op": "add", "path": "/spec/list/2/y", "value": 2},
        {"op": "copy", "from": "/spec/list", "path": "/spec/again"},
        {"op": "remove", "path": "/spec/list/0"},
        {"op": "move", "from": "/spec/again", "path": "/moved"},
        {"op": "add", "path": "/a~1b~0c", "value": 1},
    ]
    before = copy.deepcopy((doc, ops))
    assert json_patch(doc, ops) == {
        "spec": {"running": True, "list": [2, {"x": 1, "y": 2}]},
        "moved": [1, 2, {"x": 1, "y": 2}],
        "a/b~c": 1,
    }
    assert (doc, ops) == before


def test_json_patch_takes_what_is_not_there_for_null() -> None:
    ops = [{"op": "test", "path": "/spec/list", "value": None}, {"op": "add", "path": "/spec/list", "value": []}]
    assert json_patch({"spec": {}}, ops) == {"spec": {"list": []}}
    assert json_patch({"spec": {"list": None}}, ops) == {"spec": {"list": []}}
    with pytest.raises(errors.Invalid):
        json_patch({"spec": {"list": [1]}}, ops)
    with pytest.raises(errors.Invalid):
        json_patch({}, ops)


@pytest.mark.parametrize(
    ("ops", "kind"),
    [
        ({"op": "add"}, errors.BadRequest),
        (["x"], errors.BadRequest),
        ([{"op": "add", "path": "/a"}], errors.BadRequest),
        ([{"op": "shout", "path": "/a"}], errors.BadRequest),
        ([{"op": "test", "path": "/a", "value": 2}], errors.Invalid),
        ([{"op": "test", "path": "/nope", "value": 2}], errors.Invalid),
        ([{"op": "remove", "path": "/nope"}], errors.Invalid),
        ([{"op": "add", "path": "/a/b/c", "value": 1}], errors.Invalid),
        ([{"op": "add", "path": "/l/9", "value": 1}], errors.Invalid),
        ([{"op": "replace", "path": "/l/x", "value": 1}], errors.Invalid),
        ([{"op": "copy", "from": "/nope", "path": "/b"}], errors.Invalid),
        ([{"op": "copy", "path": "/b"}], (errors.BadRequest, errors.Invalid)),
        ([{"op": "add", "path": 7, "value": 1}], (errors.BadRequest, errors.Invalid)),
        ([{"op": "test", "path": "/a", "value": 1}] * 10_001, errors.TooLarge),
    ],
)
def test_json_patch_refusals(ops: Any, kind: Any) -> None:
    with pytest.raises(kind):
        json_patch({"a": 1, "l": [1]}, ops)


def test_copies_cannot_blow_a_document_up() -> None:
    ops = [{"op": "copy", "from": "/d", "path": f"/d/c{n}"} for n in range(64)]
    with pytest.raises(errors.TooLarge, match="copies more"):
        json_patch({"d": {"a": "x" * 1000}}, ops)
