"""A guest that takes vCPUs on- or offline by itself: noticed when it is looked at, never asked while nobody looks."""

import asyncio

import pytest
from quiet_guest import INFO, QuietMonitor

from hotvirt.node.guest import RECOUNT_EVERY, AgentView, Guest, Job
from hotvirt.node.places import PodPlace
from hotvirt.qemu.guestagent import Vcpu

pytestmark = pytest.mark.looptime

LONG = 1000.0


class Agent:
    """Is only asked for vCPUs."""

    def __init__(self):
        self.online, self.asked = 2, 0

    async def get_vcpus(self):
        self.asked += 1
        return [Vcpu(number, number < self.online, True) for number in range(4)]

    async def wait_ready(self, *, timeout):
        await asyncio.Event().wait()

    def close(self):
        pass


@pytest.fixture
async def looked_at(tmp_path):
    """(guest, its agent, the pokes heard so far)."""
    pokes = []
    guest = Guest(PodPlace(tmp_path), QuietMonitor(), uid="u", accelerator="tcg", poke=lambda: pokes.append(1))
    guest.agent = agent = Agent()
    await asyncio.sleep(0)
    guest.view, guest.vcpus = AgentView(info=INFO), 2
    pokes.clear()
    yield guest, agent, pokes
    await guest.close()


async def test_a_guest_that_nobody_looks_at_is_not_asked(looked_at):
    _, agent, _ = looked_at
    await asyncio.sleep(LONG)
    assert agent.asked == 0


async def test_what_the_guest_changed_itself_is_noticed_at_the_next_look(looked_at):
    guest, agent, pokes = looked_at
    agent.online = 1
    guest.recount()
    await asyncio.sleep(0.1)
    assert (guest.vcpus, len(pokes)) == (1, 1)
    await asyncio.sleep(LONG)
    assert agent.asked == 1


async def test_looks_without_a_change_end(looked_at):
    guest, agent, pokes = looked_at
    for _ in range(20):
        guest.recount()
        await asyncio.sleep(0.1)
    await asyncio.sleep(LONG)
    assert (agent.asked, pokes) == (2, [])  # at once, and once for all looks that came too soon after


async def test_a_guest_that_keeps_changing_is_asked_no_more_often(looked_at):
    guest, agent, pokes = looked_at
    began = asyncio.get_running_loop().time()
    while asyncio.get_running_loop().time() < began + 100:
        agent.online = 3 - agent.online
        guest.recount()
        await asyncio.sleep(0.5)
    assert len(pokes) <= agent.asked <= 100 / RECOUNT_EVERY + 1


async def test_a_change_under_way_knows_better(looked_at):
    guest, agent, pokes = looked_at
    job = guest.jobs["cpu"] = Job(3, asyncio.create_task(asyncio.sleep(10)))
    guest.counted(1, before=2)
    guest.recount()
    await asyncio.sleep(1)
    assert (guest.vcpus, agent.asked, pokes) == (2, 0, [])
    await job.task
    guest.vcpus = 3
    guest.counted(1, before=2)  # asked before the change, heard after it
    assert (guest.vcpus, pokes) == (3, [])
