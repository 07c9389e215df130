"""VMs that name an instancetype or a preference, at the API's door; and the kinds themselves."""

import copy

import pytest

from hotvirt.kube.admission import AdmissionRequest, User, Verdict
from hotvirt.kube.resources import (
    CLAIMS,
    CLUSTER_INSTANCETYPES,
    CLUSTER_PREFERENCES,
    CONTROLLER_REVISIONS,
    INSTANCETYPES,
    PREFERENCES,
    VMS,
)
from hotvirt.webhooks.admission import admissions

ADMIN = User("admin", ("system:masters", "system:authenticated"))
HERE = "spec.template.spec"
SMALL = {"spec": {"cpu": {"guest": 1}, "memory": {"guest": "1Gi"}}}
LABELS = {"instancetype.kubevirt.io/default-instancetype": "small"}
STORED = {
    (CLUSTER_INSTANCETYPES.kind, "small", ""): SMALL,
    (CLUSTER_INSTANCETYPES.kind, "huge", ""): {"spec": {"cpu": {"guest": 600}, "memory": {"guest": "1Gi"}}},
    (INSTANCETYPES.kind, "small", "shop"): {"spec": {"cpu": {"guest": 3}, "memory": {"guest": "3Gi"}}},
    (PREFERENCES.kind, "old", "shop"): {
        "spec": {"machine": {"preferredMachineType": "pc-q35-8.0"}, "preferredArchitecture": "amd64",
                 "volumes": {"preferredStorageClassName": "fast"}}},
    (CLUSTER_PREFERENCES.kind, "gpu", ""): {"spec": {"devices": {"preferredDiskBus": "ide"}}},
    (CLUSTER_PREFERENCES.kind, "large", ""): {"spec": {"requirements": {"cpu": {"guest": 4}}}},
    (CONTROLLER_REVISIONS.kind, "kept", "shop"): {"data": {"spec": {"cpu": {"guest": 1}, "memory": {"guest": "2Gi"}}}},
    (CONTROLLER_REVISIONS.kind, "odd", "shop"): {"data": ["x"]},
    (CLAIMS.kind, "root", "shop"): {"metadata": {"labels": LABELS}},
}  # fmt: skip


def read(resource, name, namespace):
    return STORED.get((resource.kind, name, namespace))


def vm(domain=None, *, disks=(), volumes=(), **spec):
    template = {"spec": {"domain": {"devices": {"disks": list(disks)}, **(domain or {})}, "volumes": list(volumes)}}
    return {
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"runStrategy": "Always", "template": template, **spec},
    }


def plugin(resource):
    return next(each for each in admissions(lambda: None, read) if resource in each.resources)


def asked(resource, obj, old=None):
    return AdmissionRequest("UPDATE" if old else "CREATE", resource, "", "shop", "web", ADMIN, obj, old)


def mutated(obj, old=None):
    before = copy.deepcopy(obj)
    found = plugin(VMS).mutate(asked(VMS, obj, old))
    assert obj == before, "what is given may be shared"
    return found


async def judged(obj, old=None, resource=VMS):
    return await plugin(resource).validate(asked(resource, obj, old))


FITS = {
    "the cluster's": {"instancetype": {"name": "small"}},
    "the namespace's": {"instancetype": {"name": "small", "kind": "VirtualMachineInstancetype"}},
    "an earlier state": {"instancetype": {"name": "small", "revisionName": "kept"}},
    "both": {"instancetype": {"name": "small"}, "preference": {"name": "old", "kind": "virtualmachinepreference"}},
}


@pytest.mark.parametrize("spec", FITS.values(), ids=FITS)
async def test_a_vm_gets_its_memory_from_its_instancetype(spec):
    assert await judged(vm(**spec)) == Verdict()


REFUSED = {
    "a conflict": (
        vm({"memory": {"guest": "1Gi"}}, instancetype={"name": "small"}), {f"{HERE}.domain.memory.guest"}),
    "a conflict, beside a fault": (
        vm({"memory": {"guest": "1Gi"}}, instancetype={"name": "small"}, runStrategy="Sometimes"),
        {f"{HERE}.domain.memory.guest", "spec.runStrategy"}),
    "a conflict that does not need the memory said": (
        vm({"cpu": {"sockets": 2}}, instancetype={"name": "small"}), {f"{HERE}.domain.cpu.sockets"}),
    "what is required": (
        vm(instancetype={"name": "small"}, preference={"name": "large"}), {"spec.instancetype"}),
    "neither a name nor a volume": (vm(instancetype={}, preference={"kind": "Pod"}),
                                    {f"{HERE}.domain.memory.guest", "spec.instancetype.name", "spec.preference.name",
                                     "spec.preference.kind"}),
    "a volume without labels": (
        vm(instancetype={"inferFromVolume": "root"}, volumes=[{"name": "root", "emptyDisk": {"capacity": "1Gi"}}]),
        {"spec.instancetype.inferFromVolume"}),
    "a revision of something else": (
        vm({"memory": {"guest": "1Gi"}}, instancetype={"name": "small", "revisionName": "odd"},
           preference={"name": "old", "revisionName": "odd"}), {"spec.instancetype", "spec.preference"}),
    "what comes of it": (vm(instancetype={"name": "huge"}), {f"{HERE}.domain.cpu"}),
}  # fmt: skip


@pytest.mark.parametrize(("obj", "fields"), REFUSED.values(), ids=REFUSED)
async def test_refused(obj, fields):
    verdict = await judged(mutated(obj) or obj)
    assert {cause.field for cause in verdict.causes} == fields


@pytest.mark.parametrize("labels", [["x"], {"a": 1}, "x"], ids=repr)
async def test_labels_that_are_none(labels):
    obj = vm({"memory": {"guest": "1Gi"}})
    obj["spec"]["template"]["metadata"] = {"labels": labels}
    assert [cause.field for cause in (await judged(obj)).causes] == ["spec.template.metadata.labels"]


async def test_faults_of_what_a_vm_names_say_so():
    disk = {"name": "root"}
    volume = {"name": "root", "containerDisk": {"image": "hotvirt/debian:12"}}
    verdict = await judged(vm({"memory": {"guest": "1Gi"}}, disks=[disk], volumes=[volume], preference={"name": "gpu"}))
    (cause,) = verdict.causes
    assert cause.field == f"{HERE}.domain.devices.disks[0].disk.bus"
    assert cause.message.startswith("with preference gpu: ")


@pytest.mark.parametrize("more", [{}, {"preference": {"name": "large"}}], ids=["alone", "with requirements"])
async def test_what_is_not_there_yet_is_warned_of(more):
    verdict = await judged(vm(instancetype={"name": "later"}, **more))
    assert verdict == Verdict(warnings=(
        "spec.instancetype.name: there is no VirtualMachineClusterInstancetype later; the machine starts once it is",
    ))  # fmt: skip


async def test_a_name_that_changes_needs_its_revision_gone():
    old = vm(instancetype={"name": "small", "revisionName": "kept"})
    new = vm(instancetype={"name": "huge", "revisionName": "kept"})
    assert [cause.field for cause in (await judged(new, old)).causes] == ["spec.instancetype.revisionName"]


def test_a_new_vm_shows_what_it_names_and_is_built_for():
    made = mutated(
        vm(
            instancetype={"inferFromVolume": "root"}, preference={"name": "old", "kind": "VirtualMachinePreference"},
            volumes=[{"name": "root", "persistentVolumeClaim": {"claimName": "root"}}],
            dataVolumeTemplates=[{"metadata": {"name": "d"}, "spec": {"storage": {}}}],
        )
    )["spec"]  # fmt: skip
    assert made["instancetype"] == {"name": "small", "kind": "virtualmachineclusterinstancetype"}
    assert made["template"]["spec"]["domain"]["machine"] == {"type": "pc-q35-8.0"}
    assert made["template"]["spec"]["architecture"] == "amd64"
    assert made["dataVolumeTemplates"][0]["spec"]["storage"] == {"storageClassName": "fast"}


def test_a_manifest_that_infers_can_be_applied_again():
    volumes = [{"name": "root", "persistentVolumeClaim": {"claimName": "root"}}]
    stored = mutated(vm(instancetype={"inferFromVolume": "root"}, volumes=volumes))
    applied = copy.deepcopy(stored)
    applied["spec"]["instancetype"]["inferFromVolume"] = "root"
    assert mutated(applied, stored)["spec"] == stored["spec"]


def test_a_vm_that_names_nothing_is_only_given_the_usual():
    made = mutated(vm())
    assert mutated(made, made) is None


async def test_the_kinds_themselves():
    bad = {"metadata": {"name": "x"}, "spec": {"cpu": {"guest": 0}, "memory": {"guest": "1Gi"}}}
    for resource in (INSTANCETYPES, CLUSTER_INSTANCETYPES):
        assert [cause.field for cause in (await judged(bad, resource=resource)).causes] == ["spec.cpu.guest"]
    taste = {"metadata": {"name": "x"}, "spec": {"cpu": {"preferredCPUTopology": "preferAny"}}}
    for resource in (PREFERENCES, CLUSTER_PREFERENCES):
        verdict = await judged(taste, resource=resource)
        assert (verdict.causes, len(verdict.warnings)) == ((), 1)
