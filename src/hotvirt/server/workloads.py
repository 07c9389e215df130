"""Defaults of the kinds that make pods: Deployments and the like, Jobs, CronJobs. Nothing here runs them; clients show
them as they show a cluster's. Pure; a result has a top level of its own."""

from typing import Any

from hotvirt.server import pods

Document = dict[str, Any]
_SHARES = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}
_DEPLOYMENT: Document = {
    "replicas": 1, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10, "strategy": _SHARES,
}  # fmt: skip
_STATEFUL: Document = {
    "replicas": 1, "revisionHistoryLimit": 10, "podManagementPolicy": "OrderedReady",
    "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
    "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
}  # fmt: skip
_DAEMONS: Document = {
    "revisionHistoryLimit": 10,
    "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
}
_CRON: Document = {
    "concurrencyPolicy": "Allow", "suspend": False, "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1,
}  # fmt: skip
USUAL: dict[str, Document] = {
    "apps/deployments": _DEPLOYMENT,
    "apps/statefulsets": _STATEFUL,
    "apps/daemonsets": _DAEMONS,
    "apps/replicasets": {"replicas": 1},
    "/replicationcontrollers": {"replicas": 1},
    "batch/cronjobs": _CRON,
}


def complete(doc: Document, usual: Document) -> Document:
    spec = doc.get("spec")
    if not isinstance(spec, dict):
        return doc
    filled = {**spec, **{key: value for key, value in usual.items() if spec.get(key) is None}}
    template = filled.get("template")
    if isinstance(template, dict) and isinstance(template.get("spec"), dict):
        filled["template"] = {**template, "spec": pods.of_template(template["spec"])}
    return {**doc, "spec": filled}
