"""What one running guest uses at this moment: CPU, memory, disks, network; read from its process, QEMU and its agent.

Asked only when somebody wants to know, many guests at once but not all; a guest that does not answer in time is told of
as far as its process shows. Everything its agent says is bounded, and only numbers are taken from it.
"""

import asyncio
import logging
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from hotvirt.node.guest import Guest
from hotvirt.node.podprocess import read_identity
from hotvirt.qemu import ids
from hotvirt.qemu.errors import AgentError, QemuError
from hotvirt.qemu.guestagent import GuestAgent
from hotvirt.qemu.process import alive
from hotvirt.qemu.state import read_memory

log = logging.getLogger(__name__)

PATIENCE = 3.0
"""Seconds a guest has to answer."""
AT_ONCE = 8
FILES = ("/proc/meminfo", "/proc/vmstat", "/proc/loadavg")
FILE_SYSTEMS = 64
NIC_COUNTERS = (
    "rx_bytes", "rx_packets", "rx_errors", "rx_dropped", "tx_bytes", "tx_packets", "tx_errors", "tx_dropped",
)  # fmt: skip


class VcpuTime(Struct, frozen=True):
    """Seconds of one vCPU's thread: `running`, and `waiting` for a CPU of the host (the guest's steal)."""

    id: int
    running: float
    waiting: float


class FileSystem(Struct, frozen=True):
    disk: str
    mount_point: str
    kind: str
    capacity: int
    used: int


class GuestSample(Struct, frozen=True, kw_only=True):
    """Bytes and seconds; counters count since QEMU started. What could not be learned is empty or None."""

    user_seconds: float = 0.0
    system_seconds: float = 0.0
    resident: int = 0
    vcpus: tuple[VcpuTime, ...] = ()
    memory: int | None = None
    """What QEMU gives the guest now."""
    balloon: int | None = None
    """The boot memory that the balloon leaves it."""
    guest: dict[str, int] = {}
    """Of the guest's /proc/meminfo (bytes) and /proc/vmstat (counters), by their names there."""
    load: tuple[float, ...] = ()
    disks: dict[str, dict[str, int]] = {}
    """QEMU's counters, by the disk's name."""
    nics: dict[str, dict[str, int]] = {}
    """The guest's view (`rx` is what it received), by the interface's name."""
    filesystems: tuple[FileSystem, ...] = ()


async def sample_all(guests: Mapping[Any, tuple[Guest, Mapping[str, str]]]) -> dict[Any, GuestSample]:
    """Key -> sample, of the guests whose process lives. `guests` gives each with its interfaces' host devices."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(guest: Guest, devices: Mapping[str, str]) -> GuestSample | None:
        async with gate:
            return await sample(guest, devices)

    found = await asyncio.gather(*(one(*each) for each in guests.values()))
    return {key: each for key, each in zip(guests, found, strict=True) if each is not None}


async def sample(guest: Guest, devices: Mapping[str, str]) -> GuestSample | None:
    identity = read_identity(guest.place.pid)
    if identity is None or not alive(identity):
        return None
    threads: list[tuple[int, int]] = []
    memory = balloon = None
    disks: dict[str, dict[str, int]] = {}
    try:
        async with asyncio.timeout(PATIENCE):
            state, blocks, cpus = await asyncio.gather(
                read_memory(guest.monitor),
                guest.monitor.execute("query-blockstats"),
                guest.monitor.execute("query-cpus-fast"),
            )
        memory, balloon = state.current, state.fixed - state.ballooned
        disks = parse_blockstats(blocks)
        threads = [(int(cpu["cpu-index"]), int(cpu["thread-id"])) for cpu in cpus]
    except (QemuError, TimeoutError) as error:
        log.debug("no figures from QEMU of %s: %r", guest.monitor.name, error)
    asked = await _ask(guest.answering) if guest.answering is not None else {}
    process = Path(f"/proc/{identity.pid}")
    user, system = _process_times(process)
    return GuestSample(
        user_seconds=user,
        system_seconds=system,
        resident=_resident(process),
        vcpus=tuple(time for number, thread in threads if (time := _thread_times(process, number, thread))),
        memory=memory,
        balloon=balloon,
        disks=disks,
        nics={name: found for name, device in devices.items() if (found := _nic(device))},
        **asked,
    )


async def _ask(agent: GuestAgent) -> dict[str, Any]:
    """What the guest says, in two exchanges."""
    try:
        async with asyncio.timeout(PATIENCE):
            meminfo, vmstat, loadavg = await agent.files_read(FILES)
            texts = [each.decode("ascii", "replace") if isinstance(each, bytes) else "" for each in
                     (meminfo, vmstat, loadavg)]  # fmt: skip
            told = {"guest": parse_meminfo(texts[0]) | parse_vmstat(texts[1]), "load": parse_load(texts[2])}
            return {**told, "filesystems": parse_filesystems(await agent.fsinfo())}
    except (AgentError, TimeoutError) as error:
        log.debug("no figures from a guest: %r", error)
        return {}


def parse_meminfo(text: str) -> dict[str, int]:
    """`MemTotal: 1024 kB` -> bytes. Pure, as all of `parse_*`: guests' words are bounded before they come here."""
    return {name: int(kib) * 1024 for name, kib in re.findall(r"^(\w{1,40}):\s+(\d{1,15}) kB$", text, re.MULTILINE)}


def parse_vmstat(text: str) -> dict[str, int]:
    wanted = ("pgfault", "pgmajfault", "pswpin", "pswpout")
    return {name: int(n) for name, n in re.findall(r"^(\w{1,40}) (\d{1,19})$", text, re.MULTILINE) if name in wanted}


def parse_load(text: str) -> tuple[float, ...]:
    found = re.match(r"(\d{1,9}\.\d+) (\d{1,9}\.\d+) (\d{1,9}\.\d+) ", text)
    return tuple(float(each) for each in found.groups()) if found else ()


def parse_filesystems(entries: Iterable[Mapping[str, Any]]) -> tuple[FileSystem, ...]:
    """Of guest-get-fsinfo's answer, those that tell their size."""
    found = []
    for entry in list(entries)[:FILE_SYSTEMS]:
        capacity, used = entry.get("total-bytes"), entry.get("used-bytes")
        if isinstance(capacity, int) and isinstance(used, int) and 0 <= used <= capacity < 1 << 63:
            disk, mount_point, kind = (str(entry.get(field, "")) for field in ("name", "mountpoint", "type"))
            found.append(FileSystem(disk, mount_point, kind, capacity, used))
    return tuple(found)


def parse_blockstats(entries: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Disk name -> counters, of query-blockstats' answer."""
    found: dict[str, dict[str, int]] = {}
    for entry in entries:
        parts = str(entry.get("qdev") or "").split("/")
        name = next((name for part in parts if (name := ids.disk_name(part))), None)
        if name is not None:
            found[name] = {key: value for key, value in entry["stats"].items() if isinstance(value, int)}
    return found


def _process_times(process: Path) -> tuple[float, float]:
    text = _read(process / "stat")
    if not text:
        return 0.0, 0.0
    fields = text[text.rindex(")") + 2 :].split()
    tick = os.sysconf("SC_CLK_TCK")
    return int(fields[11]) / tick, int(fields[12]) / tick


def _thread_times(process: Path, number: int, thread: int) -> VcpuTime | None:
    fields = _read(process / "task" / str(thread) / "schedstat").split()
    return VcpuTime(number, int(fields[0]) / 1e9, int(fields[1]) / 1e9) if len(fields) >= 2 else None


def _resident(process: Path) -> int:
    fields = _read(process / "statm").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if len(fields) >= 2 else 0


def _nic(device: str) -> dict[str, int]:
    """A tap's counters, turned round: what the host sends, the guest receives."""
    place = Path("/sys/class/net") / device / "statistics"
    turned = {"rx": "tx", "tx": "rx"}
    return {f"{turned[name[:2]]}{name[2:]}": int(text) for name in NIC_COUNTERS if (text := _read(place / name))}


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""  # it ended meanwhile
