"""What a VMI's status should say of a running guest. Pure: (VMI, what was observed, now) -> merge patch or None.

Only the node agent's part of the status; lists are given whole, as a merge patch replaces them.
"""

from datetime import datetime
from typing import Literal

from msgspec import Struct

from hotvirt.api.quantity import format_bytes
from hotvirt.kube import conditions
from hotvirt.kube.client import Document
from hotvirt.kube.times import stamp
from hotvirt.node import render
from hotvirt.node.devicestatus import interfaces, volume_status
from hotvirt.node.guest import AgentView, Job
from hotvirt.node.hostfacts import HostFacts
from hotvirt.node.pulls import REASONS as PULL_REASONS
from hotvirt.node.seen import Seen
from hotvirt.node.volumes import IN_USE
from hotvirt.preconditions import limits
from hotvirt.qemu.state import Observed

MIB = 1 << 20
STOPPED = ("paused", "prelaunch", "io-error")
"""Run states of a guest that stands still until it is told to go on. After a reset it is `prelaunch`."""
UNSUPPORTED_AGENT = "AgentVersionNotSupported"
BASIC_COMMANDS = frozenset((
    "guest-ping", "guest-info", "guest-shutdown", "guest-get-osinfo", "guest-get-host-name", "guest-get-users",
    "guest-get-timezone", "guest-get-fsinfo", "guest-network-get-interfaces", "guest-get-vcpus",
))  # fmt: skip
"""What is asked of every guest. Running programs and reading files is left out: some systems block that by default."""
OF_A_RUNNING_GUEST = (
    "AgentConnected", UNSUPPORTED_AGENT, "HotMemoryChange", "HotVCPUChange", "HotVolumeChange", "HotInterfaceChange",
    "Paused", "MemoryHotplugAvailable", "CPUHotplugAvailable", "PCIHotplugAvailable",
)  # fmt: skip
SLACK = 4 * MIB
"""Linux hands memory out in pieces of this size, so so much of an odd request may stay undone."""


POD_GOES = "PodTerminating"
SILENT = "QemuSilent"


class End(Struct, frozen=True):
    """How a guest ended. `reason` is a condition's word for what went wrong, `unready` for why it is not ready."""

    phase: str
    reason: str
    message: str
    unready: str = "GuestNotRunning"


ENDS: dict[str, End] = {
    "shutdown": End("Succeeded", "GuestNotRunning", "the guest powered off"),
    "guest-panicked": End("Failed", "GuestPanicked", "the guest's kernel panicked"),
    "watchdog": End("Failed", "WatchdogPoweroff", "the guest's watchdog was not fed, and its power was cut"),
    "internal-error": End("Failed", "InternalError", "QEMU met an internal error"),
}
"""By the run states in which a guest does not go on, and QEMU waits to be dismissed."""


def out_of_memory(why: Literal["limit", "host"]) -> End:
    """Of a guest whose QEMU the kernel killed."""
    said = {
        "limit": "needed more memory than its pod's limit: raise domain.resources.limits.memory",
        "host": "was killed as the machine ran out of memory: stop other guests, or give this one less",
    }
    return End("Failed", "OOMKilled", f"QEMU {said[why]}")


def unhealthy(words: str) -> End:
    """Of a guest whose liveness probe failed."""
    return End("Failed", "LivenessProbeFailed", f"the liveness probe failed ({words}), so the guest was stopped")


WITHOUT_POD = End("Failed", POD_GOES, "the launcher pod was deleted, and the guest with it", POD_GOES)


def end_of_qemu(noted: str, *, cut_off: bool, log: str, why: str) -> End:
    """Of a guest whose QEMU is gone. What was noted before counts; else QEMU died, and its last words say why."""
    if cut_off:
        message = "the guest did not shut down in the time it was given, and its power was cut"
        # Who is stopped by way of its instance succeeds: only one whose pod was to go fails so.
        return End(
            noted or "Failed", "GuestNotRunning", message, POD_GOES if noted != "Succeeded" else "GuestNotRunning"
        )
    if noted == "Succeeded":
        return End("Succeeded", "GuestNotRunning", "the guest was stopped")
    words = [line for line in log.strip().splitlines() if line]
    return End(noted or "Failed", "QemuEnded", f"QEMU ended: {words[-1] if words else why}")


def sockets_now(spec: Document, seen: Seen) -> int:
    """Sockets in use. Until the guest's agent answers, QEMU's account counts, less the vCPU that emulation needed at
    boot."""
    wanted = render.wanted_topology(spec)
    if seen.vcpus is None:
        return min(wanted.sockets, max(1, seen.observed.plugged_vcpus // wanted.per_socket))
    return max(1, min(seen.vcpus, seen.observed.plugged_vcpus) // wanted.per_socket)


def memory_now(seen: Seen) -> int:
    """Bytes the guest has: QEMU's account, and while it grows no more than the guest was seen to use."""
    current = seen.observed.memory.current
    job = seen.jobs.get("memory")
    if job is not None and (job.is_running or job.error) and seen.settled is not None:
        return min(current, seen.settled) if current > seen.settled else current
    return current


def running(vmi: Document, seen: Seen, facts: HostFacts, *, now: datetime, pod_ready: bool = False) -> Document | None:
    """The patch for a guest that runs (or is paused); None when the status says it all already. `pod_ready` says that
    the instance is ready as soon as its guest runs: both are told at once."""
    spec, status = vmi["spec"], vmi.get("status") or {}
    topology = render.wanted_topology(spec)
    memory = seen.observed.memory
    frozen = seen.view is not None and seen.view.frozen
    requested = memory.fixed - memory.ballooned + (memory.device.requested if memory.device else 0)
    new: Document = {
        "memory": {
            "guestAtBoot": format_bytes(memory.boot),
            "guestRequested": format_bytes(requested),
            "guestCurrent": format_bytes(_rounded(memory_now(seen), render.wanted_memory(spec))),
        },
        "currentCPUTopology": {
            "cores": topology.cores, "sockets": sockets_now(spec, seen), "threads": topology.threads,
        },
        "interfaces": interfaces(vmi, seen),
        "volumeStatus": volume_status(vmi, seen),
        "guestOSInfo": os_info(seen.view) or (status.get("guestOSInfo") if frozen or seen.unheard else None) or None,
        "fsFreezeStatus": status.get("fsFreezeStatus") if seen.unheard else "frozen" if frozen else None,
        "machine": {"type": str((spec["domain"].get("machine") or {}).get("type") or "q35")},
        "conditions": _conditions(vmi, seen, facts, now),
    }  # fmt: skip
    if status.get("phase") != "Running":
        new["phase"] = "Running"
        if pod_ready and seen.observed.status not in STOPPED:
            new["conditions"] = conditions.put(new["conditions"], "Ready", True, now=now)
        new["phaseTransitionTimestamps"] = [
            *(status.get("phaseTransitionTimestamps") or ()),
            {"phase": "Running", "phaseTransitionTimestamp": stamp(now)},
        ]
    changed = {key: value for key, value in new.items() if status.get(key) != value}
    told = vmi["metadata"].get("annotations") or {}
    room = {name: value for name, value in room_of(spec, seen.observed).items() if told.get(name) != value}
    if changed.get("guestOSInfo"):  # a merge patch keeps what it does not name
        changed["guestOSInfo"] = {**dict.fromkeys(status.get("guestOSInfo") or {}), **changed["guestOSInfo"]}
    if room:
        return {"status": changed, "metadata": {"annotations": room}}
    return {"status": changed} if changed else None


def room_of(spec: Document, observed: Observed) -> dict[str, str]:
    """Annotations: up to where this QEMU can go, so that a maximum can be raised while it runs."""
    memory, topology = observed.memory, render.wanted_topology(spec)
    told = {}
    if memory.most > memory.boot:
        told[limits.MEMORY_ROOM] = format_bytes(memory.most)
    if memory.slots:
        told[limits.MEMORY_SLOTS] = f"{len(memory.dimms)}/{memory.slots}"
    if sockets := len(observed.vcpus) // topology.per_socket:
        told[limits.SOCKETS_ROOM] = str(sockets)
    return told


def final(vmi: Document, end: End, *, now: datetime) -> Document:
    """The patch for a guest that came to its end."""
    phase, message = end.phase, end.message
    status = vmi.get("status") or {}
    found = conditions.remove(status.get("conditions"), *OF_A_RUNNING_GUEST)
    found = conditions.put(found, "Ready", False, now=now, reason=end.unready, message=message)
    if phase == "Failed":
        found = conditions.put(found, "Synchronized", False, now=now, reason=end.reason, message=message)
    return {
        "status": {
            "phase": phase,
            "phaseTransitionTimestamps": [
                *(status.get("phaseTransitionTimestamps") or ()),
                {"phase": phase, "phaseTransitionTimestamp": stamp(now)},
            ],
            "conditions": found,
        }
    }


def out_of_sync(vmi: Document, reason: str, message: str, *, now: datetime) -> Document | None:
    """The patch for a guest that cannot be started yet."""
    found = (vmi.get("status") or {}).get("conditions")
    new = conditions.put(found, "Synchronized", False, now=now, reason=reason, message=message)
    return {"status": {"conditions": new}} if new != list(found or ()) else None


def of_our_own(error: Exception) -> str:
    what = f"{type(error).__name__}: {error}"
    return f"an error inside hotvirt keeps the guest from starting ({what}): it is tried again; please report it"


def _rounded(current: int, wanted: int) -> int:
    """What is asked for, when the guest has it but for a grain it cannot give."""
    return wanted if 0 <= current - wanted <= SLACK else current


def _conditions(vmi: Document, seen: Seen, facts: HostFacts, now: datetime) -> list[Document]:
    spec, old = vmi["spec"], (vmi.get("status") or {}).get("conditions")
    found = list(old or ())
    sync = conditions.get(found, "Synchronized")
    if sync is not None and sync.get("status") == "False" and sync.get("reason") in START_REASONS:
        found = conditions.remove(found, "Synchronized")
    if seen.view is not None:
        found = conditions.put(found, "AgentConnected", True, now=now)
        found = _agent_support(found, seen.view, now)
    elif not seen.unheard:
        found = conditions.remove(found, "AgentConnected", UNSUPPORTED_AGENT)
    for kind, ability in seen.kernel.conditions() if seen.kernel is not None else ():
        found = conditions.put(
            found, kind, ability.status, now=now, reason=ability.reason, message=ability.message
        )  # fmt: skip
    if seen.observed.status in STOPPED:
        message = _trouble(vmi, seen.observed) if seen.observed.status == "io-error" else seen.held
        reason = "PausedIOError" if message else "PausedByUser"
        found = conditions.put(found, "Paused", True, now=now, reason=reason, message=message)
    else:
        found = conditions.remove(found, "Paused")
    for kind in ("LiveMigratable", "StorageLiveMigratable"):
        found = conditions.put(
            found, kind, False, now=now, reason="NotMigratable",
            message="this home has one node; guests are resized in place",
        )  # fmt: skip
    if facts.emulates:
        said = f"{facts.acceleration.reason}{f'; {facts.acceleration.mend}' if facts.acceleration.mend else ''}"
        found = conditions.put(found, "SoftwareEmulation", True, now=now, reason="KvmUnusable", message=said)
    wanted, current = render.wanted_memory(spec), _rounded(memory_now(seen), render.wanted_memory(spec))
    found = _change(
        found, "HotMemoryChange", seen.jobs.get("memory"), _memory_words(wanted, current), wanted != current, now
    )
    sockets, asked = sockets_now(spec, seen), render.wanted_topology(spec).sockets
    words = f"{asked} sockets asked, {sockets} in use"
    if seen.view is None:
        words += "; waiting for the guest agent"
    job = seen.jobs.get("cpu")  # what is offline, and could not be unplugged, is told of as well
    found = _change(found, "HotVCPUChange", job, words, sockets != asked or bool(job and job.error), now)
    found = _several(found, seen, VOLUMES, now)
    return _several(found, seen, CARDS, now)


def _agent_support(found: list[Document], view: AgentView, now: datetime) -> list[Document]:
    """Whether the agent lacks what is asked of every one: it is too old, or its administrator switched it off."""
    if view.frozen:
        return found  # then it knows next to nothing
    if not (missing := sorted(BASIC_COMMANDS - view.info.commands)):
        return conditions.remove(found, UNSUPPORTED_AGENT)
    message = (
        f"qemu-guest-agent {view.info.version} does not know, or may not run, {', '.join(missing)}: install a newer "
        "one in the guest, or take them out of its blocked commands"
    )
    return conditions.put(found, UNSUPPORTED_AGENT, True, now=now, reason="MissingCommands", message=message)


def _trouble(vmi: Document, observed: Observed) -> str:
    """Of a guest that a disk stopped, which and what to do."""
    full = [disk.name for disk in observed.disks if disk.trouble == "nospace"]
    broken = [disk.name for disk in observed.disks if disk.trouble not in ("", "nospace")]
    found = [f"there is no room left for what the guest writes to volume {', '.join(full)}: make some"] if full else []
    found += [f"volume {', '.join(broken)} cannot be read or written"] if broken else []
    words = "; ".join(found) or "a disk is full or broken"
    return f"{words}, and go on with: hotvirt unpause vmi {vmi['metadata']['name']}"


class Several(Struct, frozen=True):
    """Things of one kind, each of which may be on its way, and the condition that tells of them."""

    condition: str
    prefix: str
    what: str


VOLUMES, CARDS = Several("HotVolumeChange", "volume ", "volume"), Several("HotInterfaceChange", "card ", "interface")
ON_ITS_WAY = {
    "attach": "is being attached", "detach": "is to leave, when the guest lets go", "eject": "is being ejected",
    "grow": "is growing", "link": "has its cable moved",
}  # fmt: skip


def _several(found: list[Document], seen: Seen, kind: Several, now: datetime) -> list[Document]:
    """What cannot be done comes first, by name; then what is on its way."""
    jobs = {each.removeprefix(kind.prefix): j for each, j in seen.jobs.items() if each.startswith(kind.prefix)}
    errors = seen.volume_errors if kind is VOLUMES else seen.card_errors
    stuck = dict(errors)
    stuck |= {name: (job.error.reason, str(job.error)) for name, job in jobs.items() if job.error is not None}
    if stuck:
        reason = "Waiting" if errors else next(iter(stuck.values()))[0]
        message = "; ".join(words for _, words in stuck.values())
        return conditions.put(found, kind.condition, False, now=now, reason=reason, message=message)
    moving = [(name, job.target) for name, job in jobs.items() if job.is_running]
    if not moving:
        return conditions.remove(found, kind.condition)
    words = [f"{kind.what} {name} {ON_ITS_WAY[target[0]]}" for name, target in moving if isinstance(target, tuple)]
    return conditions.put(found, kind.condition, True, now=now, reason="InProgress", message="; ".join(words))


START_REASONS = (
    SILENT, "FailedStart", "FailedVolume", "FailedPvcNotFound", "FailedNetwork", "QemuMissing", "Pending", IN_USE,
    "FirmwareMissing", "TpmMissing", "VirtiofsMissing", *PULL_REASONS,
)  # fmt: skip


def _memory_words(wanted: int, current: int) -> str:
    return f"{format_bytes(wanted)} asked, the guest has {format_bytes(current)}"


def _change(
    found: list[Document], kind: str, job: Job | None, words: str, differs: bool, now: datetime
) -> list[Document]:
    """True while on its way; False with the reason when the guest would not; gone when done."""
    if not differs:
        return conditions.remove(found, kind)
    if job is not None and job.error is not None:
        message = f"{words}: {job.error}"
        return conditions.put(found, kind, False, now=now, reason=job.error.reason, message=message)
    if job is not None and job.is_running and job.until is not None:
        words += f"; tried until {stamp(job.until)}"
    return conditions.put(found, kind, True, now=now, reason="InProgress", message=words)


def os_info(view: AgentView | None) -> Document:
    """KubeVirt's names for what guest-get-osinfo says."""
    if view is None:
        return {}
    names = {
        "id": "id", "name": "name", "pretty-name": "prettyName", "version": "version", "version-id": "versionId",
        "kernel-release": "kernelRelease", "kernel-version": "kernelVersion", "machine": "machine",
    }  # fmt: skip
    return {ours: view.os[theirs] for theirs, ours in names.items() if view.os.get(theirs)}
