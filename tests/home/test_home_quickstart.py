"""What the quickstart shows at its end."""

from pathlib import Path

from hotvirt.home.paths import Paths
from hotvirt.home.quickstart import Commands, next_commands
from hotvirt.home.quickstart_table import GuestFacts, Row, render

SMALL = GuestFacts(memory=942 << 20, cpus=1, boot="b")
LARGE = GuestFacts(memory=1966 << 20, cpus=1, boot="b", disks=(("sda", 1 << 30),))


def test_table_shows_what_each_step_changed():
    rows = [Row("VM created", 0.2), Row("agent", 3.456, after=SMALL), Row("grown", 0.5, before=SMALL, after=LARGE)]
    assert render(rows).splitlines() == [
        "STEP        SECONDS  GUEST: MemTotal      GUEST: nproc  GUEST: lsblk",
        "----------  -------  -------------------  ------------  --------------------",
        "VM created     0.20",
        "agent          3.46  942 MiB              1             none",
        "grown          0.50  942 MiB -> 1966 MiB  1             none -> sda 1024 MiB",
    ]


def commands(at, *, is_default=True):
    return Commands(Path(f"{at}/kubectl"), Path(f"{at}/hotvirt"), {}, Paths(Path("/s"), Path("/r"), is_default))


def test_next_commands_work_at_the_prompt():
    text = next_commands(commands("/usr/bin"), searched="/bin:/usr/bin")
    assert "  kubectl get vm           # see the VMs" in text
    assert "  hotvirt console vm/web   # log in" in text
    elsewhere = next_commands(commands("/elsewhere"), searched="/bin")
    assert "/elsewhere/kubectl get vm" in elsewhere


def test_a_home_of_its_own_place_is_exported_first():
    text = next_commands(commands("/usr/bin", is_default=False), searched="/usr/bin")
    assert text.splitlines()[1] == "  export HOTVIRT_HOME=/s KUBECONFIG=/s/kubeconfig"
