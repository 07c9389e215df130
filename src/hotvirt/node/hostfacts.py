"""What this machine can do, and the Node object that says so. `gather` looks; the rest is pure."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from hotvirt.api.quantity import format_bytes
from hotvirt.kube import conditions
from hotvirt.kube.client import Document
from hotvirt.kube.times import stamp
from hotvirt.preconditions.room import DEDICATES, SHARED_CPUS
from hotvirt.qemu import binary, probe
from hotvirt.qemu.errors import QemuMissing
from hotvirt.qemu.probe import Acceleration

MIB = 1 << 20
RESERVE = 512 * MIB
"""Left to the host and the home itself."""
PODS = 250
LEASES_IN = "kube-node-lease"
KVM = Path("/dev/kvm")
FIRST_USER, USERS = 61184, 4096
"""Of the 4336 numbers systemd sets aside for users that live as long as a service. Each guest's QEMU is one of them."""


class HostFacts(Struct, frozen=True, kw_only=True):
    """`qemu` is the version of QEMU, "" when there is none; `fault` then says what to install."""

    node_name: str
    cpus: int
    memory: int
    is_root: bool
    acceleration: Acceleration
    kernel: str = ""
    qemu: str = ""
    fault: str = ""
    address: str = "127.0.0.1"
    network: str = "user"
    network_notice: str = ""
    """Why it is not the better kind."""
    has_users: bool = True
    """Whether root here can become the users that guests run as."""
    groups: tuple[int, ...] = ()
    """What these users must be members of to use KVM."""

    @property
    def gives_users(self) -> bool:
        """Whether each guest runs as a user of its own."""
        return self.is_root and self.has_users

    @property
    def emulates(self) -> bool:
        return self.acceleration.kind == "tcg"


HUGE_PAGES = {"hugepages-2Mi": "hugepages-2048kB", "hugepages-1Gi": "hugepages-1048576kB"}
_PAGE_POOLS = Path("/sys/kernel/mm/hugepages")


def huge_pages(pools: Path = _PAGE_POOLS) -> dict[str, int]:
    """Bytes that this machine has set aside in pages of each size, those in use among them."""
    found = {}
    for resource, pool in HUGE_PAGES.items():
        try:
            count = int((pools / pool / "nr_hugepages").read_text())
        except (OSError, ValueError):
            count = 0
        found[resource] = count * int(pool.removeprefix("hugepages-").removesuffix("kB")) << 10
    return found


def gather(node_name: str, *, cache: Path, network: str, network_notice: str = "") -> HostFacts:
    """Up to half a second when KVM was not probed since boot: call it off the loop."""
    qemu, fault = "", ""
    try:
        qemu = ".".join(str(part) for part in binary.find().version)
        binary.find_img()
    except QemuMissing as error:
        fault = str(error)
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    is_root = os.geteuid() == 0
    has_users = all(maps_all(Path(f"/proc/self/{kind}_map").read_text()) for kind in ("uid", "gid"))
    acceleration = probe.probe(cache)
    groups: tuple[int, ...] = ()
    if acceleration.kind == "kvm" and is_root and has_users:
        acceleration, groups = for_others(acceleration, KVM.stat())
    return HostFacts(
        node_name=node_name,
        cpus=len(os.sched_getaffinity(0)),
        memory=pages,
        is_root=is_root,
        acceleration=acceleration,
        kernel=os.uname().release,
        qemu=qemu,
        fault=fault,
        network=network,
        network_notice=network_notice,
        has_users=has_users,
        groups=groups,
    )


def for_others(found: Acceleration, device: os.stat_result) -> tuple[Acceleration, tuple[int, ...]]:
    """KVM that root found working, for users who are not root: what it is to them, and the groups they need. Pure."""
    both = stat.S_IROTH | stat.S_IWOTH
    if device.st_mode & both == both:
        return found, ()
    both = stat.S_IRGRP | stat.S_IWGRP
    if device.st_mode & both == both and device.st_gid != 0:
        return found, (device.st_gid,)
    reason = f"KVM works, but {KVM} belongs to root alone, and guests run as users of their own"
    return Acceleration("tcg", reason, f"groupadd -f kvm; chgrp kvm {KVM}; chmod 660 {KVM}; then hotvirt up again"), ()


def maps_all(map_: str) -> bool:
    """Whether a user namespace, by its uid_map or gid_map, has every user that a guest may run as: one that an ordinary
    user makes has often nobody but root, who is that user. Pure."""
    ranges = [(int(first), int(count)) for first, _, count in map(str.split, map_.splitlines())]
    return any(first <= FIRST_USER and first + count >= FIRST_USER + USERS for first, count in ranges)


_UNASKED = ("lastProbeTime", "lastHeartbeatTime")


def node(
    facts: HostFacts, now: Any, *, known: Document | None = None, pages: Mapping[str, int] | None = None
) -> Document:
    """The Node object as it should be; `known` keeps its times. `pages`: see `huge_pages`."""
    amount = {
        "cpu": str(facts.cpus),
        "memory": format_bytes(facts.memory // MIB * MIB),
        "pods": str(PODS),
        "devices.kubevirt.io/kvm": "0" if facts.emulates else "1000",
        "devices.kubevirt.io/tun": "1000",
        **{resource: format_bytes(size) for resource, size in (pages or {}).items()},
    }
    left = max(0, facts.memory - RESERVE - sum((pages or {}).values()))
    free = {**amount, "memory": format_bytes(left // MIB * MIB)}
    ready = not facts.fault
    found = ((known or {}).get("status") or {}).get("conditions")
    found = conditions.put(
        found, "Ready", ready, now=now, reason="AgentReady" if ready else "QemuMissing",
        message="the node agent runs guests" if ready else facts.fault,
    )  # fmt: skip
    found = conditions.put(
        found, "SoftwareEmulation", facts.emulates, now=now,
        reason="KvmUnusable" if facts.emulates else "KvmWorks", message=_acceleration(facts.acceleration),
    )  # fmt: skip
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": facts.node_name,
            "labels": {
                "kubernetes.io/hostname": facts.node_name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                "kubevirt.io/schedulable": "true",
                DEDICATES: "true" if facts.cpus > SHARED_CPUS else "false",
                "node-role.kubernetes.io/control-plane": "",
            },
            "annotations": {
                "kubevirt.io/heartbeat": stamp(now),
                "hotvirt.io/network": facts.network,
                "hotvirt.io/network-notice": facts.network_notice,
            },
        },
        "spec": {},
        "status": {
            "capacity": amount,
            "allocatable": free,
            # Unlike most conditions, a node's are never "probed": they have a heartbeat.
            "conditions": [
                {"lastHeartbeatTime": stamp(now), **{key: each[key] for key in each if key not in _UNASKED}}
                for each in found
            ],
            "addresses": [
                {"type": "InternalIP", "address": facts.address},
                {"type": "Hostname", "address": facts.node_name},
            ],
            "nodeInfo": {
                "architecture": "amd64", "operatingSystem": "linux", "kernelVersion": facts.kernel,
                "osImage": os_name(), "containerRuntimeVersion": f"qemu://{facts.qemu}", "kubeletVersion": "hotvirt",
                "kubeProxyVersion": "", "machineID": "", "systemUUID": "", "bootID": "",
            },
        },
    }  # fmt: skip


def lease(name: str, now: Any) -> Document:
    """The Lease that `kubectl describe node` looks for. It names no duration, as it is not renewed while the node runs:
    nobody waits for one machine's heartbeat but the machine itself. Pure."""
    since = now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": name, "namespace": LEASES_IN},
        "spec": {"holderIdentity": name, "acquireTime": since, "renewTime": since},
    }  # fmt: skip


def _acceleration(found: Acceleration) -> str:
    return f"{found.reason}{f'; {found.mend}' if found.mend else ''}"


def os_name() -> str:
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        return "Linux"
    return next((line[12:].strip('"') for line in lines if line.startswith("PRETTY_NAME=")), "Linux")
