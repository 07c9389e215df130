"""A way to a port of a guest with QEMU's own (user-mode) network, for as long as it is needed.

Such a guest has no address of its own: QEMU listens on one of the host's, and carries what comes to the guest. Whoever
can reach that address could use it, so the way is open for the moment of connecting alone (TCP), or for one stream
(UDP). Ways may be opened at once; each has a port of its own.
"""

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from hotvirt.qemu.errors import HotplugError
from hotvirt.qemu.progress import pauses
from hotvirt.qemu.qmp import Monitor

Protocol = Literal["tcp", "udp"]
PATIENCE = 10.0
_ROW = re.compile(r"^\s*TCP\[(\w+)\]\s+-?\d+\s+(\S+)\s+(\d+)\s", re.MULTILINE)
_OPENING = ("SYN_SENT", "SYN_RECEIVED", "ESTABLISHED")


@asynccontextmanager
async def way(
    monitor: Monitor, netdev: str, *, address: str, port: int, protocol: Protocol
) -> AsyncIterator[tuple[str, int]]:
    """The host's address and port that lead to the guest's `port`. HotplugError when QEMU opens none."""
    free = _free_port(address, protocol)
    rule = f"{protocol}:{address}:{free}"
    said = await _human(monitor, f"hostfwd_add {netdev} {rule}-:{port}")
    if said.strip():
        raise HotplugError("NoWay", f"QEMU opens no way to port {port}: {said.strip()[:200]}")
    try:
        yield address, free
    finally:
        await _human(monitor, f"hostfwd_remove {netdev} {rule}")


async def taken(monitor: Monitor, via: tuple[str, int]) -> bool:
    """Waits until the guest took, or refused, the one connection that was made by a way: whether it took it."""
    waits, seen = pauses(0.005, longest=0.2), False
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE
    while loop.time() < deadline:
        state = connection(await _human(monitor, "info usernet"), via)
        if state == "ESTABLISHED":
            return True
        if seen and not state:
            return False
        seen = seen or bool(state)
        await asyncio.sleep(next(waits))
    return False


def connection(table: str, via: tuple[str, int]) -> str:
    """The state of the connection that came by a way, from QEMU's table; "" when there is none (any more). Pure."""
    for state, address, port in _ROW.findall(table):
        if (address, int(port)) == via and state in _OPENING:
            return str(state)
    return ""


async def _human(monitor: Monitor, line: str) -> str:
    return str(await monitor.execute("human-monitor-command", {"command-line": line}))


def _free_port(address: str, protocol: Protocol) -> int:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])
