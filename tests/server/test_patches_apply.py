# the tables read better unbroken
"""Server-side apply and managedFields: ownership, conflicts, hand-over, removal, and what other writes do to them."""

import copy
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotvirt.kube import errors
from hotvirt.server.patches import apply as ssa
from hotvirt.server.patches import fieldsets
from hotvirt.server.schema import compile_schema

TEXT: dict[str, Any] = {"type": "string"}
ITEM = {"type": "object", "properties": {"name": TEXT, "bus": TEXT, "size": {"type": "integer"}}}
PORT = {
    "type": "object",
    "properties": {"port": {"type": "integer"}, "protocol": {**TEXT, "default": "TCP"}, "n": TEXT},
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "a": TEXT,
                "b": TEXT,
                "box": {"type": "object", "properties": {"x": TEXT, "y": TEXT}},
                "map": {"type": "object", "additionalProperties": TEXT},
                "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": TEXT},
                "plain": {"type": "array", "items": TEXT},
                "tags": {"type": "array", "items": TEXT, "x-kubernetes-list-type": "set"},
                "disks": {"type": "array", "items": ITEM, "x-kubernetes-list-type": "map",
                          "x-kubernetes-list-map-keys": ["name"]},
                "ports": {"type": "array", "items": PORT, "x-kubernetes-list-type": "map",
                          "x-kubernetes-list-map-keys": ["port", "protocol"]},
                "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            },
        },
        "status": {"type": "object", "properties": {"phase": TEXT}},
    },
}  # fmt: skip
V = "example.com/v1"


def thing(spec: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": V, "kind": "Thing", "metadata": {"name": "t", **metadata}, "spec": spec or {}}


def apply(
    live: dict[str, Any] | None,
    spec: dict[str, Any],
    manager: str = "me",
    *,
    force: bool = False,
    now: str = "t1",
    **meta: Any,
) -> dict[str, Any]:
    before = copy.deepcopy((live, spec))
    made = ssa.apply(
        live, thing(spec, **meta), manager=manager, force=force, schema=SCHEMA, api_version=V, now=now
    )  # fmt: skip
    assert (live, spec) == before
    return made


def update(old: dict[str, Any] | None, new: dict[str, Any], manager: str = "editor", **more: Any) -> dict[str, Any]:
    """`new` as the server would store it after `manager` wrote it."""
    before = copy.deepcopy((old, new))
    entries = ssa.track_update(
        old, new, **{"manager": manager, "operation": "Update", "schema": SCHEMA, "api_version": V, "now": "t2", **more}
    )
    assert (old, new) == before
    return {**new, "metadata": {**new["metadata"], "managedFields": entries}}


def owned(doc: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{e['manager']}/{e['operation']}" + (f"/{e['subresource']}" if "subresource" in e else ""): e["fieldsV1"]
        for e in doc["metadata"]["managedFields"]
    }


ME = "me/Apply"


# --- apply: the sets


def test_what_is_applied_is_owned_leaf_by_leaf() -> None:
    made = apply(
        None,
        {
            "a": "1",
            "box": {"x": "1"},
            "map": {"k": "1"},
            "whole": {"k": "1"},
            "plain": ["1"],
            "tags": ["z", "b"],
            "disks": [{"name": "root", "bus": "virtio"}],
            "ports": [{"port": 80, "n": "http"}],
            "open": {"p": {"q": [1]}},
        },
        labels={"app": "x"},
        finalizers=["f"],
    )
    assert owned(made) == {
        ME: {
            "f:metadata": {"f:finalizers": {'v:"f"': {}}, "f:labels": {"f:app": {}}},
            "f:spec": {
                "f:a": {},
                "f:box": {"f:x": {}},
                "f:map": {"f:k": {}},
                "f:whole": {},
                "f:plain": {},
                "f:tags": {'v:"b"': {}, 'v:"z"': {}},
                "f:disks": {'k:{"name":"root"}': {".": {}, "f:bus": {}, "f:name": {}}},
                "f:ports": {'k:{"port":80,"protocol":"TCP"}': {".": {}, "f:n": {}, "f:port": {}}},
                "f:open": {"f:p": {".": {}, "f:q": {}}},
            },
        }
    }
    entry = made["metadata"]["managedFields"][0]
    assert {k: entry[k] for k in ("manager", "operation", "apiVersion", "time", "fieldsType")} == {
        "manager": "me", "operation": "Apply", "apiVersion": V, "time": "t1", "fieldsType": "FieldsV1",
    }  # fmt: skip


def test_empty_objects_are_owned_as_such() -> None:
    assert owned(apply(None, {"box": {}}))[ME] == {"f:spec": {"f:box": {}}}


def test_applying_the_same_again_changes_nothing_not_even_the_time() -> None:
    once = apply(None, {"a": "1", "disks": [{"name": "root"}]})
    assert apply(once, {"a": "1", "disks": [{"name": "root"}]}, now="t9") == once


def test_the_time_is_written_in_utc() -> None:
    made = ssa.apply(
        None,
        thing({"a": "1"}),
        manager="me",
        force=False,
        schema=None,
        api_version=V,
        now=datetime(2026, 1, 2, tzinfo=UTC),
    )
    assert made["metadata"]["managedFields"][0]["time"] == "2026-01-02T00:00:00Z"


# --- apply: removal


def test_a_field_no_longer_applied_goes() -> None:
    first = apply(None, {"a": "1", "b": "1", "box": {"x": "1"}, "map": {"k": "1", "l": "1"}, "tags": ["p", "q"]})
    again = apply(first, {"a": "1", "map": {"l": "1"}, "tags": ["q"]}, now="t5")
    assert again["spec"] == {"a": "1", "map": {"l": "1"}, "tags": ["q"]}
    assert owned(again)[ME] == {"f:spec": {"f:a": {}, "f:map": {"f:l": {}}, "f:tags": {'v:"q"': {}}}}
    assert again["metadata"]["managedFields"][0]["time"] == "t5"


def test_a_list_item_no_longer_applied_goes_with_what_the_server_filled_in() -> None:
    first = apply(None, {"disks": [{"name": "root"}, {"name": "data"}]})
    first["spec"]["disks"][1]["bus"] = "virtio"  # a default: nobody's
    again = apply(first, {"disks": [{"name": "root"}]})
    assert again["spec"]["disks"] == [{"name": "root"}]


def test_what_another_applied_too_stays() -> None:
    first = apply(None, {"a": "1", "box": {"x": "1", "y": "1"}, "disks": [{"name": "d", "bus": "x", "size": 1}]})
    both = apply(first, {"a": "1", "box": {"x": "1"}, "disks": [{"name": "d", "bus": "x"}]}, "you")
    assert set(owned(both)) == {ME, "you/Apply"}
    left = apply(both, {}, "me")
    assert left["spec"] == {"a": "1", "box": {"x": "1"}, "disks": [{"name": "d", "bus": "x"}]}
    assert owned(left)[ME] == {"f:spec": {}}
    assert apply(left, {}, "you")["spec"] == {}


def test_what_was_never_applied_stays() -> None:
    live = update(None, thing({"b": "1", "box": {"y": "1"}}))
    made = apply(live, {"a": "1", "box": {"x": "1"}})
    assert apply(made, {})["spec"] == {"b": "1", "box": {"y": "1"}}


# --- apply: conflicts


def test_one_conflict() -> None:
    live = update(None, thing({"a": "1"}), "kubectl-edit")
    with pytest.raises(errors.Conflict) as caught:
        apply(live, {"a": "2"})
    assert caught.value.message == (
        'Apply failed with 1 conflict: conflict with "kubectl-edit" using example.com/v1: .spec.a'
    )
    (cause,) = caught.value.causes
    assert (cause.reason, cause.field) == ("FieldManagerConflict", ".spec.a")
    assert cause.message == 'conflict with "kubectl-edit" using example.com/v1'


def test_all_conflicts_are_named_by_manager() -> None:
    live = apply(None, {"a": "1", "disks": [{"name": "d", "bus": "x"}]}, "one")
    live = apply(live, {"tags": ["t"], "ports": [{"port": 1, "n": "x"}], "whole": {"k": "1"}}, "two")
    with pytest.raises(errors.Conflict) as caught:
        apply(
            live,
            {"a": "2", "disks": [{"name": "d", "bus": "y"}], "ports": [{"port": 1, "n": "y"}], "whole": {"k": "2"}},
        )
    assert caught.value.message == (
        "Apply failed with 4 conflicts: "
        'conflicts with "one":\n- .spec.a\n- .spec.disks[name="d"].bus\n'
        'conflicts with "two":\n- .spec.ports[port=1,protocol="TCP"].n\n- .spec.whole'
    )
    assert len(caught.value.causes) == 4


def test_the_same_value_is_shared_without_conflict() -> None:
    live = apply(None, {"a": "1"}, "one")
    both = apply(live, {"a": "1"}, "two")
    assert owned(both) == {"one/Apply": {"f:spec": {"f:a": {}}}, "two/Apply": {"f:spec": {"f:a": {}}}}
    with pytest.raises(errors.Conflict):
        apply(both, {"a": "2"}, "one")


def test_force_takes_the_fields_over() -> None:
    live = apply(None, {"a": "1", "b": "1"}, "one")
    taken = apply(live, {"a": "2"}, "two", force=True)
    assert taken["spec"] == {"a": "2", "b": "1"}
    assert owned(taken) == {"one/Apply": {"f:spec": {"f:b": {}}}, "two/Apply": {"f:spec": {"f:a": {}}}}
    assert apply(taken, {"b": "1"}, "one")["spec"] == {"a": "2", "b": "1"}


def test_an_object_nobody_tracked_is_defended_on_its_first_apply() -> None:
    live = thing({"a": "1"})
    with pytest.raises(errors.Conflict, match="before-first-apply"):
        apply(live, {"a": "2"})
    assert set(owned(apply(live, {"b": "1"}))) == {ME, "before-first-apply/Update"}


def test_refusals() -> None:
    with pytest.raises(errors.BadRequest, match="managedFields must be nil"):
        apply(None, {}, managedFields=[{"manager": "x"}])
    with pytest.raises(errors.BadRequest, match="fieldManager"):
        apply(None, {}, "")


def test_two_items_of_one_key_are_refused() -> None:
    with pytest.raises(errors.Invalid, match=r"spec\.disks\[1\]: Duplicate value") as caught:
        apply(None, {"disks": [{"name": "d"}, {"name": "d"}]})
    assert caught.value.causes[0].field == "spec.disks[1]"


def test_unknown_fields_are_merged_for_admission_to_see_but_not_owned() -> None:
    made = ssa.apply(
        None,
        thing({"a": "1", "typo": 1}),
        manager="me",
        force=False,
        schema=compile_schema(SCHEMA),
        api_version=V,
        now="t",
    )
    assert made["spec"] == {"a": "1", "typo": 1}
    assert owned(made) == {ME: {"f:spec": {"f:a": {}}}}


def test_fields_of_another_endpoint_are_left_alone() -> None:
    live = {**thing({"a": "1"}), "status": {"phase": "Up"}}
    kwargs: dict[str, Any] = {"manager": "me", "force": True, "schema": SCHEMA, "api_version": V, "now": "t"}
    made = ssa.apply(live, {**thing({"a": "2"}), "status": {"phase": "Down"}}, reset=("status",), **kwargs)
    assert made["status"] == {"phase": "Up"}
    assert owned(made)[ME] == {"f:spec": {"f:a": {}}}
    made = ssa.apply(
        live, {**thing({"a": "2"}), "status": {"phase": "Down"}}, subresource="status", reset=("spec",), **kwargs
    )
    assert (made["spec"], made["status"]) == ({"a": "1"}, {"phase": "Down"})
    assert owned(made)["me/Apply/status"] == {"f:status": {"f:phase": {}}}


# --- apply: lists


def test_lists_keep_the_applied_order_and_the_servers_own_places() -> None:
    live = update(None, thing({"disks": [{"name": n} for n in "abcd"], "tags": ["a", "b"], "plain": ["1", "2"]}))
    made = apply(live, {"disks": [{"name": n} for n in "dxb"], "tags": ["c", "a"], "plain": ["3"]}, force=True)
    assert [d["name"] for d in made["spec"]["disks"]] == ["a", "c", "d", "x", "b"]
    assert made["spec"]["tags"] == ["c", "a", "b"]
    assert made["spec"]["plain"] == ["3"]


def test_items_merge_by_their_keys_and_defaults_of_keys_count() -> None:
    live = update(None, thing({"ports": [{"port": 80, "protocol": "TCP", "n": "a"}, {"port": 80, "protocol": "UDP"}]}))
    made = apply(live, {"ports": [{"port": 80, "n": "b"}]}, force=True)
    assert made["spec"]["ports"] == [{"port": 80, "protocol": "TCP", "n": "b"}, {"port": 80, "protocol": "UDP"}]


# --- other writes


def test_a_create_owns_every_node() -> None:
    made = update(None, thing({"a": "1", "disks": [{"name": "d"}], "map": {"k": "v"}}, labels={"app": "x"}))
    assert owned(made) == {
        "editor/Update": {
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {
                ".": {},
                "f:a": {},
                "f:disks": {".": {}, 'k:{"name":"d"}': {".": {}, "f:name": {}}},
                "f:map": {".": {}, "f:k": {}},
            },
        }
    }


def test_a_change_moves_to_who_made_it_and_a_removal_to_nobody() -> None:
    live = apply(None, {"a": "1", "b": "1", "map": {"k": "1"}})
    new = {**live, "spec": {"a": "2", "map": {"k": "1"}}}
    made = update(live, new)
    assert owned(made) == {ME: {"f:spec": {"f:map": {"f:k": {}}}}, "editor/Update": {"f:spec": {"f:a": {}}}}
    assert [e["time"] for e in made["metadata"]["managedFields"]] == ["t1", "t2"]
    untouched = update(made, {**made, "metadata": {**made["metadata"], "resourceVersion": "9", "generation": 4}})
    assert untouched["metadata"]["managedFields"] is made["metadata"]["managedFields"]


def test_entries_that_do_not_change_are_the_same_objects() -> None:
    live = update(apply(None, {"a": "1"}), {**apply(None, {"a": "1"}), "status": {"phase": "Up"}}, subresource="status")
    made = update(live, {**live, "status": {"phase": "Down"}}, subresource="status", now="t3")
    before, after = live["metadata"]["managedFields"], made["metadata"]["managedFields"]
    assert after[0] is before[0]
    assert (after[1]["time"], after[1]["subresource"]) == ("t3", "status")


def test_what_was_edited_by_hand_conflicts_with_the_next_apply() -> None:
    live = apply(None, {"a": "1", "b": "1"})
    edited = update(live, {**live, "spec": {"a": "2", "b": "1"}}, "kubectl-edit")
    assert apply(edited, {"a": "2", "b": "1"})["spec"] == {"a": "2", "b": "1"}
    with pytest.raises(errors.Conflict, match=r"1 conflict: .*kubectl-edit.*\.spec\.a"):
        apply(edited, {"a": "1", "b": "1"})


def test_emptied_managed_fields_start_anew() -> None:
    live = update(None, thing({"a": "1"}))
    emptied = {**live, "metadata": {**live["metadata"], "managedFields": []}}
    assert update(live, emptied)["metadata"]["managedFields"] == []


def test_a_client_cannot_forge_or_break_entries() -> None:
    live = update(None, thing({"a": "1"}))
    forged = {**live, "metadata": {**live["metadata"], "managedFields": [{"manager": "x", "fieldsV1": {"f:spec": {}}}]}}
    assert update(live, forged)["metadata"]["managedFields"] is live["metadata"]["managedFields"]
    junk = [1, {}, {"fieldsV1": {"k:{": {}}}, {"fieldsV1": {"nonsense": {}}}, {"fieldsV1": {"f:a": 3}}]
    assert set(owned(update(None, thing({"a": "1"}, managedFields=junk)))) == {"editor/Update"}


def test_many_updaters_become_ancient() -> None:
    live = update(None, thing({"map": {"k": "0"}}))
    for n in range(14):
        new = {**live, "spec": {"map": {**live["spec"]["map"], f"k{n}": "1"}}}
        live = update(live, new, f"m{n:02}", now=f"t{n:02}")
    entries = live["metadata"]["managedFields"]
    assert len(entries) == ssa.MAX_UPDATERS
    assert [e["manager"] for e in entries][:2] == ["ancient-changes", "m06"]
    everything: dict[str, Any] = {}
    for entry in entries:
        everything = fieldsets.union(everything, fieldsets.parse(entry["fieldsV1"]))
    assert set(fieldsets.members(everything)) >= {".spec.map.k", ".spec.map.k0", ".spec.map.k13"}


# --- properties

_specs = st.fixed_dictionaries(
    {},
    optional={
        "a": st.sampled_from("12"),
        "box": st.dictionaries(st.sampled_from("xy"), st.sampled_from("12"), max_size=2),
        "map": st.dictionaries(st.sampled_from("kl"), st.sampled_from("12"), max_size=2),
        "plain": st.lists(st.sampled_from("12"), max_size=2),
        "tags": st.lists(st.sampled_from("pqr"), unique=True, max_size=3),
        "disks": st.lists(
            st.fixed_dictionaries({"name": st.sampled_from("abc")}, optional={"bus": st.sampled_from("12")}),
            unique_by=lambda d: d["name"], max_size=3,
        ),
        "open": st.dictionaries(st.sampled_from("xy"), st.dictionaries(st.sampled_from("z"), st.integers(0, 1))),
    },
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(_specs, _specs, _specs)
def test_apply_is_idempotent_and_what_one_manager_alone_applied_can_be_taken_back(
    one: Any, two: Any, base: Any
) -> None:
    live = update(None, thing(base))
    first = apply(live, one, force=True)
    assert apply(first, one, force=True, now="t9") == first
    second = apply(first, two, force=True, now="t4")
    assert apply(second, two, force=True, now="t9") == second
    for key, value in two.items():
        if not isinstance(value, dict | list):
            assert second["spec"][key] == value
    alone = apply(None, one)
    assert apply(apply(alone, two), one)["spec"] == alone["spec"] == one
    assert apply(alone, {})["spec"] == {}


@settings(max_examples=60, deadline=None)
@given(_specs, _specs)
def test_after_any_two_writes_every_field_has_exactly_one_owner(one: Any, two: Any) -> None:
    first = update(None, thing(one), "first")
    second = update(first, {**first, "spec": two}, "second")
    sets = [fieldsets.parse(e["fieldsV1"]) for e in second["metadata"]["managedFields"]]
    counted = [path for fields in sets for path in fieldsets.members(fields)]
    assert len(counted) == len(set(counted))
    kinds = fieldsets.root_schema(SCHEMA)
    assert set(counted) - {".spec"} == set(fieldsets.members(fieldsets.of_all({"spec": two}, kinds))) - {".", ".spec"}


@settings(max_examples=40, deadline=None)
@given(_specs, _specs)
def test_set_algebra(one: Any, two: Any) -> None:
    kinds = fieldsets.root_schema(SCHEMA)
    a, b = (fieldsets.of_all({"spec": spec}, kinds) for spec in (one, two))
    members = lambda s: set(fieldsets.members(s))  # noqa: E731
    assert members(fieldsets.union(a, b)) == members(a) | members(b)
    assert members(fieldsets.intersection(a, b)) == members(a) & members(b)
    assert members(fieldsets.difference(a, b)) == members(a) - members(b)
    assert fieldsets.parse(fieldsets.write(a)) == a
    assert fieldsets.is_valid(fieldsets.write(a)) or a == {".": True}
    assert fieldsets.union(a, a) is a
