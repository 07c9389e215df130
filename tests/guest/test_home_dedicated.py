"""A guest with CPUs of the host for itself: its vCPUs run there, nobody else of the home does, and others wait."""

import os
import re
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.guest,
    pytest.mark.timeout(400),
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU stays for all, so there must be two"),
]

HOST = sorted(os.sched_getaffinity(0))
OURS, SHARED = HOST[1], HOST[:1] + HOST[2:]
"""The CPU that the first such guest gets, and what is left for all others."""


def extra(cpus):
    cpu = {"sockets": cpus, "maxSockets": 4, "dedicatedCpuPlacement": True}
    return {"domain": {"cpu": cpu}}


def allowed(pid):
    """Thread's name -> the CPUs it may run on, of the host itself."""
    found = {}
    for thread in Path(f"/proc/{pid}/task").iterdir():
        status = dict(line.split(":\t", 1) for line in (thread / "status").read_text().splitlines())
        found[f"{status['Name']} {thread.name}"] = expanded(status["Cpus_allowed_list"])
    return found


def expanded(text):
    cpus = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        cpus += range(int(first), int(last or first) + 1)
    return cpus


def qemu_of(home, name):
    """Its pid, by the name of the guest in its command line."""
    lines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().decode() for pid in home.guest_processes()}
    return next(pid for pid, line in lines.items() if f"guest=default_{name}," in line)


def runs_on(home, pid, cpus):
    home.wait_until(f"{pid} runs on {cpus}", lambda: all(each == cpus for each in allowed(pid).values()))


def test_a_guest_has_its_cpus_alone_and_the_next_one_waits_for_them(home):
    home.apply_vm("plain", memory="256Mi")
    home.wait_agent("plain")
    plain = qemu_of(home, "plain")
    assert all(each == HOST for each in allowed(plain).values())

    home.apply_vm("own", memory="256Mi", extra=extra(1))
    home.wait_message("vmi/own", f"vCPU 0 on CPU {OURS}")
    home.wait_agent("own")
    own = qemu_of(home, "own")
    runs_on(home, own, [OURS])
    vcpus = [thread for thread in allowed(own) if re.match(r"CPU \d+/TCG|CPU \d+/KVM", thread)]
    assert vcpus
    runs_on(home, plain, SHARED)
    runs_on(home, home.pid, SHARED)

    # All that there were: the next one waits, and says what would help.
    home.apply_vm("late", memory="256Mi", extra=extra(len(HOST) - 1))
    home.wait_message("vmi/late", "of its own asked for")
    assert "stop another machine with dedicatedCpuPlacement" in home.messages("vmi/late")
    assert home.conditions("vmi/late")["PodScheduled"]["reason"] == "Unschedulable"

    # More of them come with a restart, and that is said.
    home.patch_vm("own", sockets=2)
    home.wait_message("vm/own", "dedicatedCpuPlacement) from its start")
    home.patch_vm("own", sockets=1)

    # A new home gives the same.
    home.kill()
    home.up()
    home.wait_agent("own")
    runs_on(home, home.pid, SHARED)
    assert all(each == [OURS] for each in allowed(own).values())

    home.hotvirt("stop", "own")
    home.wait("vmi/late", "jsonpath={.status.phase}=Running")
    home.wait_message("vmi/late", f"vCPU 0 on CPU {OURS}")
    runs_on(home, plain, HOST[:1])
    home.kubectl("delete", "vm", "late", "--wait=false")
    runs_on(home, plain, HOST)
    runs_on(home, home.pid, HOST)
