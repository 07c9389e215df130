"""What guests print on their serial ports, kept for `kubectl logs POD -c guest-console-log`.

QEMU writes it into a pipe, and the home, which reads that, keeps the last megabytes in the pod's directory: a guest
that prints without end fills nobody's disk. While there is no home, QEMU finds nobody reading, and drops it; a new home
goes on with the same pipe. It is read in pieces with a pause after each, so a guest that prints without end waits, and
the home does not. Lives on the loop; a log ends by itself when its QEMU does.
"""

import asyncio
import fcntl
import logging
import os
from pathlib import Path

from hotvirt.kube.client import Document
from hotvirt.node.places import PodPlace
from hotvirt.qemu import launch

log = logging.getLogger(__name__)

LIMIT = 2 << 20
"""Bytes after which the older half goes."""
CHUNK = 64 << 10
PIPE = 1 << 20
"""What a guest may print while the home is busy, before it has to wait."""
PAUSE = 0.05
"""Seconds between two pieces. QEMU tells of a guest's words a few bytes at a time."""
_F_SETPIPE_SZ = 1031


def is_wanted(spec: Document, cluster: Document) -> bool:
    """`cluster`: `virtualMachineOptions` of the KubeVirt object's configuration. Pure."""
    asked = ((spec.get("domain") or {}).get("devices") or {}).get("logSerialConsole")
    return cluster.get("disableSerialConsoleLog") is None if asked is None else bool(asked)


class ConsoleLogs:
    """Of all guests of a node."""

    def __init__(self) -> None:
        self._readers: dict[Path, int] = {}
        self._pausing: dict[Path, asyncio.TimerHandle] = {}

    def writer(self, place: PodPlace) -> int:
        """Begin a guest's log; an open descriptor of the end for QEMU."""
        if not place.console_pipe.exists():
            os.mkfifo(place.console_pipe, 0o600)
        place.console_log.touch(0o600)
        self.resume(place)
        descriptor = os.open(place.console_pipe, os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        # Blocking: QEMU would try again and again otherwise, and use a whole CPU for it.
        os.set_blocking(descriptor, True)
        try:
            fcntl.fcntl(descriptor, _F_SETPIPE_SZ, PIPE)
        except OSError:
            pass  # more pipes than this user may have with so much in them
        return descriptor

    def resume(self, place: PodPlace) -> None:
        """Go on reading what a guest prints, as after a restart of the home. Nothing for a guest without a log."""
        if place.console_pipe in self._readers or not place.console_pipe.exists():
            return
        descriptor = os.open(place.console_pipe, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._readers[place.console_pipe] = descriptor
        asyncio.get_running_loop().add_reader(descriptor, self._read, place, descriptor)

    def close(self) -> None:
        for pipe in tuple(self._readers):
            self._end(pipe)

    def _read(self, place: PodPlace, descriptor: int) -> None:
        try:
            data = os.read(descriptor, CHUNK)
        except BlockingIOError:
            return
        if not data:  # every QEMU is gone
            self._end(place.console_pipe)
            return
        try:
            file = os.open(place.console_log, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # its pod is being removed
        try:
            os.write(file, data)
        except OSError as error:
            log.warning("what the guest prints is not kept: %s: %s", place.console_log, error.strerror)
        finally:
            os.close(file)
        try:
            launch.trim_log(place.console_log, LIMIT)
        except OSError as error:  # as on a full disk: the pause below is kept all the same
            log.warning("%s is not cut: %s", place.console_log, error.strerror)
        loop = asyncio.get_running_loop()
        loop.remove_reader(descriptor)
        self._pausing[place.console_pipe] = loop.call_later(PAUSE, self._go_on, place, descriptor)

    def _go_on(self, place: PodPlace, descriptor: int) -> None:
        del self._pausing[place.console_pipe]
        asyncio.get_running_loop().add_reader(descriptor, self._read, place, descriptor)

    def _end(self, pipe: Path) -> None:
        descriptor = self._readers.pop(pipe)
        if (pause := self._pausing.pop(pipe, None)) is not None:
            pause.cancel()
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
