"""How copies of a guest's disks stand, of what QEMU tells; and files that nobody writes to meanwhile."""

import fcntl
import os
import struct

import pytest

from hotvirt.qemu import locks
from hotvirt.qemu.backup import Progress, mark, progress


def job(name, number, status, done=0, error=""):
    found = {"id": f"{mark(name)}{number}", "status": status, "current-progress": done, "total-progress": 10}
    return {**found, "error": error} if error else found


def test_progress():
    other = job("other", 0, "running")
    assert progress([other], "set", count=1) == Progress(found=False)
    jobs = [other, job("set", 0, "concluded", 10), job("set", 1, "running", 5)]
    assert progress(jobs, "set", count=2) == Progress(found=True, done=15, total=20)
    jobs[2] = job("set", 1, "concluded", 10)
    assert progress(jobs, "set", count=2) == Progress(found=True, ended=True, done=20, total=20)
    assert progress(jobs, "set", count=3).error == "lost", "one was dismissed: it may not have been whole"
    jobs[1] = job("set", 0, "concluded", error="no room")
    assert progress(jobs, "set", count=2).error == "no room"


def test_a_file_that_is_copied_is_not_written_by_a_qemu(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(b"x")
    with locks.unwritten(path):
        assert locks.taken(path, read_only=False, shareable=False)
        assert not locks.taken(path, read_only=True, shareable=False)
    assert not locks.taken(path, read_only=False, shareable=False)
    writer = os.open(path, os.O_RDWR)
    fcntl.fcntl(writer, 37, struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 101, 1, 0))  # as one that has it open
    with pytest.raises(BlockingIOError), locks.unwritten(path):
        pass
    os.close(writer)
