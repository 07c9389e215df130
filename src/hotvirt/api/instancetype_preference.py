"""Preferences: what a machine gets where it is silent, how vCPUs are laid out, and what a guest needs at least. Pure.

`apply` fills a spec that is the caller's own in place. A spec here is a VirtualMachineInstance's, `taste` the spec of a
(cluster) preference, `size` that of a (cluster) instancetype.
"""

from collections.abc import Iterator
from typing import Any

from hotvirt.api import defaults, quantity
from hotvirt.api import disks as api_disks
from hotvirt.api.faults import Fault, invalid

Document = dict[str, Any]

TOPOLOGIES = ("sockets", "cores", "threads", "spread", "any")
OLD_TOPOLOGIES = {f"prefer{name.capitalize()}": name for name in TOPOLOGIES}
"""Names of KubeVirt's first version, which still work."""
SPREADS = {
    "SocketsCores": ("sockets", "cores"),
    "CoresThreads": ("cores", "threads"),
    "SocketsCoresThreads": ("sockets", "cores", "threads"),
}
THREADS = 2
"""Of a core, when vCPUs are spread over sockets, cores and threads."""
_DEVICES = {
    field: f"preferred{field[0].upper()}{field[1:]}"
    for field in (
        "autoattachGraphicsDevice", "autoattachMemBalloon", "autoattachPodInterface", "autoattachSerialConsole",
        "autoattachInputDevice", "useVirtioTransitional", "blockMultiQueue", "rng",
    )
} | {"networkInterfaceMultiqueue": "preferredNetworkInterfaceMultiQueue", "tpm": "preferredTPM"}  # fmt: skip
_FEATURES = {
    "acpi": "preferredAcpi", "apic": "preferredApic", "kvm": "preferredKvm", "pvspinlock": "preferredPvspinlock",
    "smm": "preferredSmm",
}  # fmt: skip
_SPEC = {
    "subdomain": "preferredSubdomain",
    "terminationGracePeriodSeconds": "preferredTerminationGracePeriodSeconds",
    "architecture": "preferredArchitecture",
}
_BUSES = {"disk": "preferredDiskBus", "cdrom": "preferredCdromBus", "lun": "preferredLunBus"}
_HARD_DISK = {"blockSize": "preferredDiskBlockSize", "cache": "preferredDiskCache", "io": "preferredDiskIO"}


def layout(taste: Document | None) -> str:
    """Of TOPOLOGIES; the first if nothing is preferred."""
    said = ((taste or {}).get("cpu") or {}).get("preferredCPUTopology") or TOPOLOGIES[0]
    return OLD_TOPOLOGIES.get(said, said)


def spread(taste: Document | None) -> tuple[int, str]:
    """The ratio, and over what."""
    options = ((taste or {}).get("cpu") or {}).get("spreadOptions") or {}
    ratio = options.get("ratio") or (taste or {}).get("preferSpreadSocketToCoreRatio") or 2
    return int(ratio), str(options.get("across") or "SocketsCores")


def topology(vcpus: int, taste: Document | None) -> Document:
    """`sockets`, `cores` and `threads` for so many vCPUs."""
    shape = {"sockets": 1, "cores": 1, "threads": 1}
    kind = layout(taste)
    if vcpus == 1:
        return shape
    if kind != "spread":
        return {**shape, "sockets" if kind == "any" else kind: vcpus}
    ratio, across = spread(taste)
    if across == "SocketsCores":
        return {**shape, "cores": ratio, "sockets": vcpus // ratio}
    if across == "CoresThreads":
        return {**shape, "threads": ratio, "cores": vcpus // ratio}
    return {"threads": THREADS, "cores": ratio, "sockets": vcpus // THREADS // ratio}


def spread_faults(size: Document | None, taste: Document | None) -> Iterator[Fault]:
    """An instancetype's vCPUs that the preference cannot spread evenly."""
    if not size or layout(taste) != "spread":
        return
    vcpus = int((size.get("cpu") or {}).get("guest") or 1)
    ratio, across = spread(taste)
    step = ratio * THREADS if across == "SocketsCoresThreads" else ratio
    if vcpus > 1 and vcpus % step:
        message = (
            f"{vcpus} vCPUs of the instancetype cannot be spread in steps of {step} as the preference wants: "
            "use another instancetype, or another preference"
        )
        yield invalid("spec.instancetype", message)


# What a guest needs at least


def unmet(spec: Document, size: Document | None, taste: Document | None, *, path: str) -> list[Fault]:
    """Requirements of the preference that the machine does not meet. `path` is where `spec` is."""
    wanted = (taste or {}).get("requirements") or {}
    found: list[Fault] = []
    if least := (wanted.get("cpu") or {}).get("guest"):
        found += _cpu_fault(spec, size, taste, least=int(least), path=f"{path}.domain.cpu")
    if least := (wanted.get("memory") or {}).get("guest"):
        has = (size.get("memory") or {}).get("guest", 0) if size else defaults.guest_memory(spec.get("domain") or {})
        if quantity.parse_bytes(has or 0) < quantity.parse_bytes(least):
            field = "spec.instancetype" if size else f"{path}.domain.memory"
            found.append(invalid(field, f"{_bytes(has or 0)} of memory, and the preference requires {_bytes(least)}"))
    architecture = wanted.get("architecture")
    if architecture and (has := spec.get("architecture") or defaults.ARCHITECTURE) != architecture:
        found.append(invalid(f"{path}.architecture", f"is {has}, and the preference requires {architecture}"))
    return found


def _cpu_fault(
    spec: Document, size: Document | None, taste: Document | None, *, least: int, path: str
) -> Iterator[Fault]:
    if size:
        fields: tuple[str, ...] = ()
        has = int((size.get("cpu") or {}).get("guest") or 0)
    else:
        cpu = (spec.get("domain") or {}).get("cpu") or {}
        kind = layout(taste)
        fields = ("cores", "sockets", "threads") if kind == "any" else (kind,)
        if kind == "spread":
            fields = SPREADS.get(spread(taste)[1], SPREADS["SocketsCores"])
        has = 1
        for field in fields:
            has *= int(cpu.get(field) or 1)
    if has < least:
        told = f" in {' and '.join(fields)}" if fields else ""
        message = f"{has} vCPU{'s' if has != 1 else ''}{told}, and the preference requires {least}"
        yield from (invalid(f"{path}.{field}", message) for field in fields)
        if not fields:
            yield invalid("spec.instancetype", message)


def _bytes(value: Any) -> str:
    return quantity.format_bytes(quantity.parse_bytes(value))


# Filling in


def apply(spec: Document, taste: Document) -> None:
    domain = spec["domain"]
    _cpu_features(domain, taste.get("cpu") or {})
    if devices := taste.get("devices"):
        _devices(spec, domain, devices)
    if features := taste.get("features"):
        _features(domain, features)
    if firmware := taste.get("firmware"):
        _firmware(domain, firmware)
    if kind := (taste.get("machine") or {}).get("preferredMachineType"):
        machine = domain.get("machine") or {}
        domain["machine"] = {**machine, "type": machine.get("type") or kind}
    if clock := taste.get("clock"):
        _clock(domain, clock)
    if (security := taste.get("preferredLaunchSecurity")) is not None and domain.get("launchSecurity") is None:
        domain["launchSecurity"] = security
    _fill(spec, taste, _SPEC)


def _fill(where: Document, given: Document, names: dict[str, str]) -> None:
    """`names`: a field and the preference for it."""
    for field, preferred in names.items():
        if given.get(preferred) not in (None, "") and where.get(field) in (None, ""):
            where[field] = given[preferred]


def _cpu_features(domain: Document, given: Document) -> None:
    if not (preferred := given.get("preferredCPUFeatures")):
        return
    cpu = domain["cpu"] = dict(domain.get("cpu") or {})
    known = {feature.get("name") for feature in cpu.get("features") or ()}
    cpu["features"] = [*(cpu.get("features") or ()), *(f for f in preferred if f.get("name") not in known)]


def _devices(spec: Document, domain: Document, given: Document) -> None:
    devices = domain["devices"] = dict(domain.get("devices") or {})
    _fill(devices, given, _DEVICES)
    if given.get("preferredDisableHotplug") is not None:
        devices["disableHotplug"] = given["preferredDisableHotplug"]
    if (sound := devices.get("sound")) is not None:
        _fill(sound, given, {"model": "preferredSoundModel"})
    if given.get("preferredVideoType"):
        devices["video"] = {**(devices.get("video") or {})}
        _fill(devices["video"], given, {"type": "preferredVideoType"})
    _disks(spec, devices, given)
    _interfaces(spec, devices, given)
    for each in devices.get("inputs") or ():
        _fill(each, given, {"bus": "preferredInputBus", "type": "preferredInputType"})
    if model := given.get("preferredPanicDeviceModel"):
        panic = devices.get("panicDevices") or [{}]
        devices["panicDevices"] = [{**each, "model": each.get("model") or model} for each in panic]
    if (options := given.get("preferredVirtualGPUOptions")) is not None:
        for gpu in devices.get("gpus") or ():
            gpu["virtualGPUOptions"] = gpu.get("virtualGPUOptions") or options


def _disks(spec: Document, devices: Document, given: Document) -> None:
    """Also of disks that the machine is silent about, and that defaults would make with the default bus."""
    preferred = (*_BUSES.values(), *_HARD_DISK.values(), "preferredDiskDedicatedIoThread")
    if not any(given.get(field) is not None for field in preferred):
        return
    disks = devices["disks"] = [*(devices.get("disks") or ()), *defaults.silent_disks(spec)]
    for disk in disks:
        kind = api_disks.target(disk)
        target = disk[kind] = dict(disk.get(kind) or {})
        _fill(target, given, {"bus": _BUSES[kind]})
        if kind == "disk":
            _fill(disk, given, _HARD_DISK)
            if target.get("bus") == "virtio":
                _fill(disk, given, {"dedicatedIOThread": "preferredDiskDedicatedIoThread"})


def _interfaces(spec: Document, devices: Document, given: Document) -> None:
    """Also of the one that a machine gets which is silent about its network."""
    model, masquerade = given.get("preferredInterfaceModel"), given.get("preferredInterfaceMasquerade")
    if not model and masquerade is None:
        return
    if (
        not devices.get("interfaces")
        and not spec.get("networks")
        and devices.get("autoattachPodInterface") is not False
    ):
        devices["interfaces"] = [{"name": "default", "masquerade": {}}]
        spec["networks"] = [{"name": "default", "pod": {}}]
    on_pod = {network.get("name") for network in spec.get("networks") or () if network.get("pod") is not None}
    for each in devices.get("interfaces") or ():
        _fill(each, given, {"model": "preferredInterfaceModel"})
        bound = any(each.get(kind) is not None for kind in _BINDINGS)
        if masquerade is not None and not bound and each.get("name") in on_pod:
            each["masquerade"] = masquerade


_BINDINGS = ("bridge", "masquerade", "sriov", "slirp", "macvtap", "passt", "passtBinding", "binding")


def _features(domain: Document, given: Document) -> None:
    features = domain["features"] = dict(domain.get("features") or {})
    _fill(features, given, _FEATURES)
    if (hyperv := given.get("preferredHyperv")) is not None:
        features["hyperv"] = {**hyperv, **(features.get("hyperv") or {})}


def _firmware(domain: Document, given: Document) -> None:
    firmware = domain["firmware"] = dict(domain.get("firmware") or {})
    loader = firmware["bootloader"] = dict(firmware.get("bootloader") or {})
    free = loader.get("efi") is None and loader.get("bios") is None
    if given.get("preferredUseBios") and free:
        loader["bios"] = {}
    bios = loader.get("bios")
    if bios is not None and given.get("preferredUseBiosSerial") is not None and bios.get("useSerial") is None:
        loader["bios"] = {**bios, "useSerial": given["preferredUseBiosSerial"]}
    free = loader.get("efi") is None and loader.get("bios") is None
    if given.get("preferredEfi") is not None and free:
        loader["efi"] = given["preferredEfi"]  # says all, so the older fields are not asked
    else:
        if given.get("preferredUseEfi") and free:
            loader["efi"] = {}
        efi = loader.get("efi")
        if efi is not None and given.get("preferredUseSecureBoot") is not None and efi.get("secureBoot") is None:
            loader["efi"] = {**efi, "secureBoot": given["preferredUseSecureBoot"]}
    if not loader:
        del firmware["bootloader"]
    if not firmware:
        del domain["firmware"]


def _clock(domain: Document, given: Document) -> None:
    clock = domain["clock"] = dict(domain.get("clock") or {})
    offset = given.get("preferredClockOffset") or {}
    if clock.get("utc") is None and not clock.get("timezone"):
        clock |= {field: offset[field] for field in ("utc", "timezone") if offset.get(field) is not None}
    _fill(clock, given, {"timer": "preferredTimer"})
    if not clock:
        del domain["clock"]
