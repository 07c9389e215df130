"""What kubectl's server-side apply may take over from its client-side apply, and what it leaves behind."""

import json
from typing import Any

import pytest

from hotvirt.server.patches import lastapplied

SCHEMA = {"type": "object", "properties": {"spec": {"type": "object", "properties": {
    "color": {"type": "string"}, "size": {"type": "integer"}}}}}  # fmt: skip


def doc(spec: dict[str, Any], last: Any = None) -> dict[str, Any]:
    text = last if isinstance(last, str) else json.dumps(last)
    annotations = {lastapplied.ANNOTATION: text} if last else {}
    return {"apiVersion": "x/v1", "kind": "Widget", "metadata": {"name": "a", "annotations": annotations}, "spec": spec}


def own(live: dict[str, Any]) -> set[str]:
    return {path for path in lastapplied.own(live, api_version="x/v1", schema=SCHEMA) if path.startswith(".spec.")}


def test_what_is_as_it_was_applied_is_its_own() -> None:
    last = doc({"color": "red", "size": 1})
    assert own(doc({"color": "red", "size": 1}, last)) == {".spec.color", ".spec.size"}
    assert own(doc({"color": "blue", "size": 1}, last)) == {".spec.size"}
    assert own(doc({"color": "red", "other": True}, last)) == {".spec.color"}


@pytest.mark.parametrize("last", [None, "{", "[]", {"apiVersion": "x/v2", "spec": {"color": "red"}}])
def test_nothing_is_where_nothing_was_applied(last: Any) -> None:
    assert own(doc({"color": "red"}, last)) == set()


def test_the_annotation_says_what_was_applied_last() -> None:
    live = doc({"color": "red"}, doc({"color": "blue"}))
    applied = doc({"color": "red"}, "old")
    text = lastapplied.renewed(live, applied)["metadata"]["annotations"][lastapplied.ANNOTATION]
    assert json.loads(text) == {**doc({"color": "red"}), "metadata": {"name": "a"}}
    assert text.endswith("}\n")


def test_none_is_made_where_none_was() -> None:
    live = doc({"color": "red"})
    assert lastapplied.renewed(live, doc({"color": "red"})) is live
