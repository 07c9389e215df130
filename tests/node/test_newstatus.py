"""Which events a guest's new status is worth."""

from hotvirt.node.newstatus import events


def told(new, **was):
    return [each[:2] for each in events({"status": was}, {"status": new})]


def paused(status):
    return [{"type": "Paused", "status": status}]


def test_a_guest_that_runs_for_the_first_time():
    assert told({"phase": "Running"}) == [("Normal", "Created"), ("Normal", "Started")]


def test_a_guest_that_stands_still_and_goes_on():
    assert told({"conditions": paused("True")}) == [("Normal", "Paused")]
    assert told({"conditions": []}, conditions=paused("True")) == [("Normal", "Resumed")]
    assert told({"conditions": paused("True")}, conditions=paused("True")) == []
    assert told({}, conditions=paused("True")) == []


def test_volumes_that_come_to_a_new_phase_are_told_of_once():
    ready = {"name": "a", "phase": "Ready", "reason": "VolumeReady"}
    assert told({"volumeStatus": [ready]}) == [("Normal", "VolumeReady")]
    assert told({"volumeStatus": [ready]}, volumeStatus=[ready]) == []
    refused = {"name": "a", "phase": "Detaching", "reason": "GuestUses"}
    assert told({"volumeStatus": [refused]}, volumeStatus=[ready]) == [("Warning", "GuestUses")]


def test_volumes_that_grew_or_went():
    had = [{"name": "a", "phase": "Ready", "size": 1 << 30}, {"name": "root"}]
    grew = [{"name": "a", "phase": "Ready", "size": 2 << 30}]
    assert list(events({"status": {"volumeStatus": had}}, {"status": {"volumeStatus": grew}})) == [
        ("Normal", "VolumeGrown", "volume a grew from 1Gi to 2Gi")
    ]
    assert told({"volumeStatus": []}, volumeStatus=had) == [("Normal", "VolumeUnplugged")]
    assert told({}, volumeStatus=had) == []
