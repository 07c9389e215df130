"""The launcher pod of an instance: its manifest and what it asks of a node. Pure.

The pod's memory is the guest's plus what QEMU was measured to need beside it: 41 MiB resident at start, up to 90 MiB of
copies when it loads a kernel itself, the translation buffer of emulation (capped at 32 MiB by how QEMU is started),
page tables, and per-vCPU and display buffers.
"""

import hashlib
from datetime import datetime

from msgspec import Struct

from hotvirt.api import configuration, defaults
from hotvirt.api.quantity import format_bytes, parse_bytes, parse_cpu
from hotvirt.controllers import spec as specs
from hotvirt.controllers.newinstance import REVISION
from hotvirt.kube import conditions, owners
from hotvirt.kube.client import Document
from hotvirt.kube.resources import PODS, VMIS
from hotvirt.preconditions.room import DEDICATES

MIB = 1 << 20
QEMU = 56 * MIB
TRANSLATION = 32 * MIB
KERNEL_COPIES = 96 * MIB
PER_VCPU = 2 * MIB
DISPLAY = 16 * MIB
FILE_SERVER = 8 * MIB
COMPUTE, CONSOLE_LOG = "compute", "guest-console-log"
PROBES = ("readinessProbe", "livenessProbe")
LEAST = {"cpu": "1m", "memory": "1Mi"}
LAUNCHER_IMAGE = "hotvirt/launcher"
SCHEDULABLE = "kubevirt.io/schedulable"
UNPAUSED = "kubevirt.io/virtual-machine-unpaused"
"""Readiness gate: no service sends anything to a guest that stands still."""
OVERHEAD = "kubevirt.io/memory-overhead-bytes"
DISKS = "/var/run/kubevirt-private/vmi-disks"
PASSED_ON = (
    "subdomain", "dnsPolicy", "dnsConfig", "affinity", "tolerations", "priorityClassName", "schedulerName",
    "topologySpreadConstraints",
)  # fmt: skip
"""Fields that mean the same in an instance's spec and in a pod's."""
OF_THE_DOCUMENT = (
    "kubectl.kubernetes.io/last-applied-configuration", "kubevirt.io/latest-observed-api-version",
    "kubevirt.io/storage-observed-api-version", REVISION,
)  # fmt: skip
"""Annotations of an instance that say nothing of its pod."""
STOP_MARGIN = 30
"""Seconds that the pod may live longer than its guest is given to shut down."""


class Settings(Struct, frozen=True):
    """From the KubeVirt object's `spec.configuration`."""

    memory_overcommit: int = 100
    cpu_allocation_ratio: int = 10
    cpu_request: str = ""
    launcher_image: str = LAUNCHER_IMAGE
    console_log: bool = True
    """Whether guests are logged that do not say."""

    def logs_console(self, spec: Document) -> bool:
        asked = (specs.domain(spec).get("devices") or {}).get("logSerialConsole")
        return self.console_log if asked is None else bool(asked)

    @classmethod
    def of(cls, kubevirt: Document | None) -> "Settings":
        given, developer = configuration.of(kubevirt), configuration.developer(kubevirt)
        return cls(
            memory_overcommit=int(developer.get("memoryOvercommit") or 100),
            cpu_allocation_ratio=int(developer.get("cpuAllocationRatio") or 10),
            cpu_request=str(given.get("cpuRequest") or ""),
            console_log=(given.get("virtualMachineOptions") or {}).get("disableSerialConsoleLog") is None,
        )


def name(vmi: Document) -> str:
    """The same for the same instance, so that a pod made twice by mistake is one pod."""
    metadata = vmi["metadata"]
    digest = hashlib.sha256(metadata["uid"].encode()).digest()
    letters = "".join("bcdfghjklmnpqrstvwxz2456789"[byte % 27] for byte in digest[:5])
    return f"virt-launcher-{metadata['name'][:233]}-{letters}"


def overhead(spec: Document) -> int:
    """Bytes beyond the guest's memory."""
    guest = specs.guest_memory(spec) or 0
    domain = specs.domain(spec)
    kernel = bool(((domain.get("firmware") or {}).get("kernelBoot") or {}).get("container"))
    display = (domain.get("devices") or {}).get("autoattachGraphicsDevice") is not False
    exact = (
        QEMU
        + TRANSLATION
        + kernel * KERNEL_COPIES
        + guest // 512
        + specs.vcpus(spec) * PER_VCPU
        + display * DISPLAY
        + len((domain.get("devices") or {}).get("filesystems") or ()) * FILE_SERVER
    )
    return -(-exact // MIB) * MIB


def resources(spec: Document, settings: Settings, *, surplus: int = 0) -> Document:
    """Requests and limits of the compute container. `surplus`: bytes the guest still has above what is wanted."""
    extra = overhead(spec)
    asked, limited = specs.resources(spec, "requests"), specs.resources(spec, "limits")
    without = 0 if (specs.domain(spec).get("resources") or {}).get("overcommitGuestOverhead") else extra
    requests = {"cpu": _cpu_request(spec, asked, settings), "memory": ""}
    requests["memory"] = format_bytes(_memory_request(spec, asked, settings) + surplus + without)
    limits: Document = {}
    if cpu := limited.get("cpu"):
        limits["cpu"] = _with_emulators(spec, cpu)
    if memory := limited.get("memory"):
        limits["memory"] = format_bytes(parse_bytes(memory) + surplus + extra)
    if pages := specs.huge_pages(spec):
        # Kubernetes wants as much as limit as is requested, and gives no other memory for it.
        requests[pages] = limits[pages] = format_bytes(specs.guest_memory(spec) or 0)
    for kind, wanted in (("requests", requests), ("limits", limits)):
        for resource, value in specs.resources(spec, kind).items():
            wanted.setdefault(resource, str(value))  # huge pages, devices, ephemeral storage
    return {"requests": requests, **({"limits": limits} if limits else {})}


def render(vmi: Document, settings: Settings) -> Document:
    metadata, spec = vmi["metadata"], vmi["spec"]
    pod: Document = {
        "apiVersion": PODS.api_version,
        "kind": PODS.kind,
        "metadata": {
            "name": name(vmi),
            "namespace": metadata["namespace"],
            "labels": _labels(vmi),
            "annotations": _annotations(vmi),
            "ownerReferences": [owners.reference(VMIS, vmi)],
        },
        "spec": {
            "restartPolicy": "Never",
            "readinessGates": [{"conditionType": UNPAUSED}],
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": _grace(spec) + STOP_MARGIN,
            "nodeSelector": {
                SCHEDULABLE: "true",
                **({DEDICATES: "true"} if specs.is_dedicated(spec) else {}),
                **(spec.get("nodeSelector") or {}),
            },
            "hostname": defaults.hostname(vmi),
            "containers": [_compute(vmi, settings)],
            "volumes": [
                {"name": claim.volume, "persistentVolumeClaim": {"claimName": claim.name}} for claim in _mounted(spec)
            ],
        },
    }
    if settings.logs_console(spec):
        pod["spec"]["initContainers"] = [_console_log(pod["spec"]["containers"][0], settings)]
    pod["spec"] |= {field: spec[field] for field in PASSED_ON if spec.get(field)}
    return pod


def _annotations(vmi: Document) -> Document:
    """The instance's own, but for what is about its document, and ours."""
    metadata = vmi["metadata"]
    given = (metadata.get("annotations") or {}).items()
    return {
        **{key: value for key, value in given if key not in OF_THE_DOCUMENT},
        "kubectl.kubernetes.io/default-container": COMPUTE,
        "kubevirt.io/domain": metadata["name"],
        OVERHEAD: str(overhead(vmi["spec"])),
    }


def _labels(vmi: Document) -> Document:
    metadata = vmi["metadata"]
    return {
        **(metadata.get("labels") or {}),
        "kubevirt.io": "virt-launcher",
        "kubevirt.io/created-by": metadata["uid"],
        "vm.kubevirt.io/name": metadata["name"],
        "vmi.kubevirt.io/id": metadata["name"],
    }


def _compute(vmi: Document, settings: Settings) -> Document:
    spec = vmi["spec"]
    mounts = [{"name": claim.volume, "mountPath": f"{DISKS}/{claim.volume}"} for claim in _mounted(spec)]
    container = {
        "name": COMPUTE,
        "image": settings.launcher_image,
        "imagePullPolicy": "IfNotPresent",
        "resources": resources(spec, settings),
    }
    optional = {"volumeMounts": mounts, "ports": _ports(spec), **_probes(vmi)}
    return {**container, **{key: value for key, value in optional.items() if value}}


def _probes(vmi: Document) -> Document:
    """The guest's probes as its pod's. Those that its agent answers are a command, of KubeVirt's form: a node of ours
    asks the agent itself."""
    metadata, found = vmi["metadata"], {}
    for kind in PROBES:
        if not (probe := vmi["spec"].get(kind)):
            continue
        found[kind] = {key: value for key, value in probe.items() if key not in ("exec", "guestAgentPing")}
        seconds = str(probe.get("timeoutSeconds") or 1)
        domain = f"{metadata['namespace']}_{metadata['name']}"
        command = ["virt-probe", "--domainName", domain, "--timeoutSeconds", seconds]
        if probe.get("guestAgentPing") is not None:
            found[kind]["exec"] = {"command": [*command, "--guestAgentPing"]}
        elif program := (probe.get("exec") or {}).get("command"):
            found[kind]["exec"] = {"command": [*command, "--command", program[0], "--", *program[1:]]}
    return found


def _console_log(compute: Document, settings: Settings) -> Document:
    """A name to ask for what the guest printed. The home keeps that, so it takes nothing: it asks for none, and has
    limits where the pod has, or it would not be Guaranteed."""
    limits = (compute["resources"].get("limits") or {}).keys() & LEAST.keys()
    amounts: Document = {"requests": {each: LEAST[each] if each in limits else "0" for each in LEAST}}
    if limits:
        amounts["limits"] = {each: LEAST[each] for each in LEAST if each in limits}
    return {
        "name": CONSOLE_LOG,
        "image": settings.launcher_image,
        "imagePullPolicy": "IfNotPresent",
        "restartPolicy": "Always",
        "resources": amounts,
    }


def _ports(spec: Document) -> list[Document]:
    """What the interfaces say the guest listens on: services find a port by its name there."""
    found: dict[tuple[int, str], Document] = {}
    for interface in (specs.domain(spec).get("devices") or {}).get("interfaces") or ():
        for port in interface.get("ports") or ():
            number, protocol = int(port["port"]), str(port.get("protocol") or "TCP").upper()
            named = {"name": port["name"]} if port.get("name") else {}
            found.setdefault((number, protocol), {**named, "containerPort": number, "protocol": protocol})
    return list(found.values())


def _mounted(spec: Document) -> list[specs.Claim]:
    """What the pod itself mounts. Hot-plugged claims come and go, and a pod's volumes cannot."""
    return [claim for claim in specs.claims(spec) if not claim.hotpluggable]


def _memory_request(spec: Document, asked: Document, settings: Settings) -> int:
    if memory := asked.get("memory"):
        return parse_bytes(memory)
    if specs.huge_pages(spec):
        return 0
    return (specs.guest_memory(spec) or 0) * 100 // settings.memory_overcommit


def _cpu_request(spec: Document, asked: Document, settings: Settings) -> str:
    if specs.is_dedicated(spec):
        return _with_emulators(spec, asked.get("cpu") or specs.vcpus(spec))
    if cpu := asked.get("cpu"):
        return str(cpu)
    count = specs.vcpus(spec)
    if settings.cpu_request:
        return settings.cpu_request
    return f"{count * 1000 // settings.cpu_allocation_ratio}m"


def _with_emulators(spec: Document, cpus: object) -> str:
    """One more where QEMU's other threads are to have one of their own."""
    isolated = (specs.domain(spec).get("cpu") or {}).get("isolateEmulatorThread")
    return str(parse_cpu(cpus) // 1000 + 1) if isolated else str(cpus)


def _grace(spec: Document) -> int:
    seconds = spec.get("terminationGracePeriodSeconds")
    return 30 if seconds is None else int(seconds)


def gate(vmi: Document, pod: Document, now: datetime) -> list[Document] | None:
    """The pod's conditions with the gate as its guest is; None when they say so, or the pod has no such gate."""
    if not any(each.get("conditionType") == UNPAUSED for each in pod["spec"].get("readinessGates") or ()):
        return None
    found = list((pod.get("status") or {}).get("conditions") or ())
    paused = specs.is_paused(vmi)
    if conditions.is_true(found, UNPAUSED) is not paused:
        return None
    reason = "Paused" if paused else "NotPaused"
    return conditions.put(found, UNPAUSED, not paused, now=now, reason=reason)


def surplus(vmi: Document) -> int:
    """What the guest has not given back yet: its pod must not ask for less before it has."""
    current = ((vmi.get("status") or {}).get("memory") or {}).get("guestCurrent")
    wanted = specs.guest_memory(vmi["spec"])
    return max(0, parse_bytes(current) - wanted) if current and wanted else 0


def resize(vmi: Document, pod: Document, settings: Settings) -> list[Document] | None:
    """The JSON patch of pods/resize that brings the pod to what its instance asks for now; None when it is there."""
    containers = pod["spec"]["containers"]
    index = next((i for i, container in enumerate(containers) if container["name"] == COMPUTE), None)
    if index is None:
        return None
    has = containers[index].get("resources") or {}
    wanted = resources(vmi["spec"], settings, surplus=surplus(vmi))
    merged, differs = {}, False
    for kind in ("requests", "limits"):
        merged[kind] = dict(has.get(kind) or {})
        for resource in ("cpu", "memory"):
            value = (wanted.get(kind) or {}).get(resource)
            if value is not None and not _same_amount(resource, merged[kind].get(resource), value):
                merged[kind][resource], differs = value, True
    if not differs:
        return None
    path = f"/spec/containers/{index}"
    return [
        {"op": "test", "path": f"{path}/name", "value": COMPUTE},
        {"op": "add", "path": f"{path}/resources", "value": {kind: v for kind, v in merged.items() if v}},
    ]


def _same_amount(resource: str, one: object, other: object) -> bool:
    """Whether two quantities are equal, however they are written."""
    if one is None or other is None:
        return one is other
    if resource == "cpu":
        return parse_cpu(one) == parse_cpu(other)
    return parse_bytes(one) == parse_bytes(other)
