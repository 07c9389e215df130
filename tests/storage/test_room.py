"""A host's disk that fills up: guests that take its room are held before it is full, or stand still at the write that
found none, and lose nothing."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import time

import pytest
from snapshot_guests import content_of, extra, type_script

from hotvirt.node import holding

pytestmark = [
    pytest.mark.guest,
    pytest.mark.timeout(500),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts"),
]
MIB = 1 << 20
ROOM, DISK, BLOCKS = 704, 300, 64
"""In MiB; of ROOM a twentieth is kept."""
WRITER = """
echo WRITER-"BEGINS"
for n in /sys/block/vd*; do [ "$(cat $n/serial)" = one ] && d=/dev/${n##*/}; done
i=FROM
while [ $i -lt TO ]; do
  printf '%-63d\\n' $i >/tmp/l
  for k in $(seq 14); do cat /tmp/l /tmp/l >/tmp/m; mv /tmp/m /tmp/l; done
  dd if=/tmp/l of=$d bs=1M seek=$i conv=fsync,notrunc 2>/dev/null || echo WRITE-"FAILED"
  i=$((i+1))
  [ $i = $((FROM+3)) ] && echo WRITER-"RUNS"
done
echo WRITER-"ENDED"
"""
"""Blocks of 1 MiB, each full of its number."""


def block(number):
    return f"{number:<63}\n".encode() * (MIB // 64)


def writer(first, last):
    return WRITER.replace("FROM", str(first)).replace("TO", str(last))


@contextlib.contextmanager
def small_disk(home):
    place = home.directory / "volumes"
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}m", "small", place], check=True)
    try:
        yield place
        home.hotvirt("stop", "web", "--force", "--grace-period=0")
        home.wait("vm/web", "jsonpath={.status.printableStatus}=Stopped")
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def leave(place, mib):
    """All but so much of the room is taken by somebody else."""
    (place / "ballast").unlink(missing_ok=True)
    free = shutil.disk_usage(place).free - mib * MIB
    with (place / "ballast").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free)


def test_guests_are_held_before_the_disk_is_full_and_lose_nothing(home):
    with small_disk(home) as place:
        home.apply_claim("one", f"{DISK}Mi")
        home.apply_claim("two", "24Mi")
        home.apply_vm("web", memory="256Mi", max_memory="256Mi", extra=extra({"one": "one"}))
        home.apply_vm("idle", memory="256Mi", max_memory="256Mi", extra=extra({"two": "two"}))
        for name in ("web", "idle"):
            home.wait_agent(name)
        leave(place, 64)
        type_script(home, "web", writer(0, BLOCKS), "WRITER-RUNS")
        home.wait("vmi/web", "condition=Paused")
        paused = home.conditions("vmi/web")["Paused"]
        assert paused["reason"] == "PausedIOError"
        assert "the guest is held before what it writes finds no room" in paused["message"]
        assert "the guest is held before" in home.messages("vm/web") + home.messages("vmi/web")
        assert home.kubectl_json("get", "vm", "web")["status"]["printableStatus"] == "Paused"
        assert shutil.disk_usage(place).free >= 4 * MIB, "there is room for others"
        assert "Paused" not in home.conditions("vmi/idle"), "who takes no room is not held"
        # Let go on by a person, it is held again as soon as it writes.
        home.hotvirt("unpause", "vmi", "web")
        home.wait("vmi/web", "condition=Paused")
        home.kill()
        home.up()
        assert home.conditions("vmi/web")["Paused"]["reason"] == "PausedIOError"
        with home.console("web") as console:
            leave(place, 200)
            home.wait_message("vmi/web", "there is room for its disks again: the guest goes on")
            console.read_until("WRITER-ENDED")
        assert "Paused" not in home.conditions("vmi/web")
        no_room_at_all(home, place)
        written = content_of(home, "one")
        wrong = [i for i in range(BLOCKS + 8) if written[i * MIB : (i + 1) * MIB] != block(i)]
        assert wrong == []
        assert told(home) == hashlib.sha256(written).hexdigest(), "the guest reads what is there"


def no_room_at_all(home, place):
    """None is left in a moment: the guest's own write finds out."""
    # What it wrote before is seen at the home's next look, at the latest; until then it counts as a guest that writes.
    time.sleep(3 * holding.SOON)
    leave(place, 0)
    type_script(home, "web", writer(BLOCKS, BLOCKS + 8), "WRITER-BEGINS")
    home.wait("vmi/web", "condition=Paused")
    assert "there is no room left for what the guest writes to volume one" in _why(home)
    with home.console("web") as console:
        leave(place, 200)
        console.read_until("WRITER-ENDED")


def _why(home):
    return home.conditions("vmi/web")["Paused"]["message"]


def told(home):
    with home.console("web") as console:
        console.type('\nfor n in /sys/block/vd*; do [ "$(cat $n/serial)" = one ] && d=/dev/${n##*/}; done\n')
        console.type("echo B-$((1+1)); dd if=$d bs=1M 2>/dev/null | sha256sum | cut -c1-64; echo E-$((1+1))\n")
        console.read_until("B-2")
        return console.read_until("E-2").removesuffix("E-2").strip()
