"""What guests say of themselves is read as numbers or not at all."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from hotvirt.kube.informer import Key
from hotvirt.node import metrics, samples
from hotvirt.node.samples import FileSystem, GuestSample, VcpuTime

MEMINFO = """MemTotal:         160317 kB
MemFree:          100000 kB
MemAvailable:     123289 kB
Buffers:             100 kB
Cached:             2000 kB
SwapCached:           10 kB
HugePages_Total:       0
"""


def test_meminfo_and_vmstat():
    found = samples.parse_meminfo(MEMINFO)
    assert (found["MemTotal"], found["Cached"]) == (160317 * 1024, 2000 * 1024)
    assert "HugePages_Total" not in found
    assert samples.parse_vmstat("pgfault 12\npgmajfault 3\nother 9\npswpin 1\n") == {
        "pgfault": 12, "pgmajfault": 3, "pswpin": 1,
    }  # fmt: skip


@pytest.mark.parametrize("text", ["", "\0\0", "MemTotal: lots kB", "MemTotal: " + "9" * 400 + " kB", "x" * 100_000])
def test_nonsense_is_no_figure(text):
    assert samples.parse_meminfo(text) == {}
    assert samples.parse_vmstat(text) == {}
    assert samples.parse_load(text) == ()


def test_load():
    assert samples.parse_load("0.10 0.20 1.30 1/90 401\n") == (0.1, 0.2, 1.3)


def test_filesystems_that_tell_no_size_or_lie_are_left_out():
    told = {"name": "sda1", "mountpoint": "/", "type": "ext4", "total-bytes": 100, "used-bytes": 40}
    lies = [{**told, "used-bytes": 101}, {**told, "total-bytes": 1 << 70}, {**told, "used-bytes": -1}, {"name": "x"},
            {**told, "total-bytes": "100"}]  # fmt: skip
    assert samples.parse_filesystems([*lies, told]) == (FileSystem("sda1", "/", "ext4", 100, 40),)
    assert len(samples.parse_filesystems([told] * 1000)) == samples.FILE_SYSTEMS


def test_blockstats_by_the_names_of_disks():
    stats = {"rd_bytes": 512, "rd_operations": 1, "x": {"y": 1}, "name": "z"}
    entries = [
        {"qdev": "/machine/peripheral/disk-root/virtio-backend", "stats": stats},
        {"qdev": "disk-data", "stats": stats},
        {"qdev": "/machine/unattached/device[4]", "stats": stats},
        {"stats": stats},
    ]
    assert samples.parse_blockstats(entries) == {
        name: {"rd_bytes": 512, "rd_operations": 1} for name in ("root", "data")
    }


SAMPLE = GuestSample(
    user_seconds=2.5, system_seconds=0.5, resident=1000, vcpus=(VcpuTime(0, 2.0, 0.25),), memory=268435456,
    balloon=268435456, guest=samples.parse_meminfo(MEMINFO) | {"pgfault": 12, "pgmajfault": 3, "pswpin": 2},
    load=(0.1, 0.2, 0.3), disks={"root": {"rd_bytes": 512, "rd_total_time_ns": 2_000_000_000}},
    nics={"default": {"rx_bytes": 7}}, filesystems=(FileSystem("sda1", "/", "ext4", 100, 40),),
)  # fmt: skip


def text(found):
    class Once(Collector):
        def collect(self):
            return list(found)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Once())
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if not line.startswith("#")]


def test_families_are_kubevirts():
    lines = text(metrics.families({Key("shop", "web"): SAMPLE}, "host"))
    who = 'name="web",namespace="shop",node="host"'
    values = dict(line.rsplit(" ", 1) for line in lines)
    expected = {
        "kubevirt_vmi_cpu_usage_seconds_total{%s}": 3.0,
        "kubevirt_vmi_cpu_user_usage_seconds_total{%s}": 2.5,
        'kubevirt_vmi_vcpu_seconds_total{id="0",%s,state="running"}': 2.0,
        'kubevirt_vmi_vcpu_delay_seconds_total{id="0",%s}': 0.25,
        "kubevirt_vmi_guest_load_5m{%s}": 0.2,
        "kubevirt_vmi_memory_domain_bytes{%s}": 268435456,
        "kubevirt_vmi_memory_available_bytes{%s}": 160317 * 1024,
        "kubevirt_vmi_memory_cached_bytes{%s}": 2110 * 1024,
        "kubevirt_vmi_memory_pgminfault_total{%s}": 9,
        "kubevirt_vmi_memory_swap_in_traffic_bytes{%s}": 8192,
        'kubevirt_vmi_storage_read_traffic_bytes_total{drive="root",%s}': 512,
        'kubevirt_vmi_storage_read_times_seconds_total{drive="root",%s}': 2.0,
        'kubevirt_vmi_network_receive_bytes_total{interface="default",%s}': 7,
        'kubevirt_vmi_filesystem_used_bytes{disk_name="sda1",file_system_type="ext4",mount_point="/",%s}': 40,
    }
    assert {key % who: float(values.get(key % who, "nan")) for key in expected} == {
        key % who: float(value) for key, value in expected.items()
    }


def test_a_guest_that_says_nothing_is_told_of_by_its_process():
    lines = text(metrics.families({Key("shop", "web"): GuestSample(user_seconds=1.0, resident=5)}, "host"))
    assert {line.split("{")[0] for line in lines} == {
        "kubevirt_vmi_cpu_usage_seconds_total", "kubevirt_vmi_cpu_user_usage_seconds_total",
        "kubevirt_vmi_cpu_system_usage_seconds_total", "kubevirt_vmi_memory_resident_bytes",
    }  # fmt: skip
