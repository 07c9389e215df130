"""Instancetypes and preferences in a machine's template: what each field becomes, and what contradicts it."""

import copy

import pytest

from hotvirt.api import instancetype as sizes
from hotvirt.api import instancetype_matchers as matchers
from hotvirt.api import validation_instancetype
from hotvirt.api.instancetype import ConflictError

HERE = "spec.template.spec"


def size(cpu=None, memory=None, **spec):
    return {"spec": {"cpu": {"guest": 2, **(cpu or {})}, "memory": {"guest": "2Gi", **(memory or {})}, **spec}}


def template(domain=None, **spec):
    return {"spec": {"domain": {"devices": {}, **(domain or {})}, **spec}}


def vm(template_=None, **spec):
    return {"metadata": {"name": "web", "namespace": "default"}, "spec": {"template": template_ or template(), **spec}}


def at(obj, path):
    for part in path.split("."):
        obj = obj[int(part)] if isinstance(obj, list) else obj.get(part)
        if obj is None:
            return None
    return obj


SIZES = {
    "vCPUs are sockets": (size(), "domain.cpu.sockets", 2),
    "and not cores": (size(), "domain.cpu.cores", 1),
    "memory": (size(), "domain.memory.guest", "2Gi"),
    "most memory": (size(memory={"maxGuest": "8Gi"}), "domain.memory.maxGuest", "8Gi"),
    "hugepages": (size(memory={"hugepages": {"pageSize": "2Mi"}}), "domain.memory.hugepages.pageSize", "2Mi"),
    "overcommitted memory": (size(memory={"overcommitPercent": 25}), "domain.resources.requests.memory", "1536Mi"),
    "most sockets": (size(cpu={"maxSockets": 8}), "domain.cpu.maxSockets", 8),
    "model": (size(cpu={"model": "Haswell"}), "domain.cpu.model", "Haswell"),
    "CPUs of its own": (size(cpu={"dedicatedCPUPlacement": True}), "domain.cpu.dedicatedCpuPlacement", True),
    "a thread for the emulator": (size(cpu={"isolateEmulatorThread": True}), "domain.cpu.isolateEmulatorThread", True),
    "NUMA": (size(cpu={"numa": {"guestMappingPassthrough": {}}}), "domain.cpu.numa.guestMappingPassthrough", {}),
    "realtime": (size(cpu={"realtime": {"mask": "0"}}), "domain.cpu.realtime.mask", "0"),
    "nodes": (size(nodeSelector={"disk": "fast"}), "nodeSelector.disk", "fast"),
    "scheduler": (size(schedulerName="own"), "schedulerName", "own"),
    "IO threads": (
        size(ioThreads={"supplementalPoolThreadCount": 2}), "domain.ioThreads.supplementalPoolThreadCount", 2),
    "policy of IO threads": (size(ioThreadsPolicy="auto"), "domain.ioThreadsPolicy", "auto"),
    "security": (size(launchSecurity={"sev": {}}), "domain.launchSecurity.sev", {}),
    "GPUs": (size(gpus=[{"name": "g"}]), "domain.devices.gpus.0.name", "g"),
    "host devices": (size(hostDevices=[{"name": "h"}]), "domain.devices.hostDevices.0.name", "h"),
}  # fmt: skip


@pytest.mark.parametrize(("given", "path", "value"), SIZES.values(), ids=SIZES)
def test_an_instancetype_becomes(given, path, value):
    before = template()
    kept = copy.deepcopy((before, given))
    new, faults = sizes.apply(before, given, None)
    assert (at(new["spec"], path), faults) == (value, [])
    assert (before, given) == kept


CONFLICTS = {
    "sockets": (size(), template({"cpu": {"sockets": 1}}), ["domain.cpu.sockets"]),
    "the whole topology": (
        size(), template({"cpu": {"sockets": 1, "cores": 1, "threads": 1}}),
        ["domain.cpu.sockets", "domain.cpu.cores", "domain.cpu.threads"]),
    "memory": (size(), template({"memory": {"guest": "1Gi"}}), ["domain.memory.guest"]),
    "requests and limits": (
        size(), template({"resources": {"requests": {"memory": "1Gi", "cpu": 1}, "limits": {"memory": "2Gi"}}}),
        ["domain.resources.requests.cpu", "domain.resources.requests.memory", "domain.resources.limits.memory"]),
    "the model, if both say one": (
        size(cpu={"model": "Haswell"}), template({"cpu": {"model": "Skylake"}}), ["domain.cpu.model"]),
    "not the model of one of them": (size(), template({"cpu": {"model": "Skylake"}}), []),
    "not what is zero": (size(), template({"cpu": {"sockets": 0}}), []),
    "CPUs of its own": (
        size(cpu={"dedicatedCPUPlacement": False}), template({"cpu": {"dedicatedCpuPlacement": True}}),
        ["domain.cpu.dedicatedCpuPlacement"]),
    "most memory": (
        size(memory={"maxGuest": "8Gi"}), template({"memory": {"maxGuest": "4Gi"}}), ["domain.memory.maxGuest"]),
    "hugepages": (
        size(memory={"hugepages": {}}), template({"memory": {"hugepages": {}}}), ["domain.memory.hugepages"]),
    "IO threads": (
        size(ioThreads={"supplementalPoolThreadCount": 2}, ioThreadsPolicy="auto"),
        template({"ioThreads": {"supplementalPoolThreadCount": 1}, "ioThreadsPolicy": "shared"}),
        ["domain.ioThreadsPolicy", "domain.ioThreads.supplementalPoolThreadCount"]),
    "devices": (
        size(gpus=[{"name": "g"}]), template({"devices": {"gpus": [{"name": "x"}]}}), ["domain.devices.gpus"]),
    "placement": (
        size(nodeSelector={"a": "b"}, schedulerName="own"), template(nodeSelector={"c": "d"}, schedulerName="other"),
        ["nodeSelector", "schedulerName"]),
}  # fmt: skip


@pytest.mark.parametrize(("given", "before", "fields"), CONFLICTS.values(), ids=CONFLICTS)
def test_conflicts_are_named(given, before, fields):
    new, faults = sizes.apply(before, given, None)
    assert [fault.field for fault in faults] == [f"{HERE}.{field}" for field in fields]
    if faults:
        assert new is before
        assert faults[0].message == "the instancetype sets this: leave it out; to change it, name another instancetype"


def test_annotations_come_along_and_contradictions_are_named():
    given = size(annotations={"a": "1", "b": "2"})
    new, faults = sizes.apply({**template(), "metadata": {"annotations": {"b": "2"}}}, given, None)
    assert (new["metadata"]["annotations"], faults) == ({"a": "1", "b": "2"}, [])
    _, faults = sizes.apply({**template(), "metadata": {"annotations": {"b": "3"}}}, given, None)
    assert [fault.field for fault in faults] == ["spec.template.metadata.annotations[b]"]


LAYOUTS = {
    "cores": ({"preferredCPUTopology": "cores"}, 4, (1, 4, 1)),
    "threads, by the old name": ({"preferredCPUTopology": "preferThreads"}, 4, (1, 1, 4)),
    "any is sockets": ({"preferredCPUTopology": "any"}, 4, (4, 1, 1)),
    "spread, two cores a socket": ({"preferredCPUTopology": "spread"}, 6, (3, 2, 1)),
    "spread by ratio": ({"preferredCPUTopology": "spread", "spreadOptions": {"ratio": 4}}, 8, (2, 4, 1)),
    "cores with threads": (
        {"preferredCPUTopology": "spread", "spreadOptions": {"across": "CoresThreads"}}, 6, (1, 3, 2)),
    "over all": (
        {"preferredCPUTopology": "spread", "spreadOptions": {"across": "SocketsCoresThreads", "ratio": 2}}, 8,
        (2, 2, 2)),
    "one is one": ({"preferredCPUTopology": "spread"}, 1, (1, 1, 1)),
}  # fmt: skip


@pytest.mark.parametrize(("cpu", "vcpus", "shape"), LAYOUTS.values(), ids=LAYOUTS)
def test_vcpus_are_laid_out_as_preferred(cpu, vcpus, shape):
    new, faults = sizes.apply(template(), size(cpu={"guest": vcpus}), {"spec": {"cpu": cpu}})
    made = new["spec"]["domain"]["cpu"]
    assert ((made["sockets"], made["cores"], made["threads"]), faults) == (shape, [])


def test_what_cannot_be_spread_evenly_is_said():
    taste = {"spec": {"cpu": {"preferredCPUTopology": "spread"}, "preferSpreadSocketToCoreRatio": 3}}
    _, faults = sizes.apply(template(), size(cpu={"guest": 4}), taste)
    (fault,) = faults
    assert fault.field == "spec.instancetype"
    assert fault.message == (
        "4 vCPUs of the instancetype cannot be spread in steps of 3 as the preference wants: "
        "use another instancetype, or another preference"
    )


def devices(**given):
    return {"devices": given}


TASTES = {
    "graphics": (
        devices(preferredAutoattachGraphicsDevice=False), {}, "domain.devices.autoattachGraphicsDevice", False),
    "not what the machine says": (
        devices(preferredAutoattachGraphicsDevice=False), {"domain": {"devices": {"autoattachGraphicsDevice": True}}},
        "domain.devices.autoattachGraphicsDevice", True),
    "queues of interfaces": (
        devices(preferredNetworkInterfaceMultiQueue=True), {}, "domain.devices.networkInterfaceMultiqueue", True),
    "no hotplug": (devices(preferredDisableHotplug=True), {}, "domain.devices.disableHotplug", True),
    "bus of a disk": (
        devices(preferredDiskBus="virtio"), {"domain": {"devices": {"disks": [{"name": "a"}]}}},
        "domain.devices.disks.0.disk.bus", "virtio"),
    "bus of a disk that nobody wrote": (
        devices(preferredDiskBus="virtio"), {"volumes": [{"name": "a", "containerDisk": {}}]},
        "domain.devices.disks.0.disk.bus", "virtio"),
    "bus that the machine says": (
        devices(preferredDiskBus="virtio"),
        {"domain": {"devices": {"disks": [{"name": "a", "disk": {"bus": "sata"}}]}}},
        "domain.devices.disks.0.disk.bus", "sata"),
    "bus of a CD-ROM": (
        devices(preferredCdromBus="scsi", preferredDiskBus="virtio"),
        {"domain": {"devices": {"disks": [{"name": "a", "cdrom": {}}]}}}, "domain.devices.disks.0.cdrom.bus", "scsi"),
    "cache": (
        devices(preferredDiskCache="none"), {"domain": {"devices": {"disks": [{"name": "a"}]}}},
        "domain.devices.disks.0.cache", "none"),
    "IO threads are for virtio": (
        devices(preferredDiskDedicatedIoThread=True, preferredDiskBus="virtio"),
        {"domain": {"devices": {"disks": [{"name": "a"}]}}}, "domain.devices.disks.0.dedicatedIOThread", True),
    "and not for SATA": (
        devices(preferredDiskDedicatedIoThread=True), {"domain": {"devices": {"disks": [{"name": "a"}]}}},
        "domain.devices.disks.0.dedicatedIOThread", None),
    "model of the interface that nobody wrote": (
        devices(preferredInterfaceModel="e1000e"), {}, "domain.devices.interfaces.0.model", "e1000e"),
    "no interface where none is wanted": (
        devices(preferredInterfaceModel="e1000e"), {"domain": {"devices": {"autoattachPodInterface": False}}},
        "domain.devices.interfaces", None),
    "masquerade": (
        devices(preferredInterfaceMasquerade={}),
        {"networks": [{"name": "n", "pod": {}}], "domain": {"devices": {"interfaces": [{"name": "n"}]}}},
        "domain.devices.interfaces.0.masquerade", {}),
    "video": (devices(preferredVideoType="virtio"), {}, "domain.devices.video.type", "virtio"),
    "sound only where there is some": (devices(preferredSoundModel="ich9"), {}, "domain.devices.sound", None),
    "sound": (
        devices(preferredSoundModel="ich9"), {"domain": {"devices": {"sound": {"name": "s"}}}},
        "domain.devices.sound.model", "ich9"),
    "inputs": (
        devices(preferredInputBus="usb", preferredInputType="tablet"),
        {"domain": {"devices": {"inputs": [{"name": "i"}]}}}, "domain.devices.inputs.0.bus", "usb"),
    "panic device": (devices(preferredPanicDeviceModel="isa"), {}, "domain.devices.panicDevices.0.model", "isa"),
    "TPM": (devices(preferredTPM={}), {}, "domain.devices.tpm", {}),
    "ACPI": ({"features": {"preferredAcpi": {"enabled": False}}}, {}, "domain.features.acpi.enabled", False),
    "Hyper-V, field by field": (
        {"features": {"preferredHyperv": {"relaxed": {}, "vapic": {"enabled": True}}}},
        {"domain": {"features": {"hyperv": {"vapic": {"enabled": False}}}}},
        "domain.features.hyperv", {"relaxed": {}, "vapic": {"enabled": False}}),
    "EFI": (
        {"firmware": {"preferredEfi": {"secureBoot": True}}}, {}, "domain.firmware.bootloader.efi.secureBoot", True),
    "EFI, as it was said": (
        {"firmware": {"preferredUseEfi": True, "preferredUseSecureBoot": False}}, {},
        "domain.firmware.bootloader.efi.secureBoot", False),
    "BIOS": (
        {"firmware": {"preferredUseBios": True, "preferredUseBiosSerial": True}}, {},
        "domain.firmware.bootloader.bios.useSerial", True),
    "not beside the machine's own": (
        {"firmware": {"preferredEfi": {}}}, {"domain": {"firmware": {"bootloader": {"bios": {}}}}},
        "domain.firmware.bootloader.efi", None),
    "machine type": ({"machine": {"preferredMachineType": "pc-q35-8.0"}}, {}, "domain.machine.type", "pc-q35-8.0"),
    "clock": (
        {"clock": {"preferredClockOffset": {"timezone": "UTC"}, "preferredTimer": {"hpet": {}}}}, {},
        "domain.clock.timer.hpet", {}),
    "clock, whole or not": (
        {"clock": {"preferredClockOffset": {"timezone": "UTC"}}}, {"domain": {"clock": {"utc": {}}}},
        "domain.clock.timezone", None),
    "CPU features": (
        {"cpu": {"preferredCPUFeatures": [{"name": "vmx"}, {"name": "svm"}]}},
        {"domain": {"cpu": {"features": [{"name": "vmx", "policy": "disable"}]}}},
        "domain.cpu.features", [{"name": "vmx", "policy": "disable"}, {"name": "svm"}]),
    "grace": ({"preferredTerminationGracePeriodSeconds": 0}, {}, "terminationGracePeriodSeconds", 0),
    "subdomain": ({"preferredSubdomain": "net"}, {}, "subdomain", "net"),
    "architecture": ({"preferredArchitecture": "amd64"}, {}, "architecture", "amd64"),
    "security": ({"preferredLaunchSecurity": {"snp": {}}}, {}, "domain.launchSecurity.snp", {}),
}  # fmt: skip


@pytest.mark.parametrize(("taste", "spec", "path", "value"), TASTES.values(), ids=TASTES)
def test_a_preference_fills_in(taste, spec, path, value):
    before, given = {"spec": spec}, {"spec": taste}
    kept = copy.deepcopy((before, given))
    new, faults = sizes.apply(before, None, given)
    assert (at(new["spec"], path), faults) == (value, [])
    assert (before, given) == kept


NEEDS = {
    "vCPUs of the instancetype": (
        {"cpu": {"guest": 4}}, size(), template(),
        [("spec.instancetype", "2 vCPUs, and the preference requires 4")]),
    "memory of the instancetype": (
        {"memory": {"guest": "4Gi"}}, size(), template(),
        [("spec.instancetype", "2Gi of memory, and the preference requires 4Gi")]),
    "vCPUs of the machine": (
        {"cpu": {"guest": 2}}, None, template({"memory": {"guest": "1Gi"}}),
        [(f"{HERE}.domain.cpu.sockets", "1 vCPU in sockets, and the preference requires 2")]),
    "memory of the machine": (
        {"memory": {"guest": "2Gi"}}, None, template({"resources": {"requests": {"memory": "1Gi"}}}),
        [(f"{HERE}.domain.memory", "1Gi of memory, and the preference requires 2Gi")]),
    "architecture": (
        {"architecture": "arm64"}, size(), template(),
        [(f"{HERE}.architecture", "is amd64, and the preference requires arm64")]),
    "all at once": (
        {"cpu": {"guest": 4}, "memory": {"guest": "4Gi"}}, size(), template(),
        [("spec.instancetype", "2 vCPUs, and the preference requires 4"),
         ("spec.instancetype", "2Gi of memory, and the preference requires 4Gi")]),
    "enough": ({"cpu": {"guest": 2}, "memory": {"guest": "2Gi"}}, size(), template(), []),
}  # fmt: skip


@pytest.mark.parametrize(("needs", "given", "before", "expected"), NEEDS.values(), ids=NEEDS)
def test_what_a_preference_requires(needs, given, before, expected):
    _, faults = sizes.apply(before, given, {"spec": {"requirements": needs}})
    assert [(fault.field, fault.message) for fault in faults] == expected


HOSTILE = [None, [], "x", 1, {}, {"spec": None}, {"spec": {"cpu": 1, "memory": []}}, {"spec": {"devices": [1]}},
           {"spec": {"cpu": {"guest": 1}, "memory": {"guest": "much"}}}, {"spec": {"cpu": {"preferredCPUTopology": 3}}},
           {"spec": {"cpu": {"guest": 1}, "memory": {"guest": "1Gi"}, "annotations": {"a": 1}}}]  # fmt: skip


@pytest.mark.parametrize("obj", HOSTILE, ids=repr)
def test_a_revision_may_hold_anything(obj):
    for pair in ((obj, None), (None, obj), (obj, obj)):
        new, faults = sizes.apply(template(), *pair)
        assert new == template() or not faults
    if obj not in (None, {"spec": {"cpu": {"guest": 1}, "memory": {"guest": "1Gi"}, "annotations": {"a": 1}}}):
        assert [fault.field for fault in sizes.apply(template(), obj, None)[1]] == ["spec.instancetype"]


def test_an_expanded_machine_says_all_itself():
    status = {"ready": True, "instancetypeRef": {"name": "s"}, "preferenceRef": {"name": "p"}}
    machine = {**vm(instancetype={"name": "s"}, preference={"name": "p"}, runStrategy="Always"), "status": status}
    made = sizes.expand(machine, size(), {"spec": devices(preferredVideoType="virtio")})
    assert made["spec"].keys() == {"template", "runStrategy"}
    assert made["status"] == {"ready": True}
    assert made["spec"]["template"]["spec"]["domain"]["memory"] == {"guest": "2Gi"}
    with pytest.raises(ConflictError, match=r"domain\.memory\.guest: the instancetype sets this"):
        sizes.expand(vm(template({"memory": {"guest": "1Gi"}})), size(), None)


MATCHERS = {
    "a name": ({"name": "s"}, None, []),
    "neither": ({}, None, [("FieldValueRequired", "spec.instancetype.name")]),
    "both": ({"name": "s", "inferFromVolume": "v"}, None, [("FieldValueNotSupported", "spec.instancetype.name")]),
    "a kind, to be inferred": (
        {"inferFromVolume": "v", "kind": "VirtualMachineInstancetype"}, None,
        [("FieldValueNotSupported", "spec.instancetype.kind")]),
    "another kind": ({"name": "s", "kind": "Pod"}, None, [("FieldValueNotSupported", "spec.instancetype.kind")]),
    "a resource for a kind": ({"name": "s", "kind": "virtualmachineinstancetypes"}, None, []),
    "a policy": (
        {"inferFromVolume": "v", "inferFromVolumeFailurePolicy": "Maybe"}, None,
        [("FieldValueInvalid", "spec.instancetype.inferFromVolumeFailurePolicy")]),
    "a new name with the old revision": (
        {"name": "s", "revisionName": "r"}, {"name": "t", "revisionName": "r"},
        [("FieldValueInvalid", "spec.instancetype.revisionName")]),
    "a new name with its revision": ({"name": "s", "revisionName": "q"}, {"name": "t", "revisionName": "r"}, []),
}  # fmt: skip


@pytest.mark.parametrize(("said", "before", "expected"), MATCHERS.values(), ids=MATCHERS)
def test_matchers(said, before, expected):
    old = vm(instancetype=before) if before else None
    found = matchers.check(vm(instancetype=said), old)
    assert [(fault.reason, fault.field) for fault in found] == expected


LABEL = "instancetype.kubevirt.io/default-instancetype"
LABELS = {LABEL: "u1.small",
          "instancetype.kubevirt.io/default-instancetype-kind": "virtualmachineinstancetype",
          "instancetype.kubevirt.io/default-preference": "debian"}  # fmt: skip
TOLD = {"name": "u1.small", "kind": "virtualmachineinstancetype"}
OBJECTS = {
    ("PersistentVolumeClaim", "labelled", "default"): {"metadata": {"labels": LABELS}},
    ("PersistentVolumeClaim", "silent", "default"): {"metadata": {}},
    ("PersistentVolumeClaim", "golden", "images"): {"metadata": {"labels": LABELS}},
    ("DataVolume", "own", "default"): {"metadata": {"labels": LABELS}, "spec": {}},
    ("DataVolume", "copy", "default"): {
        "metadata": {}, "spec": {"source": {"pvc": {"name": "golden", "namespace": "images"}}}},
    ("DataVolume", "ref", "default"): {"metadata": {}, "spec": {"sourceRef": {"kind": "DataSource", "name": "deb"}}},
    ("DataVolume", "http", "default"): {"metadata": {}, "spec": {"source": {"http": {"url": "x"}}}},
    ("DataSource", "deb", "default"): {"metadata": {}, "spec": {"source": {"snapshot": {"name": "snap"}}}},
    ("VolumeSnapshot", "snap", "default"): {"metadata": {"labels": LABELS}},
}  # fmt: skip


def claim(name):
    return {"name": "root", "persistentVolumeClaim": {"claimName": name}}


def data(name):
    return {"name": "root", "dataVolume": {"name": name}}


INFERRED = {
    "from a claim": (claim("labelled"), "", TOLD),
    "from a data volume": (data("own"), "", TOLD),
    "from a data volume that is gone": (data("labelled"), "", TOLD),
    "from what a data volume copies": (data("copy"), "", TOLD),
    "from a data source's snapshot": (data("ref"), "", TOLD),
    "a claim without a label": (
        claim("silent"), "",
        f"PersistentVolumeClaim default/silent has no label {LABEL}: set it, or name the instancetype"),
    "no such claim": (claim("nowhere"), "", "there is no PersistentVolumeClaim default/nowhere"),
    "another source": (
        data("http"), "", "the data volume's source tells nothing: use a claim, a snapshot or a DataSource"),
    "another volume": (
        {"name": "root", "containerDisk": {}}, "",
        "volume root is of a type that tells nothing: use a claim or a data volume"),
    "no such volume": ({"name": "data", "containerDisk": {}}, "", "no volume is named root"),
    "no label, and never mind": (claim("silent"), "Ignore", None),
    "no such claim is minded": (claim("nowhere"), "Ignore", "there is no PersistentVolumeClaim default/nowhere"),
}  # fmt: skip


@pytest.mark.parametrize(("volume", "policy", "expected"), INFERRED.values(), ids=INFERRED)
def test_inference(volume, policy, expected):
    said = {"inferFromVolume": "root", **({"inferFromVolumeFailurePolicy": policy} if policy else {})}
    made, faults = matchers.inferred(vm(template(volumes=[volume]), instancetype=said), lambda *key: OBJECTS.get(key))
    if isinstance(expected, str):
        assert [(fault.field, fault.message) for fault in faults] == [("spec.instancetype.inferFromVolume", expected)]
        assert made["spec"]["instancetype"] == said
    else:
        assert (made["spec"].get("instancetype"), faults) == (expected, [])


def test_inference_from_a_template_of_a_data_volume_and_memory_for_the_case_without():
    own = {"metadata": {"name": "disk"}, "spec": {"source": {"pvc": {"name": "golden", "namespace": "images"}}}}
    said = {"inferFromVolume": "root", "inferFromVolumeFailurePolicy": "Ignore"}
    machine = vm(
        template({"memory": {"guest": "1Gi"}}, volumes=[data("disk")]),
        instancetype=said, preference={"inferFromVolume": "root"}, dataVolumeTemplates=[own],
    )  # fmt: skip
    made, faults = matchers.inferred(machine, lambda *key: OBJECTS.get(key))
    assert faults == []
    assert (made["spec"]["instancetype"], made["spec"]["preference"]) == (TOLD, {"name": "debian"})
    assert made["spec"]["template"]["spec"]["domain"] == {"devices": {}}


def test_nothing_to_infer_is_the_same_object():
    machine = vm(instancetype={"name": "s"})
    assert matchers.inferred(machine, lambda *_: None) == (machine, [])


RULES = {
    "fine": (size(), []),
    "no vCPU": (size(cpu={"guest": 0}), ["spec.cpu.guest"]),
    "no size": (size(memory={"guest": "much"}), ["spec.memory.guest"]),
    "more than the most": (size(memory={"maxGuest": "1Gi"}), ["spec.memory.maxGuest"]),
    "no percentage": (size(memory={"overcommitPercent": 101}), ["spec.memory.overcommitPercent"]),
    "overcommitted hugepages": (
        size(memory={"overcommitPercent": 5, "hugepages": {}}), ["spec.memory.overcommitPercent"]),
}  # fmt: skip


@pytest.mark.parametrize(("obj", "fields"), RULES.values(), ids=RULES)
def test_what_an_instancetype_may_say(obj, fields):
    assert [fault.field for fault in validation_instancetype.instancetype(obj).faults] == fields


TASTE_RULES = {
    "fine": ({"preferredCPUTopology": "cores"}, [], ()),
    "an old name": (
        {"preferredCPUTopology": "preferCores"}, [],
        ("spec.cpu.preferredCPUTopology: preferCores is deprecated: use cores",)),
    "an unknown layout": ({"preferredCPUTopology": "round"}, ["spec.cpu.preferredCPUTopology"], ()),
    "an unknown spread": (
        {"preferredCPUTopology": "spread", "spreadOptions": {"across": "Dies"}}, ["spec.cpu.spreadOptions.across"], ()),
    "three threads": (
        {"preferredCPUTopology": "spread", "spreadOptions": {"across": "CoresThreads", "ratio": 3}},
        ["spec.cpu.spreadOptions.ratio"], ()),
}  # fmt: skip


@pytest.mark.parametrize(("cpu", "fields", "warnings"), TASTE_RULES.values(), ids=TASTE_RULES)
def test_what_a_preference_may_say(cpu, fields, warnings):
    checked = validation_instancetype.preference({"spec": {"cpu": cpu}})
    assert ([fault.field for fault in checked.faults], checked.warnings) == (fields, warnings)
