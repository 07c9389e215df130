"""A real home, without guests: it comes up, answers kubectl, keeps to one per directory, and survives being killed."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.server
BIN = Path(sys.executable).parent
EXAMPLES = Path(__file__).parents[2] / "examples"
GATED = {
    "host-disk": "the feature gate HostDisk is not on",
    "file-systems": "needs the feature gate EnableVirtioFsStorageVolumes",
}


class Home:
    def __init__(self, directory):
        self.directory = directory
        self.env = {**os.environ, "HOTVIRT_HOME": str(directory), "KUBECONFIG": str(directory / "kubeconfig")}

    def run(self, program, *words, check=True, text=None):
        done = subprocess.run(
            [BIN / program, *words], env=self.env, input=text, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0 or not check, f"{program} {words}: {done.stdout}{done.stderr}"
        return done

    def hotvirt(self, *words, **how):
        return self.run("hotvirt", *words, **how)

    def kubectl(self, *words, **how):
        return self.run("kubectl", *words, **how)

    def apply(self, kind, name, *, api="v1", **fields):
        manifest = {"apiVersion": api, "kind": kind, "metadata": {"name": name}, **fields}
        self.kubectl("apply", "-f", "-", text=json.dumps(manifest))

    @property
    def pid(self):
        return json.loads((self.directory / "home.lock").read_text())["pid"]

    def send(self, number):
        """Sends a signal and waits for the end."""
        handle = os.pidfd_open(self.pid)
        signal.pidfd_send_signal(handle, number)
        assert select.select([handle], [], [], 20)[0], f"still there after {number.name}"
        os.close(handle)


@pytest.fixture
def home():
    directory = Path(tempfile.mkdtemp(prefix="hv-", dir="/tmp"))  # short: unix sockets live below it
    made = Home(directory)
    try:
        yield made
    finally:
        made.hotvirt("down")
        shutil.rmtree(directory)


def test_up_look_down(home):
    out = home.hotvirt("up", "--detach").stdout
    assert f"export KUBECONFIG={home.directory}/kubeconfig" in out
    mapped = Path(f"/proc/{home.pid}/maps").read_text()
    assert "uvloop" in mapped
    assert "cryptography" not in mapped, "what made its keys is a seventh of a home's memory, and went with its process"
    assert home.kubectl("get", "--raw", "/readyz").stdout == "ok"
    assert home.kubectl("get", "vm,vmi").stderr.startswith("No resources found")
    assert home.kubectl("get", "kubevirt", "-n", "kubevirt", "-o", "jsonpath={.items[0].status.phase}").stdout == (
        "Deployed"
    )
    assert "hotvirt-directory-wait (default)" in home.kubectl("get", "storageclass").stdout
    assert json.loads(home.hotvirt("status", "-o", "json").stdout)["home"]["pid"] == home.pid
    assert 'Server Version: version.Info{GitVersion:"v' in home.hotvirt("version").stdout
    taken = (file for file in EXAMPLES.glob("*.yaml") if not file.name.startswith("refused-"))
    files = [file for file in taken if file.stem not in GATED]
    dry = home.kubectl("apply", "--dry-run=server", *[f"--filename={file}" for file in files]).stdout.splitlines()
    examples = [doc for file in files for doc in yaml.safe_load_all(file.read_text()) if doc]
    assert len(dry) == len(examples) > 25, "every object of every example is accepted"
    for example, told in GATED.items():
        gated = home.kubectl("apply", "--dry-run=server", "-f", str(EXAMPLES / f"{example}.yaml"), check=False)
        assert told in gated.stderr
    again = home.hotvirt("up", "--detach").stdout
    assert f"A home runs already: https://127.0.0.1:{port(home)} (process {home.pid})" in again
    foreground = home.hotvirt("up", check=False)
    assert foreground.returncode == 1
    assert "hotvirt down" in foreground.stderr
    assert len(foreground.stderr.splitlines()) == 1
    home.hotvirt("down")
    refused = home.hotvirt("status", check=False)
    assert refused.returncode == 1
    assert "hotvirt up" in refused.stderr


def test_what_was_written_survives_a_kill_and_the_address_stays(home):
    home.hotvirt("up", "--detach")
    before = port(home)
    home.apply("Namespace", "mine")
    home.send(signal.SIGKILL)
    home.hotvirt("up", "--detach")
    assert port(home) == before
    assert "mine" in home.kubectl("get", "namespace", "mine").stdout


def test_a_start_that_fails_shows_why(home):
    home.directory.joinpath("state.db").write_bytes(b"not a database, by far" * 100)
    failed = home.hotvirt("up", "--detach", check=False)
    assert failed.returncode == 1
    assert "state.db" in failed.stderr


def test_sigterm_ends_it_in_order(home):
    home.hotvirt("up", "--detach")
    home.send(signal.SIGTERM)
    log = (home.directory / "home.log").read_text()
    assert "Traceback" not in log
    assert home.hotvirt("down").stdout.endswith(f"no home runs in {home.directory}\n")


def test_a_viewer_cannot_start_what_he_may_see(home):
    home.hotvirt("up", "--detach")
    home.apply("ServiceAccount", "viewer")
    group = "rbac.authorization.k8s.io"
    home.apply(
        "RoleBinding",
        "viewer",
        api=f"{group}/v1",
        roleRef={"apiGroup": group, "kind": "ClusterRole", "name": "kubevirt.io:view"},
        subjects=[{"kind": "ServiceAccount", "name": "viewer", "namespace": "default"}],
    )
    who = "--as=system:serviceaccount:default:viewer"
    assert home.kubectl("get", "vm", who).stderr.startswith("No resources found")
    start = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachines/web/start"
    refused = home.kubectl("replace", "--raw", start, "-f", "-", who, check=False, text="{}")
    assert 'cannot update resource "virtualmachines/start" in API group "subresources.kubevirt.io"' in refused.stderr


def port(home):
    return json.loads((home.directory / "home.lock").read_text())["url"].rpartition(":")[2]


def test_a_backup_is_taken_and_restored_while_the_home_runs(home):
    home.hotvirt("up", "--detach")
    home.apply("ConfigMap", "kept", data={"x": "1"})
    file = home.directory / "monday.db"
    said = home.hotvirt("backup", str(file)).stdout
    assert f"hotvirt restore {file}" in said
    assert file.stat().st_mode & 0o777 == 0o600
    home.kubectl("delete", "configmap", "kept")
    home.apply("ConfigMap", "later", data={"x": "2"})
    address = port(home)
    said = home.hotvirt("restore", str(file)).stdout
    assert f"the API answers again at https://127.0.0.1:{address}" in said
    assert port(home) == address
    names = home.kubectl("get", "configmaps", "-o", "name").stdout.split()
    assert names == ["configmap/kept", "configmap/kube-root-ca.crt"]
    refused = home.hotvirt("restore", str(home.directory / "kubeconfig"), check=False)
    assert refused.returncode == 1
    assert "not a SQLite database" in refused.stderr
    assert home.kubectl("get", "--raw", "/readyz").stdout == "ok", "a file that is no good stops nothing"
    undone = home.hotvirt("restore", str(home.directory / "state.db.before-restore"))
    assert "to undo" in undone.stdout
    assert "configmap/later" in home.kubectl("get", "configmaps", "-o", "name").stdout.split()
    mine = home.kubectl("auth", "can-i", "get", "/backup", "--as", "somebody", check=False)
    assert mine.stdout.strip() == "no"
