"""How fast the API server is, and what it costs, beside what one bare fsync costs on the same disk.

    python benchmarks/api.py                        # a server of its own, in a directory of its own
    python benchmarks/api.py --server https://127.0.0.1:6443 --kubeconfig FILE --pid 4711
                                                    # any other, with client certificates: kube-apiserver + etcd, say
    python benchmarks/api.py --objects 1000 --watchers 100
    python benchmarks/api.py --profile DIR          # the server's time by function, a file a start (cProfile slows it)

Objects are VirtualMachines of 5 KB, whose whole schema is checked, and ConfigMaps of 5 KB. Beside each number stands
what it is to be, and what kube-apiserver 1.36 + etcd 3.6 took on such a machine (2 cores; custom objects / config
maps). The client is a few lines over raw TLS streams, so that it costs less than what it measures; it shares the
machine with the server all the same, so its own CPU time stands beside the server's. Nothing here passes or fails.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import uvloop

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
MACHINES = "/apis/kubevirt.io/v1/namespaces/default/virtualmachines"
MAPS = "/api/v1/namespaces/default/configmaps"
MERGE, APPLY = "application/merge-patch+json", "application/apply-patch+yaml"
SERVER = """
import asyncio, cProfile, json, os, signal, sys
from pathlib import Path
from hotvirt.api.crds import crds
from hotvirt.server.app import ApiServer, ServerConfig
from hotvirt.server.pki import Pki

async def main():
    home = Path(sys.argv[1])
    server = ApiServer(ServerConfig(state_db=home / "state.db", pki=home / "pki"), crds=crds())
    await server.start()
    pair = Pki(home / "pki").client("admin", ("system:masters",))
    user = {"client-certificate": str(pair.certificate), "client-key": str(pair.key)}
    cluster = {"server": f"https://127.0.0.1:{server.port}", "certificate-authority": str(home / "pki/ca.crt")}
    config = {"clusters": [{"cluster": cluster}], "users": [{"user": user}]}
    (home / "kubeconfig").write_text(json.dumps(config))
    print("ready", flush=True)
    asked_to_stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked_to_stop.set)
    await asked_to_stop.wait()
    await server.stop()

import uvloop
if len(sys.argv) > 2:
    profile = cProfile.Profile()
    profile.runcall(uvloop.run, main())
    profile.dump_stats(Path(sys.argv[2]) / f"{os.getpid()}.prof")
else:
    uvloop.run(main())
"""


class Target:
    """Where the server is. `pid` is known of a server of our own, and gives its memory and CPU time."""

    def __init__(self, kubeconfig: Path, pid: int = 0, server: str = "") -> None:
        import yaml

        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        at = urlsplit(server or cluster["server"])
        self.host, self.port, self.pid = at.hostname or "", at.port or 443, pid
        self.tls = ssl.create_default_context(cafile=_file(cluster, "certificate-authority"))
        self.tls.load_cert_chain(_file(user, "client-certificate"), _file(user, "client-key"))

    def memory(self) -> str:
        if not self.pid:
            return "-"
        status = Path(f"/proc/{self.pid}/status").read_text()
        kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
        return f"{int(kilobytes) / 1024:.0f} MiB"

    def cpu(self) -> float:
        """Seconds so far."""
        if not self.pid:
            return float("nan")
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _file(entry: dict[str, str], name: str) -> str:
    if name in entry:
        return entry[name]
    handle, path = tempfile.mkstemp()
    with os.fdopen(handle, "wb") as file:
        file.write(base64.b64decode(entry[f"{name}-data"]))
    return path


class Connection:
    """One keep-alive connection, one request at a time."""

    def __init__(self, target: Target) -> None:
        self._target = target

    async def __aenter__(self) -> Self:
        self.reader, self._writer = await asyncio.open_connection(
            self._target.host, self._target.port, ssl=self._target.tls, limit=2**20
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def ask(self, method: str, path: str, body: Any = None, *, kind: str = "application/json") -> bytes:
        data = json.dumps(body).encode() if body is not None else b""
        self.send(method, path, data, kind)
        head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        answer = await self._body(head)
        status = int(head.split(None, 2)[1])
        if status >= 300:
            raise RuntimeError(f"{method} {path}: {status} {answer[:300].decode(errors='replace')}")
        return answer

    async def _body(self, head: bytes) -> bytes:
        for line in head.split(b"\r\n"):
            if line.startswith(b"content-length:"):
                return await self.reader.readexactly(int(line.split(b":")[1]))
        parts = []
        while size := int(await self.reader.readline(), 16):
            parts.append(await self.reader.readexactly(size))
            await self.reader.readline()
        await self.reader.readline()
        return b"".join(parts)

    def send(self, method: str, path: str, data: bytes = b"", kind: str = "application/json") -> None:
        self._writer.write(request(self._target, method, path, data, kind))


def request(target: Target, method: str, path: str, data: bytes = b"", kind: str = "application/json") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: {target.host}\r\nContent-Type: {kind}\r\n"
    head += f"Accept: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


class Audience:
    """Many watch streams. `heard` is done when each of them has got one more event."""

    def __init__(self) -> None:
        self._missing: set[Watcher] = set()
        self.heard: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def expect(self, watchers: Sequence["Watcher"]) -> None:
        self._missing = set(watchers)
        self.heard = asyncio.get_running_loop().create_future()

    def got(self, watcher: "Watcher") -> None:
        self._missing.discard(watcher)
        if not self._missing and not self.heard.done():
            self.heard.set_result(None)


class Watcher(asyncio.Protocol):
    """One watch stream, as cheap as can be: it only looks how what arrives ends."""

    def __init__(self, audience: Audience, request: bytes) -> None:
        self._audience, self._request = audience, request
        self._tail = b""
        self.began: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:  # uvloop's is of no class of asyncio's
        self.transport: asyncio.Transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._tail = (self._tail + data[-5:])[-5:]
        if not self.began.done():
            if self._tail.endswith(b"\r\n\r\n"):
                self.began.set_result(None)
        elif self._tail.endswith(b"}\n\r\n"):
            self._audience.got(self)


def machine(name: str) -> dict[str, Any]:
    disks = [{"name": f"d{i}", "disk": {"bus": "virtio"}} for i in range(4)]
    volumes: list[dict[str, Any]] = [{"name": f"d{i}", "dataVolume": {"name": f"{name}-{i}"}} for i in range(3)]
    volumes.append({"name": "d3", "cloudInitNoCloud": {"userData": "#cloud-config\n" + "x" * 3800}})
    domain = {
        "cpu": {"sockets": 2, "cores": 1, "threads": 1}, "memory": {"guest": "1Gi", "maxGuest": "4Gi"},
        "devices": {"disks": disks, "interfaces": [{"name": "default", "masquerade": {}}], "rng": {}},
    }  # fmt: skip
    spec = {"domain": domain, "networks": [{"name": "default", "pod": {}}], "volumes": volumes}
    template = {"metadata": {"labels": {"app": "benchmark"}}, "spec": spec}
    return {
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": name},
        "spec": {"runStrategy": "Halted", "template": template},
    }  # fmt: skip


def config_map(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"text": "x" * 4900}}


def machine_patch(number: int) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"domain": {"memory": {"guest": f"{1024 + number}Mi"}}}}}}


def map_patch(number: int) -> dict[str, Any]:
    return {"data": {"number": str(number)}}


# what: (what it is to be, kube-apiserver 1.36 + etcd 3.6 there)
COMPARED = {
    "process start to ready": ("< 0.7 s", "3.4 s"),
    "memory, empty": ("< 80 MiB", "310 MiB"),
    "memory with 10,000 VMs": ("< 250 MiB", "1.5 GiB"),
    "VMs: create, 16 connections": ("> 800/s", "267/s"),
    "VMs: get, 16 connections": ("> 2,500/s", "988/s"),
    "VMs: merge patch, 16 connections": ("> 800/s", "272/s"),
    "VMs: list of all": ("< 0.5 s", "2.5 s"),
    "config maps: create, 16 connections": ("", "734/s"),
    "config maps: get, 16 connections": ("", "2,438/s"),
    "config maps: merge patch, 16 connections": ("", "846/s"),
    "config maps: list of all": ("", "0.22 s"),
    "one update to the last of 1,000 watchers": ("< 50 ms", "50-58 ms"),
}


def report(what: str, value: str, detail: str = "") -> None:
    wanted, other = COMPARED.get(what, ("", ""))
    print(f"{what:<44}{value:>12}{wanted:>12}{other:>12}  {detail}".rstrip(), flush=True)


Work = Callable[[Connection, int], Awaitable[object]]


async def rate(target: Target, what: str, count: int, work: Work, *, connections: int) -> None:
    numbers = iter(range(count))
    times: list[float] = []

    async def lane() -> None:
        async with Connection(target) as connection:
            for number in numbers:
                begin = time.perf_counter()
                await work(connection, number)
                times.append(time.perf_counter() - begin)

    cpu, own, begin = target.cpu(), time.process_time(), time.perf_counter()
    await asyncio.gather(*(lane() for _ in range(connections)))
    seconds = time.perf_counter() - begin
    detail = f"p50 {statistics.median(times) * 1e3:.2f} ms, {_shares(target, cpu, own, 1e6 / count, 'us')} each"
    report(f"{what}, {connections} connection{'s' * (connections > 1)}", f"{count / seconds:,.0f}/s", detail)


async def watchers(target: Target, count: int, name: str) -> None:
    audience = Audience()
    async with Connection(target) as writer:
        version = json.loads(await writer.ask("GET", f"{MACHINES}?limit=1"))["metadata"]["resourceVersion"]
        asked = request(target, "GET", f"{MACHINES}?watch=1&resourceVersion={version}")
        streams = [await _watch(target, audience, asked) for _ in range(count)]
        report(f"memory with {count} watches", target.memory())
        last, cpu, own = [], target.cpu(), time.process_time()
        for level in range(20_000, 20_005):
            audience.expect(streams)
            begin = time.perf_counter()
            await writer.ask("PATCH", f"{MACHINES}/{name}", machine_patch(level), kind=MERGE)
            await audience.heard
            last.append(time.perf_counter() - begin)
        for stream in streams:
            stream.transport.abort()
        shares = _shares(target, cpu, own, 1e3 / len(last), "ms")
        what = f"one update to the last of {count:,} watchers"
        report(what, f"{statistics.median(last) * 1e3:.0f} ms", f"with its write; {shares}")


async def _watch(target: Target, audience: Audience, asked: bytes) -> Watcher:
    loop = asyncio.get_running_loop()
    _, watcher = await loop.create_connection(
        lambda: Watcher(audience, asked), target.host, target.port, ssl=target.tls
    )  # fmt: skip
    await watcher.began
    return watcher


def _shares(target: Target, cpu: float, own: float, scale: float, unit: str) -> str:
    """What server and client have computed since then, each."""
    server = f"server CPU {(target.cpu() - cpu) * scale:.0f} {unit}, " if target.pid else ""
    return f"{server}client CPU {(time.process_time() - own) * scale:.0f} {unit}"


def fsync_floor(directory: Path) -> None:
    with (directory / "floor").open("wb") as file:
        times = []
        for _ in range(200):
            file.write(b"x" * 5000)
            file.flush()
            begin = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - begin)
    report("floor: one fsync of 5 KB appended", f"{statistics.median(times) * 1e3:.2f} ms")


async def measure(target: Target, *, objects: int, streams: int) -> None:
    report("memory, empty", target.memory())
    async with Connection(target) as connection:
        await _machines_are_served(connection)
    few = min(objects, 500)
    await measure_kind(target, "VMs", MACHINES, (machine, machine_patch), objects=objects, few=few)
    await watchers(target, streams, "g0")
    await measure_kind(target, "config maps", MAPS, (config_map, map_patch), objects=objects, few=few)


async def _machines_are_served(connection: Connection) -> None:
    """Installs the kind on a server that does not have it."""
    from hotvirt.api.crds import crds

    definition = next(crd for crd in crds() if crd["metadata"]["name"] == "virtualmachines.kubevirt.io")
    with contextlib.suppress(RuntimeError):  # it has it
        await connection.ask("POST", DEFINITIONS, definition)
    for _ in range(200):
        with contextlib.suppress(RuntimeError):
            await connection.ask("GET", f"{MACHINES}?limit=1")
            return
        await asyncio.sleep(0.05)
    raise RuntimeError("VirtualMachines are not served")


Make = tuple[Callable[[str], dict[str, Any]], Callable[[int], dict[str, Any]]]


async def measure_kind(target: Target, what: str, path: str, make: Make, *, objects: int, few: int) -> None:
    new, change = make

    def patch(connection: Connection, number: int) -> Awaitable[bytes]:
        return connection.ask("PATCH", f"{path}/g{number}", change(number), kind=MERGE)

    def apply(connection: Connection, number: int) -> Awaitable[bytes]:
        wanted = new(f"g{number}") | {"metadata": {"name": f"g{number}", "labels": {"applied": "yes"}}}
        return connection.ask("PATCH", f"{path}/g{number}?fieldManager=applier&force=true", wanted, kind=APPLY)

    await rate(target, f"{what}: create", few, lambda c, i: c.ask("POST", path, new(f"s{i}")), connections=1)
    await rate(target, f"{what}: create", objects, lambda c, i: c.ask("POST", path, new(f"g{i}")), connections=16)
    if what == "VMs":
        report(f"memory with {objects:,} VMs", target.memory(), f"and {few} more")
    await rate(target, f"{what}: get", few, lambda c, i: c.ask("GET", f"{path}/g{i}"), connections=1)
    await rate(target, f"{what}: get", objects, lambda c, i: c.ask("GET", f"{path}/g{i}"), connections=16)
    await rate(target, f"{what}: merge patch", few, patch, connections=1)
    await rate(target, f"{what}: merge patch", objects, patch, connections=16)
    await rate(target, f"{what}: apply", few, apply, connections=16)
    times, cpu, own = [], target.cpu(), time.process_time()
    async with Connection(target) as connection:
        for _ in range(3):
            begin = time.perf_counter()
            size = len(await connection.ask("GET", path))
            times.append(time.perf_counter() - begin)
        detail = f"{objects + few:,}, {size / 1e6:.0f} MB, {_shares(target, cpu, own, 1e3 / len(times), 'ms')}"
    report(f"{what}: list of all", f"{statistics.median(times):.2f} s", detail)
    if what == "VMs":
        report("memory after all that", target.memory())


def _start(directory: Path, *more: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(directory), *more], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


@contextlib.contextmanager
def own_server(directory: Path, profile: Path | None) -> Iterator[Target]:
    """Twice: the second start finds its keys, as every start but the first does."""
    process = _start(directory)
    process.terminate()
    process.communicate()
    begin = time.perf_counter()
    process = _start(directory, *([str(profile)] if profile else []))
    ready = time.perf_counter() - begin
    report("process start to ready", f"{ready:.2f} s")
    try:
        yield Target(directory / "kubeconfig", process.pid)
    finally:
        process.terminate()
        process.communicate()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--server", default="", help="another server's URL, when --kubeconfig says another")
    arguments.add_argument("--kubeconfig", type=Path, help="another server, instead of one started here")
    arguments.add_argument("--pid", type=int, default=0, help="the other server's process, for its memory and CPU")
    arguments.add_argument("--profile", type=Path, help="where profiles of the server's time are written")
    arguments.add_argument("--objects", type=int, default=10_000)
    arguments.add_argument("--watchers", type=int, default=1_000)
    arguments.add_argument("--dir", type=Path, help="where the state goes (the disk that is measured)")
    given = arguments.parse_args()
    if given.server and not given.kubeconfig:
        arguments.error("--server needs --kubeconfig FILE: it says who asks")
    print(f"{'':<44}{'here':>12}{'wanted':>12}{'k8s + etcd':>12}")
    with tempfile.TemporaryDirectory(dir=given.dir) as name:
        fsync_floor(Path(name))
        with contextlib.ExitStack() as stack:
            other = Target(given.kubeconfig, given.pid, given.server) if given.kubeconfig else None
            target = other or stack.enter_context(own_server(Path(name), given.profile))
            uvloop.run(measure(target, objects=given.objects, streams=given.watchers))


if __name__ == "__main__":
    main()
