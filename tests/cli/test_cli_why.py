"""`hotvirt why`: hotvirt's own answer shown, and upstream's rules where there is none."""

import json

import pytest

from hotvirt.cli import why

BASE = "/apis/kubevirt.io/v1/namespaces/default"
OURS = "/apis/subresources.hotvirt.io/v1alpha1"
PATH = f"{OURS}/namespaces/default/virtualmachines/web/preconditions"
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
PASSES = {"id": "memory.max-guest", "status": "pass", "message": "memory 2Gi is within 4Gi", "actual": "2Gi"}
FAILS = {
    "id": "guest.memory-hotplug", "status": "fail", "message": "no driver \x1b[31mvirtio_mem", "actual": "missing",
    "required": "driver virtio_mem", "mend": "use another kernel",
}  # fmt: skip
OPEN = {"id": "guest.agent", "status": "unknown", "message": "it does not answer", "mend": "install it"}


def report(*changes, possible=False, rules="hotvirt"):
    return {
        "kind": "PreconditionReport", "metadata": {"name": "web", "namespace": "default"}, "rules": rules,
        "running": True, "possible": possible, "changes": list(changes),
    }  # fmt: skip


def change(*findings, possible, name="memory=2Gi", **more):
    return {"change": name, "possible": possible, "findings": list(findings), **more}


def test_what_does_not_hold_is_shown_with_its_values_and_mend(run, api):
    api.answers["GET", PATH] = report(change(PASSES, FAILS, OPEN, possible=False))
    code, out, _ = run("why", "vm/web", "memory=2Gi")
    assert code == 3
    assert out.splitlines() == [
        "vm/web is running; changed in place by hotvirt",
        "",
        "NO memory=2Gi: would not work",
        "  ok memory.max-guest      memory 2Gi is within 4Gi",
        "  NO guest.memory-hotplug  no driver \\x1b[31mvirtio_mem",
        "                           has: missing; needs: driver virtio_mem",
        "                           mend: use another kernel",
        "  ?  guest.agent           it does not answer",
        "                           mend: install it",
    ]
    assert api.asked[0][1] == f"{PATH}?change=memory%3D2Gi"


def test_quiet_shows_only_what_does_not_hold(run, api):
    api.answers["GET", PATH] = report(change(PASSES, FAILS, possible=False))
    _, out, _ = run("why", "vm/web", "memory=2Gi", "-q")
    assert "memory.max-guest" not in out
    assert "guest.memory-hotplug" in out


def test_what_would_work_exits_with_zero(run, api):
    api.answers["GET", PATH] = report(change(PASSES, possible=True), possible=True)
    code, out, _ = run("why", "web", "memory=2Gi")
    assert (code, "ok memory=2Gi: would work" in out) == (0, True)
    api.answers["GET", PATH] = report(change(PASSES, OPEN, possible=True), possible=True)
    code, out, _ = run("why", "web", "memory=2Gi")
    assert (code, "would work, as far as is known" in out) == (0, True)


def test_without_a_change_it_shows_how_far_each_goes(run, api):
    whole = change(PASSES, possible=True, name="memory", now="1Gi", least="32Mi", most="4Gi")
    api.answers["GET", PATH] = report(whole, possible=True)
    code, out, _ = run("why", "vm/web")
    assert code == 0
    assert "ok memory: can be changed\n    now 1Gi; 32Mi to 4Gi\n" in out


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_data_is_the_report_as_it_came(run, api, form):
    api.answers["GET", PATH] = report(change(FAILS, possible=False))
    code, out, _ = run("why", "vm/web", "memory=2Gi", "-o", form)
    assert code == 3
    assert "PreconditionReport" in out
    if form == "json":
        assert json.loads(out) == api.answers["GET", PATH]


def test_colours_are_for_terminals():
    shown = why.show(report(change(PASSES, FAILS, possible=False)), colour=True)
    assert "\x1b[32m" in shown
    assert "✗" in shown
    assert "\x1b" not in why.show(report(change(PASSES, possible=True)), colour=False)


def test_a_wrong_change_and_a_missing_vm_are_errors(run, api):
    api.answers["GET", OURS] = {"kind": "APIResourceList"}
    code, _, err = run("why", "vm/web", "memory=2Gi")
    assert code == 1
    assert "not found" in err
    assert [each[1] for each in api.asked] == [f"{PATH}?change=memory%3D2Gi", OURS], "no other rules are tried"
    assert run("why", "vmi/web")[0] == 1


def test_one_who_may_not_ask_is_told_so(run, api):
    denied = {"kind": "Status", "reason": "Forbidden", "code": 403, "message": "you cannot get preconditions"}
    api.answers["GET", PATH] = (403, denied)
    api.answers["GET", OURS] = {"kind": "APIResourceList"}
    code, _, err = run("why", "vm/web")
    assert (code, "you cannot get preconditions" in err) == (1, True)


TEMPLATE = {"domain": {"memory": {"guest": "2Gi", "maxGuest": "8Gi"}, "cpu": {"sockets": 2, "maxSockets": 8}}}
VM = {"metadata": {"name": "web", "namespace": "default"}, "spec": {"template": {"spec": TEMPLATE}}, "status": {}}
VMI = {
    "metadata": {"name": "web", "namespace": "default"},
    "spec": TEMPLATE,
    "status": {
        "phase": "Running",
        "memory": {"guestAtBoot": "2Gi", "guestCurrent": "2Gi"},
        "conditions": [{"type": "LiveMigratable", "status": "True"}],
    },
}
KUBEVIRT = {"metadata": {"name": "kubevirt", "namespace": "kubevirt"}, "spec": {"workloadUpdateStrategy": {}}}


@pytest.fixture
def upstream(api):
    """A cluster that lets an ordinary user read machines and the KubeVirt object, and no nodes."""
    forbidden = (403, {"kind": "Status", "reason": "Forbidden", "code": 403, "message": "no"})
    api.answers["GET", PATH] = forbidden
    api.answers["GET", f"{BASE}/virtualmachines/web"] = VM
    api.answers["GET", f"{BASE}/virtualmachineinstances/web"] = VMI
    api.answers["GET", f"{BASE}/virtualmachineinstances"] = {"items": [VMI]}
    api.answers["GET", f"{BASE}/virtualmachineinstancemigrations"] = {"items": []}
    api.answers["GET", "/apis/kubevirt.io/v1/kubevirts"] = {"items": [KUBEVIRT]}
    api.answers["GET", "/api/v1/nodes"] = forbidden
    api.answers["GET", "/api/v1/namespaces/default/persistentvolumeclaims"] = {"items": []}
    api.answers["POST", REVIEWS] = {"status": {"allowed": True}}
    return api


def failing(run, *changes):
    code, out, _ = run("why", "vm/web", *changes, "-o", "json")
    found = json.loads(out)
    assert found["rules"] == "kubevirt"
    return code, {each["id"] for one in found["changes"] for each in one["findings"] if each["status"] == "fail"}


@pytest.mark.server
def test_on_upstream_its_own_rules_are_explained(run, upstream):
    assert failing(run, "memory=4Gi") == (3, {"upstream.update-methods"})
    assert failing(run, "cpu=1") == (3, {"upstream.update-methods", "upstream.cpu-never-fewer"})
    assert failing(run, "memory=512Mi") == (
        3, {"upstream.update-methods", "upstream.memory-least", "upstream.memory-boot-size"},
    )  # fmt: skip
    assert failing(run, "disk=data") == (3, {"disk.claim"})


@pytest.mark.server
def test_on_upstream_the_mends_are_upstreams(run, upstream):
    _, out, _ = run("why", "vm/web", "memory=4Gi")
    assert "by the rules of upstream KubeVirt" in out
    assert "add LiveMigrate to spec.workloadUpdateStrategy.workloadUpdateMethods" in out
    assert "nodes cannot be read with these rights" in out


@pytest.mark.server
def test_on_upstream_what_holds_works(run, upstream):
    spec = {"workloadUpdateStrategy": {"workloadUpdateMethods": ["LiveMigrate"]}}
    upstream.answers["GET", "/apis/kubevirt.io/v1/kubevirts"] = {"items": [{**KUBEVIRT, "spec": spec}]}
    label = {"metadata": {"labels": {"kubevirt.io/schedulable": "true"}}}
    upstream.answers["GET", "/api/v1/nodes"] = {"items": [label, label]}
    assert failing(run, "memory=4Gi", "cpu=4") == (0, set())
    code, out, _ = run("why", "vm/web")
    assert code == 0
    assert "now 2Gi; 2Gi to 8Gi" in out


@pytest.mark.server
def test_on_upstream_a_stopped_machine_and_a_wrong_change(run, upstream):
    del upstream.answers["GET", f"{BASE}/virtualmachineinstances/web"]
    assert failing(run, "memory=16Gi") == (0, set())
    code, _, err = run("why", "vm/web", "colour=red")
    assert (code, "cannot be changed while a machine runs" in err) == (1, True)


def test_changes_are_completed():
    asked = why.Asked()
    found = [each.value for each in asked.shell_complete(None, None, "n")]
    assert found == ["no-disk=", "nic=", "no-nic="]
