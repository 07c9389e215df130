"""A process beside a guest's QEMU (its TPM, the server of one of its file systems), started as QEMU is: by a launch
receiver, so that it has its own user, no rights to gain, and none of the home's descriptors. It outlives the home, ends
by itself when QEMU's end of its socket closes, and is killed with its pod in any case (`podprocess.holders`).
"""

import asyncio
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

from hotvirt.qemu import launch
from hotvirt.qemu.errors import LaunchError
from hotvirt.qemu.launch import Request
from hotvirt.qemu.process import Identity, Process

_collecting: set[asyncio.Task[None]] = set()


async def start(
    request: Request, descriptors: Mapping[int, int], *, socket_path: Path, log: Path,
    enter: Callable[[int], None], timeout: float,
) -> Identity:  # fmt: skip
    """Returns once it is what it is to be. `enter` puts it into the pod's group before."""
    try:
        with launch.listening_socket(socket_path) as listener:
            process = Process.open(launch.spawn_receiver(listener, log=log))
            if process is None:
                raise LaunchError("its launch receiver ended at once", log=launch.read_log(log))
            _collect(process)
            enter(process.identity.pid)
            try:
                await launch.send_launch(socket_path, request, descriptors=descriptors, timeout=timeout)
            except BaseException:
                process.send(signal.SIGKILL)
                raise
    finally:
        socket_path.unlink(missing_ok=True)
    return process.identity


def _collect(process: Process) -> None:
    """So that it is no zombie once it ended; a home that ends before leaves that to init."""

    async def wait() -> None:
        with process:
            await process.wait()

    task = asyncio.create_task(wait(), name=f"helper {process.identity.pid}")
    _collecting.add(task)
    task.add_done_callback(_collecting.discard)
