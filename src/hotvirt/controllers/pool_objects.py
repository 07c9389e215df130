"""Documents that a VirtualMachinePool's controller writes: its machines, its revisions, and what changes them. Pure."""

from collections.abc import Iterator
from copy import deepcopy

from hotvirt.controllers import spec as specs
from hotvirt.controllers.templatediff import merge_patch
from hotvirt.kube import owners
from hotvirt.kube.client import Document
from hotvirt.kube.resources import CONTROLLER_REVISIONS, POOLS, VMS

REVISION = "kubevirt.io/vm-pool-revision-name"
FINALIZER = "pool.kubevirt.io/finalizer"


def revision_name(pool: Document) -> str:
    return f"{pool['metadata']['name']}-{pool['metadata'].get('generation', 1)}"


def revision(pool: Document) -> Document:
    return {
        "apiVersion": CONTROLLER_REVISIONS.api_version,
        "kind": CONTROLLER_REVISIONS.kind,
        "metadata": {
            "name": revision_name(pool),
            "namespace": pool["metadata"]["namespace"],
            "ownerReferences": [owners.reference(POOLS, pool)],
        },
        "data": pool["spec"],
        "revision": int(pool["metadata"].get("generation") or 1),
    }


def revision_of(obj: Document) -> str:
    return str((obj["metadata"].get("labels") or {}).get(REVISION) or "")


def render(pool: Document, at: int, revision: str) -> Document:
    """The machine with the number `at`."""
    metadata, template = pool["metadata"], pool["spec"].get("virtualMachineTemplate") or {}
    given = template.get("metadata") or {}
    made: Document = {
        "apiVersion": VMS.api_version,
        "kind": VMS.kind,
        "metadata": {
            "name": f"{metadata['name']}-{at}",
            "namespace": metadata["namespace"],
            "labels": {**(given.get("labels") or {}), REVISION: revision},
            "annotations": dict(given.get("annotations") or {}),
            "ownerReferences": [owners.reference(POOLS, pool)],
        },
        "spec": numbered(pool["spec"], at, revision),
    }
    if preserves(pool):
        made["metadata"]["finalizers"] = [FINALIZER]
    return made


def number(vm: Document) -> int:
    """The machine's, by its name."""
    _, _, last = str(vm["metadata"]["name"]).rpartition("-")
    return int(last) if last.isdigit() else 0


def numbered(pool_spec: Document, at: int, revision: str) -> Document:
    """The template's spec with the machine's number in the names of what is its own."""
    spec: Document = deepcopy((pool_spec.get("virtualMachineTemplate") or {}).get("spec") or {})
    template = spec.setdefault("template", {})
    metadata = template["metadata"] = dict(template.get("metadata") or {})
    metadata["labels"] = {**(metadata.get("labels") or {}), REVISION: revision}
    renamed: dict[str, str] = {}
    for each in spec.get("dataVolumeTemplates") or ():
        name = str((each.get("metadata") or {}).get("name"))
        renamed[name] = f"{name}-{at}"
        each["metadata"] = {**(each.get("metadata") or {}), "name": renamed[name]}
    naming = pool_spec.get("nameGeneration") or {}
    for volume in (template.get("spec") or {}).get("volumes") or ():
        for source, field in (("persistentVolumeClaim", "claimName"), ("dataVolume", "name")):
            if volume.get(source):
                volume[source][field] = renamed.get(volume[source].get(field), volume[source].get(field))
        if naming.get("appendIndexToConfigMapRefs") and volume.get("configMap"):
            _number(volume["configMap"], "name", at)
        if naming.get("appendIndexToSecretRefs"):
            _number(volume.get("secret"), "secretName", at)
            for source in ("cloudInitNoCloud", "cloudInitConfigDrive"):
                for reference in ("secretRef", "networkDataSecretRef"):
                    _number((volume.get(source) or {}).get(reference), "name", at)
    return spec


def _number(where: Document | None, field: str, at: int) -> None:
    if where and where.get(field):
        where[field] = f"{where[field]}-{at}"


def rewritten(pool: Document, vm: Document, revision: str, *, old: Document | None) -> Document:
    """The merge patch that gives a machine the pool's template. `old` is the one it had, so that what it said and
    says no more goes; labels of others, and what tells the guest which machine it is, stay."""
    at = number(vm)
    wanted = numbered(pool["spec"], at, revision)
    _keep_identity(wanted, vm["spec"])
    given = (pool["spec"].get("virtualMachineTemplate") or {}).get("metadata") or {}
    had = (old or {}).get("metadata") or {}
    metadata: Document = {}
    for field in ("labels", "annotations"):
        gone = dict.fromkeys((had.get(field) or {}).keys() - (given.get(field) or {}).keys())
        metadata[field] = {**gone, **(given.get(field) or {})}
    metadata["labels"][REVISION] = revision
    return {"metadata": metadata, "spec": merge_patch(vm["spec"], wanted)}


def _keep_identity(wanted: Document, has: Document) -> None:
    inner = (has.get("template") or {}).get("spec") or {}
    firmware = (inner.get("domain") or {}).get("firmware") or {}
    kept = {field: firmware[field] for field in ("uuid", "serial") if firmware.get(field)}
    if kept:
        domain = wanted["template"].setdefault("spec", {}).setdefault("domain", {})
        domain["firmware"] = {**(domain.get("firmware") or {}), **kept}


# State that outlasts a machine


def preserves(pool: Document) -> bool:
    """Disks stay when their machine goes."""
    strategy = pool["spec"].get("scaleInStrategy") or {}
    said = ((strategy.get(kind) or {}).get("statePreservation") for kind in ("opportunistic", "proactive"))
    return any(each in ("Offline", "Online") for each in said)


def disks(vm: Document) -> Iterator[tuple[str, str]]:
    """("claim" or "data volume", name) of a machine's disks."""
    named = [each.name for each in specs.claims(specs.template_spec(vm))]
    named += [str((each.get("metadata") or {}).get("name")) for each in vm["spec"].get("dataVolumeTemplates") or ()]
    for name in dict.fromkeys(named):
        yield "claim", name
        yield "data volume", name


def is_marked(obj: Document) -> bool:
    return FINALIZER in (obj["metadata"].get("finalizers") or ())


def marked(obj: Document) -> Document:
    return {"metadata": {"finalizers": [*(obj["metadata"].get("finalizers") or ()), FINALIZER]}}


def unmarked(obj: Document) -> Document:
    left = [each for each in obj["metadata"].get("finalizers") or () if each != FINALIZER]
    return {"metadata": {"finalizers": left or None}}
