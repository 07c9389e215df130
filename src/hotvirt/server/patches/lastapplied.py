"""How kubectl's server-side apply takes over what its client-side apply wrote.

That one kept what it applied in an annotation. Fields that are still as it says were kubectl's own, so kubectl need not
force them; and as long as the annotation is there it is kept true, so that going back to client-side apply works.
Pure.
"""

import json
from collections.abc import Mapping
from typing import Any

from hotvirt.server.patches import fieldsets

Document = dict[str, Any]

ANNOTATION = "kubectl.kubernetes.io/last-applied-configuration"
MANAGER = "kubectl"


def own(live: Document, *, api_version: str, schema: Mapping[str, Any] | None) -> frozenset[str]:
    """Paths of the fields that a client-side apply set, and that are as it left them. None where the annotation is
    missing, cannot be read, or is of another version."""
    try:
        last = json.loads(_annotations(live).get(ANNOTATION) or "null")
    except ValueError:
        return frozenset()
    if not isinstance(last, dict) or last.get("apiVersion") != api_version:
        return frozenset()
    kinds = fieldsets.root_schema(schema)
    fields = fieldsets.of_applied(last, kinds)
    for differing in fieldsets.changes(last, live, kinds):
        fields = fieldsets.difference(fields, differing)
    return frozenset(fieldsets.members(fields))


def renewed(new: Document, applied: Document) -> Document:
    """`new` with the annotation, if it has one, saying what was just applied."""
    if not _annotations(new).get(ANNOTATION):
        return new
    annotations = {key: value for key, value in _annotations(applied).items() if key != ANNOTATION}
    said = {**applied, "metadata": {**(applied.get("metadata") or {}), "annotations": annotations}}
    if not annotations:
        said["metadata"].pop("annotations")
    text = json.dumps(said, separators=(",", ":"), ensure_ascii=False, sort_keys=True) + "\n"
    return {**new, "metadata": {**new["metadata"], "annotations": {**_annotations(new), ANNOTATION: text}}}


def _annotations(doc: Document) -> Document:
    found = (doc.get("metadata") or {}).get("annotations")
    return found if isinstance(found, dict) else {}
