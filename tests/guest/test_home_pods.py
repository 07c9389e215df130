"""A launcher pod as the ordinary pod that it is: commands in it, its ports, a service before it, a drained node."""

import contextlib
import os
import re
import subprocess
import urllib.request
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root gives guests users and addresses of their own"),
]
SERVICE = {
    "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
    "spec": {"selector": {"app": "web"}, "ports": [{"port": 8000, "targetPort": "http"}]},
}  # fmt: skip
DISK = {"name": "scratch", "disk": {"bus": "virtio"}}
BUDGET = {
    "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"},
    "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
}  # fmt: skip


def start(home, *args):
    pipe = subprocess.PIPE
    argv = [str(home.bin / "kubectl"), *args]
    return subprocess.Popen(argv, env=home.env, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


@contextlib.contextmanager
def started(home, *args):
    process = start(home, *args)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def runs(marker):
    """Whether a process of these words runs."""
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit() and (process / "cmdline").read_text() == marker.replace(" ", "\0") + "\0":
                return True
    return False


@contextlib.contextmanager
def forwarded(home, what, port):
    """Gives the URL of the near end."""
    with started(home, "port-forward", what, f":{port}") as process:
        yield f"http://127.0.0.1:{near_port(process)}/"


def near_port(process):
    line = process.stdout.readline()
    assert "127.0.0.1:" in line, process.stderr.read()
    return re.search(r":(\d+) ->", line)[1]


def test_a_launcher_pod_is_an_ordinary_pod(home):
    interface = {"name": "default", "masquerade": {}, "ports": [{"name": "http", "port": 80}]}
    home.apply_vm("web", extra={"domain": {"devices": {"disks": [DISK], "interfaces": [interface]}}})
    home.apply(SERVICE)
    home.wait_agent("web")
    pod = home.kubectl_json("get", "pods")["items"][0]
    name, uid, address = pod["metadata"]["name"], pod["metadata"]["uid"], pod["status"]["podIP"]

    check_commands(home, name, uid)
    check_console(home, name)

    with home.console("web") as console:
        console.type("\nmkdir -p /run/www && echo it-works >/run/www/index.html; httpd -p 80 -h /run/www; echo $?-up\n")
        console.read_until("0-up")
        refused = home.kubectl("attach", name, check=False)
        assert "is in use" in refused.stderr
    with forwarded(home, f"pod/{name}", 80) as url:
        assert home.fetched(url) == "it-works\n"
        assert home.fetched(url) == "it-works\n"
    with forwarded(home, "svc/web", 8000) as url:
        assert home.fetched(url) == "it-works\n"
    with started(home, "port-forward", name, ":81") as process:
        with pytest.raises(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{near_port(process)}/", timeout=home.patience)
        assert "nothing listens there in the guest" in process.stderr.readline()

    assert home.table("get", "endpoints", "web")[-1][1] == f"{address}:80"
    assert f"{address}:80" in home.kubectl("describe", "svc", "web").stdout
    check_drain(home, name)


def check_commands(home, name, uid):
    (qemu,) = [pid for pid in home.guest_processes() if pid != home.pid]
    theirs = dict(line.split(":\t", 1) for line in Path(f"/proc/{qemu}/status").read_text().splitlines())
    inside = home.kubectl("exec", name, "--", "cat", "/proc/self/status").stdout
    ours = dict(line.split(":\t", 1) for line in inside.splitlines())
    assert {key: ours[key] for key in ("Uid", "Gid", "Groups")} == {
        key: theirs[key] for key in ("Uid", "Gid", "Groups")
    }
    assert ours["Uid"].split()[0] != "0"
    assert {ours[key].strip("0") for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {""}
    assert ours["NoNewPrivs"] == "1"
    for namespace in ("net", "ipc", "uts"):
        found = home.kubectl("exec", name, "--", "readlink", f"/proc/self/ns/{namespace}").stdout.strip()
        assert found == os.readlink(f"/proc/{qemu}/ns/{namespace}")
    if uid in Path(f"/proc/{qemu}/cgroup").read_text():
        assert uid in home.kubectl("exec", name, "--", "cat", "/proc/self/cgroup").stdout
    told = home.kubectl("exec", name, "--", "cat", str(home.directory / "pki" / "ca.key"), check=False)
    assert "Permission denied" in told.stderr

    failed = home.kubectl("exec", "-i", name, "-c", "compute", "--", "sh", "-c", "tr a-z A-Z; exit 7", check=False,
                          text="hello")  # fmt: skip
    assert (failed.returncode, failed.stdout) == (7, "HELLO")
    with started(home, "exec", name, "--", "sh", "-c", "setsid sleep 98765 & sleep 98766"):
        home.wait_until("the command runs", lambda: runs("sleep 98765") and runs("sleep 98766"))
    home.wait_until("it went with its client", lambda: not runs("sleep 98765") and not runs("sleep 98766"))
    # What was run for a home that dies goes with it; the guest does not.
    with started(home, "exec", name, "--", "sleep", "98767"):
        home.wait_until("the command runs", lambda: runs("sleep 98767"))
        home.kill()
        home.wait_until("it went with the home", lambda: not runs("sleep 98767"))
    home.up()
    assert home.kubectl("exec", name, "--", "sh", "-c", "echo again").stdout == "again\n"


def check_console(home, name):
    """Attaching only reads, and gives way to a console."""
    refused = home.kubectl("attach", "-i", name, check=False)
    assert "attach only reads" in refused.stderr
    with home.console("web") as console:
        console.type("\nwhile sleep 1; do echo tick-$((40 + 2)); done &\n")
        console.read_until("tick-42")
    with started(home, "attach", name) as attached:
        while "tick-42" not in attached.stdout.readline():
            assert attached.poll() is None, attached.stderr.read()
        with home.console("web") as console:
            console.type("\n")
            attached.communicate(timeout=home.patience)
            assert attached.returncode == 0
            console.type("kill $!; echo still-$((40 + 2))\n")
            console.read_until("still-42")


def check_drain(home, name):
    home.apply(BUDGET)
    home.wait("pdb/web", "jsonpath={.status.currentHealthy}=1")
    assert home.table("get", "pdb", "web")[-1][1:4] == ["1", "N/A", "0"]
    node = home.kubectl_json("get", "nodes")["items"][0]["metadata"]["name"]
    refused = home.kubectl("drain", node, "--timeout=3s", check=False)
    assert "would violate the pod's disruption budget" in refused.stderr
    assert "SchedulingDisabled" in home.kubectl("get", "node", node).stdout
    home.kubectl("delete", "pdb", "web")
    with started(home, "exec", name, "--", "sleep", "98768") as process:
        home.wait_until("the command runs", lambda: runs("sleep 98768"))
        said = home.kubectl("drain", node, f"--timeout={home.patience}s").stdout
        assert f"pod/{name} evicted" in said
        process.communicate(timeout=home.patience)
        assert process.returncode == 137
    assert not runs("sleep 98768")
    # The VM is to run: its next pod waits for a node.
    home.wait_message("vm/web", f"kubectl uncordon {node}")
    home.kubectl("uncordon", node)
    home.wait("vmi/web", "jsonpath={.status.phase}=Running")
    home.hotvirt("stop", "web", "--force", "--grace-period=0")  # it has not booted: nobody to hear a power button
