"""A launcher pod's share of the machine and its limits, by cgroup v1 or v2, whichever there is; as root, else nothing.

Kubernetes' rule: 1024 shares for each CPU requested. So when guests want more than the machine has, the home and its
API get their turn first, and guests share by what they asked for. A pod with limits (a VM whose `domain.resources` has
them) is held to them. Every pod has a bound on its processes and threads, competes for disks as one, and has its memory
counted, so that it is known whose process the kernel killed. Best effort: a machine that does not allow it runs guests
all the same, and the log says so.
"""

import logging
import os
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Literal

from msgspec import Struct

from hotvirt.api.quantity import QuantityError, parse_bytes, parse_cpu
from hotvirt.kube.client import Document

log = logging.getLogger(__name__)

ROOT = Path("/sys/fs/cgroup")
PARENT = "hotvirt"


PERIOD = 100_000
"""Microseconds over which a CPU limit holds."""


PROCESSES = 2048
"""Processes and threads of a pod. QEMU has one for each vCPU and some for its disks; the rest is for commands."""
LEAST = 2
"""Shares of a pod that asks for no CPU."""
_V1_OTHERS, _V2_OTHERS = ("pids", "blkio"), ("pids", "io")


class Limits(Struct, frozen=True):
    """0: none."""

    memory: int = 0
    millis: int = 0


class Cgroups(Struct, frozen=True):
    """`base` is the directory below which pods get theirs, `memory` that for their memory, `others` what else there is
    (with v2 all are the same); None when there is none to be had."""

    base: Path | None
    unified: bool = False
    memory: Path | None = None
    others: tuple[Path, ...] = ()

    def join(self, uid: str, pid: int, *, millis: int) -> None:
        """Put a pod's process into its group (made if need be)."""
        if self.base is None:
            return
        group = self.base / uid
        try:
            group.mkdir(exist_ok=True)
            self._weigh(group, shares(millis))
            (group / "cgroup.procs").write_text(str(pid))
        except OSError as error:
            log.warning("pod %s has no CPU share of its own: %s", uid, error)
        for base in self._bases():
            try:
                (base / uid).mkdir(exist_ok=True)
                if (most := base / uid / "pids.max").exists():
                    most.write_text(str(PROCESSES))
                if base != self.base:
                    (base / uid / "cgroup.procs").write_text(str(pid))
            except OSError as error:
                log.warning("pod %s is not in %s: %s", uid, base, error)

    def weigh(self, uid: str, *, millis: int) -> None:
        """Give a pod, which has joined, the share of one that asks for so much."""
        self._reweigh(uid, shares(millis))

    def hold_back(self, uid: str) -> None:
        """Leave it little more than what nobody else wants, until it is weighed again."""
        self._reweigh(uid, None)

    def _reweigh(self, uid: str, v1_shares: int | None) -> None:
        if self.base is not None and (self.base / uid).is_dir():  # else it has ended
            try:
                self._weigh(self.base / uid, v1_shares)
            except OSError as error:
                log.warning("the CPU share of pod %s stays as it is: %s", uid, error)

    def _weigh(self, group: Path, v1_shares: int | None) -> None:
        """`v1_shares` None: what nobody else wants. The least share would be a fifth of a small pod's, or more."""
        if (idle := group / "cpu.idle").exists():
            idle.write_text("0" if v1_shares is not None else "1")
            if v1_shares is None:
                return  # it has no weight then
        if self.unified:
            (group / "cpu.weight").write_text(str(weight(v1_shares or LEAST)))
        else:
            (group / "cpu.shares").write_text(str(v1_shares or LEAST))

    def enter(self, uid: str, pid: int) -> None:
        """Put a further process of a pod, which has joined, beside its first."""
        for base in self._bases():
            try:
                if (base / uid).is_dir():
                    (base / uid / "cgroup.procs").write_text(str(pid))
            except OSError as error:
                log.warning("process %d does not share the limits of pod %s: %s", pid, uid, error)

    def confine(self, uid: str, pid: int, limits: Limits, *, may_lower: bool = True) -> bool:
        """Hold a pod, which has joined, to its limits. `may_lower` False: only ever to more memory than it is held to,
        for who does not know what the pod was last given. Whether it is held: the kernel does not take a limit below
        what is in use (v1), so try again later."""
        try:
            if self.base is not None:
                self._confine_cpu(self.base / uid, limits.millis)
            if self.memory is not None:
                self._confine_memory(self.memory / uid, pid, limits.memory, may_lower=may_lower)
            elif self.base is not None and limits.memory:
                log.warning("pod %s is not held to its memory limit: this machine has no memory cgroups", uid)
        except OSError as error:
            log.warning("pod %s is not held to its limits: %s", uid, error)
            return False
        return True

    def _confine_cpu(self, group: Path, millis: int) -> None:
        quota, file = millis * PERIOD // 1000, group / ("cpu.max" if self.unified else "cpu.cfs_quota_us")
        if quota or file.exists():
            file.write_text(f"{quota or 'max'} {PERIOD}" if self.unified else str(quota or -1))

    def _confine_memory(self, group: Path, pid: int, limit: int, *, may_lower: bool) -> None:
        file = group / ("memory.max" if self.unified else "memory.limit_in_bytes")
        if not limit and not file.exists():
            return
        group.mkdir(exist_ok=True)
        if limit and not may_lower and file.exists() and (known := file.read_text().strip()).isdigit():
            limit = max(limit, int(known))
        file.write_text(str(limit or ("max" if self.unified else -1)))
        (group / "cgroup.procs").write_text(str(pid))

    def killed_for(self, uid: str) -> Literal["", "limit", "host"]:
        """Whether the kernel killed a process of the pod as it needed more memory than its limit, or than the host has
        left."""
        if self.memory is None:
            return ""
        counted = _counts(self.memory / uid / ("memory.events" if self.unified else "memory.oom_control"))
        if not counted.get("oom_kill"):
            return ""
        if self.unified:
            return "limit" if counted.get("oom") else "host"
        refused = _counts(self.memory / uid / "memory.failcnt")
        return "limit" if any(refused.values()) else "host"

    def ran_out_of_memory(self, uid: str) -> bool:
        """Whether a process of the pod was killed for memory."""
        return bool(self.killed_for(uid))

    def remove(self, uid: str) -> None:
        for base in self._bases():
            _remove(base / uid)

    def sweep(self, known: AbstractSet[str]) -> None:
        """Remove the groups of pods that are none of these: a process on its way out kept them when their pods went.
        One that has a process stays."""
        for base in self._bases():
            for group in base.iterdir() if base.is_dir() else ():
                if group.is_dir() and group.name not in known:
                    _remove(group)

    def stop(self) -> None:
        """Take all away, when no guest is left."""
        for base in self._bases():
            if base.is_dir():
                for group in base.iterdir():
                    if group.is_dir():
                        _remove(group)
                _remove(base)

    def _bases(self) -> list[Path]:
        memory = () if self.memory == self.base else (self.memory,)
        return [base for base in (self.base, *memory, *self.others) if base is not None]


def find(name: str = PARENT, *, root: Path = ROOT) -> Cgroups:
    """`name` differs for homes beside each other."""
    if os.geteuid() != 0:
        return Cgroups(None)
    for base, unified in ((root / "cpu" / name, False), (root / name, True)):
        if unified and not _has_cpu(root):
            continue
        if base.parent.is_dir() and (unified or (base.parent / "cpu.shares").exists()):
            try:
                base.mkdir(exist_ok=True)
                if unified:
                    (base / "cgroup.subtree_control").write_text("+cpu")
            except OSError as error:
                log.info("no CPU shares for guests: %s", error)
                return Cgroups(None)
            memory = _memory_base(base, root, name, unified=unified)
            return Cgroups(base, unified, memory, _other_bases(base, root, name, unified=unified))
    return Cgroups(None)


def _other_bases(base: Path, root: Path, name: str, *, unified: bool) -> tuple[Path, ...]:
    found = []
    for controller in _V2_OTHERS if unified else _V1_OTHERS:
        try:
            if unified:
                (base / "cgroup.subtree_control").write_text(f"+{controller}")
                continue
            above = next((each for each in (_own(root / controller), root / controller) if each.is_dir()), None)
            if above is not None and (above / "cgroup.procs").exists():
                (above / name).mkdir(exist_ok=True)
                found.append(above / name)
        except OSError as error:
            log.info("no %s groups for guests: %s", controller, error)
    return tuple(found)


def _counts(file: Path) -> dict[str, int]:
    """`name number` a line, or one number alone; what is no such line is left out."""
    try:
        lines = [line.split() for line in file.read_text().splitlines()]
    except OSError:
        return {}
    return {line[0]: int(line[-1]) for line in lines if line and line[-1].isdigit()}


def _memory_base(base: Path, root: Path, name: str, *, unified: bool) -> Path | None:
    try:
        if unified:
            (base / "cgroup.subtree_control").write_text("+memory")
            return base
        # Below our own group, so that what holds the home as a whole goes on holding its guests.
        above = next((each for each in (_own(root / "memory"), root / "memory") if each.is_dir()), None)
        if above is None or not (above / "memory.limit_in_bytes").exists():
            return None
        (above / name).mkdir(exist_ok=True)
        return above / name
    except OSError as error:
        log.info("no memory limits for guests: %s", error)
        return None


def _own(controller: Path) -> Path:
    """This process's group of a v1 controller."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if controller.name in names.split(","):
            return controller / path.lstrip("/")
    return controller


def limits(pod: Document) -> Limits:
    """What the pod may not exceed. A container without a limit leaves its pod without one."""
    containers = pod["spec"].get("containers") or ()
    given = [(container.get("resources") or {}).get("limits") or {} for container in containers]
    try:
        memory = [parse_bytes(each["memory"]) if each.get("memory") else 0 for each in given]
        millis = [parse_cpu(each["cpu"]) if each.get("cpu") else 0 for each in given]
    except QuantityError:
        return Limits()
    return Limits(sum(memory) if all(memory) else 0, sum(millis) if all(millis) else 0)


def requested(pod: Document) -> int:
    """Thousandths of a CPU that the pod's containers ask for."""
    total = 0
    for container in pod["spec"].get("containers") or ():
        asked = ((container.get("resources") or {}).get("requests") or {}).get("cpu")
        try:
            total += parse_cpu(asked) if asked is not None else 0
        except QuantityError:
            continue
    return total


def shares(millis: int) -> int:
    """cgroup v1's `cpu.shares`, as the kubelet computes them."""
    return max(LEAST, millis * 1024 // 1000)


def weight(v1_shares: int) -> int:
    """cgroup v2's `cpu.weight` (1 to 10000) for v1's shares (2 to 262144), by the kubelet's formula."""
    return 1 + (min(max(v1_shares, 2), 262144) - 2) * 9999 // 262142


def _has_cpu(root: Path) -> bool:
    try:
        return "cpu" in (root / "cgroup.subtree_control").read_text().split()
    except OSError:
        return False


def _remove(group: Path) -> None:
    try:
        group.rmdir()
    except OSError:
        pass  # not there, or a process is still on its way out: an empty group costs nothing
