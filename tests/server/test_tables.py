"""What `kubectl get` prints: JSON paths, ages, CRD columns, and the built-in kinds' words."""

from datetime import UTC, datetime
from typing import Any

import pytest

from hotvirt.kube import resources
from hotvirt.kube.resources import Resource
from hotvirt.server import jsonpaths, tables

NOW = datetime(2026, 1, 3, 12, tzinfo=UTC)
BORN = "2026-01-01T09:00:00Z"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-2, "<invalid>"), (-1, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (545, "9m5s"), (600, "10m"),
        (179 * 60, "179m"), (180 * 60, "3h"), (5 * 3600 + 600, "5h10m"), (8 * 3600, "8h"), (47 * 3600, "47h"),
        (48 * 3600, "2d"), (51 * 3600, "2d3h"), (7 * 86400 + 3600, "7d1h"), (8 * 86400, "8d"), (700 * 86400, "700d"),
        (730 * 86400, "2y"), (735 * 86400, "2y5d"), (9 * 365 * 86400, "9y"),
    ],
)  # fmt: skip
def test_durations(seconds: int, text: str) -> None:
    assert tables.human_duration(seconds) == text


DOC: dict[str, Any] = {
    "metadata": {"annotations": {"a.b/c": "x"}},
    "status": {
        "n": 3,
        "on": False,
        "conditions": [{"type": "Ready", "status": "True"}, {"type": "Paused", "status": "False", "n": 5}],
    },
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".status.n", [3]),
        ("status.n", [3]),
        ("{.status.n}", [3]),
        ("$.status.n", [3]),
        (".status.on", [False]),
        (".status.gone.x", []),
        (".metadata.annotations.a\\.b/c", ["x"]),
        (".metadata.annotations['a.b/c']", ["x"]),
        (".status.conditions[0].type", ["Ready"]),
        (".status.conditions[-1].type", ["Paused"]),
        (".status.conditions[5].type", []),
        (".status.conditions[*].type", ["Ready", "Paused"]),
        (".status.conditions[0:1].type", ["Ready"]),
        (".status.conditions[?(@.type=='Ready')].status", ["True"]),
        ('.status.conditions[?(@.type == "Paused")].status', ["False"]),
        (".status.conditions[?(@.type!='Ready')].type", ["Paused"]),
        (".status.conditions[?(@.n>4)].type", ["Paused"]),
        (".status.conditions[?(@.n)].type", ["Paused"]),
        (".status.conditions[?(@.type>4)].type", []),
        ("..status", [DOC["status"], "True", "False"]),
        (".", [DOC]),
    ],
)
def test_json_paths(path: str, found: list[Any]) -> None:
    assert jsonpaths.parse(path).find(DOC) == found


@pytest.mark.parametrize("path", [".a[", ".a[?(@.x==)]", ".a b", ".a[?(@.x==zz)]", "]"])
def test_unreadable_paths(path: str) -> None:
    with pytest.raises(ValueError, match=r"JSON path|convert"):
        jsonpaths.parse(path)


def table(resource: Resource, doc: dict[str, Any], crd: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    doc = {**doc, "metadata": {"name": "web", "creationTimestamp": BORN, **doc.get("metadata", {})}}
    made = tables.render(tables.columns_for(resource, crd), [doc], NOW)
    names = [c["name"] + ("*" if c["priority"] else "") for c in made["columnDefinitions"]]
    return dict(zip(names, made["rows"][0]["cells"], strict=True))


def test_crd_columns() -> None:
    columns = [
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        {"name": "Status", "type": "string", "jsonPath": ".status.printableStatus", "description": "d"},
        {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Ready')].status"},
        {"name": "N", "type": "integer", "jsonPath": ".status.n"},
        {"name": "F", "type": "number", "jsonPath": ".status.f"},
        {"name": "On", "type": "boolean", "jsonPath": ".status.on", "priority": 1},
        {"name": "Box", "type": "string", "jsonPath": ".status.box"},
        {"name": "Wrong", "type": "integer", "jsonPath": ".status.printableStatus"},
    ]
    status = {"printableStatus": "Running", "conditions": [{"type": "Ready", "status": "True"}], "n": 1.0, "f": 0.5}
    assert table(resources.VMS, {"status": {**status, "on": True, "box": {"a": [1]}}}, columns) == {
        "Name": "web", "Age": "2d3h", "Status": "Running", "Ready": "True", "N": 1, "F": 0.5, "On*": True,
        "Box": '{"a":[1]}', "Wrong": None,
    }  # fmt: skip
    empty = table(resources.VMS, {}, columns)
    assert empty == {**dict.fromkeys(empty), "Name": "web", "Age": "2d3h"}
    assert table(resources.VMS, {}, []) == {"Name": "web", "Age": "2d3h"}
    assert table(Resource("x.y", "v1", "things", "Thing"), {}) == {"Name": "web", "Created At": BORN}


def test_the_document() -> None:
    doc = {"kind": "Lease", "metadata": {"name": "a"}, "spec": {"holderIdentity": "me"}}
    columns = tables.columns_for(resources.LEASES, None)
    made = tables.render(columns, [doc], NOW, "Object", metadata={"resourceVersion": "7"})
    assert {k: made[k] for k in ("kind", "apiVersion", "metadata")} == {
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": "7"},
    }  # fmt: skip
    assert made["columnDefinitions"][0] == {
        "name": "Name", "type": "string", "format": "name", "priority": 0,
        "description": "Unique for its kind in a namespace.",
    }  # fmt: skip
    assert made["rows"] == [{"cells": ["a", "me", "<unknown>"], "object": doc}]
    assert tables.render(columns, [doc], NOW, "None", headers=False) == {
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "columnDefinitions": [],
        "rows": [{"cells": ["a", "me", "<unknown>"]}],
    }  # fmt: skip
    assert tables.render(columns, [doc], NOW)["rows"][0]["object"] == {
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": "a"},
    }  # fmt: skip


RUNNING = {"name": "c", "ready": True, "restartCount": 0, "state": {"running": {"startedAt": BORN}}}


@pytest.mark.parametrize(
    ("status", "word", "ready"),
    [
        ({"phase": "Pending"}, "Pending", "0/1"),
        ({"phase": "Running", "containerStatuses": [RUNNING]}, "Running", "1/1"),
        ({"phase": "Running", "containerStatuses": [{**RUNNING, "ready": False}]}, "Running", "0/1"),
        ({"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull"}}}]},
         "ErrImagePull", "0/1"),
        ({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 2}}}]}, "ExitCode:2", "0/1"),
        ({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"signal": 9}}}]}, "Signal:9", "0/1"),
        ({"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"reason": "Completed"}}}]},
         "Completed", "0/1"),
        ({"phase": "Failed", "reason": "Evicted"}, "Evicted", "0/1"),
        ({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]},
         "SchedulingGated", "0/1"),
        ({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}, "Init:0/1", "0/1"),
        ({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 1}}}]},
         "Init:ExitCode:1", "0/1"),
        ({}, "Unknown", "0/1"),
    ],
)  # fmt: skip
def test_pod_words(status: dict[str, Any], word: str, ready: str) -> None:
    row = table(resources.PODS, {"spec": {"containers": [{"name": "c"}]}, "status": status})
    assert (row["Status"], row["Ready"]) == (word, ready)


def test_pods() -> None:
    died = {"terminated": {"finishedAt": "2026-01-03T11:55:00Z"}}
    pod = {
        "spec": {"containers": [{"name": "c"}], "nodeName": "n1", "readinessGates": [{"conditionType": "a"}]},
        "status": {
            "phase": "Running",
            "podIP": "10.0.0.2",
            "containerStatuses": [{**RUNNING, "restartCount": 2, "lastState": died}],
            "conditions": [{"type": "a", "status": "True"}],
        },
    }
    assert table(resources.PODS, pod) == {
        "Name": "web", "Ready": "1/1", "Status": "Running", "Restarts": "2 (5m ago)", "Age": "2d3h",
        "IP*": "10.0.0.2", "Node*": "n1", "Nominated Node*": "<none>", "Readiness Gates*": "1/1",
    }  # fmt: skip
    assert table(resources.PODS, {**pod, "metadata": {"deletionTimestamp": BORN}})["Status"] == "Terminating"


@pytest.mark.parametrize(
    ("resource", "doc", "row"),
    [
        (resources.NAMESPACES, {"status": {"phase": "Active"}}, {"Status": "Active"}),
        (resources.NODES,
         {"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}, "spec": {"unschedulable": True},
          "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1.36.0"},
                     "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}},
         {"Status": "Ready,SchedulingDisabled", "Roles": "control-plane", "Version": "v1.36.0",
          "Internal-IP*": "10.0.0.1", "External-IP*": "<none>", "OS-Image*": "<unknown>"}),
        (Resource("", "v1", "services", "Service"),
         {"spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 443}, {"port": 80, "nodePort": 30080}],
                   "type": "NodePort", "selector": {"b": "2", "a": "1"}}},
         {"Type": "NodePort", "Cluster-IP": "10.96.0.1", "External-IP": "<none>", "Port(s)": "443/TCP,80:30080/TCP",
          "Selector*": "a=1,b=2"}),
        (resources.CLAIMS,
         {"spec": {"volumeName": "pv", "storageClassName": "sc", "volumeMode": "Filesystem"},
          "status": {"phase": "Bound", "capacity": {"storage": "1Gi"},
                     "accessModes": ["ReadWriteMany", "ReadWriteOnce"]}},
         {"Status": "Bound", "Volume": "pv", "Capacity": "1Gi", "Access Modes": "RWO,RWX", "StorageClass": "sc",
          "VolumeAttributesClass": "<unset>", "VolumeMode*": "Filesystem"}),
        (resources.VOLUMES,
         {"spec": {"capacity": {"storage": "1Gi"}, "claimRef": {"namespace": "d", "name": "c"}},
          "status": {"phase": "Bound"}},
         {"Capacity": "1Gi", "Claim": "d/c", "Status": "Bound", "Reason": ""}),
        (resources.STORAGE_CLASSES,
         {"provisioner": "p", "metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}},
         {"Name": "web (default)", "Provisioner": "p", "ReclaimPolicy": "Delete", "VolumeBindingMode": "Immediate",
          "AllowVolumeExpansion": False}),
        (resources.SECRETS, {"type": "Opaque", "data": {"a": "", "b": ""}}, {"Type": "Opaque", "Data": 2}),
        (resources.CONFIG_MAPS, {"data": {"a": ""}, "binaryData": {"b": ""}}, {"Data": 2}),
        (resources.SERVICE_ACCOUNTS, {}, {}),
        (resources.EVENTS,
         {"type": "Warning", "reason": "R", "message": "m\n", "count": 3, "lastTimestamp": "2026-01-03T11:59:00Z",
          "firstTimestamp": BORN, "involvedObject": {"kind": "Pod", "name": "p"},
          "source": {"component": "k", "host": "n"}},
         {"Last Seen": "60s", "Object": "pod/p", "Message": "m", "Source*": "k, n", "First Seen*": "2d3h", "Count*": 3,
          "Name*": "web"}),
        (resources.CLUSTER_ROLES, {}, {"Created At": BORN}),
        (resources.CLUSTER_ROLE_BINDINGS,
         {"roleRef": {"kind": "ClusterRole", "name": "admin"},
          "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s", "namespace": "n"}]},
         {"Role": "ClusterRole/admin", "Users*": "u", "Groups*": "", "ServiceAccounts*": "n/s"}),
        (resources.CRDS, {}, {"Created At": BORN}),
        (resources.CONTROLLER_REVISIONS,
         {"revision": 3, "metadata": {"ownerReferences": [
             {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "name": "vm", "controller": True}]}},
         {"Controller": "virtualmachine.kubevirt.io/vm", "Revision": 3}),
        (resources.DISRUPTION_BUDGETS, {"spec": {"minAvailable": 0}, "status": {"disruptionsAllowed": 2}},
         {"Min Available": "0", "Max Unavailable": "N/A", "Allowed Disruptions": 2}),
    ],
)  # fmt: skip
def test_built_in_kinds(resource: Resource, doc: dict[str, Any], row: dict[str, Any]) -> None:
    made = table(resource, doc)
    assert {name: made[name] for name in row} == row


def test_every_built_in_kind_takes_an_empty_object() -> None:
    from hotvirt.server.table_kinds import COLUMNS

    for columns in COLUMNS.values():
        assert tables.render(columns, [{}, {"metadata": {}, "spec": {}, "status": {}}], NOW)["rows"]
