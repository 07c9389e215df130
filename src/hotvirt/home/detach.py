"""`hotvirt up --detach`: a home in a session of its own, and the wait until its API answers."""

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from hotvirt.home import logs
from hotvirt.home.errors import HomeError
from hotvirt.home.paths import Paths

PATIENCE = 120.0


def start(paths: Paths, options: list[str], *, say: Callable[[str], None]) -> str:
    """The URL of the API once it answers; `say` hears each step. HomeError with the log's end when it does not.

    The home outlives this process and its terminal. It tells its progress on a pipe, whose end is also how its death
    is noticed, so nothing is polled.
    """
    paths.prepare()
    since = paths.log.stat().st_size if paths.log.exists() else 0
    reader, writer = os.pipe()
    argv = [
        sys.executable, "-m", "hotvirt", "up", *([] if paths.is_default else ["--home", str(paths.state)]),
        "--log-file", str(paths.log), "--notify-fd", str(writer), *options,
    ]  # fmt: skip
    try:
        with paths.log.open("ab") as log:
            child = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True,
                pass_fds=(writer,),
            )  # fmt: skip
    finally:
        os.close(writer)
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        for line in _lines(pipe.fileno(), PATIENCE):
            word, _, text = line.partition(" ")
            if word == "ready":
                return text
            say(text)
    if child.poll() is None and child.returncode is None:
        try:
            child.wait(1)
        except subprocess.TimeoutExpired:
            raise HomeError(
                f"the home (process {child.pid}) does not answer after {PATIENCE:g} s; see {paths.log}"
            ) from None
    said = logs.tail(paths.log, since=since)
    raise HomeError(f"the home did not start. The end of {paths.log}:\n{said}")


def _lines(descriptor: int, patience: float) -> Iterator[str]:
    """Lines until the writer is gone or `patience` seconds are over."""
    deadline, rest = time.monotonic() + patience, b""
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([descriptor], [], [], left)[0]:
            return
        if not (data := os.read(descriptor, 4096)):
            return
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line.decode()
