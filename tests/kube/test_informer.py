"""The cache follows the API through hang-ups, compaction and outages, and tells each change once."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from hotvirt.kube.errors import Forbidden
from hotvirt.kube.informer import Informer, SharedInformers
from hotvirt.kube.resources import CONFIG_MAPS, PODS

pytestmark = pytest.mark.looptime


def named(name, **fields):
    return {"metadata": {"name": name, "namespace": "default", **fields}}


@asynccontextmanager
async def running(informer):
    task = asyncio.create_task(informer.run())
    try:
        await informer.synced()
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


async def test_lists_then_follows(api):
    await api.create(CONFIG_MAPS, named("a"))
    informer, seen = Informer(api, CONFIG_MAPS), []
    informer.add_handler(lambda c: seen.append((c.type, c.object["metadata"]["name"], c.relisted)))
    async with running(informer):
        await api.create(CONFIG_MAPS, named("b"))
        await api.patch(CONFIG_MAPS, "b", {"data": {"x": "1"}})
        await api.delete(CONFIG_MAPS, "a")
        await settle()
        assert seen == [("ADDED", "a", True), ("ADDED", "b", False), ("MODIFIED", "b", False), ("DELETED", "a", False)]
        assert informer.get("a", "default") is None
        assert informer.get("b", "default")["data"] == {"x": "1"}
        assert api.lists["configmaps"] == 1


async def test_a_closed_stream_goes_on_without_a_list(api):
    informer = Informer(api, CONFIG_MAPS)
    async with running(informer):
        await api.create(CONFIG_MAPS, named("a"))
        await settle()
        api.hang_up()
        await asyncio.sleep(1)
        await api.create(CONFIG_MAPS, named("b"))
        await settle()
        assert len(informer) == 2
        assert (api.lists["configmaps"], api.watches["configmaps"]) == (1, 2)


async def test_after_compaction_it_lists_again_and_tells_only_what_differs(api):
    await api.create(CONFIG_MAPS, named("gone"))
    await api.create(CONFIG_MAPS, named("same"))
    informer, seen = Informer(api, CONFIG_MAPS), []
    async with running(informer):
        await settle()
        api.down = True
        api.hang_up()
        await asyncio.sleep(5)
        api.down = False
        await api.delete(CONFIG_MAPS, "gone")
        await api.create(CONFIG_MAPS, named("new"))
        api.compact()
        seen.clear()
        informer.add_handler(lambda c: seen.append((c.type, c.object["metadata"]["name"], c.relisted)))
        seen.clear()
        await asyncio.sleep(60)
        assert seen == [("DELETED", "gone", True), ("ADDED", "new", True)]
        assert api.lists["configmaps"] == 2


async def test_an_unreachable_or_refusing_server_is_asked_ever_more_rarely(api):
    api.refuse = [Forbidden("no")] * 5
    api.down = False
    informer, loop = Informer(api, CONFIG_MAPS, draw=lambda: 0.0), asyncio.get_running_loop()
    began = loop.time()
    async with running(informer):
        assert loop.time() - began == pytest.approx(0.2 + 0.4 + 0.8 + 1.6 + 3.2)


async def test_a_server_that_hangs_up_at_once_is_not_asked_without_pause(api):
    informer = Informer(api, CONFIG_MAPS, draw=lambda: 0.0)

    async def closes(*args, **kwargs):
        api.watches["configmaps"] += 1
        return
        yield

    api.watch = closes
    async with running(informer):
        await asyncio.sleep(60)
        assert api.watches["configmaps"] < 12


async def test_indexes_follow_changes(api):
    informer = Informer(api, PODS, indexes={"node": lambda o: [n] if (n := o.get("spec", {}).get("nodeName")) else []})
    async with running(informer):
        await api.create(PODS, named("a") | {"spec": {}})
        await api.create(PODS, named("b") | {"spec": {"nodeName": "one"}})
        await settle()
        assert [o["metadata"]["name"] for o in informer.by_index("node", "one")] == ["b"]
        await api.patch(PODS, "a", {"spec": {"nodeName": "one"}})
        await api.patch(PODS, "b", {"spec": {"nodeName": "two"}})
        await settle()
        assert [o["metadata"]["name"] for o in informer.by_index("node", "one")] == ["a"]
        informer.add_index("name", lambda o: [o["metadata"]["name"]])
        await api.delete(PODS, "b")
        await settle()
        assert informer.by_index("node", "two") == []
        assert len(informer.by_index("name", "a")) == 1


async def test_an_object_that_an_index_cannot_make_sense_of_keeps_no_other_from_being_seen(api):
    await api.create(PODS, named("bad") | {"spec": {}})
    await api.create(PODS, named("good") | {"spec": {"nodeName": "one"}})
    informer = Informer(api, PODS, indexes={"node": lambda o: [o["spec"]["nodeName"]]})
    async with asyncio.timeout(5), running(informer):
        assert informer.get("bad", "default") is not None
        await api.patch(PODS, "bad", {"spec": {"nodeName": "one"}})
        await settle()
        assert [o["metadata"]["name"] for o in informer.by_index("node", "one")] == ["good", "bad"]
        await api.patch(PODS, "bad", {"spec": {"nodeName": None}})
        await settle()
        assert [o["metadata"]["name"] for o in informer.by_index("node", "one")] == ["good"]


async def test_own_writes_are_seen_at_once_and_never_undone_by_older_news(api):
    informer, seen = Informer(api, CONFIG_MAPS), []
    await api.create(CONFIG_MAPS, named("a"))
    informer.add_handler(lambda c: seen.append((c.type, c.object.get("data"))))
    async with running(informer):
        await settle()
        await api.patch(CONFIG_MAPS, "a", {"data": {"x": "1"}})
        informer.observe(await api.patch(CONFIG_MAPS, "a", {"data": {"x": "2"}}))
        assert informer.get("a", "default")["data"] == {"x": "2"}
        await settle()
        assert seen == [("ADDED", None), ("MODIFIED", {"x": "2"})]


async def test_an_answer_that_comes_after_the_deletion_does_not_bring_it_back(api):
    informer = Informer(api, CONFIG_MAPS)
    async with running(informer):
        made = await api.create(CONFIG_MAPS, named("a"))
        await api.delete(CONFIG_MAPS, "a")
        await settle()
        informer.observe(made)
        assert informer.get("a", "default") is None


async def test_a_failing_handler_does_not_stop_the_others(api, caplog):
    informer, seen = Informer(api, CONFIG_MAPS), []
    informer.add_handler(lambda c: 1 / 0)
    informer.add_handler(seen.append)
    async with running(informer):
        await api.create(CONFIG_MAPS, named("a"))
        await settle()
        assert len(seen) == 1
    assert "a handler failed on default/a" in caplog.text


async def test_shared_informers_are_one_for_each_resource(api):
    informers = SharedInformers(api)
    assert informers.of(PODS) is informers.of(PODS)
    assert informers.of(PODS) is not informers.of(PODS, label_selector="a=b")
