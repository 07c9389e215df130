"""Freezing and thawing a guest's filesystems: in time, whatever fails, and whoever dies in between."""

from datetime import UTC, datetime, timedelta

import pytest

from hotvirt.kube.errors import Conflict, InternalError
from hotvirt.node import freezing
from hotvirt.node.guest import AgentView
from hotvirt.node.places import PodPlace
from hotvirt.qemu.errors import AgentLacks, AgentTimeout
from hotvirt.qemu.guestagent import AgentInfo

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)


class Agent:
    """`fails` is what the next freeze or thaw raises; `status` is what it then says."""

    def __init__(self, *, status="frozen", fails=None):
        self.status, self.fails, self.asked = status, fails, []

    async def fsfreeze_freeze(self):
        return self._do("freeze")

    async def fsfreeze_thaw(self):
        return self._do("thaw")

    async def fsfreeze_status(self):
        return self.status

    def _do(self, what):
        self.asked.append(what)
        if self.fails:
            raise self.fails
        return 1


class Guest:
    is_freezing = False

    def __init__(self, directory, agent, *, frozen=False):
        self.place = PodPlace(directory)
        self.answering = agent
        self.view = AgentView(info=AgentInfo("7.2", frozenset()), hostname="web", frozen=frozen) if agent else None
        self.pokes = self.greets = 0
        self.jobs = {}

    def poke(self):
        self.pokes += 1

    def greet(self):
        self.greets += 1

    def drop(self, kind):
        self.jobs.pop(kind, None)

    def want(self, kind, target, run):
        self.jobs[kind] = run


async def test_frozen_for_a_while_and_thawed_by_itself(tmp_path):
    agent = Agent()
    guest = Guest(tmp_path, agent)
    await freezing.freeze(guest, seconds=30, now=NOW)
    assert (guest.view.frozen, guest.view.hostname, guest.pokes) == (True, "web", 1)
    assert freezing.watch(guest, NOW) == 30
    assert freezing.watch(guest, NOW + timedelta(seconds=29)) == 1
    assert guest.jobs == {}
    assert freezing.watch(guest, NOW + timedelta(seconds=30)) is None
    await guest.jobs[freezing.JOB](None)
    assert agent.asked == ["freeze", "thaw"]
    assert (guest.view.frozen, guest.greets, guest.place.frozen.exists()) == (False, 1, False)
    assert freezing.watch(guest, NOW + timedelta(seconds=31)) is None


async def test_the_next_home_thaws_what_the_last_one_froze(tmp_path):
    await freezing.freeze(Guest(tmp_path, Agent()), seconds=30, now=NOW)
    found = Guest(tmp_path, Agent(), frozen=True)
    assert freezing.watch(found, NOW + timedelta(seconds=10)) == 20
    freezing.watch(found, NOW + timedelta(hours=1))
    assert freezing.JOB in found.jobs
    silent = Guest(tmp_path, None)
    assert freezing.watch(silent, NOW + timedelta(hours=1)) is None, "whose agent does not answer yet is waited for"
    assert silent.jobs == {}
    rebooted = Guest(tmp_path, Agent(), frozen=False)
    assert freezing.watch(rebooted, NOW) is None
    assert not rebooted.place.frozen.exists()


async def test_while_it_is_being_frozen_its_note_stays(tmp_path):
    guest = Guest(tmp_path, Agent())
    guest.place.frozen.write_text("2026-11-28T12:00:30Z")
    guest.is_freezing = True
    assert freezing.watch(guest, NOW) is None
    assert guest.place.frozen.exists()


async def test_for_ever_and_again_for_a_while(tmp_path):
    agent = Agent()
    guest = Guest(tmp_path, agent)
    await freezing.freeze(guest, seconds=0, now=NOW)
    assert (guest.view.frozen, freezing.watch(guest, NOW + timedelta(days=9))) == (True, None)
    assert guest.jobs == {}
    await freezing.freeze(guest, seconds=5, now=NOW)
    assert (agent.asked, freezing.watch(guest, NOW)) == (["freeze"], 5)
    await freezing.freeze(guest, seconds=0, now=NOW)
    assert freezing.watch(guest, NOW) is None
    await freezing.thaw(guest)
    await freezing.thaw(guest)
    assert (agent.asked, guest.view.frozen) == (["freeze", "thaw", "thaw"], False)


async def test_a_guest_with_nothing_to_freeze_is_not_called_frozen(tmp_path):
    guest = Guest(tmp_path, Agent(status="thawed"))
    await freezing.freeze(guest, seconds=30, now=NOW)
    assert not guest.view.frozen


async def test_one_that_refuses_is_not_frozen_and_one_that_hangs_may_be(tmp_path):
    guest = Guest(tmp_path, Agent(fails=AgentLacks("guest-fsfreeze-freeze", "CommandNotFound", "disabled")))
    with pytest.raises(InternalError, match="did not freeze"):
        await freezing.freeze(guest, seconds=30, now=NOW)
    assert (guest.place.frozen.exists(), guest.view.frozen, guest.is_freezing) == (False, False, False)
    guest = Guest(tmp_path, Agent(fails=AgentTimeout("no answer")))
    with pytest.raises(InternalError, match="may not have frozen"):
        await freezing.freeze(guest, seconds=0, now=NOW)
    assert (freezing.thaws_at(guest.place), guest.greets) == (NOW, 1)
    with pytest.raises(InternalError, match="did not thaw"):
        await freezing.thaw(guest)


async def test_without_an_agent_neither(tmp_path):
    for deed in (freezing.freeze(Guest(tmp_path, None), seconds=1, now=NOW), freezing.thaw(Guest(tmp_path, None))):
        with pytest.raises(Conflict, match="does not have guest agent connected"):
            await deed


def test_a_note_that_makes_no_sense_is_none(tmp_path):
    place = PodPlace(tmp_path)
    place.frozen.write_text("soon")
    assert freezing.thaws_at(place) is None
