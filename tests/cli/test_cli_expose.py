"""`expose`: the service for a machine."""

import pytest

CORE, KUBEVIRT = "/api/v1/namespaces/default", "/apis/kubevirt.io/v1/namespaces/default"
SERVICES = f"{CORE}/services"
SPEC = {
    "networks": [{"name": "lan", "multus": {}}, {"name": "default", "pod": {}}],
    "domain": {"devices": {"interfaces": [
        {"name": "lan", "ports": [{"port": 1}]},
        {"name": "default", "ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}]},
    ]}},
}  # fmt: skip


@pytest.fixture
def exposed(run, api):
    """The service that was made."""

    def expose(kind, obj, *words):
        obj = {"metadata": {"name": "web", "namespace": "default", "uid": "u"}, **obj}
        api.answers["GET", f"{KUBEVIRT}/{kind}/web"] = obj
        api.answers["POST", SERVICES] = {}
        code, out, err = run("expose", *words)
        assert (code, err) == (0, "")
        assert out.startswith("Service s successfully created for ")
        return api.asked[-1][2]

    return expose


def test_a_vm_on_the_port_asked_for(exposed):
    service = exposed(
        "virtualmachines", {"spec": {"template": {"spec": SPEC}}},
        "vm", "web", "--name=s", "--port=80", "--target-port=8080", "--type=nodeport", "--port-name=http",
    )  # fmt: skip
    assert service["metadata"]["ownerReferences"] == [
        {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "name": "web", "uid": "u", "controller": True,
         "blockOwnerDeletion": False}
    ]  # fmt: skip
    assert service["spec"] == {
        "type": "NodePort", "selector": {"vmi.kubevirt.io/id": "web"},
        "ports": [{"protocol": "TCP", "port": 80, "name": "http", "targetPort": 8080}],
    }  # fmt: skip


def test_an_instance_on_the_ports_of_its_interface(exposed):
    service = exposed("virtualmachineinstances", {"spec": SPEC}, "vmi/web", "--name=s", "--cluster-ip=None")
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["ports"] == [
        {"name": "port-1", "protocol": "TCP", "port": 80},
        {"name": "port-2", "protocol": "UDP", "port": 53},
    ]


def test_a_replica_set_by_its_labels(exposed):
    replicas = {"spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {"spec": {}}}}
    service = exposed(
        "virtualmachineinstancereplicasets", replicas, "vmirs", "web", "--name=s", "--port=53", "--protocol=udp",
        "--target-port=dns", "--external-ip=10.0.0.1", "--ip-family=ipv6,ipv4",
    )  # fmt: skip
    assert service["spec"] == {
        "type": "ClusterIP", "selector": {"app": "web"}, "externalIPs": ["10.0.0.1"],
        "ports": [{"protocol": "UDP", "port": 53, "targetPort": "dns"}],
        "ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "PreferDualStack",
    }  # fmt: skip


def test_a_long_name_is_cut_as_the_label_of_its_pod_is():
    from hotvirt.cli.expose import instance_id

    assert instance_id("a" * 63) == "a" * 63
    assert instance_id("a" * 70) == "a" * 54 + "-ed6c69d9"


@pytest.mark.parametrize(
    ("words", "obj", "says"),
    [
        (["vm", "web", "--name=s"], {"template": {"spec": {}}}, "--port=80"),
        (["vmirs", "web", "--name=s", "--port=1"], {"selector": {}, "template": {}}, "matchLabels"),
        (["vmirs", "web", "--name=s", "--port=1"], {"selector": {"matchExpressions": [{}]}}, "cannot"),
        (["pod", "web", "--name=s"], {}, "vm/NAME"),
        (["web", "--name=s"], {}, "vm/NAME"),
        (["vm", "web"], {}, "--name"),
    ],
)
def test_what_cannot_be_exposed(run, api, words, obj, says):
    for kind in ("virtualmachines", "virtualmachineinstancereplicasets"):
        api.answers["GET", f"{KUBEVIRT}/{kind}/web"] = {
            "metadata": {"name": "web", "namespace": "default", "uid": "u"},
            "spec": obj,
        }
    code, _, err = run("expose", *words)
    assert code != 0
    assert says in err
    assert all(method == "GET" for method, _, _ in api.asked)
