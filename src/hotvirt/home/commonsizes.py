"""Instancetypes and preferences under the names that people know from KubeVirt. Pure.

Of the instancetypes' series those are here whose promise a home can keep. They name no maximum of their own: a machine
may then say `maxGuest` and `maxSockets` beside the name, and without them has room for four times its size, as any.

A preference only fills in what a machine is silent about. Those of Linux leave the firmware alone, as the images of all
these systems boot by BIOS and by UEFI. Those of Windows lay out what its installer finds drivers for; with `.virtio`
behind the name, what is faster and wants the drivers of virtio-win.
"""

from typing import Any

from hotvirt.kube.client import Document
from hotvirt.kube.resources import CLUSTER_INSTANCETYPES, CLUSTER_PREFERENCES, Resource

GROUP = "instancetype.kubevirt.io"
VENDOR = "hotvirt.io"
ABOUT = "kubernetes.io/description"

SIZES: dict[str, dict[str, tuple[int, str]]] = {
    "u1": {
        "nano": (1, "512Mi"), "micro": (1, "1Gi"), "small": (1, "2Gi"), "medium": (1, "4Gi"), "2xmedium": (2, "4Gi"),
        "large": (2, "8Gi"), "xlarge": (4, "16Gi"), "2xlarge": (8, "32Gi"), "4xlarge": (16, "64Gi"),
        "8xlarge": (32, "128Gi"),
    },
    "cx1": {"medium": (1, "2Gi"), "large": (2, "4Gi"), "xlarge": (4, "8Gi"), "2xlarge": (8, "16Gi")},
    "m1": {"large": (2, "16Gi"), "xlarge": (4, "32Gi"), "2xlarge": (8, "64Gi")},
}  # fmt: skip
"""Series -> size -> (vCPUs, memory)."""
HUGE: Document = {"hugepages": {"pageSize": "2Mi"}}
SERIES: dict[str, tuple[str, str, Document, Document]] = {
    "u1": ("general.purpose", "For what needs nothing in particular; shares the host's CPUs with others.", {}, {}),
    "cx1": (
        "compute.exclusive",
        "CPUs and huge pages of the host for this machine alone. The guest is not shown the host's NUMA nodes.",
        {"dedicatedCPUPlacement": True, "isolateEmulatorThread": True},
        HUGE,
    ),
    "m1": ("memory.intensive", "Much memory for each CPU, of huge pages that are set aside on the host.", {}, HUGE),
}
"""Series -> (class, about, of spec.cpu, of spec.memory)."""

LINUX: Document = {
    # Sockets are what can be added and removed while a guest runs.
    "cpu": {"preferredCPUTopology": "sockets"},
    "devices": {"preferredDiskBus": "virtio", "preferredInterfaceModel": "virtio", "preferredRng": {}},
}
LINUXES = {
    "linux": ("Linux, whichever has virtio drivers", None),
    "alpine": ("Alpine Linux", "256Mi"),
    "debian": ("Debian", "512Mi"),
    "ubuntu": ("Ubuntu", "1Gi"),
    "fedora": ("Fedora", "2Gi"),
    "centos.stream9": ("CentOS Stream 9", "1536Mi"),
    "rhel.9": ("Red Hat Enterprise Linux 9", "1536Mi"),
}
"""Name -> (system, memory that it needs at least)."""

WINDOWS: Document = {
    "clock": {
        "preferredTimer": {
            "hpet": {"present": False}, "pit": {"tickPolicy": "delay"}, "rtc": {"tickPolicy": "catchup"}, "hyperv": {},
        }
    },
    "features": {
        "preferredAcpi": {}, "preferredApic": {}, "preferredSmm": {},
        "preferredHyperv": {
            "relaxed": {}, "vapic": {}, "vpindex": {}, "synic": {}, "synictimer": {"direct": {}},
            "spinlocks": {"spinlocks": 8191}, "frequencies": {}, "runtime": {}, "reset": {}, "ipi": {}, "tlbflush": {},
        },
    },
    "firmware": {"preferredEfi": {"secureBoot": True, "persistent": True}},
    "preferredTerminationGracePeriodSeconds": 3600,
}  # fmt: skip
PLAIN: Document = {
    "preferredDiskBus": "sata", "preferredCdromBus": "sata", "preferredInterfaceModel": "e1000e",
    "preferredInputBus": "usb", "preferredInputType": "tablet",
}  # fmt: skip
VIRTIO: Document = {
    **PLAIN, "preferredDiskBus": "virtio", "preferredInterfaceModel": "virtio", "preferredRng": {},
}  # fmt: skip
WINDOWSES: dict[str, tuple[str, int, str, str, bool]] = {
    # Those of the desktop use two sockets at most, and any number of cores.
    "windows.10": ("Windows 10", 1, "2Gi", "cores", True),
    "windows.11": ("Windows 11", 2, "4Gi", "cores", True),
    "windows.2k19": ("Windows Server 2019", 1, "2Gi", "sockets", False),
    "windows.2k22": ("Windows Server 2022", 1, "2Gi", "sockets", False),
    "windows.2k25": ("Windows Server 2025", 1, "2Gi", "sockets", True),
}
"""Name -> (system, vCPUs and memory that it needs at least, topology, whether it has a TPM)."""


def objects() -> list[tuple[Resource, Document]]:
    return [
        *(
            (CLUSTER_INSTANCETYPES, _instancetype(series, size, vcpus, memory))
            for series, sizes in SIZES.items()
            for size, (vcpus, memory) in sizes.items()
        ),
        *((CLUSTER_PREFERENCES, _linux(name, *about)) for name, about in LINUXES.items()),
        *(
            (CLUSTER_PREFERENCES, _windows(f"{name}{suffix}", *about, devices=devices))
            for name, about in WINDOWSES.items()
            for suffix, devices in (("", PLAIN), (".virtio", VIRTIO))
        ),
    ]


def _instancetype(series: str, size: str, vcpus: int, memory: str) -> Document:
    kind, about, of_cpu, of_memory = SERIES[series]
    labels = {"class": kind, "version": series.removeprefix(series.rstrip("0123456789")), "cpu": str(vcpus)}
    labels |= {"memory": memory, "size": size}
    labels |= dict.fromkeys(of_cpu, "true")
    labels |= {field: value["pageSize"] for field, value in of_memory.items()}
    spec = {"cpu": {"guest": vcpus, **of_cpu}, "memory": {"guest": memory, **of_memory}}
    return _object(CLUSTER_INSTANCETYPES, f"{series}.{size}", about, labels, spec)


def _linux(name: str, system: str, memory: str | None) -> Document:
    spec = {**LINUX, **({"requirements": {"memory": {"guest": memory}}} if memory else {})}
    return _object(CLUSTER_PREFERENCES, name, system, {"os-type": "linux"}, spec)


def _windows(
    name: str, system: str, vcpus: int, memory: str, topology: str, has_tpm: bool, *, devices: Document
) -> Document:
    spec = {
        **WINDOWS,
        "cpu": {"preferredCPUTopology": topology},
        "devices": {**devices, **({"preferredTPM": {"persistent": True}} if has_tpm else {})},
        "requirements": {"cpu": {"guest": vcpus}, "memory": {"guest": memory}},
    }
    about = f"{system}, with the drivers of virtio-win" if devices is VIRTIO else system
    return _object(CLUSTER_PREFERENCES, name, about, {"os-type": "windows"}, spec)


def _object(resource: Resource, name: str, about: str, labels: dict[str, str], spec: Document) -> Document:
    marks = {f"{GROUP}/{key}": value for key, value in {"vendor": VENDOR, **labels}.items()}
    metadata: dict[str, Any] = {"name": name, "labels": marks, "annotations": {ABOUT: about}}
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, "spec": spec}
