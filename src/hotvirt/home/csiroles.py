"""Who may take VolumeSnapshots. Pure tables.

The CSI snapshotter brings roles for its own controllers only, so these follow what distributions of Kubernetes add to
it: who may make claims in a namespace may take snapshots of them, and whoever is known to the API may read the classes
by which that is done. Contents have no namespace and stay the administrator's, as volumes are.
"""

from hotvirt.kube.client import Document
from hotvirt.kube.resources import CLUSTER_ROLES

GROUP = "snapshot.storage.k8s.io"
READER = f"{GROUP}:class-reader"
READ = ["get", "list", "watch"]
EDIT = [*READ, "create", "update", "patch", "delete"]


def roles() -> list[Document]:
    return [
        *(
            _role(name, verbs)
            for name, verbs in (("admin", [*EDIT, "deletecollection"]), ("edit", EDIT), ("view", READ))
        ),
        {**_object(READER), "rules": [_rule("volumesnapshotclasses", READ)]},
    ]


def _role(name: str, verbs: list[str]) -> Document:
    role = _object(f"{GROUP}:{name}")
    role["metadata"]["labels"] = {f"rbac.authorization.k8s.io/aggregate-to-{name}": "true"}
    return {**role, "rules": [_rule("volumesnapshots", verbs)]}


def _object(name: str) -> Document:
    return {"apiVersion": CLUSTER_ROLES.api_version, "kind": CLUSTER_ROLES.kind, "metadata": {"name": name}}


def _rule(resource: str, verbs: list[str]) -> Document:
    return {"apiGroups": [GROUP], "resources": [resource], "verbs": verbs}
