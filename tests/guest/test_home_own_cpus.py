"""A guest that takes a vCPU offline by itself: told as it is at the next look, and brought to what its VM asks for."""

import subprocess

import pytest

pytestmark = pytest.mark.guest

SOCKETS = 'jsonpath={.status.currentCPUTopology.sockets}{"\\n"}'


def test_a_vcpu_that_the_guest_takes_offline_is_told_and_brought_back(home):
    home.apply_vm("web", sockets=2, max_sockets=4)
    home.wait_agent("web")
    home.wait("vmi/web", "jsonpath={.status.currentCPUTopology.sockets}=2")
    assert home.facts("web")["onlineCPUs"] == 2
    watch = subprocess.Popen(
        [home.bin / "kubectl", "get", "vmi", "web", "--watch", "-o", SOCKETS],
        env=home.env, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert watch.stdout.readline() == "2\n"
        with home.console("web") as console:
            console.type("\necho 0 >/sys/devices/system/cpu/cpu1/online; echo $?-off\n")
            console.read_until("0-off")
        home.facts("web")  # this is a look; it may have been brought back already, if there was another just before
        told = [watch.stdout.readline()]
        while told[-1] != "1\n":
            told.append(watch.stdout.readline())
        while told[-1] != "2\n":
            told.append(watch.stdout.readline())
    finally:
        watch.kill()
        watch.communicate()
    assert home.facts("web")["onlineCPUs"] == 2
    assert "HotVCPUChange" not in home.conditions("vmi/web")
