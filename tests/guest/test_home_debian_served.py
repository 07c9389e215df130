"""A whole Debian on a disk of its own that another guest logs in to by ssh under its service's name: what cloud-init
set up, what its probe decides, its clock, and that it comes back after a reboot from inside and a crash of its QEMU.

One machine for all of it, as its boots are what takes long. The other guest is the tiny one with Debian's ssh: it has
the image of the same Debian as a second disk, and runs the program from there.
"""

import contextlib
import functools
import http.server
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from hotvirt.images import catalog
from hotvirt.node import bridge

pytestmark = [
    pytest.mark.guest,
    pytest.mark.timeout(1800),
    pytest.mark.long,
    pytest.mark.skipif(
        bool(bridge.missing()) or os.geteuid() != 0 or not shutil.which("ssh-keygen"),
        reason=f"no bridge network, or no ssh-keygen here: {bridge.missing()}",
    ),
]
PATIENCE = 600
"""Seconds: a systemd without KVM on a busy two-core machine."""
OFF = 3.0
"""Seconds that the guest's clock may be off: Linux takes whole ones from the machine's at its boot."""
MAC = "02:00:00:00:00:77"
NETWORK_DATA = f"""version: 2
ethernets:
  lan: {{match: {{macaddress: "{MAC}"}}, set-name: lan0, dhcp4: true}}
"""
PROBE = ["sh", "-c", "systemctl is-active --quiet ssh && test ! -e /run/away"]


class Key:
    """A pair for ssh."""

    def __init__(self, path):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", path], check=True)
        self.private, self.public = path.read_text(), path.with_suffix(".pub").read_text().strip()


@contextlib.contextmanager
def served(folder):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def debian(url, user, host):
    seed = "\n".join(
        [
            "#cloud-config",
            "users:",
            "- name: ada",
            "  shell: /bin/bash",
            '  sudo: "ALL=(ALL) NOPASSWD:ALL"',
            f'  ssh_authorized_keys: ["{user.public}"]',
            "ssh_keys:",
            f'  ed25519_public: "{host.public}"',
            "  ed25519_private: |",
            *(f"    {line}" for line in host.private.splitlines()),
            "",  # without a newline at its end ssh takes it for no key
        ]
    )
    domain = {
        "memory": {"guest": "1Gi"},
        "devices": {
            "disks": [{"name": "root", "disk": {"bus": "virtio"}}, {"name": "seed", "disk": {"bus": "virtio"}}],
            "interfaces": [{"name": "default", "masquerade": {}, "macAddress": MAC}],
        },
    }
    spec = {
        "domain": domain, "networks": [{"name": "default", "pod": {}}],
        "readinessProbe": {"exec": {"command": PROBE}, "periodSeconds": 2, "timeoutSeconds": 20, "failureThreshold": 1},
        "volumes": [
            {"name": "root", "dataVolume": {"name": "box-root"}},
            {"name": "seed", "cloudInitNoCloud": {"userData": seed, "networkData": NETWORK_DATA}},
        ],
    }  # fmt: skip
    root = {
        "metadata": {"name": "box-root"},
        "spec": {"source": {"http": {"url": url}}, "storage": {"resources": {"requests": {"storage": "6Gi"}}}},
    }
    return {
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": "box"},
        "spec": {
            "runStrategy": "Always", "dataVolumeTemplates": [root],
            "template": {"metadata": {"labels": {"app": "box"}}, "spec": spec},
        },
    }  # fmt: skip


class Client:
    """The other guest, at its console."""

    def __init__(self, console, home):
        self._console, self._home = console, home
        console.type("\n")
        console.read_until("# ")

    def run(self, line):
        """What it prints, and its exit code. The marks differ from the echo of what is typed."""
        self._console.type(f"echo BE''GIN; {line}; echo EN''D-$?-\n")
        self._console.read_until("BEGIN\r\n")
        said = self._console.read_until("END-").removesuffix("END-").replace("\r", "")
        return said, int(self._console.read_until("-").removesuffix("-"))

    def prepare(self, key, host, name):
        """Debian's ssh, told whom to trust."""
        for line in (
            "until findfs LABEL=root; do sleep 0.2; done",
            "mkdir -p /mnt/root && mount $(findfs LABEL=root) /mnt/root",
            "mount --bind /dev /mnt/root/dev && mount -t proc proc /mnt/root/proc",
            "until [ -s /etc/resolv.conf ]; do sleep 0.2; done",
            "rm /mnt/root/etc/resolv.conf && cp /etc/resolv.conf /mnt/root/etc/",
            "mkdir -m 700 /mnt/root/root/.ssh; cd /mnt/root/root/.ssh && : >id_ed25519 && chmod 600 id_ed25519",
            *(f"echo '{line}' >>id_ed25519" for line in key.private.splitlines()),
            f"echo '{name} {' '.join(host.public.split()[:2])}' >known_hosts",
        ):
            said, code = self.run(line)
            assert code == 0, f"{line}: {said}"

    def ssh(self, where, command, *, known_as=None):
        return self.run(self._ssh(where, command, known_as=known_as))

    def _ssh(self, where, command, *, known_as=None):
        alias = f"-o HostKeyAlias={known_as} " if known_as else ""
        options = f"-T -o BatchMode=yes -o StrictHostKeyChecking=yes -o ConnectTimeout=20 {alias}"
        return f"chroot /mnt/root ssh {options}ada@{where} '{command}' </dev/null 2>&1"

    def slow(self, where):
        """Its first word counts, not the end of the connection: an emulated ssh takes seconds for either."""
        self._console.type(f"echo BE''GIN; {self._ssh(where, 'date +%s.%N')}; echo EN''D\n")
        self._console.read_until("BEGIN\r\n")
        there = float(self._console.read_until("\n"))
        now = time.time()
        self._console.read_until("END")
        return now - there

    def told(self, where, command, **options):
        said, code = self.ssh(where, command, **options)
        assert code == 0, said
        return said

    def reaches(self, where):
        return self.ssh(where, "true")[1] == 0


@pytest.fixture
async def image():
    return (await catalog.ensure("hotvirt/debian:12", catalog.default_cache())).disk


def test_another_guest_logs_in_by_the_services_name(home, image, tmp_path):
    home.patience = PATIENCE
    user, host = Key(tmp_path / "user"), Key(tmp_path / "host")
    with served(image.parent) as url:
        home.apply(debian(f"{url}/{image.name}", user, host))
        home.wait("dv/box-root", "jsonpath={.status.phase}=Succeeded")
    home.hotvirt("expose", "vm/box", "--name=login", "--port=22")
    home.apply_vm("laptop", memory="256Mi", max_memory="256Mi", max_sockets=1, image="hotvirt/debian:12")
    home.wait_agent("laptop")
    with home.console("laptop") as console:
        client = Client(console, home)
        client.prepare(user, host, "login")
        said, code = client.ssh("login", "true")
        assert (code, "Connection refused" in said) == (255, True), said  # nobody is ready, so nobody is behind it

        home.wait("vm/box", "condition=Ready")
        home.wait_until("its service leads there", lambda: client.reaches("login"))
        check_set_up(home, client)
        check_clock(client)
        check_probe(home, client)
        check_reboot(home, client)
        check_crash(home, client)
        check_standstill(home, client)


def check_set_up(home, client):
    address = home.vmi("box")["status"]["interfaces"][0]["ipAddress"]
    assert client.told("login", "whoami; hostname; sudo -n whoami") == "ada\nbox\nroot\n"
    assert f"inet {address}/" in client.told("login", "ip -4 addr show dev lan0")

    def card():
        found = home.vmi("box")["status"]["interfaces"][0]
        return found["interfaceName"], found["mac"]

    # The agent may have told of it first under the name that the kernel gave it.
    home.wait_until("its card's own name is told", lambda: card() == ("lan0", MAC))
    assert client.told("login", "systemctl --failed --no-legend; cloud-init status") == "status: done\n"


def check_clock(client):
    assert abs(off(client)) < OFF


def check_standstill(home, client):
    """Its clock stood still with it, and is set by its agent when it goes on."""
    home.hotvirt("pause", "vm", "box")
    home.wait("vmi/box", "condition=Paused")
    stood = time.time()
    home.wait_until("it stood still for a while", lambda: time.time() - stood > 3 * OFF)
    home.hotvirt("unpause", "vm", "box")
    home.wait_until("its service leads there", lambda: client.reaches("login"))
    home.wait_until("its clock is right", lambda: abs(off(client)) < OFF)


def off(client):
    """Seconds by which its clock is slow, and those that its answer was on the way; the least of three."""
    return min((client.slow("login") for _ in range(3)), key=abs)


def check_probe(home, client):
    address = home.vmi("box")["status"]["interfaces"][0]["ipAddress"]
    client.told("login", "sudo touch /run/away")
    home.wait("vm/box", "condition=Ready=false")
    home.wait_until("the service refuses", lambda: "Connection refused" in client.ssh("login", "true")[0])
    client.told(address, "sudo rm /run/away", known_as="login")  # the guest itself is reached all the same
    home.wait("vm/box", "condition=Ready")
    home.wait_until("the service leads there", lambda: client.reaches("login"))


def check_reboot(home, client):
    uid, pids = home.vmi("box")["metadata"]["uid"], home.guest_processes()
    before = client.told("login", "cat /proc/sys/kernel/random/boot_id; date >kept; sync; cat kept").splitlines()
    client.ssh("login", "sudo systemctl reboot")

    def booted():
        said, code = client.ssh("login", "cat /proc/sys/kernel/random/boot_id kept")
        return not code and said.splitlines()[0] != before[0]

    home.wait_until("it booted anew, and is logged in to", booted)
    assert client.told("login", "cat kept").strip() == before[1]
    assert abs(off(client)) < OFF
    home.wait("vm/box", "condition=Ready", "condition=AgentConnected")
    assert (home.vmi("box")["metadata"]["uid"], home.guest_processes()) == (uid, pids), "in the same QEMU"


def check_crash(home, client):
    uid = home.vmi("box")["metadata"]["uid"]
    kept = client.told("login", "date +%N >>kept; sync; cat kept")
    (pid,) = [
        pid for pid in home.guest_processes() if b"guest=default_box," in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    os.kill(pid, signal.SIGKILL)
    home.wait_new_instance("box", uid)
    home.wait("vm/box", "condition=Ready")
    home.wait_until("its service leads there", lambda: client.reaches("login"))
    assert client.told("login", "cat kept") == kept
    assert client.told("login", "whoami; hostname; systemctl --failed --no-legend") == "ada\nbox\n"
    assert f"inet {home.vmi('box')['status']['interfaces'][0]['ipAddress']}/" in client.told("login", "ip -4 addr")
    assert abs(off(client)) < OFF
    assert home.vmi("box")["status"]["interfaces"][0]["mac"] == MAC
