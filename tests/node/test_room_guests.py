"""Guests that take the last room of a disk are held, whatever becomes of others."""

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from hotvirt.kube.events import Recorder
from hotvirt.kube.informer import Key, SharedInformers
from hotvirt.kube.resources import VMIS
from hotvirt.node import holding
from hotvirt.node.places import Places
from hotvirt.node.room import Room
from hotvirt.qemu.errors import QemuTimeout

MIB = 1 << 20


class Monitor:
    def __init__(self, *, hangs):
        self.hangs, self.asked = hangs, []

    async def execute(self, command, *_, **__):
        self.asked.append(command)
        if self.hangs:
            raise QemuTimeout("QEMU did not answer")
        return {"running": True, "status": "running"}


@pytest.fixture
def room(tmp_path):
    places = Places(tmp_path / "pods", tmp_path / "images", tmp_path / "volumes")
    places.volumes.mkdir()
    informers, guests = SharedInformers(None), {}
    for name in ("a", "b"):
        place = places.pod(name)
        place.prepare()
        guests[Key("default", name)] = SimpleNamespace(
            uid=name, place=place, is_gone=False, monitor=Monitor(hangs=name == "a"), poke=lambda: None
        )
        vmi = {"metadata": {"name": name, "namespace": "default", "uid": name, "resourceVersion": "1"}, "spec": {}}
        informers.of(VMIS)._store(vmi, relisted=True)
    recorder = Recorder(None, "test", clock=lambda: datetime(2026, 1, 1, tzinfo=UTC))
    return Room(
        None, informers, agent=SimpleNamespace(guests=guests), node="here", places=places, recorder=recorder,
        usage=lambda _: (4096 * MIB, MIB),
    )  # fmt: skip


def write(room, size):
    for guest in room._agent.guests.values():
        (guest.place.directory / "disk-one").write_bytes(b"x" * size)


async def test_one_whose_qemu_hangs_does_not_keep_others_from_being_held(room):
    write(room, 4096)
    await room._hold()
    write(room, MIB)
    await room._hold()
    hangs, other = room._agent.guests.values()
    assert hangs.monitor.asked == ["query-status"]
    assert other.monitor.asked == ["query-status", "stop"]
    assert holding.held(other.place)


async def test_one_whose_note_finds_no_room_does_not_end_the_watch_over_the_others(room, monkeypatch):
    hold = holding.hold

    def full(place, why):
        if place.directory.name == "a":
            raise OSError(28, "No space left on device")
        hold(place, why)

    monkeypatch.setattr(holding, "hold", full)
    first, other = room._agent.guests.values()
    first.monitor.hangs = False
    write(room, 4096)
    await room._hold()
    write(room, MIB)
    await room._hold()
    assert first.monitor.asked == ["query-status"], "nobody would let it go on"
    assert other.monitor.asked == ["query-status", "stop"]
