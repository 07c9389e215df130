"""What a change found at its end is told of before QEMU is asked for everything again, and while it is on its way QEMU
is left to it."""

import asyncio

import pytest
from quiet_guest import QuietMonitor

from hotvirt.node import guest as guests
from hotvirt.node.guest import Guest, Job, fresh
from hotvirt.node.places import PodPlace
from hotvirt.qemu.state import DiskState, MemoryState, Observed

pytestmark = pytest.mark.looptime
CD = DiskState(name="cd", device=True, driver="ide-cd", is_empty=True)
ONE, TWO = {"memory": 1}, {"memory": 2}
DATA = DiskState(name="data", device=True, driver="scsi-hd")


@pytest.fixture
async def guest(tmp_path, monkeypatch):
    """One whose QEMU takes a second to tell of itself. `looks`: when it was asked."""
    looks = []

    async def look(_):
        looks.append(asyncio.get_running_loop().time())
        await asyncio.sleep(1)
        return Observed(
            status="running", running=True, version=(7, 2, 0), memory=MemoryState(boot=1), disks=(CD, DATA)
        )  # fmt: skip

    monkeypatch.setattr(guests.state, "look", look)
    made = Guest(PodPlace(tmp_path), QuietMonitor(), uid="u", accelerator="tcg", poke=lambda: None)  # type: ignore[arg-type]
    made.looks = looks
    yield made
    await made.close()


async def test_a_note_is_told_once(guest):
    assert guest.noted() is None
    observed = await guest.look()
    assert guest.noted() is None
    guest.note(memory=MemoryState(boot=2))
    noted = guest.noted()
    assert (noted.memory.boot, noted.disks, noted.is_noted) == (2, observed.disks, True)
    assert guest.noted() is None


async def test_a_note_of_one_disk_leaves_the_others_as_they_were(guest):
    await guest.look()
    guest.note_disk("new", DiskState(name="new", device=True))
    assert guest.noted().disks == (CD, DATA, DiskState(name="new", device=True))
    guest.note_disk("data", None)
    assert guest.noted().disks == (CD, DiskState(name="new", device=True))


async def test_a_look_that_was_under_way_does_not_undo_a_note(guest):
    await guest.look()
    look = asyncio.create_task(guest.look())
    await asyncio.sleep(0.5)
    guest.note(memory=MemoryState(boot=2))
    assert (await look).memory.boot == 1
    assert guest.noted().memory.boot == 2


async def test_before_the_first_look_there_is_nothing_to_note(guest):
    guest.note(memory=MemoryState(boot=2))
    assert guest.noted() is None


async def test_a_change_begins_with_what_was_just_read(guest):
    observed = await guest.look()
    assert fresh(guest, "memory", observed) is observed
    guest.note(memory=MemoryState(boot=2))
    assert fresh(guest, "memory", guest.noted()) is None, "its other parts may be older"
    running = asyncio.create_task(asyncio.sleep(9))
    guest.jobs["memory"] = Job(None, task=running)
    assert fresh(guest, "memory", observed) is None, "another is changing it"
    assert fresh(guest, "cpu", observed) is observed


async def has_asked(guest, wanted):
    """Whether a look for that state asked QEMU."""
    before = len(guest.looks)
    await guest.look(wanted=wanted)
    return len(guest.looks) > before


async def test_a_qemu_at_work_is_not_asked_twice_for_the_same(guest):
    assert await has_asked(guest, ONE)
    assert await has_asked(guest, ONE), "it is at rest"
    guest.want("memory", 2, lambda _: asyncio.sleep(60))
    assert not await has_asked(guest, ONE)
    assert await has_asked(guest, TWO), "an edit asks for something else"
    assert not await has_asked(guest, TWO)
    await asyncio.sleep(guests.YOUNG)
    assert await has_asked(guest, TWO), "it may have come further"


async def test_what_a_job_noted_is_part_of_what_was_read(guest):
    guest.want("cpu", 2, lambda _: asyncio.sleep(60))
    await guest.look(wanted=ONE)
    guest.note(memory=MemoryState(boot=2))
    assert not await has_asked(guest, ONE)
    assert (await guest.look(wanted=ONE)).memory.boot == 2


@pytest.mark.parametrize("what", ["drop", "end"])
async def test_what_happened_to_a_change_is_a_cause_to_look(guest, what):
    guest.want("cpu", 2, lambda _: asyncio.sleep(60))
    ends = asyncio.Event()
    guest.want("memory", 2, lambda _: ends.wait())
    await guest.look(wanted=ONE)
    assert not await has_asked(guest, ONE)
    if what == "drop":
        guest.drop("memory")
    else:
        ends.set()
        await guest.jobs["memory"].task
    assert guest.jobs["cpu"].is_running
    assert await has_asked(guest, ONE)


@pytest.mark.parametrize(
    ("error", "told"),
    [(FileNotFoundError(2, "No such file", "/x"), "/x: No such file"), (KeyError("a"), "KeyError: 'a'")],
)
async def test_a_change_that_fails_in_a_way_nobody_thought_of_is_told_and_tried_again_later(guest, error, told):
    """Such as a disk's file that went after it was looked at: it failed without a word, and the volume waited."""
    pokes, tries = [], []
    guest.poke = lambda: pokes.append(1)

    async def run(_):
        tries.append(1)
        raise error

    guest.want("volume data", ("attach",), run)
    await asyncio.sleep(1)
    guest.want("volume data", ("attach",), run)
    await asyncio.sleep(1)
    assert (str(guest.jobs["volume data"].error), len(tries)) == (told, 1)
    assert pokes
