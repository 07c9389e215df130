"""Memory dumps of VMs, phase by phase; taken up by the next home wherever the last one stopped."""

import asyncio
import contextlib
import os
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from hotvirt.kube.errors import Conflict
from hotvirt.kube.informer import Key
from hotvirt.node import memorydump
from hotvirt.node.memorydump import MemoryDumps
from hotvirt.node.places import PodPlace
from hotvirt.qemu.dump import DumpState
from hotvirt.qemu.errors import QemuGone, QmpError

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
KEY = Key("shop", "web")
NAME = "web-core-20261128-120000.memory.dump"


class Monitor:
    """A QEMU that writes `content` when it is told to dump. `dying`: it ends instead."""

    name = "shop/web"

    def __init__(self, *, content=b"ELF" * 100, dying=False, refuses=False, state=None, memory=1000):
        self.content, self.dying, self.refuses, self.memory = content, dying, refuses, memory
        self.state = state or DumpState(status="none")
        self.asked, self._given = [], -1
        self.known = {"memory": {"size": memory}}

    async def get_fd(self, descriptor, *, name):
        self._given = descriptor  # stays open until the dump has begun

    async def execute(self, command, arguments=None, **_):
        self.asked.append(command)
        if self.dying:
            raise QemuGone("it ended")
        memory = {"query-memory-devices": [], "query-balloon": {"actual": self.memory}}
        if command in memory:
            return memory[command]
        if command == "query-dump":
            return {"status": self.state.status, "completed": self.state.done, "total": self.state.total}
        if self.refuses:
            raise QmpError(command, "GenericError", "no room")
        os.write(self._given, self.content)
        self.state = DumpState(status="completed", done=len(self.content), total=len(self.content))
        return {}

    @contextlib.contextmanager
    def events(self, *names):
        yield None


class Store:
    """The VM, under optimistic locking."""

    def __init__(self, request):
        self.vm = {
            "metadata": {"name": "web", "namespace": "shop", "resourceVersion": "1"},
            "status": {"memoryDumpRequest": request},
        }
        self.phases, self.conflicts = [], 0

    async def patch(self, resource, name, patch, namespace, *, subresource):
        metadata = self.vm["metadata"]
        if self.conflicts or patch["metadata"]["resourceVersion"] != metadata["resourceVersion"]:
            self.conflicts = max(0, self.conflicts - 1)
            raise Conflict("the object has been modified")
        change = patch["status"]["memoryDumpRequest"]
        self.phases.append((change or {}).get("phase"))
        request = None if change is None else {**self.vm["status"]["memoryDumpRequest"], **change}
        version = str(int(metadata["resourceVersion"]) + 1)
        self.vm = {"metadata": {**metadata, "resourceVersion": version}, "status": {"memoryDumpRequest": request}}
        return self.vm


class Cache:
    def __init__(self, resource, find):
        self.resource, self.get = resource, find

    def add_handler(self, handler):
        pass

    def observe(self, obj):
        pass


class World:
    def __init__(self, directory, request, monitor, *, phase="Running", claim=True, kind="local"):
        self.volume, self.store = directory / "pv", Store(request)
        self.volume.mkdir(exist_ok=True)
        self.monitor, self.events = monitor, []
        place = PodPlace(directory)
        guest = SimpleNamespace(monitor=monitor, place=place, is_gone=False)
        vmi = {"status": {"phase": phase, "nodeName": "here"}} if phase else None
        pv = {"spec": {kind: {"path": str(self.volume)}}}
        caches = {
            "virtualmachines": lambda name, namespace: self.store.vm,
            "virtualmachineinstances": lambda name, namespace: vmi,
            "persistentvolumeclaims": lambda name, namespace: {"spec": {"volumeName": "pv"}} if claim else None,
            "persistentvolumes": lambda name: pv,
        }
        self.dumps = MemoryDumps(
            self.store, SimpleNamespace(of=lambda resource: Cache(resource, caches[resource.plural])),
            agent=SimpleNamespace(guests={KEY: guest}, guest_of=lambda key: asyncio.sleep(0, guest)), node="here",
            recorder=SimpleNamespace(event=lambda obj, kind, reason, message: self.events.append((kind, reason))),
            clock=lambda: NOW,
        )  # fmt: skip

    async def run(self):
        return await self.dumps.reconcile(KEY)

    @property
    def request(self):
        return self.store.vm["status"]["memoryDumpRequest"]


async def test_from_the_request_to_the_file(tmp_path):
    world = World(tmp_path, {"claimName": "core", "phase": "Associating"}, Monitor())
    await world.run()
    assert world.store.phases == ["InProgress", "Unmounting", "Completed"]
    assert world.request == {
        "claimName": "core", "phase": "Completed", "fileName": NAME,
        "startTimestamp": "2026-11-28T12:00:00Z", "endTimestamp": "2026-11-28T12:00:00Z",
    }  # fmt: skip
    assert (world.volume / NAME).read_bytes() == b"ELF" * 100
    assert (world.volume / NAME).stat().st_mode & 0o777 == 0o600
    assert world.events == [("Normal", "MemoryDumpInProgress"), ("Normal", "MemoryDumpCompleted")]
    await world.run()
    assert len(world.store.phases) == 3


async def test_into_a_directory_that_is_named_as_hostpath(tmp_path):
    world = World(tmp_path, {"claimName": "core", "phase": "Associating"}, Monitor(), kind="hostPath")
    await world.run()
    assert (world.request["phase"], (world.volume / NAME).exists()) == ("Completed", True)


async def test_a_write_that_lost_a_race_does_not_dump_again(tmp_path):
    world = World(tmp_path, {"claimName": "core", "phase": "InProgress", "fileName": NAME}, Monitor())
    world.store.conflicts = 1
    with pytest.raises(Conflict):
        await world.run()
    await world.run()
    assert world.request["phase"] == "Completed"
    assert world.monitor.asked.count("dump-guest-memory") == 1


async def test_the_next_home_waits_for_what_qemu_is_writing(tmp_path):
    whole = DumpState(status="completed", done=3, total=3)

    class Writing(Monitor):
        async def execute(self, command, arguments=None, **how):
            found = await super().execute(command, arguments, **how)
            self.state = whole
            return found

    world = World(tmp_path, {"claimName": "core", "phase": "InProgress", "fileName": NAME},
                  Writing(state=DumpState(status="active", total=3)))  # fmt: skip
    (world.volume / NAME).write_bytes(b"ELF")
    PodPlace(tmp_path).dump.write_text(NAME)
    await world.run()
    assert (world.request["phase"], "dump-guest-memory" in world.monitor.asked) == ("Completed", False)


@pytest.mark.parametrize("noted", ["", NAME])
async def test_a_dump_that_was_noted_and_never_began_begins(tmp_path, noted):
    done = DumpState(status="completed", done=300, total=300)
    world = World(tmp_path, {"claimName": "core", "phase": "InProgress", "fileName": NAME}, Monitor(state=done))
    PodPlace(tmp_path).dump.write_text(noted)
    (world.volume / NAME).write_bytes(b"")
    await world.run()
    assert (world.volume / NAME).stat().st_size == 300


FAILS = {
    "the guest is over": ({"phase": "Succeeded"}, "the guest stopped before"),
    "there is no guest": ({"phase": ""}, "the guest stopped before"),
    "the claim is gone": ({"claim": False}, "there is no PersistentVolumeClaim 'core'"),
    "qemu ends": ({"monitor": Monitor(dying=True)}, "QEMU ended, or did not answer"),
    "there is no room": ({"monitor": Monitor(memory=1 << 60)}, "free, and the dump needs 1"),
    "qemu refuses": ({"monitor": Monitor(refuses=True)}, "no room"),
}


@pytest.mark.parametrize(("world", "says"), FAILS.values(), ids=FAILS)
async def test_what_fails_is_said(tmp_path, world, says):
    world = World(tmp_path, {"claimName": "core", "phase": "Associating"}, **{"monitor": Monitor(), **world})
    await world.run()
    assert (world.request["phase"], says in world.request["message"]) == ("Failed", True)
    assert world.events[-1] == ("Warning", "MemoryDumpFailed")
    assert [file.name for file in world.volume.iterdir() if "memory" in file.name and file.stat().st_size] == []


@pytest.mark.parametrize("name", ["../../etc/passwd", "", ".x", "a/b"])
async def test_a_name_that_leads_elsewhere_is_none(tmp_path, name):
    world = World(tmp_path, {"claimName": "core", "phase": "InProgress", "fileName": name}, Monitor())
    await world.run()
    assert (world.request["phase"], "is no name of a file" in world.request["message"]) == ("Failed", True)


async def test_a_link_in_the_claim_is_not_followed(tmp_path):
    world = World(tmp_path, {"claimName": "core", "phase": "InProgress", "fileName": NAME}, Monitor())
    (world.volume / NAME).symlink_to(tmp_path / "elsewhere")
    await world.run()
    assert (world.request["phase"], (tmp_path / "elsewhere").exists()) == ("Failed", False)


async def test_the_request_is_forgotten_once_qemu_writes_no_more(tmp_path):
    asked = {"claimName": "core", "phase": "Dissociating", "remove": True}
    world = World(tmp_path, asked, Monitor(state=DumpState(status="active")))
    assert (await world.run()).requeue_after == memorydump.LOOK_AGAIN
    world.monitor.state = DumpState(status="completed", done=3, total=3)
    await world.run()
    assert world.request is None


async def test_another_nodes_guest_is_left_alone(tmp_path):
    world = World(tmp_path, {"claimName": "core", "phase": "Associating"}, Monitor())
    world.dumps._node = "there"
    await world.run()
    assert world.store.phases == []
