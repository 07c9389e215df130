"""The roles every Kubernetes has, and who has them at first. Made once, then the administrator's to change."""

from collections.abc import Iterable, Sequence
from typing import Any

from hotvirt.server.rbac import GROUP

Document = dict[str, Any]
READ = ["get", "list", "watch"]
WRITE = ["create", "delete", "deletecollection", "patch", "update"]
_BOOTSTRAP = {"kubernetes.io/bootstrapping": "rbac-defaults"}
_DISCOVERY = ["/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz",
              "/version", "/version/"]  # fmt: skip
_WORKLOADS: Sequence[tuple[str, list[str]]] = (
    ("", ["configmaps", "endpoints", "persistentvolumeclaims", "persistentvolumeclaims/status", "pods",
          "replicationcontrollers", "replicationcontrollers/scale", "serviceaccounts", "services", "services/status"]),
    ("apps", ["controllerrevisions", "daemonsets", "deployments", "deployments/scale", "replicasets",
              "replicasets/scale", "statefulsets", "statefulsets/scale"]),
    ("autoscaling", ["horizontalpodautoscalers", "horizontalpodautoscalers/status"]),
    ("batch", ["cronjobs", "jobs"]),
    ("networking.k8s.io", ["ingresses", "networkpolicies"]),
    ("policy", ["poddisruptionbudgets", "poddisruptionbudgets/status"]),
    ("discovery.k8s.io", ["endpointslices"]),
)  # fmt: skip
_SEEN = ["bindings", "events", "limitranges", "namespaces/status", "pods/log", "pods/status",
         "replicationcontrollers/status", "resourcequotas", "resourcequotas/status", "namespaces"]  # fmt: skip


def bootstrap() -> list[Document]:
    return [*_roles(), *_bindings()]


def _roles() -> Iterable[Document]:
    yield _role("cluster-admin", [_rule(["*"], ["*"], ["*"]), _paths(["*"], ["*"])])
    yield _role("system:discovery", [_paths(["get"], _DISCOVERY)])
    yield _role(
        "system:public-info-viewer", [_paths(["get"], ["/healthz", "/livez", "/readyz", "/version", "/version/"])]
    )
    reviews = ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]
    yield _role(
        "system:basic-user",
        [_rule(["authorization.k8s.io"], reviews, ["create"]),
         _rule(["authentication.k8s.io"], ["selfsubjectreviews"], ["create"])],
    )  # fmt: skip
    yield _role(
        "system:auth-delegator",
        [_rule(["authentication.k8s.io"], ["tokenreviews"], ["create"]),
         _rule(["authorization.k8s.io"], ["subjectaccessreviews"], ["create"])],
    )  # fmt: skip
    for name, above in (("admin", ""), ("edit", "admin"), ("view", "edit")):
        yield _aggregated(name, above)
    yield _role("system:aggregate-to-view", _view(), into="view")
    yield _role("system:aggregate-to-edit", _edit(), into="edit")
    yield _role("system:aggregate-to-admin", _admin(), into="admin")


def _view() -> list[Document]:
    return [_rule([group], resources, READ) for group, resources in _WORKLOADS] + [_rule([""], _SEEN, READ)]


def _edit() -> list[Document]:
    rules = [_rule([group], [r for r in found if not r.endswith("/status")], WRITE) for group, found in _WORKLOADS]
    secret = ["pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets", "services/proxy"]
    return [
        *rules,
        _rule([""], secret, READ),
        _rule([""], ["pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets"], WRITE),
        _rule([""], ["pods/eviction", "serviceaccounts/token"], ["create"]),
        _rule([""], ["serviceaccounts"], ["impersonate"]),
        _rule(["coordination.k8s.io"], ["leases"], [*READ, *WRITE]),
    ]


def _admin() -> list[Document]:
    return [
        _rule(["authorization.k8s.io"], ["localsubjectaccessreviews"], ["create"]),
        _rule([GROUP], ["rolebindings", "roles"], [*READ, *WRITE]),
    ]


def _aggregated(name: str, above: str) -> Document:
    label = "rbac.authorization.k8s.io/aggregate-to-"
    role = _role(name, [], into=above)
    role["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": {f"{label}{name}": "true"}}]}
    return role


def _bindings() -> Iterable[Document]:
    authenticated, everybody = "system:authenticated", "system:unauthenticated"
    yield _bound("cluster-admin", ["system:masters"])
    yield _bound("system:discovery", [authenticated])
    yield _bound("system:basic-user", [authenticated])
    yield _bound("system:public-info-viewer", [authenticated, everybody])


def _role(name: str, rules: list[Document], *, into: str = "") -> Document:
    labels = dict(_BOOTSTRAP)
    if into:
        labels[f"rbac.authorization.k8s.io/aggregate-to-{into}"] = "true"
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name, "labels": labels},
        "rules": rules,
    }


def _bound(role: str, groups: list[str]) -> Document:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": role, "labels": dict(_BOOTSTRAP)},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": GROUP, "kind": "Group", "name": group} for group in groups],
    }


def _rule(groups: list[str], resources: list[str], verbs: list[str]) -> Document:
    return {"apiGroups": groups, "resources": sorted(resources), "verbs": sorted(verbs)}


def _paths(verbs: list[str], paths: list[str]) -> Document:
    return {"nonResourceURLs": paths, "verbs": verbs}
