"""How fast the API server is, and what it costs, beside what one bare fsync costs on the same disk.

    python benchmarks/api.py                        # a server of its own, in a directory of its own
    python benchmarks/api.py --kubeconfig FILE      # any other, with client certificates: kube-apiserver + etcd, say
    python benchmarks/api.py --objects 1000 --watchers 100

Objects are custom ones of 5 KB whose schema is checked. The client is a few lines over raw TLS streams, so that it
costs less than what it measures; it shares the machine with the server all the same. Nothing here passes or fails.
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
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

GROUP, PLURAL = "benchmarks.hotvirt.io", "gauges"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
GAUGES = f"/apis/{GROUP}/v1/namespaces/default/{PLURAL}"
MERGE = "application/merge-patch+json"
SERVER = """
import asyncio, json, sys
from pathlib import Path
from hotvirt.server.app import ApiServer, ServerConfig
from hotvirt.server.pki import Pki

async def main():
    home = Path(sys.argv[1])
    server = ApiServer(ServerConfig(state_db=home / "state.db", pki=home / "pki"))
    await server.start()
    pair = Pki(home / "pki").client("admin", ("system:masters",))
    user = {"client-certificate": str(pair.certificate), "client-key": str(pair.key)}
    cluster = {"server": f"https://127.0.0.1:{server.port}", "certificate-authority": str(home / "pki/ca.crt")}
    config = {"clusters": [{"cluster": cluster}], "users": [{"user": user}]}
    (home / "kubeconfig").write_text(json.dumps(config))
    print("ready", flush=True)
    await asyncio.Event().wait()

import uvloop
uvloop.run(main())
"""


class Target:
    """Where the server is. `pid` is known of a server of our own, and gives its memory and CPU time."""

    def __init__(self, kubeconfig: Path, pid: int = 0) -> None:
        import yaml

        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        at = urlsplit(cluster["server"])
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
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._target.host}\r\nContent-Type: {kind}\r\n"
        head += f"Accept: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        self._writer.write(head.encode() + data)


def definition() -> dict[str, Any]:
    spec = {
        "type": "object",
        "properties": {
            "level": {"type": "integer", "minimum": 0, "default": 0},
            "notes": {"type": "array", "items": {"type": "object", "properties": {"text": {"type": "string"}}}},
        },
    }
    version = {
        "name": "v1", "served": True, "storage": True, "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}},
    }  # fmt: skip
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP, "scope": "Namespaced", "names": {"plural": PLURAL, "kind": "Gauge"}, "versions": [version],
        },
    }  # fmt: skip


def gauge(name: str) -> dict[str, Any]:
    notes = [{"text": "x" * 90} for _ in range(45)]
    return {"apiVersion": f"{GROUP}/v1", "kind": "Gauge", "metadata": {"name": name}, "spec": {"notes": notes}}


def report(what: str, value: str, detail: str = "") -> None:
    print(f"{what:<44}{value:>16}  {detail}", flush=True)


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

    cpu, begin = target.cpu(), time.perf_counter()
    await asyncio.gather(*(lane() for _ in range(connections)))
    seconds = time.perf_counter() - begin
    each = (target.cpu() - cpu) / count * 1e6
    detail = f"p50 {statistics.median(times) * 1e3:.2f} ms" + (f", server CPU {each:.0f} us each" if target.pid else "")
    report(f"{what}, {connections} connection{'s' * (connections > 1)}", f"{count / seconds:,.0f}/s", detail)


async def watchers(target: Target, count: int, name: str) -> None:
    async with Connection(target) as writer, contextlib.AsyncExitStack() as stack:
        version = json.loads(await writer.ask("GET", f"{GAUGES}?limit=1"))["metadata"]["resourceVersion"]
        streams = [await stack.enter_async_context(Connection(target)) for _ in range(count)]
        for stream in streams:
            stream.send("GET", f"{GAUGES}?watch=1&resourceVersion={version}")
            await stream.reader.readuntil(b"\r\n\r\n")
        report(f"memory with {count} watches", target.memory())
        last = []
        for level in range(100, 105):
            begin = time.perf_counter()
            await writer.ask("PATCH", f"{GAUGES}/{name}", {"spec": {"level": level}}, kind=MERGE)
            await asyncio.gather(*(stream.reader.readuntil(b"}\n\r\n") for stream in streams))
            last.append(time.perf_counter() - begin)
        report(
            f"one update to the last of {count} watchers", f"{statistics.median(last) * 1e3:.0f} ms", "with its write"
        )


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
        with contextlib.suppress(RuntimeError):  # there from an earlier run
            await connection.ask("POST", DEFINITIONS, definition())
        for _ in range(200):
            with contextlib.suppress(RuntimeError):
                await connection.ask("GET", GAUGES)
                break
            await asyncio.sleep(0.05)
        few = min(objects, 500)
        await rate(target, "create", few, lambda c, i: c.ask("POST", GAUGES, gauge(f"s{i}")), connections=1)
        await rate(target, "create", objects, lambda c, i: c.ask("POST", GAUGES, gauge(f"g{i}")), connections=16)
        report(f"memory with {objects + few} objects", target.memory())
        await rate(target, "get", objects, lambda c, i: c.ask("GET", f"{GAUGES}/g{i}"), connections=16)

        def patch(connection: Connection, number: int) -> Awaitable[bytes]:
            return connection.ask("PATCH", f"{GAUGES}/g{number}", {"spec": {"level": number + 1}}, kind=MERGE)

        await rate(target, "merge patch", few, patch, connections=1)
        await rate(target, "merge patch", objects, patch, connections=16)
        times = []
        for _ in range(3):
            begin = time.perf_counter()
            size = len(await connection.ask("GET", GAUGES))
            times.append(time.perf_counter() - begin)
        report(f"list of {objects + few}", f"{statistics.median(times):.2f} s", f"{size / 1e6:.0f} MB")
        await watchers(target, streams, "g0")
        await connection.ask("DELETE", f"{DEFINITIONS}/{PLURAL}.{GROUP}")


def _start(directory: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(directory)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


@contextlib.contextmanager
def own_server(directory: Path) -> Iterator[Target]:
    """Twice: the second start finds its keys, as every start but the first does."""
    process = _start(directory)
    process.terminate()
    process.communicate()
    begin = time.perf_counter()
    process = _start(directory)
    ready = time.perf_counter() - begin
    report("process start to ready", f"{ready:.2f} s")
    try:
        yield Target(directory / "kubeconfig", process.pid)
    finally:
        process.terminate()
        process.communicate()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--kubeconfig", type=Path, help="another server, instead of one started here")
    arguments.add_argument("--objects", type=int, default=10_000)
    arguments.add_argument("--watchers", type=int, default=1_000)
    arguments.add_argument("--dir", type=Path, help="where the state goes (the disk that is measured)")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=given.dir) as name:
        fsync_floor(Path(name))
        with contextlib.ExitStack() as stack:
            other = Target(given.kubeconfig) if given.kubeconfig else None
            target = other or stack.enter_context(own_server(Path(name)))
            asyncio.run(measure(target, objects=given.objects, streams=given.watchers))


if __name__ == "__main__":
    main()
