"""hotvirt logs: the newest launcher pod is found, and its log shown."""

from hotvirt.cli.logs import harmless

PODS = "/api/v1/namespaces/default/pods"


def pod(name, made):
    return {"metadata": {"name": name, "creationTimestamp": made}}


def test_the_newest_launchers_log_is_shown(api, run):
    pods = [pod("virt-launcher-web-new", "2026-02-01T00:00:00Z"), pod("virt-launcher-web-old", "2026-01-01T00:00:00Z")]
    api.answers["GET", PODS] = {"items": pods}
    api.answers["GET", f"{PODS}/virt-launcher-web-new/log"] = "qemu: a warning"
    code, out, _ = run("logs", "vm/web", "--tail", "3", "-f")
    assert (code, out) == (0, '"qemu: a warning"')
    asked = [path for _, path, _ in api.asked]
    assert "labelSelector=kubevirt.io%3Dvirt-launcher%2Cvm.kubevirt.io%2Fname%3Dweb" in asked[0]
    assert asked[1] == f"{PODS}/virt-launcher-web-new/log?follow=true&tailLines=3"


def test_a_vm_without_a_pod_is_said(api, run):
    api.answers["GET", PODS] = {"items": []}
    code, _, said = run("logs", "web")
    assert code != 0
    assert "web has no launcher pod" in said


def test_a_refusal_is_shown(api, run):
    api.answers["GET", PODS] = {"items": [pod("p", "2026-02-01T00:00:00Z")]}
    api.answers["GET", f"{PODS}/p/log"] = (400, {"message": "waiting to start", "code": 400, "reason": "BadRequest"})
    _, _, said = run("logs", "web")
    assert "waiting to start" in said


def test_what_a_guest_made_up_cannot_steer_the_terminal():
    assert harmless("virtio: bad \x1b[2Jname\x9b\r\n\tand ü\n") == "virtio: bad \\x1b[2Jname\\x9b\\x0d\n\tand ü\n"
