"""The guest's screen, one viewer at a time asked for.

QEMU listens nowhere for VNC: whoever may see the screen gets a socket pair, one end of which QEMU adopts as a client.
So there is no socket file or port to guard, and a viewer works the same for a guest that was adopted.
"""

import socket

from hotvirt.qemu.errors import HotplugError, QmpError
from hotvirt.qemu.qmp import Monitor


async def open_viewer(monitor: Monitor) -> socket.socket:
    """A connected, non-blocking stream that speaks RFB, as if it had just been accepted by the VNC server."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with theirs:
            await monitor.get_fd(theirs.fileno(), name="viewer")
        await monitor.execute("add_client", {"protocol": "vnc", "fdname": "viewer", "skipauth": True})
    except QmpError as error:
        ours.close()
        raise HotplugError("NoDisplay", f"the guest has no graphics device to show: {error.description}") from error
    except BaseException:
        ours.close()
        raise
    ours.setblocking(False)
    return ours
