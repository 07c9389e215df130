"""A VM's size as asked and as the guest has it, in the conditions that `kubectl get vm -o wide` prints."""

from datetime import UTC, datetime

import pytest

from hotvirt.controllers import sizes_shown
from hotvirt.controllers.liveupdate import Refusal, Update

NOW = datetime(2026, 11, 28, tzinfo=UTC)


def vm(memory="2Gi", sockets=2, **domain):
    spec = {"domain": {"memory": {"guest": memory}, "cpu": {"sockets": sockets}, **domain}}
    return {"metadata": {"name": "web"}, "spec": {"template": {"spec": spec}}}


def vmi(current="2Gi", sockets=2, conditions=(), phase="Running"):
    status = {"phase": phase, "conditions": list(conditions)}
    if current:
        status["memory"] = {"guestCurrent": current}
    if sockets:
        status["currentCPUTopology"] = {"sockets": sockets, "cores": 1, "threads": 1}
    return {"metadata": {"name": "web"}, "spec": {}, "status": status}


def told(machine, instance, update=None, before=()):
    found = sizes_shown.put(list(before), machine, instance, update, now=NOW)
    return {each["type"]: (each["status"], each["message"]) for each in found}


def refused(field, why="it is fixed"):
    return Refusal(f"spec.template.spec.{field}", "1", "2", why)


def test_a_guest_that_has_what_was_asked():
    assert told(vm(), vmi()) == {"MemoryAsAsked": ("True", "2Gi/2Gi"), "CPUAsAsked": ("True", "2/2")}


def test_sizes_in_other_words_are_the_same():
    assert told(vm("2048Mi"), vmi("2147483648"))["MemoryAsAsked"] == ("True", "2Gi/2Gi")


@pytest.mark.parametrize(
    ("update", "conditions", "says"),
    [
        (Update(refusals=(refused("domain.memory.guest"),)), (), "memory needs a restart: it is fixed"),
        (Update(held=(refused("domain.memory.guest", "no room"),)), (), "memory: no room"),
        (None, ({"type": "HotMemoryChange", "status": "True", "message": "4Gi asked"},), "memory: 4Gi asked"),
        (Update(refusals=(refused("domain.cpu.cores"),)), (), "memory: on its way"),
    ],
)
def test_a_guest_that_has_less_is_told_with_the_reason(update, conditions, says):
    found = told(vm("4Gi"), vmi(conditions=conditions), update)
    assert found["MemoryAsAsked"] == ("False", "4Gi/2Gi")
    assert found["ResizePending"] == ("True", says)


def test_both_reasons_are_told():
    found = told(vm("4Gi", 4), vmi(), Update(refusals=(refused("domain.cpu.sockets"),)))
    assert found["CPUAsAsked"] == ("False", "4/2")
    assert found["ResizePending"][1] == "memory: on its way; cpu needs a restart: it is fixed"


def test_nothing_is_told_of_what_is_not_known_or_does_not_run():
    before = told_before = [{"type": each, "status": "True"} for each in sizes_shown.TYPES]
    assert told(vm(), vmi("", 0), before=before) == {}
    assert told(vm(), vmi("junk", 0), before=told_before) == {}
    for instance in (None, vmi(phase="Scheduled")):
        assert told(vm(), instance, before=before) == {}


def story(before, after):
    old = {"status": {"conditions": sizes_shown.put([], vm(), before, None, now=NOW) + before["status"]["conditions"]}}
    new = sizes_shown.put([], vm(), after, None, now=NOW) + after["status"]["conditions"]
    return [(kind, reason, message) for kind, reason, message in sizes_shown.story(old, {"conditions": new})]


def test_a_change_that_came_about_is_told_once():
    assert story(vmi("1Gi"), vmi()) == [
        ("Normal", "Resized", "The guest has what was asked: 2Gi of memory, 2 CPUs"),
    ]  # fmt: skip
    assert story(vmi(), vmi()) == []
    assert story(vmi("1Gi"), vmi("1536Mi")) == []
    assert list(sizes_shown.story({}, {"ready": True})) == []


def test_a_guest_that_did_not_follow_is_told_once():
    stuck = ({"type": "HotMemoryChange", "status": "False", "reason": "GuestRefused", "message": "512Mi left"},)
    told_of = ("Warning", "GuestRefused", "The guest did not follow: 512Mi left")
    assert story(vmi("1Gi"), vmi("1Gi", conditions=stuck)) == [told_of]
    assert story(vmi("1Gi", conditions=stuck), vmi("1Gi", conditions=stuck)) == []


def test_an_edit_that_needs_no_restart_any_more_is_told():
    pending = ({"type": "RestartRequired", "status": "True", "message": "cores"},)
    assert story(vmi(conditions=pending), vmi()) == [
        ("Normal", "RestartNotRequired", "No edit waits for a restart any more"),
    ]  # fmt: skip
    assert story(vmi(conditions=pending), vmi(conditions=pending)) == []


def test_what_the_instance_is_told_is_one_line():
    before = {"domain": {"memory": {"guest": "1Gi"}}, "volumes": []}
    after = {"domain": {"memory": {"guest": "2Gi"}}, "volumes": [{"name": f"v{n}"} for n in range(9)]}
    assert sizes_shown.changes(before, before) == ""
    said = sizes_shown.changes(before, after)
    assert said.startswith("domain.memory.guest: 1Gi -> 2Gi; volumes[v0]: unset -> ")
    assert said.endswith("; and 2 more")
    assert "\n" not in said
