"""A pod's process as the pod's directory tells of it: which one it is, how it ended, what was started for it."""

import os
import signal
from contextlib import suppress
from pathlib import Path

from msgspec import DecodeError, json

from hotvirt.node.places import PodPlace
from hotvirt.qemu.process import Identity


def read_identity(path: Path) -> Identity | None:
    try:
        return json.decode(path.read_bytes(), type=Identity)
    except (FileNotFoundError, DecodeError):
        return None


def read_outcome(place: PodPlace) -> str:
    try:
        return place.outcome.read_text().strip()
    except FileNotFoundError:
        return ""


def end_holders(place: PodPlace, *, of: tuple[Path, ...] = ()) -> None:
    """Kills them. Many end by themselves in that very moment, as what they served has ended."""
    for pid in holders(place, of=of):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def holders(place: PodPlace, *, of: tuple[Path, ...] = ()) -> list[int]:
    """Processes that have one of the pod's logs open (`of`: one of these): every one that was ever started for it,
    noted or not."""
    wanted, found = {str(log) for log in of or (place.log, *place.helper_logs)}, []
    if not place.log.exists():
        return []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                if os.readlink(process / "fd" / "2") in wanted:
                    found.append(int(process.name))
            except OSError:
                continue
    return found
