"""What memorydump and removememorydump write into a VM's status, and when they are refused. Pure.

The node that runs the guest carries the request out (`hotvirt.node.memorydump`), phase by phase.
"""

from hotvirt.api import quantity
from hotvirt.kube.client import Document
from hotvirt.kube.errors import BadRequest, Conflict
from hotvirt.webhooks.states import refusal

MIB = 1 << 20
OVERHEAD = 100 * MIB
"""Beyond the memory that is requested."""
FINAL = ("Completed", "Failed")


def claim_of(vm: Document, options: Document) -> str:
    """The claim that the dump goes to: the one asked for, else the one of last time."""
    before = _before(vm).get("claimName")
    asked = options.get("claimName") or before
    if not asked:
        raise BadRequest("Memory dump requires claim name to be set")
    if before and asked != before:
        raise refusal(
            vm, f"can't request memory dump for pvc [{asked}] while pvc [{before}] is still associated as the memory "
            f"dump pvc; let go of it first: memory-dump remove {vm['metadata']['name']}",
            kind="virtualmachine",
        )  # fmt: skip
    return str(asked)


def check_claim(claim: Document, vmi: Document) -> None:
    """Whether it is of a kind that takes files, and of the size that KubeVirt asks for, as virtctl makes claims by that
    rule. Whether there is room in truth the node finds out."""
    spec = claim.get("spec") or {}
    if spec.get("volumeMode") == "Block":
        raise _claim_refusal(claim, "pvc should be filesystem pvc: make one with volumeMode Filesystem")
    if list(spec.get("accessModes") or ()) == ["ReadOnlyMany"]:
        raise _claim_refusal(claim, "pvc access mode can't be read only: make one with ReadWriteOnce")
    asked = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    size, needed = quantity.parse_bytes(asked) if asked else 0, _asked(vmi) + OVERHEAD
    if size < needed:
        raise _claim_refusal(
            claim, f"pvc size [{asked or 0}] should be bigger than [{quantity.format_bytes(needed)}]: "
            "make a larger one",
        )  # fmt: skip
    name = claim["metadata"]["name"]
    for volume in vmi["spec"].get("volumes") or ():
        used = (volume.get("persistentVolumeClaim") or {}).get("claimName") or (volume.get("dataVolume") or {}).get(
            "name"
        )
        if used == name:
            raise _claim_refusal(claim, f"it is volume {volume.get('name')!r} of the VM: take another for the dump")


def request(vm: Document, claim: str) -> Document:
    """The patch of the VM that asks for a dump."""
    before = _before(vm)
    if before.get("phase") == "Dissociating" or before.get("remove"):
        raise refusal(
            vm, f"can't dump memory for pvc [{claim}] a remove memory dump request is in progress",
            kind="virtualmachine",
        )  # fmt: skip
    if before and before.get("phase") not in FINAL:
        raise refusal(vm, f"memory dump request for pvc [{claim}] already in progress", kind="virtualmachine")
    return _status(before, {"claimName": claim, "phase": "Associating"})


def remove(vm: Document) -> Document:
    """The patch of the VM that lets go of the claim."""
    before = _before(vm)
    if not before:
        raise refusal(
            vm, f"can't remove memory dump association for vm {vm['metadata']['name']}, no association found",
            kind="virtualmachine",
        )  # fmt: skip
    if before.get("remove"):
        raise refusal(
            vm, f"memory dump remove request for pvc [{before.get('claimName')}] already exists", kind="virtualmachine"
        )
    return _status({}, {"phase": "Dissociating", "remove": True})


def _before(vm: Document) -> Document:
    found: Document = (vm.get("status") or {}).get("memoryDumpRequest") or {}
    return found


def _status(before: Document, after: Document) -> Document:
    """A merge patch keeps what it does not name."""
    return {"status": {"memoryDumpRequest": {**dict.fromkeys(before), **after}}}


def _asked(vmi: Document) -> int:
    """Bytes of memory the guest's pod asks for, by the VM's own words; 0 where it has none about that."""
    resources = (vmi["spec"].get("domain") or {}).get("resources") or {}
    asked = (resources.get("requests") or {}).get("memory")
    return quantity.parse_bytes(asked) if asked else 0


def _claim_refusal(claim: Document, why: str) -> Conflict:
    name = claim["metadata"]["name"]
    return Conflict(
        f'Operation cannot be fulfilled on persistentvolumeclaim "{name}": {why}', kind="persistentvolumeclaim",
        name=name,
    )  # fmt: skip
