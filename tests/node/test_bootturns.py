"""Who boots with its share of the CPUs, and who has the least there is; groups are a directory in place of the
kernel's."""

import asyncio
from pathlib import Path

import pytest

from hotvirt.node.bootturns import BootTurns
from hotvirt.node.cgroups import LEAST, Cgroups

pytestmark = pytest.mark.looptime


class Shares:
    def __init__(self, base: Path, *pods: str, unified: bool = False) -> None:
        self.base, self.cgroups = base, Cgroups(base, unified)
        for pod in pods:
            (base / pod).mkdir()
            (base / pod / "cpu.idle").write_text("0")

    def __call__(self) -> dict[str, int | str]:
        """What the kernel would make of it: with "idle", it looks at no weight."""
        found: dict[str, int | str] = {}
        for group in sorted(self.base.iterdir()):
            for file in group.glob("cpu.[sw]*"):
                found[group.name] = int(file.read_text())
            if (group / "cpu.idle").read_text() == "1":
                found[group.name] = "idle"
        return found


@pytest.fixture
def shares(tmp_path: Path) -> Shares:
    return Shares(tmp_path, "a", "b", "c", "d")


def begin(turns: BootTurns, *pods: str) -> None:
    for pod in pods:
        turns.began(pod, millis=1000)


async def test_as_many_as_there_are_turns_boot_with_their_share_and_the_others_with_the_least(shares: Shares):
    begin(BootTurns(shares.cgroups, turns=2), "a", "b", "c", "d")
    assert shares() == {"a": 1024, "b": 1024, "c": "idle", "d": "idle"}


async def test_who_has_booted_makes_room_for_the_one_that_waits_longest(shares: Shares):
    turns = BootTurns(shares.cgroups, turns=1)
    begin(turns, "a", "b", "c")
    turns.over("a")
    turns.over("a")
    assert shares() == {"a": 1024, "b": 1024, "c": "idle"}


async def test_who_never_answers_has_its_turn_and_keeps_its_share_after_it(shares: Shares):
    begin(BootTurns(shares.cgroups, turns=1, turn=60), "a", "b", "c")
    await asyncio.sleep(59)
    assert shares() == {"a": 1024, "b": "idle", "c": "idle"}
    await asyncio.sleep(2)
    assert shares() == {"a": 1024, "b": 1024, "c": "idle"}
    await asyncio.sleep(60)
    assert set(shares().values()) == {1024}


async def test_who_is_done_while_it_waits_gets_its_share_and_takes_no_turn(shares: Shares):
    """It is to stop, say, and stops sooner so."""
    turns = BootTurns(shares.cgroups, turns=1)
    begin(turns, "a", "b", "c")
    turns.over("b")
    assert shares() == {"a": 1024, "b": 1024, "c": "idle"}
    turns.over("a")
    assert shares()["c"] == 1024


async def test_who_is_gone_leaves_no_group_behind(shares: Shares):
    turns = BootTurns(shares.cgroups, turns=1)
    begin(turns, "a", "gone")
    turns.over("a")
    assert not (shares.base / "gone").exists()


async def test_without_turns_nobody_is_weighed_anew(shares: Shares):
    begin(BootTurns(shares.cgroups, turns=0), "a", "b", "c")
    assert shares() == {}


async def test_with_cgroup_v2_it_is_the_same(tmp_path: Path):
    shares = Shares(tmp_path, "a", "b", "c", unified=True)
    turns = BootTurns(shares.cgroups, turns=1)
    begin(turns, "a", "b", "c")
    turns.over("a")
    assert shares() == {"a": 39, "b": 39, "c": "idle"}


async def test_a_kernel_without_idle_groups_gives_the_least_share(shares: Shares):
    for pod in "ab":
        (shares.base / pod / "cpu.idle").unlink()
    begin(BootTurns(shares.cgroups, turns=1), "a", "b")
    assert [int((shares.base / pod / "cpu.shares").read_text()) for pod in "ab"] == [1024, LEAST]
