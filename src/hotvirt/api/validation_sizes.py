"""How large a machine is and may become: CPUs, memory, requests and limits. Pure."""

import re
from collections.abc import Callable, Iterator
from typing import Any

from hotvirt.api import quantity
from hotvirt.api.defaults import sockets, whole_blocks
from hotvirt.api.faults import Fault, invalid, required
from hotvirt.api.quantity import QuantityError

Document = dict[str, Any]
LEAST_MEMORY = 32 << 20
MOST_VCPUS = 512
_QEMU_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_POLICIES = ("force", "require", "optional", "disable", "forbid")


def check(domain: Document, path: str) -> list[Fault]:
    """Faults of the sizes of a domain at `path`."""
    faults = [*_cpu(domain.get("cpu") or {}, f"{path}.cpu"), *_memory(domain, path), *_cpu_resources(domain, path)]
    return [*faults, *(() if faults else _dedicated(domain, path))]  # which need sizes that make sense


def is_qemu_name(text: str) -> bool:
    """Whether it can be a processor model or feature: not, for one, a name with options behind it."""
    return _QEMU_NAME.fullmatch(text) is not None


def _cpu(cpu: Document, path: str) -> Iterator[Fault]:
    counts = {field: cpu.get(field) for field in ("sockets", "cores", "threads", "maxSockets")}
    for field, value in counts.items():
        if value is not None and value < 1:
            yield invalid(f"{path}.{field}", f"must be at least 1, not {value}")
    sockets, most = counts["sockets"] or 1, counts["maxSockets"]
    if most is not None and sockets > most > 0:
        yield invalid(
            f"{path}.sockets",
            f"{sockets} sockets are more than the most that can be plugged, maxSockets {most}: "
            "lower sockets, or raise maxSockets",
        )
    count = max(sockets, most or 1) * (counts["cores"] or 1) * (counts["threads"] or 1)
    if count > MOST_VCPUS:
        yield invalid(path, f"{count} vCPUs are more than {MOST_VCPUS}: lower maxSockets, cores or threads")
    if (model := cpu.get("model")) and not is_qemu_name(model):
        yield invalid(f"{path}.model", f"{model[:80]!r} is not a processor model: use host-model or a name of QEMU's")
    for index, feature in enumerate(cpu.get("features") or ()):
        name = feature.get("name") or ""
        if not is_qemu_name(name):
            yield invalid(f"{path}.features[{index}].name", f"{name[:80]!r} is not a processor feature, such as vmx")
        if (policy := feature.get("policy")) not in (None, "", *_POLICIES):
            yield invalid(f"{path}.features[{index}].policy", f"{policy!r} is unknown: use {', '.join(_POLICIES)}")


def _memory(domain: Document, path: str) -> list[Fault]:
    faults: list[Fault] = []
    memory, resources = domain.get("memory") or {}, domain.get("resources") or {}
    guest = _amount(memory.get("guest"), f"{path}.memory.guest", faults)
    most = _amount(memory.get("maxGuest"), f"{path}.memory.maxGuest", faults)
    asked = _amount((resources.get("requests") or {}).get("memory"), f"{path}.resources.requests.memory", faults)
    limit = _amount((resources.get("limits") or {}).get("memory"), f"{path}.resources.limits.memory", faults)
    if faults:
        return faults
    sizes = {"memory.guest": guest, "resources.requests.memory": asked, "resources.limits.memory": limit}
    where, size = next(((field, each) for field, each in sizes.items() if each is not None), ("", 0))
    if not where:
        return [required(f"{path}.memory.guest", "say how much memory the guest has, such as 1Gi")]
    if size < LEAST_MEMORY:
        faults.append(invalid(f"{path}.{where}", f"{_text(size)} is too little to boot anything: use at least 32Mi"))
    if most is not None and whole_blocks(size) > whole_blocks(most):
        faults.append(
            invalid(
                f"{path}.{where}",
                f"{_text(size)} is more than maxGuest, {_text(most)}: lower it, or raise memory.maxGuest",
            )
        )
    if limit is not None and asked is not None and asked > limit:
        faults.append(invalid(f"{path}.resources.requests.memory", _over_limit(asked, limit)))
    if limit is not None and guest is not None and guest > limit:
        faults.append(invalid(f"{path}.memory.guest", _over_limit(guest, limit)))
    return faults


def _cpu_resources(domain: Document, path: str) -> list[Fault]:
    faults: list[Fault] = []
    resources, here = domain.get("resources") or {}, f"{path}.resources"
    asked, limit = (
        _amount((resources.get(kind) or {}).get("cpu"), f"{here}.{kind}.cpu", faults, read=quantity.parse_cpu)
        for kind in ("requests", "limits")
    )
    if asked is not None and limit is not None and asked > limit:
        message = f"{quantity.format_cpu(asked)} is more than resources.limits.cpu, {quantity.format_cpu(limit)}"
        faults.append(invalid(f"{here}.requests.cpu", f"{message}: lower it, or raise the limit"))
    return faults


def _dedicated(domain: Document, path: str) -> Iterator[Fault]:
    """Whole CPUs for each vCPU, said in one way."""
    cpu, resources = domain.get("cpu") or {}, domain.get("resources") or {}
    if not cpu.get("dedicatedCpuPlacement"):
        if cpu.get("isolateEmulatorThread"):
            yield invalid(
                f"{path}.cpu.isolateEmulatorThread", "needs dedicatedCpuPlacement: set it, or remove this one"
            )
        return
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    said = any(cpu.get(field) for field in ("sockets", "cores", "threads"))
    if not said and requests.get("cpu") is None and limits.get("cpu") is None:
        yield invalid(
            f"{path}.cpu.dedicatedCpuPlacement", "say how many CPUs: set sockets, cores and threads, or requests.cpu"
        )
    count = sockets(domain) * (cpu.get("cores") or 1) * (cpu.get("threads") or 1)
    amounts = {kind: quantity.parse_cpu(each["cpu"]) for kind, each in (("requests", requests), ("limits", limits))
               if each.get("cpu") is not None}  # fmt: skip
    for kind, milli in amounts.items():
        here = f"{path}.resources.{kind}.cpu"
        if milli % 1000:
            yield invalid(here, f"{quantity.format_cpu(milli)} is no whole number of CPUs, which dedicated ones need")
        elif said and milli != count * 1000:
            yield invalid(here, f"{milli // 1000} is not the number of vCPUs, {count}: leave it out, or make it so")
    if len(set(amounts.values())) > 1:
        yield invalid(f"{path}.resources.requests.cpu", "must equal limits.cpu where CPUs are dedicated")
    asked, limit = requests.get("memory"), limits.get("memory")
    if asked is not None and limit is not None and quantity.parse_bytes(asked) != quantity.parse_bytes(limit):
        yield invalid(f"{path}.resources.requests.memory", "must equal limits.memory where CPUs are dedicated")


def _amount(
    value: Any, path: str, faults: list[Fault], *, read: Callable[[object], int] = quantity.parse_bytes
) -> int | None:
    if value is None:
        return None
    try:
        amount = read(value)
    except QuantityError as error:
        faults.append(invalid(path, str(error)))
        return None
    if amount < 0:
        faults.append(invalid(path, f"must not be negative: {value}"))
        return None
    return amount


def _over_limit(size: int, limit: int) -> str:
    return f"{_text(size)} is more than resources.limits.memory, {_text(limit)}: lower it, or raise the limit"


def _text(size: int) -> str:
    return quantity.format_bytes(size)
