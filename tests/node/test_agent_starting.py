"""A guest's start as the node agent tells it: QEMU that takes its time is waited for, and one that died has failed."""

import asyncio
import importlib.util
import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec import json

from hotvirt.kube import conditions
from hotvirt.kube.errors import Unreachable
from hotvirt.kube.events import Recorder
from hotvirt.kube.informer import SharedInformers
from hotvirt.kube.reconciler import DONE
from hotvirt.kube.resources import EVENTS, PODS, VMIS
from hotvirt.node import agent as agents
from hotvirt.node.places import Places
from hotvirt.qemu.errors import QemuGone, QemuTimeout
from hotvirt.qemu.process import Identity, identify

_path = Path(__file__).parents[1] / "kube" / "memory_api.py"
_spec = importlib.util.spec_from_file_location("memory_api_of_agent", _path)
memory_api = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(memory_api)

pytestmark = pytest.mark.looptime
FACTS = SimpleNamespace(node_name="one", acceleration=SimpleNamespace(kind="tcg"), emulates=True, cpus=2)


class World:
    """An instance on this node, whose pod's process is this one; connecting to QEMU raises `answer`."""

    def __init__(self, directory, monkeypatch, answer):
        self.api, self.started, self.answer = memory_api.MemoryApi(), [], answer
        places = Places(directory / "pods", directory / "images", directory / "volumes")
        self.place = places.pod("p-1")
        self.place.prepare()
        self.place.pid.write_bytes(json.encode(identify(os.getpid())))
        self.place.launch.touch()

        async def start(vmi, place, **_):
            self.started.append(vmi["metadata"]["name"])
            place.launch.unlink()
            place.qmp.touch()

        async def connect(place, **_):
            raise self.answer

        monkeypatch.setattr(agents.start, "start", start)
        monkeypatch.setattr(agents.Guest, "connect", connect)
        informers = SharedInformers(self.api)
        recorder = Recorder(self.api, "test")
        self.agent = agents.NodeAgent(
            self.api, informers, facts=FACTS, places=places, network=None, recorder=recorder,
            clock=lambda: datetime(2026, 1, 1, tzinfo=UTC),
        )  # fmt: skip
        self._run = (informers.run, recorder.run, self.agent.controller.run)

    async def __aenter__(self):
        pod = {"metadata": {"name": "launcher"}, "spec": {}}
        made = await self.api.create(PODS, pod)
        made["metadata"]["uid"] = "p-1"
        await self.api.patch(PODS, "launcher", {"status": {"podIP": "10.0.0.2"}}, subresource="status")
        status = {"phase": "Scheduled", "activePods": {"p-1": "one"}, "conditions": []}
        domain = {"devices": {}}
        await self.api.create(VMIS, {"metadata": {"name": "web"}, "spec": {"domain": domain}, "status": status})
        self._tasks = [asyncio.create_task(run()) for run in self._run]
        return self

    async def __aexit__(self, *_):
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task

    @property
    def vmi(self):
        return self.api.find(VMIS, "web")


async def test_a_qemu_that_takes_its_time_is_waited_for_and_started_once(tmp_path, monkeypatch):
    async with World(tmp_path, monkeypatch, QemuTimeout("no greeting")) as world:
        await asyncio.sleep(8)
        assert world.started == ["web"]
        assert world.vmi["status"]["phase"] == "Scheduled"
        found = conditions.of(world.vmi, "Synchronized")
        assert (found["status"], found["reason"]) == ("False", "QemuSilent")
        assert "does not answer yet" in found["message"]
        writes = len(world.api.writes)
        await asyncio.sleep(60)
        assert len(world.api.writes) == writes
        world.place.pid.write_bytes(json.encode(Identity(1 << 22, 1)))
        world.answer = QemuGone("nobody answers")
        await asyncio.sleep(6)
        assert world.vmi["status"]["phase"] == "Failed"
        assert conditions.of(world.vmi, "Synchronized")["reason"] == "QemuEnded"
        assert world.started == ["web"]


@pytest.mark.parametrize("error", [QemuTimeout("no greeting"), QemuGone("nobody answers")])
async def test_a_qemu_that_died_has_failed_at_once(tmp_path, monkeypatch, error):
    world = World(tmp_path, monkeypatch, error)
    lives = iter([True, False, False])  # it is there to be started, and then is not
    monkeypatch.setattr(world.agent, "_lives", lambda _: next(lives))
    async with world:
        await asyncio.sleep(1)
        assert world.vmi["status"]["phase"] == "Failed"
        assert [e["reason"] for e in world.api.all(EVENTS) if e["type"] == "Warning"] == ["Stopped"]


@pytest.mark.parametrize("error", [ValueError("what is this?"), OSError(28, "No space left on device")])
async def test_an_error_that_nobody_thought_of_is_told_and_tried_again(tmp_path, monkeypatch, error):
    world = World(tmp_path, monkeypatch, QemuTimeout("no greeting"))
    works = agents.start.start

    async def broken(*_, **__):
        raise error

    monkeypatch.setattr(agents.start, "start", broken)
    async with world:
        await asyncio.sleep(1)
        found = conditions.of(world.vmi, "Synchronized")
        assert (found["status"], found["reason"]) == ("False", "FailedStart")
        assert str(error) in found["message"]
        assert [e["message"] for e in world.api.all(EVENTS) if e["type"] == "Warning"] == [found["message"]]
        assert world.vmi["status"]["phase"] == "Scheduled"
        monkeypatch.setattr(agents.start, "start", works)
        await asyncio.sleep(30)
        assert world.started == ["web"]


async def test_an_api_that_is_away_is_no_error_of_ours(tmp_path, monkeypatch):
    world = World(tmp_path, monkeypatch, QemuTimeout("no greeting"))

    async def refused(*_, **__):
        raise Unreachable("nobody listens")

    monkeypatch.setattr(agents.start, "start", refused)
    async with world:
        await asyncio.sleep(1)
        assert conditions.of(world.vmi, "Synchronized") is None


@pytest.mark.parametrize(("strategy", "taken"), [(None, ["looked at", "waits its turn"]), ("Paused", ["looked at"])])
async def test_a_guest_waits_its_turn_to_boot_only_once_its_vmi_was_told_of_it(tmp_path, monkeypatch, strategy, taken):
    world, steps = World(tmp_path, monkeypatch, QemuTimeout("no greeting")), []
    guest = SimpleNamespace(view=None, uid="p-1")

    async def connect(*_, **__):
        return guest

    async def resume(*_):
        return None

    async def look_after(key, vmi, found):
        assert found is guest
        steps.append("looked at")
        return DONE

    monkeypatch.setattr(agents.Guest, "connect", connect)
    monkeypatch.setattr(agents.keptmemory, "resume", resume)
    monkeypatch.setattr(world.agent, "_look_after", look_after)
    monkeypatch.setattr(world.agent._boots, "began", lambda *_, **__: steps.append("waits its turn"))
    async with world:
        if strategy:
            await world.api.patch(VMIS, "web", {"spec": {"startStrategy": strategy}})
        await asyncio.sleep(1)
    assert steps[: len(taken)] == taken
    assert ("waits its turn" in steps) is ("waits its turn" in taken)
