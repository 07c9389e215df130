"""A file from outside becomes the very disk that it holds, of whatever size, however the files are written."""

import errno
import os
import random
import subprocess
from pathlib import Path

import pytest

from hotvirt.images import disks, taking

pytestmark = pytest.mark.server  # real programs run

KIB, MIB = 1 << 10, 1 << 20


def packed(folder: Path, content: bytes) -> Path:
    raw, image = folder / "raw", folder / "image"
    raw.write_bytes(content)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image], check=True, capture_output=True)
    raw.unlink()
    return image


@pytest.mark.parametrize("more", [0, 512, 4096 + 512])
async def test_a_disk_of_any_number_of_sectors_ends_where_it_should(tmp_path: Path, more: int) -> None:
    """Also where it is written in larger blocks, data to its end."""
    size = 8 * MIB + more
    content = random.Random(more).randbytes(MIB) + bytes(size - 2 * MIB) + random.Random(more + 1).randbytes(MIB)
    target = tmp_path / "disk.img"
    await taking.take(packed(tmp_path, content), target, kind="raw", size=size)
    assert target.read_bytes() == content
    assert target.stat().st_blocks * 512 < 3 * MIB, "its zeros take no room"


async def test_a_disk_as_qcow2_reads_back(tmp_path: Path) -> None:
    content = random.Random(3).randbytes(3 * MIB) + bytes(5 * MIB)
    target = tmp_path / "disk.qcow2"
    await taking.take(packed(tmp_path, content), target, kind="qcow2", size=16 * MIB)
    await disks.convert(target, tmp_path / "back", source_format="qcow2", target_format="raw")
    assert (tmp_path / "back").read_bytes() == content + bytes(8 * MIB)


def test_the_page_cache_is_used_where_a_file_system_cannot_do_without(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.touch()

    def refuses(_path: Path, _flags: int) -> int:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    assert disks.cache_mode(path, opened=refuses) == "unsafe"
    with pytest.raises(FileNotFoundError):
        disks.cache_mode(tmp_path / "none")
