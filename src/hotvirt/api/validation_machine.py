"""Firmware, clock, processor features and odd devices: KubeVirt's rules, and what QEMU would refuse. Pure."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from hotvirt.api import quantity
from hotvirt.api.faults import Fault, invalid, not_supported, required
from hotvirt.api.quantity import QuantityError

Document = dict[str, Any]

WATCHDOG_ACTIONS = ("poweroff", "reset", "shutdown")
SOUNDS = ("ich9", "ac97")
VIDEOS = ("vga", "virtio", "bochs", "cirrus", "ramfb")
TABLETS = 8
FEWEST_SPINLOCKS = 4096
PAGE_SIZES = ("2Mi", "1Gi")
MOST_PORTS, FIRST_SLOT = 0x20, 0xE
_ADDRESS = re.compile(r"[0-9a-fA-F]{4}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]")
_PLACE = re.compile(r"0000:([0-9a-f]{2}):([0-9a-f]{2})\.0")
_ZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}")
_VENDOR = re.compile(r"[A-Za-z0-9 ._-]{1,12}")
_NEEDS = {
    "synic": ("vpindex",), "synictimer": ("synic", "vpindex"), "tlbflush": ("vpindex",), "ipi": ("vpindex",),
    "evmcs": ("vapic",),
}  # fmt: skip
_TICKS = {"pit": ("delay", "catchup", "discard"), "rtc": ("delay", "catchup"),
          "hpet": ("delay", "catchup", "merge", "discard")}  # fmt: skip


def check(domain: Document, path: str) -> list[Fault]:
    devices, at = domain.get("devices") or {}, f"{path}.devices"
    return [
        *_bootloader(domain, f"{path}.firmware.bootloader"),
        *_clock(domain.get("clock") or {}, f"{path}.clock"),
        *_hyperv(domain.get("features") or {}, f"{path}.features"),
        *_watchdog(devices.get("watchdog"), f"{at}.watchdog"),
        *_sound(devices.get("sound"), f"{at}.sound"),
        *_inputs(devices.get("inputs") or (), f"{at}.inputs"),
        *_video(devices, f"{at}.video"),
        *_io_threads(domain, path),
        *_hugepages(domain.get("memory") or {}, f"{path}.memory"),
        *_plain_pci(domain, path),
        *_addresses(domain, at),
    ]


def is_pcie(domain: Document) -> bool:
    """Whether the machine is a q35; else it is an i440fx, which has plain PCI."""
    return "q35" in str((domain.get("machine") or {}).get("type") or "q35")


def _plain_pci(domain: Document, path: str) -> Iterator[Fault]:
    efi = ((domain.get("firmware") or {}).get("bootloader") or {}).get("efi")
    if not is_pcie(domain) and efi is not None and efi.get("secureBoot") is not False:
        yield invalid(
            f"{path}.firmware.bootloader.efi.secureBoot", "needs a q35 machine: set machine.type so, or this to false"
        )


def _addresses(domain: Document, path: str) -> Iterator[Fault]:
    """PCI addresses that the machine has, each once (as `qemu.ports` has it)."""
    pcie = is_pcie(domain)
    there = "0000:01:00.0 to 0000:20:00.0, 0000:00:0e.0 and 0000:00:0f.0" if pcie else "0000:00:0e.0 to 0000:00:1f.0"
    devices, taken = domain.get("devices") or {}, dict[str, str]()
    for here, name, address in _addressed(devices, path):
        match = _PLACE.fullmatch(address.lower())
        bus, slot = (int(match[1], 16), int(match[2], 16)) if match else (MOST_PORTS + 1, 0)
        if not (FIRST_SLOT <= slot < (0x10 if pcie else 0x20) if bus == 0 else pcie and bus <= MOST_PORTS and not slot):
            yield invalid(here, f"this machine has no {address} for it: use one of {there}, or leave it out")
            continue
        if address.lower() in taken:
            yield invalid(here, f"{taken[address.lower()]} is at {address} already: addresses must differ")
        taken[address.lower()] = name


def _addressed(devices: Document, path: str) -> Iterator[tuple[str, str, str]]:
    """(field, device, address) of those that name a whole one."""
    for kind in ("interfaces", "disks"):
        for index, each in enumerate(devices.get(kind) or ()):
            for target, field in ((each, "pciAddress"), (each.get("disk") or {}, "disk.pciAddress")):
                address = str(target.get("pciAddress") or "")
                if _ADDRESS.fullmatch(address):
                    yield f"{path}.{kind}[{index}].{field}", str(each.get("name")), address


def _is_on(feature: Document | None) -> bool:
    return feature is not None and feature.get("enabled") is not False


def _bootloader(domain: Document, path: str) -> Iterator[Fault]:
    loader = (domain.get("firmware") or {}).get("bootloader") or {}
    efi = loader.get("efi")
    if efi is not None and loader.get("bios") is not None:
        yield invalid(path, "is efi and bios at once: keep one")
    smm = (domain.get("features") or {}).get("smm")
    if efi is not None and efi.get("secureBoot") is not False and smm is not None and not _is_on(smm):
        yield invalid(
            f"{path}.efi.secureBoot", "needs SMM, which features.smm switches off: remove that, or set this to false"
        )


def _clock(clock: Document, path: str) -> Iterator[Fault]:
    zone = clock.get("timezone")
    if zone and clock.get("utc") is not None:
        yield invalid(f"{path}.timezone", "excludes utc: keep one")
    if zone and not _ZONE.fullmatch(zone):
        yield invalid(f"{path}.timezone", f"{zone[:80]!r} is not a time zone: write it like Europe/Vienna")
    timers = clock.get("timer") or {}
    for name, allowed in _TICKS.items():
        policy = str((timers.get(name) or {}).get("tickPolicy") or "")
        if policy not in (None, "", *allowed):
            yield invalid(f"{path}.timer.{name}.tickPolicy", f"{policy[:40]!r} is unknown: use {', '.join(allowed)}")
    if (track := (timers.get("rtc") or {}).get("track")) not in (None, "", "guest", "wall"):
        yield invalid(f"{path}.timer.rtc.track", f"{str(track)[:40]!r} is unknown: use guest or wall")


def _hyperv(features: Document, path: str) -> Iterator[Fault]:
    given: Document = features.get("hyperv") or {}
    here = f"{path}.hyperv"
    if _is_on(features.get("hypervPassthrough")) and any(_is_on(each) for each in given.values()):
        yield invalid(f"{path}.hypervPassthrough", "switches on all there are: remove it, or hyperv")
    for name, needed in _NEEDS.items():
        missing = [each for each in needed if not _is_on(given.get(each))]
        if _is_on(given.get(name)) and missing:
            yield invalid(f"{here}.{name}", f"needs {' and '.join(missing)}: switch that on too, or remove {name}")
    tries = (given.get("spinlocks") or {}).get("spinlocks")
    if tries is not None and not FEWEST_SPINLOCKS <= tries <= 0xFFFFFFFF:
        yield invalid(f"{here}.spinlocks.spinlocks", f"must be at least {FEWEST_SPINLOCKS}, not {tries}")
    vendor = (given.get("vendorid") or {}).get("vendorid")
    if vendor and not _VENDOR.fullmatch(vendor):
        yield invalid(f"{here}.vendorid.vendorid", "may have up to 12 letters, digits, spaces, and . _ -")


def _watchdog(given: Document | None, path: str) -> Iterator[Fault]:
    if given is None:
        return
    if not given.get("name"):
        yield required(f"{path}.name", "name the watchdog")
    kind = given.get("i6300esb")
    if kind is None:
        if given.get("diag288") is None:  # which is refused with words of its own
            yield required(f"{path}.i6300esb", "say which: i6300esb, with its action")
    elif (action := kind.get("action")) not in (None, "", *WATCHDOG_ACTIONS):
        yield invalid(f"{path}.i6300esb.action", f"{str(action)[:40]!r} is unknown: use {', '.join(WATCHDOG_ACTIONS)}")


def _sound(given: Document | None, path: str) -> Iterator[Fault]:
    if given is None:
        return
    if not given.get("name"):
        yield invalid(path, "needs a name")
    if (model := given.get("model")) not in (None, "", *SOUNDS):
        yield not_supported(path, f"{model[:40]!r} is unknown: use {' or '.join(SOUNDS)}")


def _inputs(given: Sequence[Document], path: str) -> Iterator[Fault]:
    known: set[str] = set()
    if sum(each.get("bus") == "virtio" for each in given) > TABLETS:
        yield invalid(path, f"a machine has up to {TABLETS} virtio tablets")
    for index, each in enumerate(given):
        here, name = f"{path}[{index}]", str(each.get("name") or "")
        if each.get("type") != "tablet":
            yield invalid(f"{here}.type", f"{str(each.get('type'))[:40]!r} is not offered: use tablet")
        if each.get("bus") not in (None, "", "usb", "virtio"):
            yield invalid(f"{here}.bus", f"{each['bus'][:40]!r} is unknown: use usb or virtio")
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,63}", name):
            yield invalid(f"{here}.name", "needs a name of up to 63 letters, digits, - and _")
        elif name in known:
            yield invalid(f"{here}.name", f"{name!r} is there twice: names must differ")
        known.add(name)


def _video(devices: Document, path: str) -> Iterator[Fault]:
    given = devices.get("video")
    if given is None:
        return
    if devices.get("autoattachGraphicsDevice") is False:
        yield invalid(path, "is of no use with autoattachGraphicsDevice false: remove one of them")
    if (kind := given.get("type")) not in (None, "", *VIDEOS):
        yield invalid(f"{path}.type", f"{kind[:40]!r} is not offered: use {', '.join(VIDEOS)}")


def _io_threads(domain: Document, path: str) -> Iterator[Fault]:
    policy = domain.get("ioThreadsPolicy")
    count = (domain.get("ioThreads") or {}).get("supplementalPoolThreadCount")
    here = f"{path}.ioThreads.supplementalPoolThreadCount"
    if policy == "supplementalPool" and not count:
        yield required(here, "say how many threads the pool has")
    elif count is not None and not 0 < count <= 64:
        yield invalid(here, f"must be 1 to 64, not {count}")


def _hugepages(memory: Document, path: str) -> Iterator[Fault]:
    given = memory.get("hugepages")
    if given is None:
        return
    size = given.get("pageSize") or ""
    if size not in PAGE_SIZES:
        yield invalid(f"{path}.hugepages.pageSize", f"{size[:40]!r} is not a size of huge pages: use 2Mi or 1Gi")
        return
    try:
        guest = quantity.parse_bytes(memory["guest"]) if memory.get("guest") else 0
    except QuantityError:
        return  # told already
    if memory.get("maxGuest") and quantity.parse_bytes(memory["maxGuest"]) != guest:
        message = "is for memory that can grow, and huge pages are taken whole at the start: leave out one of them"
        yield invalid(f"{path}.maxGuest", message)
    if guest % quantity.parse_bytes(size):
        message = f"memory.guest, {memory['guest']}, is not a multiple of {size}: change one of them"
        yield invalid(f"{path}.hugepages.pageSize", message)
