"""`hotvirt status`: asked beside actual, and what a person should know."""

import pytest

from hotvirt.cli.status import describe, latest, node_facts, vm_facts

VM = {
    "metadata": {"namespace": "default", "name": "web"},
    "spec": {"template": {"spec": {"domain": {"memory": {"guest": "2Gi"}, "cpu": {"sockets": 2, "cores": 2}}}}},
    "status": {
        "printableStatus": "Running",
        "conditions": [
            {"type": "Ready", "status": "True", "message": "unremarkable"},
            {"type": "HotMemoryChange", "status": "True", "message": "guest has 1.5 of 2 GiB"},
        ],
    },
}
VMI = {
    "metadata": {"namespace": "default", "name": "web"},
    "status": {
        "memory": {"guestCurrent": "1536Mi"},
        "currentCPUTopology": {"sockets": 1, "cores": 2, "threads": 1},
        "interfaces": [{"ipAddress": "10.0.0.2"}],
    },
}
NODE = {
    "metadata": {"name": "here", "annotations": {"hotvirt.io/network": "bridge", "other": "x"}},
    "status": {
        "conditions": [
            {"type": "Ready", "status": "True"},
            {"type": "SoftwareEmulation", "status": "True", "message": "there is no /dev/kvm"},
        ]
    },
}


def test_asked_and_actual_side_by_side():
    found = {"home": None, "nodes": [node_facts(NODE)], "virtualMachines": [vm_facts(VM, VMI), vm_facts(VM, None)]}
    assert describe(found).splitlines() == [
        "Node     here: ready",
        "         acceleration: software emulation: there is no /dev/kvm",
        "         network: bridge",
        "",
        "NAME   STATUS    MEMORY ASKED/HAS   CPUS ASKED/HAS   IP         NOTES",
        "web    Running   2Gi / 1536Mi       4 / 2            10.0.0.2   guest has 1.5 of 2 GiB",
        "web    Running   2Gi / -            4 / -            -          guest has 1.5 of 2 GiB",
    ]


def test_why_guests_have_no_bridge_is_told():
    notes = {"hotvirt.io/network": "user", "hotvirt.io/network-notice": "dnsmasq is missing"}
    found = node_facts({**NODE, "metadata": {"name": "here", "annotations": notes}})
    assert found["facts"]["network"] == "user: dnsmasq is missing"
    notes["hotvirt.io/network-notice"] = ""
    assert node_facts({**NODE, "metadata": {"name": "here", "annotations": notes}})["facts"]["network"] == "user"


def test_a_machine_of_an_instancetype_asks_for_what_its_instance_does():
    sized = {**VM, "spec": {"instancetype": {"name": "small"}, "template": {"spec": {"domain": {}}}}}
    asks = {"domain": {"memory": {"guest": "1Gi"}, "cpu": {"sockets": 3}}}
    found = vm_facts(sized, {**VMI, "spec": asks})
    assert (found["memory"]["asked"], found["cpus"]["asked"]) == ("1Gi", 3)
    found = vm_facts(sized, None)
    assert (found["memory"]["asked"], found["cpus"]["asked"]) == (None, None)


def test_guests_without_a_vm_are_shown_too(run, api):
    owner = {"kind": "VirtualMachineInstanceReplicaSet", "name": "workers", "controller": True}
    guest = {**VMI, "metadata": {"namespace": "default", "name": "workers-x", "ownerReferences": [owner]},
             "spec": {"domain": {"memory": {"guest": "1536Mi"}, "cpu": {"cores": 2}}},
             "status": {**VMI["status"], "phase": "Running"}}  # fmt: skip
    api.answers["GET", "/api/v1/nodes"] = {"items": [NODE]}
    api.answers["GET", "/apis/kubevirt.io/v1/virtualmachines"] = {"items": []}
    api.answers["GET", "/apis/kubevirt.io/v1/virtualmachineinstances"] = {"items": [guest]}
    row = run("status")[1].splitlines()[-1].split()
    assert row == ["workers-x", "Running", "1536Mi", "/", "1536Mi", "2", "/", "2", "10.0.0.2", "of",
                   "VirtualMachineInstanceReplicaSet", "workers"]  # fmt: skip


def test_an_empty_home_says_what_to_do():
    silent = {**NODE, "status": {}}
    text = describe({"home": None, "nodes": [node_facts(silent)], "virtualMachines": []})
    assert "here: not ready: has not reported yet" in text
    assert "kubectl apply -f examples/vm.yaml" in text


def test_why_a_vm_is_still_starting_is_what_was_last_said_of_its_instance(run, api):
    def event(time, message, uid="u"):
        return {"metadata": {}, "involvedObject": {"uid": uid}, "lastTimestamp": time, "message": message}

    starting = {**VM, "status": {"printableStatus": "Starting"}}
    said = [event("2026-01-02T00:00:00Z", "building image x"), event("2026-01-01T00:00:00Z", "created")]
    api.answers["GET", "/api/v1/nodes"] = {"items": []}
    api.answers["GET", "/api/v1/events"] = {"items": [*said, event("2026-01-03T00:00:00Z", "other", uid="v")]}
    api.answers["GET", "/apis/kubevirt.io/v1/virtualmachines"] = {"items": [starting]}
    instance = {**VMI, "metadata": {**VMI["metadata"], "uid": "u"}}
    api.answers["GET", "/apis/kubevirt.io/v1/virtualmachineinstances"] = {"items": [instance]}
    assert run("status")[1].splitlines()[-1].endswith("building image x")


def test_the_command_reads_it_all_from_the_api(run, api):
    api.answers["GET", "/api/v1/nodes"] = {"items": [NODE]}
    api.answers["GET", "/apis/kubevirt.io/v1/virtualmachines"] = {"items": [VM]}
    api.answers["GET", "/apis/kubevirt.io/v1/virtualmachineinstances"] = {"items": [VMI]}
    code, out, _ = run("status")
    assert code == 0
    assert "2Gi / 1536Mi" in out


def test_what_keeps_a_guest_from_starting_is_told_rather_than_its_last_event():
    refused = {"type": "Synchronized", "status": "False", "message": "volume 'root': no such image"}
    vm = {**VM, "status": {"printableStatus": "Starting", "conditions": [refused]}}
    vmi = {**VMI, "metadata": {**VMI["metadata"], "uid": "u"}}
    assert vm_facts(vm, vmi, {"u": "Created virtual machine pod"})["notes"] == ["volume 'root': no such image"]
    going = {**VM, "status": {"printableStatus": "Starting", "conditions": [{**refused, "status": "True"}]}}
    assert vm_facts(going, vmi, {"u": "Pulling image"})["notes"] == ["Pulling image"]


def test_of_two_events_in_one_second_the_one_written_later_is_the_last():
    def event(message, version, at="2026-01-01T00:00:01Z"):
        metadata = {"resourceVersion": version}
        return {"metadata": metadata, "involvedObject": {"uid": "u"}, "lastTimestamp": at, "message": message}

    told = [event("Failed to pull", "12"), event("Created pod", "9"), event("long ago", "13", "2026-01-01T00:00:00Z")]
    assert latest(told) == {"u": "Failed to pull"}


VMS_OF = "/apis/kubevirt.io/v1/namespaces/{}/virtualmachines"
VMIS_OF = "/apis/kubevirt.io/v1/namespaces/{}/virtualmachineinstances"
NO = (403, {"kind": "Status", "status": "Failure", "reason": "Forbidden", "code": 403, "message": "may not list"})


@pytest.mark.parametrize("words", [("status", "-n", "shop"), ("-n", "shop", "status")])
def test_the_vms_of_one_namespace(run, api, words):
    api.answers["GET", "/api/v1/nodes"] = {"items": [NODE]}
    api.answers["GET", VMS_OF.format("shop")] = {"items": [{**VM, "metadata": {"namespace": "shop", "name": "till"}}]}
    api.answers["GET", VMIS_OF.format("shop")] = {"items": []}
    code, out, _ = run(*words)
    assert (code, out.splitlines()[-1].split()[0]) == (0, "till")
    assert "VMs      of the namespace shop" in out


def test_who_may_see_one_namespace_alone_sees_that(run, api):
    for path in ("/api/v1/nodes", "/api/v1/events", "/apis/kubevirt.io/v1/virtualmachines"):
        api.answers["GET", path] = NO
    api.answers["GET", "/api/v1/namespaces/default/events"] = NO
    starting = {**VM, "status": {"printableStatus": "Starting"}}
    api.answers["GET", VMS_OF.format("default")] = {"items": [starting]}
    api.answers["GET", VMIS_OF.format("default")] = {"items": [VMI]}
    code, out, _ = run("status")
    assert (code, out.splitlines()[-1].split()[:2]) == (0, ["web", "Starting"])
    assert "VMs      of the namespace default" in out


def test_a_namespace_that_was_asked_for_and_may_not_be_seen_is_told(run, api):
    api.answers["GET", VMS_OF.format("shop")] = NO
    assert run("status", "-n", "shop")[::2] == (1, "may not list")
