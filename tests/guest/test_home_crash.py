"""kill -9 of the home during boot, during a resize and at rest: guests go on, and what was asked for is completed.

The proof is the guest's own: its boot id and uptime, read through its agent before and after.
"""

import pytest

pytestmark = pytest.mark.guest


def test_kill_at_rest_leaves_the_guest_running(home):
    home.apply_vm("rest")
    home.wait_agent("rest")
    before = home.facts("rest")
    home.kill()
    home.up()
    home.wait_agent("rest")
    after = home.facts("rest")
    assert after["bootID"] == before["bootID"]
    assert after["uptimeSeconds"] > before["uptimeSeconds"]
    assert home.vmi("rest")["status"]["phase"] == "Running"


def test_kill_during_boot_starts_the_guest_once(home):
    home.apply_vm("boot")
    home.wait("vmi/boot", "jsonpath={.status.phase}=Running")
    home.kill()
    home.up()
    home.wait_agent("boot")
    pods = home.kubectl_json("get", "pods", "-l", "vm.kubevirt.io/name=boot")["items"]
    assert len(pods) == 1, "the guest was started a second time"
    home.wait("vm/boot", "condition=Ready")


@pytest.mark.parametrize("moment", ["before the agent sees it", "after QEMU has it"])
def test_kill_during_a_resize_completes_it(home, moment):
    home.apply_vm("grow")
    home.wait_agent("grow")
    before = home.facts("grow")
    home.patch_vm("grow", memory="2Gi", sockets=2)
    if moment == "after QEMU has it":
        home.wait("vmi/grow", "jsonpath={.status.memory.guestRequested}=2Gi")
    home.kill()
    home.up()
    home.wait(
        "vmi/grow", "jsonpath={.status.memory.guestCurrent}=2Gi", "jsonpath={.status.currentCPUTopology.sockets}=2"
    )
    after = home.facts("grow")
    assert after["bootID"] == before["bootID"]
    assert after["uptimeSeconds"] > before["uptimeSeconds"]
    assert after["onlineCPUs"] == 2
    assert after["memTotalBytes"] - before["memTotalBytes"] > 900 << 20


def test_guest_that_powers_itself_off_while_the_home_is_dead_is_started_again(home):
    home.apply_vm("off")
    home.wait_agent("off")
    first = home.vmi("off")["metadata"]["uid"]
    before = home.facts("off")
    home.kill()
    home.guest_poweroff("off")
    home.up()
    home.wait_new_instance("off", first)
    home.wait_agent("off")
    assert home.facts("off")["bootID"] != before["bootID"]
