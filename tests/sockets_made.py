"""Where a socket was made that nobody closed: Python tells of it when it is collected, in whichever test that is."""

import os
import re
import socket
import traceback
from collections import defaultdict, deque
from collections.abc import Iterator

import pytest

FRAMES = 12
_made: dict[int, deque[tuple[str, traceback.StackSummary]]] = defaultdict(lambda: deque(maxlen=2))
"""File descriptor -> for the last sockets that had it: during which test, and by whom."""
_init = socket.socket.__init__


def _noting(self: socket.socket, *args: object, **kwargs: object) -> None:
    _init(self, *args, **kwargs)  # type: ignore[arg-type]
    frames = traceback.walk_stack(None)
    stack = traceback.StackSummary.extract(frames, limit=FRAMES, lookup_lines=False)
    _made[self.fileno()].append((os.environ.get("PYTEST_CURRENT_TEST", "no test"), stack))


def watch() -> None:
    socket.socket.__init__ = _noting  # type: ignore[method-assign]


def told_of(text: str) -> Iterator[str]:
    """Of each socket that the text names as unclosed."""
    for descriptor in dict.fromkeys(re.findall(r"unclosed <(?:ssl\.SSL|socket\.)[sS]ocket fd=(\d+)", text)):
        for test, stack in _made[int(descriptor)]:
            yield f"fd {descriptor}, in {test}, innermost first:\n{''.join(stack.format())}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    report = yield
    if report.failed:
        report.sections += [("a socket was made", told) for told in told_of(str(report.longrepr))]
    return report
