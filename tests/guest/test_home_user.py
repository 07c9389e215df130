"""A home of an ordinary user: nothing of the machine is touched, guests run all the same, and it is said what is
missing. The tests run as root, so the user is the one that systems keep for nobody."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from hotvirt.images import catalog

USER = 65534
AS_USER = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]

pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user"),
    pytest.mark.skipif(shutil.which("setpriv") is None, reason="util-linux is not installed"),
]


def own(tree: Path) -> None:
    for path in [tree, *tree.rglob("*")]:
        os.chown(path, USER, USER, follow_symlinks=False)


def usable_python(env: dict[str, str]) -> str:
    """An interpreter that the user may run and that finds this project there. Ours may be in root's own directory."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    # By a process of its own, as a home in the background is: setpriv itself may still reach what its user may not.
    try_it = "import subprocess, sys; subprocess.check_call([sys.executable, '-c', 'import hotvirt.cli.up, aiohttp'])"
    for python in (sys.executable, f"/usr/bin/{version}"):
        if Path(python).exists():
            tried = subprocess.run([*AS_USER, python, "-c", try_it], env=env, cwd="/", capture_output=True)
            if tried.returncode == 0:
                return python
    pytest.skip("no Python here that another user may run with this project in it")


@pytest.fixture
async def tiny_cache():
    """Only the owner of built images may use them as they are, so the user gets a copy."""
    files = await catalog.ensure("hotvirt/tiny", catalog.default_cache())
    assert files.kernel is not None
    return files.kernel.parent.parent


@pytest.fixture
def user_home(home_class, tiny_cache):
    directory = Path(tempfile.mkdtemp(prefix="hv-", dir="/tmp"))
    try:
        shutil.copytree(tiny_cache, directory / "cache" / tiny_cache.name, symlinks=True)
        (directory / "me").mkdir()

        class UserHome(home_class):
            def hotvirt(self, *args, check=True, text=None):
                return self._run([*AS_USER, python, "-m", "hotvirt", *args], check=check, text=text)

        home = UserHome(directory / "h")
        home.env |= {
            "HOME": str(directory / "me"),
            "HOTVIRT_IMAGE_CACHE": str(directory / "cache"),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        for name in [name for name in home.env if name.startswith("XDG_")]:
            del home.env[name]
        own(directory)
        python = usable_python(home.env)
        try:
            yield home
        finally:
            home.hotvirt("down")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def test_an_ordinary_user_runs_grows_and_reaches_a_guest(user_home):
    home = user_home
    home.up()
    assert "guests get user-mode networking" in (home.directory / "home.log").read_text()
    interface = {"name": "default", "masquerade": {}, "ports": [{"name": "http", "port": 80}]}
    disk = {"name": "scratch", "disk": {"bus": "virtio"}}
    home.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "conf"}, "data": {"key": "value"}})
    shared = {"name": "conf", "configMap": {"name": "conf"}}
    devices = {"disks": [disk], "interfaces": [interface], "filesystems": [{"name": "conf", "virtiofs": {}}]}
    volumes = [{"name": "scratch", "emptyDisk": {"capacity": "16Mi"}}, shared]
    home.apply_vm("web", max_memory="4Gi", extra={"domain": {"devices": devices}, "spec": {"volumes": volumes}})
    home.wait_agent("web")
    assert {Path(f"/proc/{pid}").stat().st_uid for pid in home.guest_processes()} == {USER}
    boot = home.facts("web")

    home.patch_vm("web", memory="1536Mi")
    home.wait("vmi/web", "jsonpath={.status.memory.guestCurrent}=1536Mi")
    grown = home.facts("web")
    assert grown["memTotalBytes"] - boot["memTotalBytes"] > 500 << 20
    assert grown["bootID"] == boot["bootID"]

    pod = home.kubectl_json("get", "pods")["items"][0]
    address, name = pod["status"]["podIP"], pod["metadata"]["name"]
    assert address.startswith("127.")
    with home.console("web") as console:
        console.type("\nmkdir -p /run/www && echo it-works >/run/www/index.html; httpd -p 80 -h /run/www; echo $?-up\n")
        console.read_until("0-up")
        # The server of a file system is confined without root, too.
        console.type(
            "\nmodprobe virtiofs; mount -t virtiofs conf /mnt; touch /mnt/a; stat -Lc o%u/%s /mnt/key; cat /mnt/key\n"
        )
        said = console.read_until("o0/5")
        assert "Read-only file system" in said
        console.read_until("value")
    # An ordinary user cannot listen on port 80.
    assert home.fetched(f"http://{address}:10080/") == "it-works\n"
    # kubectl's way needs no such port, and a command would have the home's own rights.
    argv = [str(home.bin / "kubectl"), "port-forward", name, ":80"]
    with subprocess.Popen(argv, env=home.env, stdout=subprocess.PIPE, text=True) as forward:
        near = forward.stdout.readline().split("127.0.0.1:")[1].split()[0]
        assert home.fetched(f"http://127.0.0.1:{near}/") == "it-works\n"
        forward.kill()
    refused = home.kubectl("exec", name, "--", "id", check=False)
    assert "has no user of its own" in refused.stderr
    # QEMU carries what the API forwards, to any port, and tells a port where nothing listens.
    asked = home.hotvirt("port-forward", "--stdio", "vm/web", "80", text="GET / HTTP/1.0\r\n\r\n")
    assert asked.stdout.endswith("it-works\n")
    refused = home.hotvirt("port-forward", "--stdio", "vm/web", "81", check=False, text="")
    assert "nothing listens there in the guest" in refused.stderr

    # Nobody in the guest listens to its power button any more: its agent does.
    with home.console("web") as console:
        console.type("\nkill $(pidof acpid); echo $?-gone\n")
        console.read_until("0-gone")
    said = home.hotvirt("down").stdout
    assert "vm/web: asking the guest to shut down, within 60 s" in said
    assert "its power was cut" not in said
    assert home.guest_processes() == []
    assert list((home.directory / "run" / "pods").iterdir()) == []
    assert {path.lstat().st_uid for path in home.directory.rglob("*")} == {USER}
