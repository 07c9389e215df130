"""The floor: the same guest on bare QEMU, driven by QMP and the guest agent alone, with nothing of the control plane.

It has the devices a VM of hotvirt has (the command line is rendered by the same function), so that what is compared
is what hotvirt adds: API, controllers, launch, bookkeeping.
"""

import asyncio
import os
import subprocess
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self

from hotvirt.images.catalog import ImageFiles
from hotvirt.qemu import argv, binary, facts
from hotvirt.qemu.guestagent import GuestAgent
from hotvirt.qemu.launch import Descriptors
from hotvirt.qemu.machine import MIB, Disk, File, Kernel, Layer, Machine, Nic, Topology, UserNet
from hotvirt.qemu.qmp import Monitor

BOOT_MEMORY, MAX_MEMORY = 256 * MIB, 2048 * MIB


class Bare:
    """One QEMU. `started` is the time.monotonic() just before the process was made, `running` when QMP said so."""

    def __init__(self, directory: Path, image: ImageFiles) -> None:
        self.directory, self.image = directory, image
        self.started = self.running = 0.0
        self.process: subprocess.Popen[bytes]
        self.monitor: Monitor
        self.agent: GuestAgent

    async def start(self) -> Self:
        self.directory.mkdir(parents=True)
        self.started = time.monotonic()
        qemu = binary.find()
        assert self.image.kernel
        with Descriptors() as files:
            scratch = self.directory / "scratch"
            with scratch.open("wb") as file:
                file.truncate(16 * MIB)
            machine = Machine(
                name="bare",
                uuid=str(uuid.uuid4()),
                topology=Topology(max_sockets=4),
                boot_memory=BOOT_MEMORY,
                max_memory=MAX_MEMORY,
                kernel=Kernel(File(str(self.image.kernel)), File(str(self.image.initrd)), self.image.kernel_args or ""),
                disks=(Disk(name="scratch", layers=(Layer(files.open(scratch, read_only=False)),)),),
                nics=(Nic(name="default", mac="52:54:00:00:00:01", backend=UserNet()),),
                qmp_fd=files.listen(self.directory / "qmp.sock"),
                agent_fd=files.listen(self.directory / "agent.sock"),
                serial_fd=files.listen(self.directory / "serial.sock"),
            )
            line = argv.argv(machine, qemu=qemu)
            self.process = _spawn(line, files.mapping, self.directory / "log")
        self.monitor = await Monitor.connect(self.directory / "qmp.sock")
        assert (await self.monitor.execute("query-status"))["status"] == "running"
        self.running = time.monotonic()
        self.agent = GuestAgent(self.directory / "agent.sock", timeout=120)
        return self

    async def ready(self) -> None:
        """The guest agent answers; a second CPU that TCG needed at boot is parked, as hotvirt does."""
        await self.agent.wait_ready(timeout=180)
        await self.agent.set_vcpus({each.logical_id: each.logical_id == 0 for each in await self.agent.get_vcpus()})

    async def total_memory(self) -> int:
        """The guest's own MemTotal, bytes."""
        return (await facts.memory(self.agent))[0] or 0

    async def grow_memory(self, added: int, before: int) -> float:
        """`before`: its total_memory. The caller asks, since of many grown at once none may yet be asked then."""
        began = time.monotonic()
        device = (await self.monitor.execute("query-memory-devices"))[0]["data"]["id"]
        await self.monitor.execute(
            "qom-set",
            {
                "path": f"/machine/peripheral/{device}",
                "property": "requested-size",
                "value": added,
            },
        )
        await until(lambda: self._has_memory(before + added - 16 * MIB))
        return time.monotonic() - began

    async def _has_memory(self, wanted: int) -> bool:
        return await self.total_memory() >= wanted

    async def add_cpu(self) -> float:
        """A CPU more: the parked one comes online, where there is one (the same step hotvirt takes)."""
        began = time.monotonic()
        parked = [each.logical_id for each in await self.agent.get_vcpus() if not each.online]
        if parked:
            await self.agent.set_vcpus({parked[0]: True})
        else:
            free = [c for c in await self.monitor.execute("query-hotpluggable-cpus") if "qom-path" not in c]
            slot = free[-1]
            await self.monitor.execute("device_add", {"driver": slot["type"], "id": "cpu-new", **slot["props"]})
        await until(lambda: self._has_cpus(2))
        return time.monotonic() - began

    async def _has_cpus(self, wanted: int) -> bool:
        return (await facts.facts(self.agent)).online_cpus == wanted

    async def add_disk(self) -> float:
        new = self.directory / "new"
        with new.open("wb") as file:
            file.truncate(64 * MIB)
        began = time.monotonic()
        await self.monitor.execute(
            "blockdev-add",
            {"node-name": "new", "driver": "raw", "file": {"driver": "file", "filename": str(new)}},
        )
        await self.monitor.execute(
            "device_add", {"driver": "scsi-hd", "id": "disk-new", "bus": "scsi0.0", "drive": "new", "serial": "new"}
        )
        await until(self._has_disk)
        return time.monotonic() - began

    async def _has_disk(self) -> bool:
        return any(disk.size_bytes == 64 * MIB for disk in await facts.disks(self.agent) or ())

    async def stop(self) -> None:
        self.agent.close()
        await self.monitor.close()
        self.process.kill()
        await asyncio.to_thread(self.process.wait)


def _spawn(line: list[str], mapping: dict[int, int], log: Path) -> "subprocess.Popen[bytes]":
    """QEMU with our descriptors at the numbers its command line speaks of."""
    top = max(*mapping, *mapping.values()) + 1
    moved = {number: os.dup2(descriptor, top + index) for index, (number, descriptor) in enumerate(mapping.items())}

    def place() -> None:
        for number, descriptor in moved.items():
            os.dup2(descriptor, number)

    with log.open("wb") as out:
        process = subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=out, stderr=out, preexec_fn=place, pass_fds=tuple(mapping)
        )
    for descriptor in moved.values():
        os.close(descriptor)
    return process


async def until(holds: Callable[[], Awaitable[bool]], *, every: float = 0.01, patience: float = 120) -> None:
    """Ask the guest again and again: the question itself is what takes the time, on both sides of the comparison."""
    async with asyncio.timeout(patience):
        while not await holds():
            await asyncio.sleep(every)
