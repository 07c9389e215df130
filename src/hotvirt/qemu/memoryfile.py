"""A guest's memory and devices, kept in a file at one instant and taken up from it by another QEMU of the same shape.

The file is a qcow2 image of which only the place for a machine's state is used: QEMU's own `snapshot-save` and
`snapshot-load`. A migration into a file was dropped: at its end QEMU lets go of the guest's disks, which it refuses
while copies of them are made (`backup`), and the two are to be of one instant. The guest stands still meanwhile.

Of one guest one task does this at a time.
"""

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from hotvirt.qemu import disks
from hotvirt.qemu.errors import HotplugError, refused_as
from hotvirt.qemu.qmp import Monitor

NODE, TAG = "kept-memory", "memory"
ENDED, LOOK_AGAIN = "concluded", 2.0
PATIENCE = 3600.0
"""Seconds that QEMU, which answers nothing while it writes or reads the memory, may take for a large guest on a slow
disk."""
VIRTUAL_SIZE = 1 << 20
"""Of the image that the state is in: its disk holds nothing."""
SHAPE = ("-cpu", "-smp", "-m", "-machine", "-global", "-device", "-object", "-accel")
"""Options that decide which devices there are, and where. What is behind them (files, descriptors) may differ."""


def shape(argv: Sequence[str]) -> tuple[str, ...]:
    """What has to be the same in who takes up a state. Pure."""
    return tuple(f"{option} {_without_limits(option, value)}" for option, value in pairwise(argv) if option in SHAPE)


def _without_limits(option: str, value: str) -> str:
    if option == "-accel":
        return value.partition(",")[0]
    if option != "-device":
        return value
    try:
        given: dict[str, Any] = json.loads(value)
    except ValueError:
        return value
    # Sizes of queues and the like stay in; what only the firmware of a fresh boot reads does not.
    return json.dumps({k: v for k, v in given.items() if k not in ("bootindex", "romfile")}, sort_keys=True)


def difference(kept: Sequence[str], now: Sequence[str]) -> str:
    """The first two that differ, in words; "" for none. Pure."""
    for one, other in zip([*kept, *[""] * len(now)], [*now, *[""] * len(kept)], strict=False):
        if one != other:
            return f"{one or 'nothing'} then, {other or 'nothing'} now"
    return ""


async def save(monitor: Monitor, descriptor: int) -> None:
    """Of a guest that stands still, into an open, empty qcow2 image. HotplugError when QEMU does not."""
    await _run(monitor, descriptor, "snapshot-save", "QEMU does not keep the guest's memory")


async def load(monitor: Monitor, descriptor: int) -> None:
    """Into a QEMU that has not begun to run. The file is written to, and of use to nobody else meanwhile."""
    await _run(monitor, descriptor, "snapshot-load", "QEMU does not take up the memory that was kept")


async def _run(monitor: Monitor, descriptor: int, command: str, what: str) -> None:
    await _clear(monitor)  # of a home that died
    number = await monitor.add_fd(descriptor, opaque=NODE)
    node = {
        "driver": "qcow2", "node-name": NODE, "backing": None,  # whatever the QEMU that wrote it made of its header
        "file": {"driver": "file", "filename": f"/dev/fdset/{number}", "discard": "unmap"},
    }  # fmt: skip
    try:
        with monitor.events("JOB_STATUS_CHANGE") as events:
            with refused_as(what):
                await monitor.execute("blockdev-add", node)
                await monitor.execute(
                    command, {"job-id": NODE, "tag": TAG, "vmstate": NODE, "devices": [NODE]}, timeout=PATIENCE
                )
            while (job := await _job(monitor)) is not None and job["status"] != ENDED:
                await events.get_within(LOOK_AGAIN)
        if job is None or job.get("error"):
            raise HotplugError("QemuRefused", f"{what}: {(job or {}).get('error') or 'the job was lost'}")
    finally:
        await _clear(monitor)


async def _clear(monitor: Monitor) -> None:
    with monitor.events("JOB_STATUS_CHANGE") as events:
        while (job := await _job(monitor)) is not None:
            if job["status"] == ENDED:
                await monitor.execute("job-dismiss", {"id": NODE})
            else:
                await events.get_within(LOOK_AGAIN)  # it cannot be cancelled, and ends by itself
    await disks.close_images(monitor, (NODE,))
    await disks.release(monitor, NODE)


async def _job(monitor: Monitor) -> dict[str, Any] | None:
    found = await monitor.execute("query-jobs", timeout=PATIENCE)
    return next((dict(job) for job in found if job["id"] == NODE), None)
