"""A guest that went on is told the time, where its machine's clock is the host's."""

import asyncio
import time

import pytest
from quiet_guest import PlainAgent, QuietMonitor

from hotvirt.node.clock import TRIES, set_right
from hotvirt.node.guest import AgentView, Guest
from hotvirt.node.places import PodPlace
from hotvirt.qemu.errors import AgentGone, AgentRefused, AgentTimeout
from hotvirt.qemu.guestagent import AgentInfo
from hotvirt.qemu.qmp import Event

pytestmark = pytest.mark.looptime
NOW = 1_796_000_000.5
REFUSED = AgentRefused("guest-set-time", "GenericError", "the guest is frozen")


class Monitor(QuietMonitor):
    """`at`: the time of the machine's clock, else the host's. Its events are those put into `queue`."""

    name = "default/web"

    def __init__(self, at=None):
        super().__init__()
        self.at, self.queue = at, asyncio.Queue()

    async def execute(self, command, arguments=None):
        assert (command, arguments) == ("qom-get", {"path": "/machine", "property": "rtc-time"})
        told = time.gmtime(self.at)
        return {"tm_year": told.tm_year - 1900, "tm_mon": told.tm_mon - 1, "tm_mday": told.tm_mday,
                "tm_hour": told.tm_hour, "tm_min": told.tm_min, "tm_sec": told.tm_sec}  # fmt: skip

    async def __anext__(self):
        return Event(await self.queue.get(), {}, 0.0)


class Agent(PlainAgent):
    """Answers as often as there are `errors` with these, then well. `greets`: set when it comes to answer at all."""

    def __init__(self, *errors):
        self.errors, self.told, self.greets = list(errors), [], asyncio.Event()

    async def set_time(self, seconds):
        if self.errors:
            raise self.errors.pop(0)
        self.told.append(seconds)

    async def wait_ready(self, **_):
        await self.greets.wait()

    async def get_vcpus(self):
        return []


async def told(agent, ahead=0):
    await set_right(Monitor(NOW + ahead), agent, now=lambda: NOW)
    return agent.told


async def test_the_agent_is_told():
    assert await told(Agent()) == [NOW]


@pytest.mark.parametrize("ahead", [3600, -60, 86400 * 400])
async def test_a_machine_that_is_at_another_time_on_purpose_is_let_be(ahead):
    assert await told(Agent(), ahead) == []


async def test_an_agent_that_cannot_yet_is_asked_again():
    assert await told(Agent(REFUSED, AgentTimeout("busy"))) == [NOW]


async def test_one_that_never_can_is_given_up_in_words(caplog):
    caplog.set_level("INFO")
    assert await told(Agent(*[REFUSED] * len(TRIES))) == []
    assert "the clock of default/web may be slow" in caplog.text
    assert "the guest is frozen" in caplog.text


async def test_one_that_goes_is_not_asked_again():
    assert await told(Agent(AgentGone("closed"))) == []


@pytest.fixture
async def paused(tmp_path):
    """(guest, what tells its events, its agent)."""
    monitor = Monitor()
    guest = Guest(PodPlace(tmp_path), monitor, uid="u", accelerator="tcg", poke=lambda: None)  # type: ignore[arg-type]
    guest.agent = agent = Agent()
    await asyncio.sleep(0)
    yield guest, monitor.queue, agent
    await guest.close()


async def test_a_guest_that_goes_on_is_told(paused):
    guest, events, agent = paused
    guest.view = AgentView(info=AgentInfo("7", frozenset()))
    await events.put("STOP")
    await asyncio.sleep(1)
    assert agent.told == []
    await events.put("RESUME")
    await asyncio.sleep(1)
    assert len(agent.told) == 1


async def test_one_whose_agent_comes_later_is_told_then(paused):
    _, events, agent = paused
    await events.put("RESUME")
    await asyncio.sleep(100)
    assert agent.told == []
    agent.greets.set()
    await asyncio.sleep(1)
    assert len(agent.told) == 1


async def test_one_that_booted_anew_since_read_the_clock_itself(paused):
    _, events, agent = paused
    await events.put("RESUME")
    await events.put("RESET")
    agent.greets.set()
    await asyncio.sleep(1)
    assert agent.told == []
