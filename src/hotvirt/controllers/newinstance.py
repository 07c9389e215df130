"""What a VM's start makes: the instance from the template, and the revision that remembers what it was. Pure."""

from hotvirt.controllers import spec as specs
from hotvirt.kube import owners
from hotvirt.kube.client import Document
from hotvirt.kube.resources import CONTROLLER_REVISIONS, VMIS, VMS

REVISION = "hotvirt.io/start-revision"
"""Annotation of an instance: the name of its start revision."""
REVISION_PREFIX = "revision-start-vm-"


def revision_name(vm: Document) -> str:
    return f"{REVISION_PREFIX}{vm['metadata']['uid']}-{vm['metadata'].get('generation', 1)}"


def revision(vm: Document) -> Document:
    return {
        "apiVersion": CONTROLLER_REVISIONS.api_version,
        "kind": CONTROLLER_REVISIONS.kind,
        "metadata": {
            "name": revision_name(vm), "namespace": vm["metadata"]["namespace"],
            "ownerReferences": [owners.reference(VMS, vm)],
        },
        "data": {"spec": vm["spec"]},
        "revision": int(vm["metadata"].get("generation") or 1),
    }  # fmt: skip


def started_spec(found: Document | None) -> Document | None:
    """The template's spec that a revision remembers."""
    if found is None:
        return None
    template = (((found.get("data") or {}).get("spec") or {}).get("template") or {}).get("spec")
    return dict(template) if isinstance(template, dict) else None


def render(vm: Document, *, paused: bool = False) -> Document:
    metadata, template = vm["metadata"], (vm.get("spec") or {}).get("template") or {}
    given = template.get("metadata") or {}
    annotations = {
        **(given.get("annotations") or {}),
        specs.GENERATION: str(metadata.get("generation", 1)),
        REVISION: revision_name(vm),
    }
    spec = dict(template.get("spec") or {})
    if paused:
        spec["startStrategy"] = "Paused"
    return {
        "apiVersion": VMIS.api_version,
        "kind": VMIS.kind,
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "labels": {**(given.get("labels") or {}), "kubevirt.io/vm": metadata["name"]},
            "annotations": annotations,
            "finalizers": [specs.VMI_FINALIZER],
            "ownerReferences": [owners.reference(VMS, vm)],
        },
        "spec": spec,
    }


def is_adoptable(vm: Document, vmi: Document) -> bool:
    """Nobody's instance of the machine's name becomes the machine's."""
    return owners.controller_of(vmi) is None and not (specs.is_deleting(vm) or specs.is_deleting(vmi))


def adoption(vm: Document, vmi: Document) -> Document:
    """Metadata of an instance that becomes the machine's. What the generation said was about another one."""
    references = [*(vmi["metadata"].get("ownerReferences") or ()), owners.reference(VMS, vm)]
    labels = {"kubevirt.io/vm": vm["metadata"]["name"]}
    return {"ownerReferences": references, "labels": labels, "annotations": {specs.GENERATION: "0"}}


def dependence(vmi: Document) -> Document:
    """The owner reference of what is to go with the instance."""
    metadata = vmi["metadata"]
    return {
        "apiVersion": VMIS.api_version, "kind": VMIS.kind, "name": metadata["name"], "uid": metadata["uid"],
    }  # fmt: skip


def switched_on(vm: Document) -> Document:
    """The spec of a halted machine that is to be kept running, in the field that its owner uses."""
    return {"running": True} if "running" in (vm.get("spec") or {}) else {"runStrategy": "Always"}
