"""CustomResourceDefinitions as themselves: schemas, defaults, pruning, versions, names."""

import copy
import json
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest

Doc = dict[str, Any]
CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
WIDGETS = "/apis/conformance.hotvirt.io/v1/namespaces/{ns}/widgets"
MERGE = "application/merge-patch+json"


def gadget(group: str, schema: Doc | None = None, **spec: Any) -> Doc:
    """A CRD of one small kind."""
    shape = schema or {"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "text": {"type": "string"}}}}}  # fmt: skip
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": shape}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": f"gadgets.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": {"plural": "gadgets", "kind": "Gadget"},
                 "versions": [version], **spec},
    }  # fmt: skip


@pytest.fixture
def group(target: Any) -> Iterator[str]:
    """A group of the case's own; its CRD goes with it."""
    name = f"g{secrets.token_hex(4)}.conformance.hotvirt.io"
    yield name
    target.ask("DELETE", f"{CRD}/gadgets.{name}")


def install(target: Any, crd: Doc) -> str:
    """The path of its version's resources in all namespaces."""
    told = target.ask("POST", CRD, crd)
    assert told.status == 201, told.doc
    path = f"/apis/{crd['spec']['group']}/{crd['spec']['versions'][0]['name']}"
    target.until(lambda: target.ask("GET", f"{path}/{crd['spec']['names']['plural']}").status == 200)
    return path


def test_installing_and_removing(target: Any, kubectl: Any, group: str, ns: str) -> None:
    crd = gadget(group)
    kubectl("create", "-f", "-", text=crd)
    kubectl("wait", f"crd/{crd['metadata']['name']}", "--for=condition=Established", "--timeout=10s")
    kept = target.ask("GET", f"{CRD}/{crd['metadata']['name']}").doc
    conditions = {each["type"]: each["status"] for each in kept["status"]["conditions"]}
    assert (conditions["Established"], conditions["NamesAccepted"]) == ("True", "True")
    assert kept["status"]["acceptedNames"]["kind"] == "Gadget"
    assert kept["status"]["acceptedNames"]["listKind"] == "GadgetList"
    assert kept["status"]["storedVersions"] == ["v1"]
    assert kept["spec"]["names"]["singular"] == "gadget"
    assert kept["spec"]["conversion"] == {"strategy": "None"}
    path = f"/apis/{group}/v1/namespaces/{ns}/gadgets"
    target.until(lambda: target.ask("GET", path).status == 200)
    obj = {"apiVersion": f"{group}/v1", "kind": "Gadget", "metadata": {"name": "a"}}
    assert target.ask("POST", path, obj).status == 201
    kubectl("delete", "crd", crd["metadata"]["name"])
    target.until(lambda: target.ask("GET", path).status == 404)
    target.until(lambda: group not in json.dumps(target.ask("GET", "/apis").doc))


def test_faults_are_all_told(target: Any, ns: str, widget: Callable[..., Doc]) -> None:
    bad = widget("a", color="pink", replicas=-1, ports=[{"number": 0}], tags=["x", "x"], size=[1])
    told = target.ask("POST", WIDGETS.format(ns=ns), bad)
    assert (told.status, told.doc["reason"]) == (422, "Invalid")
    fields = {field for _, field in told.causes}
    assert {"spec.color", "spec.replicas", "spec.ports[0].name", "spec.ports[0].number", "spec.size"} <= fields
    assert ("FieldValueNotSupported", "spec.color") in told.causes
    assert ("FieldValueRequired", "spec.ports[0].name") in told.causes
    assert ("FieldValueInvalid", "spec.replicas") in told.causes
    details = told.doc["details"]
    assert (details["kind"], details["group"], details["name"]) == ("Widget", "conformance.hotvirt.io", "a")


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"replicas": "2"}, "spec.replicas"), ({"replicas": 1.5}, "spec.replicas"),
        ({"replicas": 2**31}, "spec.replicas"), ({"color": 5}, "spec.color"), ({"tags": ["a", "a"]}, "spec.tags[1]"),
        ({"ports": [{"name": "a"}, {"name": "a"}]}, "spec.ports[1]"), ({"nested": []}, "spec.nested"),
    ],
    ids=str,
)  # fmt: skip
def test_values_that_do_not_fit(target: Any, ns: str, widget: Callable[..., Doc], spec: Doc, field: str) -> None:
    told = target.ask("POST", WIDGETS.format(ns=ns), widget("a", **spec))
    assert told.status == 422, told.doc
    assert field in {each.removeprefix(".") for _, each in told.causes}  # scale's own paths begin with a dot there


def test_defaults_and_pruning(client: Any, ns: str, widget: Callable[..., Doc]) -> None:
    free = {"a": {"b": [1, {"c": None}]}}
    odd = {**widget("a", anything=free, nested={"odd": 1}, odd=2), "odd": 3}
    made = client.create(odd, ns, validate="ignore")
    assert made["spec"] == {"replicas": 1, "nested": {"mode": "plain"}, "anything": free}
    assert "odd" not in made
    cleared = client.patch("widgets", "a", ns, {"spec": {"replicas": None, "nested": None}})
    assert cleared["spec"] == {"replicas": 1, "nested": {"mode": "plain"}, "anything": free}


def test_null_where_it_may_be_and_where_a_default_is(target: Any, ns: str, widget: Callable[..., Doc]) -> None:
    told = target.ask("POST", WIDGETS.format(ns=ns), widget("a", replicas=None, nested={"level": None}))
    assert told.status == 201, told.doc
    assert told.doc["spec"]["replicas"] == 1  # null is pruned where a default waits
    assert told.doc["spec"]["nested"] == {"mode": "plain", "level": None}


def test_two_versions_of_one_object(client: Any, target: Any, ns: str, widget: Callable[..., Doc]) -> None:
    client.create({**widget("a", color="red"), "apiVersion": "conformance.hotvirt.io/v1alpha1"}, ns)
    new, old = client.get("widgets", "a", ns), client.get("widgets.v1alpha1", "a", ns)
    assert (new["apiVersion"], old["apiVersion"]) == ("conformance.hotvirt.io/v1", "conformance.hotvirt.io/v1alpha1")
    assert (new["spec"], new["metadata"]["uid"]) == (old["spec"], old["metadata"]["uid"])
    assert new["metadata"]["resourceVersion"] == old["metadata"]["resourceVersion"]
    client.patch("widgets.v1alpha1", "a", ns, {"spec": {"color": "blue"}})
    assert client.get("widgets", "a", ns)["spec"]["color"] == "blue"
    since = new["metadata"]["resourceVersion"]
    path = WIDGETS.format(ns=ns).replace("/v1/", "/v1alpha1/")
    seen = list(target.watch(path, resourceVersion=since, timeoutSeconds="1"))
    assert [event["object"]["apiVersion"] for event in seen] == ["conformance.hotvirt.io/v1alpha1"]


def test_a_crd_that_changes(target: Any, group: str, ns: str) -> None:
    crd = gadget(group)
    path = f"{install(target, crd)}/namespaces/{ns}/gadgets"
    obj = {"apiVersion": f"{group}/v1", "kind": "Gadget", "metadata": {"name": "a"}, "spec": {"text": "x", "more": 1}}
    assert target.ask("POST", path, obj).doc["spec"] == {"text": "x"}
    more = copy.deepcopy(crd["spec"]["versions"])
    properties = more[0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    properties |= {"more": {"type": "integer"}, "kind": {"type": "string", "default": "plain"}}
    told = target.ask("PATCH", f"{CRD}/gadgets.{group}", {"spec": {"versions": more}}, kind=MERGE)
    assert (told.status, told.doc["metadata"]["generation"]) == (200, 2)

    def written() -> Any:
        return target.ask("PATCH", f"{path}/a", {"spec": {"more": 2}}, kind=MERGE).doc["spec"].get("more")

    target.until(lambda: written() == 2)
    assert target.ask("GET", f"{path}/a").doc["spec"] == {"text": "x", "more": 2, "kind": "plain"}
    more[0]["served"] = False
    target.ask("PATCH", f"{CRD}/gadgets.{group}", {"spec": {"versions": more}}, kind=MERGE)
    target.until(lambda: target.ask("GET", path).status == 404)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda crd: crd["metadata"].update(name="x.y"), "metadata.name"),
        (lambda crd: crd["spec"].update(scope="Galaxy"), "spec.scope"),
        (lambda crd: crd["spec"]["names"].update(kind=""), "spec.names.kind"),
        (lambda crd: crd["spec"]["names"].update(plural="GADGETS"), "spec.names.plural"),
        (lambda crd: crd["spec"]["versions"][0].update(storage=False), "spec.versions"),
        (lambda crd: crd["spec"]["versions"][0].pop("schema"), "spec.versions[0].schema.openAPIV3Schema"),
        (lambda crd: crd["spec"]["versions"].append({**crd["spec"]["versions"][0], "storage": False}),
         "spec.versions"),
        (lambda crd: crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].update(type="array"), "openAPIV3Schema"),
        (lambda crd: _text(crd).pop("type"), "properties[text].type"),
        (lambda crd: _text(crd).update(default=5), "properties[text].default"),
        (lambda crd: _text(crd).update(pattern="("), "properties[text].pattern"),
        (lambda crd: crd["spec"].update(group=""), "spec.group"),
    ],
    ids=["name", "scope", "kind", "plural", "no storage", "no schema", "twice", "array", "no type", "default",
         "pattern", "group"],
)  # fmt: skip
def test_crds_that_make_no_sense(target: Any, group: str, change: Callable[[Doc], object], field: str) -> None:
    crd = gadget(group)
    change(crd)
    told = target.ask("POST", CRD, crd)
    assert (told.status, told.doc["reason"]) == (422, "Invalid"), told.doc
    assert any(field in each for _, each in told.causes), told.causes


def _text(crd: Doc) -> Doc:
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    found: Doc = schema["properties"]["spec"]["properties"]["text"]
    return found


def test_names_that_another_crd_has(target: Any, group: str) -> None:
    """In one group a kind belongs to one CRD: the second waits unaccepted."""
    install(target, gadget(group))
    second = gadget(group)
    second["metadata"]["name"] = f"things.{group}"
    second["spec"]["names"] = {"plural": "things", "kind": "Gadget"}
    assert target.ask("POST", CRD, second).status == 201

    def conditions() -> Doc:
        kept = target.ask("GET", f"{CRD}/things.{group}").doc
        return {each["type"]: each["status"] for each in kept.get("status", {}).get("conditions") or ()}

    try:
        target.until(lambda: conditions().get("NamesAccepted") == "False")
        assert conditions().get("Established", "False") == "False"
        assert target.ask("GET", f"/apis/{group}/v1/things").status == 404
    finally:
        target.ask("DELETE", f"{CRD}/things.{group}")


def test_a_cluster_wide_kind(target: Any, group: str) -> None:
    path = install(target, gadget(group, scope="Cluster"))
    obj = {"apiVersion": f"{group}/v1", "kind": "Gadget", "metadata": {"name": "a"}}
    made = target.ask("POST", f"{path}/gadgets", obj)
    assert (made.status, "namespace" in made.doc["metadata"]) == (201, False)
    assert target.ask("GET", f"{path}/namespaces/default/gadgets").status == 404


def test_objects_go_with_their_crd_after_their_finalizers(target: Any, group: str, ns: str) -> None:
    path = f"{install(target, gadget(group))}/namespaces/{ns}/gadgets"
    meta = {"name": "held", "finalizers": ["conformance.hotvirt.io/hold"]}
    target.ask("POST", path, {"apiVersion": f"{group}/v1", "kind": "Gadget", "metadata": meta})
    target.ask("DELETE", f"{CRD}/gadgets.{group}")
    target.until(lambda: target.ask("GET", f"{path}/held").doc["metadata"].get("deletionTimestamp"))
    assert target.ask("GET", f"{CRD}/gadgets.{group}").doc["metadata"]["deletionTimestamp"]
    target.ask("PATCH", f"{path}/held", {"metadata": {"finalizers": None}}, kind=MERGE)
    target.until(lambda: target.ask("GET", f"{CRD}/gadgets.{group}").status == 404)


def test_rules_in_cel(target: Any, group: str, ns: str) -> None:
    rules = [{"rule": "self.low <= self.high", "message": "low is above high"}]
    schema = {"type": "object", "properties": {"spec": {
        "type": "object", "required": ["low", "high"], "x-kubernetes-validations": rules,
        "properties": {"low": {"type": "integer"}, "high": {"type": "integer"}}}}}  # fmt: skip
    path = f"{install(target, gadget(group, schema))}/namespaces/{ns}/gadgets"
    head = {"apiVersion": f"{group}/v1", "kind": "Gadget", "metadata": {"name": "a"}}
    assert target.ask("POST", path, {**head, "spec": {"low": 1, "high": 2}}, dryRun="All").status == 201
    told = target.ask("POST", path, {**head, "spec": {"low": 3, "high": 2}})
    assert told.status == 422
    assert "low is above high" in told.doc["message"]


def test_hotvirts_own_kinds_are_crds(target: Any) -> None:
    for name in ("virtualmachines.kubevirt.io", "virtualmachineinstances.kubevirt.io"):
        crd = target.ask("GET", f"{CRD}/{name}").doc
        assert {"v1", "v1alpha3"} <= {version["name"] for version in crd["spec"]["versions"]}
