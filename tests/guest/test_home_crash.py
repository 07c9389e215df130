"""kill -9 of the home during boot, during a resize and at rest: guests go on, and what was asked for is completed.

The proof is the guest's own: its boot id and uptime, read through its agent before and after.
"""

import pytest

pytestmark = [pytest.mark.guest, pytest.mark.timeout(300)]


def test_a_guest_goes_on_where_the_home_is_killed_at_its_boot_at_rest_and_at_resizes(home):
    home.apply_vm("web", max_memory="4Gi", max_sockets=4)
    home.wait("vmi/web", "jsonpath={.status.phase}=Running")
    home.kill()
    home.up()
    home.wait_agent("web")
    pods = home.kubectl_json("get", "pods", "-l", "vm.kubevirt.io/name=web")["items"]
    assert len(pods) == 1, "the guest was started a second time"
    home.wait("vm/web", "condition=Ready")

    boot = home.facts("web")
    home.kill()
    home.up()
    home.wait_agent("web")
    assert_goes_on(home.facts("web"), boot)
    assert home.vmi("web")["status"]["phase"] == "Running"

    # Before the node's part of the home sees the edit, and after QEMU has it.
    for memory, sockets, seen in ((2, 2, False), (3, 3, True)):
        home.patch_vm("web", memory=f"{memory}Gi", sockets=sockets)
        if seen:
            home.wait("vmi/web", f"jsonpath={{.status.memory.guestRequested}}={memory}Gi")
        home.kill()
        home.up()
        home.wait(
            "vmi/web", f"jsonpath={{.status.memory.guestCurrent}}={memory}Gi",
            f"jsonpath={{.status.currentCPUTopology.sockets}}={sockets}",
        )  # fmt: skip
        grown = home.facts("web")
        assert_goes_on(grown, boot)
        assert grown["onlineCPUs"] == sockets
        assert grown["memTotalBytes"] - boot["memTotalBytes"] > (memory - 1) * 900 << 20


def assert_goes_on(now, before):
    assert now["bootID"] == before["bootID"]
    assert now["uptimeSeconds"] > before["uptimeSeconds"]


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
