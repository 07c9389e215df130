"""What a guest's disk and network carry under hotvirt, beside bare QEMU with the same command line, in the same run.

    scripts/in-own-network python benchmarks/io.py              # 15 rounds; as root, for a tap and a cgroup
    scripts/in-own-network python benchmarks/io.py --rounds 40 --only network

The floor is a QEMU of the command line that hotvirt gave its own, read from /proc, each descriptor in it replaced by
one of the same kind: a raw file beside the claim's, a tap with an address and nothing more, sockets. It has a cgroup
with the same CPU share, since at full speed a guest, QEMU's own thread and the host's end of a connection want more
than two CPUs, and who has how much of them decides what is measured. What is left is what hotvirt adds on the way of
the data: a tap that is routed, nftables rules with connection tracking, a service's address; and what its home does.

Both guests run all the time, one idle while the other is measured, first the one and then the other, next time the
other way round. Printed is the median MiB/s of each, and of hotvirt's by the floor's, round by round, the median and
the quartiles; and the same of the CPU seconds that each QEMU took for it. Where others use the machine too, speeds tell
of little else, and these still say what the way of the data costs. Nothing here passes or fails; within 0.05 of 1 is
what we want. Disks are read and written past the guest's cache, by the host's; what is `flushed` waits for the host's
disk, which others use as well.
"""

import argparse
import asyncio
import contextlib
import itertools
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bare import _spawn, until
from latency import Home, machine

from hotvirt.images import catalog
from hotvirt.kube.resources import CLAIMS, PODS, SERVICES, VMIS, VMS
from hotvirt.node import cgroups, taps
from hotvirt.node.podrunner import read_identity
from hotvirt.qemu.launch import listening_socket
from hotvirt.qemu.machine import GIB, MIB

NAME, PORT, WEB = "io", 5001, 80
DISK, FILE = GIB, 32 * MIB
TAP, HOST, GUEST = "hvio0", "10.254.77.1", "10.254.77.2"
PATIENCE = 120.0
BEGIN = rb"BEGIN\r?\n"
Measure = Callable[["Guest"], float]


class Guest:
    """`shell` is its serial port, where the tiny guest has a root shell."""

    def __init__(self, name: str, serial: Path, pid: int, *, address: str, service: str = "") -> None:
        self.name, self.pid, self.address, self.service = name, pid, address, service or address
        self._shell = socket.socket(socket.AF_UNIX)
        self._shell.settimeout(PATIENCE)
        self._shell.connect(str(serial))
        self._heard = b""

    def run(self, line: str) -> str:
        """What it prints; it must succeed. The marks differ from the echo of what is typed."""
        self.begin(line)
        self.until(BEGIN)
        return self.end()

    def begin(self, line: str) -> None:
        """To be followed by `until` it begins and `end`."""
        self._shell.sendall(f"echo BE''GIN; {line}; echo EN''D-$?-\n".encode())

    def end(self) -> str:
        said = re.search(rb"(.*)END-(\d+)-", self.until(rb"END-\d+-"), re.DOTALL)
        assert said, "the pattern was there"
        assert said[2] == b"0", f"{self.name}: {said[1].decode(errors='replace')}"
        return said[1].decode(errors="replace").replace("\r", "")

    def boot(self) -> None:
        """Until its shell answers: one that comes up loses what was typed before."""
        self._shell.settimeout(2)
        while True:
            self._shell.sendall(b"\necho RE''ADY\n")
            with contextlib.suppress(TimeoutError):
                self.until(rb"READY")
                break
        self._shell.settimeout(PATIENCE)
        self.run("until [ -e /dev/vda ] && [ -e /sys/class/net/eth0 ]; do sleep 0.1; done")

    def cpu(self) -> float:
        """Seconds of CPU that its QEMU has taken."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        self._shell.close()

    def until(self, pattern: bytes) -> bytes:
        deadline = time.monotonic() + PATIENCE
        while not (found := re.search(pattern, self._heard, re.DOTALL)):
            part = self._shell.recv(65536)
            assert part, f"the console of {self.name} closed"
            assert time.monotonic() < deadline, f"{self.name} says only {self._heard[-500:]!r}"
            self._heard += part
        heard, self._heard = self._heard[: found.end()], self._heard[found.end() :]
        return heard


# -- what is measured: MiB/s -------------------------------------------------------------------------------------------


def disk(options: str, *, block: int, mib: int) -> Measure:
    def measure(guest: Guest) -> float:
        guest.begin(f"dd {options} bs={block} count={mib * MIB // block} 2>&1")  # its dd tells no time
        guest.until(BEGIN)
        began = time.monotonic()
        guest.end()
        return mib / (time.monotonic() - began)

    return measure


def to_guest(mib: int, *, by_service: bool = False) -> Measure:
    def measure(guest: Guest) -> float:
        guest.begin(f"nc -l -p {PORT} </dev/null | wc -c")
        guest.until(BEGIN)
        piece = bytes(256 << 10)
        with _connected(guest.service if by_service else guest.address) as connection:
            began = time.monotonic()
            for _ in range(mib * MIB // len(piece)):
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
            said = guest.end()
            took = time.monotonic() - began
        assert int(said) == mib * MIB, said
        return mib / took

    return measure


def _connected(address: str, port: int = PORT) -> socket.socket:
    """Once somebody listens there, and the packets find their way."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return socket.create_connection((address, port), timeout=PATIENCE)
        except OSError:
            assert time.monotonic() < deadline, f"nobody listens at {address}"
            time.sleep(0.02)


def from_guest(times: int) -> Measure:
    """By a web server that sends a file of its memory, in large pieces: its nc sends small ones."""

    def measure(guest: Guest) -> float:
        room, got = bytearray(256 << 10), 0
        began = time.monotonic()
        for _ in range(times):
            with _connected(guest.address, WEB) as connection:
                connection.sendall(b"GET /data HTTP/1.0\r\n\r\n")
                while part := connection.recv_into(room):
                    got += part
        took = time.monotonic() - began
        assert times * FILE <= got < times * (FILE + 4096), f"{guest.name}: {got} bytes came"
        return times * FILE / MIB / took

    return measure


def measures(only: str | None) -> dict[str, Measure]:
    disks = {
        "disk: read, 1 MiB at a time": disk("if=/dev/vda of=/dev/null iflag=direct", block=MIB, mib=512),
        "disk: write, 1 MiB at a time": disk("if=/dev/zero of=/dev/vda oflag=direct", block=MIB, mib=512),
        "disk: the same, flushed": disk("if=/dev/zero of=/dev/vda oflag=direct conv=fsync", block=MIB, mib=128),
        "disk: read, 4 KiB at a time": disk("if=/dev/vda of=/dev/null iflag=direct", block=4096, mib=32),
        "disk: write, 4 KiB at a time": disk("if=/dev/zero of=/dev/vda oflag=direct", block=4096, mib=32),
    }
    network = {
        "network: host to guest": to_guest(128),
        "network: guest to host": from_guest(4),
        "network: host to guest by its service": to_guest(128, by_service=True),
    }
    return {**({} if only == "network" else disks), **({} if only == "disk" else network)}


# -- the two guests ----------------------------------------------------------------------------------------------------


def document() -> dict[str, Any]:
    vm = machine(NAME)
    template = vm["spec"]["template"]
    template["metadata"] = {"labels": {"app": NAME}}
    template["spec"]["domain"]["devices"]["disks"] = [{"name": "data", "disk": {"bus": "virtio"}}]
    template["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    return vm


async def ours(home: Home) -> tuple[Guest, dict[str, Any]]:
    """hotvirt's guest, and its pod."""
    claim: dict[str, Any] = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": str(DISK)}}}
    claim["storageClassName"] = "hotvirt-directory"
    about = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": claim}
    await home.client.create(CLAIMS, about, "default")
    ports = {"selector": {"app": NAME}, "ports": [{"port": PORT}]}
    about = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME}, "spec": ports}
    service = (await home.client.create(SERVICES, about, "default"))["spec"]["clusterIP"]
    await home.client.create(VMS, document(), "default")

    async def is_there() -> bool:
        return bool((await home.client.list(VMIS, "default"))["items"])

    await until(is_there)
    await home.agents([NAME])
    (pod,) = (await home.client.list(PODS, "default"))["items"]
    directory = home.directory / "run" / "pods" / pod["metadata"]["uid"]
    address = pod["status"]["podIP"]
    process = read_identity(directory / "pid")
    assert process, "its pod runs"
    return Guest("hotvirt", directory / "serial.sock", process.pid, address=address, service=service), pod


@contextlib.contextmanager
def floor(directory: Path, pid: int, image: catalog.ImageFiles, *, share: int) -> Iterator[Guest]:
    """Bare QEMU with the command line of process `pid`, and that many thousandths of a CPU as its share."""
    line = Path(f"/proc/{pid}/cmdline").read_bytes().decode().rstrip("\0").split("\0")
    scratch = directory / "disk.img"
    with scratch.open("wb") as file:
        file.truncate(DISK)
    groups = cgroups.find("hotvirt_io_floor")
    mapping: dict[int, int] = {}
    for option, value in itertools.pairwise(line):
        for number in _descriptors(option, value):
            mapping[number] = _descriptor(option, value, directory, image)
    process = _spawn(line, mapping, directory / "log")
    for descriptor in mapping.values():
        os.close(descriptor)
    try:
        groups.join("floor", process.pid, millis=share)
        subprocess.run(["ip", "addr", "add", f"{HOST}/30", "dev", TAP], check=True)
        subprocess.run(["ip", "link", "set", TAP, "up"], check=True)
        guest = Guest("floor", directory / "console0", process.pid, address=GUEST)
        try:
            yield guest
        finally:
            guest.close()
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)  # one that ended by itself is told of, as what follows from it is less plain
        died = process.returncode is not None
        process.kill()
        process.wait()
        groups.stop()
        if died:
            print(f"the floor's QEMU ended: {(directory / 'log').read_text()}", file=sys.stderr)


def _descriptors(option: str, value: str) -> list[int]:
    """The numbers that an option speaks of."""
    if option in ("-kernel", "-initrd"):
        return [int(value.removeprefix("/proc/self/fd/"))]
    if option in ("-add-fd", "-chardev"):
        return [int(number) for number in re.findall(r"\bfd=(\d+)", value)]
    if option == "-netdev":
        assert '"type":"tap"' in value, f"no tap, but {value}: run this as root"
        assert "vhost" not in value, "this host has vhost-net, which the floor is not made for yet"
        return [int(number) for number in re.findall(r'"fd":"(\d+)"', value)]
    return []


def _descriptor(option: str, value: str, directory: Path, image: catalog.ImageFiles) -> int:
    """One of our own for what the option is about."""
    if option in ("-kernel", "-initrd"):
        path = image.kernel if option == "-kernel" else image.initrd
        assert path, "the tiny guest has both"
        return os.open(path, os.O_RDONLY)
    if option == "-chardev":
        name = re.search(r"id=(\w+)", value)
        assert name, value
        return listening_socket(directory / name[1]).detach()
    if option == "-netdev":
        return taps.open_tap(TAP)
    name = re.search(r"opaque=([\w-]+)", value)
    assert name, value
    file, flags = {"data": ("disk.img", os.O_RDWR), "serial-log": ("serial.log", os.O_WRONLY | os.O_APPEND)}[name[1]]
    return os.open(directory / file, flags | os.O_CREAT)


def own_address(guest: Guest) -> None:
    """No DHCP answers there: its client is ended, so that it does not take the address away again."""
    guest.run("until pidof udhcpc; do sleep 0.1; done; killall udhcpc; while pidof udhcpc; do sleep 0.1; done")
    guest.run(f"ip link set eth0 up; ip addr flush dev eth0; ip addr add {GUEST}/30 dev eth0")


# -- the comparison ----------------------------------------------------------------------------------------------------


async def compare(*, rounds: int, only: str | None) -> None:
    image = await catalog.ensure("hotvirt/tiny", catalog.default_cache())
    directory = Path(tempfile.mkdtemp(prefix="hvf-", dir="/tmp"))
    try:
        async with Home() as home:
            mine, pod = await ours(home)
            try:
                with floor(directory, mine.pid, image, share=cgroups.requested(pod)) as bare:
                    print(f"CPU share of both: {cgroups.requested(pod)} thousandths", file=sys.stderr)
                    prepare(bare, mine)
                    table(measured((bare, mine), measures(only), rounds=rounds))
            finally:
                mine.close()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def prepare(bare: Guest, mine: Guest) -> None:
    for guest in (bare, mine):
        guest.boot()
    own_address(bare)
    mine.run(f"until ip -4 addr show eth0 | grep -q 'inet {mine.address}/'; do sleep 0.1; done")
    for guest in (bare, mine):  # so that no round finds the disks thin
        guest.run(f"dd if=/dev/zero of=/dev/vda bs=1M count={DISK // MIB} conv=fsync 2>&1")
        guest.run(f"mkdir /run/www && dd if=/dev/zero of=/run/www/data bs=1M count={FILE // MIB} 2>&1")
        guest.run(f"httpd -p {WEB} -h /run/www")


class Found:
    """Of one thing that is measured: speeds and CPU seconds, by round, of the floor and of hotvirt."""

    def __init__(self) -> None:
        self.speeds: tuple[list[float], list[float]] = ([], [])
        self.cpu: tuple[list[float], list[float]] = ([], [])


def measured(guests: tuple[Guest, Guest], what: dict[str, Measure], *, rounds: int) -> dict[str, Found]:
    found = {name: Found() for name in what}
    for number in range(-1, rounds):  # the first is for caches to fill and does not count
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        for name, measure in what.items():
            for side in (1, 0) if number % 2 else (0, 1):
                before = guests[side].cpu()
                speed = measure(guests[side])
                if number >= 0:
                    found[name].speeds[side].append(speed)
                    found[name].cpu[side].append(guests[side].cpu() - before)
    return found


def table(found: dict[str, Found]) -> None:
    print(f"{'':38} {'MiB/s, medians':>19}  {'speed by the floor':>24}  {'CPU by the floor':>24} {'n':>3}")
    parts = f"{'median':>8} {'quartiles':>15}"
    print(f"{'':38} {'bare QEMU':>10} {'hotvirt':>8}  {parts}  {parts}")
    for name, each in found.items():
        one, two = (statistics.median(speeds) for speeds in each.speeds)
        print(f"{name:38} {one:10.1f} {two:8.1f}  {ratio(*each.speeds)}  {ratio(*each.cpu)} {len(each.cpu[0]):3}")


def ratio(bare: list[float], mine: list[float]) -> str:
    low, middle, high = statistics.quantiles([two / one for one, two in zip(bare, mine, strict=True)], n=4)
    return f"{middle:8.3f} {low:7.3f} {high:7.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", choices=("disk", "network"))
    given = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("run this as root: it needs a tap and a cgroup, as hotvirt does")
    if given.rounds < 2:
        parser.error("--rounds: 2 or more, for quartiles")
    asyncio.run(compare(rounds=given.rounds, only=given.only))


if __name__ == "__main__":
    main()
