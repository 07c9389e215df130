"""A guest's agent is greeted by every home, however it takes the first tries: no event comes of one that was there."""

import asyncio
import contextlib

import pytest
from quiet_guest import PlainAgent, QuietMonitor

from hotvirt.node.guest import AGENT_PORT, Guest
from hotvirt.node.places import PodPlace
from hotvirt.qemu.errors import AgentGone, AgentNonsense, AgentTimeout
from hotvirt.qemu.guestagent import Vcpu
from hotvirt.qemu.qmp import Event

pytestmark = pytest.mark.looptime


class Agent(PlainAgent):
    """Fails as `failures` say, one after the other, and then answers."""

    def __init__(self, *failures):
        self.failures, self.waited = list(failures), []

    async def wait_ready(self, *, timeout):
        self.waited.append(timeout)
        if self.failures:
            raise self.failures.pop(0)

    async def get_vcpus(self):
        return [Vcpu(0, True, False)]


@contextlib.asynccontextmanager
async def found(tmp_path, *failures):
    guest = Guest(PodPlace(tmp_path), QuietMonitor(), uid="u", accelerator="tcg", poke=lambda: None)
    guest.agent = agent = Agent(*failures)
    guest._ask_kernel = lambda view: asyncio.sleep(0)
    yield guest, agent
    await guest.close()


@pytest.mark.parametrize("failure", [AgentGone("the socket closed"), AgentTimeout("silent"), AgentNonsense("garbage")])
async def test_a_greeting_that_failed_is_tried_again(tmp_path, failure):
    async with found(tmp_path, failure) as (guest, agent):
        await asyncio.sleep(5)
        assert guest.answering is agent
        assert guest.vcpus == 1


async def test_each_wait_is_longer_and_none_is_for_ever(tmp_path):
    async with found(tmp_path, *(AgentTimeout("silent") for _ in range(8))) as (guest, agent):
        await asyncio.sleep(60)
        assert guest.answering is agent
        assert agent.waited[:4] == [20, 40, 80, 160]
        assert set(agent.waited[4:]) == {160}


class Events(QuietMonitor):
    """Tells what is put into `told`."""

    def __init__(self):
        super().__init__()
        self.told = asyncio.Queue()

    async def __anext__(self):
        return await self.told.get()

    def port(self, *, is_open):
        self.told.put_nowait(Event("VSERPORT_CHANGE", {"id": AGENT_PORT, "open": is_open}))


class LateAgent(Agent):
    """What it says last is read only once it may."""

    def __init__(self):
        super().__init__()
        self.may = asyncio.Event()

    async def network_interfaces(self):
        await self.may.wait()
        return []


async def test_an_agent_that_went_is_gone_though_its_last_words_are_read_after_that(tmp_path):
    guest = Guest(PodPlace(tmp_path), Events(), uid="u", accelerator="tcg", poke=lambda: None)
    guest.agent = agent = LateAgent()
    guest._ask_kernel = lambda view: asyncio.sleep(0)
    await asyncio.sleep(1)
    guest.monitor.port(is_open=False)
    await asyncio.sleep(1)
    agent.may.set()
    await asyncio.sleep(1)
    assert guest.answering is None
    guest.monitor.port(is_open=True)
    await asyncio.sleep(1)
    assert guest.answering is agent
    await guest.close()


async def test_nobody_is_greeted_when_the_guest_is_gone(tmp_path):
    async with found(tmp_path, AgentGone("the socket closed"), AgentGone("the socket closed")) as (guest, agent):
        guest.monitor.closed.set_result(None)
        await asyncio.sleep(60)
        assert (guest.answering, len(agent.waited)) == (None, 1)
