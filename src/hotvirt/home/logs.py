"""The home's log: constant messages with their facts as key=value, on standard error or in a file that is rotated.

In a file, standard output and error follow it through each rotation, so that what Python or a tool writes on its own
(a traceback at exit, a library's warning) is in the log too.
"""

import logging
import logging.handlers
import os
import sys
from pathlib import Path

LARGEST, KEPT = 4 << 20, 3
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class Formatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's own name
        extra = " ".join(f"{key}={_quoted(value)}" for key, value in vars(record).items() if key not in _OWN)
        text = super().formatMessage(record)
        return f"{text} {extra}" if extra else text


class RotatingFile(logging.handlers.RotatingFileHandler):
    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=LARGEST, backupCount=KEPT)
        self._take_standard_streams()

    def doRollover(self) -> None:  # noqa: N802  # logging's own name
        super().doRollover()
        self._take_standard_streams()

    def _take_standard_streams(self) -> None:
        assert self.stream is not None, "opened at once, as delay is off"
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor in (1, 2):
            os.dup2(self.stream.fileno(), descriptor)


def set_up(path: Path | None, *, verbose: bool) -> None:
    """To `path`, or to standard error without one."""
    handler: logging.Handler = RotatingFile(path) if path else logging.StreamHandler()
    handler.setFormatter(Formatter())
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler], force=True)
    # Each request and each QMP message in a line of its own would bury ours.
    for noisy in ("aiohttp.access", "qemu.qmp", "pyroute2", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def tail(path: Path, *, since: int, lines: int = 20) -> str:
    """The last lines written after offset `since` (from the start of a file that was rotated meanwhile)."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            end = file.tell()
            begin = since if since <= end else 0
            file.seek(max(begin, end - (64 << 10)))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def _quoted(value: object) -> str:
    text = str(value)
    return repr(text) if not text or any(c.isspace() for c in text) else text
