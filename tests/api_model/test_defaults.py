"""What KubeVirt fills in, and that it does so once, the same each time, without touching what it was given."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotvirt.api import defaults, quantity
from hotvirt.api.defaults import ClusterSettings

CLUSTER = ClusterSettings()
OWNER = {"kind": "VirtualMachine", "name": "web", "uid": "0a1b", "controller": True}


def vmi(domain=None, *, owner=OWNER, name="web", **spec):
    metadata = {"name": name, "namespace": "default"}
    if owner:
        metadata["ownerReferences"] = [owner]
    return {"metadata": metadata, "spec": {"domain": domain or {"memory": {"guest": "1Gi"}}, **spec}}


def filled(domain=None, *, cluster=CLUSTER, **spec):
    return defaults.instance(vmi(domain, **spec), cluster)["spec"]


def vm(domain=None, **inner):
    return {"spec": {"runStrategy": "Halted", "template": {"spec": {"domain": domain or {}, **inner}}}}


def test_the_smallest_instance():
    """The UUID and MAC are what a guest knows itself by: another release of hotvirt must give it the same."""
    assert filled() == {
        "architecture": "amd64",
        "terminationGracePeriodSeconds": 30,
        "networks": [{"name": "default", "pod": {}}],
        "domain": {
            "machine": {"type": "q35"},
            "cpu": {"sockets": 1, "cores": 1, "threads": 1, "model": "host-model", "maxSockets": 4},
            "memory": {"guest": "1Gi", "maxGuest": "4Gi"},
            "firmware": {"uuid": "fb38dfb2-fe1f-5808-a037-7155a6009e54"},
            "devices": {
                "disks": [],
                "interfaces": [{"name": "default", "masquerade": {}, "macAddress": "02:7a:2f:98:d8:2b"}],
            },
        },
    }


CPU = {
    "sockets times the ratio": ({"sockets": 2}, {}, 8),
    "what the VM says": ({"sockets": 2, "maxSockets": 3}, {}, 3),
    "what the cluster says": ({"sockets": 2}, {"max_sockets": 6}, 6),
    "a cluster's maximum is raised to the sockets": ({"sockets": 8}, {"max_sockets": 2}, 8),
    "the cluster's ratio": ({"sockets": 2}, {"hotplug_ratio": 3}, 6),
    "512 vCPUs are the end": ({"sockets": 100, "cores": 4}, {}, 128),
    "... and never fewer than there are": ({"sockets": 200, "cores": 4}, {}, 200),
    "... with cores that leave no room for two": ({"cores": 300}, {}, 1),
    "zero is not said": ({"sockets": 0, "cores": 0, "maxSockets": 0}, {}, 4),
    "null is not said": ({"sockets": None, "cores": None, "maxSockets": None}, {}, 4),
    "none without live update": ({"sockets": 2}, {"live_update": False}, None),
    "said is said, also without live update": ({"sockets": 2, "maxSockets": 4}, {"live_update": False}, 4),
}


@pytest.mark.parametrize(("cpu", "cluster", "most"), CPU.values(), ids=CPU)
def test_max_sockets(cpu, cluster, most):
    found = filled({"cpu": cpu, "memory": {"guest": "1Gi"}}, cluster=ClusterSettings(**cluster))["domain"]["cpu"]
    assert found.get("maxSockets") == most
    assert min(found["sockets"], found["cores"], found["threads"]) >= 1


MEMORY = {
    "four times the guest": ({"memory": {"guest": "1Gi"}}, {}, "1Gi", "4Gi"),
    "requests when guest is silent": ({"resources": {"requests": {"memory": "2Gi"}}}, {}, "2Gi", "8Gi"),
    "limits when requests are too": ({"resources": {"limits": {"memory": "2Gi"}}}, {}, "2Gi", None),
    "null is not said": ({"memory": {"guest": None, "maxGuest": None}, "resources": {"requests": {"memory": "1Gi"}}},
                         {}, "1Gi", "4Gi"),
    "limits bound it": ({"memory": {"guest": "1Gi"}, "resources": {"limits": {"memory": "2Gi"}}}, {}, "1Gi", "2Gi"),
    "what the VM says": ({"memory": {"guest": "1Gi", "maxGuest": "3Gi"}}, {}, "1Gi", "3Gi"),
    "what the cluster says": ({"memory": {"guest": "1Gi"}}, {"max_guest": 2 << 30}, "1Gi", "2Gi"),
    "a cluster's maximum below the guest is none": ({"memory": {"guest": "4Gi"}}, {"max_guest": 2 << 30}, "4Gi", None),
    "none without live update": ({"memory": {"guest": "1Gi"}}, {"live_update": False}, "1Gi", None),
    "a small guest too": ({"memory": {"guest": "64Mi"}}, {}, "64Mi", "256Mi"),
    "decimal sizes in whole blocks": ({"resources": {"requests": {"memory": "1024M"}}}, {}, "976Mi", "3904Mi"),
    "as it was written, if it was": ({"memory": {"guest": "1024M"}}, {}, "1024M", "3904Mi"),
    "nobody says": ({"devices": {}}, {}, None, None),
}  # fmt: skip


@pytest.mark.parametrize(("domain", "cluster", "guest", "most"), MEMORY.values(), ids=MEMORY)
def test_memory(domain, cluster, guest, most):
    found = filled(domain, cluster=ClusterSettings(**cluster))["domain"]["memory"]
    assert (found.get("guest"), found.get("maxGuest")) == (guest, most)


def test_disks_get_a_target_and_a_bus_and_volumes_get_disks():
    spec = filled(
        {
            "memory": {"guest": "1Gi"},
            "devices": {
                "disks": [
                    {"name": "plain"},
                    {"name": "virtio", "disk": {"bus": "virtio"}, "serial": "S"},
                    {"name": "drive", "cdrom": {}},
                    {"name": "lun", "lun": {"readonly": True}},
                ],
                "filesystems": [{"name": "shared"}],
            },
        },
        volumes=[{"name": name, "emptyDisk": {"capacity": "1Gi"}} for name in ("plain", "virtio", "extra", "shared")],
    )
    assert spec["domain"]["devices"]["disks"] == [
        {"name": "plain", "disk": {"bus": "sata"}},
        {"name": "virtio", "disk": {"bus": "virtio"}, "serial": "S"},
        {"name": "drive", "cdrom": {"bus": "sata"}},
        {"name": "lun", "lun": {"readonly": True, "bus": "scsi"}},
        {"name": "extra", "disk": {"bus": "sata"}},
    ]


def test_the_pod_network_unless_declined_or_something_else_is_named():
    assert "interfaces" not in filled({"devices": {"autoattachPodInterface": False}})["domain"]["devices"]
    spec = filled({"devices": {"autoattachPodInterface": False}})
    assert "networks" not in spec
    spec = filled(
        {"devices": {"interfaces": [{"name": "a", "bridge": {}, "macAddress": "02:00:00:00:00:01"}]}},
        networks=[{"name": "a", "pod": {}}],
    )
    assert spec["domain"]["devices"]["interfaces"] == [{"name": "a", "bridge": {}, "macAddress": "02:00:00:00:00:01"}]
    assert spec["networks"] == [{"name": "a", "pod": {}}]


@pytest.mark.parametrize("written", ["02-00-00-00-00-0A", "02:00:00:00:00:0A", "02:00:00:00:00:0a"])
def test_an_address_is_one_however_it_is_written(written):
    spec = filled(
        {"devices": {"interfaces": [{"name": "a", "bridge": {}, "macAddress": written}]}},
        networks=[{"name": "a", "pod": {}}],
    )
    assert spec["domain"]["devices"]["interfaces"] == [{"name": "a", "bridge": {}, "macAddress": "02:00:00:00:00:0a"}]


def test_identity_is_the_owners_over_restarts_and_differs_between_machines():
    first, again = filled(), filled()
    assert first["domain"]["firmware"] == again["domain"]["firmware"]
    other = filled(owner={**OWNER, "uid": "other"})
    alone = filled(owner=None)
    sibling = filled(owner={**OWNER, "controller": False})  # owned, but not by its controller
    assert len({s["domain"]["firmware"]["uuid"] for s in (first, other, alone)}) == 3
    assert sibling == alone
    macs = [s["domain"]["devices"]["interfaces"][0]["macAddress"] for s in (first, other, alone)]
    assert len(set(macs)) == 3


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
def test_mac_addresses_are_locally_administered_and_unicast(identity, interface):
    octets = [int(octet, 16) for octet in defaults.mac_address(identity, interface).split(":")]
    assert len(octets) == 6
    assert octets[0] & 0b11 == 0b10


@pytest.mark.parametrize(
    ("name", "spec", "hostname"),
    [
        ("web", {}, "web"), ("web.prod", {}, "web"), ("web.prod", {"hostname": "shop"}, "shop"),
        ("a" * 70, {}, "a" * 63), (f"{'a' * 62}-b.c", {}, "a" * 62),
    ],
)  # fmt: skip
def test_a_host_is_called_by_one_label(name, spec, hostname):
    assert defaults.hostname({"metadata": {"name": name}, "spec": spec}) == hostname


def test_what_is_said_stays():
    domain = {
        "machine": {"type": "pc-q35-7.2"},
        "cpu": {"sockets": 3, "cores": 2, "threads": 2, "model": "Haswell", "maxSockets": 5},
        "memory": {"guest": "2Gi", "maxGuest": "4Gi"},
        "firmware": {"uuid": "b0a4c35b-6ea5-4aa1-9f45-9a6c5d2e7a11", "serial": "x"},
        "devices": {
            "disks": [],
            "interfaces": [{"name": "n", "masquerade": {}, "macAddress": "02:00:00:00:00:07"}],
            "rng": {},
        },
    }
    spec = {"architecture": "amd64", "terminationGracePeriodSeconds": 0, "networks": [{"name": "n", "pod": {}}]}
    spec["evictionStrategy"] = "None"
    cluster = ClusterSettings(machine_type="q35", cpu_model="max", eviction_strategy="LiveMigrate")
    assert filled(domain, cluster=cluster, **spec) == {"domain": domain, **spec}


def test_cluster_settings_fill_what_the_machine_leaves_open():
    cluster = ClusterSettings(machine_type="pc-q35-9.0", cpu_model="max", eviction_strategy="None")
    spec = filled(cluster=cluster)
    assert spec["domain"]["machine"]["type"] == "pc-q35-9.0"
    assert spec["domain"]["cpu"]["model"] == "max"
    assert spec["evictionStrategy"] == "None"


SETTINGS = {
    "no object": (None, ClusterSettings()),
    "an empty one": ({}, ClusterSettings()),
    "nulls": ({"spec": {"configuration": None}}, ClusterSettings()),
    "everything": (
        {"spec": {"configuration": {
            "vmRolloutStrategy": "Stage", "machineType": "pc-q35-9.0", "cpuModel": "max", "evictionStrategy": "None",
            "liveUpdateConfiguration": {"maxHotplugRatio": 2, "maxCpuSockets": 8, "maxGuest": "8Gi"}}}},
        ClusterSettings(2, 8, 8 << 30, False, "pc-q35-9.0", "max", "None"),
    ),
    "for an architecture": (
        {"spec": {"configuration": {"architectureConfiguration": {
            "amd64": {"machineType": "pc-q35-8.2"}, "arm64": {"machineType": "virt"}}}}},
        ClusterSettings(machine_type="pc-q35-8.2"),
    ),
    "for an architecture and for all": (
        {"spec": {"configuration": {
            "machineType": "pc", "architectureConfiguration": {"amd64": {"machineType": "q35"}}}}},
        ClusterSettings(machine_type="pc"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("kubevirt", "expected"), SETTINGS.values(), ids=SETTINGS)
def test_settings_of_the_kubevirt_object(kubevirt, expected):
    assert ClusterSettings.of(kubevirt) == expected


# The VM itself: what a cluster's later change must not change under it.


def test_a_new_machine_keeps_the_clusters_machine_type_of_its_first_day():
    made = defaults.machine(vm(), ClusterSettings(machine_type="pc-q35-9.0"))
    assert made["spec"]["template"]["spec"] == {"domain": {"machine": {"type": "pc-q35-9.0"}}, "architecture": "amd64"}
    later = defaults.machine(vm(), ClusterSettings(machine_type="pc-q35-10.0"), old=made)
    assert later == made


def test_a_machine_that_had_none_gets_none_by_a_later_edit():
    assert defaults.machine(vm(), CLUSTER, old=vm()) == vm()


def test_what_the_machine_says_counts():
    given_ = vm({"machine": {"type": "pc-q35-7.2"}, "cpu": {"sockets": 2}}, architecture="amd64")
    assert defaults.machine(given_, CLUSTER) is given_
    assert defaults.machine(given_, CLUSTER, old=vm({"machine": {"type": "q35"}}, architecture="amd64")) is given_


# Properties.

_sizes = st.sampled_from(["64Mi", "1Gi", "1536Mi", "1024M", "1G", 1 << 30, "3221225473"])
_COUNTED = ("sockets", "cores", "threads", "maxSockets")
_counts = st.one_of(st.none(), st.integers(0, 20))
_domains = st.fixed_dictionaries(
    {"memory": st.fixed_dictionaries({"guest": _sizes}, optional={"maxGuest": st.sampled_from(["64Gi", "3G"])})},
    optional={
        "cpu": st.fixed_dictionaries({}, optional=dict.fromkeys(_COUNTED, _counts)),
        "devices": st.fixed_dictionaries(
            {},
            optional={
                "disks": st.lists(st.sampled_from([{"name": "a"}, {"name": "b", "cdrom": {}}]), max_size=2),
                "autoattachPodInterface": st.booleans(),
            },
        ),
        "machine": st.just({"type": "q35"}),
    },
)


@settings(max_examples=60, deadline=None)
@given(_domains, st.integers(1, 8), st.booleans())
def test_defaults_fill_in_once_and_leave_their_argument_alone(domain, ratio, live):
    cluster = ClusterSettings(hotplug_ratio=ratio, live_update=live)
    asked = vmi(domain, volumes=[{"name": "a"}, {"name": "c"}])
    before = copy.deepcopy(asked)
    once = defaults.instance(asked, cluster)
    assert asked == before
    assert defaults.instance(once, cluster) == once
    memory = once["spec"]["domain"]["memory"]
    assert memory["guest"] == domain["memory"]["guest"]
    if "maxGuest" in memory and "maxGuest" not in domain["memory"]:
        assert quantity.parse_bytes(memory["maxGuest"]) % defaults.BLOCK == 0


@pytest.mark.parametrize(
    ("domain", "count"),
    [
        ({}, 1),
        ({"cpu": {"sockets": 3}, "resources": {"requests": {"cpu": "5"}}}, 3),
        ({"cpu": {"cores": 2}, "resources": {"requests": {"cpu": "5"}}}, 1),
        ({"cpu": {"model": "max"}, "resources": {"requests": {"cpu": "5"}}}, 5),
        ({"resources": {"requests": {"cpu": "1500m"}}}, 2),
        ({"resources": {"requests": {"cpu": "100m"}}}, 1),
        ({"resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "4"}}}, 4),
        ({"resources": {"requests": {"cpu": "many"}}}, 1),
        ({"resources": {"limits": {"cpu": "9000"}}}, defaults.MAX_VCPUS),
    ],
)
def test_sockets_where_no_topology_is_said_come_from_limits_and_requests(domain, count):
    assert defaults.sockets(domain) == count
