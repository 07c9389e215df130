"""What a client connects to is let go of, however its connection ends."""

import asyncio
from typing import Any

import pytest

from hotvirt.kube.podstreams import Dialled
from hotvirt.server import portforward


class Far:
    """A pod's port that says nothing."""

    def __init__(self) -> None:
        self.is_closed = False

    async def read(self, _: int) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None: ...

    def close(self) -> None:
        self.is_closed = True


class Client:
    """A client's connection that ends, and takes its time to let go of who reads it."""

    def __init__(self) -> None:
        self.is_read, self.is_left = asyncio.Event(), asyncio.Event()

    async def get(self) -> bytes:
        self.is_read.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.is_left.set()
            await asyncio.sleep(0.01)
        raise AssertionError


@pytest.mark.parametrize("times", [1, 2])
async def test_a_connection_is_closed_also_when_its_end_is_interrupted(times: int) -> None:
    far, client = Far(), Client()

    async def dial(_: int) -> Dialled:
        there: Any = far
        return Dialled(there, there)

    async def never(*_: Any) -> None:
        raise AssertionError("nothing comes")

    task = asyncio.create_task(portforward._dialled("80", dial, client.get, never, never))
    await client.is_read.wait()
    for _ in range(times):
        task.cancel()
        await client.is_left.wait()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert far.is_closed
