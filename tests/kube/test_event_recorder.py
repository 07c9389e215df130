"""Events are counted, bounded, and never in anybody's way."""

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from hotvirt.kube import events
from hotvirt.kube.errors import InternalError
from hotvirt.kube.events import Recorder
from hotvirt.kube.resources import EVENTS

pytestmark = pytest.mark.looptime
VM = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine",
      "metadata": {"name": "web", "namespace": "default", "uid": "u1", "resourceVersion": "7"}}  # fmt: skip


class Now:
    def __init__(self):
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self):
        return self.time


@asynccontextmanager
async def recording(recorder):
    task = asyncio.create_task(recorder.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_same_event_is_counted_instead_of_repeated(api):
    now = Now()
    recorder = Recorder(api, "virtualmachine-controller", clock=now)
    async with recording(recorder):
        recorder.event(VM, "Normal", "SuccessfulCreate", "Started it")
        await asyncio.sleep(1)
        now.time += timedelta(minutes=1)
        for _ in range(3):
            recorder.event(VM, "Normal", "SuccessfulCreate", "Started it")
        await asyncio.sleep(1)
    [event] = api.all(EVENTS)
    assert event["count"] == 4
    assert event["firstTimestamp"] == "2026-01-01T00:00:00Z"
    assert event["lastTimestamp"] == "2026-01-01T00:01:00Z"
    assert event["involvedObject"] == {
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "name": "web", "namespace": "default", "uid": "u1",
        "resourceVersion": "7",
    }  # fmt: skip
    assert event["source"] == {"component": "virtualmachine-controller"}
    assert len(api.writes) == 2


async def test_an_event_that_aged_out_is_made_anew(api):
    recorder = Recorder(api, "c", clock=Now())
    async with recording(recorder):
        recorder.event(VM, "Warning", "FailedCreate", "no")
        await asyncio.sleep(1)
        await api.delete(EVENTS, api.all(EVENTS)[0]["metadata"]["name"])
        recorder.event(VM, "Warning", "FailedCreate", "no")
        await asyncio.sleep(1)
    assert [e["count"] for e in api.all(EVENTS)] == [1]


async def test_a_source_that_says_too_much_is_cut_off_and_let_in_later(api):
    now = Now()
    recorder = Recorder(api, "c", clock=now)
    async with recording(recorder):
        for number in range(40):
            recorder.event(VM, "Warning", "SyncFailed", f"fault {number}")
        await asyncio.sleep(1)
        assert len(api.all(EVENTS)) == 25
        assert recorder.dropped == 15
        now.time += timedelta(minutes=5)
        recorder.event(VM, "Warning", "SyncFailed", "fault later")
        await asyncio.sleep(1)
        assert len(api.all(EVENTS)) == 26


async def test_what_cannot_be_written_is_dropped_and_the_next_is_written(api):
    recorder = Recorder(api, "c", clock=Now())
    api.refuse = [InternalError("disk full")]
    async with recording(recorder):
        recorder.event(VM, "Normal", "A", "a")
        recorder.event(VM, "Normal", "B", "b")
        await asyncio.sleep(1)
    assert [e["reason"] for e in api.all(EVENTS)] == ["B"]


async def test_what_was_said_is_forgotten_when_the_api_has_forgotten_it(api):
    now = Now()
    recorder = Recorder(api, "c", clock=now)
    async with recording(recorder):
        for number in range(50):
            about = {**VM, "metadata": {**VM["metadata"], "uid": f"u{number}"}}
            recorder.event(about, "Normal", "SuccessfulCreate", "Started it")
        await asyncio.sleep(1)
        assert recorder.remembered == 100
        now.time += timedelta(hours=3)
        recorder.event(VM, "Normal", "SuccessfulCreate", "Started it")
        await asyncio.sleep(1)
    assert recorder.remembered == 2


async def test_what_is_remembered_has_a_bound(api, monkeypatch):
    monkeypatch.setattr(events, "REMEMBERED", 10)
    recorder = Recorder(api, "c", clock=Now())
    async with recording(recorder):
        for number in range(30):
            about = {**VM, "metadata": {**VM["metadata"], "uid": f"u{number}"}}
            recorder.event(about, "Normal", "SuccessfulCreate", "Started it")
        await asyncio.sleep(1)
    assert recorder.remembered == 20
