"""The images we build, booted with nothing but QEMU: what each promises about itself."""

import asyncio
import base64
import contextlib
import json
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hotvirt.images import catalog, disks, seed
from hotvirt.images.catalog import ImageFiles

pytestmark = [
    pytest.mark.guest,
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"),
]

GIB = 1 << 30
PATIENCE = 120.0
OVMF = Path("/usr/share/OVMF")


class Guest:
    """One QEMU with its QMP and guest agent, each asked one thing at a time."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self.process, self.folder = process, folder
        self._streams: list[asyncio.StreamWriter] = []

    async def connect(self) -> None:
        self._agent, self._qmp = await self._open("agent"), await self._open("qmp")
        self._streams += [self._agent[1], self._qmp[1]]
        await self._qmp[0].readline()
        await self.qmp("qmp_capabilities")
        await self.agent("guest-ping")  # waits in the port until the guest's agent reads it

    async def _open(self, name: str) -> Any:
        while True:
            assert self.process.returncode is None, "QEMU did not start"
            try:
                return await asyncio.open_unix_connection(self.folder / name, limit=1 << 24)
            except (FileNotFoundError, ConnectionRefusedError):  # QEMU has not made it, or does not listen, yet
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        for writer in self._streams:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def agent(self, command: str, **arguments: Any) -> Any:
        return await self._ask(self._agent, command, arguments)

    async def qmp(self, command: str, **arguments: Any) -> Any:
        return await self._ask(self._qmp, command, {key.replace("_", "-"): value for key, value in arguments.items()})

    async def _ask(self, stream: Any, command: str, arguments: dict[str, Any]) -> Any:
        reader, writer = stream
        writer.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        async with asyncio.timeout(PATIENCE):
            while "event" in (reply := json.loads(await reader.readline())):
                pass
        assert "error" not in reply, reply
        return reply["return"]

    async def sh(self, script: str) -> str:
        arguments = {"path": "/bin/sh", "arg": ["-c", script], "capture-output": True}
        pid = (await self.agent("guest-exec", **arguments))["pid"]
        async with asyncio.timeout(PATIENCE):
            while True:  # the agent tells of no event when it is done
                status = await self.agent("guest-exec-status", pid=pid)
                if status["exited"]:
                    break
                await asyncio.sleep(0.05)
        return base64.b64decode(status.get("out-data", "")).decode()

    async def until(self, script: str, pattern: str) -> str:
        """Wait inside the guest for something it has no event for."""
        async with asyncio.timeout(PATIENCE):
            while True:
                said = await self.sh(script)
                if re.search(pattern, said):
                    return said
                await asyncio.sleep(0.1)

    async def stopped(self) -> int:
        async with asyncio.timeout(PATIENCE):
            return await self.process.wait()


@contextlib.asynccontextmanager
async def started(folder: Path, *argv: str, memory: int = 512, vcpus: int = 2) -> AsyncIterator[Guest]:
    # A CPU plugged in while every region of the translation buffer is taken aborts QEMU (7.2: assertion in
    # tcg/region.c, seen with tb-size=32 and a 6.12 kernel). These guests don't fill 256 MiB.
    base = [
        "-machine", "q35", "-accel", "tcg,tb-size=256", "-cpu", "max", "-display", "none", "-no-user-config",
        "-nodefaults", "-m", f"{memory}M,slots=4,maxmem=4G",
        "-smp", f"cpus={vcpus},maxcpus=4,sockets=4,cores=1,threads=1",
        "-qmp", f"unix:{folder}/qmp,server=on,wait=off",
        "-chardev", f"socket,id=ser0,path={folder}/serial,server=on,wait=off,logfile={folder}/log",
        "-serial", "chardev:ser0",
        "-device", "virtio-serial-pci,id=vs0", "-chardev", f"socket,id=ga0,path={folder}/agent,server=on,wait=off",
        "-device", "virtserialport,bus=vs0.0,chardev=ga0,name=org.qemu.guest_agent.0",
        "-object", "memory-backend-memfd,id=mem1,size=1G,reserve=off",
        "-device", "virtio-mem-pci,id=vmem0,memdev=mem1,requested-size=0",
        "-device", "virtio-scsi-pci,id=scsi0", "-device", "pcie-root-port,id=rp1,chassis=1,slot=1",
    ]  # fmt: skip
    process = await asyncio.create_subprocess_exec("qemu-system-x86_64", *base, *argv)
    guest = Guest(process, folder)
    try:
        await guest.connect()
        yield guest
    finally:
        await guest.close()
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture
async def tiny() -> ImageFiles:
    return await catalog.ensure("hotvirt/tiny", catalog.default_cache())


@pytest.fixture
async def debian() -> ImageFiles:
    if shutil.which("mmdebstrap") is None:
        pytest.skip("mmdebstrap is not installed")
    return await catalog.ensure("hotvirt/debian:12", catalog.default_cache())


def kernel(image: ImageFiles) -> list[str]:
    return ["-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", image.kernel_args]


async def total_memory(guest: Guest) -> int:
    said = await guest.sh("cat /proc/meminfo")
    return int(said.split()[1]) * 1024


async def until_memory(guest: Guest, expected: int) -> None:
    """A kernel's own tables for the added memory may count or not: within 8 MiB is as asked."""
    async with asyncio.timeout(PATIENCE):
        while abs(await total_memory(guest) - expected) > 8 << 20:
            await asyncio.sleep(0.1)


async def test_tiny_takes_and_gives_back_everything_while_it_runs(tiny: ImageFiles, tmp_path: Path) -> None:
    async with started(tmp_path, *kernel(tiny)) as guest:
        before = await total_memory(guest)
        vmem = {"path": "/machine/peripheral/vmem0", "property": "requested-size"}
        await guest.until("lsmod", "virtio_mem")
        await guest.qmp("qom-set", **vmem, value=GIB)
        await until_memory(guest, before + GIB)
        await guest.qmp("qom-set", **vmem, value=0)
        await until_memory(guest, before)

        await guest.until("ls /run", "listening")
        cpu = {"socket_id": 2, "core_id": 0, "thread_id": 0}
        await guest.qmp("device_add", driver="max-x86_64-cpu", id="cpu2", **cpu)
        await guest.until("nproc", "^3$")

        await disks.create(tmp_path / "disk", 64 << 20, "raw")
        await guest.qmp("blockdev-add", driver="file", node_name="n1", filename=str(tmp_path / "disk"))
        await guest.qmp("device_add", driver="scsi-hd", id="d1", bus="scsi0.0", drive="n1", serial="SER1")
        assert re.search(r"sda +64M disk +SER1", await guest.until("lsblk", "sda"))
        await guest.sh("mke2fs /dev/sda && mount /dev/sda /mnt && echo kept > /mnt/file")

        await guest.qmp("netdev_add", type="user", id="net1")
        await guest.qmp("device_add", driver="virtio-net-pci", id="nic1", netdev="net1", bus="rp1")
        await guest.until("ip addr show dev eth0 2>/dev/null", r"inet 10\.0\.2\.15/24")
        await guest.qmp("device_del", id="nic1")
        await guest.until("ls /sys/class/net /run/net; pidof udhcpc", r"^/run/net:\n\n/sys/class/net:\nlo\n$")

        # As the host parks a CPU: the guest leaves it off.
        await guest.agent("guest-set-vcpus", vcpus=[{"logical-id": 2, "online": False}])
        assert (await guest.sh("nproc")).strip() == "2"

        writer = guest._agent[1]
        writer.write(b'{"execute": "guest-shutdown"}\n')  # never answered
        assert await guest.stopped() == 0
    assert b"kept" in (tmp_path / "disk").read_bytes()


async def test_tiny_reads_a_seed_and_obeys_the_power_button(tiny: ImageFiles, tmp_path: Path) -> None:
    script = "#!/bin/sh\necho hello from $(hostname)\n"
    seed.write(tmp_path / "seed.iso", seed.render(instance_id="i", hostname="web", user_data=script))
    drive = ["-drive", f"if=none,id=c0,format=raw,readonly=on,file={tmp_path}/seed.iso"]
    async with started(tmp_path, *kernel(tiny), *drive, "-device", "virtio-blk-pci,drive=c0", memory=128) as guest:
        assert await guest.until("cat /run/user-data.log 2>/dev/null", "hello") == "hello from web\n"
        assert (await guest.agent("guest-get-osinfo"))["id"] == "hotvirt-tiny"
        await guest.until("pidof acpid", r"\d")
        await guest.qmp("system_powerdown")
        assert await guest.stopped() == 0
    log = (tmp_path / "log").read_text(errors="replace")
    assert "hotvirt/tiny on" in log
    assert "error" not in log.lower()


def secure_boot(folder: Path) -> list[str]:
    """Firmware that starts what Microsoft's key signed, and nothing else."""
    shutil.copyfile(OVMF / "OVMF_VARS_4M.ms.fd", folder / "vars.fd")
    code = f"if=pflash,format=raw,readonly=on,file={OVMF}/OVMF_CODE_4M.secboot.fd"
    return [
        "-machine", "smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on",
        "-drive", code, "-drive", f"if=pflash,format=raw,file={folder}/vars.fd",
    ]  # fmt: skip


@pytest.mark.long
@pytest.mark.skipif(not OVMF.is_dir(), reason="ovmf is not installed")
async def test_debian_starts_securely_from_sata_grows_into_its_disk_and_serves_root_on_the_console(
    debian: ImageFiles, tmp_path: Path
) -> None:
    """With no seed; with one it is set up in `test_virtctl_debian`."""
    assert debian.disk is not None
    await disks.overlay(tmp_path / "disk", debian.disk, debian.disk_format, 6 * GIB)
    drive = ["-drive", f"if=none,id=d0,format=qcow2,file={tmp_path}/disk", "-device", "ide-hd,bus=ide.0,drive=d0"]
    net = ["-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0"]
    # One vCPU: emulated ones wait for each other whenever the firmware's protected part is entered.
    async with started(tmp_path, *secure_boot(tmp_path), *drive, *net, memory=768, vcpus=1) as guest:
        assert "Secure boot enabled" in await guest.sh("dmesg")
        assert (await guest.sh("systemctl is-system-running --wait; systemctl --failed --no-legend")) == "running\n"
        assert int((await guest.sh("df --output=size -B1 /")).split()[1]) > 5.7 * GIB
        assert "disabled" in await guest.sh("cloud-init status")
        assert "root" in await guest.sh("who")
        assert "10.0.2.15" in await guest.sh("ip -br addr")
        assert "SSH-2.0" in await guest.sh("bash -c 'head -n 1 < /dev/tcp/127.0.0.1/22'")
        before = await total_memory(guest)
        vmem = {"path": "/machine/peripheral/vmem0", "property": "requested-size"}
        await guest.qmp("qom-set", **vmem, value=GIB)
        await until_memory(guest, before + GIB)
        await guest.qmp("qom-set", **vmem, value=0)
        await until_memory(guest, before)
        await guest.qmp("system_powerdown")
        assert await guest.stopped() == 0
