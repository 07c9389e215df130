"""The built-in kinds as a table: a row a kind, a string a group of columns.

Names, short names, categories and subresources are Kubernetes' own (API reference 1.36), so that clients find what they
know. Kinds that nothing here acts on are stored and served as they are.
"""

from collections.abc import Iterable

from hotvirt.kube.resources import Resource
from hotvirt.server import autoscalers
from hotvirt.server.core_events import from_core, to_core
from hotvirt.server.registry import Scale, Served, Subresource

CLUSTER = ("namespaces", "nodes", "persistentvolumes")
GET, CREATE, STREAM = ("get",), ("create",), ("create", "get")

# plural, kind, short names, flags: c cluster-wide, s status, g generation, a category `all`, p names as paths allow
_TABLE: dict[str, tuple[tuple[str, str, str, str], ...]] = {
    "v1": (
        ("namespaces", "Namespace", "ns", "cs"),
        ("nodes", "Node", "no", "cs"),
        ("pods", "Pod", "po", "sga"),
        ("services", "Service", "svc", "sa"),
        ("endpoints", "Endpoints", "ep", ""),
        ("persistentvolumeclaims", "PersistentVolumeClaim", "pvc", "s"),
        ("persistentvolumes", "PersistentVolume", "pv", "cs"),
        ("secrets", "Secret", "", ""),
        ("configmaps", "ConfigMap", "cm", ""),
        ("serviceaccounts", "ServiceAccount", "sa", ""),
        ("events", "Event", "ev", ""),
        ("resourcequotas", "ResourceQuota", "quota", "s"),
        ("limitranges", "LimitRange", "limits", ""),
        ("replicationcontrollers", "ReplicationController", "rc", "sga"),
        ("podtemplates", "PodTemplate", "", "g"),
    ),
    "apps/v1": (
        ("deployments", "Deployment", "deploy", "sga"),
        ("replicasets", "ReplicaSet", "rs", "sga"),
        ("statefulsets", "StatefulSet", "sts", "sga"),
        ("daemonsets", "DaemonSet", "ds", "sga"),
        ("controllerrevisions", "ControllerRevision", "", ""),
    ),
    "batch/v1": (("jobs", "Job", "", "sga"), ("cronjobs", "CronJob", "cj", "sga")),
    "autoscaling/v2": (("horizontalpodautoscalers", "HorizontalPodAutoscaler", "hpa", "sa"),),
    "autoscaling/v1": (("horizontalpodautoscalers", "HorizontalPodAutoscaler", "hpa", "sa"),),
    "policy/v1": (("poddisruptionbudgets", "PodDisruptionBudget", "pdb", "sg"),),
    "events.k8s.io/v1": (("events", "Event", "ev", ""),),
    "coordination.k8s.io/v1": (("leases", "Lease", "", ""),),
    "discovery.k8s.io/v1": (("endpointslices", "EndpointSlice", "", "g"),),
    "networking.k8s.io/v1": (
        ("networkpolicies", "NetworkPolicy", "netpol", "g"),
        ("ingresses", "Ingress", "ing", "sg"),
        ("ingressclasses", "IngressClass", "", "cg"),
    ),
    "scheduling.k8s.io/v1": (("priorityclasses", "PriorityClass", "pc", "cg"),),
    "node.k8s.io/v1": (("runtimeclasses", "RuntimeClass", "", "c"),),
    "storage.k8s.io/v1": (
        ("storageclasses", "StorageClass", "sc", "c"),
        ("volumeattachments", "VolumeAttachment", "", "cs"),
        ("csidrivers", "CSIDriver", "", "c"),
        ("csinodes", "CSINode", "", "c"),
        ("csistoragecapacities", "CSIStorageCapacity", "", ""),
    ),
    "rbac.authorization.k8s.io/v1": (
        ("roles", "Role", "", "p"),
        ("rolebindings", "RoleBinding", "", "p"),
        ("clusterroles", "ClusterRole", "", "cp"),
        ("clusterrolebindings", "ClusterRoleBinding", "", "cp"),
    ),
    "apiextensions.k8s.io/v1": (("customresourcedefinitions", "CustomResourceDefinition", "crd crds", "csg"),),
    "apiregistration.k8s.io/v1": (("apiservices", "APIService", "", "csp"),),
    "admissionregistration.k8s.io/v1": (
        ("mutatingwebhookconfigurations", "MutatingWebhookConfiguration", "", "cg"),
        ("validatingwebhookconfigurations", "ValidatingWebhookConfiguration", "", "cg"),
        ("validatingadmissionpolicies", "ValidatingAdmissionPolicy", "", "csg"),
        ("validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", "", "cg"),
    ),
    "certificates.k8s.io/v1": (("certificatesigningrequests", "CertificateSigningRequest", "csr", "cs"),),
}

# Kinds that are asked, never stored: only `create`.
_ASKED: dict[str, tuple[tuple[str, str, bool], ...]] = {
    "authentication.k8s.io/v1": (
        ("tokenreviews", "TokenReview", False),
        ("selfsubjectreviews", "SelfSubjectReview", False),
    ),
    "authorization.k8s.io/v1": (
        ("subjectaccessreviews", "SubjectAccessReview", False),
        ("selfsubjectaccessreviews", "SelfSubjectAccessReview", False),
        ("localsubjectaccessreviews", "LocalSubjectAccessReview", True),
        ("selfsubjectrulesreviews", "SelfSubjectRulesReview", False),
    ),
}

_MORE: dict[str, tuple[Subresource, ...]] = {
    "pods": (
        Subresource("binding", "Binding", CREATE),
        Subresource("eviction", "Eviction", CREATE, "policy", "v1"),
        Subresource("log", "Pod", GET),
        Subresource("resize", "Pod"),
        Subresource("ephemeralcontainers", "Pod"),
        Subresource("exec", "PodExecOptions", STREAM),
        Subresource("attach", "PodAttachOptions", STREAM),
        Subresource("portforward", "PodPortForwardOptions", STREAM),
    ),
    "namespaces": (Subresource("finalize", "Namespace", ("update",)),),
    "serviceaccounts": (Subresource("token", "TokenRequest", CREATE, "authentication.k8s.io", "v1"),),
}
_SCALED = {"deployments", "replicasets", "statefulsets", "replicationcontrollers"}
_SCALE = Subresource("scale", "Scale", group="autoscaling", version="v1")
_META_FIELDS = frozenset({"metadata.name", "metadata.namespace"})
_REFERENCE = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
_FIELDS: dict[str, frozenset[str]] = {
    "pods": frozenset(
        {"spec.nodeName", "status.phase", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName",
         "status.podIP", "status.nominatedNodeName", "spec.hostNetwork"}
    ),
    "events": frozenset(
        {*(f"{who}.{n}" for who in ("involvedObject", "regarding") for n in _REFERENCE),
         "reason", "type", "source", "reportingComponent", "reportingController"}
    ),
    "nodes": frozenset({"spec.unschedulable"}),
    "namespaces": frozenset({"status.phase"}),
    "secrets": frozenset({"type"}),
    "replicasets": frozenset({"status.replicas"}),
    "replicationcontrollers": frozenset({"status.replicas"}),
    "jobs": frozenset({"status.successful"}),
    "services": frozenset({"spec.clusterIP", "spec.type"}),
    "certificatesigningrequests": frozenset({"spec.signerName"}),
}  # fmt: skip


def kinds() -> tuple[Served, ...]:
    return (*_stored(), *_asked())


def _stored() -> Iterable[Served]:
    for api_version, rows in _TABLE.items():
        for plural, kind, short, flags in rows:
            to_stored, from_stored = _CONVERTED.get(f"{api_version}/{plural}", (None, None))
            status = (Subresource("status", kind),) if "s" in flags else ()
            yield Served(
                resource=_resource(api_version, plural, kind, "c" not in flags),
                stored_version=_stored_version(api_version, plural),
                singular=kind.lower(),
                short_names=tuple(short.split()),
                categories=(("all",) if "a" in flags else ()) + (("api-extensions",) if plural in _EXTENDING else ()),
                subresources=(*status, *_MORE.get(plural, ()), *((_SCALE,) if plural in _SCALED else ())),
                has_status="s" in flags,
                has_generation="g" in flags,
                scale=Scale("spec.replicas", "status.replicas", "spec.selector") if plural in _SCALED else None,
                fields=_META_FIELDS | _FIELDS.get(plural, frozenset()),
                check_name="path" if "p" in flags else "label" if plural in ("namespaces", "services") else "subdomain",
                to_stored=to_stored,
                from_stored=from_stored,
                stored_group="" if plural == "events" else None,
            )


_CONVERTED = {
    "events.k8s.io/v1/events": (to_core, from_core),
    "autoscaling/v1/horizontalpodautoscalers": (autoscalers.to_v2, autoscalers.to_v1),
}
"""How kinds with two shapes are kept, and how they are shown in the other."""


_EXTENDING = {
    "customresourcedefinitions", "apiservices", "mutatingwebhookconfigurations", "validatingwebhookconfigurations",
    "validatingadmissionpolicies", "validatingadmissionpolicybindings",
}  # fmt: skip


def _stored_version(api_version: str, plural: str) -> str:
    if plural == "events":
        return "v1"
    return "autoscaling/v2" if plural == "horizontalpodautoscalers" else api_version


def _asked() -> Iterable[Served]:
    for api_version, rows in _ASKED.items():
        for plural, kind, namespaced in rows:
            yield Served(
                resource=_resource(api_version, plural, kind, namespaced),
                stored_version=api_version,
                singular=kind.lower(),
                verbs=CREATE,
            )


def _resource(api_version: str, plural: str, kind: str, namespaced: bool) -> Resource:
    group, _, version = api_version.rpartition("/")
    return Resource(group, version, plural, kind, namespaced)
