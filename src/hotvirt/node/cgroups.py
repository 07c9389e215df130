"""A launcher pod's share of the CPU, by cgroup v1 or v2, whichever there is; as root, else nothing.

Kubernetes' rule: 1024 shares for each CPU requested. So when guests want more than the machine has, the home and its
API get their turn first, and guests share by what they asked for. Best effort: a machine that does not allow it runs
guests all the same.
"""

import logging
import os
from pathlib import Path

from msgspec import Struct

from hotvirt.api.quantity import QuantityError, parse_cpu
from hotvirt.kube.client import Document

log = logging.getLogger(__name__)

ROOT = Path("/sys/fs/cgroup")
PARENT = "hotvirt"


class Cgroups(Struct, frozen=True):
    """`base` is the directory below which pods get theirs; None when there is none to be had."""

    base: Path | None
    unified: bool = False

    def join(self, uid: str, pid: int, *, millis: int) -> None:
        """Put a pod's process into its group (made if need be)."""
        if self.base is None:
            return
        group = self.base / uid
        try:
            group.mkdir(exist_ok=True)
            if self.unified:
                (group / "cpu.weight").write_text(str(weight(shares(millis))))
            else:
                (group / "cpu.shares").write_text(str(shares(millis)))
            (group / "cgroup.procs").write_text(str(pid))
        except OSError as error:
            log.warning("pod %s has no CPU share of its own: %s", uid, error)

    def remove(self, uid: str) -> None:
        if self.base is not None:
            _remove(self.base / uid)

    def stop(self) -> None:
        """Take all away, when no guest is left."""
        if self.base is not None and self.base.is_dir():
            for group in self.base.iterdir():
                if group.is_dir():
                    _remove(group)
            _remove(self.base)


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
            return Cgroups(base, unified)
    return Cgroups(None)


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
    return max(2, millis * 1024 // 1000)


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
