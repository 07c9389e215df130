"""What built-in kinds that something acts on may not say, and what of them may change: the fields that are blamed."""

import secrets
from collections.abc import Callable
from typing import Any

import pytest

Doc = dict[str, Any]
MERGE = "application/merge-patch+json"


def container(name: str = "c", **more: Any) -> Doc:
    return {"name": name, "image": "example.org/i:1", **more}


def resources(requests: Doc | None = None, limits: Doc | None = None) -> Doc:
    return container(resources={"requests": requests or {}, "limits": limits or {}})


def blamed(answer: Any) -> set[str]:
    assert (answer.status, answer.doc.get("reason")) == (422, "Invalid"), answer.doc
    return {field for _, field in answer.causes}


@pytest.mark.parametrize(
    ("found", "fields"),
    [
        (resources({"cpu": "2"}, {"cpu": "1"}), {"resources.requests"}),
        (resources({"memory": "-1"}), {"resources.requests[memory]"}),
        (resources({}, {"gold": "1"}), {"resources.limits[gold]", "resources.requests[gold]"}),
        (container(name="Upper"), {"name"}),
        ({"image": "i"}, {"name"}),
    ],
    ids=["more-asked-than-allowed", "negative", "no-such-resource", "bad-name", "no-name"],
)
def test_containers(target: Any, ns: str, found: Doc, fields: set[str]) -> None:
    told = target.ask(
        "POST", f"/api/v1/namespaces/{ns}/pods", {"metadata": {"name": "p"}, "spec": {"containers": [found]}}
    )
    if "resources.requests[gold]" in fields:  # defaulted from the limit
        assert "spec.containers[0].resources.limits[gold]" in blamed(told)
    else:
        assert blamed(told) == {f"spec.containers[0].{field}" for field in fields}


def test_a_request_is_no_larger_after_growing_in_place_either(target: Any, ns: str) -> None:
    pods = f"/api/v1/namespaces/{ns}/pods"
    spec = {"containers": [resources({"cpu": "100m"}, {"cpu": "1"})]}
    target.until(lambda: target.ask("POST", pods, {"metadata": {"name": "p"}, "spec": spec}).status == 201)
    patch = {"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}}}]}}
    told = target.ask("PATCH", f"{pods}/p/resize", patch, kind="application/strategic-merge-patch+json")
    assert "spec.containers[0].resources.requests" in blamed(told)


QUOTA, LIMITS = "resourcequotas", "limitranges"


@pytest.mark.parametrize(
    ("kind", "spec", "fields"),
    [
        (QUOTA, {"hard": {"pods": "-1"}}, {"hard[pods]"}),
        (QUOTA, {"hard": {"nonsense": "1"}}, {"hard[nonsense]"}),
        (QUOTA, {"hard": {"pods": "1"}, "scopes": ["BestEffort", "NotBestEffort"]}, {"scopes"}),
        (LIMITS, {"limits": [{"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}]}, {"limits[0].min[cpu]"}),
        (LIMITS, {"limits": [{"type": "Container", "default": {"cpu": "2"}, "max": {"cpu": "1"}}]},
         {"limits[0].default[cpu]"}),
        (LIMITS, {"limits": [{"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "2"}}]},
         {"limits[0].defaultRequest[cpu]"}),
        (LIMITS, {"limits": [{"type": "Pod", "default": {"cpu": "1"}}]}, {"limits[0].default"}),
    ],
)  # fmt: skip
def test_quotas_and_limit_ranges(target: Any, ns: str, kind: str, spec: Doc, fields: set[str]) -> None:
    told = target.ask("POST", f"/api/v1/namespaces/{ns}/{kind}", {"metadata": {"name": "x"}, "spec": spec})
    assert blamed(told) >= {f"spec.{field}" for field in fields}  # and what was defaulted from it


def test_the_most_is_also_the_usual(target: Any, ns: str) -> None:
    item = {"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}}
    told = target.ask(
        "POST", f"/api/v1/namespaces/{ns}/limitranges", {"metadata": {"name": "x"}, "spec": {"limits": [item]}}
    )
    assert told.status == 201, told.doc
    found = told.doc["spec"]["limits"][0]
    assert (found["default"], found["defaultRequest"]) == ({"cpu": "2"}, {"cpu": "2", "memory": "1Mi"})


def claim(size: str = "1Gi", **spec: Any) -> Doc:
    wanted = {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": {"requests": {"storage": size}}}
    return {"metadata": {"name": "c"}, "spec": {**wanted, **spec}}


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (claim("0"), {"resources[storage]"}),
        (claim(accessModes=[]), {"accessModes"}),
        (claim(accessModes=["Sometimes"]), {"accessModes"}),
        (claim(accessModes=["ReadWriteOnce", "ReadWriteOncePod"]), {"accessModes"}),
        (claim(volumeMode="Round"), {"volumeMode"}),
        (claim(resources={}), {"resources[storage]"}),
    ],
    ids=["nothing", "no-mode", "bad-mode", "modes-that-exclude-each-other", "bad-volume-mode", "no-size"],
)
def test_claims(target: Any, ns: str, body: Doc, fields: set[str]) -> None:
    told = target.ask("POST", f"/api/v1/namespaces/{ns}/persistentvolumeclaims", body)
    assert blamed(told) == {f"spec.{field}" for field in fields}


def test_what_may_change_of_a_claim(target: Any, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/persistentvolumeclaims"
    assert target.ask("POST", path, claim()).status == 201

    def tried(spec: Doc) -> set[str]:
        return blamed(target.ask("PATCH", f"{path}/c", {"spec": spec}, kind=MERGE))

    assert "spec" in tried({"accessModes": ["ReadOnlyMany"]})
    assert "spec" in tried({"resources": {"requests": {"storage": "1Mi"}}})
    bound = {"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}}
    assert target.ask("PATCH", f"{path}/c/status", bound, kind=MERGE).status == 200
    assert tried({"storageClassName": "other"}) == {"spec"}


@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        ({"accessModes": []}, {"spec.accessModes"}),
        ({"accessModes": ["Sometimes"]}, {"spec.accessModes"}),
        ({"persistentVolumeReclaimPolicy": "Burn"}, {"spec.persistentVolumeReclaimPolicy"}),
        ({"capacity": {"storage": "0"}}, {"spec.capacity[storage]"}),
    ],
)
def test_volumes(target: Any, ns: str, spec: Doc, fields: set[str]) -> None:
    whole = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/nowhere"}, **spec}
    told = target.ask("POST", "/api/v1/persistentvolumes", {"metadata": {"name": f"{ns}-pv"}, "spec": whole})
    assert blamed(told) == fields


def test_storage_classes(target: Any, ns: str) -> None:
    path = "/apis/storage.k8s.io/v1/storageclasses"
    told = target.ask("POST", path, {"metadata": {"name": ns}, "provisioner": "", "reclaimPolicy": "Burn",
                                     "volumeBindingMode": "Later"})  # fmt: skip
    assert blamed(told) == {"provisioner", "reclaimPolicy", "volumeBindingMode"}
    told = target.ask("POST", path, {"metadata": {"name": ns}, "provisioner": "a.b/c", "parameters": {"x": "y"}})
    assert (told.status, told.doc["reclaimPolicy"], told.doc["volumeBindingMode"]) == (201, "Delete", "Immediate")
    for change, field in (({"provisioner": "d.e/f"}, "provisioner"), ({"parameters": {"x": "z"}}, "parameters")):
        assert blamed(target.ask("PATCH", f"{path}/{ns}", change, kind=MERGE)) == {field}
    assert target.ask("PATCH", f"{path}/{ns}", {"allowVolumeExpansion": True}, kind=MERGE).status == 200
    target.ask("DELETE", f"{path}/{ns}")


@pytest.mark.parametrize(
    ("kind", "data", "fields"),
    [
        ("tls", {}, {"tls.crt", "tls.key"}),
        ("basic-auth", {}, {"username", "password"}),
        ("basic-auth", {"username": "YQ=="}, set()),
        ("ssh-auth", {}, {"ssh-privatekey"}),
        ("dockerconfigjson", {}, {".dockerconfigjson"}),
    ],
)
def test_secrets_hold_what_their_type_says(target: Any, ns: str, kind: str, data: Doc, fields: set[str]) -> None:
    body = {"metadata": {"name": "s"}, "type": f"kubernetes.io/{kind}", "data": data}
    told = target.ask("POST", f"/api/v1/namespaces/{ns}/secrets", body)
    if fields:
        assert blamed(told) == {f"data[{field}]" for field in fields}
    else:
        assert told.status == 201, told.doc


POLICIES = "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies"


@pytest.mark.parametrize(
    ("rules", "fields"),
    [
        ({"ingress": [{"ports": [{"port": 70000}]}]}, {"ingress[0].ports[0].port"}),
        ({"ingress": [{"ports": [{"port": 80, "protocol": "FOO"}]}]}, {"ingress[0].ports[0].protocol"}),
        ({"egress": [{"ports": [{"port": 80, "endPort": 79}]}]}, {"egress[0].ports[0].endPort"}),
        ({"podSelector": {"matchExpressions": [{"operator": "Exists"}]}}, {"podSelector.matchExpressions[0].key"}),
        ({"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0"}}]}]}, {"egress[0].to[0].ipBlock.cidr"}),
        ({"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/8"]}}]}]},
         {"egress[0].to[0].ipBlock.except[0]"}),
        ({"ingress": [{"from": [{}]}]}, {"ingress[0].from[0]"}),
        ({"policyTypes": ["Sideways"]}, {"policyTypes[0]"}),
    ],
)  # fmt: skip
def test_network_policies(target: Any, ns: str, rules: Doc, fields: set[str]) -> None:
    body = {"metadata": {"name": "p"}, "spec": {"podSelector": {}, **rules}}
    assert blamed(target.ask("POST", POLICIES.format(ns), body)) == {f"spec.{field}" for field in fields}


def test_a_network_policy_says_what_it_leaves_out(target: Any, ns: str) -> None:
    spec = {"podSelector": {}, "egress": [{"ports": [{"port": 53}]}]}
    told = target.ask("POST", POLICIES.format(ns), {"metadata": {"name": "p"}, "spec": spec})
    assert told.status == 201, told.doc
    assert told.doc["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert told.doc["spec"]["egress"] == [{"ports": [{"port": 53, "protocol": "TCP"}]}]


RBAC = "/apis/rbac.authorization.k8s.io/v1"


@pytest.mark.parametrize(
    ("rule", "fields"),
    [
        ({"verbs": ["get"]}, {"apiGroups", "resources"}),
        ({"apiGroups": [""], "resources": ["pods"]}, {"verbs"}),
        ({"nonResourceURLs": ["/healthz"], "verbs": ["get"]}, {"nonResourceURLs"}),
    ],
)
def test_roles(target: Any, ns: str, rule: Doc, fields: set[str]) -> None:
    told = target.ask("POST", f"{RBAC}/namespaces/{ns}/roles", {"metadata": {"name": "r"}, "rules": [rule]})
    assert blamed(told) == {f"rules[0].{field}" for field in fields}


def test_bindings(target: Any, ns: str) -> None:
    subjects = [{"kind": "User"}, {"kind": "Robot", "name": "x"}, {"kind": "ServiceAccount", "name": "X"}]
    body = {"metadata": {"name": "b"}, "roleRef": {"kind": "Rule", "name": ""}, "subjects": subjects}
    told = target.ask("POST", f"{RBAC}/namespaces/{ns}/rolebindings", body)
    assert blamed(told) == {"roleRef.kind", "roleRef.name", "subjects[0].name", "subjects[1].kind", "subjects[2].name"}
    body = {"metadata": {"name": ns}, "roleRef": {"kind": "Role", "name": "r"}}
    assert blamed(target.ask("POST", f"{RBAC}/clusterrolebindings", body)) == {"roleRef.kind"}


def test_options_that_cannot_be_used(target: Any, ns: str) -> None:
    maps = f"/api/v1/namespaces/{ns}/configmaps"
    body = {"metadata": {"name": "c"}}
    assert blamed(target.ask("POST", maps, body, dryRun="Some")) == {"dryRun"}
    assert blamed(target.ask("POST", maps, body, fieldValidation="Perhaps")) == {"fieldValidation"}
    assert blamed(target.ask("POST", maps, body, fieldManager="x" * 129)) == {"fieldManager"}
    assert target.ask("POST", maps, body).status == 201
    assert blamed(target.ask("PATCH", f"{maps}/c", {}, kind=MERGE, force="true")) == {"force"}
    assert blamed(target.ask("DELETE", f"{maps}/c", {"propagationPolicy": "Sideways"})) == {"propagationPolicy"}
    both = {"propagationPolicy": "Orphan", "orphanDependents": True}
    assert blamed(target.ask("DELETE", f"{maps}/c", both)) == {"propagationPolicy"}
    told = target.ask("DELETE", f"{maps}/c", {"apiVersion": "v1", "kind": "Pod"})
    assert (told.status, told.doc["reason"]) == (400, "BadRequest")


def test_metadata(target: Any, ns: str) -> None:
    maps = f"/api/v1/namespaces/{ns}/configmaps"
    meta = {"name": "a", "labels": {"ok": "-bad"}, "annotations": {"_x y": "1"}, "finalizers": ["a b"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "", "uid": ""}]}  # fmt: skip
    assert blamed(target.ask("POST", maps, {"metadata": meta})) >= {
        "metadata.labels", "metadata.annotations", "metadata.finalizers", "metadata.ownerReferences.name",
        "metadata.ownerReferences.uid",
    }  # fmt: skip
    assert "metadata.generateName" in blamed(target.ask("POST", maps, {"metadata": {"generateName": "Up_"}}))
    told = target.ask("POST", maps, {"metadata": {"name": "a", "resourceVersion": "5"}})
    if target.differs("a resourceVersion on create is the client's fault here, an error of the server's there"):
        assert (told.status, told.doc["reason"]) == (400, "BadRequest")
    else:
        assert told.status == 500
    assert "resourceVersion should not be set" in told.doc["message"]
    target.ask("POST", maps, {"metadata": {"name": "a"}})
    for method, kind, body in (
        ("PUT", "application/json", {"data": {}}),
        ("PATCH", MERGE, {"metadata": {"name": "b"}}),
    ):
        told = target.ask(method, f"{maps}/a", body, kind=kind)
        assert (told.status, told.doc["reason"]) == (400, "BadRequest"), told.doc


def test_a_negative_scale(target: Any, ns: str, widget: Callable[..., Doc]) -> None:
    path = f"/apis/conformance.hotvirt.io/v1/namespaces/{ns}/widgets"
    target.ask("POST", path, widget("w"))
    assert "spec.replicas" in blamed(target.ask("PATCH", f"{path}/w/scale", {"spec": {"replicas": -1}}, kind=MERGE))


def test_an_eviction_of_another_name(target: Any, ns: str) -> None:
    pods = f"/api/v1/namespaces/{ns}/pods"
    body = {"metadata": {"name": "p"}, "spec": {"containers": [container()]}}
    target.until(lambda: target.ask("POST", pods, body).status == 201)
    evict = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "q"}}
    told = target.ask("POST", f"{pods}/p/eviction", evict)
    assert (told.status, told.doc["reason"]) == (400, "BadRequest")


def test_an_amount_that_is_none(target: Any, ns: str) -> None:
    found = resources({"cpu": "much"})
    told = target.ask(
        "POST", f"/api/v1/namespaces/{ns}/pods", {"metadata": {"name": "p"}, "spec": {"containers": [found]}}
    )
    if target.differs("a wrong value of a built-in kind is 422 with its field, there a 400 of the decoder's"):
        assert blamed(told) == {"spec.containers[0].resources.requests.cpu"}
    else:
        assert told.status == 400


def test_a_write_without_a_version(target: Any, ns: str, widget: Callable[..., Doc]) -> None:
    """Built-in kinds let a PUT overwrite what is there; custom ones do not."""
    maps = f"/api/v1/namespaces/{ns}/configmaps"
    target.ask("POST", maps, {"metadata": {"name": "c"}, "data": {"a": "1"}})
    told = target.ask("PUT", f"{maps}/c", {"metadata": {"name": "c"}, "data": {"a": "2"}})
    assert (told.status, told.doc["data"]) == (200, {"a": "2"})
    widgets = f"/apis/conformance.hotvirt.io/v1/namespaces/{ns}/widgets"
    target.ask("POST", widgets, widget("w"))
    assert blamed(target.ask("PUT", f"{widgets}/w", widget("w", color="red"))) == {"metadata.resourceVersion"}


def test_one_autoscaler_in_two_versions(target: Any, ns: str) -> None:
    path = f"/apis/autoscaling/{{}}/namespaces/{ns}/horizontalpodautoscalers"
    to = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}
    spec = {"scaleTargetRef": to, "maxReplicas": 3}
    told = target.ask("POST", path.format("v1"), {"metadata": {"name": "old"},
                                                  "spec": {**spec, "targetCPUUtilizationPercentage": 50}})  # fmt: skip
    assert told.status == 201, told.doc
    told = target.ask("GET", path.format("v2") + "/old")
    metric = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization",
                                                                         "averageUtilization": 50}}}  # fmt: skip
    assert told.doc["spec"]["metrics"] == [metric]
    name = f"new-{secrets.token_hex(2)}"
    told = target.ask("POST", path.format("v2"), {"metadata": {"name": name}, "spec": spec})
    assert told.doc["spec"]["metrics"][0]["resource"]["target"] == {"type": "Utilization", "averageUtilization": 80}
    assert target.ask("GET", path.format("v1") + f"/{name}").doc["spec"]["targetCPUUtilizationPercentage"] == 80
