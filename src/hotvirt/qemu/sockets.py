"""Connecting to the unix sockets on which QEMU listens.

QEMU serves one client a socket and takes the next when it has seen that one go. It lets few others wait (listening, it
shortens the queue it was given to one), and a home that died may still be in that queue. The kernel refuses whoever
finds it full, and nothing tells when it is not. asyncio, by itself, takes that refusal for a connection.
"""

import asyncio
import socket
from pathlib import Path

from hotvirt.qemu.progress import pauses


async def connected(path: str | Path) -> socket.socket:
    """A socket that is connected there. Waits for a place in the queue: bound it. OSError: nobody listens."""
    for pause in pauses():
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            sock.setblocking(False)
            sock.connect(str(path))
            return sock
        except BlockingIOError:
            sock.close()
            await asyncio.sleep(pause)
        except BaseException:
            sock.close()
            raise
    raise AssertionError("pauses go on")
