"""Killed at any moment of a snapshot, clone or restore: it goes on, or begins anew; what is ready is whole.

HOTVIRT_KILLS says at how many random points (default 3: one of each kind; 100 is the long form).
"""

import json
import os
import random
import signal
import time

import pytest
from snapshot_guests import (
    DISKS,
    WRITER,
    claims_of,
    consistent,
    content_of,
    counters,
    extra,
    indications,
    restore,
    snapshot,
    type_script,
)

from hotvirt.api.snapshots import MEMORY

pytestmark = [pytest.mark.guest, pytest.mark.timeout(60 + 30 * int(os.environ.get("HOTVIRT_KILLS", "3")))]
KILLS = int(os.environ.get("HOTVIRT_KILLS", "3"))
MIB = 1 << 20


def fill(home, claim):
    """With what cannot be skipped, so that a copy takes its time."""
    home.apply_claim(claim, "24Mi")
    home.kubectl("annotate", "pvc", claim, "cdi.kubevirt.io/storage.bind.immediate.requested=")
    home.wait(f"pvc/{claim}", "jsonpath={.status.phase}=Bound")
    volume = home.kubectl_json("get", "pvc", claim)["spec"]["volumeName"]
    with (home.directory / "volumes" / volume / "disk.img").open("r+b") as file:
        file.seek(MIB)
        file.write(os.urandom(22 * MIB))


def kill_guest(home):
    for pid in home.guest_processes():
        os.kill(pid, signal.SIGKILL)


def revived(home):
    home.kill()
    home.up()


def write_again(home):
    """Once the guest that was killed is up again."""
    home.wait_agent("db")
    type_script(home, "db", WRITER, "WRITER-RUNS")


def complete(home, name):
    try:
        home.wait(f"vmrestore/{name}", "jsonpath={.status.complete}=true")
    except AssertionError as error:
        said = home.kubectl("describe", "vmrestore", name).stdout + home.kubectl("get", "events").stdout[-3000:]
        log = (home.directory / "home.log").read_text()[-3000:] if (home.directory / "home.log").exists() else ""
        raise AssertionError(f"{error}\n{said}\n{log}") from error


def moves(home):
    """The guest writes: nothing has left it frozen."""
    was = counters(home, DISKS)
    home.wait_until("the guest writes", lambda: counters(home, DISKS) != was)


def all_there_is(home, taken):
    """Where the fault may lie: in what the guest wrote, in the snapshot's copies, or in the restored disks."""
    copies = {
        str(path.relative_to(home.directory)): path.read_bytes()[:16]
        for path in (home.directory / "snapshots").glob(f"*/*{taken}*")
    }
    with home.console("db") as console:
        console.type("for n in /sys/block/vd*; do echo $n $(cat $n/serial $n/ro); done; dmesg | tail -5; echo DO''NE\n")
        guest = console.read_until("DONE")
    return f"now {counters(home, DISKS)}, copies {copies}, guest: {guest}"


def test_kills(home):
    home.patience = 300  # a guest that is killed again and again is started after a while only
    chance = random.Random(KILLS)
    for name in DISKS:
        fill(home, name)
    home.apply_vm("db", memory="256Mi", max_memory="1Gi", extra=extra({name: name for name in DISKS}))
    home.wait_agent("db")
    type_script(home, "db", WRITER, "WRITER-RUNS")
    for number in range(KILLS):
        taken, twin, victim = f"s{number}", f"t{number}", ("home", "guest", "restore", "home")[number % 4]
        document = snapshot(taken, "db")
        if number % 3 == 0:  # the guest is stopped for it, and must not stay so
            document["metadata"]["annotations"] = {MEMORY: "true"}
        home.apply(document)
        time.sleep(chance.uniform(0, 0.7))
        if victim == "home":
            revived(home)
        elif victim == "guest":
            kill_guest(home)
        home.wait(f"vmsnapshot/{taken}", "jsonpath={.status.readyToUse}=true")
        said = indications(home, taken)
        if victim != "guest":
            assert said == sorted(["Memory" if number % 3 == 0 else "GuestAgent", "Online"]), f"{victim} killed"
        home.apply(restore(f"r{number}", twin, taken, volumeRestorePolicy="PrefixTargetName"))
        if victim == "restore":
            time.sleep(chance.uniform(0, 0.7))
            revived(home)
        complete(home, f"r{number}")
        then = counters(home, claims_of(home, twin))
        assert consistent(then), f"{taken}, {victim} killed: {then}, {all_there_is(home, taken)}"
        for claim, copy in zip(DISKS, claims_of(home, twin), strict=True):
            old, new = (content_of(home, each) for each in (claim, copy))
            assert old[MIB:] == new[MIB:], f"{copy} of {taken}, {victim} killed"
        if victim == "guest":
            write_again(home)
        moves(home)
        assert "snapshotInProgress" not in home.kubectl_json("get", "vm", "db")["status"]
        home.kubectl("delete", f"vm/{twin}", f"vmsnapshot/{taken}", f"vmrestore/r{number}", "--ignore-not-found")
        print(f"round {number + 1}: {victim} killed, and all went on", flush=True)
    home.wait_until("the copies removed", lambda: not list((home.directory / "snapshots").iterdir()))
    assert json.loads(home.kubectl("get", "volumesnapshots", "-o", "json").stdout)["items"] == []
