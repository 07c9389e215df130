"""What storage costs, against the bare tools in the same run: imports, uploads, copies, and many machines on one image.

    python benchmarks/storage.py                        # 1 GiB of data on a disk of 10 GiB, 100 machines
    python benchmarks/storage.py --data 256 --machines 20
    python benchmarks/storage.py --only imports --rounds 5
    python benchmarks/storage.py --kills 100            # kills the home at random moments of import, copy and upload

Floors: `curl`, then `qemu-img convert`, then `sync` of the disk alone, for what is imported: hotvirt's disk is on disk
too before it is offered, and what is thrown away (the download) is not. That is with qemu-img's own defaults, and once
more with what makes it quickest. For an upload the same, with `curl` sending over TLS to a bare receiver; what plain
HTTP would take is told beside it, as is each floor without the sync. Holes of a raw image are written by `curl`, and
not by hotvirt. For a copy, `cp --sparse=always`.

Ratios are hotvirt's time by the floor's in the same round, the two taking turns in being first, and the median of the
rounds. All is measured from the apply of a DataVolume (of an upload: from its first byte) to its Succeeded, as a
watch tells it; machines from the apply of all to the first agent that answers, and to the last.
"""

import argparse
import asyncio
import contextlib
import functools
import http.server
import os
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hotvirt.kube import conditions
from hotvirt.kube.kubeconfig import load
from hotvirt.kube.remote import RemoteClient
from hotvirt.kube.resources import CDI_CONFIGS, CLAIMS, DATA_VOLUMES, KUBEVIRTS, VMIS, VMS, VOLUMES, Resource

Doc = dict[str, Any]
MIB, GIB = 1 << 20, 1 << 30
BIN = Path(sys.executable).parent
TOKENS = Resource("upload.cdi.kubevirt.io", "v1beta1", "uploadtokenrequests", "UploadTokenRequest")
LEAST = 0.02
QUICKEST = ("-t", "none", "-W", "-m", "8")
"""How qemu-img converts quickest, which is how hotvirt has it done."""


class Home:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.env = {**os.environ, "HOTVIRT_HOME": str(directory)}

    def command(self, *args: str) -> None:
        subprocess.run([str(BIN / "hotvirt"), *args], env=self.env, check=True, capture_output=True)

    def client(self) -> RemoteClient:
        return RemoteClient(load(self.directory / "kubeconfig"))


def data_volume(name: str, source: Doc, size: int) -> Doc:
    storage = {"storageClassName": "hotvirt-directory", "resources": {"requests": {"storage": str(size)}}}
    return {
        "apiVersion": "cdi.kubevirt.io/v1beta1", "kind": "DataVolume", "metadata": {"name": name},
        "spec": {"source": source, "storage": storage},
    }  # fmt: skip


async def until(client: RemoteClient, name: str, phase: str) -> None:
    """By a watch: asking 50 times a second took a tenth of the home's and of this process's time."""
    found = await client.get(DATA_VOLUMES, name, "default")
    while not _is(found, phase):
        version, named = found["metadata"]["resourceVersion"], f"metadata.name={name}"
        events = client.watch(DATA_VOLUMES, "default", resource_version=version, field_selector=named)
        async with contextlib.aclosing(events):
            async for event in events:
                found = event.object
                if event.type == "MODIFIED" and _is(found, phase):
                    return


def _is(volume: Doc, phase: str) -> bool:
    status = volume.get("status") or {}
    assert status.get("phase") != "Failed", status
    return bool(status.get("phase") == phase)


async def filled(client: RemoteClient, volume: Doc) -> float:
    began = time.monotonic()
    await client.create(DATA_VOLUMES, volume, "default")
    await until(client, volume["metadata"]["name"], "Succeeded")
    return time.monotonic() - began


def timed(*argv: object) -> float:
    began = time.monotonic()
    subprocess.run([str(each) for each in argv], check=True, capture_output=True)
    os.sync()
    return time.monotonic() - began


def image(folder: Path, data: int, size: int) -> tuple[Path, Path]:
    """Random data in pieces all over a sparse disk, raw and as qcow2."""
    raw, packed = folder / "disk.raw", folder / "disk.qcow2"
    pieces = data // (16 * MIB)
    with raw.open("wb") as file:
        file.truncate(size)
        for number in range(pieces):
            file.seek(number * (size // pieces) // MIB * MIB)
            file.write(os.urandom(16 * MIB))
    timed("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, packed)
    return raw, packed


def serve(folder: Path) -> tuple[http.server.ThreadingHTTPServer, str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def copyfile(self, source: Any, outputfile: Any) -> None:
            outputfile.flush()
            self.connection.sendfile(source)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}"


class Floor(NamedTuple):
    """Seconds of the bare tools: until all was written, and until it was on disk."""

    written: float
    synced: float


async def bare(scratch: Path, kind: str, fetch: Sequence[object], *options: str) -> Floor:
    """`fetch` puts the image into `scratch/got`. `options`: of qemu-img."""
    return await asyncio.to_thread(_bare, scratch, kind, fetch, options)


def _bare(scratch: Path, kind: str, fetch: Sequence[object], options: Sequence[str]) -> Floor:
    began = time.monotonic()
    run(*fetch)
    disk = scratch / "got"
    if kind != "raw":
        disk = scratch / "disk"
        run("qemu-img", "convert", *options, "-f", kind, "-O", "raw", scratch / "got", disk)
    written = time.monotonic() - began
    run("sync", disk, scratch)
    floor = Floor(written, time.monotonic() - began)
    for path in scratch.iterdir():
        path.unlink()
    return floor


def run(*argv: object) -> None:
    subprocess.run([str(each) for each in argv], check=True, capture_output=True)


def receive(folder: Path, target: Path) -> tuple[socket.socket, str]:
    """A receiver of uploads over TLS that does nothing else. Closing the socket ends it."""
    key, certificate = folder / "key", folder / "crt"
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-subj", "/CN=bare", "-keyout", key, "-out", certificate)  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        buffer = memoryview(bytearray(MIB))
        while True:
            try:
                connection = listening.accept()[0]
            except OSError:
                return
            with context.wrap_socket(connection, server_side=True) as client, target.open("wb", buffering=0) as file:
                head = bytearray()
                while b"\r\n\r\n" not in head:
                    head += client.recv(1)
                left = int(head.lower().partition(b"content-length:")[2].split(b"\r")[0])
                while left:
                    left -= file.write(buffer[: client.recv_into(buffer)])
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    threading.Thread(target=serve, daemon=True).start()
    return listening, f"https://127.0.0.1:{listening.getsockname()[1]}/"


def told(what: str, ours: float, floor: Floor, data: int) -> None:
    print(f"{what:40} {ours:8.2f} s  floor {floor.synced:8.2f} s  ratio {ours / floor.synced:5.2f}"
          f"  {data / MIB / ours:7.0f} MiB/s  (floor without sync {floor.written:.2f} s)", flush=True)  # fmt: skip


async def imports(client: RemoteClient, folder: Path, url: str, *, size: int, rounds: int) -> None:
    scratch = folder / "floor"
    scratch.mkdir()
    listening, bare_url = receive(folder, scratch / "got")
    ratios: dict[str, list[float]] = {}

    def compare(what: str, ours: float, floor: Floor, sent: int) -> None:
        told(what, ours, floor, sent)
        ratios.setdefault(what, []).append(ours / floor.synced)

    for number in range(rounds):
        for kind in ("qcow2", "raw"):
            source = folder / f"disk.{kind}"
            sent = source.stat().st_size
            fetched = ("curl", "-s", "-o", scratch / "got", f"{url}/disk.{kind}")
            sending = ("curl", "-sf", "--insecure", "-H", "Expect:", "-T", source, bare_url)
            volume = data_volume(f"http-{kind}", {"http": {"url": f"{url}/disk.{kind}"}}, size)
            ours, plain = await both(filled(client, volume), bare(scratch, kind, fetched), is_first=number % 2 == 1)
            compare(f"import of {sent // MIB} MiB of {kind} over HTTP", ours, plain, sent)
            if kind == "qcow2" or number < rounds - 1:  # the last raw one is what the copies are made of
                await gone(client, f"http-{kind}")
            if kind == "qcow2":
                quick = await bare(scratch, kind, fetched, *QUICKEST)
                compare(" the same, against qemu-img's quickest", ours, quick, sent)
                uploaded = upload(client, f"up-{kind}", source, size)
                ours, floor = await both(uploaded, bare(scratch, kind, sending), is_first=number % 2 == 1)
                compare(f"upload of {sent // MIB} MiB of {kind}", ours, floor, sent)
                compare(" the same, against plain HTTP", ours, plain, sent)
                await gone(client, f"up-{kind}")
    listening.close()
    for what, found in ratios.items():
        print(f"{what:40} median ratio {statistics.median(found):.2f} of {', '.join(f'{r:.2f}' for r in found)}")
    shutil.rmtree(scratch)


async def both(ours: Awaitable[float], floor: Awaitable[Floor], *, is_first: bool) -> tuple[float, Floor]:
    if is_first:
        return await ours, await floor
    found = await floor
    return await ours, found


async def gone(client: RemoteClient, name: str) -> None:
    """The data volume, and its disk with it."""
    volume = (await client.get(CLAIMS, name, "default"))["spec"]["volumeName"]
    await client.delete(DATA_VOLUMES, name, "default")
    while any(each["metadata"]["name"] == volume for each in (await client.list(VOLUMES))["items"]):
        await asyncio.sleep(LEAST)


async def upload(client: RemoteClient, name: str, source: Path, size: int) -> float:
    await client.create(DATA_VOLUMES, data_volume(name, {"upload": {}}, size), "default")
    await until(client, name, "UploadReady")
    token = (await client.create(TOKENS, {"spec": {"pvcName": name}}, "default"))["status"]["token"]
    status = (await client.get(CDI_CONFIGS, "config"))["status"]
    began = time.monotonic()
    argv = ["curl", "-sf", "--insecure", "-H", f"Authorization: Bearer {token}", "-T", str(source), "-X", "POST"]
    done = await asyncio.create_subprocess_exec(*argv, f"{status['uploadProxyURL']}/v1beta1/upload")
    assert await done.wait() == 0
    await until(client, name, "Succeeded")
    return time.monotonic() - began


async def copies(client: RemoteClient, folder: Path, *, size: int) -> None:
    copied = folder / "copied"
    floor = timed("cp", "--sparse=always", folder / "disk.raw", copied)
    copied.unlink()
    for number in range(3):
        source = {"pvc": {"name": "http-raw", "namespace": "default"}}
        ours = await filled(client, data_volume(f"copy-{number}", source, size))
        print(f"copy of a disk of {size // GIB} GiB, number {number + 1}   {ours:8.2f} s  cp {floor:8.2f} s")


async def machines(home: Home, client: RemoteClient, count: int) -> None:
    """The tiny guest, each with a copy of one golden disk."""
    # They fit a small machine's memory, but by default no more than ten vCPUs a CPU are let in.
    ratio = {"spec": {"configuration": {"developerConfiguration": {"cpuAllocationRatio": 100}}}}
    await client.patch(KUBEVIRTS, "kubevirt", ratio, "kubevirt")
    golden = {"pvc": {"name": "http-raw", "namespace": "default"}}
    found = await client.list(VMIS, "default")
    began = time.monotonic()
    size = (await client.get(CLAIMS, "http-raw", "default"))["status"]["capacity"]["storage"]
    for number in range(count):
        name = f"m{number}"
        await client.create(
            VMS, machine(name, {"source": golden, "storage": {"resources": {"requests": {"storage": size}}}}), "default"
        )
    answering: dict[str, float] = {}
    async for event in client.watch(VMIS, "default", resource_version=found["metadata"]["resourceVersion"]):
        if conditions.is_true((event.object.get("status") or {}).get("conditions"), "AgentConnected"):
            answering.setdefault(event.object["metadata"]["name"], time.monotonic() - began)
        if len(answering) == count:
            break
    first, last = min(answering.values()), max(answering.values())
    used = sum(path.stat().st_blocks * 512 for path in (home.directory / "volumes").glob("*/disk.*"))
    print(f"{count} machines on one image: first agent after {first:.1f} s, last after {last:.1f} s")
    print(f"what their disks take: {used // MIB} MiB in all, bases aside")


def machine(name: str, volume: Doc) -> Doc:
    container = {"image": "hotvirt/tiny", "kernelPath": "/boot/vmlinuz", "initrdPath": "/boot/initrd"}
    domain = {
        "memory": {"guest": "128Mi", "maxGuest": "128Mi"}, "firmware": {"kernelBoot": {"container": container}},
        "devices": {"disks": [{"name": "root", "disk": {"bus": "virtio"}}],
            "interfaces": [{"name": "default", "masquerade": {}}],
        },
    }  # fmt: skip
    spec = {
        "domain": domain, "networks": [{"name": "default", "pod": {}}],
        "volumes": [{"name": "root", "dataVolume": {"name": f"{name}-root"}}],
    }  # fmt: skip
    return {
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": name},
        "spec": {
            "runStrategy": "Always", "template": {"spec": spec},
            "dataVolumeTemplates": [{"metadata": {"name": f"{name}-root"}, "spec": volume}],
        },
    }  # fmt: skip


def kills(count: int) -> None:
    """The suite's own, for longer."""
    test = Path(__file__).parents[1] / "tests" / "storage" / "test_datavolumes.py"
    argv = [sys.executable, "-m", "pytest", "-q", f"{test}::test_a_home_that_is_killed_goes_on"]
    began = time.monotonic()
    done = subprocess.run(argv, env={**os.environ, "HOTVIRT_KILLS": str(count)}, check=False)
    print(f"{count} kills: {'all went on, and no half disk was offered' if not done.returncode else 'FAILED'}, "
          f"{time.monotonic() - began:.0f} s")  # fmt: skip
    sys.exit(done.returncode)


async def measure(home: Home, folder: Path, options: argparse.Namespace) -> None:
    data, size = options.data * MIB, options.size * GIB
    image(folder, data, size)
    server, url = serve(folder)
    client = home.client()
    try:
        await imports(client, folder, url, size=size, rounds=options.rounds)
        if options.only != "imports":
            await copies(client, folder, size=size)
        if options.only != "imports" and options.machines:
            await machines(home, client, options.machines)
    finally:
        server.shutdown()
        await client.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=int, default=1024, help="MiB of data")
    parser.add_argument("--size", type=int, default=10, help="GiB of disk")
    parser.add_argument("--machines", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3, help="of imports and uploads")
    parser.add_argument("--only", choices=["imports"], help="imports and uploads alone")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--dir", type=Path, default=Path("/tmp"))
    options = parser.parse_args()
    if options.kills:
        kills(options.kills)
    with tempfile.TemporaryDirectory(prefix="hvs-", dir=options.dir) as name:
        folder, home = Path(name) / "images", Home(Path(name) / "h")
        folder.mkdir()
        home.command("up", "--detach")
        try:
            asyncio.run(measure(home, folder, options))
        finally:
            home.command("down")


if __name__ == "__main__":
    main()
