"""What a VirtualMachine or instance may say. Every fault at once, each with its field and its mend. Pure.

Runs after the schema has checked types and required fields. The rules are KubeVirt's where they concern what hotvirt
does; `support` adds a fault for each field it does not do yet.
"""

from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from hotvirt.api import quantity, support, validation_devices
from hotvirt.api.faults import Fault, invalid, not_supported, required
from hotvirt.api.quantity import QuantityError

Document = dict[str, Any]

MIB = 1 << 20
RUN_STRATEGIES = ("Always", "RerunOnFailure", "Manual", "Halted", "Once")


class Checked(Struct, frozen=True):
    """All that was found: faults refuse the object, warnings go along with it."""

    faults: tuple[Fault, ...] = ()
    warnings: tuple[str, ...] = ()


def virtual_machine(vm: Document) -> Checked:
    spec = vm.get("spec") or {}
    faults = [*_run_strategy(spec)]
    for path, sentence in support.refused(
        {k: v for k, v in spec.items() if k != "template"}, "VirtualMachineSpec", "spec"
    ):
        faults.append(not_supported(path, sentence))
    template = spec.get("template") or {}
    if not template.get("spec"):
        faults.append(required("spec.template.spec", "say what the machine is: its domain, volumes and networks"))
    else:
        faults += instance_spec(template["spec"], "spec.template.spec")
    warnings = ("spec.running is deprecated: use spec.runStrategy",) if spec.get("running") is not None else ()
    return Checked(tuple(faults), warnings)


def instance_spec(spec: Document, path: str) -> list[Fault]:
    """Faults of a VirtualMachineInstance's spec at `path`."""
    faults = [not_supported(*found) for found in support.refused(spec, "VirtualMachineInstanceSpec", path)]
    domain = spec.get("domain") or {}
    faults += _cpu(domain.get("cpu") or {}, f"{path}.domain.cpu")
    faults += _memory(domain, f"{path}.domain")
    faults += _machine(domain, f"{path}.domain")
    faults += validation_devices.check(spec, path)
    if spec.get("architecture") not in (None, "", "amd64"):
        faults.append(
            not_supported(f"{path}.architecture", f"{spec['architecture']} guests are not offered: use amd64")
        )
    if spec.get("startStrategy") not in (None, "", "Paused"):
        faults.append(
            invalid(f"{path}.startStrategy", f"{spec['startStrategy']!r} is unknown: use Paused or leave it out")
        )
    grace = spec.get("terminationGracePeriodSeconds")
    if grace is not None and grace < 0:
        faults.append(
            invalid(f"{path}.terminationGracePeriodSeconds", "must not be negative: 0 cuts the power at once")
        )
    return faults


def _run_strategy(spec: Document) -> Iterator[Fault]:
    running, strategy = spec.get("running"), spec.get("runStrategy")
    if running is not None and strategy:
        yield invalid("spec.running", "running and runStrategy are mutually exclusive: keep runStrategy")
    elif running is None and not strategy:
        yield required("spec.runStrategy", f"must be specified: one of {', '.join(RUN_STRATEGIES)}")
    elif strategy and strategy not in RUN_STRATEGIES:
        yield invalid("spec.runStrategy", f"{strategy!r} is not a run strategy: use one of {', '.join(RUN_STRATEGIES)}")


def _cpu(cpu: Document, path: str) -> Iterator[Fault]:
    for field in ("sockets", "cores", "threads", "maxSockets"):
        if (value := cpu.get(field)) is not None and value < 1:
            yield invalid(f"{path}.{field}", f"must be at least 1, not {value}")
    sockets, most = cpu.get("sockets") or 1, cpu.get("maxSockets")
    if most is not None and sockets > most:
        yield invalid(
            f"{path}.sockets",
            f"{sockets} sockets are more than the most that can be plugged, maxSockets {most}: "
            "lower sockets, or raise maxSockets (needs a restart)",
        )
    count = max(sockets, most or 1) * (cpu.get("cores") or 1) * (cpu.get("threads") or 1)
    if count > 512:
        yield invalid(path, f"{count} vCPUs are more than 512: lower maxSockets, cores or threads")
    for index, feature in enumerate(cpu.get("features") or ()):
        if feature.get("policy") not in (None, "", "force", "require", "optional", "disable", "forbid"):
            yield invalid(
                f"{path}.features[{index}].policy",
                f"{feature['policy']!r} is unknown: use force, require, optional, disable or forbid",
            )


def _amount(value: Any, path: str, faults: list[Fault]) -> int | None:
    if value is None:
        return None
    try:
        amount = quantity.parse_bytes(value)
    except QuantityError as error:
        faults.append(invalid(path, str(error)))
        return None
    if amount < 0:
        faults.append(invalid(path, f"must not be negative: {value}"))
        return None
    return amount


def _memory(domain: Document, path: str) -> list[Fault]:
    faults: list[Fault] = []
    memory, resources = domain.get("memory") or {}, domain.get("resources") or {}
    guest = _amount(memory.get("guest"), f"{path}.memory.guest", faults)
    most = _amount(memory.get("maxGuest"), f"{path}.memory.maxGuest", faults)
    asked = _amount((resources.get("requests") or {}).get("memory"), f"{path}.resources.requests.memory", faults)
    limit = _amount((resources.get("limits") or {}).get("memory"), f"{path}.resources.limits.memory", faults)
    if faults:
        return faults
    where = f"{path}.memory.guest" if guest is not None else f"{path}.resources.requests.memory"
    size = guest if guest is not None else asked if asked is not None else limit
    if size is None:
        return [required(f"{path}.memory.guest", "say how much memory the guest has, such as 1Gi")]
    if size < 32 * MIB:
        faults.append(invalid(where, f"{size} bytes are too little to boot anything: use at least 32Mi"))
    elif size % (2 * MIB):
        faults.append(
            invalid(where, f"must be a multiple of 2Mi, the guest's block size: {quantity.format_bytes(size)} is not")
        )
    if most is not None:
        if size > most:
            faults.append(
                invalid(
                    where,
                    f"{quantity.format_bytes(size)} is more than maxGuest, {quantity.format_bytes(most)}: "
                    "lower guest, or raise maxGuest (needs a restart)",
                )
            )
        if most % (2 * MIB):
            faults.append(invalid(f"{path}.memory.maxGuest", "must be a multiple of 2Mi, the guest's block size"))
    if limit is not None and asked is not None and asked > limit:
        faults.append(invalid(f"{path}.resources.requests.memory", "is more than resources.limits.memory: lower it"))
    if limit is not None and guest is not None and guest > limit:
        faults.append(
            invalid(f"{path}.memory.guest", "is more than resources.limits.memory: lower it, or raise the limit")
        )
    return faults


def _machine(domain: Document, path: str) -> Iterator[Fault]:
    kind = (domain.get("machine") or {}).get("type") or "q35"
    if not (kind == "q35" or kind.startswith(("q35-", "pc-q35"))):
        yield not_supported(f"{path}.machine.type", f"{kind} machines are not offered: use q35")
    boot = (domain.get("firmware") or {}).get("kernelBoot") or {}
    container = boot.get("container")
    if boot.get("kernelArgs") and not (container or {}).get("kernelPath"):
        yield invalid(f"{path}.firmware.kernelBoot.kernelArgs", "needs a kernel: set container.image and kernelPath")
    if container is not None and not (container.get("kernelPath") or container.get("initrdPath")):
        yield required(f"{path}.firmware.kernelBoot.container.kernelPath", "say where the kernel is: /boot/vmlinuz")
