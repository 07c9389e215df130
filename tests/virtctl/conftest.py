"""A home with real guests, driven with a program of virtctl's interface: ours, or the one that $VIRTCTL names.

One home serves the cases of a file, and one guest: `web`, tiny and quick, or `deb`, a Debian with an SSH server. A case
leaves its guest running, as the next one needs it.
"""

import contextlib
import importlib.util
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

BIN = Path(sys.executable).parent
PROGRAM = os.environ.get("VIRTCTL") or str(BIN / "hotvirt")
IS_OURS = Path(PROGRAM).name in ("hotvirt", "kubectl-virt")
PATIENCE = 180


def _guest_tests() -> Any:
    """The guest tests' own home: their conftest is no module that could be imported by name."""
    place = Path(__file__).parents[1] / "guest" / "conftest.py"
    spec = importlib.util.spec_from_file_location("guest_conftest", place)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


guests = _guest_tests()


class Virtctl:
    """Runs the program in one home."""

    def __init__(self, home: Any, directory: Path) -> None:
        self.home, self.directory, self.is_ours = home, directory, IS_OURS
        self.env = {**home.env, "HOME": str(directory), "USER": "nobody"}

    def __call__(self, *args: str, text: str | None = None) -> str:
        """Its standard output; it must succeed."""
        done = self.run(*args, text=text)
        assert done.returncode == 0, f"{' '.join(args)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def fails(self, *args: str) -> str:
        """What it says when it fails, which it must, and without changing anything."""
        done = self.run(*args)
        assert done.returncode not in (0, None), f"{' '.join(args)} succeeded: {done.stdout}"
        assert "Traceback" not in done.stderr
        return done.stderr + done.stdout

    def run(self, *args: str, text: str | None = None) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [PROGRAM, *args], env=self.env, input=text, capture_output=True, text=True, timeout=PATIENCE,
            cwd=self.directory, check=False,
        )  # fmt: skip

    @contextlib.contextmanager
    def started(self, *args: str) -> Iterator["subprocess.Popen[bytes]"]:
        """While it runs: pipes, killed at the end."""
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [PROGRAM, *args], env=self.env, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, cwd=self.directory
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    @contextlib.contextmanager
    def console(self, name: str) -> Iterator[Any]:
        with self.started("console", name) as process:
            yield guests.Console(process, patience=PATIENCE)

    @contextlib.contextmanager
    def forwarded(self, *args: str) -> Iterator[None]:
        """While local ports lead into a guest. Nothing tells that they do, with every program: they are tried."""
        with self.started("port-forward", *args) as process:
            yield
            assert process.poll() is None, f"port-forward ended: {process.stderr.read() if process.stderr else ''!r}"


@pytest.fixture(scope="module")
def home() -> Iterator[Any]:
    directory = Path(tempfile.mkdtemp(prefix="hv-", dir="/tmp"))
    home = guests.Home(directory)
    home.patience = PATIENCE
    try:
        home.up()
        yield home
    finally:
        home.down("--grace=0")
        left = home.guest_processes()
        shutil.rmtree(directory, ignore_errors=True)
        assert not left, f"'hotvirt down' left processes {left}"


@pytest.fixture(scope="module")
def virtctl(home: Any, tmp_path_factory: pytest.TempPathFactory) -> Virtctl:
    return Virtctl(home, tmp_path_factory.mktemp("person"))


@pytest.fixture(scope="module")
def debian(home: Any, virtctl: Virtctl) -> "Debian":
    """A Debian made by `create vm`, and then given a file in its seed, and room to grow."""
    key = virtctl.directory / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    manifest = virtctl(
        "create", "vm", "--name=deb", "--memory=1Gi",
        "--volume-containerdisk=src:hotvirt/debian:12,name:root", "--user=ada",
        f"--ssh-key={key.with_suffix('.pub').read_text().strip()}",
        f"--termination-grace-period={Debian.grace}", "--access-cred=type:password,src:passwords",
    )  # fmt: skip
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "passwords"}, "stringData": {"ada": "first"}}
    home.apply(secret)
    machine = yaml.safe_load(manifest)
    spec = machine["spec"]["template"]["spec"]
    (seed,) = (volume["cloudInitNoCloud"] for volume in spec["volumes"] if "cloudInitNoCloud" in volume)
    seed["userData"] += '\nwrite_files:\n- {path: /srv/note, content: "written by the seed"}\n'
    domain = spec["domain"]
    domain["memory"]["maxGuest"] = "4Gi"
    domain["cpu"] = {"sockets": 1, "maxSockets": 4}
    home.apply(machine)
    return Debian(home, virtctl, key)


class Debian:
    name, grace = "deb", 60

    def __init__(self, home: Any, virtctl: Virtctl, key: Path) -> None:
        self.home, self._virtctl, self.key = home, virtctl, key
        self.options = [
            "--username=ada", f"--identity-file={key}",
            "--local-ssh-opts=-o StrictHostKeyChecking=accept-new",
            f"--local-ssh-opts=-o UserKnownHostsFile={virtctl.directory}/known_hosts",
            "--local-ssh-opts=-o IdentitiesOnly=yes",
        ]  # fmt: skip

    def ssh(self, command: str) -> str:
        return self._virtctl("ssh", "vm/deb", *self.options, "--command", command)

    def wait(self) -> None:
        """Until its SSH server lets the user in, which cloud-init sets up."""
        self.home.patience = 400
        self.home.wait_agent("deb")
        self.home.patience = PATIENCE
        deadline = time.monotonic() + 300
        while (done := self._virtctl.run("ssh", "vm/deb", *self.options, "--command", "true")).returncode:
            assert time.monotonic() < deadline, done.stderr
            time.sleep(2)


@pytest.fixture(scope="module")
def web(home: Any) -> "Web":
    """The tiny guest, up to its agent."""
    home.apply_vm("web", memory="256Mi", strategy="Manual")
    home.kubectl("wait", "vm/web", "--for=jsonpath={.status.printableStatus}=Stopped", "--timeout=60s")
    return Web(home)


class Web:
    """Facts of the tiny guest, from itself and from its process."""

    def __init__(self, home: Any) -> None:
        self._home = home

    @property
    def uid(self) -> str:
        return str(self._home.vmi("web")["metadata"]["uid"])

    @property
    def process(self) -> int:
        """Of its QEMU, from the pod's directory: of this instance's pod, as the one before it may still be leaving."""
        [pod] = self._home.kubectl_json("get", "pods", "-l", f"kubevirt.io/created-by={self.uid}")["items"]
        place = self._home.directory / "run" / "pods" / pod["metadata"]["uid"] / "pid"
        return int(json.loads(place.read_text())["pid"])

    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = self._home.facts("web")
        return facts

    def status(self) -> str:
        return str(self._home.kubectl_json("get", "vm", "web").get("status", {}).get("printableStatus"))

    def wait(self, status: str) -> None:
        self._home.wait("vm/web", f"jsonpath={{.status.printableStatus}}={status}")

    def boot(self) -> str:
        """The boot it is in, once its agent answers. Put to work if it was not, so that a case stands on its
        own."""
        if (status := self.status()) in ("Stopped", "Paused"):
            self._home.hotvirt("start" if status == "Stopped" else "unpause", "web")
        self._home.wait_agent("web")
        return str(self.facts()["bootID"])

    def wait_for_another_boot(self, old: str) -> None:
        def booted() -> bool:
            done = self._home.hotvirt("guest", "vm/web", "-o", "json", check=False)
            return done.returncode == 0 and json.loads(done.stdout)["bootID"] != old

        self._home.wait_until("the guest boots anew", booted)


def read(process: "subprocess.Popen[bytes]", until: bytes) -> bytes:
    """Standard output up to `until`."""
    assert process.stdout
    deadline, heard = time.monotonic() + PATIENCE, b""
    while until not in heard:
        ready = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]
        assert ready, f"no {until!r} after {heard!r}"
        part = os.read(process.stdout.fileno(), 65536)
        assert part, f"it ended after {heard!r}: {process.stderr.read() if process.stderr else b''!r}"
        heard += part
    return heard


@pytest.fixture(name="read")
def _read() -> Any:
    return read
