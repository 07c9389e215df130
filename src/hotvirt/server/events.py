"""What happened to one object, as the store tells it to everybody who watches.

An event is encoded once for each form it is asked in (`frames`), however many streams it goes to. While it is handed
out it keeps decoded documents and frames; afterwards only the bytes stay, in case a watch begins in the past.
"""

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from hotvirt.server.keys import Key

Type = Literal["ADDED", "MODIFIED", "DELETED"]
Document = dict[str, Any]
_decode: Callable[[bytes], Any] = msgspec.json.Decoder().decode


class Event:
    """`body` is the object as it is now (for DELETED: as it last was, with the deletion's revision), `before` as it was
    before this event. Never change a document that came from here."""

    __slots__ = ("_before_doc", "_doc", "before", "body", "frames", "key", "revision", "type")

    def __init__(
        self, type_: Type, key: Key, revision: int, body: bytes, before: bytes | None, doc: Document | None = None
    ) -> None:
        self.type, self.key, self.revision, self.body, self.before = type_, key, revision, body, before
        self._doc, self._before_doc = doc, None
        self.frames: dict[Any, bytes] = {}

    @property
    def doc(self) -> Document:
        if self._doc is None:
            self._doc = _decode(self.body)
        return self._doc

    @property
    def before_doc(self) -> Document | None:
        if self._before_doc is None and self.before is not None:
            self._before_doc = _decode(self.before)
        return self._before_doc

    def seal(self) -> None:
        """Everybody has been told: keep the bytes alone."""
        self._doc = self._before_doc = None
        self.frames = {}

    @property
    def size(self) -> int:
        return len(self.body) + len(self.before or b"") + 200
