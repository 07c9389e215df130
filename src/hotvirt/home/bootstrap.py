"""The objects that a home has from its first start. `objects` is pure; `ensure` writes what differs.

A person may change some of them for good (the KubeVirt object's spec, StorageClasses): those are made once and then
left alone. Roles and the KubeVirt object's status are ours, and follow this version.
"""

from typing import Any

from hotvirt.home import roles
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import AlreadyExists
from hotvirt.kube.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    KUBEVIRTS,
    NAMESPACES,
    STORAGE_CLASSES,
    VOLUME_SNAPSHOT_CLASSES,
    Resource,
)

NAMESPACE = "kubevirt"
STORAGE_CLASS = "hotvirt-directory"


def made_once() -> list[tuple[Resource, str | None, Document]]:
    """(resource, namespace, object)."""
    return [
        *((NAMESPACES, None, _object(NAMESPACES, name)) for name in ("default", "kube-system", NAMESPACE)),
        (KUBEVIRTS, NAMESPACE, _object(KUBEVIRTS, "kubevirt", spec={"configuration": {}})),
        (STORAGE_CLASSES, None, _storage_class()),
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
    for resource, namespace, obj in made_once():
        try:
            await client.create(resource, obj, namespace)
        except AlreadyExists:
            continue
    for resource, obj in kept_current():
        try:
            await client.create(resource, obj)
        except AlreadyExists:
            await client.patch(resource, obj["metadata"]["name"], obj)
    current = await client.get(KUBEVIRTS, "kubevirt", NAMESPACE)
    status = kubevirt_status(current["metadata"].get("generation", 1), version)
    if current.get("status") != status:
        await client.patch(KUBEVIRTS, "kubevirt", {"status": status}, NAMESPACE, subresource="status")


def _storage_class() -> Document:
    """Claims are files in the home's `volumes` directory. Bound at once: there is one node."""
    storage = _object(
        STORAGE_CLASSES, STORAGE_CLASS, provisioner="hotvirt.io/directory", parameters={"format": "raw"},
        reclaimPolicy="Delete", volumeBindingMode="Immediate", allowVolumeExpansion=True,
    )  # fmt: skip
    storage["metadata"]["annotations"] = {"storageclass.kubernetes.io/is-default-class": "true"}
    return storage


def _snapshot_class() -> Document:
    made = _object(VOLUME_SNAPSHOT_CLASSES, STORAGE_CLASS, driver="hotvirt.io/directory", deletionPolicy="Delete")
    made["metadata"]["annotations"] = {"snapshot.storage.kubernetes.io/is-default-class": "true"}
    return made


def _object(resource: Resource, name: str, **fields: Any) -> Document:
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name}, **fields}
