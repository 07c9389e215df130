"""Whatever JSON clients send: patches, ownership, schemas, selectors and tables answer, or refuse with an ApiError."""

import contextlib
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from hotvirt.kube import errors, resources
from hotvirt.server import builtin_schemas, schema, selectors, tables
from hotvirt.server.patches import apply as ssa
from hotvirt.server.patches import json_patch, merge_patch, strategic_merge

NOW = datetime(2026, 1, 1, tzinfo=UTC)
POD = builtin_schemas.compiled("v1", "Pod")

_names = st.sampled_from([
    "metadata", "spec", "status", "containers", "name", "ports", "containerPort", "env", "volumes", "labels",
    "finalizers", "ownerReferences", "uid", "managedFields", "conditions", "type", "$patch", "$retainKeys",
    "$setElementOrder/containers", "$setElementOrder/env", "$deleteFromPrimitiveList/finalizers", "containerStatuses",
    "state", "creationTimestamp",
])  # fmt: skip
_leaf = (
    st.none() | st.booleans() | st.integers(-1, 3) | st.floats(-1, 1) | st.sampled_from(["", "a", "delete", "replace"])
)
_json = st.recursive(
    _leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=4), max_leaves=14
)
_objects = st.fixed_dictionaries(
    {"metadata": st.dictionaries(_names, _json, max_size=3), "spec": _json}, optional={"status": _json}
)


@settings(max_examples=25, deadline=None)
@given(_objects, _json)
def test_patches(doc: Any, patch: Any) -> None:
    for change in (merge_patch, json_patch):
        with contextlib.suppress(errors.ApiError):
            change(doc, patch)
    with contextlib.suppress(errors.ApiError):
        strategic_merge(doc, patch, "Pod")


_OPS = st.lists(
    st.fixed_dictionaries(
        {"op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"])},
        optional={
            "path": st.sampled_from(["", "/", "/spec", "/spec/0", "/spec/-", "/spec/name", "/x/y", "spec", "/~2", 3]),
            "from": st.sampled_from(["", "/spec", "/spec/0", "/metadata", None]),
            "value": _json,
        },
    ),
    max_size=4,
)


@settings(max_examples=25, deadline=None)
@given(_objects, _OPS)
def test_json_patches(doc: Any, ops: Any) -> None:
    with contextlib.suppress(errors.ApiError):
        json_patch(doc, ops)


@settings(max_examples=25, deadline=None)
@given(_objects, _objects, st.booleans())
def test_ownership(old: Any, new: Any, force: bool) -> None:
    kwargs: dict[str, Any] = {"schema": POD, "api_version": "v1", "now": "t"}
    entries = ssa.track_update(None, old, manager="a", **kwargs)
    tracked = {**old, "metadata": {**old["metadata"], "managedFields": entries}}
    entries = ssa.track_update(tracked, new, manager="b", **kwargs)
    tracked = {**new, "metadata": {**new["metadata"], "managedFields": entries}}
    with contextlib.suppress(errors.ApiError):
        made = ssa.apply(tracked, old, manager="c", force=force, **kwargs)
        ssa.apply(made, {}, manager="c", force=True, **kwargs)


@settings(max_examples=25, deadline=None)
@given(_objects)
def test_schemas_tables_and_selectors(doc: Any) -> None:
    kept, _ = POD.prune(doc)
    full = POD.default(kept)
    causes = POD.validate(full)
    if causes:
        assert schema.invalid(causes, kind="Pod", name="x").to_status()["details"]["causes"]
    for resource in (resources.PODS, resources.NODES, resources.EVENTS, resources.CLAIMS):
        assert tables.render(tables.columns_for(resource), [doc], NOW)["rows"]
    selectors.parse_fields("metadata.name=a,spec.x!=b").matches(doc)


@settings(max_examples=25, deadline=None)
@given(st.text("ab=!,()<>in notx/\\.", max_size=14))
def test_selector_texts(text: str) -> None:
    for parse in (selectors.parse_labels, selectors.parse_fields):
        with contextlib.suppress(errors.BadRequest):
            parse(text).matches({"a": "b"})
