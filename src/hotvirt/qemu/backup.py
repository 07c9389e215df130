"""Copies of a running guest's disks as they are at one instant: one transaction starts a backup job for each disk.

The guest's disks stay where they are. Before the guest overwrites a block that was not copied yet, QEMU copies it, so
the copies hold the instant of the transaction however long they take. The jobs are grouped: when one fails, all do.
They stay known to QEMU after their end until they are dismissed, so a new home finds out how they ended.

Of one guest and one set of copies one task does this at a time.
"""

from collections.abc import Mapping, Sequence
from hashlib import blake2s
from typing import Any, Literal

from msgspec import Struct

from hotvirt.qemu import disks
from hotvirt.qemu.errors import QmpError, refused_as
from hotvirt.qemu.qmp import Monitor

ENDED = "concluded"
LOOK_AGAIN = 2.0


class Copy(Struct, frozen=True):
    """`node` of the guest, into `target` (an open descriptor of ours: an empty file as large as the disk, or an empty
    qcow2 image)."""

    node: str
    target: int
    format: Literal["raw", "qcow2"]


class Progress(Struct, frozen=True, kw_only=True):
    """Of all jobs of a set. `found` False: QEMU knows of none."""

    found: bool
    ended: bool = False
    error: str = ""
    done: int = 0
    total: int = 0


def mark(set_name: str) -> str:
    """What ids of this set's jobs and nodes begin with. Pure; the same name always gives the same."""
    return f"snap-{blake2s(set_name.encode(), digest_size=6).hexdigest()}-"


def progress(jobs: Sequence[Mapping[str, Any]], set_name: str, *, count: int) -> Progress:
    """Of what `query-jobs` tells. Pure. Fewer jobs than disks: the transaction never was, or some were dismissed."""
    ours = [job for job in jobs if str(job["id"]).startswith(mark(set_name))]
    if not ours:
        return Progress(found=False)
    return Progress(
        found=True,
        ended=all(job["status"] == ENDED for job in ours),
        error=next((str(job["error"]) for job in ours if job.get("error")), "" if len(ours) == count else "lost"),
        done=sum(int(job["current-progress"]) for job in ours),
        total=sum(int(job["total-progress"]) for job in ours),
    )


async def read(monitor: Monitor, set_name: str, *, count: int) -> Progress:
    return progress(await monitor.execute("query-jobs"), set_name, count=count)


async def prepare(monitor: Monitor, set_name: str, copies: Sequence[Copy]) -> None:
    """Open the targets. What an earlier attempt left is closed first."""
    await clear(monitor, set_name)
    for index, copy in enumerate(copies):
        number = await monitor.add_fd(copy.target, opaque=mark(set_name))
        file = {"driver": "file", "filename": f"/dev/fdset/{number}", "discard": "unmap"}
        node: dict[str, Any] = {
            "driver": copy.format, "node-name": _node(set_name, index), "discard": "unmap", "detect-zeroes": "unmap",
            "file": file,
        }  # fmt: skip
        if copy.format == "qcow2":
            node["backing"] = None
        with refused_as("QEMU cannot open the file for the copy"):
            await monitor.execute("blockdev-add", node)


async def start(monitor: Monitor, set_name: str, copies: Sequence[Copy]) -> None:
    """The instant. Returns when it is over; the copying goes on."""
    actions = [
        {
            "type": "blockdev-backup",
            "data": {
                "job-id": f"{mark(set_name)}{index}", "device": copy.node, "target": _node(set_name, index),
                "sync": "full", "auto-dismiss": False, "on-target-error": "report", "on-source-error": "report",
            },
        }
        for index, copy in enumerate(copies)
    ]  # fmt: skip
    arguments = {"actions": actions, "properties": {"completion-mode": "grouped"}}
    with refused_as("QEMU does not start the copies"):
        await monitor.execute("transaction", arguments)


async def wait(monitor: Monitor, set_name: str, *, count: int) -> Progress:
    """Until all jobs have ended, or a while."""
    with monitor.events("JOB_STATUS_CHANGE") as events:
        found = await read(monitor, set_name, count=count)
        while found.found and not found.ended:
            if await events.get_within(LOOK_AGAIN) is None:
                return await read(monitor, set_name, count=count)
            found = await read(monitor, set_name, count=count)
        return found


async def close(monitor: Monitor, set_name: str) -> None:
    """Close the targets of jobs that have ended, so that all of a copy is in its file. The jobs stay known."""
    found = await monitor.execute("query-named-block-nodes", {"flat": True})
    ours = tuple(str(node["node-name"]) for node in found if node["node-name"].startswith(mark(set_name)))
    await disks.close_images(monitor, ours)
    await disks.release(monitor, mark(set_name))


async def clear(monitor: Monitor, set_name: str) -> None:
    """End the jobs, close their targets, forget them. Nothing to do when there are none."""
    with monitor.events("JOB_STATUS_CHANGE") as events:
        while jobs := [j for j in await monitor.execute("query-jobs") if str(j["id"]).startswith(mark(set_name))]:
            for job in jobs:
                if job["status"] == ENDED:
                    await _unless_gone(monitor, "job-dismiss", job["id"])
                else:
                    await _unless_gone(monitor, "job-cancel", job["id"])
            if any(job["status"] != ENDED for job in jobs):
                await events.get_within(LOOK_AGAIN)
    await close(monitor, set_name)


def _node(set_name: str, index: int) -> str:
    return f"{mark(set_name)}{index}"


async def _unless_gone(monitor: Monitor, command: str, job: str) -> None:
    try:
        await monitor.execute(command, {"id": job})
    except QmpError:
        pass  # it came to its end, or went, in the same moment: the next look tells
