"""The built-in kinds that clients and hotvirt's users need, with what Kubernetes checks of them."""

import re
from collections.abc import Callable
from typing import Any

import pytest

Doc = dict[str, Any]
MERGE = "application/merge-patch+json"
POD = {"containers": [{"name": "c", "image": "busybox", "resources": {"requests": {"cpu": "100m", "memory": "8Mi"}}}]}


def pods(ns: str) -> str:
    return f"/api/v1/namespaces/{ns}/pods"


def make_pod(target: Any, ns: str, name: str, **spec: Any) -> Any:
    """Waits for the namespace's account, which a kube-apiserver wants first."""
    body = {"metadata": {"name": name, "labels": {"app": name}}, "spec": {**POD, **spec}}
    target.until(lambda: target.ask("GET", f"/api/v1/namespaces/{ns}/serviceaccounts/default").status == 200)
    return target.ask("POST", pods(ns), body)


def test_what_a_namespace_begins_with(target: Any, ns: str) -> None:
    for path, key in ((f"/api/v1/namespaces/{ns}/configmaps/kube-root-ca.crt", "data"),
                      (f"/api/v1/namespaces/{ns}/serviceaccounts/default", "metadata")):  # fmt: skip
        found = target.until(lambda path=path: (a := target.ask("GET", path)).status == 200 and a.doc)
        assert found[key]
    namespace = target.ask("GET", f"/api/v1/namespaces/{ns}").doc
    assert namespace["metadata"]["labels"]["kubernetes.io/metadata.name"] == ns
    assert (namespace["spec"]["finalizers"], namespace["status"]["phase"]) == (["kubernetes"], "Active")


def test_made_by_kubectls_own_commands(kubectl: Any, ns: str, target: Any) -> None:
    """They send protobuf where the server says it takes it."""
    target.until(lambda: target.ask("GET", f"/api/v1/namespaces/{ns}/serviceaccounts/default").status == 200)
    for command in (
        "configmap c --from-literal=a=b", "secret generic s --from-literal=a=b", "serviceaccount robot",
        "role r --verb=get --resource=pods", "rolebinding b --role=r --serviceaccount=team:robot",
        "service clusterip web --tcp=80:8080", "deployment d --image=nginx --replicas=0", "quota q --hard=pods=30",
        "poddisruptionbudget p --selector=a=b --min-available=1", "job j --image=busybox",
        "cronjob cj --image=busybox --schedule=*/5_*_*_*_*", "ingress i --rule=a.example/=web:80",
    ):  # fmt: skip
        words = [word.replace("_", " ") for word in command.split()]
        if words[0] in ("poddisruptionbudget", "cronjob") and kubectl.minor < 21:
            continue  # asks for v1beta1, which Kubernetes 1.25 took away
        assert "created" in kubectl("create", *words, "-n", ns), command
    assert kubectl("get", "secret", "s", "-n", ns, "-o", "jsonpath={.data.a}") == "Yg=="
    kubectl("set", "image", "deployment/d", "nginx=nginx:2", "-n", ns)
    assert kubectl("get", "deploy", "d", "-n", ns, "-o", "jsonpath={..image}") == "nginx:2"
    kubectl("label", "deploy", "d", "a=b", "-n", ns)
    kubectl("annotate", "deploy", "d", "a=b", "-n", ns)
    assert "Name:" in kubectl("describe", "deploy", "d", "-n", ns)


def test_workloads_say_what_is_usual(target: Any, kubectl: Any, ns: str) -> None:
    kubectl("create", "deployment", "d", "--image=nginx", "-n", ns, "--replicas=0")
    spec = target.ask("GET", f"/apis/apps/v1/namespaces/{ns}/deployments/d").doc["spec"]
    usual = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}
    assert (spec["strategy"], spec["revisionHistoryLimit"], spec["progressDeadlineSeconds"]) == (usual, 10, 600)
    inner = spec["template"]["spec"]
    assert (inner["restartPolicy"], inner["containers"][0]["imagePullPolicy"]) == ("Always", "Always")
    body = {"metadata": {"name": "c"}, "spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": {"spec": {
        "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}}}  # fmt: skip
    told = target.ask("POST", f"/apis/batch/v1/namespaces/{ns}/cronjobs", body)
    assert told.status == 201, told.doc
    assert (told.doc["spec"]["concurrencyPolicy"], told.doc["spec"]["suspend"]) == ("Allow", False)


def test_what_a_new_user_types(kubectl: Any, ns: str, widget: Callable[..., Doc], refused: type[Any]) -> None:
    manifest = widget("a", color="red")
    apply = ("apply", "-n", ns, "-f", "-")
    assert kubectl(*apply, text=manifest) == "widget.conformance.hotvirt.io/a created\n"
    assert kubectl(*apply, text=manifest) == "widget.conformance.hotvirt.io/a unchanged\n"
    manifest["spec"] = {"replicas": 2}
    code, out, _ = kubectl.tried("diff", "-n", ns, "-f", "-", text=manifest)
    assert (code, "-  color: red" in out, "+  replicas: 2" in out) == (1, True, True)
    assert kubectl(*apply, text=manifest) == "widget.conformance.hotvirt.io/a configured\n"
    assert kubectl("get", "wdg", "a", "-n", ns, "-o", "jsonpath={.spec}") == '{"nested":{"mode":"plain"},"replicas":2}'
    kubectl("edit", "wdg", "a", "-n", ns, KUBE_EDITOR="sed -i s/plain/fancy/")
    assert re.search(r"Mode:\s+fancy", kubectl("describe", "wdg", "a", "-n", ns))
    kubectl.needs(24, "--subresource")
    kubectl("patch", "wdg", "a", "-n", ns, "--subresource=status", "--type=merge", "-p",
            '{"status":{"conditions":[{"type":"Ready","status":"True"}]}}')  # fmt: skip
    assert "condition met" in kubectl("wait", "wdg/a", "-n", ns, "--for=condition=Ready", "--timeout=5s")
    assert "condition met" in kubectl("wait", "wdg/a", "-n", ns, "--for=jsonpath={.spec.replicas}=2", "--timeout=5s")
    assert "deleted" in kubectl("delete", "wdg", "a", "-n", ns, "--cascade=foreground")
    with pytest.raises(refused) as told:
        kubectl("get", "wdg", "a", "-n", ns)
    assert told.value.reason == "NotFound"


@pytest.mark.parametrize(
    ("plural", "body", "field"),
    [
        ("pods", {"spec": {"containers": []}}, "spec.containers"),
        ("pods", {"spec": {"containers": [{"name": "A_B", "image": "i"}]}}, "spec.containers[0].name"),
        ("pods", {"spec": {"containers": [{"name": "a", "image": "i"}] * 2}}, "spec.containers[1].name"),
        ("pods", {"spec": {**POD, "restartPolicy": "Sometimes"}}, "spec.restartPolicy"),
        ("services", {"spec": {"ports": [{"port": 0}]}}, "spec.ports[0].port"),
        ("services", {"spec": {"type": "Magic", "ports": [{"port": 1}]}}, "spec.type"),
        ("persistentvolumeclaims", {"spec": {"resources": {"requests": {"storage": "1Gi"}}}}, "spec.accessModes"),
        ("persistentvolumeclaims", {"spec": {"accessModes": ["ReadWriteOnce"]}}, "spec.resources[storage]"),
        ("configmaps", {"data": {"a/b": "c"}}, "data[a/b]"),
        ("configmaps", {"metadata": {"name": "x", "labels": {"a": "no spaces"}}}, "metadata.labels"),
        ("configmaps", {"metadata": {"name": "Upper"}}, "metadata.name"),
        ("secrets", {"type": "kubernetes.io/tls", "data": {}}, "data[tls.crt]"),
    ],
    ids=str,
)  # fmt: skip
def test_faults_by_field(target: Any, ns: str, plural: str, body: Doc, field: str) -> None:
    body = {"metadata": {"name": "x"}, **body}
    target.until(lambda: target.ask("GET", f"/api/v1/namespaces/{ns}/serviceaccounts/default").status == 200)
    told = target.ask("POST", f"/api/v1/namespaces/{ns}/{plural}", body)
    assert (told.status, told.doc["reason"]) == (422, "Invalid"), told.doc
    assert any(each.startswith(field) for _, each in told.causes), told.causes


def test_a_pod_is_bound_and_goes(target: Any, client: Any, ns: str) -> None:
    assert make_pod(target, ns, "p").status == 201
    made = client.get("pods", "p", ns)
    assert (made["status"]["phase"], made["status"]["qosClass"]) == ("Pending", "Burstable")
    assert (made["spec"]["restartPolicy"], made["spec"]["terminationGracePeriodSeconds"]) == ("Always", 30)
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"},
               "target": {"apiVersion": "v1", "kind": "Node", "name": "far-away"}}  # fmt: skip
    assert target.ask("POST", f"{pods(ns)}/p/binding", binding).status == 201
    bound = client.get("pods", "p", ns)
    assert bound["spec"]["nodeName"] == "far-away"
    assert {"type": "PodScheduled", "status": "True"}.items() <= bound["status"]["conditions"][0].items()
    told = target.ask("POST", f"{pods(ns)}/p/binding", binding)
    assert (told.status, told.doc["reason"]) == (409, "Conflict")
    client.delete("pods", "p", ns)  # on a node: its kubelet ends it
    meta = client.get("pods", "p", ns)["metadata"]
    assert (meta["deletionGracePeriodSeconds"], bool(meta["deletionTimestamp"])) == (30, True)
    told = target.ask("DELETE", f"{pods(ns)}/p", {"gracePeriodSeconds": 0})
    assert told.status == 200
    assert target.ask("GET", f"{pods(ns)}/p").status == 404


def test_most_of_a_pod_cannot_be_changed(target: Any, ns: str) -> None:
    make_pod(target, ns, "p")
    told = target.ask("PATCH", f"{pods(ns)}/p", {"spec": {"hostname": "other"}}, kind=MERGE)
    assert (told.status, told.doc["reason"]) == (422, "Invalid")
    assert "pod updates may not change fields other than" in told.doc["message"]
    image = [{"op": "replace", "path": "/spec/containers/0/image", "value": "other"}]
    assert target.ask("PATCH", f"{pods(ns)}/p", image, kind="application/json-patch+json").status == 200


def test_a_pod_grows_in_place(target: Any, ns: str) -> None:
    make_pod(target, ns, "p")
    larger = {"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "200m"}}}]}}
    kind = "application/strategic-merge-patch+json"
    assert target.ask("PATCH", f"{pods(ns)}/p", larger, kind=kind).status == 422
    told = target.ask("PATCH", f"{pods(ns)}/p/resize", larger, kind=kind)
    assert told.status == 200, told.doc
    assert told.doc["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "200m", "memory": "8Mi"}


def test_eviction_keeps_to_the_budget(target: Any, ns: str) -> None:
    make_pod(target, ns, "p")
    ready = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
    target.ask("PATCH", f"{pods(ns)}/p/status", ready, kind=MERGE)
    budgets = f"/apis/policy/v1/namespaces/{ns}/poddisruptionbudgets"
    budget = {"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "p"}}}}
    assert target.ask("POST", budgets, budget).status == 201
    status = {"status": {"disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1,
                         "observedGeneration": 1}}  # fmt: skip
    target.ask("PATCH", f"{budgets}/b/status", status, kind=MERGE)
    evict = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}}
    told = target.ask("POST", f"{pods(ns)}/p/eviction", evict)
    assert (told.status, told.doc["reason"]) == (429, "TooManyRequests")
    assert told.doc["details"]["causes"][0]["reason"] == "DisruptionBudget"
    target.ask("DELETE", f"{budgets}/b")
    assert target.ask("POST", f"{pods(ns)}/p/eviction", evict).status == 201

    def going() -> bool:
        told = target.ask("GET", f"{pods(ns)}/p")
        return told.status == 404 or "deletionTimestamp" in told.doc["metadata"]

    target.until(going)


def test_quotas_count(target: Any, client: Any, ns: str, refused: type[Any]) -> None:
    quotas = f"/api/v1/namespaces/{ns}/resourcequotas"
    target.until(lambda: target.ask("GET", f"/api/v1/namespaces/{ns}/configmaps/kube-root-ca.crt").status == 200)
    hard = {"count/configmaps": "3", "requests.cpu": "150m", "pods": "5"}
    assert target.ask("POST", quotas, {"metadata": {"name": "q"}, "spec": {"hard": hard}}).status == 201

    def used() -> Doc:
        found: Doc = target.ask("GET", f"{quotas}/q").doc.get("status", {}).get("used", {})
        return found

    target.until(lambda: used().get("count/configmaps") == "1")  # kube-root-ca.crt
    assert make_pod(target, ns, "p").status == 201
    target.until(lambda: used() == {"count/configmaps": "1", "requests.cpu": "100m", "pods": "1"})
    told = make_pod(target, ns, "q")
    assert (told.status, told.doc["reason"]) == (403, "Forbidden")
    assert (
        "exceeded quota: q, requested: requests.cpu=100m, used: requests.cpu=100m, limited: requests.cpu=150m"
        in (told.doc["message"])
    )
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "c-"}}
    client.create(config, ns)
    client.create(config, ns)
    with pytest.raises(refused, match="exceeded quota"):
        client.create(config, ns)
    target.ask("DELETE", f"{pods(ns)}/p", {"gracePeriodSeconds": 0})
    target.until(lambda: used().get("pods") == "0")


def test_limit_ranges_fill_in_and_bound(target: Any, ns: str) -> None:
    limits = [{"type": "Container", "default": {"memory": "64Mi"}, "defaultRequest": {"cpu": "50m"},
               "max": {"memory": "128Mi"}}]  # fmt: skip
    told = target.ask("POST", f"/api/v1/namespaces/{ns}/limitranges",
                      {"metadata": {"name": "l"}, "spec": {"limits": limits}})  # fmt: skip
    assert told.status == 201, told.doc
    bare = [{"name": "c", "image": "i"}]

    def limited() -> Any:
        made = make_pod(target, ns, "p", containers=bare).doc
        target.ask("DELETE", f"{pods(ns)}/p", {"gracePeriodSeconds": 0})
        return made["spec"]["containers"][0].get("resources")

    resources = target.until(limited)
    assert resources == {"limits": {"memory": "64Mi"}, "requests": {"cpu": "50m", "memory": "64Mi"}}
    much = [{"name": "c", "image": "i", "resources": {"limits": {"memory": "1Gi"}}}]
    told = make_pod(target, ns, "q", containers=much)
    assert (told.status, told.doc["reason"]) == (403, "Forbidden")
    assert "maximum memory usage per Container is 128Mi, but" in told.doc["message"]


def test_immutable_and_write_only(target: Any, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/secrets"
    told = target.ask("POST", path, {"metadata": {"name": "s"}, "stringData": {"a": "b"}, "immutable": True})
    assert (told.status, told.doc["data"], "stringData" in told.doc) == (201, {"a": "Yg=="}, False)
    assert told.doc["type"] == "Opaque"
    told = target.ask("PATCH", f"{path}/s", {"data": {"a": "Yw=="}}, kind=MERGE)
    assert (told.status, told.doc["reason"]) == (422, "Invalid")
    told = target.ask("POST", path, {"metadata": {"name": "bad"}, "data": {"a": "not base64!"}})
    if target.differs("a wrong value of a built-in kind is 422 with its field, there a 400 of the decoder's"):
        assert (told.status, {field for _, field in told.causes}) == (422, {"data.a"})
    else:
        assert told.status == 400


def test_leases_and_events_in_both_groups(target: Any, ns: str) -> None:
    lease = {"metadata": {"name": "l"}, "spec": {"holderIdentity": "me", "leaseDurationSeconds": 15,
                                                 "renewTime": "2030-01-01T00:00:00.000001Z"}}  # fmt: skip
    path = f"/apis/coordination.k8s.io/v1/namespaces/{ns}/leases"
    told = target.ask("POST", path, lease)
    assert (told.status, told.doc["spec"]["renewTime"]) == (201, "2030-01-01T00:00:00.000001Z")
    core = {"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": ns},
            "reason": "Tried", "message": "to", "type": "Normal", "source": {"component": "c"},
            "firstTimestamp": "2030-01-01T00:00:00Z"}  # fmt: skip
    assert target.ask("POST", f"/api/v1/namespaces/{ns}/events", core).status == 201
    told = target.ask("GET", f"/apis/events.k8s.io/v1/namespaces/{ns}/events/e").doc
    assert (told["regarding"]["name"], told["note"], told["reason"]) == ("p", "to", "Tried")
    told = target.ask("POST", f"/api/v1/namespaces/{ns}/events", {"metadata": {"name": "f"},
                      "involvedObject": {"namespace": "elsewhere"}})  # fmt: skip
    assert told.status == 422


def test_volumes(target: Any, ns: str) -> None:
    name = f"{ns}-pv"
    volume = {"metadata": {"name": name}, "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/nowhere"},
        "storageClassName": "none"}}  # fmt: skip
    told = target.ask("POST", "/api/v1/persistentvolumes", volume)
    assert told.status == 201, told.doc
    assert told.doc["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert told.doc["spec"]["volumeMode"] == "Filesystem"
    claim = {"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "other",
                                                 "resources": {"requests": {"storage": "1Gi"}}}}  # fmt: skip
    path = f"/api/v1/namespaces/{ns}/persistentvolumeclaims"
    told = target.ask("POST", path, claim)
    assert (told.status, told.doc["status"]["phase"]) == (201, "Pending")
    told = target.ask("PATCH", f"{path}/c", {"spec": {"storageClassName": "none"}}, kind=MERGE)
    assert (told.status, told.doc["reason"]) == (422, "Invalid")
    target.ask("DELETE", f"/api/v1/persistentvolumes/{name}")


def test_services_get_an_address_there(target: Any, ns: str) -> None:
    body = {"metadata": {"name": "s"}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}}
    told = target.ask("POST", f"/api/v1/namespaces/{ns}/services", body)
    assert told.status == 201, told.doc
    spec = told.doc["spec"]
    assert (spec["type"], spec["ports"][0]["protocol"], spec["ports"][0]["targetPort"]) == ("ClusterIP", "TCP", 80)
    assert spec["clusterIPs"] == [spec["clusterIP"]]


def test_an_hpa_and_a_priority_class(target: Any, ns: str) -> None:
    hpa = {"metadata": {"name": "h"}, "spec": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}, "maxReplicas": 3}}  # fmt: skip
    path = f"/apis/autoscaling/v2/namespaces/{ns}/horizontalpodautoscalers"
    told = target.ask("POST", path, hpa)
    assert (told.status, told.doc["spec"]["minReplicas"]) == (201, 1)
    told = target.ask("POST", path, {"metadata": {"name": "i"}, "spec": {**hpa["spec"], "maxReplicas": 0}})
    assert told.status == 422
    name = f"{ns}-high"
    priority = {"metadata": {"name": name}, "value": 1000}
    assert target.ask("POST", "/apis/scheduling.k8s.io/v1/priorityclasses", priority).status == 201
    told = make_pod(target, ns, "p", priorityClassName=name)
    assert (told.status, told.doc["spec"].get("priority")) == (201, 1000)
    assert make_pod(target, ns, "q", priorityClassName="nonsense").status in (403, 422)
    target.ask("DELETE", f"/apis/scheduling.k8s.io/v1/priorityclasses/{name}")
