"""Fresh copies of documents. A JSON round trip through msgspec is eight times cheaper than copy.deepcopy."""

from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def fresh(document: Any) -> Any:
    """A copy that shares nothing with `document`, which holds only what JSON can hold."""
    return _decode(_encode(document))


def size(document: Any) -> int:
    """Bytes of the document as JSON."""
    return len(_encode(document))
