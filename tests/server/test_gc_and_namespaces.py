"""What goes when something else goes: owners and dependents, namespaces, old events."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hotvirt.kube.errors import ApiError, Forbidden, NotFound
from hotvirt.kube.resources import CONFIG_MAPS, EVENTS, NAMESPACES, SERVICE_ACCOUNTS, Resource
from hotvirt.server import deletion, expiry
from hotvirt.server.app import SERVER_USER, ApiServer, ServerConfig
from hotvirt.server.builtin import kinds
from hotvirt.server.calls import DeleteOptions
from hotvirt.server.gc import Decision, Owner, decide
from hotvirt.server.inprocess import LocalClient

WIDGETS = Resource("example.com", "v1", "widgets", "Widget")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def widget(name: str, *owners: dict[str, Any], finalizers: tuple[str, ...] = ()) -> dict[str, Any]:
    references = [
        {"apiVersion": "example.com/v1", "kind": "Widget", "name": o["metadata"]["name"], "uid": o["metadata"]["uid"],
         "blockOwnerDeletion": True}
        for o in owners
    ]  # fmt: skip
    meta: dict[str, Any] = {"name": name}
    if references:
        meta["ownerReferences"] = references
    if finalizers:
        meta["finalizers"] = list(finalizers)
    return {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": meta, "spec": {}}


async def changed(client: LocalClient, resource: Resource, name: str, *, kind: str, since: str) -> dict[str, Any]:
    """The first event of that kind about that object: nothing here sleeps or polls."""
    async with asyncio.timeout(5):
        async for event in client.watch(resource, resource_version=since):
            if event.type == kind and event.object["metadata"]["name"] == name:
                return event.object
    raise AssertionError("the watch ended")


async def version(client: LocalClient) -> str:
    return str((await client.list(WIDGETS))["metadata"]["resourceVersion"])


# -- decisions


@pytest.mark.parametrize(
    ("owners", "has_dependents", "wanted"),
    [
        ([("a", False, False)], False, Decision()),
        ([("a", True, False)], False, Decision(delete="Background")),
        ([("a", True, False), ("b", False, False)], False, Decision(drop_owners=("a",))),
        ([("a", False, True)], False, Decision(delete="Background")),
        ([("a", False, True)], True, Decision(delete="Foreground")),
        ([("a", False, True), ("b", False, False)], True, Decision(drop_owners=("a",))),
        ([], False, Decision()),
    ],
    ids=["owned", "orphaned", "one left", "waited for", "waited for by many", "waiting and solid", "free"],
)
def test_what_becomes_of_a_dependent(owners: Any, has_dependents: bool, wanted: Decision) -> None:
    states = [Owner(uid, is_absent=absent, is_waiting=waiting) for uid, absent, waiting in owners]
    assert decide(states, has_dependents=has_dependents) == wanted


def _pod(**meta: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p", **meta}, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}}


def test_marking_a_pod_counts_its_grace_and_can_only_shorten_it() -> None:
    served = next(kind for kind in kinds() if kind.store == "/pods")
    marked = deletion.mark(served, _pod(), DeleteOptions(grace=20), NOW)
    assert marked is not None
    assert marked["metadata"]["deletionTimestamp"] == "2026-01-01T00:00:20Z"
    longer = deletion.mark(served, marked, DeleteOptions(grace=99), NOW)
    assert longer == marked
    shorter = deletion.mark(served, marked, DeleteOptions(grace=5), NOW)
    assert shorter is not None
    assert shorter["metadata"]["deletionTimestamp"] == "2026-01-01T00:00:05Z"
    assert deletion.mark(served, marked, DeleteOptions(grace=0), NOW) is None


# -- owners


async def test_dependents_go_in_the_background(client: LocalClient) -> None:
    owner = await client.create(WIDGETS, widget("owner"), "default")
    child = await client.create(WIDGETS, widget("child", owner), "default")
    await client.create(WIDGETS, widget("grandchild", child), "default")
    since = await version(client)
    await client.delete(WIDGETS, "owner", "default")
    await changed(client, WIDGETS, "grandchild", kind="DELETED", since=since)
    assert (await client.list(WIDGETS))["items"] == []


async def test_in_the_foreground_the_owner_goes_last(client: LocalClient) -> None:
    owner = await client.create(WIDGETS, widget("owner"), "default")
    await client.create(WIDGETS, widget("child", owner, finalizers=("example.com/hold",)), "default")
    since = await version(client)
    marked = await client.delete(WIDGETS, "owner", "default", propagation="Foreground")
    assert marked["metadata"]["finalizers"] == ["foregroundDeletion"]
    held = await changed(client, WIDGETS, "child", kind="MODIFIED", since=since)
    assert held["metadata"]["deletionTimestamp"]
    await client.get(WIDGETS, "owner", "default")
    await client.patch(WIDGETS, "child", {"metadata": {"finalizers": None}}, "default")
    await changed(client, WIDGETS, "owner", kind="DELETED", since=since)


async def test_orphans_stay(client: LocalClient) -> None:
    owner = await client.create(WIDGETS, widget("owner"), "default")
    await client.create(WIDGETS, widget("child", owner), "default")
    since = await version(client)
    await client.delete(WIDGETS, "owner", "default", propagation="Orphan")
    await changed(client, WIDGETS, "owner", kind="DELETED", since=since)
    assert "ownerReferences" not in (await client.get(WIDGETS, "child", "default"))["metadata"]


async def test_an_object_of_an_owner_that_never_was_goes(client: LocalClient) -> None:
    since = await version(client)
    nobody = {"metadata": {"name": "nobody", "uid": "00000000-0000-0000-0000-000000000000"}}
    await client.create(WIDGETS, widget("child", nobody), "default")
    await changed(client, WIDGETS, "child", kind="DELETED", since=since)


async def test_what_was_left_behind_by_a_stop_goes_at_the_next_start(
    tmp_path: Path, definition: dict[str, Any]
) -> None:
    config = ServerConfig(state_db=tmp_path / "state.db", pki=tmp_path / "pki", listen=False)
    first = ApiServer(config, crds=[definition])
    await first.start()
    client = first.client()
    owner = await client.create(WIDGETS, widget("owner"), "default")
    await client.create(WIDGETS, widget("child", owner), "default")
    for keeper in first._keepers:
        await keeper.stop()
    await client.delete(WIDGETS, "owner", "default")
    await first.stop()

    second = ApiServer(config, crds=[definition])
    await second.start()
    client = second.client()
    since = await version(client)
    if (await client.list(WIDGETS))["items"]:
        await changed(client, WIDGETS, "child", kind="DELETED", since=since)
    await second.stop()


# -- namespaces


async def _space(client: LocalClient, name: str) -> None:
    await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})


async def test_a_namespace_is_furnished(client: LocalClient) -> None:
    since = await version(client)
    await _space(client, "team")
    await changed(client, SERVICE_ACCOUNTS, "default", kind="ADDED", since=since)
    trust = await changed(client, CONFIG_MAPS, "kube-root-ca.crt", kind="ADDED", since=since)
    assert "BEGIN CERTIFICATE" in trust["data"]["ca.crt"]


async def test_a_deleted_namespace_empties_itself_and_waits_for_what_is_held(client: LocalClient) -> None:
    await _space(client, "team")
    await client.create(WIDGETS, widget("plain"), "team")
    await client.create(WIDGETS, widget("held", finalizers=("example.com/hold",)), "team")
    since = await version(client)
    gone = await client.delete(NAMESPACES, "team")
    assert gone["status"]["phase"] == "Terminating"
    with pytest.raises(Forbidden, match="because it is being terminated"):
        await client.create(WIDGETS, widget("late"), "team")
    await changed(client, WIDGETS, "plain", kind="DELETED", since=since)
    await client.get(NAMESPACES, "team")
    held = await client.get(WIDGETS, "held", "team")
    if not held["metadata"].get("deletionTimestamp"):
        await changed(client, WIDGETS, "held", kind="MODIFIED", since=since)
    await client.patch(WIDGETS, "held", {"metadata": {"finalizers": None}}, "team")
    await changed(client, NAMESPACES, "team", kind="DELETED", since=since)


# -- events


async def test_events_expire_after_their_last_write(server: ApiServer, client: LocalClient) -> None:
    keeper = expiry.EventExpiry(server.verbs, SERVER_USER, kept=0.05)
    keeper.start()
    event = {"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "message": "x"}
    since = await version(client)
    await client.create(EVENTS, event, "default")
    await changed(client, EVENTS, "e", kind="DELETED", since=since)
    await keeper.stop()


async def test_of_an_event_that_was_written_again_or_deleted_one_end_or_none_is_waited_for(
    server: ApiServer, client: LocalClient
) -> None:
    keeper = expiry.EventExpiry(server.verbs, SERVER_USER)
    keeper.start()
    before = len(keeper)
    await client.create(EVENTS, {"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}}, "default")
    for count in range(2, 5):
        await client.patch(EVENTS, "e", {"count": count}, "default")
    assert len(keeper) == before + 1
    await client.delete(EVENTS, "e", "default")
    assert len(keeper) == before
    await keeper.stop()


async def test_keepers_go_on_after_a_failure(server: ApiServer, client: LocalClient, monkeypatch: Any) -> None:
    delete, failures = server.verbs.delete, iter([True])

    async def flaky(*args: Any) -> Any:
        if args[0].user == SERVER_USER and next(failures, False):
            raise ApiError("not now")
        return await delete(*args)

    owner = await client.create(WIDGETS, widget("owner"), "default")
    await client.create(WIDGETS, widget("child", owner), "default")
    since = await version(client)
    await server.client().delete(WIDGETS, "owner", "default")
    monkeypatch.setattr(server.verbs, "delete", flaky)
    await changed(client, WIDGETS, "child", kind="DELETED", since=since)
    with pytest.raises(NotFound):
        await client.get(WIDGETS, "child", "default")
