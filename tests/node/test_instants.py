"""How a snapshot of a running guest says that it was taken is how it was: its filesystems held still, or why not."""

import contextlib
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from hotvirt.api.snapshots import FREEZE
from hotvirt.kube.informer import Key, SharedInformers
from hotvirt.kube.resources import CLAIMS, VMIS, VOLUMES
from hotvirt.node import freezing, instants
from hotvirt.node.guest import AgentView
from hotvirt.node.places import Places, PodPlace
from hotvirt.node.snapshotfiles import About, Group
from hotvirt.node.snapshots import Snapshots
from hotvirt.node.surroundings import BY_CLAIM
from hotvirt.node.volumes import OWNED, PROVISIONER
from hotvirt.qemu.errors import AgentLacks, AgentTimeout, QemuTimeout
from hotvirt.qemu.guestagent import AgentInfo

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
LACKS = AgentLacks("guest-fsfreeze-freeze", "CommandNotFound", "disabled")


class Agent:
    """`count` filesystems are on disks. `lets_go`: it does so by itself, before the copies have begun."""

    def __init__(self, done, *, count=1, fails=None, lets_go=False):
        self.done, self.count, self.fails, self.lets_go = done, count, fails, lets_go
        self.status = "thawed"

    async def fsfreeze_freeze(self):
        self.done.append("freeze")
        if self.fails:
            raise self.fails
        self.status = "frozen" if self.count else "thawed"
        return self.count

    async def fsfreeze_thaw(self):
        self.done.append("thaw")
        self.status = "thawed"
        return self.count

    async def fsfreeze_status(self):
        return self.status


class Monitor:
    name = "shop/web"

    def __init__(self, done, *, running=True):
        self.done, self.running, self.agent = done, running, None

    async def execute(self, command, arguments=None, **_):
        if command == "query-status":
            return {"running": self.running}
        if command == "transaction":
            self.done.append("instant")
            if self.agent and self.agent.lets_go:
                self.agent.status = "thawed"
        return []

    @contextlib.contextmanager
    def events(self, *_):
        yield None


class Guest:
    is_freezing, uid, is_gone = False, "u", False

    def __init__(self, directory, *, running=True, agent=True, **how):
        self.done = []
        self.monitor = Monitor(self.done, running=running)
        self.place = PodPlace(directory)
        self.agent = self.monitor.agent = Agent(self.done, **how)
        self.greets = 0
        self.view = None
        if agent:
            self.greeted()

    @property
    def answering(self):
        return self.agent if self.view else None

    def greeted(self):
        self.view = AgentView(info=AgentInfo("7", frozenset()), hostname="web", frozen=False)

    def poke(self):
        pass

    def greet(self):
        self.greets += 1

    def drop(self, kind):
        pass


@pytest.mark.parametrize(
    ("guest", "freeze", "words", "done"),
    [
        ({}, 30, ("GuestAgent", "Online"), ["freeze", "instant", "thaw"]),
        ({"count": 0}, 30, ("GuestAgent", "Online"), ["freeze", "instant"]),
        ({"agent": False}, 30, ("NoGuestAgent", "Online"), ["instant"]),
        ({}, None, ("NoGuestAgent", "Online"), ["instant"]),
        ({"fails": LACKS}, 30, ("QuiesceTimeout", "Online"), ["freeze", "instant"]),
        ({"fails": AgentTimeout("silent")}, 30, ("QuiesceTimeout", "Online"), ["freeze", "instant", "thaw"]),
        ({"lets_go": True}, 30, ("QuiesceTimeout", "Online"), ["freeze", "instant", "thaw"]),
        ({"running": False}, 30, ("Online", "Paused"), ["instant"]),
        ({"running": False}, None, ("Online", "Paused"), ["instant"]),
    ],
)
async def test_what_is_said_is_what_was_done(tmp_path, guest, freeze, words, done):
    found = Guest(tmp_path, **guest)
    group = Group(Places(pods=tmp_path / "p", images=tmp_path / "i", volumes=tmp_path / "v"), Key("shop", "g"))
    said = await instants.cut(group, About(disks={}), found, [], freeze=freeze, memory=None, now=NOW)
    assert (said, found.done) == (words, done)
    assert found.view is None or not found.view.frozen


async def test_one_that_may_be_frozen_is_taken_for_it_until_it_says_otherwise(tmp_path):
    """Else its note would be taken for one of a guest that is thawed, and removed."""
    guest = Guest(tmp_path, fails=AgentTimeout("silent"))
    with pytest.raises(Exception, match="may not have frozen"):
        await freezing.freeze(guest, seconds=30, now=NOW)
    jobs = []
    guest.want = lambda kind, _target, _run: jobs.append(kind)
    freezing.watch(guest, NOW)
    assert (jobs, guest.place.frozen.exists(), guest.greets) == ([freezing.JOB], True, 1)


@pytest.mark.parametrize(("notes", "waits"), [({FREEZE: "30"}, True), ({}, False)])
async def test_a_guest_that_was_found_again_a_moment_ago_has_its_time_to_greet(tmp_path, notes, waits):
    places = Places(pods=tmp_path / "p", images=tmp_path / "i", volumes=tmp_path / "v")
    (tmp_path / "disk.img").write_bytes(bytes(4096))
    informers, asked = SharedInformers(None), []

    async def guest_of(key, *, answering=False):
        asked.append((key, answering))

    informers.of(VMIS).add_index(BY_CLAIM, lambda _: ["shop/data"])
    made = Snapshots(
        None, informers, agent=SimpleNamespace(guest_of=guest_of, guests={}), node="here", places=places, recorder=None,
        clock=lambda: NOW,
    )  # fmt: skip
    vmi = {
        "metadata": {"name": "web", "namespace": "shop", "uid": "i", "resourceVersion": "1"},
        "spec": {"volumes": [{"name": "one", "persistentVolumeClaim": {"claimName": "data"}}]},
        "status": {"nodeName": "here", "phase": "Running"},
    }
    claim = {
        "metadata": {"name": "data", "namespace": "shop", "uid": "c", "resourceVersion": "1"},
        "spec": {"volumeName": "pv"},
    }
    volume = {
        "metadata": {"name": "pv", "uid": "v", "resourceVersion": "1", "annotations": {OWNED: PROVISIONER}},
        "spec": {"local": {"path": str(tmp_path)}},
    }
    for resource, obj in ((VMIS, vmi), (CLAIMS, claim), (VOLUMES, volume)):
        informers.of(resource)._store(obj, relisted=True)
    snapshot = {
        "metadata": {"name": "s", "namespace": "shop", "uid": "s", "annotations": notes},
        "spec": {"source": {"persistentVolumeClaimName": "data"}},
    }
    await made._sources("shop", [snapshot])
    assert asked == [(Key("shop", "web"), waits)]


class Silent:
    """A QEMU that writes a guest's memory, and answers nobody meanwhile."""

    def __init__(self):
        self.busy, self.asked = True, []

    async def execute(self, command, *_, **__):
        self.asked.append(command)
        if self.busy:
            raise QemuTimeout("QEMU did not answer")
        return {"status": "paused", "running": False} if command == "query-status" else []

    @contextlib.contextmanager
    def events(self, *_):
        yield self


@pytest.mark.parametrize("is_found", [False, True])
async def test_a_guest_that_a_dead_home_stopped_is_let_go_however_long_its_qemu_answers_nobody(tmp_path, is_found):
    places = Places(pods=tmp_path / "p", images=tmp_path / "i", volumes=tmp_path / "v")
    informers, monitor = SharedInformers(None), Silent()
    guest = SimpleNamespace(uid="u", is_gone=False, monitor=monitor, view=None)
    found = [guest] if is_found else []

    async def guest_of(*_, **__):
        return found[0] if found else None

    made = Snapshots(
        None, informers, agent=SimpleNamespace(guest_of=guest_of, guests={}), node="here", places=places, recorder=None,
        clock=lambda: NOW,
    )  # fmt: skip
    vmi = {"metadata": {"name": "web", "namespace": "shop", "uid": "i", "resourceVersion": "1"}, "spec": {}}
    informers.of(VMIS)._store({**vmi, "status": {"phase": "Running"}}, relisted=True)
    group = Group(places, Key("shop", "g"))
    group.begin(About(disks={}, vmi="web", stopped=True))
    again = await made.reconcile(Key("shop", "g"))  # nobody wants the snapshot any more
    assert (again.requeue_after, "cont" in monitor.asked) == (5.0, False)
    assert group.plan().stopped
    found[:], monitor.busy = [guest], False
    await made.reconcile(Key("shop", "g"))
    assert "cont" in monitor.asked
    assert group.plan() is None
