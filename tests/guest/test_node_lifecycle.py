"""One guest's life as the node agent sees it: how it ends, what is asked of it, and that a quiet one costs nothing."""

import os
import re
import select
import signal
import socket
import time

import pytest

pytestmark = [pytest.mark.guest, pytest.mark.timeout(300)]
OFF = 4.0
"""Seconds that a guest's clock may be off: Linux takes whole ones from the machine's at its boot."""


def kill(number):
    waiter = os.pidfd_open(number)
    try:
        signal.pidfd_send_signal(waiter, signal.SIGKILL)
        assert select.select([waiter], [], [], 10)[0], f"process {number} survived SIGKILL"
    finally:
        os.close(waiter)


def reasons(home, name):
    events = home.kubectl_json("get", "events", "--field-selector", f"involvedObject.name={name}")["items"]
    return {event["reason"] for event in events if event["involvedObject"]["kind"] == "VirtualMachineInstance"}


def test_a_killed_qemu_is_a_failed_instance_and_the_machine_comes_back(home):
    home.apply_vm("hit")
    home.wait_agent("hit")
    assert {"Created", "Started"} <= reasons(home, "hit")
    old = home.vmi("hit")["metadata"]["uid"]
    boot = home.facts("hit")["bootID"]
    (qemu,) = home.guest_processes()
    kill(qemu)
    home.wait_new_instance("hit", old)
    home.wait_agent("hit")
    assert home.facts("hit")["bootID"] != boot
    assert "QEMU ended" in home.messages("vmi/hit")
    assert len(home.guest_processes()) == 1
    assert len(list((home.directory / "run" / "pods").iterdir())) == 1, "the dead pod's directory is still there"


def test_a_guest_that_powers_itself_off_has_succeeded(home):
    home.apply_vm("quit", strategy="Manual")
    home.hotvirt("start", "quit")
    home.wait_agent("quit")
    (pod,) = (home.directory / "run" / "pods").iterdir()
    with socket.socket(socket.AF_UNIX) as console:
        console.connect(str(pod / "serial.sock"))
        console.sendall(b"\npoweroff\n")
        home.wait("vm/quit", "jsonpath={.status.printableStatus}=Stopped")
    home.wait_until("no guest process left", lambda: not home.guest_processes())
    assert "the guest powered off" in home.messages("vmi/quit")


def test_a_paused_guest_stands_still_over_a_restart_of_the_home_and_one_that_is_deaf_is_ended_when_its_time_is_over(
    home,
):
    home.apply_vm("still")
    home.wait_agent("still")
    before = home.facts("still")
    home.hotvirt("pause", "vm/still")
    home.wait("vmi/still", "condition=Paused")
    stood = time.time()
    assert home.hotvirt("pause", "vm/still", check=False).returncode != 0
    home.kill()
    home.up()
    home.wait("vmi/still", "condition=Paused")
    home.wait_until("it stood still for a while", lambda: time.time() - stood > 2 * OFF)
    home.hotvirt("unpause", "vm/still")
    home.wait("vmi/still", "jsonpath={.status.phase}=Running")
    home.wait_until("Paused gone", lambda: "Paused" not in home.conditions("vmi/still"))
    assert home.facts("still")["bootID"] == before["bootID"]
    with home.shell("still") as shell:
        home.wait_until("its clock is right", lambda: slow(shell) < OFF)

    home.hotvirt("pause", "vm/still")
    (qemu,) = home.guest_processes()
    os.kill(qemu, signal.SIGSTOP)  # nothing in it answers now, not even its monitor
    began = time.monotonic()
    home.kubectl("delete", "vm", "still", "--timeout=90s")
    assert time.monotonic() - began < 40, (
        "10 s are the guest's, 10 s more QEMU's, and one question to it may be waited for"
    )
    home.assert_nothing_left_of_guests()


def slow(shell):
    """Seconds by which the guest's clock is, and those that the answer took."""
    told = int(re.findall(r"^(\d+)$", shell.run("date +%s"), re.MULTILINE)[0])
    return time.time() - told


def test_a_second_machine_waits_for_the_claim_that_the_first_one_uses(home):
    home.apply_claim("shared", "32Mi")
    home.apply_vm("first", claim="shared")
    home.wait_agent("first")
    home.apply_vm("second", claim="shared")
    home.wait_message("vmi/second", "claim 'shared' is in use by VM 'first'")
    assert home.vmi("second")["status"]["phase"] == "Scheduled"
    home.kubectl("delete", "vm", "first", "--timeout=60s")
    home.wait_agent("second")
    assert "Synchronized" not in home.conditions("vmi/second")


def test_a_quiet_guest_costs_no_write_and_next_to_no_cpu(home):
    home.apply_vm("quiet")
    home.wait_agent("quiet")
    home.wait("vm/quiet", "condition=Ready")
    home.facts("quiet")
    time.sleep(5)  # what settles after a start has settled
    pod = f"pod/{home.kubectl_json('get', 'pods')['items'][0]['metadata']['name']}"

    def versions():
        everything = ("vm/quiet", "vmi/quiet", pod, "node")
        found = [home.kubectl_json("get", what) for what in everything]
        return [each.get("items", [each])[0]["metadata"]["resourceVersion"] for each in found]

    before, began = versions(), ticks(home.pid)
    asked = ticks(home.pid) - began
    began = ticks(home.pid)
    time.sleep(10)
    spent = ticks(home.pid) - began
    assert versions() == before
    assert spent <= 10, f"{spent} of 1000 ticks (asking four times took {asked})"


def ticks(number):
    """Hundredths of a second of CPU that a process has used."""
    with open(f"/proc/{number}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
