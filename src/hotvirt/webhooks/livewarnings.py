"""What whoever edits a VM is warned of at once: that the running guest will not get it. Pure but for the reads.

The same judgement that the controllers make a moment later, in the same words; an edit is never refused for it, since
it holds from the next start.
"""

from collections.abc import Callable, Iterator
from typing import Any

from msgspec import structs

from hotvirt.api import attachments, defaults, disks, quantity, schemas
from hotvirt.kube.admission import Read
from hotvirt.kube.resources import VMIS
from hotvirt.preconditions import (
    Change,
    CpuChange,
    CpuLimit,
    Facts,
    MemoryChange,
    MemoryLimit,
    NicAdd,
    NicLink,
    NicRemove,
    VolumeAdd,
    VolumeRemove,
    blockers,
    check,
    sentence,
)

Document = dict[str, Any]
ABSENT = "absent"


SIZED_BY: dict[type, type] = {MemoryLimit: MemoryChange, CpuLimit: CpuChange}


def warnings(vm: Document, *, read: Read, kubevirt: Callable[[], Document | None]) -> tuple[str, ...]:
    """Of an edit of a VM whose guest runs."""
    metadata = vm.get("metadata") or {}
    vmi = read(VMIS, str(metadata.get("name") or ""), str(metadata.get("namespace") or ""))
    if vmi is None or (vmi.get("status") or {}).get("phase") != "Running":
        return ()
    # A network that is not there is waited for, and told of by the node.
    facts = structs.replace(Facts.of_cluster(kubevirt()), attachments=frozenset(_named(vm)))
    found, over = [], set()
    for field, change in (*_limits(vm, vmi), *_changes(vm, vmi)):
        if isinstance(change, MemoryChange | CpuChange) and type(change) in over:
            continue  # its maximum was the matter
        if blocking := blockers(check(change, vmi, facts)):
            over.add(SIZED_BY.get(type(change)))
            found.append(f"spec.template.spec.{field}: not while the guest runs: {sentence(blocking)}")
        elif isinstance(change, MemoryLimit):  # the size of the same edit is judged by it
            vmi = _with(vmi, "memory", "maxGuest", change.most)
        elif isinstance(change, CpuLimit):
            vmi = _with(vmi, "cpu", "maxSockets", change.sockets)
    return tuple(found)


def _limits(vm: Document, vmi: Document) -> Iterator[tuple[str, Change]]:
    """What the edit declares as the most, where it is raised. Lowering it asks nothing of the guest."""
    template = ((vm.get("spec") or {}).get("template") or {}).get("spec") or {}
    if not schemas.fits(vm.get("spec"), "VirtualMachineSpec"):
        return
    wanted, has = ((spec.get("domain") or {}) for spec in (template, vmi["spec"]))
    said, had = defaults.most_memory(wanted), (has.get("memory") or {}).get("maxGuest")
    if said is not None and (had is not None or said[0] == "memory.maxGuest"):  # a limit is no maximum for who had none
        size = defaults.whole_blocks(quantity.parse_bytes(said[1]))
        if size > (quantity.parse_bytes(had) if had is not None else 0):
            yield f"domain.{said[0]}", MemoryLimit(size)
    most, had = ((domain.get("cpu") or {}).get("maxSockets") for domain in (wanted, has))
    if most is not None and int(most) > int(had or 0):
        yield "domain.cpu.maxSockets", CpuLimit(int(most))


def _with(vmi: Document, block: str, field: str, value: Any) -> Document:
    spec = vmi["spec"]
    domain = {**spec["domain"], block: {**(spec["domain"].get(block) or {}), field: value}}
    return {**vmi, "spec": {**spec, "domain": domain}}


def _changes(vm: Document, vmi: Document) -> Iterator[tuple[str, Change]]:
    """What the edit asks of the running guest."""
    template = ((vm.get("spec") or {}).get("template") or {}).get("spec") or {}
    if not schemas.fits(vm.get("spec"), "VirtualMachineSpec"):
        return
    wanted, has = template.get("domain") or {}, vmi["spec"].get("domain") or {}
    size = defaults.guest_memory(wanted)
    if size is not None and size != defaults.guest_memory(has):
        named = (wanted.get("memory") or {}).get("guest") is not None
        yield "domain.memory.guest" if named else "domain.resources.requests.memory", MemoryChange(size)
    if _says_cpus(wanted) and (count := defaults.sockets(wanted)) != defaults.sockets(has):
        yield "domain.cpu.sockets", CpuChange(count)
    known, asked = disks.by_name(vmi["spec"].get("volumes")), disks.by_name(template.get("volumes"))
    shown = disks.by_name((wanted.get("devices") or {}).get("disks"))
    for name, volume in asked.items():
        if name not in known and disks.is_hotpluggable(volume):
            yield f"volumes[{name}]", VolumeAdd(volume, shown.get(name) or {"name": name})
    for name, volume in known.items():
        if name not in asked and disks.is_hotpluggable(volume):
            yield f"volumes[{name}]", VolumeRemove(name)
    yield from _cards(template, vmi["spec"])


def _cards(template: Document, spec: Document) -> Iterator[tuple[str, Change]]:
    """A card of a second network that is not asked for any more goes, as one that is `absent` does."""
    asked, has = _interfaces(template), _interfaces(spec)
    seconds = {name for name, each in disks.by_name(spec.get("networks")).items() if each.get("multus") is not None}
    for name, card in has.items():
        state = _state(card)
        want = _state(asked[name]) if name in asked else ABSENT if name in seconds else state
        if want != state != ABSENT:
            change = NicRemove(name) if want == ABSENT else NicLink(name, "down" if want == "down" else "up")
            yield f"domain.devices.interfaces[{name}].state", change
    networks = disks.by_name(template.get("networks"))
    for name, card in asked.items():
        network = networks.get(name) or {}
        if (
            network.get("multus") is None
            or _state(card) == ABSENT
            or _state(has.get(name, {"state": ABSENT})) != ABSENT
        ):
            continue
        yield f"domain.devices.interfaces[{name}]", NicAdd(card, network)


def _interfaces(spec: Document) -> dict[str, Document]:
    return disks.by_name(((spec.get("domain") or {}).get("devices") or {}).get("interfaces"))


def _state(interface: Document) -> str:
    return str(interface.get("state") or "up")


def _named(vm: Document) -> Iterator[str]:
    template = ((vm.get("spec") or {}).get("template") or {}).get("spec") or {}
    namespace = str((vm.get("metadata") or {}).get("namespace") or "")
    for _, said in attachments.named(template) if schemas.fits(vm.get("spec"), "VirtualMachineSpec") else ():
        yield attachments.from_within(said, namespace)


def _says_cpus(domain: Document) -> bool:
    """One with an instance type says nothing of its own."""
    resources = domain.get("resources") or {}
    return bool(domain.get("cpu")) or any((resources.get(kind) or {}).get("cpu") for kind in ("requests", "limits"))
