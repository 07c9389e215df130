"""Where a pod fits, and in numbers why not."""

import pytest

from hotvirt.controllers import launcherpod
from hotvirt.controllers.placement import Demand, Unfit, demand, place

GIB = 1 << 30


def pod(make, guest="1Gi", *, cpu=None, **spec):
    domain = {"memory": {"guest": guest}, "resources": {"requests": {"cpu": cpu}} if cpu else {}}
    return launcherpod.render(make.vmi(domain=domain, **spec), launcherpod.Settings())


def dedicated(make, vcpus, **cpu):
    cpu = {"sockets": vcpus, "dedicatedCpuPlacement": True, **cpu}
    return launcherpod.render(make.vmi(domain={"memory": {"guest": "1Gi"}, "cpu": cpu}), launcherpod.Settings())


def test_cpus_for_one_machine_alone_are_counted_and_one_stays_for_all_others(make):
    node = make.node(labels={"cpumanager": "true"})
    node["metadata"]["labels"]["kubevirt.io/schedulable"] = "true"
    assert demand(dedicated(make, 2)).dedicated == 2
    assert demand(dedicated(make, 2, isolateEmulatorThread=True)).dedicated == 3
    assert demand(pod(make)).dedicated == 0
    assert place(dedicated(make, 3), [node], {}) == "one"
    assert place(pod(make), [node], {"one": Demand(3000, 0, dedicated=3)}) == "one"
    for wanted, taken, says in (
        (dedicated(make, 4), Demand(), "4 CPUs of its own asked for, 3 of 3 free"),
        (dedicated(make, 2), Demand(2000, dedicated=2), "2 CPUs of its own asked for, 1 of 3 free"),
        (dedicated(make, 3, isolateEmulatorThread=True), Demand(), "4 CPUs of its own asked for"),
    ):
        found = place(wanted, [node], {"one": taken})
        assert isinstance(found, Unfit)
        assert says in found.message
        assert "stop another machine with dedicatedCpuPlacement" in found.message
    node["metadata"]["labels"]["cpumanager"] = "false"
    assert "no CPU to spare" in place(dedicated(make, 1), [node], {}).message


def test_the_node_with_the_most_room_left(make):
    nodes = [make.node("small"), make.node("large", memory="16Gi")]
    assert place(pod(make), nodes, {}) == "large"
    assert place(pod(make), nodes, {"large": Demand(0, 12 * GIB)}) == "small"


@pytest.mark.parametrize(
    ("node", "asked", "says"),
    [
        ({}, {"guest": "1000Gi"}, ["0/1 nodes", "1002.1Gi of memory asked for (guest and QEMU), 6.0Gi of 8.0Gi free",
                                   "lower spec.template.spec.domain.memory.guest or stop another machine"]),
        ({}, {"cpu": "16"}, ["16 CPUs asked for, 3 of 4 free", "spec.template.spec.domain.cpu.sockets"]),
        ({"unschedulable": True}, {}, ["kubectl uncordon one"]),
        ({"labels": {"kubevirt.io/schedulable": "false"}}, {}, ["kubevirt.io/schedulable=true", "node agent"]),
        ({}, {"nodeSelector": {"disk": "fast"}}, ["lacks the label disk=fast", "kubectl label node one disk=fast"]),
        ({"taints": [{"key": "k", "effect": "NoSchedule"}]}, {}, ["taint k=:NoSchedule"]),
        ({}, {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]}}},
         ["podAffinity is not understood"]),
        ({}, {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]}}}}, ["nodeAffinity"]),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_in_numbers_with_the_mend(make, node, asked, says):
    found = place(pod(make, **asked), [make.node(**node)], {"one": Demand(1000, 2 * GIB)})
    assert isinstance(found, Unfit)
    for text in says:
        assert text in found.message


def test_no_nodes_and_a_node_that_is_not_ready(make):
    assert "no node is registered" in place(pod(make), [], {}).message
    node = make.node()
    node["status"]["conditions"] = [{"type": "Ready", "status": "False", "message": "QEMU is missing"}]
    assert "one: it is not ready (QEMU is missing)" in place(pod(make), [node], {}).message


@pytest.mark.parametrize(
    ("operator", "values", "fits"),
    [("In", ["a"], True), ("NotIn", ["a"], False), ("Exists", [], True), ("DoesNotExist", [], False),
     ("Gt", ["1"], False)],
)  # fmt: skip
def test_node_affinity(make, operator, values, fits):
    term = {"matchExpressions": [{"key": "zone", "operator": operator, "values": values}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}
    found = place(pod(make, affinity=affinity), [make.node(labels={"zone": "a"})], {})
    assert (found == "one") is fits


@pytest.mark.parametrize(
    ("operator", "bound", "fits"),
    [("Gt", "4", True), ("Gt", "8", False), ("Lt", "9", True), ("Gt", "many", False), ("Lt", "", False)],
)
def test_node_affinity_by_a_number(make, operator, bound, fits):
    term = {"matchExpressions": [{"key": "cores", "operator": operator, "values": [bound]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}
    assert (place(pod(make, affinity=affinity), [make.node(labels={"cores": "8"})], {}) == "one") is fits


@pytest.mark.parametrize(
    ("toleration", "fits"),
    [
        ({"key": "k", "value": "v"}, True),
        ({"key": "k", "operator": "Exists", "effect": "NoSchedule"}, True),
        ({"operator": "Exists"}, True),
        ({"key": "k", "value": "other"}, False),
        ({"key": "k", "operator": "Exists", "effect": "NoExecute"}, False),
    ],
)
def test_tolerations(make, toleration, fits):
    node = make.node(taints=[{"key": "k", "value": "v", "effect": "NoSchedule"}])
    assert (place(pod(make, tolerations=[toleration]), [node], {}) == "one") is fits


def test_demand_sums_containers():
    containers = [{"resources": {"requests": {"cpu": "250m", "memory": "1Gi"}}}, {"resources": {}}, {}]
    assert demand({"spec": {"containers": containers}}) == Demand(250, GIB)


def test_huge_pages_are_room_of_their_own_and_how_to_have_them_is_said(make):
    domain = {"memory": {"guest": "1Gi", "hugepages": {"pageSize": "2Mi"}}}
    wanted = launcherpod.render(make.vmi(domain=domain), launcherpod.Settings())
    asked = wanted["spec"]["containers"][0]["resources"]
    assert (asked["requests"]["hugepages-2Mi"], asked["limits"]["hugepages-2Mi"]) == ("1Gi", "1Gi")
    assert demand(wanted).memory < GIB
    assert demand(wanted).huge == (GIB, 0)
    found = place(wanted, [make.node()], {})
    assert "1.0Gi of hugepages-2Mi asked for, 0.0Gi of 0.0Gi free" in found.message
    assert "sysctl vm.nr_hugepages=512" in found.message
    node = make.node()
    node["status"]["allocatable"]["hugepages-2Mi"] = "1536Mi"
    assert place(wanted, [node], {}) == "one"
    assert "vm.nr_hugepages=1024" in place(wanted, [node], {"one": Demand(huge=(GIB, 0))}).message
