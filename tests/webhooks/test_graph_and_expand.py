"""objectgraph and expand-spec: what a machine consists of, and what it says once all it refers to is in it."""

import pytest

from hotvirt.kube.errors import BadRequest, NotFound
from hotvirt.webhooks import expand, objectgraph

VOLUMES = [
    {"name": "a", "persistentVolumeClaim": {"claimName": "root"}},
    {"name": "b", "dataVolume": {"name": "data"}},
    {"name": "c", "cloudInitNoCloud": {"secretRef": {"name": "user"}, "networkDataSecretRef": {"name": "net"}}},
    {"name": "d", "configMap": {"name": "settings"}},
    {"name": "e", "secret": {"secretName": "keys"}},
    {"name": "f", "serviceAccount": {"serviceAccountName": "me"}},
    {"name": "g", "emptyDisk": {"capacity": "1Gi"}},
]
CREDENTIALS = [{"sshPublicKey": {"source": {"secret": {"secretName": "ssh"}}}}]
SPEC = {"domain": {}, "volumes": VOLUMES, "accessCredentials": CREDENTIALS}
VM = {
    "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": "web", "namespace": "shop"},
    "spec": {
        "runStrategy": "Halted", "instancetype": {"name": "small"},
        "preference": {"name": "linux", "kind": "virtualmachinepreference"},
        "template": {"spec": SPEC},
    },
    "status": {"created": True},
}  # fmt: skip


NETWORKS = [{"name": "p", "pod": {}}, {"name": "l", "multus": {"networkName": "lan"}},
            {"name": "o", "multus": {"networkName": "net/other"}}]  # fmt: skip


def told(node):
    reference = node["objectReference"]
    place = "/".join(filter(None, (reference["apiGroup"], reference["kind"], reference["namespace"])))
    return (f"{place}/{reference['name']}", *(told(each) for each in node.get("children", ())))


CREDENTIAL = (("Secret/shop/ssh",),)
CONTENTS = (
    ("PersistentVolumeClaim/shop/root",),
    ("cdi.kubevirt.io/DataVolume/shop/data", ("PersistentVolumeClaim/shop/data",)),
    ("Secret/shop/user",), ("Secret/shop/net",), ("ConfigMap/shop/settings",), ("Secret/shop/keys",),
    ("ServiceAccount/shop/me",),
)  # fmt: skip
LANS = (
    ("k8s.cni.cncf.io/NetworkAttachmentDefinition/shop/lan",),
    ("k8s.cni.cncf.io/NetworkAttachmentDefinition/net/other",),
)
SIZES = (
    ("instancetype.kubevirt.io/VirtualMachineClusterInstancetype/small",),
    ("instancetype.kubevirt.io/VirtualMachinePreference/shop/linux",),
)
INSTANCE = ("kubevirt.io/VirtualMachineInstance/shop/web", ("Pod/shop/launcher",))
MACHINE = "kubevirt.io/VirtualMachine/shop/web"


def test_a_machine_and_all_it_cannot_be_without():
    spec = {**SPEC, "networks": NETWORKS}
    vm = {**VM, "spec": {**VM["spec"], "template": {"spec": spec}}}
    graph = objectgraph.of_machine(vm, "launcher")
    assert told(graph) == (MACHINE, INSTANCE, *SIZES, *CREDENTIAL, *CONTENTS, *LANS)
    assert objectgraph.chosen(graph, {}) == graph
    lean = objectgraph.chosen(graph, {"includeOptionalNodes": False})
    assert told(lean) == (MACHINE, INSTANCE, *CREDENTIAL, *CONTENTS)
    disks = {"matchLabels": {"kubevirt.io/dependency-type": "storage"}}
    assert told(objectgraph.chosen(graph, {"labelSelector": disks})) == (MACHINE, *CONTENTS[:2])
    with pytest.raises(BadRequest, match="labelSelector"):
        objectgraph.chosen(graph, {"labelSelector": {"matchLabels": {"a b": "c"}}})


def test_an_instance_and_all_it_cannot_be_without():
    vmi = {"metadata": VM["metadata"], "spec": SPEC}
    whole = ("kubevirt.io/VirtualMachineInstance/shop/web", *CREDENTIAL, *CONTENTS)
    assert told(objectgraph.of_instance(vmi, "")) == whole


class Store:
    def __init__(self, **found):
        self._found = found

    async def get(self, resource, name, namespace=None):
        try:
            return self._found[f"{resource.plural}_{namespace or ''}_{name}"]
        except KeyError:
            raise NotFound(f'{resource.plural} "{name}" not found') from None


SMALL = {"kind": "VirtualMachineClusterInstancetype", "spec": {"cpu": {"guest": 2}, "memory": {"guest": "2Gi"}}}
LINUX = {"kind": "VirtualMachinePreference", "spec": {"devices": {"preferredDiskBus": "virtio"}}}


async def test_expanding_what_is_named():
    store = Store(virtualmachineclusterinstancetypes__small=SMALL, virtualmachinepreferences_shop_linux=LINUX)
    found = await expand.expanded(store, VM)
    assert found["spec"].keys() == {"runStrategy", "template"}
    assert found["spec"]["template"]["spec"]["domain"]["memory"]["guest"] == "2Gi"
    kept = {**VM, "status": {"instancetypeRef": {
        "name": "small", "kind": "virtualmachineclusterinstancetype", "controllerRevisionRef": {"name": "r1"},
    }}}  # fmt: skip
    larger = {"data": {**SMALL, "spec": {"cpu": {"guest": 1}, "memory": {"guest": "4Gi"}}}}
    store = Store(controllerrevisions_shop_r1=larger, virtualmachinepreferences_shop_linux=LINUX)
    found = await expand.expanded(store, kept)
    assert found["spec"]["template"]["spec"]["domain"]["memory"]["guest"] == "4Gi"


async def test_what_cannot_be_expanded():
    plain = {**VM, "spec": {"runStrategy": "Halted", "template": {"spec": SPEC}}}
    assert await expand.expanded(Store(), plain) is plain
    with pytest.raises(BadRequest, match=r"spec.instancetype: there is no VirtualMachineClusterInstancetype small"):
        await expand.expanded(Store(), VM)
    spec = {**VM["spec"], "template": {"spec": {"domain": {"memory": {"guest": "1Gi"}}}}}
    store = Store(virtualmachineclusterinstancetypes__small=SMALL, virtualmachinepreferences_shop_linux=LINUX)
    with pytest.raises(BadRequest, match=r"cannot expand instancetype to VM: spec.template.spec.domain.memory"):
        await expand.expanded(store, {**VM, "spec": spec})


INVALID = {
    "kind": ({**VM, "kind": "Pod"}, "kind is 'Pod'"),
    "unknown field": ({**VM, "spec": {**VM["spec"], "colour": 1}}, "unknown field 'spec.colour'"),
    "unknown beside spec": ({**VM, "colour": 1}, "unknown field 'colour'"),
    "metadata": ({**VM, "metadata": {"name": "a", "colour": 1}}, "unknown field 'metadata.colour'"),
    "no metadata": ({**VM, "metadata": []}, "metadata must be"),
    "no template": ({**VM, "spec": {}}, "spec.template is required"),
    "no spec": ({"kind": "VirtualMachine"}, "spec.template is required"),
    "type": ({**VM, "spec": {**VM["spec"], "runStrategy": 5}}, "spec.runStrategy must be of type string"),
    "namespace": ({**VM, "metadata": {"namespace": "other"}}, "VM namespace must be empty or shop"),
}


@pytest.mark.parametrize(("vm", "says"), INVALID.values(), ids=INVALID)
def test_what_is_no_machine(vm, says):
    with pytest.raises(BadRequest, match=says):
        expand.check(vm, "shop")


def test_a_machine_without_a_namespace_is_one():
    expand.check({**VM, "metadata": {"name": "web"}}, "shop")
