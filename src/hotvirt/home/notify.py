"""How a starting home tells whoever started it how far it is: lines on a pipe, `step TEXT` and last `ready URL`.

Without a pipe the same lines go to the log. systemd's notification follows from the same calls.
"""

import contextlib
import logging
import os
import socket

log = logging.getLogger("hotvirt.home")


class Notifier:
    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def step(self, text: str) -> None:
        log.info("starting", extra={"step": text})
        self._write(f"step {text}\n")

    def ready(self, url: str) -> None:
        log.info("home is ready", extra={"url": url})
        self._write(f"ready {url}\n")
        self.close()
        _tell_systemd("READY=1")

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _write(self, line: str) -> None:
        if self._descriptor is not None:
            with contextlib.suppress(BrokenPipeError):  # whoever started us has left
                os.write(self._descriptor, line.encode())


def _tell_systemd(text: str) -> None:
    if address := os.environ.get("NOTIFY_SOCKET"):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.sendto(text.encode(), "\0" + address[1:] if address.startswith("@") else address)
