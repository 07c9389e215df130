"""A guest that is given DIMMs, whose slots are all taken: told, in no other change's way, and mended by a restart."""

import pytest

pytestmark = pytest.mark.guest
BOOT, BLOCK, SLOTS = 256, 128, 16


def slots(box):
    return box.home.vmi("box")["metadata"]["annotations"]["hotvirt.io/memory-slots"]


def booted_with(home):
    return home.kubectl("get", "vmi", "box", "-o", "jsonpath={.status.memory.guestAtBoot}", check=False).stdout


def test_a_guest_whose_slots_are_taken_is_told_so_and_a_restart_gives_it_more(box_by_dimms):
    box, home = box_by_dimms, box_by_dimms.home
    for number in range(1, SLOTS + 1):
        box.edit(memory=BOOT + number * BLOCK)
        home.wait("vmi/box", f"jsonpath={{.metadata.annotations.hotvirt\\.io/memory-slots}}={number}/{SLOTS}")
    most = BOOT + SLOTS * BLOCK
    box.has(more=SLOTS * BLOCK)
    box.calm()
    before, more = box.view(), most + BLOCK
    words = f"{SLOTS} of the guest's {SLOTS} memory slots are taken"
    mend = "restart it, and it has the memory from the start"
    box.told((f"memory={more}Mi", "memory.dimm-slots", words, "0 free", "1 free slot", mend))
    box.would_work(f"memory={BOOT + 8 * BLOCK}Mi", "cpu=2")

    # Whoever edits it all the same: the rest of the edit is made, and the memory waits for a restart.
    assert words in box.edit(memory=more, sockets=2)
    box.says("RestartRequired", f"domain.memory.guest: {most}Mi -> {more}Mi: {words} ({mend})")
    box.has(more=SLOTS * BLOCK, cpus=2)
    assert box.view().memory == before.memory
    home.hotvirt("restart", "box")
    home.wait_until("it boots with all of it", lambda: booted_with(home) == f"{more}Mi")
    home.wait_agent("box")
    assert slots(box) == f"0/{SLOTS}"
    assert home.facts("box")["memTotalBytes"] >> 20 > before.memory
    assert "RestartRequired" not in home.conditions("vm/box")
