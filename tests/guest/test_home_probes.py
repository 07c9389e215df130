"""Probes of a guest, from its manifest to what services and run strategies make of them."""

import pytest

pytestmark = [pytest.mark.guest, pytest.mark.timeout(300)]

PORTS = [{"name": "http", "port": 8080}]
DISK = {"name": "scratch", "disk": {"bus": "virtio"}}
SERVICE = {
    "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
    "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]},
}  # fmt: skip
SERVE = "mkdir -p /run/www && echo up >/run/www/ready && httpd -p 8080 -h /run/www"


def probed(**probes):
    interface = {"name": "default", "masquerade": {}, "ports": PORTS}
    return {"domain": {"devices": {"disks": [DISK], "interfaces": [interface]}}, "spec": probes}


def in_guest(home, command):
    with home.console("web") as console:
        console.type(f"\n{command}; echo done-$((40 + 2))\n")
        console.read_until("done-42")


def ready(home):
    found = home.conditions("vmi/web").get("Ready", {})
    return found.get("status"), found.get("reason")


def test_probes_decide_on_services_and_restarts(home):
    home.apply(SERVICE)
    home.apply_vm("web", extra=probed(
        readinessProbe={"httpGet": {"port": "http", "path": "/ready"}, "periodSeconds": 1, "failureThreshold": 2},
        livenessProbe={"exec": {"command": ["test", "!", "-e", "/run/sick"]}, "periodSeconds": 1,
                       "timeoutSeconds": 10, "initialDelaySeconds": 40, "failureThreshold": 2},
        terminationGracePeriodSeconds=5,
    ))  # fmt: skip
    home.wait_agent("web")
    home.wait_message("vmi/web", "Readiness probe failed: port 8080: refused: nothing listens there in the guest")
    assert ready(home) == ("False", "ContainersNotReady")
    assert home.vmi("web")["status"]["phase"] == "Running"
    assert home.table("get", "endpoints", "web")[-1][1] == "<none>"
    (row,) = home.table("get", "pods", "--no-headers")
    assert row[1:3] == ["1/2" if row[1].endswith("2") else "0/1", "Running"]

    in_guest(home, SERVE)
    home.wait("vmi/web", "condition=Ready")
    home.wait("vm/web", "condition=Ready")
    home.wait_until("the service has it", lambda: ":8080" in home.table("get", "endpoints", "web")[-1][1])
    home.kill()  # the next home asks on, and what was said before holds meanwhile
    home.up()
    assert ready(home)[0] == "True"
    in_guest(home, "rm /run/www/ready")
    home.wait_message("vmi/web", "Readiness probe failed: HTTP status 404")
    home.wait("vmi/web", "condition=Ready=false")
    home.wait_until("the service lost it", lambda: home.table("get", "endpoints", "web")[-1][1] == "<none>")

    refused = home.hotvirt("pause", "vmi", "web", check=False)
    assert "pausing VMIs with LivenessProbe is not supported" in refused.stderr
    old = home.vmi("web")["metadata"]["uid"]
    in_guest(home, "touch /run/sick")
    home.wait_new_instance("web", old)
    said = home.kubectl("get", "events").stdout
    assert "Liveness probe failed: test ended with 1" in said
    assert "Container compute failed liveness probe" in said
    assert "the liveness probe failed (test ended with 1), so the guest was stopped" in said


def test_a_program_that_hangs_is_ended_in_the_guest(home):
    hang = ["sh", "-c", "sleep 4711 & sleep 4712; true"]
    probe = {"exec": {"command": hang}, "periodSeconds": 3, "timeoutSeconds": 2}
    home.apply_vm("web", extra=probed(readinessProbe=probe))
    home.wait_agent("web")
    home.wait_message("vmi/web", "Readiness probe failed: no answer within 2 s")
    with home.console("web") as console:
        look = "for n in 1 2 3; do until grep -ls '471[12]' /proc/[0-9]*/cmdline >/tmp/p; do sleep 0.2; done; "
        look += "for p in $(cat /tmp/p); do while [ -e $p ]; do sleep 0.2; done; done; done"
        console.type(f"\n{look}; echo ended-$((40 + 2))\n")
        console.read_until("ended-42")
