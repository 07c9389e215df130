"""What whoever edits a VM is warned of at once: that the running guest will not get it. Pure but for the reads.

The same judgement that the controllers make a moment later, in the same words; an edit is never refused for it, since
it holds from the next start.
"""

from collections.abc import Callable, Iterator
from typing import Any

from hotvirt.api import defaults, disks, schemas
from hotvirt.kube.admission import Read
from hotvirt.kube.resources import VMIS
from hotvirt.preconditions import Change, CpuChange, Facts, MemoryChange, VolumeAdd, blockers, check, sentence

Document = dict[str, Any]


def warnings(vm: Document, *, read: Read, kubevirt: Callable[[], Document | None]) -> tuple[str, ...]:
    """Of an edit of a VM whose guest runs."""
    metadata = vm.get("metadata") or {}
    vmi = read(VMIS, str(metadata.get("name") or ""), str(metadata.get("namespace") or ""))
    if vmi is None or (vmi.get("status") or {}).get("phase") != "Running":
        return ()
    facts = Facts.of_cluster(kubevirt())
    found = []
    for field, change in _changes(vm, vmi):
        if blocking := blockers(check(change, vmi, facts)):
            found.append(f"spec.template.spec.{field}: not while the guest runs: {sentence(blocking)}")
    return tuple(found)


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
    known = disks.by_name(vmi["spec"].get("volumes"))
    shown = disks.by_name((wanted.get("devices") or {}).get("disks"))
    for name, volume in disks.by_name(template.get("volumes")).items():
        if name not in known and disks.is_hotpluggable(volume):
            yield f"volumes[{name}]", VolumeAdd(volume, shown.get(name) or {"name": name})


def _says_cpus(domain: Document) -> bool:
    """One with an instance type says nothing of its own."""
    resources = domain.get("resources") or {}
    return bool(domain.get("cpu")) or any((resources.get(kind) or {}).get("cpu") for kind in ("requests", "limits"))
