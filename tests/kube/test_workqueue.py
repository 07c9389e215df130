"""Dedup, exclusion while a key is worked on, back-off, priorities. Time is looptime's: nothing sleeps."""

import asyncio

import pytest

from hotvirt.kube.backoff import Backoff
from hotvirt.kube.workqueue import RELIST, TokenBucket, WorkQueue

pytestmark = pytest.mark.looptime


async def test_a_key_added_often_is_handed_out_once():
    queue = WorkQueue()
    for _ in range(5):
        queue.add("a")
    assert await queue.get() == "a"
    assert queue.counters.depth == 0


async def test_a_key_under_way_comes_again_only_when_done():
    queue = WorkQueue()
    queue.add("a")
    await queue.get()
    queue.add("a")
    queue.add("a")
    assert (queue.counters.depth, queue.counters.unfinished) == (0, 1)
    queue.done("a")
    assert await queue.get() == "a"
    queue.done("a")
    assert queue.counters.depth == 0


async def test_live_events_go_before_a_relist_and_lift_a_key_out_of_it():
    queue = WorkQueue()
    for key in "abc":
        queue.add(key, priority=RELIST)
    queue.add("d")
    queue.add("c")
    assert [await queue.get() for _ in range(4)] == ["d", "c", "a", "b"]
    assert queue.counters.depth == 0


async def test_waiting_getters_are_served_in_turn_and_a_cancelled_one_loses_nothing():
    queue = WorkQueue()
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()
    assert await second == "a"
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_failures_wait_twice_as_long_each_time_until_forgotten():
    queue, loop = WorkQueue(backoff=Backoff(base=1, cap=5)), asyncio.get_running_loop()
    waits = []
    for _ in range(5):
        began = loop.time()
        queue.add_rate_limited("a")
        await queue.get()
        queue.done("a")
        waits.append(round(loop.time() - began))
    assert waits == [1, 2, 4, 5, 5]
    queue.forget("a")
    assert queue.add_rate_limited("a") == 1
    queue.close()


async def test_retries_of_all_keys_together_are_bounded():
    queue = WorkQueue(backoff=Backoff(base=0.001, cap=1), rate=10, burst=2)
    assert [round(queue.add_rate_limited(n), 3) for n in range(4)] == [0.001, 0.001, 0.1, 0.2]
    queue.close()


async def test_of_several_delays_the_earliest_counts():
    queue, loop = WorkQueue(), asyncio.get_running_loop()
    began = loop.time()
    queue.add_after("a", 10)
    queue.add_after("a", 3)
    queue.add_after("a", 20)
    assert queue.counters.waiting == 1
    await queue.get()
    queue.done("a")
    assert loop.time() - began == 3
    assert queue.counters.waiting == 0


async def test_a_bucket_loses_nothing_when_its_clock_is_set_back():
    now = [100.0]
    bucket = TokenBucket(rate=1, burst=2, time=lambda: now[0])
    now[0] = 10.0
    assert bucket.take()


async def test_a_bucket_refills_with_time():
    now = [0.0]
    bucket = TokenBucket(rate=1, burst=2, time=lambda: now[0])
    assert [bucket.take() for _ in range(3)] == [True, True, False]
    now[0] = 1.0
    assert bucket.take()


def test_a_backoff_of_ages_does_not_overflow():
    assert Backoff(base=1, cap=30).delay(10_000) == 30
    assert Backoff(base=1, cap=30, jitter=0.5).delay(1, lambda: 1.0) == 1.5
