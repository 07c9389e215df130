"""A guest that has just started is looked at again: its network, its name, and what its kernel can take up."""

import asyncio
import contextlib

import pytest
from msgspec import structs
from quiet_guest import INFO, PlainAgent, QuietMonitor

from hotvirt.node import guestkernel
from hotvirt.node.guest import AgentView, Guest
from hotvirt.node.places import PodPlace
from hotvirt.qemu.errors import AgentGone, AgentRefused

pytestmark = pytest.mark.looptime
FILES = {guestkernel.RELEASE: b"6.1.0\n", guestkernel.POLICY: b"online\n", guestkernel.DRIVER: b"Y\n"}


class Agent(PlainAgent):
    """`files` None: it does not answer about files."""

    system = {"id": "debian"}

    def __init__(self, files):
        self.files, self.asked = files, 0

    async def wait_ready(self, *, timeout):
        await asyncio.Event().wait()

    async def files_read(self, paths, *, limit):
        self.asked += 1
        if self.files is None:
            raise AgentGone("closed")
        missing = AgentRefused("guest-file-open", "GenericError", "no such file")
        return [self.files.get(path, missing) for path in paths]

    async def call(self, command, **_):
        raise AgentRefused(command, "GenericError", "no")


@contextlib.asynccontextmanager
async def settling(tmp_path, files):
    pokes = []
    guest = Guest(PodPlace(tmp_path), QuietMonitor(), uid="u", accelerator="tcg", poke=lambda: pokes.append(1))
    guest.agent = agent = Agent(files)
    await asyncio.sleep(0)
    guest.view = AgentView(info=INFO, os={"id": "debian"}, hostname="web")
    pokes.clear()
    task = asyncio.create_task(guest._settle())
    yield guest, agent, pokes
    task.cancel()
    await guest.close()


async def test_its_kernel_is_asked_once_it_has_settled_and_not_again(tmp_path):
    async with settling(tmp_path, FILES) as (guest, agent, pokes):
        await asyncio.sleep(100)
        assert guest.kernel.memory.reason == "DriverLoaded"
        assert (agent.asked, len(pokes)) == (1, 1)


async def test_a_driver_that_is_not_loaded_is_asked_for_again(tmp_path):
    without = {path: data for path, data in FILES.items() if path != guestkernel.DRIVER}
    async with settling(tmp_path, without) as (guest, agent, _):
        await asyncio.sleep(2)
        assert guest.kernel.memory.status == "Unknown"
        agent.files = FILES
        await asyncio.sleep(100)
        assert guest.kernel.memory.status == "True"
        assert agent.asked == 2


async def test_one_that_does_not_tell_of_its_kernel_is_listened_to_all_the_same(tmp_path):
    async with settling(tmp_path, None) as (guest, agent, pokes):
        agent.name = "renamed"
        await asyncio.sleep(2)
        assert (guest.view.hostname, guest.kernel, len(pokes)) == ("renamed", None, 1)


async def test_an_agent_that_is_not_heard_counts_as_gone_after_a_while_or_when_it_says_so(tmp_path):
    async with settling(tmp_path, FILES) as (guest, _, pokes):
        assert not guest.is_unheard
        guest.view = None
        assert guest.is_unheard
        pokes.clear()
        await asyncio.sleep(30)
        assert (guest.is_unheard, bool(pokes)) == (False, True)
    async with settling(tmp_path, FILES) as (guest, _, _):
        guest._forget()
        assert not guest.is_unheard


async def test_a_frozen_guest_is_not_asked_about_its_kernel(tmp_path):
    async with settling(tmp_path, FILES) as (guest, agent, _):
        view = structs.replace(guest.view, frozen=True)
        assert await guest._ask_kernel(view) is None
        guest.kernel = guestkernel.BOOTING
        assert await guest._ask_kernel(view) is guestkernel.BOOTING
        assert agent.asked == 0
