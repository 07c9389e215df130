"""A whole Debian, set up by cloud-init as `create vm` says: reached by ssh, scp and datagrams, resized while it runs.

One guest for all of it, as its boot is what takes long; each case waits until it lets its user in.
"""

import json
import socket
import time

import pytest

pytestmark = [pytest.mark.guest, pytest.mark.timeout(900)]

MIB = 1 << 20
NODE = {"node.memory", "node.cpu"}
"""What depends on the machine that the test runs on."""


@pytest.fixture(autouse=True)
def up(debian):
    debian.wait()


def free_datagram_port():
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_ssh_logs_in_and_gives_the_commands_exit_code(virtctl, debian):
    assert debian.ssh("whoami; hostname") == "ada\ndeb\n"
    assert virtctl.run("ssh", "ada@vm/deb/default", *debian.options[1:], "--command", "exit 7").returncode == (
        7 if virtctl.is_ours else 1
    )
    assert virtctl("ssh", "ada@vmi/deb", *debian.options[1:], "-c", "uname -s") == "Linux\n"


def test_the_seed_writes_a_file(debian):
    assert debian.ssh("cat /srv/note") == "written by the seed"


def test_a_password_is_set_in_the_guest(virtctl, home, debian):

    def stored():
        return debian.ssh("sudo -n grep ^ada: /etc/shadow").split(":")[1]

    home.wait("vm/deb", "condition=AccessCredentialsSynchronized")
    first = stored()
    assert "$" in first  # cloud-init may have locked it after the agent set it
    words = ["credentials", "set-password", "deb", "--user=ada", "--password=second"]
    assert "owner" in virtctl.fails(*words) or virtctl.is_ours
    virtctl(*words, "--force")
    home.wait_until("another password", lambda: stored() not in (first, "!", "*"))


def test_scp_copies_both_ways(virtctl, debian):
    content = bytes(range(256)) * 4096
    (virtctl.directory / "there").mkdir(exist_ok=True)
    (virtctl.directory / "there" / "file").write_bytes(content)
    virtctl("scp", "there/file", "vm/deb:copy", *debian.options)
    virtctl("scp", "ada@vm/deb/default:copy", "back", *debian.options[1:])
    assert (virtctl.directory / "back").read_bytes() == content
    virtctl("scp", "--recursive", "--preserve", "there", "vm/deb:", *debian.options)
    assert debian.ssh("cmp there/file copy && echo same") == "same\n"


def test_port_forward_of_datagrams(virtctl, debian):
    echo = (
        "use IO::Socket::INET; $s = IO::Socket::INET->new(LocalPort => 5353, Proto => 'udp') or die; "
        "while ($s->recv($d, 1500)) { $s->send(uc $d) }"
    )
    debian.ssh(f'nohup perl -e "{echo}" >/dev/null 2>&1 </dev/null &'.replace("$", "\\$"))
    port = free_datagram_port()
    with virtctl.forwarded("vm/deb", f"udp/{port}:5353"), socket.socket(type=socket.SOCK_DGRAM) as sender:
        sender.settimeout(3)
        sender.connect(("127.0.0.1", port))
        deadline = time.monotonic() + 60
        while True:
            assert time.monotonic() < deadline, "no datagram came back"
            try:
                sender.send(b"ping-%d" % 42)
                assert sender.recv(1500) == b"PING-42"
                break
            except (TimeoutError, ConnectionRefusedError):
                time.sleep(0.3)


def what_stands_in_the_way(home):
    """Some of the cells that tests/guest/resize has of the tiny guest each time, and of a Debian when asked to."""
    home.wait("vmi/deb", "condition=MemoryHotplugAvailable", "condition=CPUHotplugAvailable")
    told = home.hotvirt("why", "vm/deb", "memory=1536Mi", "cpu=2", "memory=5Gi", "cpu=5", "disk=data,bus=sata",
                        "disk=none", "no-disk=root", "-o", "json", check=False)  # fmt: skip
    assert told.returncode == 3, told.stdout + told.stderr
    failing = {
        change["change"]: {each["id"] for each in change["findings"] if each["status"] == "fail"} - NODE
        for change in json.loads(told.stdout)["changes"]
    }
    assert failing == {
        "memory=1536Mi": set(), "cpu=2": set(), "memory=5Gi": {"memory.max-guest"}, "cpu=5": {"cpu.max-sockets"},
        "disk=data,bus=sata": {"disk.bus"}, "disk=none": {"disk.claim"}, "no-disk=root": {"disk.removable"},
    }  # fmt: skip


def test_it_is_resized_while_it_runs(home):
    home.apply_claim("data", "64Mi")
    boot = home.facts("deb")
    assert (boot["hostname"], boot["onlineCPUs"]) == ("deb", 1)
    assert boot["kernel"].startswith("6.1.")
    info = home.vmi("deb")["status"]["guestOSInfo"]
    assert (info["id"], info["versionId"], info["kernelRelease"]) == ("debian", "12", boot["kernel"])
    with home.console("deb") as console:
        console.type("\n")
        console.read_until("deb login: ")

    what_stands_in_the_way(home)
    home.patch_vm("deb", memory="1536Mi", sockets=2)
    home.wait(
        "vmi/deb",
        "jsonpath={.status.memory.guestCurrent}=1536Mi", "jsonpath={.status.currentCPUTopology.sockets}=2",
    )  # fmt: skip
    grown = home.facts("deb")
    assert abs(grown["memTotalBytes"] - boot["memTotalBytes"] - 512 * MIB) < 16 * MIB
    assert grown["onlineCPUs"] == 2

    home.hotvirt("addvolume", "deb", "--volume-name=data", "--persist")
    home.wait_volume("deb", "data", "Ready")
    added = [disk for disk in home.facts("deb")["blockDevices"] if disk["serial"] == "data"]
    assert [disk["sizeBytes"] for disk in added] == [64 * MIB]

    home.patch_vm("deb", memory="1Gi", sockets=1)
    home.wait(
        "vmi/deb",
        "jsonpath={.status.memory.guestCurrent}=1Gi", "jsonpath={.status.currentCPUTopology.sockets}=1",
    )  # fmt: skip
    back = home.facts("deb")
    assert abs(back["memTotalBytes"] - boot["memTotalBytes"]) < 16 * MIB
    assert back["onlineCPUs"] == 1
    assert back["bootID"] == boot["bootID"], "the guest was restarted"
    assert "RestartRequired" not in home.conditions("vm/deb")


def test_it_obeys_the_power_button(home, debian):
    """Within the grace period, at whose end the power would be cut."""
    began = time.monotonic()
    home.hotvirt("stop", "deb")
    home.wait("vm/deb", "jsonpath={.status.printableStatus}=Stopped")
    assert time.monotonic() - began < debian.grace, "Debian did not obey the power button"
    home.assert_nothing_left_of_guests()
