"""One real guest, resized while it runs, and asked by its own agent what it has. QEMU's package alone, no home.

The guest is started once for the module and every test connects anew: that alone shows that QMP and the agent take a
new client while QEMU runs. Tests put back what they changed.
"""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec.structs import replace

from hotvirt.images import catalog
from hotvirt.qemu import (
    argv,
    binary,
    cpu,
    devices,
    disks,
    drives,
    facts,
    memory,
    memorysteps,
    nics,
    state,
    translation,
    vnc,
)
from hotvirt.qemu.errors import AgentError, HotplugError, QemuGone
from hotvirt.qemu.guestagent import GuestAgent
from hotvirt.qemu.launch import Descriptors, Request, listening_socket, read_log, send_launch, spawn_receiver
from hotvirt.qemu.machine import GIB, MIB, Disk, File, Kernel, Layer, Machine, Nic, Topology, UserNet
from hotvirt.qemu.process import Identity, Process
from hotvirt.qemu.progress import Progress
from hotvirt.qemu.qmp import Monitor

pytestmark = pytest.mark.guest

BOOT = 512 * MIB
PATIENCE = 90.0
NOBODY = 65534
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Pod:
    """One QEMU: where its sockets are and which process it is."""

    directory: Path
    identity: Identity

    async def monitor(self) -> Monitor:
        return await Monitor.connect(self.directory / "qmp.sock", name="test")

    def agent(self) -> GuestAgent:
        return GuestAgent(self.directory / "agent.sock", timeout=PATIENCE)


async def start(
    directory: Path,
    *,
    kernel: bool = True,
    cmdline: str = "",
    images: tuple[Disk, ...] = (),
    vcpus: int | None = None,
) -> Pod:
    """`vcpus`: how many are there at boot, whatever would be best."""
    listener = listening_socket(directory / "launch.sock")
    identity = spawn_receiver(listener, log=directory / "log")
    listener.close()
    with Descriptors() as descriptors:
        tiny = await catalog.ensure("hotvirt/tiny", catalog.default_cache()) if kernel else None
        machine = Machine(
            name="test",
            uuid="8b0e8c7a-2b4a-4a55-9d33-0c3c5d3f0001",
            topology=Topology(sockets=1, max_sockets=4),
            boot_memory=BOOT,
            max_memory=3 * GIB,
            kernel=tiny
            and Kernel(
                descriptors.open(tiny.kernel, read_only=True),
                descriptors.open(tiny.initrd, read_only=True),
                cmdline or tiny.kernel_args,
            ),
            disks=tuple(descriptors.open_disk(disk) for disk in images),
            qmp_fd=descriptors.listen(directory / "qmp.sock"),
            agent_fd=descriptors.listen(directory / "agent.sock"),
            serial_fd=descriptors.listen(directory / "serial.sock"),
            graphics=True,
            start_paused=not kernel,
        )
        # As root: as nobody, in an empty network, so that what works here works without any right.
        rights = {"uid": NOBODY, "gid": NOBODY, "isolate": ("net",)} if os.getuid() == 0 else {}
        command = argv.argv(machine, qemu=binary.find())
        if vcpus:
            smp = command.index("-smp") + 1
            command[smp] = re.sub(r"cpus=\d+", f"cpus={vcpus}", command[smp], count=1)
        request = Request(argv=tuple(command), **rights)
        await send_launch(directory / "launch.sock", request, descriptors=descriptors.mapping)
    return Pod(directory, identity)


async def end(pod: Pod) -> int | None:
    process = Process.open(pod.identity)
    if process is None:
        return None
    with process:
        process.send(signal.SIGKILL)
        async with asyncio.timeout(PATIENCE):
            return await process.wait()


def image(path: Path, size: int) -> Disk:
    """A raw disk of which this process holds the descriptor."""
    with path.open("wb") as file:
        file.truncate(size)
    return Disk(name=path.stem, bus="scsi", layers=(Layer(File(fd=os.open(path, os.O_RDWR))),), serial=path.stem)


def overlay(top: Path, base: Path) -> None:
    subprocess.run(
        [binary.find_img(), "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(base), str(top)], check=True
    )


@pytest.fixture(scope="module")
def guest() -> Iterator[Pod]:
    with tempfile.TemporaryDirectory(prefix="hv-", dir="/tmp") as directory:
        pod = asyncio.run(start(Path(directory)))
        try:
            yield pod
        finally:
            log = read_log(Path(directory) / "log")
            asyncio.run(end(pod))
            assert log == "", f"QEMU complained: {log}"


@dataclass
class Guest:
    pod: Pod
    monitor: Monitor
    agent: GuestAgent

    async def facts(self) -> facts.GuestFacts:
        return await facts.facts(self.agent)


@asynccontextmanager
async def connected(pod: Pod) -> AsyncIterator[Guest]:
    async with await pod.monitor() as monitor, pod.agent() as agent:
        await agent.wait_ready(timeout=PATIENCE)
        yield Guest(pod, monitor, agent)


@pytest.fixture
async def running(guest: Pod) -> AsyncIterator[Guest]:
    async with connected(guest) as found:
        yield found


async def test_what_is_observed_of_a_fresh_guest(running: Guest) -> None:
    """First in the file: the others leave their traces."""
    seen, told = await state.observe(running.monitor), await running.facts()
    assert (seen.status, seen.running, seen.agent_open) == ("running", True, True)
    assert seen.memory.boot == BOOT
    assert seen.memory.device == state.VirtioMem(
        size=0, requested=0, capacity=3 * GIB - BOOT, step=2 * MIB, address=seen.memory.device.address
    )
    assert len(seen.vcpus) == 4
    assert told.online_cpus == 1
    assert told.block_devices == seen.disks == ()
    assert len(seen.free_ports) == 3
    assert 300 * MIB < told.mem_total_bytes < BOOT
    assert told.kernel
    assert len(told.boot_id) == 36


async def test_memory_grows_by_a_gib_and_comes_back(running: Guest) -> None:
    before, told = await running.facts(), []
    grown = await memory.resize_memory(running.monitor, running.agent, BOOT + GIB, report=told.append)
    assert grown.current == BOOT + GIB
    assert (await running.facts()).mem_total_bytes - before.mem_total_bytes == GIB
    assert told[-1] == Progress(BOOT + GIB, BOOT + GIB, "bytes")

    back = await memory.resize_memory(running.monitor, running.agent, BOOT)
    after = await running.facts()
    assert back.current == BOOT
    assert after.mem_total_bytes == before.mem_total_bytes
    assert after.boot_id == before.boot_id


async def test_memory_that_the_guest_never_used_goes_without_the_host_providing_it_first(running: Guest) -> None:
    """A kernel that clears what it takes out of use has the host fault all of it in, and takes ten times as long."""
    await memory.resize_memory(running.monitor, running.agent, BOOT + GIB)
    before = faults(running.pod.identity)
    assert (await memory.resize_memory(running.monitor, running.agent, BOOT)).current == BOOT
    assert faults(running.pod.identity) - before < GIB // PAGE // 8


def faults(identity: Identity) -> int:
    """Page faults of the process that the host's kernel answered with memory."""
    return int(Path(f"/proc/{identity.pid}/stat").read_text().rpartition(")")[2].split()[7])


async def test_memory_below_boot_size_is_taken_by_the_balloon(running: Guest) -> None:
    before = await running.facts()
    low = await memory.resize_memory(running.monitor, running.agent, BOOT - 128 * MIB)
    assert 0 <= 128 * MIB - low.ballooned < memorysteps.GRAIN
    gave = before.mem_total_bytes - (await running.facts()).mem_total_bytes
    assert low.ballooned <= gave <= 128 * MIB
    assert (await memory.resize_memory(running.monitor, running.agent, BOOT + 256 * MIB)).ballooned == 0
    await memory.resize_memory(running.monitor, running.agent, BOOT)
    assert (await running.facts()).mem_total_bytes == before.mem_total_bytes


async def test_a_guest_that_uses_its_memory_keeps_it(running: Guest) -> None:
    await memory.resize_memory(running.monitor, running.agent, BOOT + 512 * MIB)
    fill = "mkdir -p /hog && mount -t tmpfs -o size=700m hog /hog && dd if=/dev/zero of=/hog/f bs=1M count=600"
    assert (await running.agent.exec("/bin/sh", ["-c", fill], timeout=PATIENCE))[0] == 0
    with pytest.raises(HotplugError, match="free memory in it first") as caught:
        await memory.resize_memory(running.monitor, running.agent, BOOT)
    assert caught.value.reason == "GuestNeedsMemory"
    told = await running.facts()
    assert told.mem_available_bytes > 16 * MIB, "the guest was driven into a corner"
    assert (await running.agent.exec("/bin/sh", ["-c", "umount /hog"]))[0] == 0
    assert (await memory.resize_memory(running.monitor, running.agent, BOOT)).current == BOOT


async def test_memory_shrinks_without_an_agent_by_the_balloons_statistics(running: Guest) -> None:
    await memory.resize_memory(running.monitor, running.agent, BOOT + 256 * MIB)
    assert (await memory.resize_memory(running.monitor, None, BOOT)).current == BOOT


async def test_vcpus_are_added_parked_and_taken_back(running: Guest) -> None:
    for target in (1, 3, 1, 4, 2, 1):
        reached = await cpu.set_vcpus(running.monitor, running.agent, target, how="park")
        assert reached.current == target
        assert (await running.facts()).online_cpus == target
    assert (await state.observe(running.monitor)).plugged_vcpus == 4, "parked, not unplugged"


async def test_a_vcpu_is_plugged_even_when_emulation_has_no_room_for_it() -> None:
    """Where QEMU would abort (`tcg_region_initial_alloc__locked`): the guest's code is made to fill the buffer."""
    with tempfile.TemporaryDirectory(prefix="hv-", dir="/tmp") as directory:
        pod = await start(Path(directory), vcpus=2)
        try:
            async with connected(pod) as found:
                before = await full_translation_buffer(found)
                assert not translation.has_room(before, plugged=2, max_vcpus=4)
                assert (await cpu.set_vcpus(found.monitor, found.agent, 3, how="park")).current == 3
                assert (await found.facts()).online_cpus == 3
                assert (await state.observe(found.monitor)).plugged_vcpus == 3
        finally:
            log = read_log(Path(directory) / "log")
            await end(pod)
        assert log == ""


async def full_translation_buffer(guest: Guest) -> translation.Buffer:
    """The guest translates code that lies elsewhere each time, until next to nothing is left before the flush."""
    work = "while cp /bin/busybox /run/work; do /run/work true; done >/dev/null 2>&1 &"
    assert (await guest.agent.exec("/bin/sh", ["-c", work]))[0] == 0
    async with asyncio.timeout(PATIENCE):
        while True:
            buffer = translation.parse(await hmp(guest.monitor, "info jit"))
            if buffer.used > buffer.capacity - 7 * MIB // 2:
                return buffer
            await asyncio.sleep(0.002)


async def hmp(monitor: Monitor, command: str) -> str:
    return await monitor.execute("human-monitor-command", {"command-line": command})


async def test_more_vcpus_than_there_is_room_for_is_said(running: Guest) -> None:
    with pytest.raises(HotplugError, match="5 vCPUs are more than the 4 this guest was started for"):
        await cpu.set_vcpus(running.monitor, running.agent, 5, how="park")


@pytest.mark.parametrize("bus", ["scsi", "virtio"])
async def test_disks_come_grow_and_go(running: Guest, tmp_path: Path, bus: str) -> None:
    disk = replace(image(tmp_path / f"data-{bus}.img", 64 * MIB), bus=bus)
    attached = await disks.attach_disk(running.monitor, disk, agent=running.agent)
    again = await disks.attach_disk(running.monitor, disk, agent=running.agent)
    assert attached == again
    os.close(disk.layers[0].file.fd)
    (seen,) = (await running.facts()).block_devices
    assert (seen.size_bytes, seen.serial) == (64 * MIB, f"data-{bus}")

    await disks.block_resize(running.monitor, disk.name, 128 * MIB)
    assert (await running.facts()).block_devices[0].size_bytes == 128 * MIB
    with pytest.raises(HotplugError, match="cannot shrink to 64 MiB"):
        await disks.block_resize(running.monitor, disk.name, 64 * MIB)

    write = f"echo written-by-the-guest | dd of=/dev/{seen.name} && sync"
    assert (await running.agent.exec("/bin/sh", ["-c", write]))[0] == 0
    assert (tmp_path / f"{disk.name}.img").read_bytes().startswith(b"written-by-the-guest")

    await disks.detach_disk(running.monitor, disk.name)
    await disks.detach_disk(running.monitor, disk.name)
    assert (await running.facts()).block_devices == ()
    left = await state.observe(running.monitor)
    assert (left.disks, left.fdsets, len(left.free_ports)) == ((), {}, 3)


async def test_a_disk_with_a_long_name_on_a_chain_of_images(running: Guest, tmp_path: Path) -> None:
    base, top = tmp_path / "base.raw", tmp_path / "top.qcow2"
    base.write_bytes(b"from the base".ljust(MIB))
    overlay(top, base)
    name = "pvc-" + "0123456789abcdef" * 3
    layers = (
        Layer(File(fd=os.open(top, os.O_RDWR)), "qcow2"),
        Layer(File(fd=os.open(base, os.O_RDONLY))),
    )
    disk = Disk(name=name, bus="scsi", layers=layers, serial="chain", cache="none")
    attached = await disks.attach_disk(running.monitor, disk, agent=running.agent)
    assert len(attached.nodes) == 2
    (seen,) = (await running.facts()).block_devices
    status, out, _err = await running.agent.exec("/bin/head", ["-c", "13", f"/dev/{seen.name}"])
    assert (status, out) == (0, b"from the base")
    await disks.detach_disk(running.monitor, name)
    left = await state.observe(running.monitor)
    assert (left.disks, left.fdsets) == ((), {})
    for layer in layers:
        os.close(layer.file.fd)


async def _open_image_only(monitor: Monitor, disk: Disk) -> None:
    """As far as a home came that was killed between the two halves of an attach."""
    number = await monitor.add_fd(disk.layers[0].file.fd, opaque=disk.name)
    for node in devices.disk_nodes(Disk(name=disk.name, bus="scsi", layers=(Layer(File(fd=number)),))):
        await monitor.execute("blockdev-add", node)


async def test_an_attach_cut_short_is_finished_or_undone(running: Guest, tmp_path: Path) -> None:
    disk = image(tmp_path / "cut.img", 16 * MIB)
    await _open_image_only(running.monitor, disk)
    (half,) = (await state.observe(running.monitor)).disks
    assert not half.device

    await disks.attach_disk(running.monitor, disk, agent=running.agent)
    await disks.detach_disk(running.monitor, disk.name)
    assert (await running.facts()).block_devices == ()

    await _open_image_only(running.monitor, disk)
    await disks.detach_disk(running.monitor, disk.name)
    left = await state.observe(running.monitor)
    assert (left.disks, left.fdsets) == ((), {})
    os.close(disk.layers[0].file.fd)


async def test_a_file_that_is_no_image_is_refused_and_leaves_nothing(running: Guest, tmp_path: Path) -> None:
    disk = image(tmp_path / "junk.img", MIB)
    with pytest.raises(HotplugError, match="QEMU cannot open disk 'junk'"):
        await disks.attach_disk(
            running.monitor, Disk(name="junk", bus="scsi", layers=(Layer(disk.layers[0].file, "qcow2"),))
        )
    left = await state.observe(running.monitor)
    assert (left.disks, left.fdsets) == ((), {})
    os.close(disk.layers[0].file.fd)


async def test_a_network_card_comes_and_goes(running: Guest) -> None:
    nic = Nic(name="second", mac="02:00:00:00:00:22", backend=UserNet())
    await nics.attach_nic(running.monitor, nic, agent=running.agent)
    await nics.attach_nic(running.monitor, nic, agent=running.agent)
    assert (await state.observe(running.monitor)).nics == ("second",)
    assert nic.mac in [each.get("hardware-address") for each in await running.agent.network_interfaces()]
    await nics.set_link(running.monitor, nic.name, up=False)
    await nics.detach_nic(running.monitor, nic.name)
    assert nic.mac not in [each.get("hardware-address") for each in await running.agent.network_interfaces()]
    assert (await state.observe(running.monitor)).nics == ()


async def test_the_screen_is_shown_to_whom_it_is_handed(running: Guest) -> None:
    viewer = await vnc.open_viewer(running.monitor)
    try:
        assert (await asyncio.get_running_loop().sock_recv(viewer, 12)).startswith(b"RFB ")
    finally:
        viewer.close()


async def test_another_process_finds_the_same_guest(guest: Pod) -> None:
    async with connected(guest) as here:
        boot_id = (await here.facts()).boot_id
    program = (
        "import asyncio, sys; from hotvirt.qemu import facts, state; from hotvirt.qemu.qmp import Monitor\n"
        "from hotvirt.qemu.guestagent import GuestAgent\n"
        "async def main():\n"
        "    async with await Monitor.connect(sys.argv[1]) as monitor, GuestAgent(sys.argv[2]) as agent:\n"
        "        print((await state.observe(monitor)).status, (await facts.facts(agent)).boot_id)\n"
        "asyncio.run(main())\n"
    )
    sockets = [str(guest.directory / name) for name in ("qmp.sock", "agent.sock")]
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", program, *sockets, stdout=subprocess.PIPE)
    out, _err = await child.communicate()
    assert out.decode().split() == ["running", boot_id]


@pytest.mark.skipif(os.getuid() != 0, reason="QEMU becomes another user only when root starts it")
def test_qemu_has_no_rights(guest: Pod) -> None:
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{guest.identity.pid}/status").read_text().splitlines())
    assert status["Uid"].split() == [str(NOBODY)] * 4
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"


async def test_a_guest_whose_kernel_leaves_memory_and_cpus_offline(tmp_path: Path) -> None:
    """And which powers off by itself: it stays to be seen, also by a home that was away."""
    with tempfile.TemporaryDirectory(prefix="hv-", dir="/tmp") as directory:
        pod = await start(Path(directory), cmdline="console=ttyS0 quiet panic=-1 memhp_default_state=offline")
        try:
            async with connected(pod) as found:
                before = await found.facts()
                await memory.resize_memory(found.monitor, found.agent, BOOT + 512 * MIB)
                assert (await found.facts()).mem_total_bytes - before.mem_total_bytes == 512 * MIB
                await onlines_what_the_guest_left(found.agent)
                assert (await memory.resize_memory(found.monitor, found.agent, BOOT)).current == BOOT
                with found.monitor.events("SHUTDOWN") as events:
                    await found.agent.shutdown()
                    async with asyncio.timeout(PATIENCE):
                        event = await events.get()
                assert event.data == {"guest": True, "reason": "guest-shutdown"}
            async with await pod.monitor() as later:
                assert await state.read_status(later) == "shutdown"
        finally:
            await end(pod)


async def onlines_what_the_guest_left(agent):
    """Where the guest itself was first with one block, the others are still onlined so that they can be taken back."""
    size, blocks = await agent.get_memory()
    first, second, *others = sorted(block.index for block in blocks if block.index * size >= 4 << 30)
    await agent.set_memory_blocks(dict.fromkeys((second, *others), False))
    await memory.online_movable(agent, (first, second, *others))
    for index in (second, *others):
        zones = await agent.file_read(f"/sys/devices/system/memory/memory{index}/valid_zones")
        assert zones.split() == [b"Movable"], (index, zones)


async def test_death_is_seen_by_all_who_wait(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="hv-", dir="/tmp") as directory:
        pod = await start(Path(directory), kernel=False)
        monitor, agent = await pod.monitor(), pod.agent()
        ready = asyncio.create_task(agent.wait_ready())
        assert (await state.observe(monitor)).status == "prelaunch"
        assert await end(pod) == -signal.SIGKILL
        async with asyncio.timeout(5):
            assert "closed its QMP connection" in str(await monitor.closed)
            with pytest.raises(AgentError):
                await ready
        with pytest.raises(QemuGone):
            await monitor.execute("query-status")
        assert Process.open(pod.identity) is None
        with pytest.raises(QemuGone):
            await pod.monitor()
        await monitor.close()
        agent.close()


async def test_every_kind_of_cold_disk_is_taken_by_this_qemu(tmp_path: Path) -> None:
    """No guest runs: QEMU itself says yes or no to the command line, and `observe` reads it back."""
    raw = tmp_path / "raw.img"
    raw.write_bytes(bytes(MIB))
    qcow2 = tmp_path / "top.qcow2"
    overlay(qcow2, raw)
    copies = {}
    for name in ("scsi", "sata", "lib", "iso", "cd"):
        copies[name] = tmp_path / f"{name}.img"
        copies[name].write_bytes(bytes(MIB))
    chain = (Layer(File(str(qcow2)), "qcow2"), Layer(File(str(raw))))
    cold = (
        Disk(name="root", layers=chain, boot_index=1, cache="none", native_io=True),
        Disk(name="scsi", bus="scsi", layers=(Layer(File(str(copies["scsi"]))),), serial='odd,"serial'),
        Disk(name="lib", bus="scsi", layers=(Layer(File(str(copies["lib"]))),), read_only=True, shareable=True),
        Disk(name="sata", bus="sata", layers=(Layer(File(str(copies["sata"]))),), cache="writethrough"),
        Disk(name="iso", bus="sata", kind="cdrom", layers=(Layer(File(str(copies["iso"]))),)),
        Disk(name="tray", bus="scsi", kind="cdrom"),
    )
    with tempfile.TemporaryDirectory(prefix="hv-", dir="/tmp") as directory:
        pod = await start(Path(directory), kernel=False, images=cold)
        try:
            try:
                monitor = await pod.monitor()
            except QemuGone:
                pytest.fail(f"QEMU did not take it: {read_log(pod.directory / 'log')}")
            async with monitor:
                seen = await state.observe(monitor)
                assert {disk.name: disk.driver for disk in seen.disks} == {
                    "root": "virtio-blk-pci", "scsi": "scsi-hd", "lib": "scsi-hd", "sata": "ide-hd", "iso": "ide-cd",
                    "tray": "scsi-cd",
                }  # fmt: skip
                assert seen.disk("root").nodes == ("disk-root", "disk-root.1")
                assert seen.disk("lib").read_only
                assert sorted(set(seen.fdsets.values())) == ["iso", "lib", "root", "sata", "scsi"]
                await disks.attach_disk(monitor, image(tmp_path / "more.img", MIB))
                where = {"path": "/machine/peripheral/disk-more", "property": "scsi-id"}
                assert await monitor.execute("qom-get", where) == 3
                await _swap_discs(monitor, tmp_path)
        finally:
            log = read_log(pod.directory / "log")
            await end(pod)
        assert log == ""


async def _swap_discs(monitor: Monitor, directory: Path) -> None:
    """A disc for the empty drive, in two halves as by homes that died; then out, and out of one filled at the start."""
    file = directory / "disc.iso"
    file.write_bytes(bytes(MIB))
    disc = Disk(name="tray", kind="cdrom", bus="scsi", layers=(Layer(File(fd=os.open(file, os.O_RDONLY))),))
    assert (await state.observe(monitor)).disk("tray").is_empty
    await disks.open_images(monitor, disc)
    half = (await state.observe(monitor)).disk("tray")
    assert (half.nodes, half.is_empty) == (("disk-tray",), True)
    await drives.insert_disc(monitor, disc)
    full = (await state.observe(monitor)).disk("tray")
    assert (full.nodes, full.is_empty, full.size) == (("disk-tray",), False, MIB)
    for name in ("tray", "iso"):
        await drives.eject_disc(monitor, name)
        await drives.eject_disc(monitor, name)
        empty = (await state.observe(monitor)).disk(name)
        assert (empty.device, empty.nodes, empty.is_empty) == (True, (), True)
    await drives.insert_disc(monitor, replace(disc, name="iso", bus="sata"))
    with pytest.raises(HotplugError, match="no CD-ROM drive 'none'"):
        await drives.insert_disc(monitor, replace(disc, name="none"))


def test_sockets_need_no_cleaning(guest: Pod) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(guest.directory / "serial.sock"))
