"""Who edits a VM whose guest runs is warned of what it will not get, in the words of the preconditions."""

import copy

import pytest

from hotvirt.kube.admission import AdmissionRequest, User
from hotvirt.kube.resources import VMIS, VMS
from hotvirt.webhooks.admission import VirtualMachines
from hotvirt.webhooks.callers import OUR_GROUP
from hotvirt.webhooks.livewarnings import warnings

DOMAIN = {"memory": {"guest": "1Gi", "maxGuest": "4Gi"}, "cpu": {"sockets": 1, "maxSockets": 4}, "devices": {}}
VM = {
    "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": "web", "namespace": "default"},
    "spec": {"runStrategy": "Always", "template": {"spec": {"domain": DOMAIN}}},
}  # fmt: skip
VMI = {"metadata": {"name": "web"}, "spec": {"domain": DOMAIN, "volumes": []}, "status": {"phase": "Running"}}


def edited(change):
    vm = copy.deepcopy(VM)
    change(vm["spec"]["template"]["spec"])
    return vm


def told(change, *, vmi=VMI, configuration=None):
    def read(resource, name, namespace):
        assert (resource, name, namespace) == (VMIS, "web", "default")
        return vmi

    kubevirt = {"spec": {"configuration": configuration or {}}}
    return warnings(edited(change), read=read, kubevirt=lambda: kubevirt)


def memory(size):
    return lambda spec: spec["domain"]["memory"].update(guest=size)


def sockets(count):
    return lambda spec: spec["domain"]["cpu"].update(sockets=count)


def disk(bus):
    def change(spec):
        spec["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "data", "hotpluggable": True}}]
        spec["domain"]["devices"]["disks"] = [{"name": "data", "disk": {"bus": bus}}]

    return change


def test_what_goes_through_is_nothing_to_warn_of():
    for change in (memory("2Gi"), memory("512Mi"), sockets(4), disk("scsi"), lambda spec: None):
        assert told(change) == ()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (sockets(8), "spec.template.spec.domain.cpu.sockets: not while the guest runs: 8 sockets are not within"),
        (memory("8Gi"), "spec.template.spec.domain.memory.guest: not while the guest runs: memory 8Gi is more than"),
        (disk("sata"), "spec.template.spec.volumes[data]: not while the guest runs: disk data is on bus sata"),
    ],
)
def test_what_does_not_is_told_with_its_field_and_mend(change, says):
    (found,) = told(change)
    assert found.startswith(says)
    assert found.endswith(")"), "the mend"


def limited(size, limit):
    def change(spec):
        spec["domain"]["memory"] = {"guest": size}
        spec["domain"]["resources"] = {"limits": {"memory": limit}}

    return change


def test_a_limit_is_the_maximum_of_who_has_no_other():
    roomy = {**VMI, "metadata": {"name": "web", "annotations": {"hotvirt.io/memory-room": "8Gi"}}}
    assert told(limited("6Gi", "8Gi"), vmi=roomy) == ()
    (found,) = told(limited("6Gi", "16Gi"), vmi=roomy)
    assert "spec.template.spec.domain.resources.limits.memory: not while the guest runs: a maximum of 16Gi" in found
    none = {**VMI, "spec": {"domain": {**DOMAIN, "memory": {"guest": "1Gi"}}}}
    (found,) = told(limited("2Gi", "8Gi"), vmi=none)
    assert "domain.memory.guest: not while" in found


LAN = {"name": "lan", "multus": {"networkName": "lan"}}
WITH_CARDS = {
    **VMI,
    "spec": {
        "domain": {**DOMAIN, "devices": {"interfaces": [{"name": "default", "masquerade": {}},
                                                        {"name": "lan", "bridge": {}, "state": "up"}]}},
        "networks": [{"name": "default", "pod": {}}, LAN],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data", "hotpluggable": True}}],
    },
}  # fmt: skip


def cards(*interfaces, networks=(LAN,)):
    def change(spec):
        spec["volumes"] = WITH_CARDS["spec"]["volumes"]
        spec["networks"] = [{"name": "default", "pod": {}}, *networks]
        spec["domain"]["devices"]["interfaces"] = list(interfaces)

    return change


def test_cards_and_volumes_that_go_count_as_much():
    pods, lan = {"name": "default", "masquerade": {}}, {"name": "lan", "bridge": {}}
    wan = {"name": "wan", "multus": {"networkName": "else/wan"}}
    odd = {"name": "wan", "masquerade": {}}
    off = {"developerConfiguration": {"disabledFeatureGates": ["HotplugNICs", "HotplugVolumes"]}}
    for change in (
        cards(pods, lan), cards({**pods, "state": "down"}, lan), cards(pods, {**lan, "state": "absent"}),
        cards(pods, networks=()), cards(pods, lan, {"name": "wan", "bridge": {}}, networks=(LAN, wan)),
    ):  # fmt: skip
        assert told(change, vmi=WITH_CARDS) == ()
        assert all("HotplugNICs is off" in each for each in told(change, vmi=WITH_CARDS, configuration=off))
    (found,) = told(cards(pods, lan, odd, networks=(LAN, wan)), vmi=WITH_CARDS)
    assert "interfaces[wan]: not while the guest runs: card wan has binding masquerade" in found
    gone = told(lambda spec: cards(pods, lan)(spec) or spec.update(volumes=[]), vmi=WITH_CARDS, configuration=off)
    assert [each.partition(":")[0] for each in gone] == ["spec.template.spec.volumes[data]"]
    pulled = told(cards({**pods, "state": "down"}, networks=()), vmi=WITH_CARDS, configuration=off)
    fields = [each.partition(":")[0].rpartition("devices.")[2] for each in pulled]
    assert fields == ["interfaces[default].state", "interfaces[lan].state"]


def test_settings_of_the_cluster_count():
    off = {"developerConfiguration": {"disabledFeatureGates": ["LiveUpdate"]}}
    assert "the feature gate LiveUpdate is off" in told(memory("2Gi"), configuration=off)[0]


@pytest.mark.parametrize("vmi", [None, {**VMI, "status": {"phase": "Scheduled"}}])
def test_without_a_running_guest_there_is_nothing_to_warn_of(vmi):
    assert told(memory("8Gi"), vmi=vmi) == ()


@pytest.mark.parametrize(("groups", "count"), [((), 1), ((OUR_GROUP,), 0)])
async def test_people_are_warned_and_controllers_are_not(groups, count):
    plugin = VirtualMachines(lambda: None, lambda *_: VMI)
    request = AdmissionRequest(
        operation="UPDATE", resource=VMS, subresource="", namespace="default", name="web", user=User("ann", groups),
        obj=edited(lambda spec: spec["domain"]["cpu"].update(sockets=8, maxSockets=8)), old=VM,
    )  # fmt: skip
    verdict = await plugin.validate(request)
    assert verdict.causes == ()
    assert len(verdict.warnings) == count
