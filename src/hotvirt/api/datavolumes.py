"""Data volumes: what CDI's annotations are called, what a data volume asks for, and what its claim becomes. Pure.

A data volume's claim has its name and is owned by it. What fills the claim reads the source from the owner, never from
an annotation, since admission has judged only the data volume: a claim alone may name sources of its own namespace.
"""

from typing import Any

from msgspec import Struct

from hotvirt.api import quantity
from hotvirt.api.faults import Fault, invalid, not_supported, required
from hotvirt.api.quantity import QuantityError

Document = dict[str, Any]
GROUP = "cdi.kubevirt.io"

# What is said by whoever makes a claim
UPLOAD = f"{GROUP}/storage.upload.target"
CONTENT = f"{GROUP}/storage.contentType"
BIND_NOW = f"{GROUP}/storage.bind.immediate.requested"
CHECKSUM = f"{GROUP}/storage.import.checksum"
POPULATED_FOR = f"{GROUP}/storage.populatedFor"
"""On a claim that has its disk already: the data volume that it is of, and which takes it over."""
PREPOPULATED = f"{GROUP}/storage.prePopulated"
"""On a data volume: its claim is made by somebody else, and never by it."""
POPULATED_BY = "hotvirt.io/populated-by"
"""Another part fills the claim: it puts the whole disk file into the volume's directory, and then touches the claim."""
# What is said by whoever fills it
POD_PHASE = f"{GROUP}/storage.pod.phase"
POD_READY = f"{GROUP}/storage.pod.ready"
RESTARTS = f"{GROUP}/storage.pod.restarts"
RUNNING = f"{GROUP}/storage.condition.running"
RUNNING_REASON = f"{GROUP}/storage.condition.running.reason"
RUNNING_MESSAGE = f"{GROUP}/storage.condition.running.message"
PROGRESS = "hotvirt.io/progress"
SELECTED_NODE = "volume.kubernetes.io/selected-node"

SOURCES = ("blank", "http", "registry", "pvc", "snapshot", "upload")
POPULATORS = {"VolumeImportSource": "import", "VolumeUploadSource": "upload", "VolumeCloneSource": "clone"}
HASHES = {"sha256": 64, "sha512": 128, "sha384": 96, "sha1": 40, "md5": 32}


class Request(Struct, frozen=True):
    """What fills a claim: `kind` is one of SOURCES, `source` its fields, with the namespace of a claim or snapshot."""

    kind: str
    source: Document
    checksum: str = ""


def annotations(obj: Document) -> Document:
    found: Document = (obj.get("metadata") or {}).get("annotations") or {}
    return found


def owner(claim: Document) -> str:
    """The name of the data volume that a claim belongs to."""
    references = (claim.get("metadata") or {}).get("ownerReferences") or ()
    return next(
        (
            str(r["name"])
            for r in references
            if r.get("controller")
            and r.get("kind") == "DataVolume"
            and str(r.get("apiVersion")).startswith(f"{GROUP}/")
        ),
        "",
    )


def owned_by(volume: Document) -> Document:
    """What a claim says of its data volume."""
    metadata = volume["metadata"]
    return {
        "apiVersion": f"{GROUP}/v1beta1", "kind": "DataVolume", "name": metadata["name"], "uid": metadata["uid"],
        "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip


def is_populated(claim: Document) -> bool:
    """Whether something is put into the claim before it is bound."""
    spec, said = claim.get("spec") or {}, annotations(claim)
    return bool(owner(claim) or UPLOAD in said or POPULATED_BY in said or reference(spec))


def reference(spec: Document) -> Document | None:
    """A claim's dataSourceRef or dataSource."""
    found = spec.get("dataSourceRef") or spec.get("dataSource")
    return found if isinstance(found, dict) else None


def request(source: Document, *, checksum: str = "") -> Request | None:
    """Of a data volume's (or import source's) `source`."""
    for kind in SOURCES:
        if (found := source.get(kind)) is not None:
            return Request(kind, found, str(found.get("checksum") or checksum))
    return None


def stands_for(source: Document, namespace: str) -> tuple[Document | None, str]:
    """What a DataSource of this namespace says, with the namespace filled in, or what is wrong with it. It names only
    what is beside it: who may copy from its namespace was asked, and nobody could ask about others."""
    said = {kind: value for kind, value in source.items() if value and kind in ("pvc", "snapshot", "dataSource")}
    if len(said) != 1:
        return None, "its spec.source names neither a claim nor a snapshot, or several: name one"
    ((kind, value),) = said.items()
    if value.get("namespace") not in (None, "", namespace):
        return None, f"its spec.source.{kind}.namespace is not its own: put the DataSource into {value['namespace']}"
    return {kind: {**value, "namespace": namespace}}, ""


def waits_for_consumer(claim: Document, storage_class: Document | None) -> bool:
    """Nothing is made for it yet, as nobody uses it."""
    if (storage_class or {}).get("volumeBindingMode") != "WaitForFirstConsumer":
        return False
    said = annotations(claim)
    return BIND_NOW not in said and SELECTED_NODE not in said


# Checks


def faults(spec: Document, path: str = "spec") -> list[Fault]:
    """Of a data volume's spec that has the schema's shape."""
    found = []
    if (spec.get("pvc") is None) == (spec.get("storage") is None):
        found.append(invalid(path, "needs one of pvc and storage, which say what claim is to be made"))
    if bool(spec.get("source")) == bool(spec.get("sourceRef")):
        found.append(invalid(path, "needs one of source and sourceRef, which say what is to be in it"))
    if spec.get("contentType") == "archive":
        found.append(not_supported(f"{path}.contentType", "archive is not offered: a guest's claim is a disk image"))
    if spec.get("checkpoints"):
        found.append(not_supported(f"{path}.checkpoints", "warm imports are not offered: import in one go"))
    if source := spec.get("source"):
        found += _source(source, f"{path}.source")
    if ref := spec.get("sourceRef"):
        if ref.get("kind") != "DataSource":
            found.append(invalid(f"{path}.sourceRef.kind", f"{str(ref.get('kind'))[:40]!r} is unknown: use DataSource"))
        if not ref.get("name"):
            found.append(required(f"{path}.sourceRef.name", "name the DataSource"))
    has_claim = spec.get("pvc") is not None or spec.get("storage") is not None
    return found + _claim(spec, path) if has_claim else found


def _source(source: Document, path: str) -> list[Fault]:
    given = [kind for kind, value in source.items() if value is not None]
    if len(given) != 1:
        return [invalid(path, f"has {' and '.join(given) or 'nothing'}: name one of {', '.join(SOURCES)}")]
    kind = given[0]
    if kind not in SOURCES:
        return [not_supported(f"{path}.{kind}", f"is not offered here: use {', '.join(SOURCES)}")]
    found, here, said = [], f"{path}.{kind}", source[kind]
    if kind == "http":
        if not str(said.get("url") or "").startswith(("http://", "https://")):
            found.append(invalid(f"{here}.url", "must begin with http:// or https://"))
        if (checksum := said.get("checksum")) and not is_checksum(checksum):
            found.append(invalid(f"{here}.checksum", f"is none of {', '.join(f'{h}:HEX' for h in HASHES)}"))
    if kind == "registry":
        if said.get("imageStream"):
            found.append(not_supported(f"{here}.imageStream", "image streams are OpenShift's: name the image in url"))
        elif not str(said.get("url") or "").startswith("docker://"):
            found.append(invalid(f"{here}.url", "must be docker:// and an image's name with its host"))
    if kind in ("pvc", "snapshot"):
        found += [required(f"{here}.{f}", "say it") for f in ("name", "namespace") if not said.get(f)]
    return found


def is_checksum(text: str) -> bool:
    kind, _, digest = text.partition(":")
    return HASHES.get(kind) == len(digest) and all(c in "0123456789abcdefABCDEF" for c in digest)


def _claim(spec: Document, path: str) -> list[Fault]:
    form = "pvc" if spec.get("pvc") is not None else "storage"
    given = spec.get(form) or {}
    here = f"{path}.{form}"
    size = ((given.get("resources") or {}).get("requests") or {}).get("storage")
    found = []
    if given.get("volumeMode") == "FromStorageProfile" and form == "pvc":
        found.append(invalid(f"{here}.volumeMode", "FromStorageProfile is for storage: say Filesystem or Block"))
    if form == "pvc" and not given.get("accessModes"):
        found.append(required(f"{here}.accessModes", "say how it may be used, such as [ReadWriteOnce]"))
    if size is None:
        if form == "pvc" or not has_size(spec):
            found.append(
                required(f"{here}.resources.requests.storage", "PVC size is missing: say how large it is to be")
            )
        return found
    try:
        if quantity.parse_bytes(size) <= 0:
            found.append(invalid(f"{here}.resources.requests.storage", "must be more than nothing, such as 1Gi"))
    except QuantityError as error:
        found.append(invalid(f"{here}.resources.requests.storage", str(error)))
    return found


def has_size(spec: Document) -> bool:
    """Whether the source says how large a claim must be."""
    source = spec.get("source") or {}
    return bool(spec.get("sourceRef") or source.get("pvc") or source.get("snapshot"))


def foreign(spec: Document, namespace: str) -> list[str]:
    """Namespaces that a data volume takes from, other than its own: whoever makes it must have leave there."""
    source = spec.get("source") or {}
    named = [(source.get(kind) or {}).get("namespace") for kind in ("pvc", "snapshot")]
    named.append((spec.get("sourceRef") or {}).get("namespace"))
    return [str(each) for each in named if each and each != namespace]


# The claim


def claim(volume: Document, *, size: str = "", profile: Document | None = None) -> Document:
    """The claim of a data volume. `size`: what its source has; `profile`: the StorageProfile's status."""
    metadata, spec = volume["metadata"], volume["spec"]
    kept = {k: v for k, v in annotations(volume).items() if k != "kubectl.kubernetes.io/last-applied-configuration"}
    said = {
        **kept,
        CONTENT: spec.get("contentType") or "kubevirt",
        POPULATED_FOR: metadata["name"],
    }
    if (spec.get("source") or {}).get("upload") is not None:
        said[UPLOAD] = ""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "labels": {**(metadata.get("labels") or {}), "app": "containerized-data-importer"},
            "annotations": said,
            "ownerReferences": [owned_by(volume)],
        },
        "spec": dict(spec["pvc"]) if spec.get("pvc") else _from_storage(spec.get("storage") or {}, size, profile),
    }  # fmt: skip


def _from_storage(storage: Document, size: str, profile: Document | None) -> Document:
    sets = (profile or {}).get("claimPropertySets") or [{"accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem"}]
    mode = storage.get("volumeMode")
    fitting = [s for s in sets if mode in (None, "FromStorageProfile", s.get("volumeMode"))] or sets
    asked = ((storage.get("resources") or {}).get("requests") or {}).get("storage")
    resources = storage.get("resources") or {}
    filled = {
        **storage,
        "accessModes": storage.get("accessModes") or fitting[0]["accessModes"],
        "volumeMode": mode if mode in ("Block", "Filesystem") else fitting[0].get("volumeMode") or "Filesystem",
        "resources": {**resources, "requests": {**(resources.get("requests") or {}), "storage": asked or size}},
    }
    return {key: value for key, value in filled.items() if value is not None}
