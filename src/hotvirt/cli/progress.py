"""One line on standard error that says what happens now and for how long: rewritten on a terminal, one line per step
elsewhere."""

import sys
import time
from typing import Self


class Line:
    def __init__(self) -> None:
        self._began = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._last = ""

    def say(self, step: str, fraction: float | None = None) -> None:
        """`fraction` from 0 to 1, where it is known."""
        if not self._terminal and step == self._last:
            return  # only the fraction moved
        self._last = step
        share = f" {fraction:4.0%}" if self._terminal and fraction is not None else ""
        text = f"{time.monotonic() - self._began:6.1f} s  {step}{share}"
        sys.stderr.write(f"\r\x1b[K{text}" if self._terminal else f"{text}\n")
        sys.stderr.flush()

    def clear(self) -> None:
        """Room for a line that stays."""
        if self._terminal and self._last:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()
