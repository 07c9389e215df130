"""A limit of memory that is the maximum, as at a start, of a guest that runs."""

import copy

import pytest

from hotvirt.controllers import liveupdate
from hotvirt.controllers.launcherpod import Settings
from hotvirt.controllers.templatediff import merged
from hotvirt.preconditions import Facts

FACTS = Facts()


LIMITED = {
    "domain": {"memory": {"guest": "1Gi"}, "resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "2Gi"}}}
}
WITHOUT = {"domain": {"memory": {"guest": "1Gi"}}}
OWN = {"domain": {"memory": {"guest": "1Gi", "maxGuest": "2Gi"}, "resources": {"limits": {"memory": "4Gi"}}}}


def without_maximum(domain):
    domain["memory"].pop("maxGuest")


def without_limit(domain):
    domain["resources"].pop("limits")


def of_size(size):
    return lambda domain: domain["memory"].update(guest=size)


def limit_of(size):
    return lambda domain: domain.setdefault("resources", {}).update(limits={"memory": size})


@pytest.mark.parametrize(
    ("started", "changes", "memory", "refused"),
    [
        (LIMITED, [limit_of("4Gi"), of_size("3Gi")], {"guest": "3Gi", "maxGuest": "4Gi"}, []),
        (LIMITED, [limit_of("4Gi")], {"maxGuest": "4Gi"}, []),
        (LIMITED, [limit_of("1536Mi")], {"maxGuest": "1536Mi"}, []),
        (LIMITED, [limit_of("2048Mi")], None, []),
        (LIMITED, [limit_of("16Gi")], None, ["domain.resources.limits.memory"]),
        (LIMITED, [without_limit], None, []),
        (WITHOUT, [limit_of("3Gi")], {"maxGuest": "3Gi"}, []),
        (OWN, [], None, []),
        (OWN, [without_maximum], None, ["domain.memory.maxGuest"]),
        (OWN, [limit_of("6Gi")], None, []),
    ],
    ids=["with its size", "alone", "lower", "same", "too far", "gone", "new", "own", "own is gone", "own stays"],
)  # fmt: skip
def test_a_limit_is_the_maximum_of_who_has_no_other(make, started, changes, memory, refused):
    """As at a start, so that an edit means the same to a guest that runs."""
    after = copy.deepcopy(started)
    for change in changes:
        change(after["domain"])
    vm, vmi = make.vm(), make.vmi(status={"phase": "Running"})
    vm["spec"]["template"]["spec"] = after
    vmi["spec"] = {"domain": {**started["domain"], "memory": {"guest": "1Gi", "maxGuest": "2Gi"}}}
    vmi["metadata"]["annotations"] = {"hotvirt.io/memory-room": "8Gi"}
    update = liveupdate.plan(vm, vmi, started, facts=FACTS, settings=Settings())
    assert update.patch.get("domain", {}).get("memory") == memory
    assert [refusal.field for refusal in update.refusals] == [f"spec.template.spec.{each}" for each in refused]
    vmi["spec"] = merged(vmi["spec"], update.patch)
    assert liveupdate.plan(vm, vmi, started, facts=FACTS, settings=Settings()).patch == {}, "and it stays so"


def test_a_limit_that_is_taken_back_is_the_maximum_again(make):
    vm, vmi = make.vm(), make.vmi(status={"phase": "Running"})
    vm["spec"]["template"]["spec"] = LIMITED
    vmi["spec"] = {"domain": {**LIMITED["domain"], "memory": {"guest": "1Gi", "maxGuest": "4Gi"}}}
    update = liveupdate.plan(vm, vmi, LIMITED, facts=FACTS, settings=Settings())
    assert update.patch == {"domain": {"memory": {"maxGuest": "2Gi"}}}
    without_any = {**vmi, "spec": LIMITED}
    assert liveupdate.plan(vm, without_any, LIMITED, facts=FACTS, settings=Settings()).patch == {}
