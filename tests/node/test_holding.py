"""When guests are held for the sake of their host's disk: pure."""

from pathlib import Path

import pytest

from hotvirt.node import holding
from hotvirt.node.holding import MIB, Space
from hotvirt.node.places import PodPlace

A, B = Path("/a"), Path("/b")


@pytest.mark.parametrize(
    ("size", "reserve"),
    [(24 * MIB, 0), (300 * MIB, 0), (320 * MIB, 16 * MIB), (1000 * MIB, 50 * MIB), (4096 * MIB, 128 * MIB)],
)
def test_a_twentieth_is_kept_within_reason(size, reserve):
    assert Space(A, size, size).reserve == reserve


def test_there_is_a_gap_between_holding_and_letting_go():
    size = 1000 * MIB
    free = {mib: Space(A, size, mib * MIB) for mib in (0, 49, 50, 99, 100)}
    assert [mib for mib, space in free.items() if space.is_short] == [0, 49]
    assert [mib for mib, space in free.items() if space.has_room] == [100]
    never = Space(A, 24 * MIB, 0)
    assert not never.is_short
    assert never.has_room


def test_it_is_looked_more_often_the_less_there_is():
    far, near = Space(A, 1 << 40, 1 << 39), Space(B, 4096 * MIB, (128 + 1024) * MIB)
    assert holding.look_again([far]) == holding.SELDOM
    assert holding.look_again([far, near]) == 2.0
    assert holding.look_again([Space(B, 4096 * MIB, 0)]) == holding.SOON
    assert holding.look_again([]) == holding.SELDOM


def test_who_takes_room():
    assert holding.grown({A: 1, B: 2}, {A: 1, B: 3}) == [B]
    assert holding.grown({A: 5}, {A: 4}) == []
    assert holding.grown({}, {A: 1}) == [A]


def test_what_is_held_is_noted_where_the_next_home_finds_it(tmp_path):
    place = PodPlace(tmp_path)
    assert holding.held(place) == ""
    holding.hold(place, holding.words(Space(Path("/v"), 4096 * MIB, 100 * MIB)))
    assert "the disk that /v is on has 100Mi left of 4Gi" in holding.held(place)
    holding.release(place)
    holding.release(place)
    assert holding.held(place) == ""
