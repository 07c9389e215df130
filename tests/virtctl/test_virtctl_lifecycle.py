"""start, stop, restart, pause, unpause, soft-reboot, reset: what the guest and its process show of each.

In this order on one guest, each case from where the one before left it.
"""

import json
import time

import pytest

pytestmark = [pytest.mark.guest, pytest.mark.timeout(600)]


def test_dry_runs_change_nothing(virtctl, web):
    assert "Dry Run execution" in virtctl("start", "web", "--dry-run")
    time.sleep(1)  # what must not happen has no event
    assert web.status() == "Stopped"


def test_start_paused_then_unpause(virtctl, home, web):
    assert virtctl("start", "web", "--paused") == "VM web was scheduled to start\n"
    web.wait("Paused")
    said = virtctl.fails("guestosinfo", "web").lower()
    assert "paused" in said or not virtctl.is_ours  # virtctl has a sentence of its own for every conflict
    assert virtctl("unpause", "vm", "web") == "VMI web was scheduled to unpause\n"
    web.wait("Running")
    assert web.boot()
    assert "already running" in virtctl.fails("start", "web").lower()


def test_pause_stops_the_guests_clock(virtctl, home, web):
    up, before = web.facts()["uptimeSeconds"], time.monotonic()
    assert virtctl("pause", "vm", "web") == "VMI web was scheduled to pause\n"
    home.wait("vmi/web", "condition=Paused")
    stood = time.monotonic()
    assert "already paused" in virtctl.fails("pause", "vmi", "web")
    time.sleep(3)
    still = time.monotonic() - stood
    virtctl("unpause", "vmi", "web")
    web.wait("Running")
    went_on = web.facts()["uptimeSeconds"] - up
    assert went_on < time.monotonic() - before - still + 0.5
    assert "not paused" in virtctl.fails("unpause", "vm", "web")


@pytest.mark.parametrize("verb", ["soft-reboot", "reset"])
def test_the_guest_boots_anew_in_the_same_process(virtctl, web, verb):
    boot, uid, process = web.boot(), web.uid, web.process
    assert virtctl(verb, "web") == f"VMI web was scheduled to {verb}\n"
    web.wait_for_another_boot(boot)
    assert (web.uid, web.process) == (uid, process)


@pytest.mark.parametrize("how", [[], ["--force", "--grace-period=0"]])
def test_restart_is_another_instance(virtctl, home, web, how):
    boot, uid = web.boot(), web.uid
    virtctl("restart", "web", "--dry-run", *how)
    assert virtctl("restart", "web", *how) == "VM web was scheduled to restart\n"
    home.wait_new_instance("web", uid)
    assert web.boot() != boot


def test_stop_and_start(virtctl, home, web):
    process = web.process
    virtctl("stop", "web", "--dry-run")
    assert virtctl("stop", "web") == "VM web was scheduled to stop\n"
    web.wait("Stopped")
    # Stopped is said of a guest that has ended; its instance goes the moment after.
    home.wait_until("its instance is gone", lambda: home.kubectl("get", "vmi", "web", check=False).returncode == 1)
    home.wait_until("its process is gone", lambda: process not in home.guest_processes())
    assert "not running" in virtctl.fails("stop", "web")
    for verb in ("pause vm", "console", "reset", "soft-reboot"):
        said = virtctl.fails(*verb.split(), "web")
        assert "not running" in said or "not found" in said, said
    virtctl("start", "web")
    home.wait_until("there is an instance", lambda: home.kubectl("get", "vmi", "web", check=False).returncode == 0)
    with virtctl.console("web") as console:  # waits for the guest
        console.read_until("# ")
    web.boot()


def test_force_stop_does_not_wait_for_the_guest(virtctl, home, web):
    web.boot()
    with virtctl.console("web") as console:
        console.type("\n")
        console.read_until("# ")
        # A guest that does not hear its power button would take its whole grace period.
        console.type("killall acpid qemu-ga; echo de''af\n")
        console.read_until("deaf")
    began = time.monotonic()
    virtctl("stop", "web", "--force", "--grace-period=0")
    web.wait("Stopped")
    assert time.monotonic() - began < 60
    virtctl("start", "web")
    web.boot()


def test_what_names_no_vm_is_told(virtctl):
    for verb in ("start", "stop", "restart", "reset", "soft-reboot", "guestosinfo"):
        said = virtctl.fails(verb, "nobody")
        assert "not found" in said or "could not find" in said, said


def test_a_half_written_force_is_refused(virtctl, web):
    web.boot()
    uid = web.uid
    for words in (["stop", "web", "--force"], ["stop", "web", "--grace-period=0"]):
        assert "--force" in virtctl.fails(*words)
    assert web.uid == uid


def test_a_home_of_one_node_migrates_nothing_and_says_so(virtctl, web):
    boot = web.boot()
    assert "NotMigratable" in virtctl.fails("migrate", "web")
    assert "migrat" in virtctl.fails("migrate-cancel", "web").lower()
    assert virtctl("evacuate-cancel", "vm", "web") == "VM default/web was canceled evacuation\n"
    assert virtctl("evacuate-cancel", "vmi", "web") == "VMI default/web was canceled evacuation\n"
    assert web.boot() == boot


def test_what_the_guest_says_of_itself(virtctl, home, web):
    web.boot()
    home.wait_until("the guest has its name from DHCP", lambda: web.facts()["hostname"] == "web")
    info = json.loads(virtctl("guestosinfo", "web"))
    assert info["os"]["kernelRelease"] == web.facts()["kernel"]
    assert info["hostname"] == "web"
    assert isinstance(json.loads(virtctl("userlist", "web")).get("items") or [], list)
    assert isinstance(json.loads(virtctl("fslist", "web")).get("items") or [], list)
