"""What guests print is kept, up to a limit, by whichever home there is."""

import asyncio
import os

import pytest

from hotvirt.node import consolelog
from hotvirt.node.consolelog import ConsoleLogs
from hotvirt.node.places import PodPlace


@pytest.fixture
def place(tmp_path):
    return PodPlace(tmp_path)


async def until(holds):
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0)


def size(place):
    return place.console_log.stat().st_size


async def test_it_is_kept_over_restarts_of_the_home_and_ends_with_its_guest(place):
    logs = ConsoleLogs()
    guest = logs.writer(place)
    os.write(guest, b"one\n")
    await until(lambda: size(place) == 4)
    logs.close()
    with pytest.raises(BrokenPipeError):  # which QEMU takes for a log that is over: it does not wait
        os.write(guest, b"lost\n")
    later = ConsoleLogs()
    later.resume(place)
    os.write(guest, b"two\n")
    await until(lambda: size(place) == 8)
    assert place.console_log.read_bytes() == b"one\ntwo\n"
    os.close(guest)
    await until(lambda: not later._readers)


async def test_a_guest_that_prints_without_end_fills_no_disk(place, monkeypatch):
    monkeypatch.setattr(consolelog, "LIMIT", 1000)
    logs = ConsoleLogs()
    guest = logs.writer(place)
    for number in range(300):
        os.write(guest, b"%09d\n" % number)
        await asyncio.sleep(0)
    await until(lambda: place.console_log.read_bytes().endswith(b"%09d\n" % 299))
    assert size(place) <= 1010
    os.close(guest)
    logs.close()


async def test_no_log_is_begun_for_a_guest_without_one(place):
    logs = ConsoleLogs()
    logs.resume(place)
    assert not place.console_log.exists()


async def test_a_log_that_cannot_be_cut_is_no_reason_to_read_without_a_pause(place, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(consolelog.launch, "trim_log", full)
    logs = ConsoleLogs()
    guest = logs.writer(place)
    os.write(guest, b"one\n")
    await until(lambda: size(place) == 4)
    assert place.console_pipe in logs._pausing
    os.close(guest)
    logs.close()
