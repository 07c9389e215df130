"""This terminal as a guest's console.

Standard input is read by a thread, as it may be a file or a pipe that an event loop cannot wait for; the thread waits
until each piece is sent, so that a slow guest slows the reading. Output is written as it comes, by the loop.
"""

import asyncio
import contextlib
import os
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator

import aiohttp

from hotvirt.cli import sockets
from hotvirt.kube.kubeconfig import Access

LEAVE = b"\x1d"  # Ctrl+]
PIECE = 32 << 10


def run(access: Access, path: str, *, linger: float, connected: Callable[[], None] = lambda: None) -> None:
    """Until the guest's side ends, Ctrl+] is typed, or piped input has ended and `linger` seconds were silent.
    `connected` is called once the stream is open, before anything of it is shown."""
    with _raw(sys.stdin.fileno()):
        asyncio.run(_talk(access, path, 0 if sys.stdin.isatty() else linger, connected))
    if sys.stdin.isatty():
        sys.stderr.write("\n")


async def _talk(access: Access, path: str, linger: float, connected: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    input_ended = False
    async with sockets.connect(access, path) as socket:
        connected()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None) as silence:

                def leave_soon() -> None:
                    nonlocal input_ended
                    input_ended = True
                    if not socket.closed:
                        silence.reschedule(loop.time() + linger)

                threading.Thread(target=_feed, args=(socket, loop, leave_soon), daemon=True, name="stdin").start()
                async for message in socket:
                    if message.type is aiohttp.WSMsgType.BINARY:
                        _write_all(sys.stdout.fileno(), message.data)
                    if input_ended:
                        silence.reschedule(loop.time() + linger)


def _feed(
    socket: aiohttp.ClientWebSocketResponse, loop: asyncio.AbstractEventLoop, leave_soon: Callable[[], None]
) -> None:
    terminal = sys.stdin.isatty()
    # The loop may be gone while this thread still waits for a key: then nobody is left to send to.
    with contextlib.suppress(RuntimeError, ConnectionError, asyncio.CancelledError):
        while data := os.read(sys.stdin.fileno(), PIECE):
            keys, leave, _ = data.partition(LEAVE) if terminal else (data, b"", b"")
            if keys:
                asyncio.run_coroutine_threadsafe(socket.send_bytes(keys), loop).result()
            if leave:
                break
        loop.call_soon_threadsafe(leave_soon)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


@contextlib.contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    """Every key to the guest, Ctrl+C too; the terminal as it was afterwards."""
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
