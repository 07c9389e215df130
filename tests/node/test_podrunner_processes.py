"""Launcher pods and their processes, real receivers: begun once, adopted, gone with their pod, whoever died when."""

import asyncio
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hotvirt.kube.informer import Key, SharedInformers
from hotvirt.kube.resources import PODS
from hotvirt.node import podprocess
from hotvirt.node.cgroups import Cgroups
from hotvirt.node.network import UserNetwork
from hotvirt.node.places import Places
from hotvirt.node.podprocess import read_identity
from hotvirt.node.podrunner import PodRunner
from hotvirt.qemu import launch
from hotvirt.qemu.process import alive

_path = Path(__file__).parents[1] / "kube" / "memory_api.py"
_spec = importlib.util.spec_from_file_location("memory_api_of_pods", _path)
memory_api = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(memory_api)


def pod(name="virt-launcher-web-abcde", *, node="here", launcher=True, **metadata):
    return {
        "metadata": {"name": name, "labels": {"kubevirt.io": "virt-launcher"} if launcher else {}, **metadata},
        "spec": {"nodeName": node, "containers": [{"name": "compute", "image": "hotvirt/launcher"}]},
    }


class World:
    """What outlives a home: the API, the directories, the processes."""

    def __init__(self, directory):
        self.api = memory_api.MemoryApi()
        self.places = Places(directory / "pods", directory / "images", directory / "volumes")
        self.places.pods.mkdir()
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    async def make(self, **settings):
        return (await self.api.create(PODS, pod(**settings)))["metadata"]["uid"]

    def status(self, name="virt-launcher-web-abcde"):
        return (self.api.find(PODS, name) or {}).get("status") or {}

    def process(self, uid):
        return read_identity(self.places.pod(uid).pid)

    def directories(self):
        return [each.name for each in self.places.pods.iterdir()]

    @asynccontextmanager
    async def home(self, **tend):
        informers = SharedInformers(self.api)
        runner = PodRunner(
            self.api, informers.of(PODS), node="here", places=self.places, network=UserNetwork(),
            cgroups=Cgroups(None), clock=lambda: self.now,
        )  # fmt: skip
        tasks = [asyncio.create_task(informers.run())]
        await informers.of(PODS).synced()
        await runner.sweep()
        tasks += [asyncio.create_task(each) for each in (runner.controller.run(), runner.tend(**tend))]
        try:
            yield runner
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def until(self, holds):
        async with asyncio.timeout(15):
            while not holds():
                await asyncio.sleep(0.01)

    async def running(self, name="virt-launcher-web-abcde"):
        await self.until(lambda: self.status(name).get("phase") == "Running")


@pytest.fixture
def world():
    # Short: unix sockets lie below.
    directory = Path(tempfile.mkdtemp(prefix="hvp-", dir="/tmp"))
    made = World(directory)
    yield made
    for each in made.directories():
        identity = made.process(each)
        if identity is not None and alive(identity):
            os.kill(identity.pid, signal.SIGKILL)
    shutil.rmtree(directory)


async def test_a_pod_of_this_node_runs_after_one_write(world):
    async with world.home():
        uid = await world.make()
        await world.running()
        assert world.status()["podIP"] == "127.64.0.2"
        assert alive(world.process(uid))
        assert world.places.pod(uid).launch.is_socket()
        await world.make(name="virt-launcher-db-fghij")
        await world.running("virt-launcher-db-fghij")
        assert world.status("virt-launcher-db-fghij")["podIP"] == "127.64.0.3"
    assert world.api.count("patch", "pods") == 2


async def test_pods_that_are_not_ours_to_run(world):
    async with world.home():
        await world.make(name="elsewhere", node="there")
        await world.make(name="nginx", launcher=False)
        await world.until(lambda: world.status("nginx").get("phase") == "Failed")
        assert "run containers in a Kubernetes cluster" in world.status("nginx")["message"]
    assert world.status("elsewhere") == {}
    assert world.directories() == []


async def test_a_process_that_dies_is_its_pods_end(world):
    async with world.home():
        uid = await world.make()
        await world.running()
        os.kill(world.process(uid).pid, signal.SIGKILL)
        await world.until(lambda: world.status()["phase"] == "Failed")
    ended = world.status()["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["signal"]) == (137, 9)


async def test_a_home_that_starts_again_takes_over_what_runs(world):
    async with world.home():
        uid = await world.make()
        await world.running()
    before, writes = world.process(uid), world.api.count()
    async with world.home() as runner:
        await world.until(lambda: uid in runner._running)
        assert world.process(uid) == before
        assert world.api.count() == writes
        os.kill(before.pid, signal.SIGKILL)
        await world.until(lambda: world.status()["phase"] == "Failed")


async def test_a_process_that_ended_while_no_home_was_there_is_not_started_a_second_time(world):
    async with world.home():
        uid = await world.make()
        await world.running()
    identity = world.process(uid)
    os.kill(identity.pid, signal.SIGKILL)
    await world.until(lambda: not alive(identity))
    async with world.home():
        await world.until(lambda: world.status()["phase"] == "Failed")
    assert world.process(uid) == identity


async def test_a_home_that_died_between_start_and_note_does_not_leave_two(world):
    async with world.home():
        uid = await world.make()
        await world.running()
    lost = world.process(uid)
    world.places.pod(uid).pid.unlink()
    await world.api.patch(PODS, "virt-launcher-web-abcde", {"status": {"phase": "Pending"}}, subresource="status")
    async with world.home():
        await world.running()
        await world.until(lambda: not alive(lost))  # it was killed, and takes its time on a busy machine
        assert alive(world.process(uid))
        assert world.process(uid) != lost


@pytest.mark.parametrize("while_away", [False, True], ids=["seen", "while the home was away"])
async def test_what_a_deleted_pod_had_goes(world, while_away):
    async with world.home():
        uid = await world.make()
        await world.running()
        identity = world.process(uid)
        if not while_away:
            await world.api.delete(PODS, "virt-launcher-web-abcde", "default")
            await world.until(lambda: not world.directories())
    if while_away:
        await world.api.delete(PODS, "virt-launcher-web-abcde", "default")
        async with world.home():
            await world.until(lambda: not world.directories())
    assert not alive(identity)


@pytest.mark.parametrize("has_guest", [False, True])
async def test_a_pod_that_is_to_go_does_so_at_its_deadline_or_at_once_without_a_guest(world, has_guest):
    """The home's clock stands at the start of 2026; the API sets the deadline ten minutes later."""
    async with world.home() as runner:
        uid = await world.make(finalizers=["test/keep"])
        await world.running()
        identity = world.process(uid)
        if has_guest:
            world.places.pod(uid).qmp.touch()
        await world.api.delete(PODS, "virt-launcher-web-abcde", "default")
        if has_guest:
            await world.until(lambda: runner.controller.queue.counters.waiting)
            assert alive(identity)
            world.now += timedelta(minutes=10)
            runner.controller.queue.add(Key("default", "virt-launcher-web-abcde"))
        await world.until(lambda: not world.directories())
    assert not alive(identity)
    assert world.status()["phase"] in ("Failed", "Succeeded")


async def cut_log(world):
    """Of a pod whose QEMU prints much, once it is short again."""
    uid = await world.make()
    await world.running()
    log = world.places.pod(uid).log
    log.write_bytes(b"virtio: bogus descriptor\n" * 20_000)
    await world.until(lambda: log.stat().st_size < 200_000)
    return log


async def test_what_qemu_prints_is_kept_short(world):
    async with world.home(every=0.02):
        log = await cut_log(world)
        assert log.read_bytes().startswith(b"virtio: bogus")


@pytest.mark.parametrize("at_start", [False, True], ids=["while a home runs", "as a home starts"])
async def test_what_could_not_be_cleaned_up_is_tried_again_and_keeps_no_other_pod(world, monkeypatch, at_start):
    """Such as where the pod's last process ended by itself in the moment in which it was to be killed."""
    release, failures = UserNetwork.release, []

    async def fails_once(self, uid):
        if not failures:
            failures.append(uid)
            raise ProcessLookupError(3, "No such process")
        await release(self, uid)

    if not at_start:
        monkeypatch.setattr(UserNetwork, "release", fails_once)
    async with world.home():
        uid = await world.make()
        await world.running()
        if not at_start:
            await world.api.delete(PODS, "virt-launcher-web-abcde", "default")
            await world.until(lambda: not world.directories())
    if at_start:
        monkeypatch.setattr(UserNetwork, "release", fails_once)
        await world.api.delete(PODS, "virt-launcher-web-abcde", "default")
        async with world.home():
            await world.make(name="virt-launcher-other-abcde")
            await world.running("virt-launcher-other-abcde")
    assert failures == [uid]


def test_a_process_that_ends_in_the_moment_it_is_to_be_killed_is_no_error(tmp_path, monkeypatch):
    place = Places(tmp_path, tmp_path, tmp_path).pod("uid")
    gone = subprocess.Popen(["true"])
    gone.wait()
    monkeypatch.setattr(podprocess, "holders", lambda *_args, **_named: [gone.pid])
    podprocess.end_holders(place)


async def test_a_log_that_cannot_be_cut_has_no_guest_let_go(world, monkeypatch):
    trim, tried = launch.trim_log, []

    def full(path, *limit):
        tried.append(path)
        if len(tried) == 1:
            raise OSError(28, "No space left on device")
        trim(path, *limit)

    monkeypatch.setattr(launch, "trim_log", full)
    async with world.home(every=0.02):
        await cut_log(world)
