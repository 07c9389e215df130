"""What a VirtualMachine or instance may say. Every fault at once, each with its field and its mend. Pure.

The rules are KubeVirt's where they concern what hotvirt does; `support` adds a fault for each field it does not do yet.
Types and required fields are the schema's to check: a document of another shape has no faults here.
"""

import re
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from typing import Any

from msgspec import Struct

from hotvirt.api import (
    schemas,
    support,
    validation_credentials,
    validation_devices,
    validation_filesystems,
    validation_machine,
    validation_network,
    validation_probes,
    validation_sizes,
    validation_volumes,
)
from hotvirt.api.faults import Fault, invalid, not_supported, required

Document = dict[str, Any]

RUN_STRATEGIES = ("Always", "RerunOnFailure", "Manual", "Halted", "Once")
EVICTION_STRATEGIES = ("None", "LiveMigrate", "LiveMigrateIfPossible", "External")
LONGEST_NAME = 63
_MACHINE = re.compile(r"(pc-)?q35(-[A-Za-z0-9._-]+)?|pc(-i440fx-[A-Za-z0-9._-]+)?")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_DNS_POLICIES = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
_DOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\.?")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class Checked(Struct, frozen=True):
    """All that was found: faults refuse the object, warnings go along with it."""

    faults: tuple[Fault, ...] = ()
    warnings: tuple[str, ...] = ()


def virtual_machine(vm: Document) -> Checked:
    spec = vm.get("spec") or {}
    if not schemas.fits(spec, "VirtualMachineSpec"):
        return Checked()
    faults = [*_name(vm), *_run_strategy(spec)]
    around = {field: value for field, value in spec.items() if field != "template"}
    faults += [not_supported(*found) for found in support.refused(around, "VirtualMachineSpec", "spec")]
    if spec.get("updateVolumesStrategy") not in (None, "", "Replacement"):
        message = "only Replacement is offered: stop the machine, replace the volume, start it"
        faults.append(not_supported("spec.updateVolumesStrategy", message))
    template = spec.get("template") or {}
    if not template.get("spec"):
        faults.append(required("spec.template.spec", "say what the machine is: its domain, volumes and networks"))
    else:
        faults += instance_spec(template["spec"], "spec.template.spec")
    warnings = ("spec.running is deprecated: use spec.runStrategy",) if spec.get("running") is not None else ()
    return Checked(tuple(faults), warnings)


def instance(vmi: Document) -> list[Fault]:
    """Faults of a VirtualMachineInstance."""
    return [*_name(vmi), *instance_spec(vmi.get("spec") or {}, "spec")]


def instance_spec(spec: Document, path: str) -> list[Fault]:
    """Faults of a VirtualMachineInstance's spec at `path`."""
    if not schemas.fits(spec, "VirtualMachineInstanceSpec"):
        return []
    domain = spec.get("domain") or {}
    return [
        *(not_supported(*found) for found in support.refused(spec, "VirtualMachineInstanceSpec", path)),
        *validation_sizes.check(domain, f"{path}.domain"),
        *_machine(domain, f"{path}.domain"),
        *validation_machine.check(domain, f"{path}.domain"),
        *validation_devices.check(spec, path),
        *validation_filesystems.check(spec, path),
        *validation_network.check(spec, path),
        *validation_credentials.check(
            spec.get("accessCredentials") or (), spec.get("volumes") or (), f"{path}.accessCredentials"
        ),
        *validation_probes.check(spec, path),
        *_around(spec, path),
    ]


def _name(obj: Document) -> Iterator[Fault]:
    """The name becomes the value of labels, on the instance and its pod."""
    name = (obj.get("metadata") or {}).get("name") or ""
    if len(name) > LONGEST_NAME:
        yield invalid("metadata.name", f"has {len(name)} characters: use at most {LONGEST_NAME}, as in a label")


def _run_strategy(spec: Document) -> Iterator[Fault]:
    running, strategy = spec.get("running"), spec.get("runStrategy")
    if running is not None and strategy:
        yield invalid("spec.running", "running and runStrategy are mutually exclusive: keep runStrategy")
    elif running is None and not strategy:
        yield required("spec.runStrategy", f"must be specified: one of {', '.join(RUN_STRATEGIES)}")
    if strategy == "WaitAsReceiver":
        yield not_supported("spec.runStrategy", "WaitAsReceiver is not supported by hotvirt yet: use Always or Halted")
    elif strategy and strategy not in RUN_STRATEGIES:
        yield invalid("spec.runStrategy", f"{strategy!r} is not a run strategy: use one of {', '.join(RUN_STRATEGIES)}")


def _around(spec: Document, path: str) -> Iterator[Fault]:
    """What is not of the domain."""
    if spec.get("architecture") not in (None, "", "amd64"):
        yield not_supported(f"{path}.architecture", f"{spec['architecture']} guests are not offered: use amd64")
    if spec.get("startStrategy") not in (None, "", "Paused"):
        yield invalid(f"{path}.startStrategy", f"{spec['startStrategy']!r} is unknown: use Paused or leave it out")
    if (reboot := (spec.get("domain") or {}).get("rebootPolicy")) not in (None, "", "Reboot", "Terminate"):
        yield invalid(f"{path}.domain.rebootPolicy", f"{reboot!r} is unknown: use Reboot or Terminate")
    if (eviction := spec.get("evictionStrategy")) not in (None, "", *EVICTION_STRATEGIES):
        yield invalid(f"{path}.evictionStrategy", f"{eviction!r} is unknown: use {', '.join(EVICTION_STRATEGIES)}")
    yield from _panic_devices(((spec.get("domain") or {}).get("devices") or {}).get("panicDevices") or (), path)
    grace = spec.get("terminationGracePeriodSeconds")
    if grace is not None and grace < 0:
        yield invalid(f"{path}.terminationGracePeriodSeconds", "must not be negative: 0 cuts the power at once")
    threads = (spec.get("domain") or {}).get("ioThreadsPolicy")
    if threads not in (None, "", "shared", "auto", "supplementalPool"):
        message = f"{threads!r} is unknown: use shared, auto or supplementalPool"
        yield invalid(f"{path}.domain.ioThreadsPolicy", message)
    yield from _names_in_pod(spec, path)
    for field in ("hostname", "subdomain"):
        if (name := spec.get(field)) and not _LABEL.fullmatch(name):
            yield invalid(
                f"{path}.{field}", f"{name[:80]!r} is not a DNS label: use up to 63 lower case letters, digits and '-'"
            )


def _names_in_pod(spec: Document, path: str) -> Iterator[Fault]:
    """Kubernetes' rules of a pod's DNS."""
    policy, config = spec.get("dnsPolicy"), spec.get("dnsConfig") or {}
    if policy not in (None, "", *_DNS_POLICIES):
        yield not_supported(f"{path}.dnsPolicy", f"{policy!r} is unknown: use {', '.join(_DNS_POLICIES)}")
    servers, searches, here = config.get("nameservers") or (), config.get("searches") or (), f"{path}.dnsConfig"
    if policy == "None" and not servers:
        yield required(f"{here}.nameservers", "name a server: dnsPolicy None takes none from anywhere else")
    if len(servers) > 3:
        yield invalid(f"{here}.nameservers", f"{len(servers)} are too many: name up to 3")
    for index, server in enumerate(servers):
        try:
            ip_address(server)
        except ValueError:
            yield invalid(f"{here}.nameservers[{index}]", f"{server[:80]!r} is not an IP address")
    if len(searches) > 6 or len(" ".join(searches)) > 256:
        yield invalid(f"{here}.searches", "may be up to 6 domains with up to 256 characters in all")
    for index, search in enumerate(searches):
        if not _DOMAIN.fullmatch(search):
            yield invalid(f"{here}.searches[{index}]", f"{search[:80]!r} is not a domain, such as example.org")
    for index, option in enumerate(config.get("options") or ()):
        if not option.get("name"):
            yield required(f"{here}.options[{index}].name", "name the option, such as ndots")


def _panic_devices(devices: Sequence[Document], path: str) -> Iterator[Fault]:
    seen: set[str] = set()
    for index, device in enumerate(devices):
        here, model = f"{path}.domain.devices.panicDevices[{index}].model", device.get("model") or "isa"
        if model == "hyperv":
            yield not_supported(here, "Hyper-V's panic device is not offered: use isa or pvpanic")
        elif model not in ("isa", "pvpanic"):
            yield invalid(here, f"{model!r} is unknown: use isa or pvpanic")
        elif model in seen:
            yield invalid(here, f"a machine has one {model} panic device at most: remove this one")
        seen.add(model)


def is_offered(machine_type: str) -> bool:
    return _MACHINE.fullmatch(machine_type) is not None


def _machine(domain: Document, path: str) -> Iterator[Fault]:
    kind = (domain.get("machine") or {}).get("type") or "q35"
    if not is_offered(kind):
        yield not_supported(f"{path}.machine.type", f"{kind[:80]} machines are not offered: use q35 or pc")
    firmware = domain.get("firmware") or {}
    if (uuid := firmware.get("uuid")) and not _UUID.fullmatch(uuid):
        message = f"{uuid[:80]!r} is not a UUID: write one as uuidgen prints it, or leave it out"
        yield invalid(f"{path}.firmware.uuid", message)
    boot = firmware.get("kernelBoot") or {}
    container, here = boot.get("container"), f"{path}.firmware.kernelBoot"
    if boot.get("kernelArgs") and not (container or {}).get("kernelPath"):
        yield invalid(f"{here}.kernelArgs", "needs a kernel: set container.image and kernelPath")
    if container is not None:
        yield from validation_devices.image(container.get("image") or "", f"{here}.container.image")
        yield from validation_volumes.pull(container, f"{here}.container")
        if not (container.get("kernelPath") or container.get("initrdPath")):
            yield required(f"{here}.container.kernelPath", "say where the kernel is: /boot/vmlinuz")
