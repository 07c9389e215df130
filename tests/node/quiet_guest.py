"""Stand-ins for what a `Guest` talks to: a QEMU that tells nothing by itself, and an agent of a plain guest."""

import asyncio
import contextlib

from hotvirt.qemu.guestagent import AgentInfo

INFO = AgentInfo("7", frozenset())


class QuietMonitor:
    name = "test"

    def __init__(self):
        self.closed = asyncio.get_running_loop().create_future()

    @contextlib.contextmanager
    def events(self, *_):
        yield self

    def __aiter__(self):
        return self

    async def __anext__(self):
        await asyncio.Event().wait()

    async def close(self):
        pass


class PlainAgent:
    """What every guest answers. Whether it comes to answer at all is for who derives from it to say."""

    name, system = "web", {}

    async def info(self):
        return INFO

    async def fsfreeze_status(self):
        return "thawed"

    async def osinfo(self):
        return self.system

    async def hostname(self):
        return self.name

    async def network_interfaces(self):
        return []

    def close(self):
        pass
