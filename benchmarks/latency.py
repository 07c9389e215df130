"""How long a person waits: create → Running and edit → the guest sees it, beside bare QEMU + QMP in the same run.

    python benchmarks/latency.py                 # 1 VM (10 rounds), 20 VMs 100 ms apart, resizes, memory per VM
    python benchmarks/latency.py --quick         # the same with fewer rounds
    python benchmarks/latency.py --only memory

Rounds of the floor and of hotvirt alternate, so that a machine that gets slower does so for both. What is printed is
milliseconds and ratios; nothing here passes or fails.

Each home started here lives in a directory of its own and is taken down at the end.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

import aiohttp
from bare import BOOT_MEMORY, MAX_MEMORY, Bare, until

from hotvirt.api.quantity import format_bytes
from hotvirt.images import catalog
from hotvirt.kube import conditions, kubeconfig
from hotvirt.kube.informer import Change, Informer
from hotvirt.kube.remote import RemoteClient
from hotvirt.kube.resources import CLAIMS, KUBEVIRTS, VMIS, VMS
from hotvirt.qemu.machine import MIB

HOTVIRT = Path(sys.executable).parent / "hotvirt"
APART = 0.1
REST = 10.0
"""Seconds until guests that just booted are done with it: what they do then would be counted as a resize's time."""


class Home:
    """An embedded home of its own, and a client to it like any other client's."""

    patience = 300.0

    def __init__(self, *, vcpus_each: int = 100) -> None:
        """`vcpus_each`: how many vCPUs a CPU are let in. Fifty guests fit a small machine's memory, but not ten a CPU,
        which is the default."""
        self._vcpus_each = vcpus_each
        self.directory = Path(tempfile.mkdtemp(prefix="hvb-", dir="/tmp"))
        self.environment = {**os.environ, "HOTVIRT_HOME": str(self.directory)}
        self._waiters: list[tuple[str, Callable[[dict[str, Any]], bool], asyncio.Future[None]]] = []

    async def __aenter__(self) -> Self:
        await self.hotvirt("up", "--detach")
        self.access = kubeconfig.load(self.directory / "kubeconfig")
        self.client = await RemoteClient(self.access).__aenter__()
        context = ssl.create_default_context(cadata=self.access.ca)
        with tempfile.NamedTemporaryFile("w") as both:
            both.write((self.access.certificate or "") + "\n" + (self.access.key or ""))
            both.flush()
            context.load_cert_chain(both.name)
        ratio = {"spec": {"configuration": {"developerConfiguration": {"cpuAllocationRatio": self._vcpus_each}}}}
        await self.client.patch(KUBEVIRTS, "kubevirt", ratio, "kubevirt")
        self.http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context))
        self.vmis = Informer(self.client, VMIS, "default")
        self.vmis.add_handler(self._tell)
        self._following = asyncio.create_task(self.vmis.run())
        await self.vmis.synced()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._following
        await self.http.close()
        await self.client.close()
        await self.hotvirt("down")
        shutil.rmtree(self.directory, ignore_errors=True)

    async def hotvirt(self, *arguments: str) -> None:
        process = await asyncio.create_subprocess_exec(
            HOTVIRT, *arguments, env=self.environment, stdout=subprocess.DEVNULL
        )
        assert await process.wait() == 0, f"hotvirt {' '.join(arguments)} failed"

    @property
    def pid(self) -> int:
        return int(json.loads((self.directory / "home.lock").read_text())["pid"])

    def resident(self) -> int:
        """Proportional set size of the home's one process, bytes."""
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no Pss in smaps_rollup")

    async def create(self, names: Sequence[str], *, apart: float = APART) -> dict[str, float]:
        """Create VMs `apart` seconds after each other; seconds from each create to its VMI's phase Running."""
        first = await self.client.list(VMIS, "default")
        began: dict[str, float] = {}
        running: dict[str, float] = {}
        wanted = set(names)

        async def observe() -> None:
            stream = self.client.watch(VMIS, "default", resource_version=first["metadata"]["resourceVersion"])
            async for event in stream:
                name = event.object["metadata"].get("name")
                if name in wanted and event.object.get("status", {}).get("phase") == "Running":
                    running.setdefault(name, time.monotonic())
                    if len(running) == len(wanted):
                        return

        async with asyncio.timeout(self.patience), asyncio.TaskGroup() as group:
            group.create_task(observe())
            for name in names:
                began[name] = time.monotonic()
                group.create_task(self.client.create(VMS, machine(name), "default"))
                await asyncio.sleep(apart)
        return {name: running[name] - began[name] for name in names}

    async def agents(self, names: Sequence[str]) -> None:
        for name in names:
            await self.seen(name, has_agent, within=300)

    async def facts(self, name: str) -> dict[str, Any]:
        path = f"/apis/subresources.hotvirt.io/v1alpha1/namespaces/default/virtualmachineinstances/{name}/guestfacts"
        async with self.http.get(self.access.server + path) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def remove(self, names: Sequence[str]) -> None:
        for name in names:
            await self.client.delete(VMS, name, "default")
        await until(self._is_empty, every=0.1, patience=120)

    async def _is_empty(self) -> bool:
        return not (await self.client.list(VMIS, "default"))["items"]

    async def edit(self, name: str, domain: dict[str, Any]) -> None:
        await self.client.patch(VMS, name, {"spec": {"template": {"spec": {"domain": domain}}}}, "default")

    async def seen(self, name: str, holds: Callable[[dict[str, Any]], bool], *, within: float = 180) -> None:
        """Until the VMI's status says so. hotvirt says it once the guest itself has confirmed it, so this is no earlier
        than the guest's seeing it; and it asks nothing of the guest, which has the change to make. Who waits has a
        watch open before, as the floor has its connections to QEMU and agent."""
        waiter = (name, holds, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        try:
            if (known := self.vmis.get(name, "default")) is not None:
                self._tell(Change("MODIFIED", None, known))
            async with asyncio.timeout(within):
                await waiter[2]
        finally:
            self._waiters.remove(waiter)

    def _tell(self, change: Change) -> None:
        vmi = change.object
        for name, holds, told in self._waiters:
            if vmi["metadata"]["name"] == name and not told.done() and holds(vmi.get("status") or {}):
                told.set_result(None)

    async def total_memory(self, name: str) -> int:
        """The guest's own MemTotal, bytes."""
        return (await self.facts(name))["memTotalBytes"]

    async def grow_memory(self, name: str, added: int, before: int) -> float:
        wanted = format_bytes(BOOT_MEMORY + added)
        began = time.monotonic()
        await self.edit(name, {"memory": {"guest": wanted}})
        await self.seen(name, lambda status: status["memory"]["guestCurrent"] == wanted)
        took = time.monotonic() - began
        grown = await self.total_memory(name) - before
        assert grown >= added - 16 * MIB, f"the guest itself has only {grown} bytes more"
        return took

    async def add_cpu(self, name: str) -> float:
        began = time.monotonic()
        await self.edit(name, {"cpu": {"sockets": 2}})
        await self.seen(name, lambda status: status["currentCPUTopology"]["sockets"] == 2)
        took = time.monotonic() - began
        assert (await self.facts(name))["onlineCPUs"] == 2
        return took

    async def add_disk(self, name: str) -> float:
        claim = f"data-{name}"
        spec: dict[str, object] = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "64Mi"}}}
        spec["storageClassName"] = "hotvirt-directory"  # bound at once
        metadata = {"name": claim}
        document = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}
        await self.client.create(CLAIMS, document, "default")

        async def bound() -> bool:
            return (await self.client.get(CLAIMS, claim, "default")).get("status", {}).get("phase") == "Bound"

        await until(bound)
        began = time.monotonic()
        path = f"/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachines/{name}/addvolume"
        options = {
            "name": claim,
            "disk": {"name": claim, "disk": {"bus": "scsi"}},
            "volumeSource": {"persistentVolumeClaim": {"claimName": claim}},
        }
        async with self.http.put(self.access.server + path, json=options) as answer:
            assert answer.status == 202, await answer.text()
        await self.seen(name, lambda status: ("Ready", claim) in phases(status))
        took = time.monotonic() - began
        assert any(disk["sizeBytes"] == 64 * MIB for disk in (await self.facts(name))["blockDevices"])
        return took


def has_agent(status: dict[str, Any]) -> bool:
    return holds(status, "AgentConnected")


def holds(status: dict[str, Any], condition: str) -> bool:
    return conditions.is_true(status.get("conditions"), condition)


def phases(status: dict[str, Any]) -> set[tuple[str, str]]:
    return {(each.get("phase", ""), each["name"]) for each in status.get("volumeStatus", ())}


def machine(name: str) -> dict[str, Any]:
    """The VM that `Bare` is the floor of."""
    container = {"image": "hotvirt/tiny", "kernelPath": "/boot/vmlinuz", "initrdPath": "/boot/initrd"}
    domain = {
        "memory": {"guest": f"{BOOT_MEMORY // MIB}Mi", "maxGuest": f"{MAX_MEMORY // MIB}Mi"},
        "cpu": {"sockets": 1, "maxSockets": 4},
        "firmware": {"kernelBoot": {"container": container}},
        "devices": {
            "disks": [{"name": "scratch", "disk": {"bus": "virtio"}}],
            "interfaces": [{"name": "default", "masquerade": {}}],
        },
    }
    spec = {
        "terminationGracePeriodSeconds": 0,
        "domain": domain,
        "networks": [{"name": "default", "pod": {}}],
        "volumes": [{"name": "scratch", "emptyDisk": {"capacity": "16Mi"}}],
    }
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": name},
        "spec": {"runStrategy": "Always", "template": {"spec": spec}},
    }


async def bare_many(count: int, image: catalog.ImageFiles) -> list[float]:
    """Seconds from making each QEMU process to QMP's "running", `count` of them APART seconds after each other."""
    directory = Path(tempfile.mkdtemp(prefix="hvf-", dir="/tmp"))
    guests = [Bare(directory / str(index), image) for index in range(count)]
    try:
        async with asyncio.TaskGroup() as group:
            for guest in guests:
                group.create_task(guest.start())
                await asyncio.sleep(APART)
        return [guest.running - guest.started for guest in guests]
    finally:
        for guest in guests:
            if guest.running:
                await guest.stop()
        shutil.rmtree(directory, ignore_errors=True)


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def row(what: str, floor: Sequence[float], ours: Sequence[float]) -> None:
    f50, f95, o50, o95 = (percentile(v, s) * 1000 for v in (floor, ours) for s in (0.5, 0.95))
    print(
        f"{what:34} {f50:8.0f} {f95:8.0f}   {o50:8.0f} {o95:8.0f}   {o50 / f50:6.2f} {o50 - f50:+8.0f}   {len(ours):3}",
        flush=True,
    )


def head() -> None:
    print(f"{'':34} {'bare QEMU, ms':>17}   {'hotvirt, ms':>17}   {'ratio':>6} {'more ms':>8}   {'n':>3}")
    print(f"{'':34} {'p50':>8} {'p95':>8}   {'p50':>8} {'p95':>8}   {'p50':>6} {'p50':>8}", flush=True)


async def creating(image: catalog.ImageFiles, *, count: int, rounds: int) -> None:
    floor: list[float] = []
    ours: list[float] = []
    async with Home() as home:
        for each in range(rounds):
            floor += await bare_many(count, image)
            names = [f"c{each}-{index}" for index in range(count)]
            ours += (await home.create(names)).values()
            await home.remove(names)
    row(f"create → Running, {count} VM{'s' if count > 1 else ''}", floor, ours)


async def resizing(image: catalog.ImageFiles, *, count: int, rounds: int, added: int) -> None:
    """`count` guests at once, each grown by `added` bytes, given a vCPU, given a disk."""
    floor: list[list[float]] = [[], [], []]
    ours: list[list[float]] = [[], [], []]
    for each in range(rounds):
        directory = Path(tempfile.mkdtemp(prefix="hvf-", dir="/tmp"))
        async with AsyncExitStack() as stack:
            guests = [Bare(directory / str(index), image) for index in range(count)]
            for guest in guests:
                await guest.start()
                stack.push_async_callback(guest.stop)
            for guest in guests:
                await guest.ready()
            await asyncio.sleep(REST)
            before = await asyncio.gather(*(guest.total_memory() for guest in guests))
            floor[0] += await asyncio.gather(
                *(guest.grow_memory(added, b) for guest, b in zip(guests, before, strict=True))
            )
            floor[1] += await asyncio.gather(*(guest.add_cpu() for guest in guests))
            floor[2] += await asyncio.gather(*(guest.add_disk() for guest in guests))
        shutil.rmtree(directory, ignore_errors=True)
        async with Home() as home:
            names = [f"r{each}-{index}" for index in range(count)]
            await home.create(names)
            await home.agents(names)
            await asyncio.sleep(REST)
            before = await asyncio.gather(*(home.total_memory(name) for name in names))
            ours[0] += await asyncio.gather(
                *(home.grow_memory(name, added, b) for name, b in zip(names, before, strict=True))
            )
            ours[1] += await asyncio.gather(*(home.add_cpu(name) for name in names))
            ours[2] += await asyncio.gather(*(home.add_disk(name) for name in names))
    for what, bare, mine in zip((f"+{format_bytes(added)}", "+1 vCPU", "+disk"), floor, ours, strict=True):
        row(f"{what} → guest sees it, {count} VM{'s' if count > 1 else ''}", bare, mine)


async def memory(*, few: int = 5, many: int = 50) -> None:
    """What one more VM costs outside QEMU: the slope of the home's memory from few to many running guests."""
    async with Home() as home:
        empty = home.resident()
        names = [f"m{index}" for index in range(many)]
        sizes = {}
        done = 0
        for target in (few, many):
            await home.create(names[done:target], apart=0.5)
            await home.agents(names[:target])
            done = target
            sizes[target] = home.resident()
            print(f"home with {target} running guests: {sizes[target] / MIB:.1f} MiB", flush=True)
        slope = (sizes[many] - sizes[few]) / (many - few)
        print(f"home empty: {empty / MIB:.1f} MiB;  one more VM: {slope / MIB:.3f} MiB outside QEMU")
        await home.remove(names)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--only", choices=("create", "resize", "memory"))
    chosen = parser.parse_args()
    image = await catalog.ensure("hotvirt/tiny", catalog.default_cache())
    single, batch = (3, 1) if chosen.quick else (10, 3)
    if chosen.only != "memory":
        head()
    if chosen.only in (None, "create"):
        await creating(image, count=1, rounds=single)
        await creating(image, count=20, rounds=batch)
    if chosen.only in (None, "resize"):
        await resizing(image, count=1, rounds=single, added=1024 * MIB)
        # Less for each of many: hotvirt grants no growth that the machine's memory does not cover.
        await resizing(image, count=20, rounds=batch, added=256 * MIB)
    if chosen.only in (None, "memory"):
        await memory(many=20 if chosen.quick else 50)


if __name__ == "__main__":
    asyncio.run(main())
