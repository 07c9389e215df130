"""What instancetypes and preferences may say by themselves. Pure. Shapes are the schema's to check."""

from typing import Any

from hotvirt.api import instancetype_preference as preferences
from hotvirt.api import quantity, schemas
from hotvirt.api.faults import Fault, invalid
from hotvirt.api.validation import Checked

Document = dict[str, Any]


def instancetype(obj: Document) -> Checked:
    spec = obj.get("spec") or {}
    if not schemas.fits(spec, "VirtualMachineInstancetypeSpec"):
        return Checked()
    memory, cpu, here = spec.get("memory") or {}, spec.get("cpu") or {}, "spec.memory"
    faults: list[Fault] = []
    if (cpu.get("guest") or 0) < 1:
        faults.append(invalid("spec.cpu.guest", "must be at least 1 vCPU"))
    sizes: dict[str, int] = {}
    for field in ("guest", "maxGuest"):
        if memory.get(field) is None:
            continue
        try:
            sizes[field] = quantity.parse_bytes(memory[field])
        except quantity.QuantityError as error:
            faults.append(invalid(f"{here}.{field}", str(error)))
    if sizes.get("guest", 1) < 1:
        faults.append(invalid(f"{here}.guest", "must be more than 0"))
    if "maxGuest" in sizes and sizes["maxGuest"] < sizes.get("guest", 0):
        faults.append(invalid(f"{here}.maxGuest", "must not be less than guest: raise it, or leave it out"))
    percent = memory.get("overcommitPercent") or 0
    if not 0 <= percent <= 100:
        faults.append(invalid(f"{here}.overcommitPercent", f"{percent} is not a percentage: use 0 to 100"))
    if percent and memory.get("hugepages") is not None:
        faults.append(invalid(f"{here}.overcommitPercent", "hugepages cannot be overcommitted: remove one of them"))
    old = "spec.launchSecurity is deprecated: use a preference's preferredLaunchSecurity"
    return Checked(tuple(faults), (old,) if spec.get("launchSecurity") is not None else ())


def preference(obj: Document) -> Checked:
    spec = obj.get("spec") or {}
    if not schemas.fits(spec, "VirtualMachinePreferenceSpec"):
        return Checked()
    faults: list[Fault] = []
    said = (spec.get("cpu") or {}).get("preferredCPUTopology")
    if said and said not in (*preferences.TOPOLOGIES, *preferences.OLD_TOPOLOGIES):
        message = f"{said[:80]!r} is unknown: use {', '.join(preferences.TOPOLOGIES)}"
        faults.append(invalid("spec.cpu.preferredCPUTopology", message))
    if preferences.layout(spec) == "spread":
        ratio, across = preferences.spread(spec)
        if across not in preferences.SPREADS:
            message = f"{across[:80]!r} is unknown: use {', '.join(preferences.SPREADS)}"
            faults.append(invalid("spec.cpu.spreadOptions.across", message))
        elif across == "CoresThreads" and ratio != preferences.THREADS:
            message = f"is {ratio}, and cores have {preferences.THREADS} threads: use {preferences.THREADS}"
            faults.append(invalid("spec.cpu.spreadOptions.ratio", message))
        elif ratio < 1:
            faults.append(invalid("spec.cpu.spreadOptions.ratio", "must be at least 1"))
    needed = ((spec.get("requirements") or {}).get("memory") or {}).get("guest")
    if needed is not None:
        try:
            quantity.parse_bytes(needed)
        except quantity.QuantityError as error:
            faults.append(invalid("spec.requirements.memory.guest", str(error)))
    new = preferences.OLD_TOPOLOGIES.get(said or "")
    old = f"spec.cpu.preferredCPUTopology: {said} is deprecated: use {new}"
    return Checked(tuple(faults), (old,) if new else ())
