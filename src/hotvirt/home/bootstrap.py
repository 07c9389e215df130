"""The objects that a home has from its first start. `objects` is pure; `ensure` writes what differs.

A person may change some of them for good (the KubeVirt object's spec, StorageClasses): those are made once and then
left alone. Roles and the KubeVirt object's status are ours, and follow this version.
"""

from typing import Any

from hotvirt.home import roles
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import AlreadyExists
from hotvirt.kube.resources import (
    CDI_CONFIGS,
    CDIS,
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    KUBEVIRTS,
    NAMESPACES,
    STORAGE_CLASSES,
    VOLUME_SNAPSHOT_CLASSES,
    Resource,
)

NAMESPACE = "kubevirt"
STORAGE_CLASS, WAITING_CLASS = "hotvirt-directory", "hotvirt-directory-wait"
DEFAULT = "storageclass.kubernetes.io/is-default-class"


def made_once() -> list[tuple[Resource, str | None, Document]]:
    """(resource, namespace, object)."""
    return [
        *((NAMESPACES, None, _object(NAMESPACES, name)) for name in ("default", "kube-system", NAMESPACE)),
        (KUBEVIRTS, NAMESPACE, _object(KUBEVIRTS, "kubevirt", spec={"configuration": {}})),
        (STORAGE_CLASSES, None, _storage_class(STORAGE_CLASS, "Immediate")),
        (STORAGE_CLASSES, None, _storage_class(WAITING_CLASS, "WaitForFirstConsumer")),
        (CDIS, None, _object(CDIS, "cdi", spec={})),
        (CDI_CONFIGS, None, _object(CDI_CONFIGS, "config", spec={})),
        (VOLUME_SNAPSHOT_CLASSES, None, _snapshot_class()),
    ]


def kept_current() -> list[tuple[Resource, Document]]:
    return [
        *((CLUSTER_ROLES, role) for role in roles.roles()),
        *((CLUSTER_ROLE_BINDINGS, each) for each in roles.bindings()),
    ]


def kubevirt_status(generation: int, version: str) -> Document:
    conditions = {"Available": "True", "Created": "True", "Progressing": "False", "Degraded": "False"}
    return {
        "phase": "Deployed",
        "observedGeneration": generation,
        "operatorVersion": version,
        "observedKubeVirtVersion": version,
        "targetKubeVirtVersion": version,
        "conditions": [{"type": kind, "status": status} for kind, status in conditions.items()],
    }


async def ensure(client: Client, *, version: str) -> None:
    is_new = False
    for resource, namespace, obj in made_once():
        try:
            await client.create(resource, obj, namespace)
        except AlreadyExists:
            continue
        is_new = is_new or obj["metadata"]["name"] == WAITING_CLASS
    for resource, obj in kept_current():
        try:
            await client.create(resource, obj)
        except AlreadyExists:
            await client.patch(resource, obj["metadata"]["name"], obj)
    if is_new:
        await _with_default_class(client)
    await _cdi_status(client, version)
    current = await client.get(KUBEVIRTS, "kubevirt", NAMESPACE)
    status = kubevirt_status(current["metadata"].get("generation", 1), version)
    if current.get("status") != status:
        await client.patch(KUBEVIRTS, "kubevirt", {"status": status}, NAMESPACE, subresource="status")


def _storage_class(name: str, binding: str) -> Document:
    """Claims are files in the home's `volumes` directory."""
    return _object(
        STORAGE_CLASSES, name, provisioner="hotvirt.io/directory", parameters={"format": "raw"},
        reclaimPolicy="Delete", volumeBindingMode=binding, allowVolumeExpansion=True,
    )  # fmt: skip


async def _with_default_class(client: Client) -> None:
    """Claims that name no class wait for their first consumer, unless somebody has chosen another default."""
    classes = (await client.list(STORAGE_CLASSES))["items"]
    if any((each["metadata"].get("annotations") or {}).get(DEFAULT) == "true" for each in classes):
        return
    await client.patch(STORAGE_CLASSES, WAITING_CLASS, {"metadata": {"annotations": {DEFAULT: "true"}}})


async def _cdi_status(client: Client, version: str) -> None:
    """Clients look whether data volumes are offered, and which share of a claim its file system takes: none."""
    conditions = {"Available": "True", "Progressing": "False", "Degraded": "False"}
    status = {
        "phase": "Deployed",
        "operatorVersion": version,
        "observedVersion": version,
        "targetVersion": version,
        "conditions": [{"type": kind, "status": word} for kind, word in conditions.items()],
    }
    await client.patch(CDIS, "cdi", {"status": status}, subresource="status")
    overhead = {"filesystemOverhead": {"global": "0"}, "scratchSpaceStorageClass": STORAGE_CLASS}
    await client.patch(CDI_CONFIGS, "config", {"status": overhead}, subresource="status")


def _snapshot_class() -> Document:
    made = _object(VOLUME_SNAPSHOT_CLASSES, STORAGE_CLASS, driver="hotvirt.io/directory", deletionPolicy="Delete")
    made["metadata"]["annotations"] = {"snapshot.storage.kubernetes.io/is-default-class": "true"}
    return made


def _object(resource: Resource, name: str, **fields: Any) -> Document:
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name}, **fields}
