"""KubeVirt's kinds at the API's door: what is filled in, what is refused with which words, and who may write what."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotvirt.api import support_settings
from hotvirt.kube.admission import AdmissionRequest, User, Verdict
from hotvirt.kube.resources import KUBEVIRTS, VMIS, VMS
from hotvirt.webhooks.admission import admissions

OURS = User("system:serviceaccount:kubevirt:hotvirt-controller", ("system:serviceaccounts:kubevirt",))
ADMIN = User("admin", ("system:masters", "system:authenticated"))
DOMAIN = {"memory": {"guest": "1Gi"}, "devices": {}}
CLUSTER = {"spec": {"configuration": {"machineType": "pc-q35-9.0", "evictionStrategy": "None"}}}


def vm(**spec):
    template = {"spec": {"domain": copy.deepcopy(DOMAIN)}}
    return {
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"runStrategy": "Always", "template": template} | spec,
    }


def vmi(**more):
    owner = {"kind": "VirtualMachine", "name": "web", "uid": "1", "controller": True}
    metadata = {"name": "web", "namespace": "shop", "ownerReferences": [owner]}
    return {"metadata": metadata, "spec": {"domain": copy.deepcopy(DOMAIN)}, **more}


def plugin(resource, kubevirt=None):
    return next(each for each in admissions(lambda: kubevirt) if resource in each.resources)


def asked(resource, obj, old=None, *, user=ADMIN, subresource="", operation=None):
    meta = (obj or old)["metadata"]
    return AdmissionRequest(
        operation or ("UPDATE" if old else "CREATE"), resource, subresource, "shop", meta["name"], user, obj, old
    )  # fmt: skip


async def judged(resource, obj, old=None, **how) -> Verdict:
    return await plugin(resource).validate(asked(resource, obj, old, **how))


def mutated(resource, obj, old=None, *, kubevirt=None, **how):
    before = copy.deepcopy((obj, old))
    found = plugin(resource, kubevirt).mutate(asked(resource, obj, old, **how))
    assert (obj, old) == before, "what is given may be shared"
    return found


# VMs


def test_a_new_vm_keeps_the_clusters_machine_type():
    found = mutated(VMS, vm(), kubevirt=CLUSTER)
    assert found["spec"]["template"]["spec"]["domain"]["machine"] == {"type": "pc-q35-9.0"}
    assert mutated(VMS, found, found) is None
    assert mutated(VMS, vm(), found)["spec"] == found["spec"], "what an edit leaves out stays"


@pytest.mark.parametrize("how", [{"subresource": "status"}, {"operation": "DELETE"}])
async def test_a_vms_status_and_removal_are_not_judged(how):
    bad = vm(runStrategy="Nonsense")
    obj = None if "operation" in how else bad
    assert mutated(VMS, obj, bad, **how) is None
    assert await judged(VMS, obj, bad, **how) == Verdict()


def test_a_new_vm_has_its_controllers_finalizer_from_the_start():
    ours, theirs = "kubevirt.io/virtualMachineControllerFinalize", "backup.example.com/copying"
    held = vm()
    held["metadata"]["finalizers"] = [theirs]
    made = mutated(VMS, held)
    assert made["metadata"]["finalizers"] == [theirs, ours]
    assert mutated(VMS, made) is None
    let_go = {**made, "metadata": {**made["metadata"], "finalizers": [theirs]}}
    assert mutated(VMS, let_go, made) is None, "the controller takes it away at the end"


async def test_every_fault_of_a_vm_is_named_at_once():
    bad = vm(running=True, runStrategy="Sometimes")
    bad["spec"]["template"]["spec"]["domain"] |= {"cpu": {"sockets": 8, "maxSockets": 4}}
    bad["spec"]["template"]["spec"]["domain"]["devices"] = {"disks": [{"name": "x", "disk": {"bus": "ide"}}]}
    found = await judged(VMS, bad)
    at = "spec.template.spec.domain"
    assert {cause.field for cause in found.causes} == {
        "spec.running", "spec.runStrategy",
        f"{at}.cpu.sockets", f"{at}.devices.disks[0].disk.bus", f"{at}.devices.disks[0].name",
    }  # fmt: skip


async def test_running_is_accepted_with_a_warning():
    old_form = vm(running=True)
    del old_form["spec"]["runStrategy"]
    assert await judged(VMS, old_form) == Verdict(warnings=("spec.running is deprecated: use spec.runStrategy",))


async def test_a_stored_vm_stays_writable_when_the_rules_change():
    stored = vm()
    stored["spec"]["template"]["spec"]["domain"]["devices"] = {"gpus": [{"name": "g", "deviceName": "x"}]}
    labelled = {**stored, "metadata": {**stored["metadata"], "labels": {"a": "b"}}}
    assert await judged(VMS, labelled, stored) == Verdict()
    edited = {**labelled, "spec": {**stored["spec"], "runStrategy": "Halted"}}
    assert [cause.field for cause in (await judged(VMS, edited, stored)).causes] == [
        "spec.template.spec.domain.devices.gpus"
    ]


async def test_a_vm_on_its_way_out_is_let_go():
    old = vm(runStrategy="Nonsense")
    going = {**old, "metadata": {**old["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {}}
    assert mutated(VMS, going, old) is None
    assert await judged(VMS, going, old) == Verdict()


# Instances


def test_a_new_instance_is_filled_in_by_the_clusters_settings():
    spec = mutated(VMIS, vmi(), kubevirt=CLUSTER, user=OURS)["spec"]
    assert spec["domain"]["machine"] == {"type": "pc-q35-9.0"}
    assert spec["domain"]["memory"] == {"guest": "1Gi", "maxGuest": "4Gi"}
    assert spec["evictionStrategy"] == "None"


async def test_a_faulty_instance_is_left_as_it_is_for_its_faults_to_be_named():
    bad = vmi(spec={"domain": {"memory": {"guest": "1 GB"}, "devices": {}}})
    assert mutated(VMIS, bad, user=OURS) is None
    assert [cause.field for cause in (await judged(VMIS, bad)).causes] == ["spec.domain.memory.guest"]


async def test_people_are_told_which_vm_to_edit():
    edited = vmi(spec={"domain": {**DOMAIN, "memory": {"guest": "2Gi"}}})
    refused = await judged(VMIS, edited, vmi())
    assert refused.denied == (
        "update of VMI object is restricted: edit its VM instead, the running guest follows: "
        "kubectl edit vm web -n shop"
    )
    assert await judged(VMIS, edited, vmi(), user=OURS) == Verdict()


async def test_an_instance_without_a_vm_says_so():
    alone = vmi()
    del alone["metadata"]["ownerReferences"]
    edited = {**alone, "spec": {"domain": {**DOMAIN, "cpu": {"sockets": 2}}}}
    assert "no VM owns this instance" in (await judged(VMIS, edited, alone)).denied


def test_people_do_not_write_the_status():
    running, said = vmi(status={"phase": "Running"}), vmi(status={"phase": "Failed"})
    assert mutated(VMIS, said, running) == running
    assert mutated(VMIS, said, vmi()) == vmi()
    assert "status" not in mutated(VMIS, said)
    assert mutated(VMIS, said, running, user=OURS) is None
    assert mutated(VMIS, said, user=OURS)["status"] == {"phase": "Failed"}


@pytest.mark.parametrize("label", ["kubevirt.io/nodeName", "kubevirt.io/created-by", "kubevirt.io/migrationJobUID"])
async def test_labels_of_the_controllers_are_theirs(label):
    def labelled(**labels):
        obj = vmi()
        return {**obj, "metadata": {**obj["metadata"], "labels": labels}}

    marked = labelled(**{label: "one", "mine": "x"})
    for obj, old in ((marked, None), (marked, labelled()), (labelled(mine="x"), marked)):
        assert [cause.field for cause in (await judged(VMIS, obj, old)).causes] == [f"metadata.labels[{label}]"]
        assert await judged(VMIS, obj, old, user=OURS) == Verdict()
    assert await judged(VMIS, {**marked, "metadata": {**marked["metadata"], "annotations": {}}}, marked) == Verdict()


@pytest.mark.parametrize("label", ["kubevirt.io/nodeName", "kubevirt.io/created-by", "kubevirt.io/schedulable"])
async def test_a_template_copied_from_a_guest_is_told_which_labels_to_remove(label):
    def labelled(strategy="Always", **labels):
        obj = vm(runStrategy=strategy)
        obj["spec"]["template"]["metadata"] = {"labels": labels}
        return obj

    marked = labelled(**{label: "one", "mine": "x"})
    for obj, old in ((marked, None), (marked, labelled()), (marked, labelled(**{label: "two"}))):
        (cause,) = (await judged(VMS, obj, old)).causes
        assert (cause.field, cause.message) == (
            f"spec.template.metadata.labels[{label}]", f"{label} is set by hotvirt alone: remove it"
        )  # fmt: skip
        assert await judged(VMS, obj, old, user=OURS) == Verdict()
    assert await judged(VMS, labelled("Halted", **{label: "one"}), marked) == Verdict(), "an older version let it in"
    assert await judged(VMS, labelled(mine="x"), marked) == Verdict()


async def test_an_instance_may_always_be_removed():
    assert await judged(VMIS, None, vmi(), operation="DELETE") == Verdict()


# Feature gates

HOST_DISK = {"volumes": [{"name": "a", "hostDisk": {"path": "/srv/a.img", "type": "Disk"}}]}
GATES = {
    "no KubeVirt object": (None, True),
    "off": ({"spec": {"configuration": {"developerConfiguration": {"featureGates": ["Root"]}}}}, True),
    "on": ({"spec": {"configuration": {"developerConfiguration": {"featureGates": ["HostDisk"]}}}}, False),
}


@pytest.mark.parametrize(("kubevirt", "is_refused"), GATES.values(), ids=GATES)
async def test_a_host_disk_needs_its_gate(kubevirt, is_refused):
    machine, instance = vm(), vmi()
    machine["spec"]["template"]["spec"] |= HOST_DISK
    instance["spec"] |= HOST_DISK
    found = {
        "spec.template.spec.": await plugin(VMS, kubevirt).validate(asked(VMS, machine)),
        "spec.": await plugin(VMIS, kubevirt).validate(asked(VMIS, instance)),
    }
    for path, verdict in found.items():
        fields = [cause.field for cause in verdict.causes]
        assert fields == ([f"{path}volumes[0].hostDisk"] if is_refused else [])


# The KubeVirt object


def kubevirt(**configuration):
    return {"metadata": {"name": "kubevirt", "namespace": "kubevirt"}, "spec": {"configuration": configuration}}


GOOD = {
    "nothing": {},
    "all of it": {
        "vmRolloutStrategy": "Stage", "machineType": "pc-q35-9.0", "evictionStrategy": "LiveMigrate", "cpuModel": "max",
        "liveUpdateConfiguration": {"maxHotplugRatio": 1, "maxCpuSockets": 8, "maxGuest": "64Gi"},
        "developerConfiguration": {
            "featureGates": ["Root"], "disabledFeatureGates": ["Snapshot"], "memoryOvercommit": 150},
        "cpuRequest": "250m", "network": {"defaultNetworkInterface": "bridge"},
        "instancetype": {"referencePolicy": "expandAll"},
    },
}  # fmt: skip
BAD = {
    "vmRolloutStrategy": ({"vmRolloutStrategy": "Sometimes"}, "vmRolloutStrategy"),
    "machineType": ({"machineType": "pc-i440fx"}, "machineType"),
    "options in the machine type": ({"machineType": "q35,accel=kvm"}, "machineType"),
    "options in the processor model": ({"cpuModel": "max,kvm=off"}, "cpuModel"),
    "evictionStrategy": ({"evictionStrategy": "Never"}, "evictionStrategy"),
    "ratio": ({"liveUpdateConfiguration": {"maxHotplugRatio": 0}}, "liveUpdateConfiguration.maxHotplugRatio"),
    "sockets": ({"liveUpdateConfiguration": {"maxCpuSockets": 0}}, "liveUpdateConfiguration.maxCpuSockets"),
    "guest": ({"liveUpdateConfiguration": {"maxGuest": "lots"}}, "liveUpdateConfiguration.maxGuest"),
    "no guest": ({"liveUpdateConfiguration": {"maxGuest": "0"}}, "liveUpdateConfiguration.maxGuest"),
    "gates": ({"developerConfiguration": {"featureGates": ["A", "B"], "disabledFeatureGates": ["B", "C"]}},
              "developerConfiguration.featureGates"),
    "overcommit": ({"developerConfiguration": {"memoryOvercommit": -1}}, "developerConfiguration.memoryOvercommit"),
    "cpuRequest": ({"cpuRequest": "0"}, "cpuRequest"),
    "not a cpuRequest": ({"cpuRequest": "half"}, "cpuRequest"),
    "interface": ({"network": {"defaultNetworkInterface": "slirp"}}, "network.defaultNetworkInterface"),
    "policy": ({"instancetype": {"referencePolicy": "never"}}, "instancetype.referencePolicy"),
}  # fmt: skip


@pytest.mark.parametrize("configuration", GOOD.values(), ids=GOOD)
async def test_settings(configuration):
    assert mutated(KUBEVIRTS, kubevirt(**configuration)) is None
    assert await judged(KUBEVIRTS, kubevirt(**configuration)) == Verdict()


@pytest.mark.parametrize(("configuration", "field"), BAD.values(), ids=BAD)
async def test_wrong_settings_are_named(configuration, field):
    causes = (await judged(KUBEVIRTS, kubevirt(**configuration))).causes
    assert [cause.field for cause in causes] == [f"spec.configuration.{field}"]
    assert (await judged(KUBEVIRTS, kubevirt(**configuration), subresource="status")) == Verdict()


async def test_settings_without_effect_are_said_and_upstreams_own_manifest_goes_through():
    upstream = kubevirt(developerConfiguration={"featureGates": []})
    upstream["spec"] |= {
        "certificateRotateStrategy": {}, "customizeComponents": {}, "imagePullPolicy": "IfNotPresent",
        "workloadUpdateStrategy": {},
    }  # fmt: skip
    assert await judged(KUBEVIRTS, upstream) == Verdict()
    upstream["spec"]["infra"] = {"replicas": 2}
    upstream["spec"]["configuration"]["migrations"] = {"parallelMigrationsPerCluster": 1}
    unmoved = support_settings.NO_EFFECT["MigrationPolicySpec.selectors"]
    assert await judged(KUBEVIRTS, upstream) == Verdict(
        warnings=(
            f"spec.configuration.migrations has no effect: {unmoved}",
            "spec.infra has no effect: there are no component pods to place or patch",
        )
    )


async def test_gates_are_known_by_their_state():
    path = "spec.configuration.developerConfiguration"
    gates = {
        "featureGates": ["Snapshot", "NUMA", "HotplugVolumes", "Macvtap", "Magic", "LiveUpdate"],
        "disabledFeatureGates": ["RebootPolicy", "Sorcery", "CPUHotplug"],
    }
    assert (await judged(KUBEVIRTS, kubevirt(developerConfiguration=gates))).warnings == (
        f"{path}.featureGates: NUMA is on for everybody; remove it",
        f"{path}.featureGates: HotplugVolumes is deprecated; remove it",
        f"{path}.featureGates: Macvtap is no more: what it stood for was removed upstream; remove it",
        f"{path}.featureGates: Magic is no feature gate that is known here; it has no effect",
        f"{path}.featureGates: LiveUpdate is on for everybody; remove it",
        f"{path}.disabledFeatureGates: Sorcery is no feature gate that is known here; it has no effect",
    )


# Anything at all: as a webhook, admission sees documents before the schema does.

junk = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(("name", "a")), inner, max_size=2),
    max_leaves=4,
)
FIELDS = ("spec", "template", "domain", "cpu", "memory", "devices", "disks", "volumes", "guest", "interfaces", "name",
          "running", "resources", "requests", "networks", "cloudInitNoCloud", "userDataBase64", "configuration",
          "liveUpdateConfiguration", "maxGuest", "developerConfiguration", "featureGates", "infra")  # fmt: skip


def documents(leaf):
    return st.recursive(leaf, lambda inner: st.dictionaries(st.sampled_from(FIELDS), inner, max_size=3), max_leaves=8)


@settings(max_examples=150, deadline=None)
@given(documents(junk), st.sampled_from((VMS, VMIS, KUBEVIRTS)))
def test_junk_is_survived(spec, resource):
    obj = {
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"template": {"spec": spec}, "domain": spec, "configuration": spec},
    }
    request = asked(resource, obj)
    each = plugin(resource)
    each.mutate(request)
    with pytest.raises(StopIteration):  # it never waits
        each.validate(request).send(None)
