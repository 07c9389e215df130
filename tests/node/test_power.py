"""The power button as a way to reboot: pressed until it is heard, and never taken for a wish to go off later."""

import contextlib
from datetime import UTC, datetime, timedelta

import pytest

from hotvirt.node import power
from hotvirt.node.places import PodPlace
from hotvirt.qemu.errors import QemuTimeout

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)


class Events:
    def __init__(self, event):
        self._event = event

    async def get_within(self, seconds):
        return self._event


class Monitor:
    name = "default/web"

    def __init__(self, *, resets=True):
        self.asked, self._resets = [], resets

    async def execute(self, command, arguments=None):
        self.asked.append(command)

    @contextlib.contextmanager
    def events(self, *names):
        yield Events("RESET" if self._resets else None)


class Guest:
    answering = None

    def __init__(self, directory, *, resets=True):
        self.place, self.monitor = PodPlace(directory), Monitor(resets=resets)

    def poke(self):
        self.monitor.asked.append("poke")


async def test_pressed_until_it_goes_off_and_switched_on_again(tmp_path):
    guest = Guest(tmp_path)
    assert await power.press_again(guest, NOW) is None
    await power.soft_reboot(guest, now=NOW)
    assert await power.press_again(guest, NOW) == power.PRESS_AGAIN
    assert power.is_to_reboot(guest.place, NOW + timedelta(seconds=60))
    await power.switch_on_again(guest)
    assert guest.monitor.asked == ["system_powerdown", "poke", "system_powerdown", "system_reset", "cont"]
    assert not power.is_to_reboot(guest.place, NOW)


async def test_a_guest_that_does_not_listen_and_goes_off_later_stays_off(tmp_path):
    guest = Guest(tmp_path)
    await power.soft_reboot(guest, now=NOW)
    assert not power.is_to_reboot(guest.place, NOW + power.REBOOT_WITHIN + timedelta(seconds=1))
    assert await power.press_again(guest, NOW + timedelta(hours=1)) is None


async def test_a_qemu_that_does_not_reset_is_said_and_tried_again(tmp_path):
    guest = Guest(tmp_path, resets=False)
    await power.soft_reboot(guest, now=NOW)
    with pytest.raises(QemuTimeout, match="did not reset"):
        await power.switch_on_again(guest)
    assert power.is_to_reboot(guest.place, NOW)


def test_a_note_that_makes_no_sense_is_none(tmp_path):
    place = PodPlace(tmp_path)
    place.reboot.write_text("soon")
    assert not power.is_to_reboot(place, NOW)
