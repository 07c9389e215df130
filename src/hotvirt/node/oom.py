"""Whom the kernel kills when the machine runs out of memory: by a pod's quality of service, as a kubelet has it.

A pod that uses more than it requests goes first, one whose memory is guaranteed last; the home, which asks for nothing
special, has so little that it is never the first. The pod's own limit is another matter, see `cgroups`.
"""

import logging
import os
from pathlib import Path

from hotvirt.api.quantity import QuantityError, parse_bytes
from hotvirt.kube.client import Document

log = logging.getLogger(__name__)

GUARANTEED, BEST_EFFORT = -997, 1000
BURSTABLE = (3, 999)


def score(quality: str, requested: int, capacity: int) -> int:
    """The kernel's `oom_score_adj`: thousandths of all memory that a process seems to use beyond what it does. Pure."""
    if quality == "Guaranteed":
        return GUARANTEED
    if quality == "BestEffort" or not requested:
        return BEST_EFFORT
    least, most = BURSTABLE
    return min(most, max(least, 1000 - 1000 * requested // capacity))


def of_pod(pod: Document) -> int:
    """The score of a pod's processes on this machine."""
    capacity = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return score(str((pod.get("status") or {}).get("qosClass") or "Burstable"), _requested(pod), capacity)


def hold(pid: int, wanted: int) -> None:
    """Best effort: without the right to, a process keeps its place."""
    try:
        Path(f"/proc/{pid}/oom_score_adj").write_text(str(wanted))
    except OSError as error:
        log.debug("process %d keeps its place when memory runs out: %s", pid, error)


def _requested(pod: Document) -> int:
    total = 0
    for container in pod["spec"].get("containers") or ():
        asked = ((container.get("resources") or {}).get("requests") or {}).get("memory")
        try:
            total += parse_bytes(asked) if asked is not None else 0
        except QuantityError:
            continue
    return total
