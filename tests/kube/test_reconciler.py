"""What a controller makes of success, failure, conflict and changes under way."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from hotvirt.kube.backoff import Backoff
from hotvirt.kube.errors import Conflict, InternalError, TooManyRequests
from hotvirt.kube.informer import Informer, Key
from hotvirt.kube.reconciler import DONE, Controller, Result, TerminalError, owner
from hotvirt.kube.resources import CONFIG_MAPS
from hotvirt.kube.workqueue import WorkQueue

pytestmark = pytest.mark.looptime
A = Key("default", "a")


@asynccontextmanager
async def controlling(api, reconcile, **kwargs):
    informer = Informer(api, CONFIG_MAPS)
    controller = Controller("test", reconcile, queue=WorkQueue(backoff=Backoff(base=1, cap=100)), **kwargs)
    controller.watch(informer)
    tasks = [asyncio.create_task(informer.run()), asyncio.create_task(controller.run())]
    try:
        await asyncio.sleep(0.01)
        yield controller
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def failing_with(api, error):
    """The times at which a reconcile ran that failed three times with `error`."""
    loop, times = asyncio.get_running_loop(), []
    began = loop.time()

    async def reconcile(key):
        times.append(round(loop.time() - began))
        if len(times) < 4:
            raise error
        return DONE

    await api.create(CONFIG_MAPS, {"metadata": {"name": "a"}})
    async with controlling(api, reconcile) as controller:
        await asyncio.sleep(1000)
        assert controller.queue.failures(A) == 0
    return times


@pytest.mark.parametrize(
    ("error", "times"),
    [
        (Conflict("again"), [0, 1, 3, 7]),
        (InternalError("oh"), [0, 1, 3, 7]),
        (ValueError("a fault of ours"), [0, 1, 3, 7]),
        (TooManyRequests("slow down", retry_after=9), [0, 9, 18, 27]),
        (TerminalError("hopeless"), [0]),
    ],
    ids=["conflict", "api", "bug", "throttled", "terminal"],
)
async def test_a_failure_is_tried_again_ever_later_unless_terminal(api, error, times):
    assert await failing_with(api, error) == times


async def test_requeue_after_comes_back_without_any_event(api):
    loop, times = asyncio.get_running_loop(), []

    async def reconcile(key):
        times.append(round(loop.time()))
        return Result(requeue_after=60)

    await api.create(CONFIG_MAPS, {"metadata": {"name": "a"}})
    async with controlling(api, reconcile):
        await asyncio.sleep(150)
    assert len(times) == 3


async def test_one_worker_a_key_and_many_keys_at_once(api):
    running, most = set(), 0

    async def reconcile(key):
        nonlocal most
        assert key not in running
        running.add(key)
        most = max(most, len(running))
        await asyncio.sleep(1)
        running.remove(key)
        return DONE

    for name in "abcdef":
        await api.create(CONFIG_MAPS, {"metadata": {"name": name}})
    async with controlling(api, reconcile, workers=3):
        for number in range(4):
            await api.patch(CONFIG_MAPS, "a", {"data": {"n": str(number)}})
            await asyncio.sleep(0.3)
        await asyncio.sleep(5)
    assert most == 3


def test_objects_are_mapped_to_the_owner_that_controls_them():
    def pod(**reference):
        return {"metadata": {"name": "p", "namespace": "ns", "ownerReferences": [reference]}}

    mapper = owner("VirtualMachineInstance")
    vmi = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "name": "web"}
    assert list(mapper(pod(**vmi, controller=True))) == [Key("ns", "web")]
    assert list(mapper(pod(**vmi))) == []
    assert list(mapper(pod(**{**vmi, "apiVersion": "example.com/v1"}, controller=True))) == []
    assert list(mapper({"metadata": {"name": "p"}})) == []
