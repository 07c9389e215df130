"""An attached volume that an edit makes another: told, as only coming anew makes it that; and nothing told in error."""

import copy

import pytest

from hotvirt.api import defaults
from hotvirt.api.defaults import ClusterSettings
from hotvirt.controllers import liveupdate
from hotvirt.controllers.launcherpod import Settings
from hotvirt.controllers.templatediff import merged
from hotvirt.preconditions import Facts

FACTS = Facts()
DATA = {"name": "data", "persistentVolumeClaim": {"claimName": "data", "hotpluggable": True}}
AT_START = {
    "domain": {
        "memory": {"guest": "2Gi", "maxGuest": "8Gi"}, "cpu": {"sockets": 2, "maxSockets": 8},
        "devices": {"disks": [{"name": "root", "disk": {"bus": "virtio"}}]},
    },
    "volumes": [{"name": "root", "persistentVolumeClaim": {"claimName": "root"}}],
}  # fmt: skip


def attached():
    spec = copy.deepcopy(AT_START)
    spec["volumes"].append(DATA)
    spec["domain"]["devices"]["disks"].append({"name": "data", "disk": {"bus": "scsi"}})
    return spec


def of_data(kind="disk", **settings):
    """The edited disk of the volume data, which was hot-plugged or there at the start."""

    def change(spec):
        spec["domain"]["devices"]["disks"][-1] = {"name": "data", kind: settings}

    return change


def read_only(spec):
    spec["volumes"][-1] = {"name": "data", "persistentVolumeClaim": {**DATA["persistentVolumeClaim"], "readOnly": True}}


AGAIN = "detach and attach it again, or restart"
DISK = "spec.template.spec.domain.devices.disks[data]"


@pytest.mark.parametrize("came", ["hot-plugged", "at the start"])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (of_data(bus="virtio"), [f"{DISK}.disk.bus: scsi -> virtio"]),
        (of_data(bus="scsi", serial="S1", cache="none"),
         [f"{DISK}.disk.cache: unset -> none", f"{DISK}.disk.serial: unset -> S1"]),
        (of_data(kind="lun", bus="scsi"), [f"{DISK}.disk.bus: scsi -> unset", f"{DISK}.lun.bus: unset -> scsi"]),
        (read_only, ["spec.template.spec.volumes[data].persistentVolumeClaim.readOnly: false -> true"]),
        (of_data(bus="scsi", serial="", readonly=False), []),
        (of_data(), []),
        (lambda spec: spec["domain"]["devices"]["disks"].pop(), []),
        (lambda spec: None, []),
    ],
    ids=["bus", "serial and cache", "lun", "read-only", "nothing said", "no bus", "no disk", "no edit"],
)  # fmt: skip
def test_an_attached_volume_that_is_to_be_another_is_told(make, came, change, says):
    has = attached()
    after = copy.deepcopy(has)
    change(after)
    vm, vmi = make.vm(), make.vmi(status={"phase": "Running"})
    vm["spec"]["template"]["spec"], vmi["spec"] = after, has
    for started in (AT_START if came == "hot-plugged" else has, None):
        update = liveupdate.plan(vm, vmi, started, facts=FACTS, settings=Settings())
        assert update.patch == {}
        assert [str(refusal) for refusal in update.refusals] == [f"{each}: {AGAIN}" for each in says]


@pytest.mark.parametrize(
    "disks", [[], [{"name": "data"}], [{"name": "data", "disk": {}}], [{"name": "data", "lun": {}}]]
)
@pytest.mark.parametrize("came", ["hot-plugged", "at the start"])
def test_what_the_start_or_the_hot_plug_filled_in_is_no_difference(make, came, disks):
    """As an instance is really made of its template, and as a volume really comes."""
    wanted = copy.deepcopy(AT_START)
    wanted["volumes"].append(DATA)
    wanted["domain"]["devices"]["disks"] += disks
    started = wanted if came == "at the start" else AT_START
    vm, vmi = make.vm(), make.vmi(status={"phase": "Running"})
    vm["spec"]["template"]["spec"] = wanted
    vmi["spec"] = copy.deepcopy(started)
    vmi = defaults.instance(vmi, ClusterSettings())
    update = liveupdate.plan(vm, vmi, started, facts=FACTS, settings=Settings())
    assert update.refusals == ()
    vmi["spec"] = merged(vmi["spec"], update.patch)
    assert [each["name"] for each in vmi["spec"]["volumes"]] == ["root", "data"]
    assert liveupdate.plan(vm, vmi, started, facts=FACTS, settings=Settings()).settled
