"""How guests end and start again, each as KubeVirt tells it. A few guests boot beside each other in one home."""

import json

import pytest

pytestmark = [pytest.mark.guest, pytest.mark.timeout(400)]
SMALL = {"memory": "128Mi", "max_memory": "128Mi", "max_sockets": 1}
PATIENT = {"terminationGracePeriodSeconds": 120}

PANIC = (
    "cd $(dirname $(grep -l 0x0011 /sys/bus/pci/devices/*/device)); echo 1 >enable; devmem $(head -c 18 resource) 8 1"
)
"""What a kernel that has the panic device's driver tells it; the tiny guest's has not."""


def word(home, name):
    return home.kubectl("get", "vm", name, "-o", "jsonpath={.status.printableStatus}").stdout


def events(home, name, kind="VirtualMachineInstance"):
    found = home.kubectl_json("get", "events", "--field-selector", f"involvedObject.name={name}")["items"]
    return [(e["type"], e["reason"], e["message"]) for e in found if e["involvedObject"]["kind"] == kind]


def wait_event(home, name, *wanted):
    def said():
        return any((kind, reason) == wanted[:2] and wanted[2] in text for kind, reason, text in events(home, name))

    home.wait_until(f"the event {wanted} of {name}", said)


def in_guest(home, name, line):
    with home.console(name) as console:
        console.type("\n")
        console.read_until("# ")
        console.type(f"{line}\n")
        console.ended()  # with the guest


def pod_of(home, name):
    (pod,) = home.kubectl_json("get", "pods", "-l", f"vm.kubevirt.io/name={name}")["items"]
    return pod["metadata"]["name"]


def evict(home, name):
    pod = pod_of(home, name)
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": "default"}}
    path = f"/api/v1/namespaces/default/pods/{pod}/eviction"
    return home.kubectl("create", "--raw", path, "-f", "-", check=False, text=json.dumps(eviction))


def phases(vmi):
    return [entry["phase"] for entry in vmi["status"]["phaseTransitionTimestamps"]]


def test_each_end_is_told_apart_and_dealt_with_as_its_run_strategy_says(home):
    devices = {"panicDevices": [{"model": "pvpanic"}]}
    home.apply_vm("panics", strategy="RerunOnFailure", **SMALL, extra={"devices": devices})
    home.apply_vm("reboots", **SMALL, extra={"domain": {"rebootPolicy": "Terminate"}})
    home.apply_vm("leaves", strategy="RerunOnFailure", **SMALL)
    home.apply_vm("moves", **SMALL, extra={"spec": {**PATIENT, "evictionStrategy": "LiveMigrate"}})
    names = ("panics", "reboots", "leaves", "moves")
    for name in names:
        home.wait_agent(name)
    first = {name: home.vmi(name) for name in names}
    uids = {name: vmi["metadata"]["uid"] for name, vmi in first.items()}
    for vmi in first.values():
        assert phases(vmi) == ["Pending", "Scheduling", "Scheduled", "Running"]

    in_guest(home, "panics", PANIC)
    wait_event(home, "panics", "Warning", "Stopped", "the guest's kernel panicked")
    home.wait_new_instance("panics", uids["panics"])

    in_guest(home, "reboots", "reboot")
    wait_event(home, "reboots", "Normal", "Stopped", "powered off")
    home.wait_new_instance("reboots", uids["reboots"])

    for verb in ("start", "restart"):
        uid = home.vmi("leaves")["metadata"]["uid"]
        in_guest(home, "leaves", "poweroff")
        home.wait("vm/leaves", "jsonpath={.status.printableStatus}=Stopped")
        left = home.vmi("leaves")
        assert (left["metadata"]["uid"], left["status"]["phase"]) == (uid, "Succeeded")
        assert phases(left)[-1] == "Succeeded"
        assert {"AgentConnected", "Paused"}.isdisjoint(home.conditions("vm/leaves"))
        home.hotvirt(verb, "leaves")
        home.wait_new_instance("leaves", uid)
        home.wait_agent("leaves")

    refused = evict(home, "moves")
    assert "is configured with an eviction strategy but is not live-migratable" in refused.stderr
    assert word(home, "moves") == "Running"
    home.kubectl("delete", "pod", pod_of(home, "moves"), "--wait=false")
    wait_event(home, "moves", "Normal", "ShuttingDown", "")
    home.wait_new_instance("moves", uids["moves"])
    for name in names:
        home.wait(f"vm/{name}", "condition=Ready")
    home.wait_until("one process for each", lambda: len(home.guest_processes()) == len(names))
    assert "startFailure" not in home.kubectl_json("get", "vm", "moves")["status"]


def test_start_paused_and_stop_in_time_or_at_once(home):
    home.apply_vm("still", strategy="Halted", **SMALL, extra={"spec": PATIENT})
    home.hotvirt("start", "still", "--paused")
    home.wait("vm/still", "jsonpath={.status.printableStatus}=Paused")
    vm = home.kubectl_json("get", "vm", "still")
    assert vm["spec"]["runStrategy"] == "Always"
    assert "startStrategy" not in vm["spec"]["template"]["spec"]
    assert home.vmi("still")["status"]["phase"] == "Running"
    assert home.conditions("vm/still")["Ready"]["status"] == "False"
    pod = f"pod/{pod_of(home, 'still')}"
    home.wait(pod, "condition=Ready=false")  # no service sends it anything
    home.kill()
    home.up()
    assert word(home, "still") == "Paused"
    home.hotvirt("unpause", "vm/still")
    home.wait_agent("still")
    home.wait(pod, "condition=Ready")
    home.wait("vm/still", "condition=Ready")
    assert {"Paused", "Resumed"} <= {reason for _, reason, _ in events(home, "still")}

    # A restart is asked for, and the home dies before it is over: the next one finishes it, once.
    uid = home.vmi("still")["metadata"]["uid"]
    home.hotvirt("restart", "still")
    home.kill()
    home.up()
    home.wait_new_instance("still", uid)
    home.wait("vm/still", "condition=Ready")
    assert "stateChangeRequests" not in home.kubectl_json("get", "vm", "still")["status"]

    # One that still boots hears no power button, and may take two minutes: until that is shortened.
    home.hotvirt("stop", "still")
    home.wait("vm/still", "jsonpath={.status.printableStatus}=Stopping")
    home.kill()
    home.up()
    assert word(home, "still") == "Stopping"
    home.hotvirt("stop", "still", "--force", "--grace-period=0")
    home.wait("vm/still", "jsonpath={.status.printableStatus}=Stopped")
    assert {"LiveMigratable", "AgentConnected", "SoftwareEmulation"}.isdisjoint(home.conditions("vm/still"))
    home.assert_nothing_left_of_guests()


def test_an_orphaned_guest_runs_on_and_is_adopted(home):
    home.apply_vm("left", **SMALL)
    home.wait("vm/left", "condition=Ready")
    (qemu,) = home.guest_processes()
    uid = home.vmi("left")["metadata"]["uid"]
    home.kubectl("delete", "vm", "left", "--cascade=orphan", "--timeout=60s")
    assert home.vmi("left")["metadata"]["uid"] == uid
    assert "ownerReferences" not in home.vmi("left")["metadata"]
    home.apply_vm("left", **SMALL)
    home.wait("vm/left", "condition=Ready")
    assert (home.vmi("left")["metadata"]["uid"], home.guest_processes()) == (uid, [qemu])
    home.kubectl("delete", "vm", "left", "--timeout=60s")
    home.assert_nothing_left_of_guests()
    for kind in ("vmi", "pods", "controllerrevisions"):
        assert home.kubectl_json("get", kind)["items"] == []
