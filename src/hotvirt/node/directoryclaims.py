"""What is to be known of claims of the directory classes: names, sizes, formats, who uses them. Pure, but for what a
disk's file itself tells."""

from pathlib import Path

from hotvirt.api import datavolumes
from hotvirt.api import disks as api_disks
from hotvirt.api.quantity import QuantityError, format_bytes, parse_bytes
from hotvirt.kube.client import Document
from hotvirt.kube.informer import Key
from hotvirt.node.volumes import CLAIM_FILES, OWNED, PROVISIONER
from hotvirt.qemu import locks

SECTOR = 512
KEEP_FREE = 256 << 20


def volume_name(claim: Document) -> str:
    """Of the volume that is made for a claim, and its directory's."""
    return f"pvc-{claim['metadata']['uid']}"


def asked_size(claim: Document) -> int:
    """In whole sectors."""
    return -(-parse_bytes(claim["spec"]["resources"]["requests"]["storage"]) // SECTOR) * SECTOR


def disk_format(storage_class: Document) -> str:
    return str((storage_class.get("parameters") or {}).get("format") or "raw")


def disk_name(kind: str) -> str:
    return "disk.qcow2" if kind == "qcow2" else "disk.img"


def is_filled_elsewhere(claim: Document) -> bool:
    """Something is put into it before it is bound, and not here."""
    reference = datavolumes.reference(claim["spec"])
    return datavolumes.is_populated(claim) and (reference or {}).get("kind") != "VolumeSnapshot"


def growth(claim: Document) -> int:
    """Bytes that a claim is to grow to; 0 when it has what it asks for. Pure."""
    try:
        asked = parse_bytes(claim["spec"]["resources"]["requests"]["storage"])
        has = parse_bytes(((claim.get("status") or {}).get("capacity") or {}).get("storage"))
    except (QuantityError, KeyError):
        return 0
    size = -(-asked // SECTOR) * SECTOR
    return size if size > has else 0


def fault(claim: Document) -> str | None:
    """What makes the claim impossible here. Pure."""
    spec = claim["spec"]
    try:
        size = parse_bytes(((spec.get("resources") or {}).get("requests") or {}).get("storage"))
    except QuantityError as error:
        return f"spec.resources.requests.storage: {error}"
    if size <= 0:
        return "spec.resources.requests.storage must be more than nothing, such as 1Gi"
    return None


def persistent_volume(
    claim: Document, storage_class: Document, *, name: str, path: Path, size: int, node: str
) -> Document:
    """Pure."""
    metadata = claim["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {OWNED: PROVISIONER}},
        "spec": {
            "capacity": {"storage": format_bytes(size)},
            "accessModes": claim["spec"]["accessModes"],
            "volumeMode": claim["spec"].get("volumeMode") or "Filesystem",
            "storageClassName": storage_class["metadata"]["name"],
            "persistentVolumeReclaimPolicy": storage_class.get("reclaimPolicy") or "Delete",
            "local": {"path": str(path)},
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": metadata["namespace"],
                "name": metadata["name"], "uid": metadata["uid"],
            },
            "nodeAffinity": {
                "required": {
                    "nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}
                    ]
                }
            },
        },
    }  # fmt: skip


def in_use(directory: Path) -> bool:
    """Whether a QEMU has the disk in there open: its guest must not lose what it writes."""
    for name, _ in CLAIM_FILES:
        try:
            if locks.taken(directory / name, read_only=False, shareable=False):
                return True
        except OSError:
            continue
    return False


def named_by_instance(vmi: Document) -> list[str]:
    """Claims that an instance which has not ended uses."""
    if (vmi.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return []
    namespace = vmi["metadata"].get("namespace") or ""
    names = [api_disks.claim(volume) for volume in vmi["spec"].get("volumes") or ()]
    return [str(Key(namespace, name)) for name in names if name]


def named_for_dump(vm: Document) -> list[str]:
    """The claim that a guest's memory is to be dumped into."""
    name = ((vm.get("status") or {}).get("memoryDumpRequest") or {}).get("claimName")
    return [str(Key(vm["metadata"].get("namespace") or "", name))] if name else []


def named_by_pod(pod: Document) -> list[str]:
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return []
    namespace = pod["metadata"].get("namespace") or ""
    names = [(v.get("persistentVolumeClaim") or {}).get("claimName") for v in pod["spec"].get("volumes") or ()]
    return [str(Key(namespace, name)) for name in names if name]


def parsed(key: str) -> Key:
    namespace, _, name = key.partition("/")
    return Key(namespace, name)


def is_bound(claim: Document) -> bool:
    return (claim.get("status") or {}).get("phase") == "Bound"


def claim_of(volume: Document) -> list[Key]:
    reference = volume["spec"].get("claimRef") or {}
    return [Key(reference["namespace"], reference["name"])] if reference.get("name") else []
