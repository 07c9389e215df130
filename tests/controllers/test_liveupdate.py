"""Edits of a running VM: what goes through, what asks for a restart, and how that is said."""

import copy

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import structs

from hotvirt.api.quantity import parse_bytes
from hotvirt.controllers import launcherpod, liveupdate, livevolumes
from hotvirt.controllers.launcherpod import Settings
from hotvirt.controllers.liveupdate import Room
from hotvirt.controllers.placement import Demand
from hotvirt.controllers.templatediff import diff, merge_patch
from hotvirt.preconditions import Facts
from hotvirt.preconditions.facts import Quota

FACTS = Facts()
DATA = {"name": "data", "persistentVolumeClaim": {"claimName": "data", "hotpluggable": True}}
DATA_DISK = {"name": "data", "disk": {"bus": "scsi"}}
AT_START = {
    "domain": {
        "memory": {"guest": "2Gi", "maxGuest": "8Gi"},
        "cpu": {"sockets": 2, "maxSockets": 8},
        "resources": {"requests": {"memory": "1Gi", "cpu": "400m"}},
        "devices": {
            "disks": [{"name": "root", "disk": {"bus": "virtio"}}],
            "interfaces": [{"name": "a", "bridge": {}}],
        },
    },
    "volumes": [{"name": "root", "persistentVolumeClaim": {"claimName": "root"}}],
    "networks": [{"name": "a", "pod": {}}],
    "nodeSelector": {"disk": "fast"},
}  # fmt: skip


def planned(make, change, *, facts=FACTS, started=AT_START, at_start=None, status=None, room=None):
    """The update after `change(spec)` of a VM that was started as AT_START says."""
    before = copy.deepcopy(at_start or AT_START)
    after = copy.deepcopy(before)
    change(after)
    vm, vmi = make.vm(), make.vmi(status=status or {"phase": "Running"})
    vm["spec"]["template"]["spec"], vmi["spec"] = after, before
    return liveupdate.plan(
        vm, vmi, before if started is AT_START else started, facts=facts, settings=Settings(), room=room
    )


def put(path, value):
    def change(spec):
        *steps, last = path.split(".")
        for step in steps:
            spec = spec.setdefault(step, {})
        if value is None:
            spec.pop(last)
        else:
            spec[last] = value

    return change


def both(*changes):
    def change(spec):
        for each in changes:
            each(spec)

    return change


def attach(volume=DATA, disk=DATA_DISK):
    def change(spec):
        spec["volumes"].append(volume)
        if disk:
            spec["domain"]["devices"]["disks"].append(disk)

    return change


def test_no_edit_is_settled(make):
    update = planned(make, lambda spec: None)
    assert update.settled
    assert update.patch == {}


@pytest.mark.parametrize(
    ("change", "patch"),
    [
        (put("domain.memory.guest", "4Gi"),
         {"domain": {"memory": {"guest": "4Gi"}, "resources": {"requests": {"memory": "3Gi"}}}}),
        (put("domain.memory.guest", "1Gi"),
         {"domain": {"memory": {"guest": "1Gi"}, "resources": {"requests": {"memory": "512Mi"}}}}),
        (put("domain.memory.guest", "2048Mi"), {}),
        (put("domain.cpu.sockets", 4),
         {"domain": {"cpu": {"sockets": 4}, "resources": {"requests": {"cpu": "600m"}}}}),
        (put("domain.cpu.sockets", 1),
         {"domain": {"cpu": {"sockets": 1}, "resources": {"requests": {"cpu": "200m"}}}}),
        (put("domain.resources.requests.memory", "1536Mi"),
         {"domain": {"resources": {"requests": {"memory": "1536Mi"}}}}),
        (put("domain.resources.limits", {"memory": "4Gi"}), {"domain": {"resources": {"limits": {"memory": "4Gi"}}}}),
        (put("nodeSelector", {"zone": "a"}), {"nodeSelector": {"disk": None, "zone": "a"}}),
        (put("tolerations", [{"key": "a"}]), {"tolerations": [{"key": "a"}]}),
        (put("startStrategy", "Paused"), {}),
    ],
    ids=["grow", "shrink", "same", "more-cpus", "fewer-cpus", "requests", "limits", "selector", "tolerations", "start"],
)  # fmt: skip
def test_live_fields_go_to_the_instance(make, change, patch):
    update = planned(make, change)
    assert update.patch == patch
    assert update.refusals == ()


ROOM = {"hotvirt.io/memory-room": "32Gi", "hotvirt.io/sockets-room": "16"}


@pytest.mark.parametrize(
    ("changes", "patch", "refused"),
    [
        ([("domain.memory.maxGuest", "16Gi")], {"memory": {"maxGuest": "16Gi"}}, []),
        ([("domain.cpu.maxSockets", 16)], {"cpu": {"maxSockets": 16}}, []),
        ([("domain.memory.maxGuest", "16Gi"), ("domain.memory.guest", "12Gi")],
         {"memory": {"maxGuest": "16Gi", "guest": "12Gi"}, "resources": {"requests": {"memory": "11Gi"}}}, []),
        ([("domain.cpu.maxSockets", 12), ("domain.cpu.sockets", 10)],
         {"cpu": {"maxSockets": 12, "sockets": 10}, "resources": {"requests": {"cpu": "1200m"}}}, []),
        ([("domain.memory.maxGuest", "64Gi"), ("domain.memory.guest", "4Gi")],
         {"memory": {"guest": "4Gi"}, "resources": {"requests": {"memory": "3Gi"}}}, ["memory.headroom"]),
        ([("domain.memory.maxGuest", "64Gi"), ("domain.memory.guest", "12Gi")], None,
         ["memory.headroom", "memory.max-guest"]),
        ([("domain.memory.maxGuest", "2Gi")], {"memory": {"maxGuest": "2Gi"}}, []),
        ([("domain.memory.maxGuest", None)], None, ["template"]),
        ([("domain.cpu.maxSockets", 17)], None, ["cpu.headroom"]),
    ],
)  # fmt: skip
def test_a_maximum_moves_while_qemu_has_room(make, changes, patch, refused):
    before = copy.deepcopy(AT_START)
    after = copy.deepcopy(before)
    both(*(put(*change) for change in changes))(after)
    vm, vmi = make.vm(), make.vmi(status={"phase": "Running"})
    vm["spec"]["template"]["spec"], vmi["spec"] = after, before
    vmi["metadata"]["annotations"] = {**(vmi["metadata"].get("annotations") or {}), **ROOM}
    update = liveupdate.plan(vm, vmi, before, facts=FACTS, settings=Settings())
    assert update.patch == ({"domain": patch} if patch else {})
    assert [refusal.id for refusal in update.refusals] == refused
    stage = liveupdate.plan(vm, vmi, before, facts=Facts(rollout_strategy="Stage"), settings=Settings())
    assert not stage.patch.get("domain", {}).get("memory", {}).get("maxGuest")


def test_a_lower_maximum_waits_for_the_size_that_it_covers(make):
    before = copy.deepcopy(AT_START)
    after = copy.deepcopy(before)
    both(put("domain.memory.maxGuest", "1Gi"), put("domain.memory.guest", "1Gi"))(after)
    vm, vmi = make.vm(), make.vmi(status={"phase": "Running"})
    vm["spec"]["template"]["spec"], vmi["spec"] = after, before
    update = liveupdate.plan(vm, vmi, before, facts=FACTS, settings=Settings())
    assert update.patch["domain"]["memory"] == {"guest": "1Gi", "maxGuest": "1Gi"}
    small = Facts(disabled_gates=frozenset(), rollout_strategy="Stage")
    assert liveupdate.plan(vm, vmi, before, facts=small, settings=Settings()).patch == {}


def test_memory_may_be_driven_by_requests(make):
    spec = {"domain": {"resources": {"requests": {"memory": "1Gi"}}}}
    vm, vmi = make.vm(), make.vmi(status={"phase": "Running"})
    vm["spec"]["template"]["spec"] = {"domain": {"resources": {"requests": {"memory": "2Gi"}}}}
    vmi["spec"] = {"domain": {"memory": {"guest": "1Gi", "maxGuest": "4Gi"}, **spec["domain"]}}
    update = liveupdate.plan(vm, vmi, spec, facts=FACTS, settings=Settings())
    assert update.patch == {
        "domain": {"memory": {"guest": "2Gi"}, "resources": {"requests": {"memory": "2Gi"}}}
    }  # fmt: skip
    vm["spec"]["template"]["spec"]["domain"]["resources"]["requests"]["memory"] = "8Gi"
    update = liveupdate.plan(vm, vmi, spec, facts=FACTS, settings=Settings())
    assert update.patch == {}
    assert update.refusals[0].field == "spec.template.spec.domain.resources.requests.memory"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (put("domain.memory.guest", "16Gi"),
         ["spec.template.spec.domain.memory.guest: 2Gi -> 16Gi", "more than the guest's maximum, 8Gi",
          "raise domain.memory.maxGuest"]),
        (put("domain.cpu.sockets", 9), ["spec.template.spec.domain.cpu.sockets: 2 -> 9", "maxSockets"]),
        (put("domain.memory.maxGuest", "16Gi"),
         ["domain.memory.maxGuest: 8Gi -> 16Gi: a maximum of", "is not within QEMU's headroom, up to 8Gi"]),
        (put("domain.cpu.threads", 2), ["domain.cpu.threads: unset -> 2: only sockets change"]),
        (put("domain.ioThreads.count", 2), ["spec.template.spec.domain.ioThreads.count: unset -> 2"]),
        (put("hostname", "other"), ["spec.template.spec.hostname: unset -> other: it changes with a restart only"]),
        (put("networks", []), ["spec.template.spec.networks[a]: {", "-> unset"]),
        (put("domain.features", {"acpi": {}}), ["domain.features.acpi: unset -> {}"]),
        (attach({"name": "data", "persistentVolumeClaim": {"claimName": "data"}}),
         ["volumes[data]: unset -> {", "hotpluggable: true", "domain.devices.disks[data]"]),
        (attach(DATA, {"name": "data", "disk": {"bus": "sata"}}), ["volumes[data]: unset -> data", "sata"]),
    ],
)  # fmt: skip
def test_the_rest_asks_for_a_restart_with_field_values_reason_and_mend(make, change, says):
    update = planned(make, change)
    text = liveupdate.message(update, "web")
    for part in says:
        assert part in text
    assert text.endswith("To apply: hotvirt restart web; or take the edit back")
    assert update.patch == {}


def test_an_interface_binding_is_told_apart_from_another(make):
    def change(spec):
        spec["domain"]["devices"]["interfaces"] = [{"name": "a", "masquerade": {}}]

    fields = [r.field for r in planned(make, change).refusals]
    assert fields == [f"spec.template.spec.domain.devices.interfaces[a].{kind}" for kind in ("bridge", "masquerade")]


def test_what_is_live_goes_through_beside_what_is_not(make):
    update = planned(make, both(put("domain.memory.guest", "4Gi"), put("domain.cpu.cores", 2), attach()))
    assert update.patch["domain"]["memory"] == {"guest": "4Gi"}
    assert update.patch["volumes"][-1] == DATA
    assert [r.field for r in update.refusals] == ["spec.template.spec.domain.cpu.cores"]


def test_many_reasons_are_counted_and_secrets_not_shown(make):
    update = planned(make, both(*(put(f"domain.f{n}", {}) for n in range(14))))
    assert "and 4 more" in liveupdate.message(update, "web")
    seed = {"name": "seed", "cloudInitNoCloud": {"userData": "password: first"}}
    at_start = {**AT_START, "volumes": [*AT_START["volumes"], seed]}

    def change(spec):
        spec["volumes"][-1]["cloudInitNoCloud"]["userData"] = "password: second"

    text = liveupdate.message(planned(make, change, at_start=at_start), "web")
    assert "volumes[seed].cloudInitNoCloud.userData: changed" in text
    assert "password" not in text


def test_a_secret_in_a_new_volume_is_not_shown_either(make):
    seed = {"name": "seed", "cloudInitNoCloud": {"userData": "password: first"}}
    assert "password" not in liveupdate.message(planned(make, attach(seed, None)), "web")


# Volumes


def test_a_hotpluggable_claim_comes_and_goes_with_its_disk(make):
    update = planned(make, attach(DATA, None))
    assert update.patch["volumes"][-1] == DATA
    assert update.patch["domain"]["devices"]["disks"][-1] == DATA_DISK
    at_start = copy.deepcopy(AT_START)
    attach()(at_start)

    def detach(spec):
        spec["volumes"].pop()
        spec["domain"]["devices"]["disks"].pop()

    update = planned(make, detach, at_start=at_start)
    assert update.patch == {
        "volumes": AT_START["volumes"],
        "domain": {"devices": {"disks": AT_START["domain"]["devices"]["disks"]}},
    }
    assert update.refusals == ()


def test_a_changed_source_leaves_first_and_comes_when_it_has_left(make):
    at_start = copy.deepcopy(AT_START)
    attach()(at_start)

    def swap(spec):
        spec["volumes"][-1] = {"name": "data", "persistentVolumeClaim": {"claimName": "other", "hotpluggable": True}}

    update = planned(make, swap, at_start=at_start)
    assert [v["name"] for v in update.patch["volumes"]] == ["root"]
    assert update.waits
    status = {"phase": "Running", "volumeStatus": [{"name": "data"}]}
    leaving = planned(make, attach(), status=status)
    assert leaving.patch == {}
    assert leaving.waits
    assert not leaving.settled


def test_a_volume_of_this_run_only_stays_until_the_machine_has_named_it(make):
    has = copy.deepcopy(AT_START)
    attach()(has)
    vm, vmi = make.vm(), make.vmi(status={"phase": "Running"})
    vmi["metadata"]["annotations"] = {"hotvirt.io/temporary-volumes": "data,more"}
    vm["spec"]["template"]["spec"], vmi["spec"] = copy.deepcopy(AT_START), has

    update = liveupdate.plan(vm, vmi, AT_START, facts=FACTS, settings=Settings())
    assert (update.patch, update.refusals, livevolumes.adopted(vm, vmi)) == ({}, (), {})

    attach()(vm["spec"]["template"]["spec"])
    update = liveupdate.plan(vm, vmi, AT_START, facts=FACTS, settings=Settings())
    assert (update.patch, update.refusals) == ({}, ())
    assert livevolumes.adopted(vm, vmi) == {"hotvirt.io/temporary-volumes": "more"}


def test_an_ejected_disc_leaves_its_drive(make):
    disc = {"name": "cd", "persistentVolumeClaim": {"claimName": "iso", "hotpluggable": True}}
    at_start = copy.deepcopy(AT_START)
    attach(disc, {"name": "cd", "cdrom": {"bus": "sata"}})(at_start)
    update = planned(make, lambda spec: spec["volumes"].pop(), at_start=at_start)
    assert [v["name"] for v in update.patch["volumes"]] == ["root"]
    assert "domain" not in update.patch

    def remove(spec):
        spec["volumes"].pop()
        spec["domain"]["devices"]["disks"].pop()

    assert "disks[cd]" in planned(make, remove, at_start=at_start).refusals[0].field


def test_a_volume_made_permanent_stays_attached(make):
    at_start = copy.deepcopy(AT_START)
    attach()(at_start)

    def keep(spec):
        spec["volumes"][-1] = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}

    assert planned(make, keep, at_start=at_start).patch == {}


# Room on the node


def room(make, *, cpu=1000, memory="2Gi"):
    vmi = make.vmi()
    vmi["spec"] = AT_START
    return Room(Demand(cpu, parse_bytes(memory)), launcherpod.render(vmi, Settings()))


def test_what_the_node_has_no_room_for_waits_and_the_rest_goes_through(make):
    change = both(put("domain.memory.guest", "8Gi"), put("domain.cpu.sockets", 4), attach())
    update = planned(make, change, room=room(make))
    assert update.patch["domain"]["cpu"] == {"sockets": 4}
    assert "memory" not in update.patch["domain"]
    assert update.patch["volumes"][-1] == DATA
    assert update.refusals == ()
    assert not update.settled
    [held] = update.held
    assert str(held).startswith(
        "spec.template.spec.domain.memory.guest: 2Gi -> 8Gi: its node has 2Gi of memory free, and 6156Mi more"
    )


def test_what_a_quota_does_not_allow_waits_in_the_preconditions_words(make):
    small = Quota(name="small", resource="memory", hard=8 << 30, used=7 << 30)
    tight = structs.replace(room(make, memory="64Gi"), quotas=(small, Quota(name="n", resource="cpu", hard=9, used=9)))
    change = both(put("domain.memory.guest", "4Gi"), put("domain.cpu.sockets", 4))
    update = planned(make, change, room=tight)
    assert update.patch == {}
    said = {held.id: str(held) for held in update.held}
    assert (
        "quota small has 1Gi of memory left of 8Gi (raise it: kubectl edit resourcequota small" in said["node.memory"]
    )
    assert "quota n has 0 of CPUs left of 0.009" in said["node.cpu"]
    assert planned(make, put("domain.memory.guest", "1Gi"), room=tight).held == ()


def test_within_the_room_nothing_waits(make):
    update = planned(make, put("domain.memory.guest", "3Gi"), room=room(make))
    assert update.held == ()
    assert update.patch["domain"]["memory"] == {"guest": "3Gi"}
    shrunk = planned(make, put("domain.memory.guest", "1Gi"), room=room(make, memory="0"))
    assert shrunk.held == ()


def test_cpus_and_requests_can_wait_too(make):
    change = both(put("domain.cpu.sockets", 8), put("domain.resources.requests.memory", "4Gi"))
    update = planned(make, change, room=room(make, cpu=500))
    assert update.patch == {}
    assert {h.id for h in update.held} == {"node.cpu", "node.memory"}


# The cluster's choice, and a lost revision


def test_stage_makes_everything_wait(make):
    facts = Facts(rollout_strategy="Stage")
    change = both(put("domain.memory.guest", "4Gi"), put("domain.cpu.sockets", 4), put("nodeSelector.zone", "a"))
    update = planned(make, change, facts=facts)
    assert update.patch == {}
    assert sorted(r.field for r in update.refusals) == [
        f"spec.template.spec.{f}" for f in ("domain.cpu.sockets", "domain.memory.guest", "nodeSelector.zone")
    ]
    assert "vmRolloutStrategy" in liveupdate.message(update, "web")


def test_without_its_revision_live_fields_still_go_through(make):
    update = planned(make, both(put("domain.cpu.sockets", 4), put("hostname", "x")), started=None)
    assert update.patch["domain"]["cpu"] == {"sockets": 4}
    assert update.refusals == ()


def test_edited_means_any_difference(make):
    vm = make.vm()
    spec = vm["spec"]["template"]["spec"]
    assert not liveupdate.is_edited(vm, copy.deepcopy(spec))
    assert liveupdate.is_edited(vm, {**spec, "hostname": "x"})
    assert not liveupdate.is_edited(vm, None)


# Differences and merge patches in general

documents = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3) | st.lists(inner, max_size=2),
    max_leaves=8,
)
maps = st.dictionaries(st.sampled_from("abcd"), documents, max_size=4)


def apply(target, patch):
    out = dict(target)
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        elif isinstance(value, dict):
            below = out.get(key)
            out[key] = apply(below if isinstance(below, dict) else {}, value)
        else:
            out[key] = value
    return out


@settings(max_examples=50, deadline=None)
@given(maps, maps)
def test_a_merge_patch_makes_the_one_of_the_other(old, new):
    assert apply(old, merge_patch(old, new)) == new
    assert (merge_patch(old, new) == {}) == (old == new)


@settings(max_examples=50, deadline=None)
@given(maps)
def test_nothing_differs_from_itself(document):
    assert list(diff(document, copy.deepcopy(document))) == []


@settings(max_examples=50, deadline=None)
@given(maps, maps)
@example({}, {"a": {"a": []}})
def test_what_differs_is_found(old, new):
    if not list(diff(old, new)):

        def bare(value):
            if isinstance(value, dict):
                return {k: bare(v) for k, v in value.items() if v != []}
            return [bare(v) for v in value] if isinstance(value, list) else value

        assert bare(old) == bare(new)
