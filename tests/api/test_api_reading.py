"""Reading: versions, pages, selectors, watches."""

import contextlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

Doc = dict[str, Any]
MERGE = "application/merge-patch+json"
END = "k8s.io/initial-events-end"


def maps(ns: str) -> str:
    return f"/api/v1/namespaces/{ns}/configmaps"


def config(name: str, **labels: str) -> Doc:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"case": "1", **labels}}}


def mine(listed: Doc) -> list[str]:
    """Without what controllers put into every namespace."""
    return [item["metadata"]["name"] for item in listed["items"] if item["metadata"]["name"] != "kube-root-ca.crt"]


# -- selectors, through each client


@pytest.fixture(scope="module")
def shelf(target: Any) -> Iterator[str]:
    """A namespace with some to choose from; nobody writes there."""
    ns = f"case-shelf-{secrets.token_hex(3)}"
    target.ask("POST", "/api/v1/namespaces", {"metadata": {"name": ns}})
    for name, labels in {
        "a": {"tier": "web", "env": "prod"}, "b": {"tier": "web", "env": "test"}, "c": {"tier": "db", "env": "prod"},
        "d": {},
    }.items():  # fmt: skip
        assert target.ask("POST", maps(ns), config(name, **labels)).status == 201
    for name, color in (("r", "red"), ("g", "green")):
        widget = {"apiVersion": "conformance.hotvirt.io/v1", "kind": "Widget", "metadata": {"name": name},
                  "spec": {"color": color}}  # fmt: skip
        assert target.ask("POST", f"/apis/conformance.hotvirt.io/v1/namespaces/{ns}/widgets", widget).status == 201
    for name, node, phase in (("p", "n1", "Running"), ("q", "n2", "Pending")):
        containers = [{"name": "c", "image": "i"}]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
               "spec": {"nodeName": node, "containers": containers}}  # fmt: skip
        path = f"/api/v1/namespaces/{ns}/pods"
        target.until(lambda path=path, pod=pod: target.ask("POST", path, pod).status == 201)  # its account comes first
        target.ask("PATCH", f"{path}/{name}/status", {"status": {"phase": phase}}, kind=MERGE)
    yield ns
    target.ask("DELETE", f"/api/v1/namespaces/{ns}", {"gracePeriodSeconds": 0})


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        ("tier=web", "ab"), ("tier==web,env!=test", "a"), ("env in (prod,stage)", "ac"), ("env notin (prod)", "bd"),
        ("tier", "abc"), ("!tier", "d"), ("tier=web,env in (test)", "b"), ("tier=none", ""),
    ],
)  # fmt: skip
def test_label_selectors(client: Any, shelf: str, labels: str, wanted: str) -> None:
    assert "".join(client.names("configmaps", shelf, labels=f"case,{labels}")) == wanted


@pytest.mark.parametrize(
    ("kind", "fields", "wanted"),
    [
        ("configmaps", "metadata.name=a", ["a"]),
        ("configmaps", "metadata.name!=a,metadata.name!=kube-root-ca.crt", ["b", "c", "d"]),
        ("pods", "spec.nodeName=n1", ["p"]),
        ("pods", "status.phase=Running", ["p"]),
        ("pods", "status.phase!=Running,spec.nodeName=n2", ["q"]),
        ("widgets", "spec.color=red", ["r"]),
    ],
)
def test_field_selectors(client: Any, shelf: str, kind: str, fields: str, wanted: list[str]) -> None:
    assert client.names(kind, shelf, fields=fields) == wanted


def test_a_field_that_cannot_be_selected_is_said_so(client: Any, shelf: str, refused: type[Any]) -> None:
    with pytest.raises(refused) as told:
        client.names("configmaps", shelf, fields="data.x=y")
    assert told.value.reason == "BadRequest"
    assert "data.x" in told.value.message


def test_events_by_what_they_are_about(client: Any, ns: str) -> None:
    for name in ("one", "two"):
        about = {"kind": "Pod", "name": name, "namespace": ns}
        client.create(
            {"apiVersion": "v1", "kind": "Event", "metadata": {"name": f"e.{name}"}, "involvedObject": about,
             "reason": "Tried", "message": "m", "type": "Normal", "source": {"component": "c"}}, ns,
        )  # fmt: skip
    assert client.names("events", ns, fields="involvedObject.name=one,involvedObject.kind=Pod") == ["e.one"]
    assert client.names("events", ns, fields="type=Normal,reason=Tried") == ["e.one", "e.two"]


def test_pages_make_the_whole(client: Any, ns: str, target: Any) -> None:
    wanted = [f"m{i:02}" for i in range(11)]
    for name in wanted:
        target.ask("POST", maps(ns), config(name))
    assert client.names("configmaps", ns, page=3, labels="case") == wanted


# -- pages and versions


def test_pages_are_of_one_moment(target: Any, ns: str) -> None:
    for name in "abcde":
        target.ask("POST", maps(ns), config(name))
    query = {"limit": 2, "labelSelector": ""}
    first = target.ask("GET", maps(ns), **query).doc
    assert (mine(first), first["metadata"]["remainingItemCount"] >= 3) == (["a", "b"], True)
    target.ask("DELETE", f"{maps(ns)}/d")
    target.ask("POST", maps(ns), config("aa"))
    rest = target.ask("GET", maps(ns), **{"continue": first["metadata"]["continue"]}).doc
    assert mine(rest) == ["c", "d", "e"]
    assert rest["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert "continue" not in rest["metadata"] or not rest["metadata"]["continue"]


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "minus"}, {"continue": "nonsense"}, {"labelSelector": "!!"}, {"labelSelector": "a in ()("},
        {"fieldSelector": "metadata.name"}, {"resourceVersion": "abc"},
        {"timeoutSeconds": "soon"},
    ],
    ids=str,
)  # fmt: skip
def test_questions_that_cannot_be_read(target: Any, ns: str, query: Doc) -> None:
    told = target.ask("GET", maps(ns), **query)
    assert (told.status, told.doc["kind"]) == (400, "Status"), told.doc


def test_a_watch_from_no_version(target: Any, ns: str) -> None:
    told = target.ask("GET", maps(ns), watch="1", resourceVersion="abc")
    if target.differs("what the client sent wrong is the client's fault here, an error of the server's there"):
        assert (told.status, told.doc["reason"]) == (400, "BadRequest"), told.doc
    else:
        assert told.status == 500


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"resourceVersionMatch": "Exact"}, "resourceVersionMatch"),
        ({"resourceVersionMatch": "About", "resourceVersion": "1"}, "resourceVersionMatch"),
        ({"resourceVersionMatch": "Exact", "resourceVersion": "0"}, "resourceVersionMatch"),
        ({"sendInitialEvents": "true"}, "sendInitialEvents"),
        ({"sendInitialEvents": "true", "watch": "1"}, "resourceVersionMatch"),
        ({"watch": "1", "resourceVersionMatch": "NotOlderThan", "resourceVersion": "1"}, "resourceVersionMatch"),
    ],
    ids=str,
)
def test_questions_that_make_no_sense(target: Any, ns: str, query: Doc, field: str) -> None:
    told = target.ask("GET", maps(ns), **query)
    assert (told.status, told.doc["reason"]) == (422, "Invalid"), told.doc
    assert field in {each for _, each in told.causes}


@pytest.mark.parametrize(
    "query",
    [
        {"resourceVersionMatch": "Exact"}, {"resourceVersionMatch": "Exact", "resourceVersion": "0"},
        {"resourceVersionMatch": "Nearly", "resourceVersion": "5"},
        {"watch": "1", "resourceVersionMatch": "NotOlderThan", "resourceVersion": "5"},
        {"watch": "1", "sendInitialEvents": "true"},
    ],
    ids=str,
)  # fmt: skip
def test_versions_asked_for_in_no_known_way(target: Any, ns: str, query: Doc) -> None:
    told = target.ask("GET", maps(ns), **query)
    assert told.status in (400, 422), told.doc
    assert told.doc["reason"] in ("BadRequest", "Invalid")


def test_exact_not_older_and_latest(target: Any, ns: str) -> None:
    made = target.ask("POST", maps(ns), config("a")).doc["metadata"]["resourceVersion"]
    then = target.ask("GET", maps(ns), labelSelector="case").doc["metadata"]["resourceVersion"]
    target.ask("POST", maps(ns), config("b"))
    ask = {"labelSelector": "case"}
    exact = target.ask("GET", maps(ns), resourceVersion=then, resourceVersionMatch="Exact", **ask).doc
    assert (mine(exact), exact["metadata"]["resourceVersion"]) == (["a"], then)
    newer = target.ask("GET", maps(ns), resourceVersion=made, resourceVersionMatch="NotOlderThan", **ask).doc
    assert int(newer["metadata"]["resourceVersion"]) >= int(made)
    assert mine(target.ask("GET", maps(ns), **ask).doc) == ["a", "b"]
    assert "a" in mine(target.ask("GET", maps(ns), resourceVersion="0", **ask).doc)


def test_a_version_of_the_future_is_too_large(target: Any, ns: str) -> None:
    now = int(target.ask("GET", maps(ns)).doc["metadata"]["resourceVersion"])
    told = target.ask("GET", maps(ns), resourceVersion=now + 10**9)
    assert (told.status, told.doc["reason"]) == (504, "Timeout")
    assert told.doc["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"


# -- watches


def test_watching_through_a_client(client: Any, ns: str, widget: Callable[..., Doc]) -> None:
    client.create(widget("there"), ns)

    def act() -> None:
        client.create(widget("a", color="red"), ns)
        client.patch("widgets", "a", ns, {"spec": {"color": "blue"}})
        client.delete("widgets", "a", ns)

    events = client.watch("widgets", ns, act, count=3)
    assert [(kind, obj["metadata"]["name"], obj["spec"]["color"]) for kind, obj in events] == [
        ("ADDED", "a", "red"), ("MODIFIED", "a", "blue"), ("DELETED", "a", "blue")
    ]  # fmt: skip
    versions = [int(obj["metadata"]["resourceVersion"]) for _, obj in events]
    assert versions == sorted(set(versions))  # the deleted one has the version of its delete


def test_what_enters_and_leaves_a_selector(client: Any, ns: str, widget: Callable[..., Doc]) -> None:
    client.create(widget("there", labels={"on": "yes"}), ns)
    client.create(widget("a", labels={"on": "no"}), ns)

    def act() -> None:
        for on in ("yes", "no"):
            client.patch("widgets", "a", ns, {"metadata": {"labels": {"on": on}}})

    events = client.watch("widgets", ns, act, count=2, labels="on=yes")
    assert [kind for kind, _ in events] == ["ADDED", "DELETED"]
    assert events[1][1]["metadata"]["labels"] == {"on": "yes"}  # as it last matched


def test_a_watch_goes_on_from_any_kept_version(target: Any, ns: str) -> None:
    versions = [target.ask("POST", maps(ns), config(name)).doc["metadata"]["resourceVersion"] for name in "abc"]
    for i, since in enumerate(versions):
        seen = target.watch(maps(ns), resourceVersion=since, labelSelector="case", timeoutSeconds="1")
        assert [event["object"]["metadata"]["name"] for event in seen] == list("abc"[i + 1 :])


def test_a_watch_without_a_version_begins_with_what_is_there(target: Any, ns: str) -> None:
    target.ask("POST", maps(ns), config("a"))
    for query in ({}, {"resourceVersion": "0"}):
        seen = list(target.watch(maps(ns), labelSelector="case", timeoutSeconds="1", **query))
        assert [(event["type"], event["object"]["metadata"]["name"]) for event in seen] == [("ADDED", "a")]


def test_watch_list_ends_its_beginning_with_a_bookmark(target: Any, ns: str) -> None:
    for name in "ab":
        target.ask("POST", maps(ns), config(name))
    stream = target.watch(
        maps(ns), sendInitialEvents="true", resourceVersionMatch="NotOlderThan", allowWatchBookmarks="true",
        labelSelector="case", resourceVersion="",
    )  # fmt: skip
    with contextlib.closing(stream):
        first = [next(stream) for _ in range(3)]
        assert [event["type"] for event in first] == ["ADDED", "ADDED", "BOOKMARK"]
        end = first[2]["object"]
        assert end["metadata"]["annotations"] == {END: "true"}
        assert (end["kind"], end["apiVersion"]) == ("ConfigMap", "v1")
        target.ask("POST", maps(ns), config("c"))
        after = next(stream)
    assert (after["type"], after["object"]["metadata"]["name"]) == ("ADDED", "c")
    assert int(after["object"]["metadata"]["resourceVersion"]) > int(end["metadata"]["resourceVersion"])


def test_bookmarks_tell_a_quiet_watcher_how_far_it_is(target: Any, ns: str) -> None:
    made = target.ask("POST", maps(ns), config("a")).doc["metadata"]["resourceVersion"]
    query = {"resourceVersion": made, "allowWatchBookmarks": "true", "timeoutSeconds": "2", "labelSelector": "case=2"}
    target.ask("POST", maps(ns), config("b"))
    seen = list(target.watch(maps(ns), **query))
    if target.differs("a kube-apiserver may end a short watch without a bookmark; ours always has one at the end"):
        assert seen, "a watch that ends has told how far it is"
    for event in seen:
        assert event["type"] == "BOOKMARK"
        assert int(event["object"]["metadata"]["resourceVersion"]) >= int(made)
        assert set(event["object"]) <= {"kind", "apiVersion", "metadata", "data", "binaryData", "immutable"}


def test_a_version_long_compacted_is_gone(target: Any, ns: str) -> None:
    if target.differs("ours keeps five minutes and 10,000 writes: a young server has compacted nothing"):
        pytest.skip("tests/server shows it on a store that was compacted")
    seen = list(target.watch(maps(ns), resourceVersion="1", timeoutSeconds="1"))
    assert [event["object"]["code"] for event in seen] == [410]


def test_a_watch_of_one_name(target: Any, ns: str) -> None:
    for name in "ab":
        target.ask("POST", maps(ns), config(name))
    one = list(target.watch(maps(ns), fieldSelector="metadata.name=b", timeoutSeconds="1"))
    old = list(target.watch(f"/api/v1/watch/namespaces/{ns}/configmaps/b", timeoutSeconds="1"))
    assert [event["object"]["metadata"]["name"] for event in one] == ["b"]
    if target.differs("the old /watch/ paths, deprecated since 1.11, are not served"):
        assert [event["type"] for event in old] == ["HTTP"]
    else:
        assert [event["object"]["metadata"]["name"] for event in old] == ["b"]


def test_a_watch_ends_in_its_time(target: Any, ns: str) -> None:
    began = time.monotonic()
    assert [
        each["type"] for each in target.watch(maps(ns), timeoutSeconds="1", fieldSelector="metadata.name=none")
    ] == []
    assert 0.5 < time.monotonic() - began < 8


def test_many_watchers_see_the_same(target: Any, ns: str) -> None:
    since = target.ask("GET", maps(ns)).doc["metadata"]["resourceVersion"]
    seen: list[list[str]] = []

    def watch() -> None:
        events = target.watch(maps(ns), resourceVersion=since, labelSelector="case", timeoutSeconds="2")
        seen.append([json.dumps(event, sort_keys=True) for event in events])

    watchers = [threading.Thread(target=watch) for _ in range(6)]
    for thread in watchers:
        thread.start()
    for i in range(10):
        target.ask("POST", maps(ns), config(f"m{i}"))
    for thread in watchers:
        thread.join()
    assert [len(each) for each in seen] == [10] * 6
    assert all(each == seen[0] for each in seen)


def test_metadata_alone_and_tables_can_be_watched(target: Any, ns: str) -> None:
    target.ask("POST", maps(ns), config("a"))
    for form, kind in (("PartialObjectMetadata", "PartialObjectMetadata"), ("Table", "Table")):
        headers = {"Accept": f"application/json;as={form};v=v1;g=meta.k8s.io"}
        answer = target.raw("GET", f"{maps(ns)}?watch=1&timeoutSeconds=1&labelSelector=case", headers=headers)
        events = [json.loads(line) for line in answer.data.splitlines()]
        assert [(event["type"], event["object"]["kind"]) for event in events] == [("ADDED", kind)]


def test_a_list_in_pieces_has_the_kind_of_its_items_once(target: Any, ns: str) -> None:
    target.ask("POST", maps(ns), config("a"))
    listed = target.ask("GET", maps(ns)).doc
    assert (listed["kind"], listed["apiVersion"]) == ("ConfigMapList", "v1")
    if target.differs("a kube-apiserver leaves kind and apiVersion out of the items of built-in lists; ours sends what "
                      "it keeps, and every client takes both"):  # fmt: skip
        assert all(item.get("kind", "ConfigMap") == "ConfigMap" for item in listed["items"])
    else:
        assert all("kind" not in item for item in listed["items"])
