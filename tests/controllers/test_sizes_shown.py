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
