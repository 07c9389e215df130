"""A guest's memory is taken up once, by the pod that took it, and only by the machine that it is of."""

import contextlib

import pytest

from hotvirt.api import memorysnapshots
from hotvirt.node import keptmemory, machinestate
from hotvirt.node.keptmemory import About, Started
from hotvirt.node.places import Places
from hotvirt.qemu import memoryfile
from hotvirt.qemu.errors import QemuTimeout

SHAPE = ("-m size=1", "-cpu max")
VMI = {
    "metadata": {"name": "web", "uid": "i", "ownerReferences": [
        {"kind": "VirtualMachine", "name": "web", "uid": "m", "controller": True},
    ]},
    "spec": {
        "domain": {"memory": {"guest": "1Gi"}, "cpu": {"sockets": 1}, "devices": {"disks": [
            {"name": "root", "disk": {"bus": "virtio"}}, {"name": "cd", "cdrom": {}},
        ]}},
        "volumes": [{"name": "root", "persistentVolumeClaim": {"claimName": "r"}},
                    {"name": "cd", "containerDisk": {"image": "x"}}],
    },
}  # fmt: skip
VM = {"metadata": {"name": "web", "uid": "m"}, "spec": {}, "status": {}}


@pytest.fixture
def places(tmp_path):
    found = Places(pods=tmp_path / "p", images=tmp_path / "i", volumes=tmp_path / "v")
    place = found.machines / "m"
    place.mkdir(parents=True)
    (place / "uefi.vars").write_text("variables")
    (place / "tpm2").mkdir()
    (place / "tpm2" / "state").write_text("keys")
    (place / "tpm2" / ".lock").touch()
    (place / keptmemory.FILE).write_text("memory")
    keptmemory.note(place, About(shape=SHAPE, claims={"root": "c"}))
    return found


def take(places, **changes):
    return keptmemory.take(places, VMI, **{"pod": "p1", "shape": SHAPE, "claims": {"root": "c"}, **changes})


def left(places):
    return sorted(path.name for path in (places.machines / "m").glob("memory*"))


def test_one_pod_takes_it_as_often_as_it_starts(places):
    assert take(places) == (True, "")
    assert left(places) == ["memory-p1.json", "memory-p1.qcow2"]
    assert take(places) == (True, ""), "a home that died before QEMU was launched"
    assert take(places, pod="p2") == (False, ""), "the pod that took it is gone, and so is the moment"
    assert left(places) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"shape": ("-m size=2", "-cpu max")}, "-m size=1 then, -m size=2 now"),
        ({"shape": (*SHAPE, "-device x")}, "nothing then, -device x now"),
        ({"claims": {"root": "d"}}, "volume root is not on the claim that was restored"),
        ({"claims": {}}, "volume root is not on the claim"),
    ],
)
def test_another_machine_boots_from_its_disks(places, changes, says):
    goes_on, why = take(places, **changes)
    assert not goes_on
    assert says in why
    assert left(places) == []
    assert take(places) == (False, "")


def test_a_snapshot_holds_what_the_machine_keeps_and_no_memory(places, tmp_path):
    machinestate.copy(places, "m", tmp_path / "kept")
    found = sorted(str(p.relative_to(tmp_path / "kept")) for p in (tmp_path / "kept").rglob("*") if p.is_file())
    assert found == ["tpm2/state", "uefi.vars"]
    machinestate.copy(places, "never-started", tmp_path / "none")
    assert list((tmp_path / "none").iterdir()) == []


def changed(**domain):
    return {**VMI, "spec": {**VMI["spec"], "domain": {**VMI["spec"]["domain"], **domain}}}


def test_what_was_changed_while_it_ran_cannot_be_kept():
    then = Started(SHAPE, VMI["spec"])
    assert keptmemory.refusal(VM, VMI, then) == ""
    assert "domain.memory was changed" in keptmemory.refusal(VM, changed(memory={"guest": "2Gi"}), then)
    assert "domain.cpu was changed" in keptmemory.refusal(VM, changed(cpu={"sockets": 2}), then)
    more = {"disks": [*VMI["spec"]["domain"]["devices"]["disks"], {"name": "more", "disk": {}}]}
    assert "domain.devices.disks was changed" in keptmemory.refusal(VM, changed(devices=more), then)
    assert "started by an earlier version" in keptmemory.refusal(VM, VMI, None)
    waits = {**VM, "status": {"conditions": [{"type": "RestartRequired", "status": "True"}]}}
    assert "wait for a restart" in keptmemory.refusal(waits, VMI, then)


def test_what_no_snapshot_holds_is_named():
    def blockers(**spec):
        return list(memorysnapshots.blockers({**VMI["spec"], **spec}))

    assert blockers() == []
    scratch = [{"name": "root", "emptyDisk": {"capacity": "1Gi"}}]
    assert blockers(volumes=scratch) == [
        "volume root (emptyDisk) is in no snapshot, and the guest writes to it: put it on a claim"
    ]
    assert "no disk to keep its memory with" in blockers(volumes=[])[0]
    gpu = {"devices": {**VMI["spec"]["domain"]["devices"], "gpus": [{"name": "g"}]}}
    for tpm, words in (({}, "domain.devices.tpm"), ({"enabled": False}, "")):
        found = blockers(domain={"devices": {**VMI["spec"]["domain"]["devices"], "tpm": tpm}})
        assert found[0].startswith(words) if words else not found, tpm
    assert blockers(domain=gpu)[0].startswith("domain.devices.gpus: a GPU cannot be made again")


def test_the_shape_of_a_machine_is_what_its_devices_are():
    line = [
        "qemu", "-accel", "tcg,tb-size=36", "-add-fd", "fd=10,set=10,opaque=one", "-m", "size=1",
        "-blockdev", '{"driver":"raw"}', "-device", '{"id":"a","driver":"x","bootindex":1}', "-S",
    ]  # fmt: skip
    shape = memoryfile.shape(line)
    assert shape == ("-accel tcg", "-m size=1", '-device {"driver": "x", "id": "a"}')
    other = [
        each.replace("raw", "qcow2").replace("10", "12").replace('"bootindex":1', '"bootindex":2') for each in line
    ]
    assert memoryfile.difference(shape, memoryfile.shape(other)) == ""
    assert memoryfile.difference(shape, shape[:2]).endswith("then, nothing now")


class SlowMonitor:
    """A QEMU that needs ten minutes to write the memory, and answers nothing until then."""

    def __init__(self):
        self.jobs = []

    @contextlib.contextmanager
    def events(self, *_):
        yield self

    async def add_fd(self, *_, **__):
        return 1

    async def execute(self, command, arguments=None, *, timeout=30.0):
        if command == "snapshot-save":
            self.jobs = [{"id": memoryfile.NODE, "status": "concluded"}]
        if command in ("snapshot-save", "query-jobs") and self.jobs and timeout < 600:
            raise QemuTimeout(f"QEMU did not answer {command} within {timeout:g} s")
        if command == "job-dismiss":
            self.jobs = []
        return list(self.jobs) if command == "query-jobs" else []


async def test_a_qemu_that_takes_long_to_write_the_memory_is_waited_for():
    monitor = SlowMonitor()
    await memoryfile.save(monitor, 0)
    assert monitor.jobs == []
