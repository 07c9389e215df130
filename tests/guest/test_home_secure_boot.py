"""A Debian that the firmware starts by its signature, by `examples/secure-boot.yaml`, is given a CPU while it runs.

Without KVM that is where guests stood still: the firmware's protected part is entered with all vCPUs, or by none.
"""

from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.guest,
    pytest.mark.timeout(900),
    pytest.mark.long,
    pytest.mark.skipif(not Path("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd").exists(), reason="ovmf is not installed"),
]
EXAMPLE = Path(__file__).parents[2] / "examples" / "secure-boot.yaml"


def test_a_debian_starts_securely_and_takes_a_cpu(home):
    home.patience = 600
    home.kubectl("apply", "-f", str(EXAMPLE))
    home.wait_agent("sealed")
    home.wait_until("it has the one CPU that it asks for", lambda: home.facts("sealed")["onlineCPUs"] == 1)
    boot = home.facts("sealed")["bootID"]
    for count in (2, 1):
        home.patch_vm("sealed", sockets=count)
        home.wait("vmi/sealed", f"jsonpath={{.status.currentCPUTopology.sockets}}={count}")
        assert home.facts("sealed")["onlineCPUs"] == count
    assert home.facts("sealed")["bootID"] == boot
    (pod,) = home.kubectl_json("get", "pods")["items"]
    log = ["logs", pod["metadata"]["name"], "-c", "guest-console-log"]
    home.wait_until("cloud-init has set the password", lambda: " finished at " in home.kubectl(*log).stdout)
    with home.console("sealed") as console:
        console.type("\n")
        console.read_until("ada login: ")
        console.type("debian\n")
        console.read_until("Password: ")
        console.type("change-me\n")
        console.read_until("$ ")
        console.type("od -An -tu1 -j4 /sys/firmware/efi/efivars/SecureBoot-*; echo do''ne\n")
        assert console.read_until("done").split()[-2] == "1"
