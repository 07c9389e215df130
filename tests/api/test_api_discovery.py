"""What clients discover: health, groups, schemas, tables, warnings."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

Doc = dict[str, Any]
GROUP = "conformance.hotvirt.io"
TWICE = (
    b'{"apiVersion":"conformance.hotvirt.io/v1","kind":"Widget","metadata":{"name":"w"},'
    b'"spec":{"color":"red","color":"red"}}'
)
DEPLOYMENT = (
    b'{"metadata":{"name":"d"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}}'
    b',"spec":{"containers":[{"name":"c","image":"i","imagePullPolice":"Always"}]}}}}'
)
V2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz"])
def test_health_is_for_everybody(target: Any, path: str) -> None:
    told = target.ask("GET", path, nobody=True)
    assert (told.status, told.doc) == (200, "ok")
    assert "ok" in target.ask("GET", f"{path}?verbose").doc


def test_one_check_of_health(target: Any) -> None:
    assert target.ask("GET", "/livez/ping").doc == "ok"
    assert target.ask("GET", "/livez/nonsense").status == 404
    assert target.ask("GET", "/livez/ping", nobody=True).status in (401, 403)


def test_version(target: Any) -> None:
    version = target.ask("GET", "/version", nobody=True).doc
    assert re.fullmatch(r"v1\.\d+\..*", version["gitVersion"])
    assert (version["major"], version["minor"].rstrip("+").isdigit()) == ("1", True)


def test_both_forms_of_discovery_name_the_same(target: Any) -> None:
    groups = target.ask("GET", "/apis").doc["groups"]
    new = {item["metadata"]["name"]: item for item in target.ask("GET", "/apis", headers={"Accept": V2}).doc["items"]}
    for group in groups:
        if group["name"] not in new:  # an aggregated server that does not answer
            continue
        versions = {version["version"]: version for version in new[group["name"]]["versions"]}
        assert list(versions) == [version["version"] for version in group["versions"]]
        assert group["preferredVersion"]["version"] == next(iter(versions))
        for version, resources in versions.items():
            old = target.ask("GET", f"/apis/{group['name']}/{version}").doc["resources"]
            assert {row["name"] for row in old} == _names(resources["resources"]), (group["name"], version)
    core = target.ask("GET", "/api", headers={"Accept": V2}).doc["items"][0]["versions"][0]["resources"]
    assert {row["name"] for row in target.ask("GET", "/api/v1").doc["resources"]} == _names(core)


def _names(rows: list[Doc]) -> set[str]:
    subresources = {f"{row['resource']}/{sub['subresource']}" for row in rows for sub in row.get("subresources", ())}
    return {row["resource"] for row in rows if row.get("responseKind")} | subresources


def test_a_custom_kind_is_described(target: Any) -> None:
    rows = {row["name"]: row for row in target.ask("GET", f"/apis/{GROUP}/v1").doc["resources"]}
    widgets = rows["widgets"]
    assert (widgets["kind"], widgets["singularName"], widgets["namespaced"]) == ("Widget", "widget", True)
    assert (widgets["shortNames"], widgets["categories"]) == (["wdg"], ["gadgets"])
    wanted = {"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}
    assert set(widgets["verbs"]) == wanted
    assert set(rows["widgets/status"]["verbs"]) == {"get", "patch", "update"}
    scale = rows["widgets/scale"]
    assert (scale["group"], scale["version"], scale["kind"]) == ("autoscaling", "v1", "Scale")


def test_kubectl_finds_its_way(kubectl: Any) -> None:
    rows = [line.split() for line in kubectl("api-resources").splitlines()]
    assert ["widgets", "wdg", f"{GROUP}/v1", "true", "Widget"] in rows
    assert ["virtualmachines", "vm,vms", "kubevirt.io/v1", "true", "VirtualMachine"] in rows
    assert ["namespaces", "ns", "v1", "false", "Namespace"] in rows
    versions = kubectl("api-versions").split()
    assert {f"{GROUP}/v1", f"{GROUP}/v1alpha1", "kubevirt.io/v1", "kubevirt.io/v1alpha3", "v1", "apps/v1"} <= {
        *versions
    }
    kubectl.needs(26, "api-resources --categories")
    assert "widgets" in kubectl("api-resources", "--categories=gadgets", "-o", "name")


def test_explain(target: Any, kubectl: Any) -> None:
    told = kubectl("explain", "vm.spec.template.spec.domain.memory")
    assert re.search(r"(GROUP|VERSION):\s+kubevirt\.io", told)
    assert re.search(r"(FIELD|RESOURCE):? ?memory", told)
    for field in ("guest", "maxGuest", "hugepages"):
        assert re.search(rf"^\s+{field}\s", told, re.MULTILINE), field
    described = told.split("DESCRIPTION")[1].split("FIELDS")[0].strip()
    assert len(described) > 20
    assert "How many." in kubectl("explain", "wdg.spec.replicas")
    assert "replicas" in kubectl("explain", "widgets", "--recursive")
    why = "OpenAPI v2 does not say which built-in kind is which: an old kubectl's patches go by what it was built with"
    if kubectl.minor >= 27 or not target.differs(why):
        assert "containers" in kubectl("explain", "pod.spec")
    kubectl.needs(27, "explain of OpenAPI v3")
    assert "ENUM" in kubectl("explain", "wdg.spec.color")


def test_explain_of_what_is_not_there(kubectl: Any, refused: type[Any]) -> None:
    with pytest.raises(refused, match='field "colour" does not exist'):
        kubectl("explain", "wdg.spec.colour")


def test_openapi_v3_holds_the_whole_schema(target: Any) -> None:
    def addresses() -> Doc:
        found: Doc = json.loads(target.raw("GET", "/openapi/v3").data)["paths"]
        return found

    assert {f"apis/{GROUP}/v1", "api/v1", "apis/kubevirt.io/v1"} <= {*addresses()}

    def current() -> Any:  # an address that a new CRD has made old leads to the new one
        found = target.ask("GET", addresses()[f"apis/{GROUP}/v1"]["serverRelativeURL"])
        return found.status == 200 and found

    answer = target.until(current)
    schemas = answer.doc["components"]["schemas"]
    schema = next(v for k, v in schemas.items() if k.endswith(".Widget"))
    assert schema["x-kubernetes-group-version-kind"] == [{"group": GROUP, "kind": "Widget", "version": "v1"}]
    replicas = schema["properties"]["spec"]["properties"]["replicas"]
    assert (replicas["default"], replicas["minimum"], replicas["description"]) == (1, 0, "How many.")
    assert f"/apis/{GROUP}/v1/namespaces/{{namespace}}/widgets/{{name}}" in answer.doc["paths"]
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(answer.doc)))
    assert references <= {*schemas}, "a reference leads nowhere"


def test_openapi_v2_is_whole_and_can_be_asked_again_cheaply(target: Any) -> None:
    answer = target.ask("GET", "/openapi/v2")
    definitions = answer.doc["definitions"]
    assert any(name.endswith(".Widget") for name in definitions)
    references = set(re.findall(r'"#/definitions/([^"]+)"', json.dumps(answer.doc)))
    assert references <= {*definitions}, "a reference leads nowhere"
    again = target.ask("GET", "/openapi/v2", headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status == 304


# -- tables


def test_printer_columns(kubectl: Any, ns: str, widget: Callable[..., Doc]) -> None:
    kubectl.create(widget("a", color="red", size="9"), ns)
    head, row = (line.split() for line in kubectl("get", "wdg", "-n", ns).splitlines())
    assert head == ["NAME", "COLOR", "AGE"]
    assert row[:2] == ["a", "red"]
    assert re.fullmatch(r"\d+s", row[2])
    head, row = (line.split() for line in kubectl("get", "wdg", "-n", ns, "-o", "wide").splitlines())
    assert (head, row[:3]) == (["NAME", "COLOR", "SIZE", "AGE"], ["a", "red", "9"])
    listed = kubectl("get", "widgets", "-n", ns, "--show-labels", "--no-headers")
    assert listed.split()[-1] == "<none>"
    assert "widget.conformance.hotvirt.io/a" in kubectl("get", "gadgets", "-n", ns, "-o", "name")
    assert kubectl("get", "wdg", "-n", ns, "--sort-by=.spec.color", "-o", "name").strip().endswith("/a")


def test_a_machine_is_shown_as_kubevirt_shows_it(kubectl: Any, ns: str) -> None:
    template = {"spec": {"domain": {"devices": {}, "memory": {"guest": "64Mi"}}}}
    kubectl.create(
        {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": "m"},
         "spec": {"runStrategy": "Halted", "template": template}}, ns,
    )  # fmt: skip
    head, row = (line.split() for line in kubectl("get", "vm", "-n", ns).splitlines())
    assert head == ["NAME", "AGE", "STATUS", "READY"]
    assert row[0] == "m"
    old = kubectl("get", "virtualmachines.v1alpha3.kubevirt.io", "m", "-n", ns, "-o", "jsonpath={.apiVersion}")
    assert old == "kubevirt.io/v1alpha3"


def test_tables_of_built_in_kinds(kubectl: Any, ns: str) -> None:
    kubectl("create", "configmap", "c", "--from-literal=a=1", "--from-literal=b=2", "-n", ns)
    assert kubectl("get", "cm", "c", "-n", ns).split()[:5] == ["NAME", "DATA", "AGE", "c", "2"]
    kubectl("create", "secret", "generic", "s", "--from-literal=a=1", "-n", ns)
    assert kubectl("get", "secret", "s", "-n", ns).split()[:7] == ["NAME", "TYPE", "DATA", "AGE", "s", "Opaque", "1"]
    assert kubectl("get", "ns", ns).split()[:5] == ["NAME", "STATUS", "AGE", ns, "Active"]


# -- strictness and warnings


def test_unknown_fields(target: Any, ns: str, widget: Callable[..., Doc]) -> None:
    path = f"/apis/{GROUP}/v1/namespaces/{ns}/widgets"
    odd = widget("a", colour="red")
    told = target.ask("POST", path, odd, fieldValidation="Strict")
    assert (told.status, told.doc["reason"]) == (400, "BadRequest")
    assert 'unknown field "spec.colour"' in told.doc["message"]
    told = target.ask("POST", path, odd, fieldValidation="Warn")
    assert (told.status, "colour" in told.doc["spec"]) == (201, False)
    assert told.headers["Warning"] == '299 - "unknown field \\"spec.colour\\""'
    told = target.ask("POST", path, {**odd, "metadata": {"name": "b"}}, fieldValidation="Ignore")
    assert (told.status, told.headers.get("Warning")) == (201, None)
    told = target.ask("POST", path, odd, fieldValidation="Perhaps")
    assert told.status in (400, 422)


@pytest.mark.parametrize(
    ("path", "body", "complaint"),
    [
        ("/api/v1/namespaces/{ns}/configmaps", b'{"metadata":{"name":"c"},"datta":{}}', 'unknown field "datta"'),
        ("/api/v1/namespaces/{ns}/configmaps", b'{"metadata":{"name":"c"},"data":{"a":"1","a":"2"}}',
         'duplicate field "data.a"'),
        ("/apis/conformance.hotvirt.io/v1/namespaces/{ns}/widgets",
         TWICE, 'duplicate field "spec.color"'),
        ("/apis/apps/v1/namespaces/{ns}/deployments",
         DEPLOYMENT,
         'unknown field "spec.template.spec.containers[0].imagePullPolice"'),
    ],
    ids=["built-in", "doubled key", "doubled key of a custom kind", "deep"],
)  # fmt: skip
def test_strict_names_every_slip(target: Any, ns: str, path: str, body: bytes, complaint: str) -> None:
    told = target.ask("POST", path.format(ns=ns), body, fieldValidation="Strict", dryRun="All")
    assert told.status == 400, told.doc
    assert complaint in told.doc["message"]
    told = target.ask("POST", path.format(ns=ns), body, fieldValidation="Warn", dryRun="All")
    assert told.status == 201, told.doc
    assert complaint.replace('"', '\\"') in told.headers["Warning"]


def test_a_client_shows_warnings(kubectl: Any, ns: str, widget: Callable[..., Doc]) -> None:
    old = {**widget("a"), "apiVersion": f"{GROUP}/v1alpha1"}
    _, _, complaints = kubectl.tried("create", "-n", ns, "-f", "-", text=old)
    assert f"Warning: {GROUP}/v1alpha1 Widget is old; use v1" in complaints
    kubectl.needs(25, "--validate=warn")
    _, _, complaints = kubectl.tried("create", "-n", ns, "--validate=warn", "-f", "-", text=widget("b", colour="red"))
    assert 'Warning: unknown field "spec.colour"' in complaints


def test_validation_by_a_client(client: Any, ns: str, widget: Callable[..., Doc], refused: type[Any]) -> None:
    with pytest.raises(refused, match=r'spec\.colour|spec\): unknown field "colour"'):
        client.create(widget("a", colour="red"), ns)
    assert "colour" not in client.create(widget("a", colour="red"), ns, validate="ignore")["spec"]


@pytest.mark.parametrize("accept", ["application/yaml", "application/vnd.kubernetes.protobuf", "image/png"])
def test_forms_of_answers(target: Any, accept: str) -> None:
    answer = target.raw("GET", "/api/v1/namespaces/default", headers={"Accept": accept})
    json_alone = target.differs("answers are JSON alone: clients that would take another form all take JSON too")
    if accept == "image/png" or json_alone:
        assert answer.status == 406
    else:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == accept
