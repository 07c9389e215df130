"""The fieldPath of a CEL rule: `.spec.replicas`, `['a.b']`, checked against the schema of the rule's node. Pure."""

import re
from typing import Any

Document = dict[str, Any]
_TOKEN = re.compile(r"\.([^.\[\]']+)|\['((?:[^'\\]|\\.)*)'\]")
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "'": "'", "\\": "\\"}


def valid_path(path: str, schema: Document) -> "str | ValueError":
    """The path as it is shown, below the node's own. The error that it is wrong with is returned, not raised."""
    at, written = 0, ""
    node: Any = schema
    while at < len(path):
        match = _TOKEN.match(path, at)
        if match is None:
            return ValueError(f"expected [ or . but got: {path[at:]}")
        name = match[1] or re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), match[2] or "")
        properties, more = node.get("properties"), node.get("additionalProperties")
        if properties and name in properties:
            node, written = properties[name], f"{written}.{name}"
        elif not properties and isinstance(more, dict):
            node, written = more, f"{written}[{name}]"
        else:
            return ValueError("does not refer to a valid field")
        at = match.end()
    return written
