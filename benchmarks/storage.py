"""What storage costs, against the bare tools in the same run: imports, uploads, copies, and many machines on one image.

    python benchmarks/storage.py                        # 1 GiB of data on a disk of 10 GiB, 100 machines
    python benchmarks/storage.py --data 256 --machines 20
    python benchmarks/storage.py --kills 100            # kills the home at random moments of import, copy and upload

Floors: `curl` and then `qemu-img convert` for what is imported or uploaded; for a copy, `cp --sparse=always`. Ratios
are hotvirt's time by the floor's. A copy is measured from the apply of a DataVolume to its Succeeded, asked every
20 ms; machines from the apply of all to the first agent that answers, and to the last.
"""

import argparse
import asyncio
import functools
import http.server
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from hotvirt.kube.kubeconfig import load
from hotvirt.kube.remote import RemoteClient
from hotvirt.kube.resources import CDI_CONFIGS, CLAIMS, DATA_VOLUMES, VMIS, VMS, Resource

Doc = dict[str, Any]
MIB, GIB = 1 << 20, 1 << 30
BIN = Path(sys.executable).parent
TOKENS = Resource("upload.cdi.kubevirt.io", "v1beta1", "uploadtokenrequests", "UploadTokenRequest")
LEAST = 0.02


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
    while True:
        found = await client.get(DATA_VOLUMES, name, "default")
        if (found.get("status") or {}).get("phase") == phase:
            return
        assert (found.get("status") or {}).get("phase") != "Failed", found["status"]
        await asyncio.sleep(LEAST)


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


def told(what: str, ours: float, floor: float, data: int) -> None:
    print(f"{what:38} {ours:8.2f} s  floor {floor:8.2f} s  ratio {ours / floor:5.2f}  {data / MIB / ours:7.0f} MiB/s")


async def imports(client: RemoteClient, folder: Path, url: str, *, size: int) -> None:
    scratch = folder / "floor"
    scratch.mkdir()
    for kind in ("qcow2", "raw"):
        source = folder / f"disk.{kind}"
        sent = source.stat().st_size
        floor = timed("curl", "-s", "-o", scratch / "got", f"{url}/disk.{kind}")
        if kind == "qcow2":
            floor += timed("qemu-img", "convert", "-f", kind, "-O", "raw", scratch / "got", scratch / "disk")
        ours = await filled(client, data_volume(f"http-{kind}", {"http": {"url": f"{url}/disk.{kind}"}}, size))
        told(f"import of {sent // MIB} MiB of {kind} over HTTP", ours, floor, sent)
        if kind == "qcow2":
            ours = await upload(client, f"up-{kind}", source, size)
            told(f"upload of {sent // MIB} MiB of {kind}", ours, floor, sent)
        for path in scratch.iterdir():
            path.unlink()
    shutil.rmtree(scratch)


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
    golden = {"pvc": {"name": "http-raw", "namespace": "default"}}
    began = time.monotonic()
    size = (await client.get(CLAIMS, "http-raw", "default"))["status"]["capacity"]["storage"]
    for number in range(count):
        name = f"m{number}"
        await client.create(
            VMS, machine(name, {"source": golden, "storage": {"resources": {"requests": {"storage": size}}}}), "default"
        )
    first = last = 0.0
    while not last:
        found = (await client.list(VMIS, "default"))["items"]
        running = sum((vmi.get("status") or {}).get("phase") == "Running" for vmi in found)
        if running and not first:
            first = time.monotonic() - began
        if running == count:
            last = time.monotonic() - began
        await asyncio.sleep(0.1)
    used = sum(path.stat().st_blocks * 512 for path in (home.directory / "volumes").glob("*/disk.*"))
    print(f"{count} machines on one image: first runs after {first:.1f} s, last after {last:.1f} s")
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
        await imports(client, folder, url, size=size)
        await copies(client, folder, size=size)
        if options.machines:
            await machines(home, client, options.machines)
    finally:
        server.shutdown()
        await client.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=int, default=1024, help="MiB of data")
    parser.add_argument("--size", type=int, default=10, help="GiB of disk")
    parser.add_argument("--machines", type=int, default=100)
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
