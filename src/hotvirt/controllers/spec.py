"""Reading VirtualMachine and VirtualMachineInstance documents: what controllers ask of them again and again. Pure."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from msgspec import Struct

from hotvirt.api import defaults
from hotvirt.kube import conditions, owners
from hotvirt.kube.client import Document
from hotvirt.kube.times import parse, stamp

VM_FINALIZER = "kubevirt.io/virtualMachineControllerFinalize"
VMI_FINALIZER = "kubevirt.io/foregroundDeleteVirtualMachine"
GENERATION = "kubevirt.io/vm-generation"
FINAL = ("Succeeded", "Failed")
ON_A_NODE = ("Scheduled", "Running")
"""Phases in which the node agent has the guest in its hands."""


class Claim(Struct, frozen=True):
    """A PersistentVolumeClaim that a volume uses; `field` is the volume's path below the VMI's spec."""

    name: str
    volume: str
    field: str
    hotpluggable: bool
    is_data_volume: bool = False


def template_spec(vm: Document) -> Document:
    return ((vm.get("spec") or {}).get("template") or {}).get("spec") or {}


def phase(vmi: Document | None) -> str:
    return str(((vmi or {}).get("status") or {}).get("phase") or "")


def has_guest(vmi: Document) -> bool:
    """A guest runs or is about to; not one that its node says cannot be started."""
    synchronized = conditions.of(vmi, "Synchronized") or {}
    return phase(vmi) == "Running" or (phase(vmi) == "Scheduled" and synchronized.get("status") != "False")


def is_final(vmi: Document) -> bool:
    return phase(vmi) in FINAL


def is_deleting(obj: Document) -> bool:
    return bool(obj["metadata"].get("deletionTimestamp"))


def owns(owner: Document, obj: Document) -> bool:
    reference = owners.controller_of(obj)
    return reference is not None and reference.get("uid") == owner["metadata"]["uid"]


def reached(vmi: Document, wanted: str) -> datetime | None:
    """When the instance came to a phase, if it did."""
    entries = (vmi.get("status") or {}).get("phaseTransitionTimestamps") or ()
    return next((parse(e.get("phaseTransitionTimestamp")) for e in entries if e.get("phase") == wanted), None)


def transitions(vmi: Document, *phases: str, now: datetime) -> list[Document]:
    """`status.phaseTransitionTimestamps` with the phases that are new."""
    known = list((vmi.get("status") or {}).get("phaseTransitionTimestamps") or ())
    names = {entry.get("phase") for entry in known}
    return known + [{"phase": p, "phaseTransitionTimestamp": stamp(now)} for p in phases if p not in names]


def is_paused(vmi: Document) -> bool:
    return conditions.is_true((vmi.get("status") or {}).get("conditions"), "Paused")


# What a VMI's spec (or a template's) asks for. Each tolerates a spec that has not been defaulted.


def domain(spec: Document) -> Document:
    return spec.get("domain") or {}


def resources(spec: Document, kind: str) -> Document:
    """`requests` or `limits` of the domain."""
    return (domain(spec).get("resources") or {}).get(kind) or {}


def guest_memory(spec: Document) -> int | None:
    """Bytes the guest shall see."""
    return defaults.guest_memory(domain(spec))


def huge_pages(spec: Document) -> str:
    """The resource that the guest's memory is of, where that is not plain memory."""
    size = ((domain(spec).get("memory") or {}).get("hugepages") or {}).get("pageSize")
    return f"hugepages-{size}" if size else ""


def sockets(spec: Document) -> int:
    return defaults.sockets(domain(spec))


def vcpus(spec: Document) -> int:
    return sockets(spec) * _count(spec, "cores") * _count(spec, "threads")


def is_dedicated(spec: Document) -> bool:
    """Whether each of its vCPUs is to have a CPU of the host alone."""
    return bool((domain(spec).get("cpu") or {}).get("dedicatedCpuPlacement"))


CLAIM_FIELDS = (
    ("persistentVolumeClaim", "claimName"), ("dataVolume", "name"), ("ephemeral.persistentVolumeClaim", "claimName"),
)  # fmt: skip


def claims(spec: Document) -> Iterator[Claim]:
    """Of PVC, ephemeral and DataVolume volumes; a DataVolume's claim has the DataVolume's name."""
    for volume in spec.get("volumes") or ():
        flat = {
            **volume,
            "ephemeral.persistentVolumeClaim": (volume.get("ephemeral") or {}).get("persistentVolumeClaim"),
        }
        for kind, field in CLAIM_FIELDS:
            source: Any = flat.get(kind)
            if source and source.get(field):
                path = f"volumes[{volume['name']}].{kind}.{field}"
                yield Claim(
                    str(source[field]), str(volume["name"]), path, bool(source.get("hotpluggable")),
                    kind == "dataVolume",
                )  # fmt: skip


def _count(spec: Document, field: str) -> int:
    return int((domain(spec).get("cpu") or {}).get(field) or 1)
