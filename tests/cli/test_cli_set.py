"""`hotvirt set`: what is asked for, and when it is said to be done or not to come."""

import pytest

from hotvirt.api import defaults, validation_sizes
from hotvirt.cli.errors import CliError
from hotvirt.cli.resize import Goal, goal, progress, told_before
from hotvirt.cli.sizepatch import patch_for, says

GI = 1 << 30


def vm(conditions=(), **cpu):
    return {
        "metadata": {"name": "web", "resourceVersion": "1"},
        "spec": {"template": {"spec": {"domain": {"cpu": cpu}}}},
        "status": {"conditions": list(conditions)},
    }


def vmi(memory="1Gi", sockets=1, conditions=(), phase="Running"):
    return {
        "metadata": {"name": "web", "resourceVersion": "2"},
        "status": {
            "phase": phase, "memory": {"guestCurrent": memory}, "currentCPUTopology": {"sockets": sockets},
            "conditions": list(conditions),
        },
    }  # fmt: skip


def test_asked_for():
    wanted = goal(vm(cores=2), ("memory=1536Mi", "cpu=4"))
    assert wanted == Goal(memory=1536 << 20, sockets=2)
    domain = {"memory": {"guest": "1536Mi"}, "cpu": {"sockets": 2}}
    assert patch_for(vm(cores=2), wanted.memory, wanted.sockets) == edit_of(domain)


def edit_of(domain):
    return {"spec": {"template": {"spec": {"domain": domain}}}}


def amounts(requests=None, limits=None, of="memory"):
    both = {"requests": requests, "limits": limits}
    return {"resources": {kind: {of: value} for kind, value in both.items() if value}}


G1, MOST = {"memory": {"guest": "1Gi"}}, {"memory": {"maxGuest": "8Gi"}}
EDITS = {
    "nothing is said": ({}, 2 * GI, {"memory": {"guest": "2Gi"}}),
    "guest": ({**G1, **amounts("512Mi")}, 2 * GI, {"memory": {"guest": "2Gi"}}),
    "requests": (amounts("1Gi"), 2 * GI, amounts("2Gi")),
    "requests below a maximum": ({**MOST, **amounts("1Gi")}, 2 * GI, amounts("2Gi")),
    "requests below a limit": (amounts("1Gi", "4Gi"), 2 * GI, amounts("2Gi")),
    "requests beyond the limit": (amounts("1Gi", "1536Mi"), 2 * GI, amounts("2Gi", "2Gi")),
    "guaranteed grows": ({**MOST, **amounts("1Gi", "1024Mi")}, 2 * GI, amounts("2Gi", "2Gi")),
    "guaranteed shrinks": (amounts("2Gi", "2Gi"), GI, amounts("1Gi", "1Gi")),
    "limits": (amounts(None, "1Gi"), 2 * GI, amounts(None, "2Gi")),
    "guest beyond the limit": ({**G1, **amounts("512Mi", "1Gi")}, 2 * GI,
                               {"memory": {"guest": "2Gi"}, **amounts(None, "2Gi")}),
    "guest below the limit": ({**G1, **amounts(None, "4Gi")}, 2 * GI, {"memory": {"guest": "2Gi"}}),
    "guest and all guaranteed": ({**G1, **amounts("1Gi", "1Gi")}, 2 * GI,
                                 {"memory": {"guest": "2Gi"}, **amounts("2Gi", "2Gi")}),
}  # fmt: skip


@pytest.mark.parametrize(("domain", "size", "edit"), EDITS.values(), ids=EDITS)
def test_memory_is_edited_in_the_field_that_sizes_the_guest(domain, size, edit):
    template = edit_of(domain)
    assert patch_for(template, size, None) == edit_of(edit)
    edited = {**domain, **edit}
    edited["memory"] = {**domain.get("memory", {}), **edit.get("memory", {})}
    edited["resources"] = {**domain.get("resources", {}), **edit.get("resources", {})}
    assert defaults.guest_memory(edited) == size
    assert not validation_sizes._memory(edited, "domain"), "the API takes it"
    assert says(edit_of(edited), patch_for(edit_of(edited), size, None)), "the same again changes nothing"
    assert not says(template, edit_of(edit))


def cpus(requests=None, limits=None):
    return amounts(requests, limits, of="cpu")


@pytest.mark.parametrize(
    ("domain", "count", "edit"),
    [
        ({}, 2, {"cpu": {"sockets": 2}}),
        ({"cpu": {"model": "host-model"}, **cpus("1")}, 2, cpus("2")),
        ({"cpu": {"sockets": 1}, **cpus("1")}, 2, {"cpu": {"sockets": 2}}),
        (cpus("500m", "1"), 3, cpus(None, "3")), (cpus("1", "1000m"), 3, cpus("3", "3")),
        (cpus("3", "4"), 2, cpus("2", "2")), (cpus(None, "1500m"), 2, {}), (cpus("500m"), 2, cpus("2")),
    ],
)  # fmt: skip
def test_cpus_are_edited_in_the_field_that_counts_them(domain, count, edit):
    assert patch_for(edit_of(domain), None, count) == edit_of(edit)
    resources = {**domain.get("resources", {}), **edit.get("resources", {})}
    assert defaults.sockets({**domain, **edit, "resources": resources}) == count


def test_both_at_once_and_the_same_again():
    small = edit_of({"resources": {"requests": {"memory": "1Gi", "cpu": "1"}}})
    large = {"resources": {"requests": {"memory": "2Gi", "cpu": "2"}}}
    assert patch_for(small, 2 * GI, 2) == edit_of(large)
    waits = {
        **edit_of(large),
        "status": {"conditions": [{"type": "RestartRequired", "status": "True", "message": "no"}]},
    }
    assert told_before(waits, None, Goal(memory=2 * GI, sockets=2)) == frozenset()
    assert told_before(waits, None, Goal(memory=3 * GI)) == {"no"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("memory=lots", "memory=2Gi"),
        ("cpu=0", "from 1 up"),
        ("cpu=3", "multiple of 2"),
        ("disk=1", "memory=SIZE"),
    ],
)
def test_what_cannot_be_meant(change, says):
    with pytest.raises(CliError, match=says):
        goal(vm(cores=2), (change,))


def test_done_only_when_the_guest_has_it_and_nothing_is_under_way():
    wanted = Goal(memory=2 * GI, sockets=2)
    assert not progress(vm(), vmi(), wanted).done
    assert progress(vm(), vmi("1536Mi", 2), wanted).text == "memory 1.5 GiB of 2 GiB, CPU sockets 2 of 2"
    changing = vmi("2Gi", 2, [{"type": "HotMemoryChange", "status": "True"}])
    assert not progress(vm(), changing, wanted).done
    assert (
        progress(vm(), vmi(conditions=[{"type": "HotVCPUChange", "status": "True"}]), Goal(sockets=2)).stage == "QEMU"
    )
    assert progress(vm(), vmi("2Gi", 2), wanted).done


def test_a_guest_that_shrinks_is_said_to():
    assert progress(vm(), vmi("2Gi", 3), Goal(memory=GI, sockets=1)).text == (
        "memory 2 GiB to become 1 GiB, CPU sockets 3 to become 1"
    )


def test_memory_is_asked_for_in_whole_blocks():
    assert goal(vm(), ("memory=1500M",)).memory == 715 * (2 << 20)
    with pytest.raises(CliError, match="one block of 2Mi; did you mean memory=1Gi"):
        goal(vm(), ("memory=1",))


def test_a_restart_that_is_needed_is_said_with_its_field_and_the_command():
    pending = vm([{"type": "RestartRequired", "status": "True", "message": "domain.cpu.cores changed"}])
    now = progress(pending, vmi(), Goal(memory=GI))
    assert now.failed == "domain.cpu.cores changed; to do so: hotvirt restart vm/web"


def test_a_guest_that_does_not_follow_is_said_to():
    refused = vmi(conditions=[{"type": "HotMemoryChange", "status": "False", "message": "guest took 1.2 of 2 GiB"}])
    assert progress(vm(), refused, Goal(memory=2 * GI)).failed == "guest took 1.2 of 2 GiB"


def test_what_was_told_of_an_earlier_edit_is_not_told_of_this_one():
    old = vmi(conditions=[{"type": "HotMemoryChange", "status": "False", "message": "1Gi asked, the guest has 1408Mi"}])
    waits = vm([{"type": "RestartRequired", "status": "True", "message": "domain.cpu.cores: 1 -> 2"}], sockets=1)
    before = told_before(waits, old, Goal(memory=2 * GI))
    assert not progress(waits, old, Goal(memory=2 * GI), before).failed
    assert not progress(waits, old, Goal(memory=2 * GI), before).done
    now = vmi(conditions=[{"type": "HotMemoryChange", "status": "False", "message": "2Gi asked, the guest has 1408Mi"}])
    assert progress(waits, now, Goal(memory=2 * GI), before).failed == "2Gi asked, the guest has 1408Mi"
    assert progress(vm(), now, Goal(sockets=1)).done, "a stuck change of memory is none of the CPUs'"


def test_who_asks_for_the_same_again_hears_why_it_is_not_so():
    waits = vm([{"type": "RestartRequired", "status": "True", "message": "4 sockets are too many"}], sockets=4)
    assert told_before(waits, vmi(), Goal(sockets=4)) == frozenset()
    assert told_before(waits, None, Goal(sockets=3)) == {"4 sockets are too many"}


@pytest.mark.parametrize("instance", [None, vmi(phase="Scheduling")])
def test_a_vm_that_does_not_run_gets_it_at_its_next_start(instance):
    assert progress(vm(), instance, Goal(sockets=2)).done


BASE = "/apis/kubevirt.io/v1/namespaces/default"
OURS = "/apis/subresources.hotvirt.io/v1alpha1/namespaces/default"
WHY = f"{OURS}/virtualmachines/web/preconditions"


def report(*, possible=True):
    finding = {"id": "memory.max-guest", "status": "pass" if possible else "fail", "message": "within 4Gi"}
    change = {"change": "memory=2Gi", "possible": possible, "findings": [finding]}
    metadata = {"name": "web", "namespace": "default"}
    return {"metadata": metadata, "rules": "hotvirt", "running": True, "possible": possible, "changes": [change]}


@pytest.fixture
def served(api):
    """A VM with what `why` says of it."""
    api.answers["GET", f"{BASE}/virtualmachines/web"] = api.answers["PATCH", f"{BASE}/virtualmachines/web"] = vm()
    api.answers["GET", f"{BASE}/virtualmachineinstances/web"] = vmi()
    api.answers["GET", WHY] = report()
    return api


def requested(instance, size):
    instance["status"]["memory"]["guestRequested"] = size
    return instance


def stages(out):
    return [" ".join(line.partition(" s  ")[2].split()) for line in out.splitlines()]


def patches(api):
    return [path for method, path, _ in api.asked if method == "PATCH"]


def test_the_command_shows_each_stage(run, served):
    served.answers["GET", f"{BASE}/virtualmachineinstances/web"] = [
        vmi(), vmi(), requested(vmi("1536Mi"), "2Gi"), requested(vmi("2Gi"), "2Gi"),
    ]  # fmt: skip
    served.answers["GET", f"{OURS}/virtualmachineinstances/web/guestfacts"] = {
        "memTotalBytes": 2 * GI, "onlineCPUs": 1,
    }  # fmt: skip
    code, out, _ = run("set", "vm/web", "memory=2Gi")
    assert (code, stages(out)) == (0, [
        "checked 1 facts",
        "asked memory 1 GiB of 2 GiB",
        "QEMU memory 1.5 GiB of 2 GiB",
        "guest memory 2 GiB of 2 GiB",
        "verified the guest reports 2 GiB of memory, 1 CPU online",
    ])  # fmt: skip


def test_the_command_fails_when_time_is_over(run, served):
    code, _, err = run("set", "web", "memory=2Gi", "--timeout=0")
    assert code == 1
    assert "not complete after 0 s: memory 1 GiB of 2 GiB" in err


def test_what_would_not_work_is_explained_and_not_asked_for(run, served):
    served.answers["GET", WHY] = report(possible=False)
    code, out, _ = run("set", "vm/web", "memory=2Gi")
    assert (code, patches(served)) == (3, [])
    assert "NO memory.max-guest" in out
    assert "nothing was changed; to ask for it all the same: --anyway" in out
    code, out, _ = run("set", "vm/web", "memory=2Gi", "--anyway", "--no-wait")
    assert (code, len(patches(served))) == (0, 1)
    assert "not all of which hold" in out


@pytest.mark.parametrize(("possible", "code"), [(True, 0), (False, 3)])
def test_explain_shows_all_and_changes_nothing(run, served, possible, code):
    served.answers["GET", WHY] = report(possible=possible)
    found, out, _ = run("set", "vm/web", "memory=2Gi", "--explain")
    assert (found, patches(served)) == (code, [])
    assert "memory.max-guest" in out
    assert "--anyway" not in out


def test_a_dry_run_is_the_apis_too(run, served):
    code, out, _ = run("set", "vm/web", "memory=2Gi", "--dry-run")
    assert (code, patches(served)) == (0, [f"{BASE}/virtualmachines/web?dryRun=All"])
    assert stages(out)[-1] == "asked vm/web would be asked for memory=2Gi"
