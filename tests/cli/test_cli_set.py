"""`hotvirt set`: what is asked for, and when it is said to be done or not to come."""

import pytest

from hotvirt.cli.errors import CliError
from hotvirt.cli.resize import Goal, goal, patch_for, progress

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
    assert patch_for(wanted) == {"spec": {"template": {"spec": {"domain": domain}}}}


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


@pytest.mark.parametrize("instance", [None, vmi(phase="Scheduling")])
def test_a_vm_that_does_not_run_gets_it_at_its_next_start(instance):
    assert progress(vm(), instance, Goal(sockets=2)).done


def test_the_command_shows_each_stage(run, api):
    base = "/apis/kubevirt.io/v1/namespaces/default"
    api.answers["GET", f"{base}/virtualmachines/web"] = vm()
    api.answers["PATCH", f"{base}/virtualmachines/web"] = vm()
    api.answers["GET", f"{base}/virtualmachineinstances/web"] = [vmi(), vmi("1536Mi"), vmi("2Gi")]
    code, out, _ = run("set", "vm/web", "memory=2Gi")
    stages = [line.partition(" s  ")[2] for line in out.splitlines()]
    assert (code, stages) == (0, ["memory 1 GiB of 2 GiB", "memory 1.5 GiB of 2 GiB", "memory 2 GiB of 2 GiB"])


def test_the_command_fails_when_time_is_over(run, api):
    base = "/apis/kubevirt.io/v1/namespaces/default"
    api.answers["GET", f"{base}/virtualmachines/web"] = api.answers["PATCH", f"{base}/virtualmachines/web"] = vm()
    api.answers["GET", f"{base}/virtualmachineinstances/web"] = vmi()
    code, _, err = run("set", "web", "memory=2Gi", "--timeout=0")
    assert code == 1
    assert "not complete after 0 s: memory 1 GiB of 2 GiB" in err
