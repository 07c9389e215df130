"""Which process is meant, beyond its pid: a pid is used again, a pid with its start time is not (until a reboot,
which changes the boot's clock base and with it every start time). Reads /proc; no state.
"""

import os
import select
import signal
from pathlib import Path

from msgspec import DecodeError, Struct, json


class Process(Struct, frozen=True):
    """`starttime` is field 22 of /proc/PID/stat: clock ticks after boot."""

    pid: int
    starttime: int

    def is_alive(self) -> bool:
        return starttime_of(self.pid) == self.starttime


def starttime_of(pid: int) -> int | None:
    """None when there is no such process, or only a zombie of it."""
    try:
        # The command's name, in parentheses, may hold spaces and parentheses itself.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])


def this_process() -> Process:
    pid = os.getpid()
    return Process(pid, starttime_of(pid) or 0)


def read(path: Path) -> Process | None:
    """The process that a file such as `pods/<uid>/pid` names ({"pid":..., "starttime":...}), None without one."""
    try:
        return json.decode(path.read_bytes(), type=Process)
    except (FileNotFoundError, NotADirectoryError, DecodeError):
        return None


def end(process: Process, *, signals: tuple[signal.Signals, ...], patience: float) -> bool:
    """Sends each signal in turn and waits up to `patience` seconds for the end after each. True when it ended.

    Holds a pidfd over the check of the start time, so the signal can never reach a later process with this pid.
    """
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        for number in signals:
            if not process.is_alive():
                return True
            signal.pidfd_send_signal(handle, number)
            if select.select([handle], [], [], patience)[0]:
                return True
        return not process.is_alive()
    except ProcessLookupError:
        return True
    finally:
        os.close(handle)
