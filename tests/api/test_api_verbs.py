"""Writing: each verb and patch, what guards it, and what follows from a delete."""

import json
import secrets
from collections.abc import Callable
from typing import Any

import pytest

Doc = dict[str, Any]
WIDGETS = "/apis/conformance.hotvirt.io/v1/namespaces/{ns}/widgets"
MAPS = "/api/v1/namespaces/{ns}/configmaps"


def config(name: str, *, owner: Doc | None = None, block: bool = False, **data: str) -> Doc:
    meta: Doc = {"name": name}
    if owner is not None:
        meta["ownerReferences"] = [
            {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
             "uid": owner["metadata"]["uid"], "blockOwnerDeletion": block}
        ]  # fmt: skip
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


# -- through each client


def test_create_gives_identity_and_defaults(client: Any, ns: str, widget: Callable[..., Doc]) -> None:
    made = client.create(widget("a", color="red"), ns)
    meta = made["metadata"]
    assert (meta["namespace"], meta["generation"]) == (ns, 1)
    assert all(meta[key] for key in ("uid", "resourceVersion", "creationTimestamp"))
    assert made["spec"] == {"replicas": 1, "color": "red", "nested": {"mode": "plain"}}
    assert client.get("widgets", "a", ns)["metadata"]["uid"] == meta["uid"]


def test_create_twice_is_already_exists(client: Any, ns: str, refused: type[Any]) -> None:
    client.create(config("a"), ns)
    with pytest.raises(refused) as told:
        client.create(config("a"), ns)
    assert (told.value.reason, 'configmaps "a" already exists' in told.value.message) == ("AlreadyExists", True)


def test_what_is_not_there_is_not_found(client: Any, ns: str, refused: type[Any]) -> None:
    for act in (
        lambda: client.get("widgets", "none", ns),
        lambda: client.patch("widgets", "none", ns, {"spec": {}}),
        lambda: client.delete("widgets", "none", ns),
    ):
        with pytest.raises(refused) as told:
            act()
        assert told.value.reason == "NotFound"
        assert 'widgets.conformance.hotvirt.io "none" not found' in told.value.message


def test_generate_name(client: Any, ns: str) -> None:
    obj = config("")
    obj["metadata"] = {"generateName": "made-"}
    one, two = (client.create(obj, ns)["metadata"]["name"] for _ in range(2))
    assert one != two
    assert all(name.startswith("made-") and len(name) == 10 for name in (one, two))


def test_replace_needs_the_version_it_read(
    client: Any, ns: str, widget: Callable[..., Doc], refused: type[Any]
) -> None:
    read = client.create(widget("a", color="red"), ns)
    written = client.replace({**read, "spec": {"color": "blue"}}, ns)
    assert (written["metadata"]["generation"], written["spec"]["color"]) == (2, "blue")
    with pytest.raises(refused) as told:
        client.replace({**read, "spec": {"color": "green"}}, ns)
    assert told.value.reason == "Conflict"
    assert "the object has been modified" in told.value.message


def test_writing_what_is_there_changes_no_version(client: Any, ns: str, widget: Callable[..., Doc]) -> None:
    made = client.create(widget("a", color="red"), ns)
    assert client.patch("widgets", "a", ns, {"spec": {"color": "red"}})["metadata"] == made["metadata"]


def test_what_is_pruned_changes_no_version(client: Any, ns: str, widget: Callable[..., Doc]) -> None:
    made = client.create(widget("a", color="red"), ns)
    assert client.patch("widgets", "a", ns, {"spec": {"colour": "blue", "nested": {}}})["metadata"] == made["metadata"]


@pytest.mark.parametrize(
    ("form", "patch", "wanted"),
    [
        ("merge", {"spec": {"color": None, "tags": ["b"]}}, {"replicas": 1, "tags": ["b"]}),
        ("json", [{"op": "replace", "path": "/spec/color", "value": "blue"}, {"op": "remove", "path": "/spec/tags/0"},
                  {"op": "test", "path": "/spec/replicas", "value": 1}],
         {"replicas": 1, "color": "blue", "tags": []}),
    ],
    ids=["merge", "json"],
)  # fmt: skip
def test_patches(client: Any, ns: str, widget: Callable[..., Doc], form: str, patch: Any, wanted: Doc) -> None:
    client.create(widget("a", color="red", tags=["a"]), ns)
    spec = client.patch("widgets", "a", ns, patch, form=form)["spec"]
    assert spec == {"nested": {"mode": "plain"}, **wanted}


def test_a_json_patch_whose_test_fails_changes_nothing(
    client: Any, ns: str, widget: Callable[..., Doc], refused: type[Any]
) -> None:
    client.create(widget("a", color="red"), ns)
    patch = [{"op": "replace", "path": "/spec/color", "value": "blue"},
             {"op": "test", "path": "/spec/replicas", "value": 9}]  # fmt: skip
    with pytest.raises(refused) as told:
        client.patch("widgets", "a", ns, patch, form="json")
    assert told.value.reason == "Invalid"
    assert client.get("widgets", "a", ns)["spec"]["color"] == "red"


def test_a_json_patch_can_ask_that_something_is_not_there(
    client: Any, ns: str, widget: Callable[..., Doc], refused: type[Any]
) -> None:
    """As virtctl does before it adds the first of a list."""
    client.create(widget("a"), ns)
    patch = [{"op": "test", "path": "/spec/order", "value": None}, {"op": "add", "path": "/spec/order", "value": ["x"]}]
    assert client.patch("widgets", "a", ns, patch, form="json")["spec"]["order"] == ["x"]
    with pytest.raises(refused):
        client.patch("widgets", "a", ns, patch, form="json")


def test_strategic_merge_patch_knows_the_keys_of_lists(client: Any, ns: str) -> None:
    containers = [{"name": "one", "image": "a:1"}, {"name": "two", "image": "b:1"}]
    template = {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": containers}}
    client.create(
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
         "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "d"}}, "template": template}}, ns,
    )  # fmt: skip
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "two", "image": "b:2"},
                                                           {"name": "one", "$patch": "delete"}]}}}}  # fmt: skip
    after = client.patch("deployments", "d", ns, patch, form="strategic")
    assert [(c["name"], c["image"]) for c in after["spec"]["template"]["spec"]["containers"]] == [("two", "b:2")]


def test_dry_run_changes_nothing(client: Any, ns: str, widget: Callable[..., Doc], refused: type[Any]) -> None:
    assert client.create(widget("a"), ns, dry_run=True)["spec"]["replicas"] == 1
    with pytest.raises(refused):
        client.get("widgets", "a", ns)
    with pytest.raises(refused):  # checked as if it were meant
        client.create(widget("a", replicas=-1), ns, dry_run=True)
    made = client.create(widget("a", color="red"), ns)
    assert client.patch("widgets", "a", ns, {"spec": {"color": "blue"}}, dry_run=True)["spec"]["color"] == "blue"
    client.apply(widget("a", color="red", replicas=5), ns, manager="dry", force=True, dry_run=True)
    client.delete("widgets", "a", ns, dry_run=True)
    assert client.get("widgets", "a", ns) == made


# -- server-side apply


def test_apply_conflicts_name_the_other_and_can_be_forced(
    client: Any, ns: str, widget: Callable[..., Doc], refused: type[Any]
) -> None:
    client.apply(widget("a", color="red", replicas=2), ns, manager="one")
    with pytest.raises(refused) as told:
        client.apply(widget("a", color="blue"), ns, manager="two")
    assert told.value.reason == "Conflict"
    assert 'conflict with "one"' in told.value.message
    assert ".spec.color" in told.value.message
    forced = client.apply(widget("a", color="blue"), ns, manager="two", force=True)
    assert (forced["spec"]["color"], forced["spec"]["replicas"]) == ("blue", 2)
    same = client.apply(widget("a", color="blue", replicas=2), ns, manager="one")  # shared now, no conflict
    assert same["spec"]["color"] == "blue"


def test_apply_removes_what_its_manager_no_longer_names(client: Any, ns: str, widget: Callable[..., Doc]) -> None:
    ports = [{"name": "web", "number": 80}, {"name": "ssh", "number": 22}]
    client.apply(widget("a", color="red", ports=ports, tags=["x", "y"]), ns, manager="one")
    client.apply(widget("a", ports=[{"name": "dns", "number": 53}], tags=["z"]), ns, manager="two")
    after = client.apply(widget("a", ports=[{"name": "web", "number": 81}], tags=["y"]), ns, manager="one")
    assert "color" not in after["spec"]
    assert sorted((port["name"], port["number"]) for port in after["spec"]["ports"]) == [("dns", 53), ("web", 81)]
    assert sorted(after["spec"]["tags"]) == ["y", "z"]


def test_an_atomic_list_has_one_owner(client: Any, ns: str, widget: Callable[..., Doc], refused: type[Any]) -> None:
    client.apply(widget("a", order=["a", "b"]), ns, manager="one")
    with pytest.raises(refused, match=r"\.spec\.order"):
        client.apply(widget("a", order=["a", "b", "c"]), ns, manager="two")


def test_applied_items_keep_their_places(client: Any, ns: str, widget: Callable[..., Doc]) -> None:
    client.apply(widget("a", ports=[{"name": "x"}, {"name": "y"}], tags=["a"]), ns, manager="one")
    client.apply(widget("a", ports=[{"name": "z"}], tags=["b"]), ns, manager="two")
    spec = client.apply(widget("a", ports=[{"name": "y"}, {"name": "n"}], tags=["a"]), ns, manager="three")["spec"]
    assert [port["name"] for port in spec["ports"]] == ["x", "y", "z", "n"]
    assert spec["tags"] == ["a", "b"]


def test_what_is_applied_to_the_status_is_the_status_alone(target: Any, ns: str, widget: Callable[..., Doc]) -> None:
    path = WIDGETS.format(ns=ns)
    target.ask("POST", path, widget("a", color="red"))
    body = {**widget("a", color="blue"), "status": {"phase": "Fine"}}
    body["metadata"]["labels"] = {"no": "no"}
    told = target.ask("PATCH", f"{path}/a/status?fieldManager=st", body, kind="application/apply-patch+yaml")
    assert (told.status, told.doc["spec"]["color"], told.doc["status"]["phase"]) == (200, "red", "Fine"), told.doc
    mine = next(each for each in told.doc["metadata"]["managedFields"] if each["manager"] == "st")
    assert mine["fieldsV1"] == {"f:status": {"f:phase": {}}}


def test_a_selector_is_owned_as_a_whole(target: Any, ns: str) -> None:
    body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
            "spec": {"selector": {"a": "b"}, "ports": [{"port": 80, "name": "web"}]}}  # fmt: skip
    path = f"/api/v1/namespaces/{ns}/services/s?fieldManager="
    kind = "application/apply-patch+yaml"
    assert target.ask("PATCH", path + "one", body, kind=kind).status == 201
    body["spec"] = {"selector": {"c": "d"}}
    told = target.ask("PATCH", path + "two", body, kind=kind)
    assert (told.status, {field for _, field in told.causes}) == (409, {".spec.selector"})
    told = target.ask("PATCH", path + "two&force=true", body, kind=kind)
    assert (told.status, told.doc["spec"]["selector"]) == (200, {"c": "d"})


def test_who_wrote_what_is_kept(target: Any, client: Any, ns: str, widget: Callable[..., Doc]) -> None:
    client.apply(widget("a", color="red"), ns, manager="one")
    client.patch("widgets", "a", ns, {"status": {"phase": "Fine"}}, subresource="status")
    managed = target.ask("GET", WIDGETS.format(ns=ns) + "/a").doc["metadata"]["managedFields"]
    one = next(entry for entry in managed if entry["manager"] == "one")
    assert (one["operation"], one["fieldsV1"]) == ("Apply", {"f:spec": {"f:color": {}}})
    other = next(entry for entry in managed if entry["manager"] != "one")
    assert (other["operation"], other["subresource"]) == ("Update", "status")
    assert other["fieldsV1"] == {"f:status": {"f:phase": {}}} or other["fieldsV1"] == {
        "f:status": {".": {}, "f:phase": {}}
    }


def test_a_patch_that_takes_what_was_applied_makes_the_next_apply_conflict(
    client: Any, ns: str, refused: type[Any]
) -> None:
    client.apply(config("c", a="1"), ns, manager="one")
    client.patch("configmaps", "c", ns, {"data": {"a": "2"}})
    with pytest.raises(refused, match=r"\.data\.a"):
        client.apply(config("c", a="1"), ns, manager="one")


def test_kubectl_takes_over_from_its_client_side_apply(target: Any, kubectl: Any, ns: str, widget: Any) -> None:
    kubectl("apply", "-n", ns, "-f", "-", text=widget("a", color="red", replicas=2))
    path = WIDGETS.format(ns=ns) + "/a"
    mine = ("apply", "--server-side", "-n", ns, "-f", "-")
    kubectl(*mine, text=widget("a", color="blue", replicas=3))  # not forced: all was its own
    told = target.ask("GET", path).doc
    assert (told["spec"]["color"], told["spec"]["replicas"]) == ("blue", 3)
    last = json.loads(told["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"])
    assert last["spec"] == {"color": "blue", "replicas": 3}
    assert "kubectl" in {each["manager"] for each in told["metadata"]["managedFields"] if each["operation"] == "Apply"}


def test_kubectl_does_not_take_what_another_changed(
    target: Any, kubectl: Any, ns: str, widget: Any, refused: type[Any]
) -> None:
    kubectl("apply", "-n", ns, "-f", "-", text=widget("a", color="red", replicas=2))
    change = {"spec": {"replicas": 5}}
    path = WIDGETS.format(ns=ns) + "/a?fieldManager=other"
    assert target.ask("PATCH", path, change, kind="application/merge-patch+json").status == 200
    with pytest.raises(refused, match=r"\.spec\.replicas") as told:
        kubectl("apply", "--server-side", "-n", ns, "-f", "-", text=widget("a", color="blue", replicas=3))
    assert told.value.reason == "Conflict"


# -- deleting, and what follows


def test_the_foreground_waits_for_dependents(target: Any, client: Any, ns: str) -> None:
    owner = client.create(config("owner"), ns)
    child = config("child", owner=owner, block=True)
    child["metadata"]["finalizers"] = ["conformance.hotvirt.io/hold"]
    client.create(child, ns)
    client.delete("configmaps", "owner", ns, cascade="foreground")
    held = client.get("configmaps", "owner", ns)["metadata"]
    assert held["finalizers"] == ["foregroundDeletion"]
    assert held["deletionTimestamp"]
    maps = MAPS.format(ns=ns)
    target.until(lambda: target.ask("GET", f"{maps}/child").doc["metadata"].get("deletionTimestamp"))
    client.patch("configmaps", "child", ns, {"metadata": {"finalizers": None}})
    target.until(lambda: target.ask("GET", f"{maps}/owner").status == 404)
    assert target.ask("GET", f"{maps}/child").status == 404


def test_the_background_goes_first_and_dependents_follow(target: Any, client: Any, ns: str) -> None:
    owner = client.create(config("owner"), ns)
    child = client.create(config("child", owner=owner), ns)
    client.create(config("grandchild", owner=child), ns)
    client.delete("configmaps", "owner", ns, cascade="background")
    maps = MAPS.format(ns=ns)
    assert target.ask("GET", f"{maps}/owner").status == 404
    target.until(lambda: target.ask("GET", f"{maps}/grandchild").status == 404)


def test_orphans_stay_and_forget_their_owner(target: Any, client: Any, ns: str) -> None:
    owner = client.create(config("owner"), ns)
    client.create(config("child", owner=owner), ns)
    client.delete("configmaps", "owner", ns, cascade="orphan")
    maps = MAPS.format(ns=ns)
    target.until(lambda: target.ask("GET", f"{maps}/owner").status == 404)
    assert "ownerReferences" not in client.get("configmaps", "child", ns)["metadata"]


def test_a_dependent_with_another_owner_stays(target: Any, client: Any, ns: str) -> None:
    one, two = (client.create(config(name), ns) for name in ("one", "two"))
    child = config("child", owner=one)
    child["metadata"]["ownerReferences"] += config("x", owner=two)["metadata"]["ownerReferences"]
    client.create(child, ns)
    client.delete("configmaps", "one", ns)
    left = target.until(
        lambda: [
            refs for refs in [client.get("configmaps", "child", ns)["metadata"]["ownerReferences"]] if len(refs) == 1
        ]
    )
    assert [ref["name"] for ref in left[0]] == ["two"]


def test_a_finalizer_holds_and_cannot_be_added_later(target: Any, client: Any, ns: str, refused: type[Any]) -> None:
    held = config("held")
    held["metadata"]["finalizers"] = ["conformance.hotvirt.io/hold"]
    client.create(held, ns)
    client.delete("configmaps", "held", ns)
    assert client.get("configmaps", "held", ns)["metadata"]["deletionTimestamp"]
    more = {"metadata": {"finalizers": ["conformance.hotvirt.io/hold", "conformance.hotvirt.io/more"]}}
    with pytest.raises(refused) as told:
        client.patch("configmaps", "held", ns, more)
    assert told.value.reason in ("Forbidden", "Invalid")
    assert "finalizers" in told.value.message
    client.patch("configmaps", "held", ns, {"metadata": {"finalizers": []}})
    assert target.ask("GET", MAPS.format(ns=ns) + "/held").status == 404


def test_a_collection_is_deleted_by_selector(target: Any, client: Any, ns: str) -> None:
    for name, labels in (("a", {"on": "1"}), ("b", {"on": "2"}), ("c", {"on": "1"})):
        obj = config(name)
        obj["metadata"]["labels"] = labels
        client.create(obj, ns)
    client.delete_all("configmaps", ns, labels="on=1")
    left = client.names("configmaps", ns, labels="on")
    assert left == ["b"]


def test_a_collection_that_is_only_tried_or_held(target: Any, ns: str) -> None:
    path = MAPS.format(ns=ns)
    for name in ("a", "b"):
        meta = {
            "name": name,
            "labels": {"on": name},
            "finalizers": ["conformance.hotvirt.io/hold"] if name == "b" else [],
        }
        target.ask("POST", path, {"metadata": meta})

    def names() -> list[str]:
        return [each["metadata"]["name"] for each in target.ask("GET", path, labelSelector="on").doc["items"]]

    assert target.ask("DELETE", path, labelSelector="on", dryRun="All").status == 200
    assert names() == ["a", "b"]
    assert target.ask("DELETE", path, fieldSelector="metadata.name=a").status == 200
    assert names() == ["b"]
    told = target.ask("DELETE", path, labelSelector="on")
    assert (told.status, names()) == (200, ["b"])
    merge = "application/merge-patch+json"
    assert target.ask("PATCH", f"{path}/b", {"metadata": {"finalizers": None}}, kind=merge).status == 200
    assert names() == []


def test_status_and_scale_have_rules_of_their_own(client: Any, ns: str, widget: Callable[..., Doc]) -> None:
    client.create({**widget("a", color="red"), "status": {"phase": "Lies"}}, ns)
    assert "status" not in client.get("widgets", "a", ns)
    both = {"spec": {"color": "blue"}, "status": {"phase": "Fine", "replicas": 3}}
    told = client.patch("widgets", "a", ns, both, subresource="status")
    assert (told["spec"]["color"], told["status"]["phase"]) == ("red", "Fine")
    assert told["metadata"]["generation"] == 1
    told = client.patch("widgets", "a", ns, {**both, "status": {"phase": "Lies"}})
    assert (told["spec"]["color"], told["status"]["phase"]) == ("blue", "Fine")
    assert told["metadata"]["generation"] == 2
    client.scale("widgets", "a", ns, 7)
    after = client.get("widgets", "a", ns)
    assert (after["spec"]["replicas"], after["metadata"]["generation"]) == (7, 3)


# -- what no client lets one ask


def test_the_scale_of_a_widget(target: Any, ns: str, widget: Callable[..., Doc]) -> None:
    path = WIDGETS.format(ns=ns)
    target.ask("POST", path, widget("a", replicas=2))
    scale = target.ask("GET", f"{path}/a/scale").doc
    assert (scale["apiVersion"], scale["kind"], scale["spec"]) == ("autoscaling/v1", "Scale", {"replicas": 2})
    assert target.ask("PUT", f"{path}/a/scale", {**scale, "spec": {"replicas": 3}}).status == 200
    assert target.ask("PUT", f"{path}/a/scale", {**scale, "spec": {"replicas": 4}}).status == 409  # read before


def test_preconditions(target: Any, ns: str) -> None:
    path = MAPS.format(ns=ns)
    made = target.ask("POST", path, config("a")).doc["metadata"]
    for wrong in ({"uid": "0"}, {"resourceVersion": "1"}, {"uid": made["uid"], "resourceVersion": "1"}):
        told = target.ask("DELETE", f"{path}/a", {"preconditions": wrong})
        assert (told.status, told.doc["reason"]) == (409, "Conflict"), wrong
    told = target.ask("PATCH", f"{path}/a", {"metadata": {"resourceVersion": "1"}}, kind="application/merge-patch+json")
    assert (told.status, told.doc["reason"]) == (409, "Conflict")
    told = target.ask("PATCH", f"{path}/a", {"metadata": {"uid": "0"}}, kind="application/merge-patch+json")
    assert told.status in (409, 422)
    right = {"uid": made["uid"], "resourceVersion": made["resourceVersion"]}
    told = target.ask("DELETE", f"{path}/a", {"preconditions": right})
    assert (told.status, told.doc["status"], told.doc["details"]["uid"]) == (200, "Success", made["uid"])


def test_a_name_in_the_path_is_the_name(target: Any, ns: str) -> None:
    path = MAPS.format(ns=ns)
    target.ask("POST", path, config("a"))
    told = target.ask("PUT", f"{path}/a", config("b"))
    assert (told.status, told.doc["reason"]) == (400, "BadRequest")
    told = target.ask("POST", path, {**config("c"), "metadata": {"name": "c", "namespace": "default"}})
    assert (told.status, told.doc["reason"]) == (400, "BadRequest")
    told = target.ask("POST", path, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}})
    assert told.status == 400


def test_apply_through_put_creates_where_the_kind_allows(target: Any, ns: str, widget: Callable[..., Doc]) -> None:
    apply = "application/apply-patch+yaml"
    path = WIDGETS.format(ns=ns)
    assert target.ask("PATCH", f"{path}/a", widget("a"), kind=apply, fieldManager="me").status == 201
    assert target.ask("PATCH", f"{path}/a", widget("a"), kind=apply, fieldManager="me").status == 200
    told = target.ask("PATCH", f"{path}/a", widget("a"), kind=apply)
    assert told.status in (400, 422)
    assert "fieldManager" in told.doc["message"]
    told = target.ask("PATCH", f"{path}/a", widget("a"), kind="application/strategic-merge-patch+json")
    assert (told.status, told.doc["reason"]) == (415, "UnsupportedMediaType")


def test_a_namespace_empties_itself_and_takes_nothing_more(target: Any) -> None:
    name = f"case-ending-{secrets.token_hex(3)}"
    assert target.ask("POST", "/api/v1/namespaces", {"metadata": {"name": name}}).status == 201
    path = MAPS.format(ns=name)
    held = config("held")
    held["metadata"]["finalizers"] = ["conformance.hotvirt.io/hold"]
    target.ask("POST", path, held)
    target.ask("POST", path, config("free"))
    told = target.ask("DELETE", f"/api/v1/namespaces/{name}")
    assert (told.status, told.doc["status"]["phase"]) == (200, "Terminating")
    told = target.ask("POST", path, config("late"))
    assert (told.status, told.doc["reason"]) == (403, "Forbidden")
    assert "because it is being terminated" in told.doc["message"]
    assert told.doc["details"]["causes"][0]["reason"] == "NamespaceTerminating"
    target.until(lambda: target.ask("GET", f"{path}/free").status == 404)
    assert target.ask("GET", f"/api/v1/namespaces/{name}").status == 200  # one is still held
    merge = "application/merge-patch+json"
    target.ask("PATCH", f"{path}/held", {"metadata": {"finalizers": None}}, kind=merge)
    target.until(lambda: target.ask("GET", f"/api/v1/namespaces/{name}").status == 404)
    told = target.ask("POST", path, config("late"))
    assert (told.status, told.doc["reason"]) == (404, "NotFound")


def test_namespaces_that_cannot_be_deleted(target: Any) -> None:
    told = target.ask("DELETE", "/api/v1/namespaces/default", dryRun="All")
    assert (told.status, told.doc["reason"]) == (403, "Forbidden")
