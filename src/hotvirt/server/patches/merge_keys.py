"""How the lists of the built-in kinds merge: by which key, or as sets. What is not named here is replaced whole.

These are facts of the Kubernetes API (its types' patchStrategy and patchMergeKey). The strategic merge patch reads them
here, and so does the OpenAPI document that kubectl takes them from. Read only.
"""

from msgspec import Struct


class Merge(Struct, frozen=True):
    """One field: a struct of type `of`, or with `key` a list of such, merged by that field. `primitive` marks a list of
    texts that merges as a set; `retain` a field whose patches carry $retainKeys (a union of alternatives). `also` names
    further keys that tell items apart in server-side apply."""

    of: str = ""
    key: str = ""
    primitive: bool = False
    retain: bool = False
    also: tuple[str, ...] = ()


_META = Merge("ObjectMeta")
_POD_TEMPLATE = Merge("PodTemplateSpec")
_CONDITIONS = {"conditions": Merge("", "type")}
_CONTAINERS = Merge("Container", "name")

TYPES: dict[str, dict[str, Merge]] = {
    "ObjectMeta": {"ownerReferences": Merge("", "uid"), "finalizers": Merge(primitive=True)},
    "Conditions": _CONDITIONS,
    "PodSpec": {
        "volumes": Merge("", "name", retain=True),
        "initContainers": _CONTAINERS,
        "containers": _CONTAINERS,
        "ephemeralContainers": _CONTAINERS,
        "imagePullSecrets": Merge("", "name"),
        "hostAliases": Merge("", "ip"),
        "topologySpreadConstraints": Merge("", "topologyKey", also=("whenUnsatisfiable",)),
        "resourceClaims": Merge("", "name", retain=True),
        "schedulingGates": Merge("", "name"),
    },
    "Container": {
        "ports": Merge("", "containerPort", also=("protocol",)),
        "env": Merge("", "name"),
        "volumeMounts": Merge("", "mountPath"),
        "volumeDevices": Merge("", "devicePath"),
    },
    "PodStatus": {
        **_CONDITIONS,
        "podIPs": Merge("", "ip"),
        "hostIPs": Merge("", "ip"),
        "resourceClaimStatuses": Merge("", "name", retain=True),
    },
    "PodTemplateSpec": {"metadata": _META, "spec": Merge("PodSpec")},
    "WorkloadSpec": {"template": _POD_TEMPLATE, "strategy": Merge(retain=True)},
    "JobTemplateSpec": {"metadata": _META, "spec": Merge("WorkloadSpec")},
    "CronJobSpec": {"jobTemplate": Merge("JobTemplateSpec")},
    "ServiceSpec": {"ports": Merge("", "port", also=("protocol",))},
    "NodeSpec": {"podCIDRs": Merge(primitive=True)},
    "NodeStatus": {**_CONDITIONS, "addresses": Merge("", "type")},
    "PolicySpec": {"matchConditions": Merge("", "name"), "variables": Merge("", "name")},
    "CSINodeSpec": {"drivers": Merge("", "name")},
}

_WORKLOAD = {"spec": Merge("WorkloadSpec"), "status": Merge("Conditions")}
KINDS: dict[str, dict[str, Merge]] = {
    "Pod": {"spec": Merge("PodSpec"), "status": Merge("PodStatus")},
    "PodTemplate": {"template": _POD_TEMPLATE},
    "Node": {"spec": Merge("NodeSpec"), "status": Merge("NodeStatus")},
    "Namespace": {"status": Merge("Conditions")},
    "Service": {"spec": Merge("ServiceSpec"), "status": Merge("Conditions")},
    "PersistentVolumeClaim": {"status": Merge("Conditions")},
    "ServiceAccount": {"secrets": Merge("", "name")},
    "ReplicationController": _WORKLOAD,
    "ReplicaSet": _WORKLOAD,
    "Deployment": _WORKLOAD,
    "StatefulSet": _WORKLOAD,
    "DaemonSet": _WORKLOAD,
    "Job": _WORKLOAD,
    "CronJob": {"spec": Merge("CronJobSpec")},
    "PodDisruptionBudget": {"status": Merge("Conditions")},
    "HorizontalPodAutoscaler": {"status": Merge("Conditions")},
    "APIService": {"status": Merge("Conditions")},
    "ValidatingWebhookConfiguration": {"webhooks": Merge("", "name")},
    "MutatingWebhookConfiguration": {"webhooks": Merge("", "name")},
    "ValidatingAdmissionPolicy": {"spec": Merge("PolicySpec"), "status": Merge("Conditions")},
    "CSINode": {"spec": Merge("CSINodeSpec")},
}


def of_kind(kind: str) -> dict[str, Merge]:
    """The fields of a built-in kind that do not simply merge as objects and replace as lists."""
    return {"metadata": _META, **KINDS.get(kind, {})}


def of_type(name: str) -> dict[str, Merge]:
    """The same of a struct type named by `Merge.of`."""
    return TYPES.get(name, {})
