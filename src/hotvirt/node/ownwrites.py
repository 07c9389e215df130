"""Which changes of an object are a controller's own writes, so that it does not look at its guest again for them.

A write's event may come before the write's answer, and only the answer tells its resourceVersion. So what comes while
a write of the object is under way is kept back until then. Writes of one object never overlap: one worker has its key.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msgspec import Struct

from hotvirt.kube.informer import Change, Key, key_of


class Written(Struct):
    """`version` is the resourceVersion of a write that asks for nothing, once it is known."""

    version: str = ""


class OwnWrites:
    """`wake` brings up the key of an object that was kept back and that somebody else wrote."""

    def __init__(self, wake: Callable[[Key], None]) -> None:
        self._wake = wake
        self._last: dict[Key, str] = {}
        self._kept_back: dict[Key, set[str]] = {}

    def is_own(self, change: Change) -> bool:
        new = change.new
        if new is None or change.relisted:
            return False
        key, version = key_of(new), new["metadata"]["resourceVersion"]
        if key in self._kept_back:
            self._kept_back[key].add(version)
            return True
        return bool(self._last.get(key) == version)

    @contextmanager
    def writing(self, key: Key) -> Iterator[Written]:
        """For as long as a write of the object is under way."""
        written, kept_back = Written(), self._kept_back.setdefault(key, set())
        try:
            yield written
        finally:
            del self._kept_back[key]
            if written.version:
                self._last[key] = written.version
            if kept_back - {written.version}:
                self._wake(key)

    def forget(self, key: Key) -> None:
        self._last.pop(key, None)
