"""Request bodies: bytes to a document, with everything refused that would hurt or mislead later.

msgspec decodes; it refuses NaN, Infinity, trailing text and invalid UTF-8 by itself. What it does not see is a key that
occurs twice in one object (the last one wins, and a client that asked for strict field validation wants to hear of
it). A body without such a key is proven so by counting, which is cheap; only others pass through the slower decoder
that keeps pairs. Pure functions, safe from any thread.
"""

import json
import math
import re
from typing import Any

import msgspec

from hotvirt.kube import errors

MAX_DEPTH = 128
"""Objects and lists inside each other. The deepest CRD in use needs about 40."""

_TOO_DEEP = f"the body nests objects and lists more than {MAX_DEPTH} deep: flatten it"


def decode(body: bytes | bytearray | memoryview) -> tuple[Any, tuple[str, ...]]:
    """The document in `body`, and the path of every key that occurs twice in its object (`spec.running`)."""
    text = bytes(body)
    if not text.strip():
        raise errors.BadRequest("the body is empty: send a JSON document")
    try:
        document = msgspec.json.decode(text)
    except UnicodeDecodeError as error:
        raise errors.BadRequest(
            f"the body is not valid UTF-8 (byte {error.start} of a string): {error.reason}"
        ) from error
    except RecursionError as error:
        raise errors.BadRequest(_TOO_DEEP) from error
    except msgspec.MsgspecError as error:
        raise errors.BadRequest(f"the body is not valid JSON: {error}") from error
    keys = _count_keys(document)
    # Without whitespace each pair shows as `":` (a text may too: then the other way decides), so as many as there are
    # keys means that none came twice.
    if text.translate(None, b" \n\t\r").count(b'":') == keys:
        return document, ()
    return document, duplicate_keys(text)


def decode_yaml(body: bytes | bytearray | memoryview) -> tuple[Any, tuple[str, ...]]:
    """The same of a YAML document, which an apply may be sent as. JSON, which most clients send under that name too, is
    read as such. Aliases are refused: they let a small body stand for a huge document."""
    text = bytes(body)
    if text.lstrip()[:1] in (b"{", b"["):
        return decode(text)
    import yaml

    try:
        node = yaml.compose(text.decode(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except UnicodeDecodeError as error:
        raise errors.BadRequest(f"the body is not valid UTF-8: {error.reason}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise errors.BadRequest(f"the body is not valid YAML: {' '.join(str(error).split())}") from error
    found: dict[str, None] = {}
    if node is None:
        raise errors.BadRequest("the body is empty: send a document")
    document = _Yaml(found).value(node, "", 1)
    return document, tuple(found)


class _Yaml:
    """Makes a document of YAML nodes. `found` takes the paths of doubled keys."""

    def __init__(self, found: dict[str, None]) -> None:
        self.found = found
        self.seen: set[int] = set()

    def value(self, node: Any, path: str, depth: int) -> Any:
        if depth > MAX_DEPTH + 1:
            raise errors.BadRequest(_TOO_DEEP)
        if id(node) in self.seen:
            raise errors.BadRequest("the YAML body uses an alias (*name): write the value out")
        self.seen.add(id(node))
        if node.id == "mapping":
            return self._mapping(node, path, depth)
        if node.id == "sequence":
            return [self.value(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(node.value)]
        return _scalar(node.tag.rpartition(":")[2], str(node.value))

    def _mapping(self, node: Any, path: str, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            here = f"{path}.{key}" if path else key
            if key in result:
                self.found[here] = None
            result[key] = self.value(value_node, here, depth + 1)
        return result


def _scalar(tag: str, text: str) -> Any:
    try:
        match tag:
            case "null":
                return None
            case "bool":
                return text.lower() in ("true", "yes", "on")
            case "int":
                return int(text.replace("_", ""), 8 if re.fullmatch(r"[-+]?0[0-7]+", text) else 0)
            case "float" if math.isfinite(float(text)):
                return float(text)
            case "float":
                raise errors.BadRequest(f"{text} is not a number that JSON has: write a finite one")
    except ValueError as error:
        raise errors.BadRequest(f"can't read the number {text!r}: {error}") from error
    return text


def _count_keys(document: Any) -> int:
    """Keys of all objects in the document, level by level, since the levels are what is limited."""
    keys = depth = 0
    level: list[Any] = [document] if isinstance(document, dict | list) else []
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise errors.BadRequest(_TOO_DEEP)
        below: list[Any] = []
        push = below.append
        for node in level:
            children = node
            if type(node) is dict:
                keys += len(node)
                children = node.values()
            for child in children:
                kind = type(child)
                if kind is dict or kind is list:
                    push(child)
        level = below
    return keys


class _Pairs(list[tuple[str, Any]]):
    """One JSON object with every pair it was written with."""


def duplicate_keys(text: bytes) -> tuple[str, ...]:
    """The paths of keys that occur more than once in their object, in the order of the text. `text` is valid JSON."""
    found: dict[str, None] = {}
    _find_duplicates(json.loads(text, object_pairs_hook=_Pairs), "", found)
    return tuple(found)


def _find_duplicates(node: Any, path: str, found: dict[str, None]) -> None:
    if isinstance(node, _Pairs):
        seen: set[str] = set()
        for key, value in node:
            here = f"{path}.{key}" if path else key
            if key in seen:
                found[here] = None
            seen.add(key)
            _find_duplicates(value, here, found)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            _find_duplicates(value, f"{path}[{index}]", found)
