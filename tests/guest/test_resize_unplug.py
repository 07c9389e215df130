"""A vCPU is unplugged from a real guest as it is with KVM: its agent takes it offline, then QEMU takes the device away.

Under emulation QEMU survives one unplug, but not what may follow (a plug, a migration): so the guest ends with it.
"""

import os
import signal
import tempfile
from pathlib import Path

import pytest

from hotvirt.images import catalog
from hotvirt.qemu import argv, binary, cpu, facts
from hotvirt.qemu.guestagent import GuestAgent
from hotvirt.qemu.launch import Descriptors, Request, listening_socket, send_launch, spawn_receiver
from hotvirt.qemu.machine import MIB, Kernel, Machine, Topology
from hotvirt.qemu.process import Identity, Process
from hotvirt.qemu.qmp import Monitor

pytestmark = pytest.mark.guest


async def start(directory: Path) -> Identity:
    listener = listening_socket(directory / "launch.sock")
    identity = spawn_receiver(listener, log=directory / "log")
    listener.close()
    tiny = await catalog.ensure("hotvirt/tiny", catalog.default_cache())
    assert tiny.kernel
    assert tiny.initrd
    with Descriptors() as descriptors:
        kernel, initrd = (descriptors.open(path, read_only=True) for path in (tiny.kernel, tiny.initrd))
        machine = Machine(
            name="unplug",
            uuid="8b0e8c7a-2b4a-4a55-9d33-0c3c5d3f0002",
            topology=Topology(sockets=2, cores=2, max_sockets=2),
            boot_memory=256 * MIB,
            kernel=Kernel(kernel, initrd, tiny.kernel_args or ""),
            qmp_fd=descriptors.listen(directory / "qmp.sock"),
            agent_fd=descriptors.listen(directory / "agent.sock"),
        )
        request = Request(argv=tuple(argv.argv(machine, qemu=binary.find())))
        await send_launch(directory / "launch.sock", request, descriptors=descriptors.mapping)
    return identity


async def test_offline_then_unplugged() -> None:
    with tempfile.TemporaryDirectory(prefix="hv-", dir="/tmp") as name:
        directory = Path(name)
        identity = await start(directory)
        try:
            async with (
                await Monitor.connect(directory / "qmp.sock") as monitor,
                GuestAgent(directory / "agent.sock", timeout=90) as agent,
            ):
                await agent.wait_ready(timeout=90)
                before = await cpu.read(monitor, agent, apics=True)
                assert (before.plugged, before.online) == (4, 4)
                # What QEMU's places are called in the guest is reckoned, and is right.
                assert sorted(before.apics.values()) == [cpu.apic_id(slot, before.slots) for slot in before.slots]
                after = await cpu.set_vcpus(monitor, agent, 3, how="unplug")
                assert (after.plugged, after.online) == (3, 3)
                assert not after.slots[-1].path
                assert (await facts.facts(agent)).online_cpus == 3
                assert 3 not in after.apics.values()
        finally:
            process = Process.open(identity)
            if process is not None:
                with process:
                    process.send(signal.SIGKILL)
                    await process.wait()
    assert not os.path.exists(name)
