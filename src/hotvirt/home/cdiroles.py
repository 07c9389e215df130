"""CDI's cluster roles: data volumes for those who may edit, and what clients look up before they ask. Pure tables."""

from hotvirt.kube.client import Document
from hotvirt.kube.resources import CLUSTER_ROLES

GROUP, UPLOADS = "cdi.kubevirt.io", "upload.cdi.kubevirt.io"
READER = "cdi.kubevirt.io:config-reader"
KINDS = ["datavolumes", "datasources", "volumeimportsources", "volumeuploadsources", "volumeclonesources"]
READ = ["get", "list", "watch"]
WRITE = [*READ, "create", "update", "patch", "delete", "deletecollection"]


def roles() -> list[Document]:
    editing = [
        _rule(GROUP, KINDS, WRITE),
        _rule(GROUP, ["datavolumes/source"], ["create"]),
        _rule(UPLOADS, ["uploadtokenrequests"], ["create"]),
    ]
    return [
        _role("admin", editing),
        _role("edit", editing),
        _role("view", [_rule(GROUP, KINDS, READ)]),
        {
            **_object(READER),
            "rules": [_rule(GROUP, ["cdiconfigs", "storageprofiles", "cdis"], READ)],
        },
    ]


def _role(name: str, rules: list[Document]) -> Document:
    role = _object(f"{GROUP}:{name}")
    role["metadata"]["labels"] = {f"rbac.authorization.k8s.io/aggregate-to-{name}": "true"}
    return {**role, "rules": rules}


def _object(name: str) -> Document:
    return {"apiVersion": CLUSTER_ROLES.api_version, "kind": CLUSTER_ROLES.kind, "metadata": {"name": name}}


def _rule(group: str, resources: list[str], verbs: list[str]) -> Document:
    return {"apiGroups": [group], "resources": resources, "verbs": verbs}
