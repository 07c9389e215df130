"""What an export offers: its disks and manifests, and where. Pure."""

import base64
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from hotvirt.api import snapshots

Document = dict[str, Any]
PREFIX = "/api/export.kubevirt.io/"
HEADER = "x-kubevirt-export-token"
TTL = 7200.0
MANIFESTS = {"all": "all", "auth-header-secret": "secret"}
"""A manifest's type, and its last part in the URL."""


DUMP = "MemoryDump"


class Disk(Struct, frozen=True):
    """`volume` is its name in links; `kind` says whether `name` is a claim's or a VolumeSnapshot's. Of kind `DUMP` it
    is the file with a guest's memory in a claim, which is offered as an archive."""

    volume: str
    kind: str
    name: str


class Wanted(Struct, frozen=True):
    """What a URL of an export names: a volume, or a manifest."""

    namespace: str
    name: str
    volume: str = ""
    is_zipped: bool = False
    is_archive: bool = False
    manifest: str = ""


def of_claim(name: str) -> list[Disk]:
    return [Disk(name, "PersistentVolumeClaim", name)]


def of_claim_with(name: str, vms: Iterable[Document]) -> list[Disk]:
    """`vms`: all machines of its namespace, as one may have dumped its memory there."""
    requests = [(vm.get("status") or {}).get("memoryDumpRequest") or {} for vm in vms]
    dumped = any(r.get("claimName") == name and r.get("phase") == "Completed" for r in requests)
    return [Disk(name, DUMP, name)] if dumped else of_claim(name)


def of_machine(vm: Document) -> list[Disk]:
    """By claim, as KubeVirt has it."""
    return [each for claim in snapshots.claims(vm).values() for each in of_claim(claim)]


def of_content(content: Document) -> list[Disk]:
    backups = (content.get("spec") or {}).get("volumeBackups") or ()
    return [
        Disk(b["persistentVolumeClaim"]["metadata"]["name"], "VolumeSnapshot", b["volumeSnapshotName"]) for b in backups
    ]


def links(export: Document, disks: Sequence[Disk], *, base: str, cert: str, has_machine: bool) -> Document:
    """`base`: the server, such as https://127.0.0.1:6443; `cert`: of who signed its certificate."""
    metadata = export["metadata"]
    here = f"{base}{PREFIX}v1/namespaces/{metadata['namespace']}/virtualmachineexports/{metadata['name']}"
    found: Document = {
        "cert": cert,
        "volumes": [
            {
                "name": disk.volume,
                "formats": [
                    {"format": form, "url": f"{here}/volumes/{disk.volume}/{file}"} for form, file in _formats(disk)
                ],
            }
            for disk in disks
        ],
    }
    if has_machine:
        found["manifests"] = [{"type": kind, "url": f"{here}/manifests/{part}"} for kind, part in MANIFESTS.items()]
    return found


def _formats(disk: Disk) -> list[tuple[str, str]]:
    if disk.kind == DUMP:
        return [("tar.gz", "disk.tar.gz")]
    return [("raw", "disk.img"), ("gzip", "disk.img.gz")]


def parse(path: str) -> Wanted | None:
    """Of a URL below `PREFIX`; None for one that leads nowhere."""
    match path.removeprefix(PREFIX).split("/"):
        case [_, "namespaces", namespace, "virtualmachineexports", name, "volumes", volume, "disk.img"]:
            return Wanted(namespace, name, volume)
        case [_, "namespaces", namespace, "virtualmachineexports", name, "volumes", volume, "disk.img.gz"]:
            return Wanted(namespace, name, volume, is_zipped=True)
        case [_, "namespaces", namespace, "virtualmachineexports", name, "volumes", volume, "disk.tar.gz"]:
            return Wanted(namespace, name, volume, is_zipped=True, is_archive=True)
        case [_, "namespaces", namespace, "virtualmachineexports", name, "manifests", part]:
            return Wanted(namespace, name, manifest=part) if part in MANIFESTS.values() else None
    return None


def token_secret(export: Document) -> str:
    """The Secret that holds the token."""
    named = export["spec"].get("tokenSecretRef") or (export.get("status") or {}).get("tokenSecretRef")
    return str(named or f"export-token-{export['metadata']['name']}")


def token(secret: Document) -> str:
    return base64.b64decode((secret.get("data") or {}).get("token") or "").decode(errors="replace")


def manifests(export: Document, machine: Document, sizes: dict[str, int]) -> list[Document]:
    """The machine as it can be made elsewhere: its disks are fetched from the export. `sizes`: bytes by volume."""
    name, link = export["metadata"]["name"], export["status"]["links"]["external"]
    urls = {v["name"]: next(f["url"] for f in v["formats"] if f["format"] == "gzip") for v in link["volumes"]}
    spec = machine["spec"]
    claims = snapshots.claims(machine)
    template = spec["template"]
    volumes = [
        {"name": v["name"], "dataVolume": {"name": claims[v["name"]]}} if v["name"] in claims else v
        for v in template["spec"].get("volumes") or ()
    ]
    data_volumes = [
        {
            "metadata": {"name": claim},
            "spec": {
                "source": {
                    "http": {
                        "url": urls[claim],
                        "certConfigMap": f"export-ca-cm-{name}",
                        "secretExtraHeaders": [f"header-secret-{name}"],
                    }
                },
                "storage": {"resources": {"requests": {"storage": str(sizes[claim])}}},
            },
        }
        for claim in claims.values()
        if claim in urls
    ]
    kept = {k: v for k, v in spec.items() if k not in ("dataVolumeTemplates", "running", "runStrategy")}
    metadata = machine.get("metadata") or {}
    new = {
        **kept,
        "runStrategy": "Halted",
        "dataVolumeTemplates": data_volumes,
        "template": {**template, "spec": {**template["spec"], "volumes": volumes}},
    }
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"export-ca-cm-{name}"},
         "data": {"ca.pem": link["cert"]}},
        {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine",
         "metadata": {"name": metadata.get("name"), "labels": dict(metadata.get("labels") or {})}, "spec": new},
    ]  # fmt: skip


def header_secret(export: Document, secret: Document) -> Document:
    """What brings the token along when the disks are fetched."""
    name = f"header-secret-{export['metadata']['name']}"
    return {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
        "stringData": {"token": f"{HEADER}:{token(secret)}"},
    }  # fmt: skip
