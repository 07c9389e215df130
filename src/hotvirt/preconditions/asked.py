"""A change as people write it: `memory=4Gi`, `cpu=4`, `disk=data,bus=virtio`, `no-disk=data`, `nic=lan,link=down`.

What is in the VM's template already is taken from there; what is not is thought of as the VM's own commands would add
it: a claim on a SCSI disk, a bridge to the network attachment of that name. Pure.
"""

from typing import Any

from hotvirt.api import disks, quantity
from hotvirt.api.defaults import whole_blocks
from hotvirt.preconditions.changes import (
    Change,
    CpuChange,
    CpuLimit,
    MemoryChange,
    MemoryLimit,
    NicAdd,
    NicLink,
    NicRemove,
    VolumeAdd,
    VolumeRemove,
)

Document = dict[str, Any]
FORMS = (
    "memory=SIZE, cpu=COUNT, sockets=COUNT, max-memory=SIZE, max-sockets=COUNT, disk=NAME, no-disk=NAME, nic=NAME, "
    "no-nic=NAME"
)
LONGEST = 253


def read(text: str, vm: Document, vmi: Document | None) -> Change:
    """ValueError says what cannot be meant, and how it is written."""
    first, *rest = text.split(",")
    key, equals, value = first.partition("=")
    if not equals or not value or len(text) > 2 * LONGEST:
        raise ValueError(f"{text[:LONGEST]!r} is no change; write one of {FORMS}")
    options = dict(_option(each, text) for each in rest)
    template = ((vm.get("spec") or {}).get("template") or {}).get("spec") or {}
    change: Change
    match key:
        case "memory":
            change = MemoryChange(_memory(value))
        case "cpu" | "cpus" | "vcpus":
            change = CpuChange(_sockets(value, vmi or {"spec": template}))
        case "sockets":
            change = CpuChange(_count("sockets", value))
        case "max-memory":
            change = MemoryLimit(_memory(value))
        case "max-sockets":
            change = CpuLimit(_count("max-sockets", value))
        case "disk":
            change = _disk(value, options, template)
        case "no-disk":
            change = VolumeRemove(value)
        case "nic":
            change = _nic(value, options, template)
        case "no-nic":
            change = NicRemove(value)
        case _:
            raise ValueError(f"{key!r} cannot be changed while a machine runs; write one of {FORMS}")
    if options:
        raise ValueError(f"{text!r}: {next(iter(options))} means nothing with {key}")
    return change


def _option(text: str, whole: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not value:
        raise ValueError(f"{whole!r}: write options as in disk=data,bus=scsi")
    return key, value


def _memory(value: str) -> int:
    try:
        size = quantity.parse_bytes(value)
    except ValueError:
        raise ValueError(f"memory={value!r} is not a size; write it as in memory=2Gi or memory=1536Mi") from None
    if size > 0 and not whole_blocks(size):
        raise ValueError(f"memory={value} is less than one block of 2Mi; write it as in memory=2Gi")
    return size


def _count(what: str, value: str) -> int:
    if not value.isascii() or not value.isdigit() or not 1 <= int(value[:6]) < 100_000:
        raise ValueError(f"{what}={value!r} is not a number from 1 up")
    return int(value[:6])


def _sockets(value: str, spec: Document) -> int:
    cpu = (spec["spec"].get("domain") or {}).get("cpu") or {}
    each = int(cpu.get("cores") or 1) * int(cpu.get("threads") or 1)
    count = _count("cpu", value)
    if count % each:
        raise ValueError(f"cpu={count} does not fill sockets of {each}; ask for a multiple of {each}")
    return count // each


def _disk(name: str, options: dict[str, str], template: Document) -> VolumeAdd:
    volumes, given = disks.by_name(template.get("volumes")), (template.get("domain") or {}).get("devices") or {}
    known = name if name in volumes else next((n for n, v in volumes.items() if disks.claim(v) == name), "")
    volume = volumes.get(known) or {
        "name": name, "persistentVolumeClaim": {"claimName": options.pop("claim", name), "hotpluggable": True},
    }  # fmt: skip
    disk = disks.by_name(given.get("disks")).get(volume["name"]) or {"name": volume["name"]}
    kind = disks.target(disk)
    settings: Document = {"bus": "scsi", **(disk.get(kind) or {})}
    if bus := options.pop("bus", ""):
        settings["bus"] = bus
    return VolumeAdd(volume, {**disk, kind: settings})


def _nic(name: str, options: dict[str, str], template: Document) -> NicAdd | NicLink:
    if (link := options.pop("link", "")) in ("up", "down"):
        return NicLink(name, "up" if link == "up" else "down")
    if link:
        raise ValueError(f"link={link!r} is neither up nor down")
    devices = (template.get("domain") or {}).get("devices") or {}
    interface = disks.by_name(devices.get("interfaces")).get(name)
    network = disks.by_name(template.get("networks")).get(name)
    binding, attachment = options.pop("binding", "bridge"), options.pop("network", name)
    return NicAdd(
        interface or {"name": name, binding: {}}, network or {"name": name, "multus": {"networkName": attachment}}
    )
