"""Volume requests in a VM's status become edits of its template, once however often they are carried out."""

import pytest

from hotvirt.controllers import volumerequests

SCRATCH = {"name": "scratch", "emptyDisk": {"capacity": "1Mi"}}
DATA = {"name": "data", "persistentVolumeClaim": {"claimName": "data", "hotpluggable": True}}
CD = {"name": "cd", "persistentVolumeClaim": {"claimName": "iso", "hotpluggable": True}}
DISK = {"name": "data", "disk": {"bus": "scsi"}}
ADD = {"addVolumeOptions": {"name": "data", "volumeSource": {"persistentVolumeClaim": {"claimName": "data"}}}}


def vm(*requests, volumes=(SCRATCH,), disks=()):
    template = {"volumes": list(volumes), "domain": {"devices": {"disks": list(disks)}}}
    return {"spec": {"template": {"spec": template}}, "status": {"volumeRequests": list(requests)}}


def remove(name):
    return {"removeVolumeOptions": {"name": name}}


def lists(answer):
    return answer.patch["volumes"], answer.patch["domain"]["devices"]["disks"]


def test_a_volume_is_added_and_added_again_is_nothing():
    assert lists(volumerequests.answer(vm(ADD))) == ([SCRATCH, DATA], [DISK])
    assert volumerequests.answer(vm(ADD, volumes=[SCRATCH, DATA], disks=[DISK])) == volumerequests.Answer()


def test_a_volume_is_removed_and_removed_again_is_nothing():
    found = volumerequests.answer(vm(remove("data"), volumes=[SCRATCH, DATA], disks=[DISK]))
    assert lists(found) == ([SCRATCH], [])
    assert volumerequests.answer(vm(remove("data"))) == volumerequests.Answer()


def test_the_drive_of_a_removed_disc_stays():
    drive = {"name": "cd", "cdrom": {"bus": "sata"}}
    assert lists(volumerequests.answer(vm(remove("cd"), volumes=[CD], disks=[drive]))) == ([], [drive])


def test_several_are_carried_out_in_their_order():
    assert volumerequests.answer(vm(ADD, remove("data"))) == volumerequests.Answer()
    other = {"addVolumeOptions": {**ADD["addVolumeOptions"], "disk": {"disk": {"bus": "virtio"}}}}
    assert lists(volumerequests.answer(vm(other)))[1] == [{"name": "data", "disk": {"bus": "virtio"}}]


@pytest.mark.parametrize(
    ("request_", "volumes", "why"),
    [
        (ADD, [{**DATA, "persistentVolumeClaim": {"claimName": "x"}}], "volume data is there with another source"),
        ({"addVolumeOptions": {"name": "data"}}, [], "it needs a name, and a claim as its volumeSource"),
        (remove("scratch"), [SCRATCH], "volume scratch is not hotpluggable: stop the VM and edit it"),
        ({}, [], "names neither a volume to add nor one to remove"),
    ],
)
def test_what_cannot_be_done_is_said(request_, volumes, why):
    found = volumerequests.answer(vm(request_, volumes=volumes))
    assert found.patch == {}
    assert why in found.refused[0]
