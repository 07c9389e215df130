"""A guest that mounts a ConfigMap, a Secret, an account, its pod's labels and a claim as file systems (virtiofs)."""

import hashlib
import json
import os
import signal
import time
from pathlib import Path

import pytest

from hotvirt.api.gates import CLAIMS_AS_FILESYSTEMS
from hotvirt.node import filesystems

pytestmark = [pytest.mark.guest, pytest.mark.timeout(400)]

NAMES = ("settings", "keys", "account", "about", "shared")
VOLUMES = [
    {"name": "scratch", "emptyDisk": {"capacity": "16Mi"}},
    {"name": "settings", "configMap": {"name": "settings"}},
    {"name": "keys", "secret": {"secretName": "keys"}},
    {"name": "account", "serviceAccount": {"serviceAccountName": "default"}},
    {"name": "about", "downwardAPI": {"fields": [{"path": "in/labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
    {"name": "shared", "persistentVolumeClaim": {"claimName": "shared"}},
]  # fmt: skip
EXTRA = {
    "devices": {"filesystems": [{"name": name, "virtiofs": {}} for name in NAMES]},
    "spec": {"volumes": VOLUMES},
}
MOUNT = f"modprobe virtiofs; cd /mnt; for f in {' '.join(NAMES)}; do mkdir -p $f; mount -t virtiofs $f $f; done"
GATE = {"spec": {"configuration": {"developerConfiguration": {"featureGates": [CLAIMS_AS_FILESYSTEMS]}}}}


class Shell:
    """Commands at a guest's console, and what they print."""

    def __init__(self, console):
        self._console = console

    def __call__(self, command):
        self._console.type(f"\necho B-$((1+1)); {command}; echo E-$((1+1))\n")
        self._console.read_until("B-2")
        return self._console.read_until("E-2").removesuffix("E-2").replace("\r", "").strip()


def config_map(greeting):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"greeting": greeting}}


def moves_on(file: Path) -> bool:
    """Whether the guest writes it anew."""
    was, deadline = file.read_bytes(), time.monotonic() + 60
    while time.monotonic() < deadline:
        if file.read_bytes() != was:
            return True
        time.sleep(0.1)
    return False


def test_a_guest_mounts_what_its_file_systems_name(home):
    home.apply_claim("shared", "64Mi")
    home.apply(config_map("hello"))
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"password": "s3cret"}}
    home.apply(secret)
    settings = {"memory": "256Mi", "max_memory": "1Gi", "extra": EXTRA}
    refused = home.apply_vm("files", check=False, **settings)
    assert CLAIMS_AS_FILESYSTEMS in refused.stderr

    home.kubectl("patch", "kubevirt", "kubevirt", "-n", "kubevirt", "--type=merge", "-p", json.dumps(GATE))
    home.apply_vm("files", strategy="Manual", **settings)
    home.hotvirt("start", "files")
    home.wait_agent("files")
    claim = home.kubectl_json("get", "pvc", "shared")
    directory = home.directory / "volumes" / claim["spec"]["volumeName"] / filesystems.CLAIM_DIRECTORY
    with home.console("files") as console:
        shell = Shell(console)
        shell(MOUNT)
        assert shell("cat settings/greeting") == "hello"
        assert shell("cat keys/password") == "s3cret"
        assert shell("cat account/namespace") == "default"
        assert 'app="files"' in shell("cat about/in/labels")
        for name in ("settings", "keys", "account", "about"):
            assert "Read-only file system" in shell(f"touch {name}/mine 2>&1")
        assert shell("ls -1a shared") == ".\n.."  # not the disk that is beside it
        shell(
            "echo root >shared/a; echo 1000 >shared/b; chown 1000:1000 shared/b; chmod 600 shared/b; "
            "ln -s /etc/passwd shared/l"
        )
        assert shell("stat -c %u:%g shared/a shared/b") == "0:0\n1000:1000"
        owners = [(directory / name).stat().st_uid for name in "ab"]
        assert owners == [filesystems.FIRST_USER, filesystems.FIRST_USER + 1000]
        assert shell("cat shared/l | head -n 1") == shell("head -n 1 /etc/passwd")  # a link is the guest's to follow

        # Memory that came later is memory that the server works in, too.
        home.patch_vm("files", memory="768Mi")
        home.wait("vmi/files", "jsonpath={.status.memory.guestCurrent}=768Mi")
        shell("dd if=/dev/urandom of=/tmp/big bs=1M count=300 2>/dev/null; cp /tmp/big shared/big; sync")
        sum_ = shell("md5sum </tmp/big").split()[0]
        assert sum_ == hashlib.md5((directory / "big").read_bytes()).hexdigest()
        shell("echo 3 >/proc/sys/vm/drop_caches")
        assert shell("md5sum <shared/big").split()[0] == sum_
        shell("rm shared/big /tmp/big")

        home.apply(config_map("good day"))
        assert shell("until grep -q 'good day' settings/greeting; do sleep 0.2; done; echo seen") == "seen"
        shell("(while sleep 0.1; do date +%N >shared/tick; done) & sleep 1")

    # The guest's mounts do not know of the home.
    home.kill()
    assert moves_on(directory / "tick")
    home.up()
    home.wait_agent("files")
    assert moves_on(directory / "tick")
    with home.console("files") as console:
        shell = Shell(console)
        home.apply(config_map("good night"))
        assert shell("until grep -q 'good night' settings/greeting; do sleep 0.2; done; echo seen") == "seen"
        assert shell("cat shared/b") == "1000"
    servers = server_processes(home)
    assert len(servers) >= len(NAMES)
    for pid in servers:
        confined(pid)

    os.kill(min(servers), signal.SIGKILL)
    home.wait_message("vmi/files", "its server ended")
    home.hotvirt("stop", "files")
    home.assert_nothing_left_of_guests()

    home.hotvirt("start", "files")
    home.wait_agent("files")
    with home.console("files") as console:
        shell = Shell(console)
        shell(MOUNT)
        assert (shell("cat shared/b"), shell("cat settings/greeting")) == ("1000", "good night")


def server_processes(home):
    names = {pid: Path(f"/proc/{pid}/comm").read_text().strip() for pid in home.guest_processes()}
    return sorted(pid for pid, name in names.items() if name == "virtiofsd")


def confined(pid):
    """Its user is nobody else's, it gains no rights, and its namespaces are its own."""
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert set(status["Uid"].split()) == {str(filesystems.FIRST_USER)}
    assert status["NoNewPrivs"] == "1"
    for kind in ("user", "mnt", "net"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
