"""Services, what is behind them and what holds their pods; and the kinds that controllers keep their books in."""

import re
from typing import Any

import pytest

Doc = dict[str, Any]
MERGE = "application/merge-patch+json"
POD = {"containers": [{"name": "c", "image": "busybox"}]}


def services(ns: str) -> str:
    return f"/api/v1/namespaces/{ns}/services"


def make(target: Any, ns: str, name: str = "s", **spec: Any) -> Any:
    body = {"metadata": {"name": name}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}], **spec}}
    return target.ask("POST", services(ns), body)


def test_an_address_is_given_kept_and_nobody_elses(target: Any, client: Any, ns: str) -> None:
    told = make(target, ns)
    assert told.status == 201, told.doc
    spec = told.doc["spec"]
    address = spec["clusterIP"]
    assert (spec["clusterIPs"], spec["ipFamilyPolicy"]) == ([address], "SingleStack")
    assert (spec["internalTrafficPolicy"], spec["sessionAffinity"]) == ("Cluster", "None")
    bare = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 81}]}}
    assert client.replace(bare, ns)["spec"]["clusterIP"] == address
    other = {"spec": {"clusterIP": "10.96.200.200", "clusterIPs": ["10.96.200.200"]}}
    told = target.ask("PATCH", f"{services(ns)}/s", other, kind=MERGE)
    assert (told.status, ("FieldValueInvalid", "spec.clusterIPs[0]") in told.causes) == (422, True)
    told = make(target, ns, "t", clusterIP=address)
    assert (told.status, "already allocated" in told.doc["message"]) == (422, True)
    told = make(target, ns, "t", clusterIP="192.0.2.1")
    assert (told.status, "range" in told.doc["message"]) == (422, True)
    client.delete("services", "s", ns)
    assert make(target, ns, "t", clusterIP=address).status == 201


def test_headless_and_external_ones_have_none(target: Any, ns: str) -> None:
    headless = make(target, ns, "h", clusterIP="None", ports=[]).doc["spec"]
    assert (headless["clusterIP"], headless["clusterIPs"]) == ("None", ["None"])
    external = make(target, ns, "e", type="ExternalName", externalName="db.example.com", ports=[], selector=None)
    assert external.status == 201, external.doc
    assert not external.doc["spec"].keys() & {"clusterIP", "clusterIPs", "ipFamilies"}
    told = make(target, ns, "f", type="ExternalName", ports=[])
    assert (told.status, told.causes) == (422, {("FieldValueRequired", "spec.externalName")})


def test_node_ports_come_and_go_with_the_type(target: Any, ns: str) -> None:
    spec = make(target, ns, type="NodePort").doc["spec"]
    number = spec["ports"][0]["nodePort"]
    assert (30000 <= number <= 32767, spec["externalTrafficPolicy"]) == (True, "Cluster")
    told = make(target, ns, "t", type="NodePort", ports=[{"port": 1, "nodePort": number}])
    assert (told.status, told.causes) == (422, {("FieldValueInvalid", "spec.ports[0].nodePort")})
    told = make(target, ns, "t", ports=[{"port": 1, "nodePort": 31000}])
    assert (told.status, told.causes) == (422, {("FieldValueForbidden", "spec.ports[0].nodePort")})
    told = target.ask("PATCH", f"{services(ns)}/s", {"spec": {"type": "ClusterIP"}}, kind=MERGE)
    assert (told.status, "nodePort" in told.doc["spec"]["ports"][0]) == (200, False)


def test_kubectl_shows_and_exposes_them(target: Any, kubectl: Any, ns: str) -> None:
    kubectl("create", "service", "nodeport", "web", "--tcp=80:8080", "-n", ns)
    row = kubectl("get", "svc", "web", "-n", ns).splitlines()[-1].split()
    address = target.ask("GET", f"{services(ns)}/web").doc["spec"]["clusterIP"]
    assert row[:4] == ["web", "NodePort", address, "<none>"]
    assert re.fullmatch(r"80:3\d{4}/TCP", row[4])
    told = kubectl("describe", "svc", "web", "-n", ns)
    assert re.search(rf"IP:\s+{address}", told)
    assert re.search(r"NodePort:\s+80-8080\s+3\d{4}/TCP", told)
    kubectl("expose", "service", "web", "--name=again", "--port=81", "-n", ns)
    assert kubectl("get", "svc", "again", "-n", ns, "-o", "jsonpath={.spec.ports[0].targetPort}") == "81"


def test_endpoints_say_what_can_be_reached(target: Any, kubectl: Any, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/endpoints"
    subset = {"addresses": [{"ip": "10.1.2.3"}], "ports": [{"port": 80}]}
    assert target.ask("POST", path, {"metadata": {"name": "e"}, "subsets": [subset]}).status == 201
    assert kubectl("get", "endpoints", "e", "-n", ns).splitlines()[-1].split()[1] == "10.1.2.3:80"
    told = target.ask("POST", path, {"metadata": {"name": "f"}, "subsets": [{"addresses": [{"ip": "x"}]}]})
    assert (told.status, told.causes) == (422, {("FieldValueInvalid", "subsets[0].addresses[0].ip")})
    path = f"/apis/discovery.k8s.io/v1/namespaces/{ns}/endpointslices"
    part = {"metadata": {"name": "e"}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.1.2.3"]}],
            "ports": [{"name": "", "port": 80}]}  # fmt: skip
    assert target.ask("POST", path, part).status == 201
    assert kubectl("get", "endpointslices", "e", "-n", ns).splitlines()[-1].split()[1:4] == ["IPv4", "80", "10.1.2.3"]
    told = target.ask("PATCH", f"{path}/e", {"addressType": "FQDN"}, kind=MERGE)
    assert (told.status, ("FieldValueInvalid", "addressType") in told.causes) == (422, True)


def test_two_evictions_do_not_take_the_same_place(target: Any, ns: str) -> None:
    pods = f"/api/v1/namespaces/{ns}/pods"
    target.until(lambda: target.ask("GET", f"/api/v1/namespaces/{ns}/serviceaccounts/default").status == 200)
    ready = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
    for name in "pq":
        target.ask("POST", pods, {"metadata": {"name": name, "labels": {"app": "x"}}, "spec": POD})
        target.ask("PATCH", f"{pods}/{name}/status", ready, kind=MERGE)
    budgets = f"/apis/policy/v1/namespaces/{ns}/poddisruptionbudgets"
    budget = {"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}}
    assert target.ask("POST", budgets, budget).status == 201
    status = {"disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2,
              "observedGeneration": 1}  # fmt: skip
    target.ask("PATCH", f"{budgets}/b/status", {"status": status}, kind=MERGE)
    answers = [
        target.ask("POST", f"{pods}/{name}/eviction", {"apiVersion": "policy/v1", "kind": "Eviction",
                                                       "metadata": {"name": name}})
        for name in "pq"
    ]  # fmt: skip
    assert [each.status for each in answers] == [201, 429]
    assert answers[1].doc["details"]["causes"][0]["reason"] == "DisruptionBudget"
    both = {"metadata": {"name": "c"}, "spec": {**budget["spec"], "maxUnavailable": 1}}
    told = target.ask("POST", budgets, both)
    assert (told.status, ("FieldValueInvalid", "spec") in told.causes) == (422, True)


def test_api_services_are_listed_and_available(target: Any, kubectl: Any) -> None:
    def rows() -> list[list[str]]:
        return [line.split() for line in kubectl("get", "apiservices").splitlines()[1:]]

    found = target.until(lambda: {row[0]: row[1:3] for row in rows() if row[0] in ("v1.", "v1.apps", "v1.policy")})
    assert set(map(tuple, found.values())) == {("Local", "True")}
    target.until(lambda: "v1.conformance.hotvirt.io" in [row[0] for row in rows()])
    doc = target.ask("GET", "/apis/apiregistration.k8s.io/v1/apiservices/v1.apps").doc
    assert doc["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"]
    assert doc["status"]["conditions"][0]["type"] == "Available"


def test_priorities_of_the_system(target: Any, kubectl: Any, ns: str) -> None:
    assert "system-node-critical" in kubectl("get", "priorityclasses")
    path = "/apis/scheduling.k8s.io/v1/priorityclasses"
    told = target.ask("POST", path, {"metadata": {"name": f"system-{ns}"}, "value": 1})
    assert (told.status, told.doc["reason"]) in ((422, "Invalid"), (403, "Forbidden"))
    told = target.ask("POST", path, {"metadata": {"name": ns}, "value": 2_000_000_000})
    assert told.status == 422
    assert target.ask("POST", path, {"metadata": {"name": ns}, "value": 7}).status == 201
    told = target.ask("PATCH", f"{path}/{ns}", {"value": 8}, kind=MERGE)
    assert (told.status, told.causes) == (422, {("FieldValueForbidden", "value")})
    target.ask("DELETE", f"{path}/{ns}")


@pytest.mark.parametrize(
    ("path", "body", "causes"),
    [
        ("events.k8s.io/v1", {"kind": "events", "regarding": {"kind": "Pod", "name": "p"}}, {"eventTime"}),
        ("events.k8s.io/v1", {"kind": "events", "regarding": {"kind": "Pod", "name": "p"},
                              "eventTime": "2026-01-01T00:00:00.000000Z"},
         {"reportingController", "reportingInstance", "action", "reason", "type"}),
        ("coordination.k8s.io/v1", {"kind": "leases", "spec": {"leaseDurationSeconds": 0}},
         {"spec.leaseDurationSeconds"}),
        ("apps/v1", {"kind": "controllerrevisions", "revision": -1, "data": {"a": "b"}}, {"revision"}),
    ],
)  # fmt: skip
def test_books_are_checked(target: Any, ns: str, path: str, body: Doc, causes: set[str]) -> None:
    body = dict(body)
    kind = body.pop("kind")
    if "regarding" in body:
        body["regarding"] = {**body["regarding"], "namespace": ns}
    told = target.ask("POST", f"/apis/{path}/namespaces/{ns}/{kind}", {"metadata": {"name": "x"}, **body})
    assert told.status == 422, told.doc
    assert causes <= {field for _, field in told.causes}


def test_an_event_has_two_faces(target: Any, kubectl: Any, ns: str) -> None:
    body = {
        "metadata": {"name": "e"}, "regarding": {"apiVersion": "v1", "kind": "Pod", "name": "p", "namespace": ns},
        "eventTime": "2026-01-01T00:00:00.000000Z", "type": "Warning", "reason": "Odd", "action": "Look",
        "note": "something is odd", "reportingController": "example.com/c", "reportingInstance": "c-1",
    }  # fmt: skip
    path = f"/apis/events.k8s.io/v1/namespaces/{ns}/events"
    assert target.ask("POST", path, body).status == 201
    old = target.ask("GET", f"/api/v1/namespaces/{ns}/events/e").doc
    assert (old["involvedObject"]["name"], old["message"]) == ("p", "something is odd")
    assert "something is odd" in kubectl("get", "events", "-n", ns)
    again = {"series": {"count": 3, "lastObservedTime": "2026-01-01T00:01:00.000000Z"}}
    assert target.ask("PATCH", f"{path}/e", again, kind=MERGE).status == 200
    told = target.ask("PATCH", f"{path}/e", {"note": "else"}, kind=MERGE)
    assert (told.status, {field for _, field in told.causes} & {"note", "message"} != set()) == (422, True)
