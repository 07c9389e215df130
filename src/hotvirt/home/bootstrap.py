"""The objects that a home has from its first start. `objects` is pure; `ensure` writes what differs.

A person may change some of them for good (the KubeVirt object's spec, StorageClasses): those are made once and then
left alone. Instancetypes and preferences may even be deleted for good: which of them a home was given is noted in a
config map. Roles and the KubeVirt object's status are ours, and follow this version.
"""

import asyncio
from typing import Any

from hotvirt.home import commonsizes, roles
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import AlreadyExists, NotFound
from hotvirt.kube.resources import (
    CDI_CONFIGS,
    CDIS,
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CONFIG_MAPS,
    KUBEVIRTS,
    NAMESPACES,
    STORAGE_CLASSES,
    VOLUME_SNAPSHOT_CLASSES,
    Resource,
)

NAMESPACE = "kubevirt"
STORAGE_CLASS, WAITING_CLASS = "hotvirt-directory", "hotvirt-directory-wait"
DEFAULT = "storageclass.kubernetes.io/is-default-class"
GIVEN = "hotvirt-given"
"""The config map. Who deletes it has what is missing made anew at the next start."""


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


def kubevirt_status(generation: int, version: str, speaks: str) -> Document:
    """`speaks`: the KubeVirt whose API this is. Scripts take it for the version of virtctl to fetch."""
    conditions = {"Available": "True", "Created": "True", "Progressing": "False", "Degraded": "False"}
    return {
        "phase": "Deployed",
        "observedGeneration": generation,
        "operatorVersion": version,
        "observedKubeVirtVersion": speaks,
        "targetKubeVirtVersion": speaks,
        "defaultArchitecture": "amd64",
        "conditions": [{"type": kind, "status": status} for kind, status in conditions.items()],
    }


async def ensure(client: Client, *, version: str, speaks: str = "") -> None:
    had_class = False
    for resource, namespace, obj in made_once():
        if had_class and obj["metadata"]["name"] == WAITING_CLASS:
            obj["metadata"].pop("annotations")  # an older home: its default stays what it was, or was changed to
        try:
            await client.create(resource, obj, namespace)
        except AlreadyExists:
            had_class = had_class or (obj["metadata"]["name"] == STORAGE_CLASS and resource == STORAGE_CLASSES)
    for resource, obj in kept_current():
        try:
            await client.create(resource, obj)
        except AlreadyExists:
            await client.patch(resource, obj["metadata"]["name"], obj)
    await _give_common_sizes(client)
    await _cdi_status(client, version)
    current = await client.get(KUBEVIRTS, "kubevirt", NAMESPACE)
    status = kubevirt_status(current["metadata"].get("generation", 1), version, speaks or version)
    if current.get("status") != status:
        await client.patch(KUBEVIRTS, "kubevirt", {"status": status}, NAMESPACE, subresource="status")


async def _give_common_sizes(client: Client) -> None:
    """Those that this home was not given yet: all of them at its first start, later what a new version brings."""
    try:
        noted = (await client.get(CONFIG_MAPS, GIVEN, NAMESPACE)).get("data") or {}
    except NotFound:
        noted = None
    given = {(kind, name) for kind, names in (noted or {}).items() for name in names.split()}
    wanted = commonsizes.objects()
    new = [each for each in wanted if (each[0].plural, each[1]["metadata"]["name"]) not in given]
    if not new:
        return
    async with asyncio.TaskGroup() as group:  # one commit, not one for each
        for resource, obj in new:
            group.create_task(_create(client, resource, obj))
    names: dict[str, set[str]] = {}
    for kind, name in (*given, *((resource.plural, obj["metadata"]["name"]) for resource, obj in new)):
        names.setdefault(kind, set()).add(name)
    data = {kind: " ".join(sorted(each)) for kind, each in names.items()}
    if noted is None:
        await client.create(CONFIG_MAPS, _object(CONFIG_MAPS, GIVEN, data=data), NAMESPACE)
    else:
        await client.patch(CONFIG_MAPS, GIVEN, {"data": data}, NAMESPACE)


async def _create(client: Client, resource: Resource, obj: Document) -> None:
    try:
        await client.create(resource, obj)
    except AlreadyExists:
        pass  # a person's own, or of a start that did not come to its end


def _storage_class(name: str, binding: str) -> Document:
    """Claims are files in the home's `volumes` directory. Those that name no class wait for their first consumer."""
    made = _object(
        STORAGE_CLASSES, name, provisioner="hotvirt.io/directory", parameters={"format": "raw"},
        reclaimPolicy="Delete", volumeBindingMode=binding, allowVolumeExpansion=True,
    )  # fmt: skip
    if name == WAITING_CLASS:
        made["metadata"]["annotations"] = {DEFAULT: "true"}
    return made


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
    overhead = {"filesystemOverhead": {"global": "0"}, "scratchSpaceStorageClass": STORAGE_CLASS}
    for resource, name, wanted in ((CDIS, "cdi", status), (CDI_CONFIGS, "config", overhead)):
        has = (await client.get(resource, name)).get("status") or {}
        if any(has.get(field) != value for field, value in wanted.items()):
            await client.patch(resource, name, {"status": wanted}, subresource="status")


def _snapshot_class() -> Document:
    made = _object(VOLUME_SNAPSHOT_CLASSES, STORAGE_CLASS, driver="hotvirt.io/directory", deletionPolicy="Delete")
    made["metadata"]["annotations"] = {"snapshot.storage.kubernetes.io/is-default-class": "true"}
    return made


def _object(resource: Resource, name: str, **fields: Any) -> Document:
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name}, **fields}
