"""What a guest tells of itself through its agent at this moment, in KubeVirt's words.

The guest is hostile: `GuestAgent` bounds and cleans all text; numbers are checked here. What an agent does not know or
may not tell is left out; one that fails is an InternalError.
"""

from collections.abc import Awaitable
from typing import Any, TypeVar

from hotvirt.kube.errors import InternalError
from hotvirt.node.guest import Guest
from hotvirt.node.status import os_info
from hotvirt.qemu import facts as guest_facts
from hotvirt.qemu.disks import SCSI_TARGETS
from hotvirt.qemu.errors import AgentError, AgentRefused
from hotvirt.qemu.guestagent import GuestAgent
from hotvirt.qemu.state import Observed

T = TypeVar("T")
Document = dict[str, Any]
LARGEST = (1 << 63) - 1
FEW = 16
"""Disks below one filesystem that are told of."""


async def facts(guest: Guest, agent: GuestAgent) -> Document:
    before = guest.vcpus
    try:
        found = await guest_facts.facts(agent)
    except AgentError as error:
        raise InternalError(f"the guest of {guest.monitor.name}: {error}") from error
    if found.online_cpus is not None:
        guest.counted(found.online_cpus, before=before)
    return {
        "memTotalBytes": found.mem_total_bytes,
        "memAvailableBytes": found.mem_available_bytes,
        "onlineCPUs": found.online_cpus,
        "blockDevices": [{"name": d.name, "sizeBytes": d.size_bytes, "serial": d.serial} for d in found.block_devices],
        "uptimeSeconds": found.uptime_seconds,
        "bootID": found.boot_id,
        "kernel": found.kernel,
        "hostname": found.hostname,
    }


def places(observed: Observed) -> dict[str, int]:
    """Where QEMU could still plug something in."""
    taken = sum(disk.device and disk.driver.startswith("scsi-") for disk in observed.disks)
    return {"ports": len(observed.free_ports), "scsi": max(0, SCSI_TARGETS - taken)}


async def os_information(guest: Guest, agent: GuestAgent) -> Document:
    """VirtualMachineInstanceGuestAgentInfo without its kind and apiVersion."""
    view = guest.view
    assert view is not None, "who answers has a view"
    return {
        "guestAgentVersion": view.info.version,
        "supportedCommands": [{"name": each, "enabled": True} for each in sorted(view.info.commands)],
        # Not the view's: a guest that has just booted gets its name only now, by DHCP or cloud-init.
        "hostname": await _told(agent.hostname()) or view.hostname,
        "os": os_info(view),
        "timezone": await _told(agent.timezone()) or "",
        "userList": await users(agent),
        "fsInfo": {"disks": await filesystems(agent)},
        "fsFreezeStatus": "frozen" if view.frozen else "thawed",
    }


async def users(agent: GuestAgent) -> list[Document]:
    """Who is logged in. VirtualMachineInstanceGuestOSUser"""
    return [_user(each) for each in await _told(agent.users()) or ()]


async def filesystems(agent: GuestAgent) -> list[Document]:
    """What is mounted. VirtualMachineInstanceFileSystem"""
    return [_filesystem(each) for each in await _told(agent.fsinfo()) or ()]


def _user(said: Document) -> Document:
    user: Document = {"userName": str(said.get("user", ""))}
    if domain := said.get("domain"):
        user["domain"] = str(domain)
    moment = said.get("login-time")
    if isinstance(moment, int | float) and not isinstance(moment, bool) and 0 <= moment <= LARGEST:
        user["loginTime"] = moment
    return user


def _filesystem(said: Document) -> Document:
    found: Document = {
        "diskName": str(said.get("name", "")),
        "mountPoint": str(said.get("mountpoint", "")),
        "fileSystemType": str(said.get("type", "")),
        "usedBytes": _bytes(said.get("used-bytes")),
        "totalBytes": _bytes(said.get("total-bytes")),
    }
    below = said.get("disk")
    disks = [each for each in below if isinstance(each, dict)][:FEW] if isinstance(below, list) else []
    if disks:
        found["disk"] = [
            {
                "busType": str(each.get("bus-type", "")),
                **({"serial": str(each["serial"])} if each.get("serial") else {}),
            }
            for each in disks
        ]
    return found


def _bytes(said: object) -> int:
    return said if isinstance(said, int) and not isinstance(said, bool) and 0 <= said <= LARGEST else 0


async def _told(call: Awaitable[T]) -> T | None:
    try:
        return await call
    except AgentRefused:
        return None
    except AgentError as error:
        raise InternalError(f"the guest's agent failed: {error}") from error
