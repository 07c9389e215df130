"""KubeVirt's cluster roles, and who has them at first. Pure tables.

`admin`, `edit` and `view` of the API take up those of the same name here (aggregation); `migrate` is given to nobody;
`default` and the reading of cluster-wide instancetypes are everybody's who is known to the API. Rules name kinds that
this home does not serve (yet) too, so that a role says the same wherever it is read.
"""

from typing import Any

from hotvirt.home import cdiroles, csiroles
from hotvirt.kube.client import Document
from hotvirt.kube.resources import CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, Resource

SUBRESOURCES, OURS = "subresources.kubevirt.io", "subresources.hotvirt.io"
READ = ["get", "list", "watch"]
EDIT = [*READ, "create", "update", "patch", "delete"]
ADMIN = [*EDIT, "deletecollection"]

CLUSTER_SIZES = ["virtualmachineclusterinstancetypes", "virtualmachineclusterpreferences"]
KINDS: tuple[tuple[str, list[str]], ...] = (
    ("kubevirt.io", ["virtualmachines", "virtualmachineinstances", "virtualmachineinstancepresets",
                     "virtualmachineinstancereplicasets"]),
    ("snapshot.kubevirt.io", ["virtualmachinesnapshots", "virtualmachinesnapshotcontents", "virtualmachinerestores"]),
    ("export.kubevirt.io", ["virtualmachineexports"]),
    ("backup.kubevirt.io", ["virtualmachinebackups", "virtualmachinebackuptrackers"]),
    ("clone.kubevirt.io", ["virtualmachineclones"]),
    ("instancetype.kubevirt.io", ["virtualmachineinstancetypes", "virtualmachinepreferences", *CLUSTER_SIZES]),
    ("pool.kubevirt.io", ["virtualmachinepools"]),
)  # fmt: skip
"""What an editor may make and change."""
READ_ONLY: tuple[tuple[str, list[str]], ...] = (
    ("kubevirt.io", ["virtualmachineinstancemigrations"]),
    ("migrations.kubevirt.io", ["migrationpolicies"]),
)
SCALED = (("kubevirt.io", "virtualmachineinstancereplicasets/scale"), ("pool.kubevirt.io", "virtualmachinepools/scale"))

VM_SAYS = ["expand-spec", "objectgraph"]
"""What a viewer may read of a machine."""
VM_GETS = [*VM_SAYS, "portforward"]
VM_PUTS = ["start", "stop", "restart", "addvolume", "removevolume", "memorydump", "removememorydump", "evacuate/cancel"]
VMI_SAYS = [
    "guestosinfo", "filesystemlist", "userlist", "objectgraph", "sev/fetchcertchain", "sev/querylaunchmeasurement",
]  # fmt: skip
"""What a viewer may read of a guest."""
VMI_GETS = [*VMI_SAYS, "console", "vnc", "portforward", "usbredir"]
VMI_PUTS = [
    "pause", "unpause", "addvolume", "removevolume", "freeze", "unfreeze", "reset", "softreboot", "evacuate/cancel",
    "sev/setupsession", "sev/injectlaunchsecret",
]  # fmt: skip
SCREENSHOT = "vnc/screenshot"
OURS_SAY = ["virtualmachineinstances/guestfacts", "virtualmachines/preconditions"]
"""Of our own group: all that it tells, a viewer may read."""


def roles() -> list[Document]:
    return [
        _role("admin", _writer(ADMIN, [*VMI_GETS, SCREENSHOT], plugins=True)),
        _role("edit", _writer(EDIT, VMI_GETS)),
        _role("view", _viewer()),
        _role("migrate", _migrator()),
        _role("default", [
            _rule("kubevirt.io", ["kubevirts"], ["get", "list"]),
            _rule(SUBRESOURCES, ["version", "guestfs"], ["get", "list"]),
        ]),
        _object(CLUSTER_ROLES, "instancetype.kubevirt.io:view", rules=[
            _rule("instancetype.kubevirt.io", CLUSTER_SIZES, READ),
        ]),
        *cdiroles.roles(),
        *csiroles.roles(),
    ]  # fmt: skip


def bindings() -> list[Document]:
    everybodys = ("kubevirt.io:default", "instancetype.kubevirt.io:view", cdiroles.READER, csiroles.READER)
    return [_to_everybody(name) for name in everybodys]


def _writer(verbs: list[str], gets: list[str], *, plugins: bool = False) -> list[Document]:
    return [
        *(_rule(group, kinds, verbs) for group, kinds in KINDS),
        *([_rule("plugin.kubevirt.io", ["plugins"], verbs)] if plugins else []),
        *(_rule(group, kinds, READ) for group, kinds in READ_ONLY),
        *(_rule(group, [scale], ["get", "update", "patch"]) for group, scale in SCALED),
        _rule(SUBRESOURCES, [*_of("virtualmachines", VM_GETS), *_of("virtualmachineinstances", gets)], ["get"]),
        _rule(SUBRESOURCES, [*_of("virtualmachines", VM_PUTS), *_of("virtualmachineinstances", VMI_PUTS)], ["update"]),
        _rule(SUBRESOURCES, ["expand-vm-spec"], ["update"]),
        _rule(
            OURS, [*_of("virtualmachineinstances", ["guestfacts"]), *_of("virtualmachines", ["preconditions"])], ["get"]
        ),
    ]


def _viewer() -> list[Document]:
    return [
        *(_rule(group, kinds, READ) for group, kinds in (*KINDS, *READ_ONLY)),
        *(_rule(group, [scale], ["get"]) for group, scale in SCALED),
        _rule("plugin.kubevirt.io", ["plugins"], READ),
        _rule("kubevirt.io", ["kubevirts"], ["get", "list"]),
        _rule(SUBRESOURCES, [*_of("virtualmachines", VM_SAYS), *_of("virtualmachineinstances", VMI_SAYS)], ["get"]),
        _rule(SUBRESOURCES, ["expand-vm-spec"], ["update"]),
        _rule(
            OURS, [*_of("virtualmachineinstances", ["guestfacts"]), *_of("virtualmachines", ["preconditions"])], ["get"]
        ),
    ]


def _migrator() -> list[Document]:
    return [
        _rule(SUBRESOURCES, ["virtualmachines/migrate"], ["update"]),
        _rule("kubevirt.io", ["virtualmachineinstancemigrations"], ADMIN),
    ]


def _of(plural: str, verbs: list[str]) -> list[str]:
    return [f"{plural}/{verb}" for verb in verbs]


def _role(name: str, rules: list[Document]) -> Document:
    role = _object(CLUSTER_ROLES, f"kubevirt.io:{name}", rules=rules)
    if name in ("admin", "edit", "view"):
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
