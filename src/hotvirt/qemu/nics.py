"""Network cards while the guest runs: attach, detach, link up and down. Level-based, as `disks`."""

import asyncio

from msgspec import structs

from hotvirt.qemu import devices, ids
from hotvirt.qemu.disks import delete_device, free_port, placing
from hotvirt.qemu.errors import AgentLacks, HotplugError, NotThere, QmpError
from hotvirt.qemu.guestagent import GuestAgent
from hotvirt.qemu.machine import Nic, Tap
from hotvirt.qemu.progress import pauses
from hotvirt.qemu.qmp import Monitor
from hotvirt.qemu.state import read_devices


async def attach_nic(monitor: Monitor, nic: Nic, *, agent: GuestAgent | None = None, timeout: float = 30.0) -> None:
    """Make the card appear in the guest, on a free root port. Descriptors in `nic.backend` are ours (and stay ours).

    With an agent it returns when the guest itself lists the card.
    """
    try:
        async with asyncio.timeout(timeout):
            if ids.nic_id(nic.name) not in await read_devices(monitor):
                await _add(monitor, nic)
            if agent is not None:
                await _visible(agent, nic.mac)
    except TimeoutError as error:
        raise HotplugError(
            "TimedOut", f"interface {nic.name!r} is not seen in the guest after {timeout:g} s"
        ) from error


async def _add(monitor: Monitor, nic: Nic) -> None:
    await _drop_backend(monitor, nic.name)  # one left half attached may be another's tap
    try:
        async with placing(monitor):
            place = await free_port(monitor, f"interface {nic.name!r}")
            await monitor.execute("netdev_add", await _backend(monitor, nic))
            await monitor.execute("device_add", devices.nic_device(nic, place=place))
        if not nic.link_up:
            await set_link(monitor, nic.name, up=False)
    except QmpError as error:
        await _drop_backend(monitor, nic.name)
        raise HotplugError(
            "QemuRefused", f"QEMU would not attach interface {nic.name!r}: {error.description}"
        ) from error


async def detach_nic(monitor: Monitor, name: str, *, timeout: float = 30.0) -> None:
    with monitor.events("DEVICE_DELETED", "DEVICE_UNPLUG_GUEST_ERROR") as events:
        try:
            async with asyncio.timeout(timeout):
                if ids.nic_id(name) in await read_devices(monitor):
                    await delete_device(monitor, ids.nic_id(name), events)
                await _drop_backend(monitor, name)
        except TimeoutError as error:
            raise HotplugError(
                "TimedOut",
                f"the guest did not let go of interface {name!r} within {timeout:g} s; is its kernel running?",
            ) from error


async def set_link(monitor: Monitor, name: str, *, up: bool) -> None:
    """Plug the guest's cable in or out."""
    await monitor.execute("set_link", {"name": ids.nic_id(name), "up": up})


async def _visible(agent: GuestAgent, mac: str) -> None:
    try:
        for pause in pauses():
            if any(i.get("hardware-address") == mac.lower() for i in await agent.network_interfaces()):
                return
            await asyncio.sleep(pause)
    except AgentLacks:
        return


async def _backend(monitor: Monitor, nic: Nic) -> devices.Options:
    if not isinstance(nic.backend, Tap):
        return devices.nic_backend(nic)
    tap = f"tap-{nic.name}"
    await monitor.get_fd(nic.backend.fd, name=tap)
    backend = devices.nic_backend(structs.replace(nic, backend=Tap(nic.backend.fd))) | {"fd": tap}
    if nic.backend.vhost_fd is not None:
        await monitor.get_fd(nic.backend.vhost_fd, name=f"vhost-{nic.name}")
        backend |= {"vhost": True, "vhostfd": f"vhost-{nic.name}"}
    return backend


async def _drop_backend(monitor: Monitor, name: str) -> None:
    try:
        await monitor.execute("netdev_del", {"id": ids.netdev_id(name)})
    except NotThere:
        pass
