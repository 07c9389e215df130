"""The objects that a home has from its first start. `objects` is pure; `ensure` writes what differs.

A person may change some of them for good (the KubeVirt object's spec, StorageClasses): those are made once and then
left alone. Roles and the KubeVirt object's status are ours, and follow this version.
"""

from typing import Any

from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import AlreadyExists
from hotvirt.kube.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    KUBEVIRTS,
    NAMESPACES,
    STORAGE_CLASSES,
    Resource,
)

NAMESPACE = "kubevirt"
STORAGE_CLASS = "hotvirt-directory"
READ, WRITE = ["get", "list", "watch"], ["get", "list", "watch", "create", "update", "patch", "delete"]
VM_VERBS = ["start", "stop", "restart", "addvolume", "removevolume"]
VMI_PUTS = ["pause", "unpause", "softreboot", "addvolume", "removevolume"]
VMI_READS = ["guestosinfo", "guestfacts"]
VMI_STREAMS = ["console", "vnc"]
SIZES = ["virtualmachineinstancetypes", "virtualmachinepreferences"]
CLUSTER_SIZES = ["virtualmachineclusterinstancetypes", "virtualmachineclusterpreferences"]
CLUSTER_SIZES_ROLE = "instancetype.kubevirt.io:view"


def made_once() -> list[tuple[Resource, str | None, Document]]:
    """(resource, namespace, object)."""
    return [
        *((NAMESPACES, None, _object(NAMESPACES, name)) for name in ("default", "kube-system", NAMESPACE)),
        (KUBEVIRTS, NAMESPACE, _object(KUBEVIRTS, "kubevirt", spec={"configuration": {}})),
        (STORAGE_CLASSES, None, _storage_class()),
    ]


def kept_current() -> list[tuple[Resource, Document]]:
    bindings = [_to_everybody(name) for name in ("kubevirt.io:default", CLUSTER_SIZES_ROLE)]
    return [*((CLUSTER_ROLES, role) for role in roles()), *((CLUSTER_ROLE_BINDINGS, each) for each in bindings)]


def roles() -> list[Document]:
    """KubeVirt's: what an administrator, an editor, a viewer of a namespace, and anybody may do."""
    everything = [*VMI_READS, *VMI_STREAMS]
    return [
        _role("admin", kinds=[*WRITE, "deletecollection"], update=True, get=everything),
        _role("edit", kinds=WRITE, update=True, get=everything),
        _role("view", kinds=READ, update=False, get=VMI_READS),
        _object(
            CLUSTER_ROLES,
            "kubevirt.io:default",
            rules=[
                _rule("kubevirt.io", ["kubevirts"], ["get", "list"]),
                _rule("subresources.kubevirt.io", ["version", "guestfs"], ["get", "list"]),
            ],
        ),
        _object(CLUSTER_ROLES, CLUSTER_SIZES_ROLE, rules=[_rule("instancetype.kubevirt.io", CLUSTER_SIZES, READ)]),
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
        reclaimPolicy="Delete", volumeBindingMode="Immediate", allowVolumeExpansion=False,
    )  # fmt: skip
    storage["metadata"]["annotations"] = {"storageclass.kubernetes.io/is-default-class": "true"}
    return storage


def _role(name: str, *, kinds: list[str], update: bool, get: list[str]) -> Document:
    of_vmi = [f"virtualmachineinstances/{verb}" for verb in get]
    scale = ["get", "update", "patch"] if update else ["get"]
    rules = [
        _rule(
            "kubevirt.io",
            ["virtualmachines", "virtualmachineinstances", "virtualmachineinstancereplicasets"],
            kinds,
        ),
        _rule("kubevirt.io", ["virtualmachineinstancereplicasets/scale"], scale),
        _rule("pool.kubevirt.io", ["virtualmachinepools"], kinds),
        _rule("pool.kubevirt.io", ["virtualmachinepools/scale"], scale),
        _rule("instancetype.kubevirt.io", [*CLUSTER_SIZES, *SIZES], kinds),
        _rule("subresources.kubevirt.io", of_vmi, ["get"]),
        _rule("subresources.hotvirt.io", of_vmi, ["get"]),
    ]
    if update:
        verbs = [f"virtualmachines/{verb}" for verb in VM_VERBS]
        verbs += [f"virtualmachineinstances/{verb}" for verb in VMI_PUTS]
        rules.append(_rule("subresources.kubevirt.io", verbs, ["update"]))
    role = _object(CLUSTER_ROLES, f"kubevirt.io:{name}", rules=rules)
    role["metadata"]["labels"] = {f"rbac.authorization.k8s.io/aggregate-to-{name}": "true"}
    return role


def _to_everybody(name: str) -> Document:
    """A role for whoever is known to the API, bound under its own name."""
    group = "rbac.authorization.k8s.io"
    return _object(
        CLUSTER_ROLE_BINDINGS,
        name,
        roleRef={"apiGroup": group, "kind": "ClusterRole", "name": name},
        subjects=[{"apiGroup": group, "kind": "Group", "name": "system:authenticated"}],
    )


def _rule(group: str, resources: list[str], verbs: list[str]) -> Document:
    return {"apiGroups": [group], "resources": resources, "verbs": verbs}


def _object(resource: Resource, name: str, **fields: Any) -> Document:
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name}, **fields}
