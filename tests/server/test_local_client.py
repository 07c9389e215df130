"""What the parts of a home see of the API through the in-process client: the rules of Kubernetes' verbs."""

import asyncio
from typing import Any

import pytest

from hotvirt.kube.admission import AdmissionRequest, User, Verdict
from hotvirt.kube.client import WatchEvent
from hotvirt.kube.errors import (
    AlreadyExists,
    BadRequest,
    Cause,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    UnsupportedMediaType,
)
from hotvirt.kube.resources import CLAIMS, CONFIG_MAPS, CRDS, EVENTS, NAMESPACES, NODES, PODS, SECRETS, Resource
from hotvirt.server.app import ApiServer, ServerConfig
from hotvirt.server.inprocess import LocalClient

WIDGETS = Resource("example.com", "v1", "widgets", "Widget")
WIDGETS_ALPHA = Resource("example.com", "v1alpha1", "widgets", "Widget")
ALL = "default"


def widget(name: str = "", **fields: Any) -> dict[str, Any]:
    meta = {"name": name} if name else {"generateName": "w-"}
    return {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": meta, "spec": {}, **fields}


def pod(name: str, **spec: Any) -> dict[str, Any]:
    containers = [{"name": "compute", "image": "image:1", "resources": {"requests": {"memory": "1Gi"}}}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": containers, **spec}}


def config_map(name: str, **fields: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, **fields}


# -- create


async def test_a_create_is_defaulted_pruned_and_stamped(client: LocalClient) -> None:
    made = await client.create(WIDGETS, widget("a", spec={"bogus": 1}, status={"x": 1}), ALL)
    assert made["spec"] == {"replicas": 1}
    assert "status" not in made
    meta = made["metadata"]
    assert (meta["generation"], meta["namespace"]) == (1, ALL)
    assert meta["uid"]
    assert meta["creationTimestamp"].endswith("Z")
    assert await client.get(WIDGETS, "a", ALL) == made


async def test_names_are_generated_and_checked(client: LocalClient) -> None:
    made = await client.create(WIDGETS, widget(), ALL)
    assert made["metadata"]["name"].startswith("w-")
    assert len(made["metadata"]["name"]) == 7
    with pytest.raises(Invalid, match=r"RFC 1123"):
        await client.create(WIDGETS, widget("Not_A_Name"), ALL)
    await client.create(WIDGETS, widget("a"), ALL)
    with pytest.raises(AlreadyExists, match=r'widgets\.example\.com "a" already exists'):
        await client.create(WIDGETS, widget("a"), ALL)


async def test_every_fault_of_an_object_is_told_at_once(client: LocalClient) -> None:
    bad = widget("Bad", spec={"replicas": -1, "color": 3})
    bad["metadata"]["labels"] = {"k": "not a value!"}
    with pytest.raises(Invalid) as refusal:
        await client.create(WIDGETS, bad, ALL)
    fields = {cause.field for cause in refusal.value.causes}
    assert fields >= {"metadata.name", "metadata.labels", "spec.replicas", "spec.color"}


async def test_a_namespace_must_be_there(client: LocalClient) -> None:
    with pytest.raises(NotFound, match='namespaces "nowhere" not found'):
        await client.create(WIDGETS, widget("a"), "nowhere")


async def test_a_dry_run_answers_and_stores_nothing(client: LocalClient) -> None:
    made = await client.create(WIDGETS, widget("a"), ALL, dry_run=True)
    assert made["spec"] == {"replicas": 1}
    with pytest.raises(NotFound):
        await client.get(WIDGETS, "a", ALL)
    await client.create(WIDGETS, widget("a"), ALL)
    patched = await client.patch(WIDGETS, "a", {"spec": {"replicas": 5}}, ALL, dry_run=True)
    assert patched["spec"]["replicas"] == 5
    assert (await client.get(WIDGETS, "a", ALL))["spec"]["replicas"] == 1


# -- update and patch


async def test_generation_counts_changes_of_the_spec_alone(client: LocalClient) -> None:
    await client.create(WIDGETS, widget("a"), ALL)
    after = await client.patch(WIDGETS, "a", {"metadata": {"labels": {"x": "y"}}}, ALL)
    assert after["metadata"]["generation"] == 1
    after = await client.patch(WIDGETS, "a", {"spec": {"color": "red"}, "status": {"no": 1}}, ALL)
    assert after["metadata"]["generation"] == 2
    assert "status" not in after
    after = await client.patch(WIDGETS, "a", {"status": {"yes": 1}, "spec": {"color": "no"}}, ALL, subresource="status")
    assert (after["metadata"]["generation"], after["spec"]["color"], after["status"]) == (2, "red", {"yes": 1})


async def test_a_write_that_changes_nothing_is_no_write(client: LocalClient) -> None:
    made = await client.create(WIDGETS, widget("a", spec={"color": "red"}), ALL)
    same = await client.patch(WIDGETS, "a", {"spec": {"color": "red"}}, ALL)
    assert same["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_a_lost_update_is_refused(client: LocalClient) -> None:
    made = await client.create(WIDGETS, widget("a"), ALL)
    await client.patch(WIDGETS, "a", {"spec": {"color": "red"}}, ALL)
    with pytest.raises(Conflict, match="please apply your changes to the latest version"):
        await client.update(WIDGETS, {**made, "spec": {"color": "blue"}})
    stale = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "spec": {"color": "blue"}}
    with pytest.raises(Conflict):
        await client.patch(WIDGETS, "a", stale, ALL)
    with pytest.raises(Conflict):
        await client.patch(WIDGETS, "a", {"metadata": {"uid": "another"}}, ALL)


async def test_what_the_server_set_cannot_be_changed(client: LocalClient) -> None:
    made = await client.create(WIDGETS, widget("a"), ALL)
    sent = {"metadata": {"creationTimestamp": "2000-01-01T00:00:00Z", "generation": 77, "labels": {"a": "b"}}}
    after = (await client.patch(WIDGETS, "a", sent, ALL))["metadata"]
    assert after["labels"] == {"a": "b"}
    assert (after["creationTimestamp"], after["generation"]) == (made["metadata"]["creationTimestamp"], 1)
    with pytest.raises(BadRequest, match="does not match the name on the URL"):
        await client.patch(WIDGETS, "a", {"metadata": {"name": "b"}}, ALL)


async def test_patch_kinds(client: LocalClient) -> None:
    await client.create(WIDGETS, widget("a"), ALL)
    after = await client.patch(WIDGETS, "a", [{"op": "add", "path": "/spec/color", "value": "red"}], ALL, kind="json")
    assert after["spec"]["color"] == "red"
    with pytest.raises(UnsupportedMediaType):
        await client.patch(WIDGETS, "a", {}, ALL, kind="strategic")
    await client.create(PODS, pod("p"), ALL)
    image = {"spec": {"containers": [{"name": "compute", "image": "image:2"}]}}
    after = await client.patch(PODS, "p", image, ALL, kind="strategic")
    assert after["spec"]["containers"][0]["resources"] == {"requests": {"memory": "1Gi"}}
    assert after["spec"]["containers"][0]["image"] == "image:2"
    with pytest.raises(BadRequest, match="expected a Widget"):
        await client.patch(WIDGETS, "a", {"kind": "Gadget"}, ALL)


async def test_apply_creates_shares_and_conflicts(client: LocalClient) -> None:
    wanted = widget("a", spec={"color": "red"})
    made = await client.patch(WIDGETS, "a", wanted, ALL, kind="apply", field_manager="one")
    assert [entry["manager"] for entry in made["metadata"]["managedFields"]] == ["one"]
    again = await client.patch(WIDGETS, "a", wanted, ALL, kind="apply", field_manager="one")
    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    other = widget("a", spec={"color": "blue"})
    with pytest.raises(Conflict, match="one") as refusal:
        await client.patch(WIDGETS, "a", other, ALL, kind="apply", field_manager="two")
    assert [cause.field for cause in refusal.value.causes] == [".spec.color"]
    taken = await client.patch(WIDGETS, "a", other, ALL, kind="apply", field_manager="two", force=True)
    assert taken["spec"]["color"] == "blue"
    emptied = await client.patch(WIDGETS, "a", widget("a"), ALL, kind="apply", field_manager="two")
    assert "color" not in emptied["spec"]


async def test_concurrent_patches_all_arrive(client: LocalClient) -> None:
    await client.create(CONFIG_MAPS, config_map("c"), ALL)
    patches = (client.patch(CONFIG_MAPS, "c", {"data": {f"k{i}": "v"}}, ALL) for i in range(30))
    await asyncio.gather(*patches)
    assert len((await client.get(CONFIG_MAPS, "c", ALL))["data"]) == 30


async def test_scale(client: LocalClient) -> None:
    await client.create(WIDGETS, widget("a"), ALL)
    scaled = await client.patch(WIDGETS, "a", {"spec": {"replicas": 3}}, ALL, subresource="scale")
    assert (scaled["kind"], scaled["spec"], scaled["status"]) == ("Scale", {"replicas": 3}, {"replicas": 0})
    assert (await client.get(WIDGETS, "a", ALL))["metadata"]["generation"] == 2


# -- versions, lists


async def test_every_served_version_shows_the_same_object(client: LocalClient) -> None:
    made = await client.create(WIDGETS_ALPHA, {**widget("a"), "apiVersion": "example.com/v1alpha1"}, ALL)
    assert made["apiVersion"] == "example.com/v1alpha1"
    assert (await client.get(WIDGETS, "a", ALL)) == {**made, "apiVersion": "example.com/v1"}
    assert (await client.list(WIDGETS_ALPHA))["items"] == [made]


async def test_lists_are_chosen_by_labels_and_fields_and_come_in_pages(client: LocalClient) -> None:
    for i in range(5):
        labelled = widget(f"w{i}")
        labelled["metadata"]["labels"] = {"parity": "even" if i % 2 == 0 else "odd"}
        await client.create(WIDGETS, labelled, ALL)
    even = await client.list(WIDGETS, ALL, label_selector="parity in (even)")
    assert [item["metadata"]["name"] for item in even["items"]] == ["w0", "w2", "w4"]
    one = await client.list(WIDGETS, ALL, field_selector="metadata.name=w3")
    assert [item["metadata"]["name"] for item in one["items"]] == ["w3"]
    with pytest.raises(BadRequest, match="not a known field selector"):
        await client.list(WIDGETS, ALL, field_selector="spec.color=red")

    page = await client.list(WIDGETS, ALL, limit=2)
    assert page["metadata"]["remainingItemCount"] == 3
    await client.delete(WIDGETS, "w2", ALL)  # the pages that follow show what was there when the first one was read
    names = [item["metadata"]["name"] for item in page["items"]]
    while token := page["metadata"].get("continue"):
        page = await client.list(WIDGETS, ALL, limit=2, continue_token=token)
        names += [item["metadata"]["name"] for item in page["items"]]
    assert names == ["w0", "w1", "w2", "w3", "w4"]


async def test_events_have_two_faces(client: LocalClient) -> None:
    event = {
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "reason": "Started", "message": "it runs",
        "type": "Normal", "involvedObject": {"kind": "Widget", "name": "a", "namespace": ALL},
    }  # fmt: skip
    await client.create(EVENTS, event, ALL)
    other = Resource("events.k8s.io", "v1", "events", "Event")
    shown = await client.get(other, "e", ALL)
    assert (shown["note"], shown["regarding"]["name"]) == ("it runs", "a")
    found = await client.list(EVENTS, ALL, field_selector="involvedObject.name=a,involvedObject.kind=Widget")
    assert len(found["items"]) == 1


# -- watch


async def _collect(client: LocalClient, count: int, **options: Any) -> list[WatchEvent]:
    found = []
    async for event in client.watch(WIDGETS, ALL, **options):
        found.append(event)
        if len(found) == count:
            break
    return found


async def test_a_watch_tells_everything_after_its_version(client: LocalClient) -> None:
    made = await client.create(WIDGETS, widget("a"), ALL)
    await client.patch(WIDGETS, "a", {"spec": {"color": "red"}}, ALL)
    watching = asyncio.create_task(_collect(client, 3, resource_version=made["metadata"]["resourceVersion"]))
    await asyncio.sleep(0)
    await client.create(WIDGETS, widget("b"), ALL)
    await client.delete(WIDGETS, "a", ALL)
    events = await watching
    assert [(e.type, e.object["metadata"]["name"]) for e in events] == [
        ("MODIFIED", "a"),
        ("ADDED", "b"),
        ("DELETED", "a"),
    ]
    versions = [int(e.object["metadata"]["resourceVersion"]) for e in events]
    assert versions == sorted(versions)


async def test_a_watch_of_what_was_long_ago_leaves_nothing_decoded(server: ApiServer, client: LocalClient) -> None:
    made = await client.create(WIDGETS, widget("a"), ALL)
    await client.patch(WIDGETS, "a", {"spec": {"color": "red"}}, ALL)
    version = made["metadata"]["resourceVersion"]
    event = next(e for e in await server.store.events_since(int(version)) if e.key.name == "a")
    decoded = event.doc
    await _collect(client, 1, resource_version=version)
    assert event.doc is not decoded


async def test_a_selecting_watch_sees_objects_come_and_go(client: LocalClient) -> None:
    made = await client.create(WIDGETS, widget("a"), ALL)
    version = made["metadata"]["resourceVersion"]
    watching = asyncio.create_task(_collect(client, 3, resource_version=version, label_selector="on=yes"))
    await asyncio.sleep(0)
    for labels in ({"on": "yes"}, {"on": "yes", "x": "y"}, {"on": "no"}):
        await client.patch(WIDGETS, "a", {"metadata": {"labels": labels}}, ALL)
    events = await watching
    assert [e.type for e in events] == ["ADDED", "MODIFIED", "DELETED"]
    assert events[2].object["metadata"]["labels"]["on"] == "yes"  # as it was when it last belonged


async def test_a_watch_from_a_compacted_version_is_gone(server: ApiServer, client: LocalClient) -> None:
    made = await client.create(WIDGETS, widget("a"), ALL)
    await client.patch(WIDGETS, "a", {"spec": {"color": "red"}}, ALL)
    await server.store.compact(server.store.revision)
    with pytest.raises(Gone):
        await _collect(client, 1, resource_version=made["metadata"]["resourceVersion"])


async def test_watches_end_when_the_server_stops(server: ApiServer, client: LocalClient) -> None:
    watching = asyncio.create_task(_collect(client, 99, resource_version=""))
    await asyncio.sleep(0)
    server.closed.set()
    assert await watching == []


# -- delete


async def test_finalizers_hold_and_can_only_be_taken_away(client: LocalClient) -> None:
    held = widget("a")
    held["metadata"]["finalizers"] = ["example.com/hold"]
    await client.create(WIDGETS, held, ALL)
    marked = await client.delete(WIDGETS, "a", ALL)
    assert marked["metadata"]["deletionTimestamp"]
    assert marked["metadata"]["generation"] == 2
    with pytest.raises(Invalid, match="no new finalizers"):
        await client.patch(WIDGETS, "a", {"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}}, ALL)
    await client.patch(WIDGETS, "a", {"metadata": {"finalizers": None}}, ALL)
    with pytest.raises(NotFound):
        await client.get(WIDGETS, "a", ALL)


async def test_delete_preconditions(client: LocalClient) -> None:
    await client.create(WIDGETS, widget("a"), ALL)
    with pytest.raises(Conflict, match="UID in precondition"):
        await client.delete(WIDGETS, "a", ALL, uid="another")
    with pytest.raises(NotFound, match=r'widgets\.example\.com "b" not found'):
        await client.delete(WIDGETS, "b", ALL)


async def test_a_pod_on_a_node_is_given_its_grace_and_others_go_at_once(client: LocalClient) -> None:
    await client.create(PODS, pod("unbound"), ALL)
    await client.delete(PODS, "unbound", ALL)
    with pytest.raises(NotFound):
        await client.get(PODS, "unbound", ALL)

    await client.create(PODS, pod("bound", terminationGracePeriodSeconds=60), ALL)
    await client.post(PODS, "bound", "binding", {"target": {"name": "node-1"}}, ALL)
    with pytest.raises(Conflict, match="already assigned"):
        await client.post(PODS, "bound", "binding", {"target": {"name": "node-2"}}, ALL)
    marked = await client.delete(PODS, "bound", ALL)
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 60
    sooner = await client.delete(PODS, "bound", ALL, grace_period_seconds=5)
    assert sooner["metadata"]["deletionGracePeriodSeconds"] == 5
    await client.delete(PODS, "bound", ALL, grace_period_seconds=0)  # as the node says when it has ended
    with pytest.raises(NotFound):
        await client.get(PODS, "bound", ALL)


# -- built-in kinds


async def test_pods_are_bound_and_resized_by_their_subresources_alone(client: LocalClient) -> None:
    made = await client.create(PODS, pod("p"), ALL)
    assert made["status"] == {"phase": "Pending", "qosClass": "Burstable"}
    assert made["spec"]["schedulerName"] == "default-scheduler"
    with pytest.raises(Invalid, match="pods/binding"):
        await client.patch(PODS, "p", {"spec": {"nodeName": "n"}}, ALL)
    await client.post(PODS, "p", "binding", {"target": {"name": "n"}}, ALL)
    bound = await client.get(PODS, "p", ALL)
    assert bound["spec"]["nodeName"] == "n"
    assert [(c["type"], c["status"]) for c in bound["status"]["conditions"]] == [("PodScheduled", "True")]
    larger = {"spec": {"containers": [{"name": "compute", "resources": {"requests": {"memory": "2Gi"}}}]}}
    after = await client.patch(PODS, "p", larger, ALL, kind="strategic", subresource="resize")
    assert after["spec"]["containers"][0]["resources"]["requests"]["memory"] == "2Gi"
    await client.patch(PODS, "p", {"status": {"phase": "Running"}}, ALL, subresource="status")
    running = await client.list(PODS, field_selector="spec.nodeName=n,status.phase=Running")
    assert len(running["items"]) == 1


async def test_claims_get_the_default_class_and_stay_as_asked(client: LocalClient) -> None:
    storage = Resource("storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False)
    notes = {"storageclass.kubernetes.io/is-default-class": "true"}
    kind = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "p"}
    await client.create(storage, {**kind, "metadata": {"name": "usual", "annotations": notes}})
    claim = {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }  # fmt: skip
    made = await client.create(CLAIMS, claim, ALL)
    assert (made["spec"]["storageClassName"], made["status"]) == ("usual", {"phase": "Pending"})
    await client.patch(CLAIMS, "c", {"spec": {"volumeName": "v"}}, ALL)
    with pytest.raises(Invalid, match="immutable"):
        await client.patch(CLAIMS, "c", {"spec": {"volumeName": "other"}}, ALL)
    with pytest.raises(Invalid) as refusal:
        await client.create(CLAIMS, {**claim, "metadata": {"name": "d"}, "spec": {}}, ALL)
    assert {c.field for c in refusal.value.causes} == {"spec.accessModes", "spec.resources[storage]"}


async def test_secrets_take_plain_text(client: LocalClient) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "b"}}
    made = await client.create(SECRETS, secret, ALL)
    assert (made["data"], made["type"], "stringData" in made) == ({"a": "Yg=="}, "Opaque", False)


async def test_a_node_keeps_the_status_it_registers_with(client: LocalClient) -> None:
    node = {
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "status": {"capacity": {"cpu": "4"}},
    }  # fmt: skip
    assert (await client.create(NODES, node))["status"]["capacity"] == {"cpu": "4"}


# -- custom resources


async def test_a_definition_serves_from_the_moment_it_is_created(
    client: LocalClient, definition: dict[str, Any]
) -> None:
    gadgets = Resource("example.com", "v1", "gadgets", "Gadget")
    definition["metadata"]["name"] = "gadgets.example.com"
    definition["spec"]["names"] = {"plural": "gadgets", "kind": "Gadget"}
    with pytest.raises(NotFound, match="is its CRD installed"):
        await client.list(gadgets)
    made = await client.create(CRDS, definition)
    conditions = {c["type"]: c["status"] for c in made["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}
    await client.create(gadgets, {"apiVersion": "example.com/v1", "kind": "Gadget", "metadata": {"name": "g"}}, ALL)

    version = (await client.list(CRDS))["metadata"]["resourceVersion"]
    await client.delete(CRDS, "gadgets.example.com")
    async for event in client.watch(CRDS, resource_version=version):
        if event.type == "DELETED":
            break
    with pytest.raises(NotFound):
        await client.list(gadgets)


async def test_a_definition_with_taken_names_waits(client: LocalClient, definition: dict[str, Any]) -> None:
    definition["metadata"]["name"] = "others.example.com"
    definition["spec"]["names"] = {"plural": "others", "kind": "Other", "shortNames": ["wd"]}
    made = await client.create(CRDS, definition)
    conditions = {c["type"]: (c["status"], c["message"]) for c in made["status"]["conditions"]}
    assert conditions["NamesAccepted"] == ("False", '"wd" is already in use')
    assert conditions["Established"][0] == "False"


async def test_objects_and_definitions_are_there_after_a_restart(tmp_path: Any, definition: dict[str, Any]) -> None:
    config = ServerConfig(state_db=tmp_path / "state.db", pki=tmp_path / "pki", listen=False)
    first = ApiServer(config, crds=[definition])
    await first.start()
    made = await first.client().create(WIDGETS, widget("a"), ALL)
    await first.stop()
    second = ApiServer(config)
    await second.start()
    assert await second.client().get(WIDGETS, "a", ALL) == made
    await second.stop()


# -- admission and permission


class _Picky:
    """Paints what has no color, refuses what is red with both faults, and warns of blue."""

    resources = (WIDGETS,)

    def mutate(self, request: AdmissionRequest) -> dict[str, Any] | None:
        assert request.obj is None or request.obj["spec"]["replicas"] >= 1  # defaulted before
        if request.obj is None or request.obj["spec"].get("color"):
            return None
        return {**request.obj, "spec": {**request.obj["spec"], "color": "green"}}

    async def validate(self, request: AdmissionRequest) -> Verdict:
        if request.operation == "DELETE":
            return Verdict(denied="keep it" if request.user.name != "system:apiserver" else "")
        color = (request.obj or {})["spec"]["color"]
        faults = [Cause("FieldValueInvalid", why, "spec.color") for why in ("too loud", "too warm")]
        return Verdict(causes=tuple(faults) if color == "red" else (), warnings=("cold",) if color == "blue" else ())


async def test_admission_mutates_refuses_and_denies(tmp_path: Any, definition: dict[str, Any]) -> None:
    config = ServerConfig(state_db=tmp_path / "state.db", pki=tmp_path / "pki", listen=False)
    api = ApiServer(config, admissions=[_Picky()], crds=[definition])
    await api.start()
    client = api.client()
    assert (await client.create(WIDGETS, widget("a"), ALL))["spec"]["color"] == "green"
    with pytest.raises(Invalid) as refusal:
        await client.patch(WIDGETS, "a", {"spec": {"color": "red"}}, ALL)
    assert [cause.message for cause in refusal.value.causes] == ["too loud", "too warm"]
    someone = api.client(User("someone", ("system:masters",)))
    with pytest.raises(Forbidden, match="keep it"):
        await someone.delete(WIDGETS, "a", ALL)
    await client.delete(WIDGETS, "a", ALL)
    await api.stop()


async def test_a_client_may_do_what_its_user_may(server: ApiServer) -> None:
    nobody = server.client(User("nobody", ("system:authenticated",)))
    with pytest.raises(Forbidden, match=r'User "nobody" cannot list resource "widgets" in API group "example\.com"'):
        await nobody.list(WIDGETS, ALL)


async def test_a_client_may_ask_what_others_may(client: LocalClient) -> None:
    reviews = Resource("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False)
    spec = {"user": "nobody", "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "default"}}
    answer = await client.create(reviews, {"spec": spec})
    assert answer["status"] == {"allowed": False, "reason": ""}
    answer = await client.create(reviews, {"spec": {**spec, "groups": ["system:masters"]}})
    assert answer["status"] == {"allowed": True}


async def test_default_and_system_namespaces_stay(client: LocalClient) -> None:
    with pytest.raises(Forbidden, match="may not be deleted"):
        await client.delete(NAMESPACES, "default")


async def test_objects_kept_in_an_older_version_are_shown_in_the_asked_one(
    client: LocalClient, definition: dict[str, Any]
) -> None:
    """The definition's storage version moves on while objects of the old one exist."""
    await client.create(WIDGETS, widget("old"), ALL)
    current = await client.get(CRDS, "widgets.example.com")
    versions = [{**v, "storage": v["name"] == "v1alpha1"} for v in current["spec"]["versions"]]
    after = await client.update(CRDS, {**current, "spec": {**current["spec"], "versions": versions}})
    assert after["status"]["storedVersions"] == ["v1", "v1alpha1"]
    await client.create(WIDGETS, widget("new"), ALL)
    for resource in (WIDGETS, WIDGETS_ALPHA):
        items = (await client.list(resource, ALL))["items"]
        assert [item["apiVersion"] for item in items] == [resource.api_version] * 2
