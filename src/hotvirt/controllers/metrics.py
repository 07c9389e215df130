"""KubeVirt's `kubevirt_*` metrics of machines and instances, made from their objects. Pure.

Labels are KubeVirt's; what an object does not say is "".
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from hotvirt.api import quantity
from hotvirt.api.quantity import QuantityError
from hotvirt.controllers.phasetimes import BUCKETS, PhaseTimes
from hotvirt.kube import conditions
from hotvirt.kube.times import parse

Document = dict[str, Any]

STATUS_GROUPS = {
    "starting": ("Provisioning", "Starting", "WaitingForVolumeBinding"),
    "running": ("Running",),
    "migrating": ("Migrating",),
    "non_running": ("Stopped", "Paused", "Stopping", "Terminating"),
    "error": (
        "CrashLoopBackOff", "ErrorUnschedulable", "ErrImagePull", "ImagePullBackOff", "ErrorPvcNotFound",
        "DataVolumeError", "Unknown",
    ),
}  # fmt: skip
FINAL = ("Succeeded", "Failed")


def group_of(printable: str) -> str:
    return next((group for group, names in STATUS_GROUPS.items() if printable in names), "error")


def machines(vms: Iterable[Document]) -> Iterator[Metric]:
    """Of VirtualMachines."""
    vms = list(vms)
    count = GaugeMetricFamily("kubevirt_number_of_vms", "Machines of a namespace.", labels=("namespace",))
    for namespace, number in sorted(Counter(vm["metadata"]["namespace"] for vm in vms).items()):
        count.add_metric((namespace,), number)
    info = GaugeMetricFamily(
        "kubevirt_vm_info",
        "What a machine is, in labels.",
        labels=("name", "namespace", "machine_type", "instance_type", "preference", "status", "status_group"),
    )
    created = GaugeMetricFamily(
        "kubevirt_vm_create_date_timestamp_seconds", "When the machine was made.", labels=("name", "namespace")
    )
    for vm in vms:
        name, namespace = _who(vm)
        status = str((vm.get("status") or {}).get("printableStatus") or "")
        domain = _domain(_template(vm))
        info.add_metric(
            (
                name, namespace, str((domain.get("machine") or {}).get("type") or ""), _named(vm, "instancetype"),
                _named(vm, "preference"), status.lower(), group_of(status),
            ),
            1,
        )  # fmt: skip
        created.add_metric((name, namespace), _seconds(vm["metadata"].get("creationTimestamp")))
    yield from (count, info, created)
    yield from _transitions(vms)
    yield from _sizes(vms)
    yield _vnics("kubevirt_vm_vnic_info", "Network cards of a machine.", ((vm, _template(vm)) for vm in vms))


def _transitions(vms: list[Document]) -> Iterator[Metric]:
    """When each machine came into the group of states it is in; 0 for the other groups, as upstream."""
    families = {
        group: CounterMetricFamily(
            f"kubevirt_vm_{group}_status_last_transition_timestamp_seconds",
            f"When the machine came into a state of the group {group}; 0 while it is in another.",
            labels=("name", "namespace"),
        )
        for group in STATUS_GROUPS
    }
    for vm in vms:
        status = vm.get("status") or {}
        here = group_of(str(status.get("printableStatus") or ""))
        moments = (_seconds(each.get("lastTransitionTime")) for each in status.get("conditions") or ())
        latest = max(moments, default=0.0) or _seconds(vm["metadata"].get("creationTimestamp"))
        for group, family in families.items():
            name, namespace = _who(vm)
            # Counters get the suffix _total by the library; KubeVirt's names have none.
            family.add_metric((name, namespace), latest if group == here else 0.0)
    yield from map(_without_suffix, families.values())


def _without_suffix(family: CounterMetricFamily) -> Metric:
    """Under the name as it is: some of KubeVirt's counters do not end in _total."""
    plain = Metric(family.name, family.documentation, "unknown")
    for sample in family.samples:
        plain.add_sample(family.name, sample.labels, sample.value)
    return plain


def _sizes(vms: list[Document]) -> Iterator[Metric]:
    labels = ("name", "namespace", "resource", "unit", "source")
    asked = GaugeMetricFamily("kubevirt_vm_resource_requests", "CPU and memory a machine asks for.", labels=labels)
    limited = GaugeMetricFamily(
        "kubevirt_vm_resource_limits", "CPU and memory a machine may not exceed.", labels=labels
    )
    for vm in vms:
        name, namespace = _who(vm)
        domain = _domain(_template(vm))
        cpu, resources = domain.get("cpu") or {}, domain.get("resources") or {}
        for field, number in (("sockets", cpu.get("sockets")), ("cores", cpu.get("cores")),
                              ("threads", cpu.get("threads"))):  # fmt: skip
            if isinstance(number, int):
                asked.add_metric((name, namespace, "cpu", field, "domain"), number)
        if (guest := _bytes((domain.get("memory") or {}).get("guest"))) is not None:
            asked.add_metric((name, namespace, "memory", "bytes", "guest"), guest)
        for family, part in ((asked, "requests"), (limited, "limits")):
            values = resources.get(part) or {}
            if (memory := _bytes(values.get("memory"))) is not None:
                family.add_metric((name, namespace, "memory", "bytes", part), memory)
            if (cores := _number(values.get("cpu"))) is not None:
                family.add_metric((name, namespace, "cpu", "cores", part), cores)
    yield from (asked, limited)


def instances(vmis: Iterable[Document]) -> Iterator[Metric]:
    """Of VirtualMachineInstances."""
    vmis = list(vmis)
    info = GaugeMetricFamily(
        "kubevirt_vmi_info",
        "What an instance is, in labels.",
        labels=(
            "node", "namespace", "name", "phase", "instance_type", "preference", "guest_os_kernel_release",
            "guest_os_machine", "guest_os_name", "guest_os_version_id", "evictable", "outdated",
        ),
    )  # fmt: skip
    phases = GaugeMetricFamily(
        "kubevirt_vmi_phase_count", "Instances of a phase on a node.", labels=("node", "phase", "instance_type")
    )
    fixed = GaugeMetricFamily(
        "kubevirt_vmi_non_evictable",
        "1 for an instance that should move when its node empties, and cannot.",
        labels=("node", "namespace", "name"),
    )
    addresses = GaugeMetricFamily(
        "kubevirt_vmi_status_addresses",
        "An address of an instance.",
        labels=("node", "namespace", "name", "network_name", "address", "type"),
    )
    overhead = GaugeMetricFamily(
        "kubevirt_vmi_launcher_memory_overhead_bytes",
        "Memory counted for an instance beyond its guest's, bytes.",
        labels=("namespace", "name"),
    )
    counted: Counter[tuple[str, str, str]] = Counter()
    for vmi in vmis:
        name, namespace = _who(vmi)
        status = vmi.get("status") or {}
        node, phase, kind = (
            str(status.get("nodeName") or ""),
            str(status.get("phase") or ""),
            _annotated(vmi, "instancetype"),
        )
        system = status.get("guestOSInfo") or {}
        evictable = conditions.is_true(status.get("conditions"), "LiveMigratable") or not _moves(vmi)
        info.add_metric(
            (
                node, namespace, name, phase.lower(), kind, _annotated(vmi, "preference"),
                str(system.get("kernelRelease") or ""), str(system.get("machine") or ""), str(system.get("name") or ""),
                str(system.get("versionId") or ""), str(evictable).lower(), "false",
            ),
            1,
        )  # fmt: skip
        counted[node, phase.lower(), kind] += 1
        if phase not in FINAL:
            fixed.add_metric((node, namespace, name), 0 if evictable else 1)
        for interface in status.get("interfaces") or ():
            if address := interface.get("ipAddress"):
                where = (node, namespace, name, str(interface.get("name") or ""), str(address), "InternalIP")
                addresses.add_metric(where, 1)
        if (extra := _bytes((status.get("memory") or {}).get("memoryOverhead"))) is not None:
            overhead.add_metric((namespace, name), extra)
    for labels, number in sorted(counted.items()):
        phases.add_metric(labels, number)
    yield from (info, phases, fixed, addresses, overhead)
    yield _vnics("kubevirt_vmi_vnic_info", "Network cards of an instance.", ((vmi, vmi["spec"]) for vmi in vmis))


def _vnics(metric: str, words: str, specs: Iterator[tuple[Document, Document]]) -> Metric:
    family = GaugeMetricFamily(
        metric, words, labels=("name", "namespace", "vnic_name", "binding_type", "network", "model")
    )
    for obj, spec in specs:
        name, namespace = _who(obj)
        networks = {each.get("name"): each for each in spec.get("networks") or ()}
        for each in (_domain(spec).get("devices") or {}).get("interfaces") or ():
            binding = next((kind for kind in ("masquerade", "bridge") if kind in each), "")
            network = networks.get(each.get("name")) or {}
            where = (
                "pod networking" if "pod" in network else str((network.get("multus") or {}).get("networkName") or "")
            )
            family.add_metric(
                (name, namespace, str(each.get("name") or ""), binding, where, str(each.get("model") or "virtio")), 1
            )
    return family


def phases(times: PhaseTimes) -> Iterator[Metric]:
    """How long instances took."""
    created = HistogramMetricFamily(
        "kubevirt_vmi_phase_transition_time_from_creation_seconds",
        "Seconds from an instance's creation to a phase.",
        labels=("phase",),
    )
    between = HistogramMetricFamily(
        "kubevirt_vmi_phase_transition_time_seconds",
        "Seconds an instance spent in one phase before the next.",
        labels=("phase", "last"),
    )
    for family, counted in ((created, times.from_creation), (between, times.between)):
        for labels, counts in sorted(counted.items()):
            edges = (*(str(float(edge)) for edge in BUCKETS), "+Inf")
            family.add_metric(labels, list(zip(edges, counts.below, strict=True)), counts.total)
    yield from (created, between)


def _who(obj: Document) -> tuple[str, str]:
    return obj["metadata"]["name"], obj["metadata"].get("namespace") or ""


def _template(vm: Document) -> Document:
    return ((vm.get("spec") or {}).get("template") or {}).get("spec") or {}


def _domain(spec: Document) -> Document:
    return spec.get("domain") or {}


def _named(vm: Document, field: str) -> str:
    return str(((vm.get("spec") or {}).get(field) or {}).get("name") or "")


def _annotated(vmi: Document, what: str) -> str:
    """What the VM controller notes on an instance that was made from an instancetype or preference."""
    annotations = vmi["metadata"].get("annotations") or {}
    names = (f"kubevirt.io/{what}-name", f"kubevirt.io/cluster-{what}-name")
    return next((str(annotations[name]) for name in names if name in annotations), "")


def _moves(vmi: Document) -> bool:
    """Whether its eviction strategy is to move it."""
    return str(vmi["spec"].get("evictionStrategy")) == "LiveMigrate"


def _seconds(stamp: object) -> float:
    moment = parse(stamp) if isinstance(stamp, str) else None
    return 0.0 if moment is None else moment.timestamp()


def _bytes(value: object) -> int | None:
    try:
        return None if value is None else quantity.parse_bytes(value)
    except QuantityError:
        return None


def _number(value: object) -> float | None:
    try:
        return None if value is None else float(quantity.parse(value))
    except QuantityError:
        return None
