"""Metrics of machines and instances, from their objects."""

from datetime import UTC, datetime, timedelta

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from hotvirt.controllers import metrics
from hotvirt.controllers.phasetimes import BUCKETS, PhaseTimes
from hotvirt.kube.informer import Change

T0 = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)


def stamp(seconds):
    return (T0 + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def text(found):
    class Once(Collector):
        def collect(self):
            return list(found)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Once())
    lines = generate_latest(registry).decode().splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))


def vm(name, printable, **spec):
    domain = {
        "machine": {"type": "q35"}, "cpu": {"sockets": 2, "cores": 1}, "memory": {"guest": "1Gi"},
        "resources": {"requests": {"cpu": "500m"}, "limits": {"memory": "2Gi"}},
        "devices": {"interfaces": [{"name": "default", "masquerade": {}}]},
    }  # fmt: skip
    template = {"spec": {"domain": domain, "networks": [{"name": "default", "pod": {}}]}}
    conditions = [
        {"type": "Ready", "lastTransitionTime": stamp(30)},
        {"type": "Paused", "lastTransitionTime": stamp(9)},
    ]
    return {
        "metadata": {"name": name, "namespace": "shop", "creationTimestamp": stamp(0)},
        "spec": {"template": template, **spec},
        "status": {"printableStatus": printable, "conditions": conditions},
    }


def vmi(name="web", phase="Running", **status):
    return {
        "metadata": {"name": name, "namespace": "shop", "creationTimestamp": stamp(0)},
        "spec": {"domain": {"devices": {}}},
        "status": {"phase": phase, "nodeName": "host", **status},
    }


def test_machines():
    found = text(metrics.machines([vm("web", "Running", instancetype={"name": "small"}), vm("db", "CrashLoopBackOff")]))
    who = 'name="web",namespace="shop"'
    assert found['kubevirt_number_of_vms{namespace="shop"}'] == "2.0"
    assert found[
        f'kubevirt_vm_info{{instance_type="small",machine_type="q35",{who},preference="",status="running",'
        'status_group="running"}'
    ] == "1.0"  # fmt: skip
    assert float(found[f"kubevirt_vm_create_date_timestamp_seconds{{{who}}}"]) == T0.timestamp()
    assert float(found[f"kubevirt_vm_running_status_last_transition_timestamp_seconds{{{who}}}"]) == T0.timestamp() + 30
    assert float(found[f"kubevirt_vm_error_status_last_transition_timestamp_seconds{{{who}}}"]) == 0
    assert float(
        found['kubevirt_vm_error_status_last_transition_timestamp_seconds{name="db",namespace="shop"}']
    ) == T0.timestamp() + 30  # fmt: skip
    sizes = {
        key: float(value)
        for key, value in found.items()
        if key.startswith("kubevirt_vm_resource") and 'name="web"' in key
    }
    assert sizes == {
        f'kubevirt_vm_resource_requests{{{who},resource="cpu",source="domain",unit="sockets"}}': 2,
        f'kubevirt_vm_resource_requests{{{who},resource="cpu",source="domain",unit="cores"}}': 1,
        f'kubevirt_vm_resource_requests{{{who},resource="memory",source="guest",unit="bytes"}}': 1 << 30,
        f'kubevirt_vm_resource_requests{{{who},resource="cpu",source="requests",unit="cores"}}': 0.5,
        f'kubevirt_vm_resource_limits{{{who},resource="memory",source="limits",unit="bytes"}}': 2 << 30,
    }
    assert found[
        f'kubevirt_vm_vnic_info{{binding_type="masquerade",model="virtio",{who},network="pod networking",'
        'vnic_name="default"}'
    ] == "1.0"  # fmt: skip


def test_every_printable_status_belongs_to_one_group():
    names = [name for group in metrics.STATUS_GROUPS.values() for name in group]
    assert len(names) == len(set(names))
    assert metrics.group_of("SomethingNew") == "error"


def test_instances():
    os_info = {"kernelRelease": "6.1", "machine": "x86_64", "name": "Debian", "versionId": "12"}
    running = vmi(guestOSInfo=os_info, interfaces=[{"name": "default", "ipAddress": "10.0.0.2"}, {"name": "lan"}],
                  memory={"memoryOverhead": "100Mi"})  # fmt: skip
    fixed = vmi("fixed")
    fixed["spec"]["evictionStrategy"] = "LiveMigrate"
    found = text(metrics.instances([running, fixed, vmi("old", "Succeeded")]))
    assert found['kubevirt_vmi_phase_count{instance_type="",node="host",phase="running"}'] == "2.0"
    assert found['kubevirt_vmi_non_evictable{name="web",namespace="shop",node="host"}'] == "0.0"
    assert found['kubevirt_vmi_non_evictable{name="fixed",namespace="shop",node="host"}'] == "1.0"
    assert not any('name="old"' in key for key in found if key.startswith("kubevirt_vmi_non_evictable"))
    assert found[
        'kubevirt_vmi_status_addresses{address="10.0.0.2",name="web",namespace="shop",network_name="default",'
        'node="host",type="InternalIP"}'
    ] == "1.0"  # fmt: skip
    assert float(found['kubevirt_vmi_launcher_memory_overhead_bytes{name="web",namespace="shop"}']) == 100 << 20
    info = next(key for key in found if key.startswith("kubevirt_vmi_info") and 'name="web"' in key)
    assert 'guest_os_name="Debian"' in info
    assert 'phase="running"' in info


def phased(**phases):
    times = [{"phase": name, "phaseTransitionTimestamp": stamp(at)} for name, at in phases.items()]
    return vmi(phaseTransitionTimestamps=times)


def test_phase_times_count_each_phase_once():
    times = PhaseTimes()
    times.observe(Change("ADDED", None, phased(Pending=0)))
    times.observe(Change("MODIFIED", phased(Pending=0), phased(Pending=0, Scheduled=2)))
    times.observe(Change("MODIFIED", phased(Pending=0, Scheduled=2), phased(Pending=0, Scheduled=2, Running=7)))
    times.observe(
        Change("MODIFIED", phased(Pending=0, Scheduled=2, Running=7), phased(Pending=0, Scheduled=2, Running=7))
    )
    times.observe(Change("DELETED", phased(Pending=0), None))
    found = text(metrics.phases(times))
    name = "kubevirt_vmi_phase_transition_time_from_creation_seconds"
    assert found[f'{name}_count{{phase="Running"}}'] == "1.0"
    assert found[f'{name}_sum{{phase="Running"}}'] == "7.0"
    assert [found[f'{name}_bucket{{le="{edge}",phase="Running"}}'] for edge in ("5.0", "10.0", "+Inf")] == [
        "0.0", "1.0", "1.0",
    ]  # fmt: skip
    assert found['kubevirt_vmi_phase_transition_time_seconds_sum{last="Scheduled",phase="Running"}'] == "5.0"


def test_what_a_list_brings_up_is_old_news():
    times = PhaseTimes()
    times.observe(Change("ADDED", None, phased(Pending=0, Running=3), relisted=True))
    assert not times.from_creation


def test_slow_ones_are_counted_beyond_the_last_edge():
    times = PhaseTimes()
    times.observe(Change("ADDED", None, phased(Pending=BUCKETS[-1] + 1)))
    assert times.from_creation[("Pending",)].below == [0] * len(BUCKETS) + [1]
