"""A whole home for guest tests: started with `hotvirt up`, driven with a real kubectl, killed and cleaned by pid."""

import asyncio
import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

BIN = Path(sys.executable).parent
PATIENCE = 90
"""Seconds: what a person would still call a hang on a busy two-core machine without KVM."""


class Home:
    """One embedded home in a directory of its own, with the images of the cache shared by all tests."""

    bin, patience = BIN, PATIENCE

    def __init__(self, directory: Path, *, path: str | None = None) -> None:
        self.directory = directory
        self.env = {
            **os.environ,
            "HOTVIRT_HOME": str(directory),
            "KUBECONFIG": str(directory / "kubeconfig"),
            "PATH": path or f"{BIN}:{os.environ['PATH']}",
        }

    # -- the home itself -------------------------------------------------------------------------------------------
    def up(self) -> None:
        self.hotvirt("up", "--detach")

    def down(self, *options: str) -> None:
        self.hotvirt("down", *options)

    @property
    def pid(self) -> int:
        return int(json.loads((self.directory / "home.lock").read_text())["pid"])

    def kill(self) -> None:
        """SIGKILL, and wait until the process is gone."""
        waiter = os.pidfd_open(self.pid)
        signal.pidfd_send_signal(waiter, signal.SIGKILL)
        assert select.select([waiter], [], [], 10)[0], "the home survived SIGKILL"
        os.close(waiter)

    # -- commands --------------------------------------------------------------------------------------------------
    def _run(self, argv: list[str], *, check: bool, text: str | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            argv, env=self.env, input=text, capture_output=True, text=True, timeout=self.patience + 30
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def kubectl(self, *args: str, check: bool = True, text: str | None = None) -> subprocess.CompletedProcess[str]:
        return self._run([str(BIN / "kubectl"), *args], check=check, text=text)

    def hotvirt(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self._run([str(BIN / "hotvirt"), *args], check=check)

    def kubectl_json(self, *args: str) -> dict[str, Any]:
        return json.loads(self.kubectl(*args, "-o", "json").stdout)

    def table(self, *args: str) -> list[list[str]]:
        return [line.split() for line in self.kubectl(*args).stdout.splitlines()]

    @contextlib.contextmanager
    def console(self, name: str) -> "Iterator[Console]":
        """`hotvirt console` with pipes for a terminal; it ends with the block."""
        pipe = subprocess.PIPE
        argv = [str(BIN / "hotvirt"), "console", f"vm/{name}"]
        process = subprocess.Popen(argv, env=self.env, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0)
        try:
            yield Console(process, patience=self.patience)
        finally:
            process.kill()
            process.communicate()

    @contextlib.contextmanager
    def shell(self, name: str) -> "Iterator[Shell]":
        """Where the console of a guest has a root shell."""
        with self.console(name) as console:
            yield Shell(console)

    # -- objects ---------------------------------------------------------------------------------------------------
    def apply(self, document: dict[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", text=json.dumps(document))

    def apply_vm(self, name: str, *, check: bool = True, **settings: Any) -> subprocess.CompletedProcess[str]:
        return self.kubectl("apply", "-f", "-", check=check, text=yaml.safe_dump(manifest(name, **settings)))

    def apply_claim(self, name: str, size: str) -> None:
        claim = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": size}},
                "storageClassName": "hotvirt-directory",  # bound at once, where the default waits for a guest
            },
        }
        self.apply(claim)

    def patch_vm(self, name: str, *, memory: str | None = None, sockets: int | None = None) -> None:
        domain: dict[str, Any] = {}
        if memory:
            domain["memory"] = {"guest": memory}
        if sockets:
            domain["cpu"] = {"sockets": sockets}
        patch = {"spec": {"template": {"spec": {"domain": domain}}}}
        self.kubectl("patch", "vm", name, "--type=merge", "-p", json.dumps(patch))

    def vmi(self, name: str) -> dict[str, Any]:
        return self.kubectl_json("get", "vmi", name)

    def conditions(self, what: str) -> dict[str, dict[str, Any]]:
        return {c["type"]: c for c in self.kubectl_json("get", what).get("status", {}).get("conditions", [])}

    def messages(self, what: str) -> str:
        """All that conditions and events say of an object, as `kubectl describe` shows it."""
        said = [c.get("message", "") for c in self.conditions(what).values()]
        name = what.split("/")[1]
        events = self.kubectl_json("get", "events", "--field-selector", f"involvedObject.name={name}")["items"]
        return "\n".join(said + [event.get("message", "") for event in events])

    def facts(self, name: str) -> dict[str, Any]:
        """What the guest itself reports now."""
        return json.loads(self.hotvirt("guest", f"vm/{name}", "-o", "json").stdout)

    # -- waiting: kubectl watches, so nothing here polls unless an event cannot be named ----------------------------
    def wait(self, what: str, *conditions: str) -> None:
        for condition in conditions:
            self.kubectl("wait", what, f"--for={condition}", f"--timeout={self.patience}s")

    def wait_agent(self, name: str) -> None:
        # The VMI may not exist yet: the VM does, and mirrors its conditions.
        try:
            self.wait(f"vm/{name}", "condition=AgentConnected")
        except AssertionError as silent:
            raise AssertionError(f"{silent}\n{self.symptoms(name)}") from silent

    def wait_volume(self, name: str, volume: str, phase: str) -> None:
        self.wait(f"vmi/{name}", f'jsonpath={{.status.volumeStatus[?(@.name=="{volume}")].phase}}={phase}')

    def wait_until(self, what: str, holds: Any) -> None:
        """Asks no more than a third of the time: it is the guests that the CPUs are for."""
        began = time.monotonic()
        deadline = began + self.patience
        while not holds():
            if time.monotonic() > deadline:
                log = _told({"the home's log ends": _end_of(self.directory / "home.log")})
                raise AssertionError(f"not within {self.patience} s: {what}\n{log}")
            time.sleep(max(0.2, 2 * (time.monotonic() - began)))
            began = time.monotonic()

    def wait_volume_gone(self, name: str, volume: str) -> None:
        def gone() -> bool:
            status = self.vmi(name)["status"].get("volumeStatus", [])
            return volume not in [each["name"] for each in status]

        self.wait_until(f"volume {volume} gone from {name}", gone)

    def wait_new_instance(self, name: str, old_uid: str) -> None:
        def renewed() -> bool:
            found = self.kubectl("get", "vmi", name, "-o", "jsonpath={.metadata.uid}", check=False)
            return found.returncode == 0 and found.stdout not in ("", old_uid)

        self.wait_until(f"a new instance of {name}", renewed)

    def wait_message(self, what: str, text: str) -> None:
        self.wait_until(f"{what} says {text!r}", lambda: self._exists(what) and text in self.messages(what))

    def _exists(self, what: str) -> bool:
        return self.kubectl("get", what, check=False).returncode == 0

    # -- behind the home's back ------------------------------------------------------------------------------------
    def fetched(self, url: str) -> str:
        """What a server in a guest answers; asked again until it is up."""
        deadline = time.monotonic() + self.patience
        while True:
            try:
                with urllib.request.urlopen(url, timeout=10) as answer:
                    return answer.read().decode()
            except OSError:
                assert time.monotonic() < deadline, f"nobody answers at {url}"
                time.sleep(0.3)

    def guest_processes(self) -> list[int]:
        """QEMU and receiver processes that hold this home's pod directories, asked of /proc. Not the home, which reads
        what its guests print there."""
        pods, found = str(self.directory / "run" / "pods"), []
        lock = self.directory / "home.lock"
        holder = lock.read_text() if lock.exists() else ""  # empty once the home is down
        others = {os.getpid(), *([json.loads(holder)["pid"]] if holder else [])}
        for process in Path("/proc").iterdir():
            if not process.name.isdigit() or int(process.name) in others:
                continue
            try:
                links = [os.readlink(fd) for fd in (process / "fd").iterdir()]
            except OSError:
                continue
            if any(link.startswith(pods) for link in links):
                found.append(int(process.name))
        return found

    def guest_poweroff(self, name: str) -> None:
        """Presses the power button over QMP while the home is dead, and waits for the guest to be down."""
        from hotvirt.qemu.qmp import Monitor

        pods = list((self.directory / "run" / "pods").iterdir())
        assert len(pods) == 1, f"expected one guest, found {pods}"

        async def press() -> None:
            # Again and again, as a person would: a guest that still boots does not hear the first.
            async with asyncio.timeout(PATIENCE), await Monitor.connect(pods[0] / "qmp.sock") as monitor:
                with monitor.events("SHUTDOWN") as down:
                    await monitor.execute("system_powerdown")
                    while await down.get_within(3) is None:
                        await monitor.execute("system_powerdown")

        asyncio.run(press())

    def symptoms(self, name: str) -> str:
        """What tells a guest that hangs from an agent of its that does, and from a home that does not hear it. The
        home is killed and started for it, as QEMU's monitor and the agent serve one client each."""
        said = {"the home answers": self.hotvirt("guest", f"vm/{name}", check=False).stderr}
        said["its objects are"] = self.kubectl("get", "vm,vmi,pods,events", "-o", "wide", check=False).stdout
        for kind in ("vm", "vmi"):
            found = self.kubectl("get", kind, name, "-o", "jsonpath={.status}", check=False)
            said[f"status of {kind}/{name}"] = found.stdout + found.stderr
        pod = next((self.directory / "run" / "pods").iterdir(), None)
        if pod is None:
            return _told({**said, "the home's log ends": _end_of(self.directory / "home.log")})
        said["sockets of the guest (01 listens, 03 is connected)"] = _sockets(pod)
        said["a shell in the guest says"] = self._asked_at_console(name)
        self.kill()
        said["QEMU and the agent say"] = asyncio.run(_asked_directly(pod))
        self.up()
        said["the home's log ends"] = _end_of(self.directory / "home.log")
        said["QEMU's log ends"] = _end_of(pod / "log")
        said["the console's log ends"] = _end_of(pod / "console.log")
        return _told(said)

    def _asked_at_console(self, name: str) -> str:
        """Its memory, its agent's state and what its kernel complains of."""
        asked = """free -m; ps | grep -v '\\['; cd /proc/$(pidof qemu-ga); cat wchan stack
            cat /sys/devices/system/cpu/online
            echo w >/proc/sysrq-trigger; dmesg | tail -n 25; echo th''at is all"""
        with self.console(name) as console:
            console.patience = 30  # it may be that nobody answers
            try:
                console.type(f"\n{asked}\n")
                return console.read_until("that is all")
            except (AssertionError, OSError) as silent:
                return str(silent).replace("\\r\\n", "\n")

    def put_local_image(self, name: str, content: bytes) -> None:
        local = self.directory / "images" / "local"
        local.mkdir(parents=True, exist_ok=True)
        (local / f"{name}.qcow2").write_bytes(content)

    def assert_nothing_left_of_guests(self) -> None:
        self.wait_until("no guest process left", lambda: not self.guest_processes())
        pods = self.directory / "run" / "pods"
        self.wait_until("no guest's directory left", lambda: not list(pods.iterdir()))


def _told(said: dict[str, str]) -> str:
    return "\n".join(f"--- {what}:\n{text}" for what, text in said.items())


def _end_of(file: Path) -> str:
    return "\n".join(file.read_text(errors="replace").splitlines()[-25:]) if file.exists() else "there is none"


def _sockets(pod: Path) -> str:
    """QEMU's ends of them. One of an agent that nobody is connected to is a home's that has given up on it."""
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    return "\n".join(f"{row[5]} {Path(row[7]).name}" for row in rows if row[-1].startswith(str(pod)))


async def _asked_directly(pod: Path) -> str:
    """What QEMU says of its vCPUs and memory, twice to see what moves, and whether the agent answers somebody else."""
    from hotvirt.qemu.errors import QemuError
    from hotvirt.qemu.guestagent import GuestAgent
    from hotvirt.qemu.qmp import Monitor

    asked = ["info status", "info balloon", "info memory-devices", "info chardev", "info jit"]
    lines = []
    try:
        async with GuestAgent(pod / "agent.sock") as agent, await Monitor.connect(pod / "qmp.sock") as monitor:
            for command in [*asked, "info registers -a", "info registers -a"]:
                answer = str(await monitor.execute("human-monitor-command", {"command-line": command}))
                kept = re.findall(r"^(?:CPU#|[RE]IP).*$", answer, re.MULTILINE) if "registers" in command else [answer]
                lines += [f"({command})", *kept]
                await asyncio.sleep(1)
            lines.append(f"agent: {await agent.info()}")
    except QemuError as error:
        lines.append(repr(error))
    return "\n".join(lines)


class Console:
    """What a person does at a console: types, and reads what comes."""

    def __init__(self, process: "subprocess.Popen[bytes]", *, patience: float) -> None:
        self.process, self.patience, self._heard = process, patience, b""

    def type(self, text: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(text.encode())

    def read_until(self, text: str) -> str:
        """What came since the last call, up to and with `text`."""
        assert self.process.stdout
        deadline = time.monotonic() + self.patience
        while text.encode() not in self._heard:
            left = max(0.0, deadline - time.monotonic())
            ready = select.select([self.process.stdout], [], [], left)[0]
            assert ready, f"no {text!r} within {self.patience} s, only {self._heard!r}"
            part = os.read(self.process.stdout.fileno(), 4096)
            assert part, f"the console ended without {text!r}, after {self._heard!r}"
            self._heard += part
        found, _, self._heard = self._heard.partition(text.encode())
        return found.decode(errors="replace") + text

    def ended(self) -> int:
        """Waits for its end, and gives the exit code."""
        return self.process.wait(self.patience)


class Shell:
    """A root shell on a guest's console."""

    def __init__(self, console: Console) -> None:
        self.console = console
        console.type("\n")
        console.read_until("# ")
        self.run("dmesg -n 1")  # else what the kernel complains of stands in the middle of a line that is read

    def run(self, line: str) -> str:
        """What the line prints; it must succeed."""
        self.console.type(f"{line} && echo o''k || echo fail''ed\n")
        heard = ""
        while True:
            heard += self.console.read_until("\n")
            if heard.rstrip().endswith("ok"):
                return heard.replace("\r", "\n")  # some shells write marks of their own before a line
            assert not heard.rstrip().endswith("failed"), heard


def manifest(
    name: str,
    *,
    memory: str = "1Gi",
    max_memory: str | None = None,
    sockets: int = 1,
    max_sockets: int | None = None,
    strategy: str = "Always",
    bus: str = "virtio",
    claim: str | None = None,
    image: str | None = None,
    extra: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A VM on the tiny guest. It grows if a maximum is named: emulated, a guest with room for three more CPUs and more
    memory takes half as long again to boot. `claim` and `image` each add a disk; `extra` has more fields of the
    `domain`, of its `devices` and of the template's `spec`."""
    disks: list[dict[str, Any]] = [{"name": "scratch", "disk": {"bus": bus}}]
    volumes: list[dict[str, Any]] = [{"name": "scratch", "emptyDisk": {"capacity": "16Mi"}}]
    if claim:
        disks.append({"name": "claimed", "disk": {"bus": "virtio"}})
        volumes.append({"name": "claimed", "persistentVolumeClaim": {"claimName": claim}})
    if image:
        disks.append({"name": "image", "disk": {"bus": "virtio"}})
        volumes.append({"name": "image", "containerDisk": {"image": image}})
    container = {"image": "hotvirt/tiny", "kernelPath": "/boot/vmlinuz", "initrdPath": "/boot/initrd"}
    domain: dict[str, Any] = {
        "memory": {"guest": memory, "maxGuest": max_memory or memory},
        "cpu": {"sockets": sockets, "maxSockets": max_sockets or sockets},
        "firmware": {"kernelBoot": {"container": container}},
        "devices": {
            "disks": disks,
            "interfaces": [{"name": "default", "masquerade": {}}],
            **(extra or {}).get("devices", {}),
        },
        **(extra or {}).get("domain", {}),
    }
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": name},
        "spec": {
            "runStrategy": strategy,
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "terminationGracePeriodSeconds": 10,
                    "domain": domain,
                    "networks": [{"name": "default", "pod": {}}],
                    "volumes": volumes,
                    **(extra or {}).get("spec", {}),
                },
            },
        },
    }


def _home(directory: Path, **settings: Any) -> Iterator[Home]:
    home = Home(directory, **settings)
    try:
        home.up()
        yield home
    finally:
        # Guests are not asked to shut down: tests of that say so. This is between one test and the next.
        home.down("--grace=0")
        left = home.guest_processes()
        shutil.rmtree(directory, ignore_errors=True)
        assert not left, f"'hotvirt down' left processes {left}"


@pytest.fixture
def home() -> Iterator[Home]:
    # Short path: unix sockets live below it.
    yield from _home(Path(tempfile.mkdtemp(prefix="hv-", dir="/tmp")))


@pytest.fixture
def home_without_qemu(tmp_path: Path) -> Iterator[Home]:
    """A home whose PATH has every tool but QEMU."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for folder in reversed(os.environ["PATH"].split(":")):
        for tool in Path(folder).glob("*") if Path(folder).is_dir() else []:
            if not tool.name.startswith("qemu-"):
                (tools / tool.name).unlink(missing_ok=True)
                (tools / tool.name).symlink_to(tool)
    yield from _home(Path(tempfile.mkdtemp(prefix="hv-", dir="/tmp")), path=f"{BIN}:{tools}")


@pytest.fixture
def home_class() -> type[Home]:
    """For tests that need another kind of home, as this file is no module that could be imported."""
    return Home
