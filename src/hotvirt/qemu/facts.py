"""What the guest itself says about its size: the judge of every resize.

Read from procfs and sysfs through the agent's file commands alone (no program runs in the guest), in four exchanges,
so it works alike in a bare initramfs and in a full distribution. A guest that is not Linux, or whose administrator
blocks the file commands, gives None and empty where it says nothing.
"""

import re
from collections.abc import Sequence

from msgspec import Struct

from hotvirt.qemu.errors import AgentRefused
from hotvirt.qemu.guestagent import GuestAgent, clean

_MAX_DISKS = 300
_NO_DISK = re.compile(r"(loop|ram|zram|dm-|md|nbd)\d")
_ONE_FILE = ("/proc/meminfo", "/proc/uptime", "/proc/sys/kernel/random/boot_id", "/proc/partitions",
    "/sys/devices/system/cpu/online", "/proc/sys/kernel/osrelease", "/proc/sys/kernel/hostname")  # fmt: skip


class BlockDevice(Struct, frozen=True):
    name: str
    size_bytes: int
    serial: str = ""


class GuestFacts(Struct, frozen=True, kw_only=True):
    mem_total_bytes: int | None = None
    mem_available_bytes: int | None = None
    online_cpus: int | None = None
    block_devices: tuple[BlockDevice, ...] = ()
    uptime_seconds: float | None = None
    boot_id: str = ""
    kernel: str = ""
    hostname: str = ""


async def facts(agent: GuestAgent) -> GuestFacts:
    """Ask the guest now."""
    meminfo, uptime, boot_id, partitions, online, kernel, hostname = map(decoded, await agent.files_read(_ONE_FILE))
    return GuestFacts(
        mem_total_bytes=parse_meminfo(meminfo, "MemTotal"),
        mem_available_bytes=parse_meminfo(meminfo, "MemAvailable"),
        online_cpus=count_list(online),
        block_devices=await _with_serials(agent, partitions),
        uptime_seconds=_number(uptime),
        boot_id=clean(boot_id.strip(), 64),
        kernel=clean(kernel.strip()),
        hostname=clean(hostname.strip()),
    )


async def memory(agent: GuestAgent) -> tuple[int | None, int | None]:
    """MemTotal and MemAvailable in bytes; the cheap part of `facts`."""
    text = decoded((await agent.files_read(["/proc/meminfo"]))[0])
    return parse_meminfo(text, "MemTotal"), parse_meminfo(text, "MemAvailable")


async def disks(agent: GuestAgent) -> tuple[BlockDevice, ...] | None:
    """The guest's disks; None when it does not say."""
    partitions = (await agent.files_read(["/proc/partitions"]))[0]
    return None if isinstance(partitions, AgentRefused) else await _with_serials(agent, decoded(partitions))


async def uses(agent: GuestAgent, serial: str) -> tuple[str, ...]:
    """Where the guest uses its disk of that serial: mount points, and `swap`. Nothing when it does not say."""
    partitions, mounts, swaps = map(
        decoded, await agent.files_read(("/proc/partitions", "/proc/mounts", "/proc/swaps"))
    )
    found = await _with_serials(agent, partitions)
    names = [disk.name for disk in found if disk.serial and serial.startswith(disk.serial)]
    return parse_uses(mounts, swaps, names)


def parse_uses(mounts: str, swaps: str, disks: Sequence[str]) -> tuple[str, ...]:
    """Pure. Partitions count for their disk."""
    rows = [line.split()[:2] for line in mounts.splitlines()]
    rows += [[line.split()[0], "swap"] for line in swaps.splitlines() if line.startswith("/dev/")]
    one_of = re.compile(rf"/dev/({'|'.join(map(re.escape, disks))})(p?\d+)?") if disks else None
    return tuple(
        dict.fromkeys(clean(row[1], 64) for row in rows if one_of and len(row) == 2 and one_of.fullmatch(row[0]))
    )


async def _with_serials(agent: GuestAgent, partitions: str) -> tuple[BlockDevice, ...]:
    sizes = parse_partitions(partitions)
    serials = await _serials(agent, list(sizes)) if sizes else {}
    return tuple(BlockDevice(name, size, serials.get(name, "")) for name, size in sizes.items())


async def _serials(agent: GuestAgent, names: Sequence[str]) -> dict[str, str]:
    contents = await agent.files_read([serial_path(name) for name in names], limit=4096)
    return {name: parse_serial(name, data) for name, data in zip(names, contents, strict=True) if _ok(data)}


def serial_path(name: str) -> str:
    return f"/sys/block/{name}/device/vpd_pg80" if name.startswith("s") else f"/sys/block/{name}/serial"


def parse_serial(name: str, data: bytes | AgentRefused) -> str:
    """virtio-blk gives the text; a SCSI disk its page 0x80, which has 4 bytes before it."""
    if isinstance(data, AgentRefused):
        return ""
    raw = data[4:] if name.startswith("s") else data
    return clean(raw.decode("ascii", "replace").strip("\0 \n"), 64)


def parse_meminfo(text: str, field: str) -> int | None:
    match = re.search(rf"^{field}:\s+(\d{{1,15}}) kB$", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def parse_partitions(text: str) -> dict[str, int]:
    """Whole disks and their bytes from /proc/partitions, which lists a disk before its partitions."""
    disks: dict[str, int] = {}
    for line in text.splitlines():
        match = re.fullmatch(r"\s*\d+\s+\d+\s+(\d{1,18})\s+([a-z][a-z0-9!_-]{0,31})", line)
        if match is None or _NO_DISK.match(match[2]) or len(disks) >= _MAX_DISKS:
            continue
        name = match[2]
        if not any(re.fullmatch(rf"{re.escape(disk)}p?\d+", name) for disk in disks):
            disks[name] = int(match[1]) * 1024
    return disks


def count_list(text: str) -> int | None:
    """How many numbers a kernel list such as `0-2,5` names; None when it is none."""
    total = 0
    for part in text.strip().split(","):
        match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", part)
        if match is None:
            return None
        total += int(match[2] or match[1]) - int(match[1]) + 1
    return total


def _ok(data: bytes | AgentRefused) -> bool:
    return not isinstance(data, AgentRefused)


def decoded(data: bytes | AgentRefused) -> str:
    return "" if isinstance(data, AgentRefused) else data.decode("utf-8", "replace")


def _number(text: str) -> float | None:
    try:
        return float(text.split()[0])
    except (ValueError, IndexError):
        return None
