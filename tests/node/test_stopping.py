"""A guest that is to stop: asked again and again, given its time and no more, and killed with a QEMU that hangs."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from quiet_guest import PlainAgent, QuietMonitor

from hotvirt.node import stopping
from hotvirt.node.guest import Guest
from hotvirt.node.places import PodPlace
from hotvirt.node.unhealthy import Note
from hotvirt.qemu.errors import QemuTimeout

pytestmark = pytest.mark.looptime


class Qemu(QuietMonitor):
    """Its monitor. The guest goes down at the `listens`-th power button, or never; `hangs`: no answer to anything."""

    name = "web"

    def __init__(self, *, status="running", listens=0, hangs=False):
        super().__init__()
        self.status, self.listens, self.hangs = status, listens, hangs
        self.asked = []
        self._down = asyncio.Event()

    @property
    def buttons(self):
        return self.asked.count("system_powerdown")

    async def execute(self, command, arguments=None, *, timeout=10.0):
        self.asked.append(command)
        if self.hangs:
            await asyncio.sleep(timeout)
            raise QemuTimeout("no answer")
        if command == "quit":
            self.closed.set_result(None)
        if command == "system_powerdown" and self.buttons == self.listens:
            self.goes_down()
        return {"status": self.status}

    def goes_down(self):
        self._down.set()

    async def get_within(self, seconds):
        try:
            async with asyncio.timeout(seconds):
                await self._down.wait()
                return "SHUTDOWN"
        except TimeoutError:
            return None


class Agent:
    """None in this guest."""

    async def wait_ready(self, *, timeout):
        await asyncio.Event().wait()

    def close(self):
        pass


@pytest.fixture
async def stop(tmp_path, monkeypatch):
    """`stop(qemu, (at, seconds), ...)`: asked for at those times. Gives the seconds that it took, and the outcome."""
    made, killed = [], []

    def kill(place, outcome="Succeeded"):
        killed.append(outcome)
        place.outcome.write_text(outcome)

    monkeypatch.setattr(stopping, "kill", kill)

    async def run(qemu, *asked, else_="Succeeded", agent=None):
        guest = Guest(PodPlace(tmp_path), qemu, uid="u", accelerator="tcg", poke=lambda: None)
        made.append(guest)
        guest.agent = agent or Agent()
        began = asyncio.get_running_loop().time()
        for at, seconds in asked:
            await asyncio.sleep(began + at - asyncio.get_running_loop().time())
            stopping.shut_down(guest, seconds=seconds, else_=else_)
        await asyncio.wait([guest.stopping])
        took = asyncio.get_running_loop().time() - began
        noted = guest.place.outcome.read_text() if guest.place.outcome.exists() else ""
        return round(took), noted, guest.place.cut_off.exists(), killed

    yield run
    for guest in made:
        await guest.close()


async def test_who_listens_is_not_cut_off(stop):
    qemu = Qemu(listens=3)
    assert await stop(qemu, (0, 60)) == (6, "", False, [])
    assert qemu.buttons == 3
    assert "quit" not in qemu.asked


@pytest.mark.parametrize("else_", ["Succeeded", "Failed"])
async def test_who_does_not_is_cut_off_when_its_time_is_over(stop, else_):
    assert await stop(Qemu(), (0, 60), else_=else_) == (60, else_, True, [])


async def test_no_time_means_at_once(stop):
    qemu = Qemu()
    assert await stop(qemu, (0, 0)) == (0, "Succeeded", True, [])
    assert qemu.buttons == 0


async def test_less_time_hastens_it_and_the_same_or_more_does_not_prolong_it(stop):
    assert await stop(Qemu(), (0, 120), (10, 5)) == (15, "Succeeded", True, [])
    assert (await stop(Qemu(), (0, 30), (10, 20.5), (20, 100)))[0] == 30


async def test_a_paused_guest_goes_on_to_hear_of_it_and_one_that_never_ran_is_dismissed(stop):
    qemu = Qemu(status="paused", listens=1)
    assert (await stop(qemu, (0, 60)))[0] == 0
    assert qemu.asked[:2] == ["query-status", "cont"]
    qemu = Qemu(status="prelaunch")
    assert await stop(qemu, (0, 60)) == (0, "Succeeded", True, [])


async def test_a_qemu_that_hangs_is_killed(stop):
    took, noted, cut_off, killed = await stop(Qemu(hangs=True), (0, 20), else_="Failed")
    assert took <= 20 + stopping.KILL_AFTER
    assert (noted, killed) == ("Failed", ["Failed"])
    assert cut_off


class Listening(PlainAgent):
    """Answers from the `late`-th second on, goes down when it is told to unless it is frozen, and then no longer
    answers."""

    def __init__(self, qemu, *, late=0, frozen=False):
        self.qemu, self.late, self.frozen, self.asked = qemu, late, frozen, []

    async def wait_ready(self, *, timeout):
        await asyncio.sleep(self.late)

    async def get_vcpus(self):
        return []

    async def fsfreeze_status(self):
        return "frozen" if self.frozen else "thawed"

    async def fsfreeze_thaw(self):
        self.asked.append("thaw")
        self.frozen = False

    async def shutdown(self, *, mode="powerdown"):
        self.asked.append(mode)
        if not self.frozen:
            self.qemu.goes_down()
            await asyncio.Event().wait()


@pytest.mark.parametrize(("late", "took"), [(0, 0), (4, 6)])
async def test_an_agent_that_is_found_while_the_guest_is_asked_is_asked_as_well(stop, late, took):
    qemu = Qemu()
    agent = Listening(qemu, late=late)
    assert await stop(qemu, (0, 60), agent=agent) == (took, "", False, [])
    assert agent.asked == ["powerdown"]


async def test_filesystems_that_are_frozen_are_thawed_whenever_that_turns_out(stop):
    qemu = Qemu()
    agent = Listening(qemu, late=1, frozen=True)
    assert await stop(qemu, (0, 60), agent=agent) == (3, "", False, [])
    assert agent.asked == ["thaw", "powerdown"]


# How long it has

NOW = datetime(2026, 11, 29, tzinfo=UTC)


def obj(*, going=None, **spec):
    at = None if going is None else (NOW + timedelta(seconds=going)).isoformat()
    return {"metadata": {"deletionTimestamp": at}, "spec": spec}


def left(vmi, pod=None, note=None):
    return stopping.seconds_left(vmi, pod, note, now=NOW)


async def test_a_guest_that_is_not_to_stop_has_all_its_time():
    assert left(obj()) is left(obj(), obj()) is None


async def test_a_guest_has_what_is_left_of_its_grace():
    assert [left(obj(going=-10)), left(obj(going=-100)), left(obj(going=5))] == [20, 0, 30]
    assert [left(obj(going=-10, terminationGracePeriodSeconds=each)) for each in (0, 60)] == [0, 50]


async def test_a_guest_whose_pod_goes_has_what_the_pod_has_less_what_its_end_takes():
    assert [left(obj(), obj(going=each)) for each in (90, 10)] == [60, 0]


async def test_a_guest_whose_probe_failed_has_its_grace_from_then_on():
    assert left(obj(), None, Note(NOW - timedelta(seconds=10), "it hangs")) == 20
