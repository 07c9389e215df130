"""KubeVirt's `kubevirt_vmi_*` metrics of what guests use, made from samples. Pure."""

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from hotvirt.kube.informer import Key
from hotvirt.node.samples import GuestSample

LABELS = ("node", "namespace", "name")
_CACHED = ("Buffers", "Cached", "SwapCached")

# Metric, what it tells, the name in the guest's own files.
_GUEST_GAUGES = (
    ("memory_available_bytes", "Memory the guest's kernel manages, bytes (its MemTotal).", "MemTotal"),
    ("memory_usable_bytes", "Memory the guest could give away without swapping, bytes (MemAvailable).", "MemAvailable"),
    ("memory_unused_bytes", "Memory the guest uses for nothing at all, bytes (its MemFree).", "MemFree"),
)
_SWAP = (
    ("memory_swap_in_traffic_bytes", "Bytes the guest read from its swap.", "pswpin"),
    ("memory_swap_out_traffic_bytes", "Bytes the guest wrote to its swap.", "pswpout"),
)
_PAGE = 4096
_GUEST_COUNTERS = (
    ("memory_pgmajfault", "Page faults of the guest that needed its disk.", "pgmajfault"),
    ("memory_pgminfault", "Page faults of the guest that did not need its disk.", "pgfault"),
)
_DISK = (
    ("storage_iops_read", "Reads of the disk.", "rd_operations", 1.0),
    ("storage_iops_write", "Writes to the disk.", "wr_operations", 1.0),
    ("storage_read_traffic_bytes", "Bytes read from the disk.", "rd_bytes", 1.0),
    ("storage_write_traffic_bytes", "Bytes written to the disk.", "wr_bytes", 1.0),
    ("storage_read_times_seconds", "Seconds that reads of the disk took.", "rd_total_time_ns", 1e-9),
    ("storage_write_times_seconds", "Seconds that writes to the disk took.", "wr_total_time_ns", 1e-9),
    ("storage_flush_requests", "Flushes of the disk.", "flush_operations", 1.0),
    ("storage_flush_times_seconds", "Seconds that flushes of the disk took.", "flush_total_time_ns", 1e-9),
)
_NIC = (
    ("network_receive_bytes", "Bytes the guest received.", "rx_bytes"),
    ("network_receive_packets", "Packets the guest received.", "rx_packets"),
    ("network_receive_errors", "Packets for the guest that failed.", "rx_errors"),
    ("network_receive_packets_dropped", "Packets for the guest that were dropped.", "rx_dropped"),
    ("network_transmit_bytes", "Bytes the guest sent.", "tx_bytes"),
    ("network_transmit_packets", "Packets the guest sent.", "tx_packets"),
    ("network_transmit_errors", "Packets of the guest that failed.", "tx_errors"),
    ("network_transmit_packets_dropped", "Packets of the guest that were dropped.", "tx_dropped"),
)


def families(samples: Mapping[Key, GuestSample], node: str) -> Iterator[Metric]:
    """One family a metric, with every guest's sample in it."""
    guests = [((node, key.namespace, key.name), sample) for key, sample in samples.items()]
    yield from _cpu(guests)
    yield from _memory(guests)
    for name, words, field, unit in _DISK:
        counter = _counter(name, words, "drive")
        for labels, sample in guests:
            for drive, counters in sample.disks.items():
                counter.add_metric((*labels, drive), counters.get(field, 0) * unit)
        yield counter
    for name, words, field in _NIC:
        counter = _counter(name, words, "interface")
        for labels, sample in guests:
            for interface, counters in sample.nics.items():
                counter.add_metric((*labels, interface), counters.get(field, 0))
        yield counter
    yield from _filesystems(guests)


Guests = list[tuple[tuple[str, str, str], GuestSample]]


def _cpu(guests: Guests) -> Iterator[Metric]:
    total = _counter("cpu_usage_seconds", "CPU time of the guest's QEMU, seconds.")
    user = _counter("cpu_user_usage_seconds", "CPU time of the guest's QEMU in user mode, seconds.")
    system = _counter("cpu_system_usage_seconds", "CPU time of the guest's QEMU in the host's kernel, seconds.")
    running = _counter("vcpu_seconds", "Seconds that a vCPU ran.", "id", "state")
    delayed = _counter("vcpu_delay_seconds", "Seconds that a vCPU waited for a CPU of the host.", "id")
    for labels, sample in guests:
        total.add_metric(labels, sample.user_seconds + sample.system_seconds)
        user.add_metric(labels, sample.user_seconds)
        system.add_metric(labels, sample.system_seconds)
        for vcpu in sample.vcpus:
            running.add_metric((*labels, str(vcpu.id), "running"), vcpu.running)
            delayed.add_metric((*labels, str(vcpu.id)), vcpu.waiting)
    yield from (total, user, system, running, delayed)
    for index, span in enumerate(("1m", "5m", "15m")):
        load = _gauge(f"guest_load_{span}", f"Load average of the guest over {span}.")
        for labels, sample in guests:
            if sample.load:
                load.add_metric(labels, sample.load[index])
        yield load


def _memory(guests: Guests) -> Iterator[Metric]:
    domain = _gauge("memory_domain_bytes", "Memory QEMU gives the guest now, bytes.")
    balloon = _gauge("memory_actual_balloon_bytes", "Boot memory that the balloon leaves the guest, bytes.")
    resident = _gauge("memory_resident_bytes", "Memory of the host that the guest's QEMU takes, bytes.")
    cached = _gauge("memory_cached_bytes", "Memory the guest caches disks in, bytes.")
    for labels, sample in guests:
        if sample.memory is not None:
            domain.add_metric(labels, sample.memory)
        if sample.balloon is not None:
            balloon.add_metric(labels, sample.balloon)
        resident.add_metric(labels, sample.resident)
        if "Cached" in sample.guest:
            cached.add_metric(labels, sum(sample.guest.get(name, 0) for name in _CACHED))
    yield from (domain, balloon, resident, cached)
    for entries, unit in ((_GUEST_GAUGES, 1), (_SWAP, _PAGE)):
        for name, words, field in entries:
            gauge = _gauge(name, words)
            for labels, sample in guests:
                if field in sample.guest:
                    gauge.add_metric(labels, sample.guest[field] * unit)
            yield gauge
    for name, words, field in _GUEST_COUNTERS:
        counter = _counter(name, words)
        for labels, sample in guests:
            if field in sample.guest:
                counter.add_metric(labels, sample.guest[field] - _major(sample, field))
        yield counter


def _major(sample: GuestSample, field: str) -> int:
    """The kernel counts major faults among all faults; KubeVirt's minor ones are the others."""
    return sample.guest.get("pgmajfault", 0) if field == "pgfault" else 0


def _filesystems(guests: Guests) -> Iterator[Metric]:
    more = ("disk_name", "mount_point", "file_system_type")
    capacity = _gauge("filesystem_capacity_bytes", "Size of a file system of the guest, bytes.", *more)
    used = _gauge("filesystem_used_bytes", "What of a file system of the guest is used, bytes.", *more)
    for labels, sample in guests:
        for each in sample.filesystems:
            where = (*labels, each.disk, each.mount_point, each.kind)
            capacity.add_metric(where, each.capacity)
            used.add_metric(where, each.used)
    yield from (capacity, used)


def _gauge(name: str, words: str, *more: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"kubevirt_vmi_{name}", words, labels=(*LABELS, *more))


def _counter(name: str, words: str, *more: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"kubevirt_vmi_{name}", words, labels=(*LABELS, *more))
