"""What `kubectl get` prints of workloads, jobs and ingresses."""

from datetime import UTC, datetime
from typing import Any

import pytest

from hotvirt.kube.resources import Resource
from hotvirt.server import tables

NOW = datetime(2026, 1, 3, 12, tzinfo=UTC)
META = {"name": "web", "creationTimestamp": "2026-01-01T09:00:00Z"}
CONTAINERS = {"spec": {"containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y:2"}]}}
SELECTOR = {"matchLabels": {"app": "web"}, "matchExpressions": [
    {"key": "env", "operator": "NotIn", "values": ["b", "a"]}, {"key": "old", "operator": "DoesNotExist"},
]}  # fmt: skip
CHOSEN = "app=web,env notin (a,b),!old"


def printed(group: str, plural: str, doc: dict[str, Any], *, wide: bool = False) -> dict[str, Any]:
    found = tables.columns_for(Resource(group, "v1", plural, "Kind"))
    cells = found.cells({"metadata": META, **doc}, NOW)
    return {
        column.name: cell
        for column, cell in zip(found.columns, cells, strict=True)
        if column.name not in ("Name", "Age") and bool(column.priority) is wide
    }


def test_deployments() -> None:
    doc = {
        "spec": {"replicas": 3, "template": CONTAINERS, "selector": SELECTOR},
        "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1},
    }
    assert printed("apps", "deployments", doc) == {"Ready": "2/3", "Up-to-date": 3, "Available": 1}
    wide = {"Containers": "a,b", "Images": "x:1,y:2", "Selector": CHOSEN}
    assert printed("apps", "deployments", doc, wide=True) == wide
    assert printed("apps", "deployments", {}) == {"Ready": "0/1", "Up-to-date": 0, "Available": 0}
    assert printed("apps", "replicasets", {"spec": {"replicas": 0}}) == {"Desired": 0, "Current": 0, "Ready": 0}
    assert printed("apps", "statefulsets", doc) == {"Ready": "2/3"}


def test_daemon_sets() -> None:
    doc = {
        "spec": {"template": {"spec": {"nodeSelector": {"disk": "ssd"}}}},
        "status": {"desiredNumberScheduled": 4, "currentNumberScheduled": 3, "numberReady": 2, "numberAvailable": 1},
    }
    assert printed("apps", "daemonsets", doc) == {
        "Desired": 4, "Current": 3, "Ready": 2, "Up-to-date": 0, "Available": 1, "Node Selector": "disk=ssd",
    }  # fmt: skip


def job(spec: dict[str, Any], *true: str, **status: Any) -> dict[str, Any]:
    return {"spec": spec, "status": {**status, "conditions": [{"type": each, "status": "True"} for each in true]}}


@pytest.mark.parametrize(
    ("doc", "status", "completions", "duration"),
    [
        (job({"completions": 2}), "Running", "0/2", ""),
        (job({}, "Suspended", succeeded=1), "Suspended", "1/1", ""),
        (job({"parallelism": 3}, startTime="2026-01-03T11:59:00Z"), "Running", "0/1 of 3", "60s"),
        (
            job({"completions": 1}, "Complete", "SuccessCriteriaMet", succeeded=1, startTime="2026-01-03T09:00:00Z",
                completionTime="2026-01-03T09:05:30Z"),
            "Complete", "1/1", "5m30s",
        ),
        (job({"completions": 1}, "FailureTarget", "Failed"), "Failed", "0/1", ""),
    ],
)  # fmt: skip
def test_jobs(doc: dict[str, Any], status: str, completions: str, duration: str) -> None:
    assert printed("batch", "jobs", doc) == {"Status": status, "Completions": completions, "Duration": duration}


def test_a_job_on_its_way_out() -> None:
    going = {"metadata": {**META, "deletionTimestamp": "2026-01-03T11:00:00Z"}}
    assert printed("batch", "jobs", going)["Status"] == "Terminating"


def test_cron_jobs() -> None:
    doc = {
        "spec": {"schedule": "0 * * * *", "suspend": False, "jobTemplate": {"spec": {"template": CONTAINERS}}},
        "status": {"active": [{}], "lastScheduleTime": "2026-01-03T11:00:00Z"},
    }
    assert printed("batch", "cronjobs", doc) == {
        "Schedule": "0 * * * *", "Timezone": "<none>", "Suspend": "False", "Active": 1, "Last Schedule": "60m",
    }  # fmt: skip
    assert printed("batch", "cronjobs", doc, wide=True)["Containers"] == "a,b"


def test_ingresses_and_who_serves_them() -> None:
    rules = [{"host": f"{letter}.example.com"} for letter in "abcd"]
    doc = {
        "spec": {"ingressClassName": "nginx", "rules": rules, "tls": [{}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}, {"hostname": "lb"}]}},
    }
    assert printed("networking.k8s.io", "ingresses", doc) == {
        "Class": "nginx", "Hosts": "a.example.com,b.example.com,c.example.com + 1 more...", "Address": "10.0.0.1,lb",
        "Ports": "80, 443",
    }  # fmt: skip
    bare = printed("networking.k8s.io", "ingresses", {"spec": {"defaultBackend": {}}})
    assert bare == {"Class": "<none>", "Hosts": "*", "Address": "", "Ports": "80"}
    spec = {"controller": "example.com/c", "parameters": {"apiGroup": "k.example.com", "kind": "P", "name": "p"}}
    served = printed("networking.k8s.io", "ingressclasses", {"spec": spec})
    assert served == {"Controller": "example.com/c", "Parameters": "P.k.example.com/p"}
    assert printed("networking.k8s.io", "networkpolicies", {"spec": {"podSelector": {}}}) == {"Pod-Selector": "<none>"}


def _metric(kind: str, key: str, **source: Any) -> dict[str, Any]:
    return {"type": kind, key: source}


def test_horizontal_pod_autoscalers() -> None:
    spec = {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "minReplicas": 1, "maxReplicas": 5}
    wanted = [
        _metric("Resource", "resource", name="cpu", target={"type": "Utilization", "averageUtilization": 80}),
        _metric("Pods", "pods", metric={"name": "hits"}, target={"averageValue": "10"}),
        _metric("External", "external", metric={"name": "queue"}, target={"value": "30"}),
    ]
    seen = [_metric("Resource", "resource", name="cpu", current={"averageUtilization": 55})]
    doc = {"spec": {**spec, "metrics": wanted}, "status": {"currentReplicas": 2, "currentMetrics": seen}}
    shown = {"Reference": "Deployment/web", "Targets": "cpu: 55%/80%, <unknown>/10 + 1 more...", "MinPods": 1,
             "MaxPods": 5, "Replicas": 2}  # fmt: skip
    assert printed("autoscaling", "horizontalpodautoscalers", doc) == shown
    doc = {"spec": {**spec, "metrics": wanted[2:]}}
    assert printed("autoscaling", "horizontalpodautoscalers", doc)["Targets"] == "<unknown>/30"
    assert printed("autoscaling", "horizontalpodautoscalers", {"spec": spec})["Targets"] == "<none>"
