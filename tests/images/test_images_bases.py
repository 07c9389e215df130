"""Overlays on shared bases: all or nothing, kept while needed, and never on anything that is not ours."""

import asyncio
import json
import os
import shutil
import struct
import subprocess
import sys

import pytest

from hotvirt.images import bases
from hotvirt.images.errors import CorruptImage, UnsafeImage


def qcow2(path, below, *, size=1 << 20):
    """A header, as far as it is read here."""
    name = str(below).encode()
    head = b"QFI\xfb" + struct.pack(">IQIIQ", 3, 512, len(name), 16, size)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head.ljust(512, b"\0") + name)
    return path


@pytest.fixture
def volumes(tmp_path):
    return tmp_path


def base(volumes, name, below=None):
    path = volumes / bases.FOLDER / name / ("disk.qcow2" if below else "disk.raw")
    if below:
        return qcow2(path, below)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    return path


def test_a_chain_is_read_to_its_end(volumes):
    lower = base(volumes, "a")
    upper = base(volumes, "b", lower)
    disk = qcow2(volumes / "pvc-1" / "disk.qcow2", upper)
    assert bases.chain(disk, volumes) == [bases.Base(upper, "qcow2"), bases.Base(lower, "raw")]
    assert bases.backing(lower) is None


@pytest.mark.parametrize("below", ["/etc/passwd", "../x", "VOLUMES/pvc-2/disk.img", "json:{}"])
def test_a_header_that_names_anything_else_is_refused(volumes, below):
    disk = qcow2(volumes / "pvc-1" / "disk.qcow2", below.replace("VOLUMES", str(volumes)))
    with pytest.raises(UnsafeImage, match="which is no base of this machine's disks"):
        bases.chain(disk, volumes)


def test_a_base_that_is_gone_is_said(volumes):
    disk = qcow2(volumes / "pvc-1" / "disk.qcow2", volumes / bases.FOLDER / "a" / "disk.raw")
    with pytest.raises(CorruptImage, match="restore it from a backup"):
        bases.chain(disk, volumes)


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="QEMU is not installed")
async def test_an_overlay_of_ours_whose_header_names_a_data_file_too_is_refused(volumes):
    """By a guest that has its disk's directory as a file system."""
    lower = base(volumes, "a")
    disk, secret = volumes / "pvc-1" / "disk.qcow2", volumes / "secret"
    disk.parent.mkdir()
    options = ["-f", "qcow2", "-b", str(lower), "-F", "raw", "-o", f"data_file={secret}", str(disk), "1M"]
    await asyncio.to_thread(subprocess.run, ["qemu-img", "create", "-q", *options], check=True)
    assert bases.backing(disk) == str(lower)
    with pytest.raises(UnsafeImage):
        await bases.looked_into(disk, volumes)


def test_a_chain_in_a_circle_ends(volumes):
    first = volumes / bases.FOLDER / "a" / "disk.qcow2"
    second = base(volumes, "b", first)
    qcow2(first, second)
    with pytest.raises(UnsafeImage, match="based on itself"):
        bases.chain(first, volumes)


def test_a_base_goes_with_the_last_that_needs_it_and_those_below_it(volumes):
    lower = base(volumes, "a")
    upper = base(volumes, "b", lower)
    disk = qcow2(volumes / "pvc-1" / "disk.qcow2", upper)
    on_its_way = qcow2(volumes / "pvc-2" / "work" / "disk.qcow2.new", lower)
    assert bases.collect(volumes) == []
    disk.unlink()
    assert bases.collect(volumes) == [upper]
    on_its_way.unlink()
    assert bases.collect(volumes) == [lower]
    assert list((volumes / bases.FOLDER).iterdir()) == []


@pytest.mark.parametrize("name", ["disk.img", "disk.qcow2"])
async def test_copies_that_begin_at_once_share_one_base(volumes, name):
    directory = volumes / "pvc-1"
    directory.mkdir()
    (directory / name).write_bytes(b"\x01" * 1024)
    looks = []

    def is_free():
        looks.append(1)
        return True

    async def copy():
        return await bases.freeze(directory, volumes, size=1024, is_free=is_free)

    first, *others = await asyncio.gather(*(copy() for _ in range(4)))
    assert others == [first] * 3
    assert first.path.read_bytes() == b"\x01" * 1024
    assert bases.chain(directory / "disk.qcow2", volumes) == [first]
    assert [each.parent for each in bases.folder(volumes).glob("*/*")] == [first.path.parent]
    assert len(list(bases.folder(volumes).iterdir())) == 1
    assert sorted(each.name for each in directory.iterdir()) == [bases.PRISTINE, "disk.qcow2"]
    assert len(looks) >= 4


async def test_a_disk_that_gets_busy_meanwhile_is_left_as_it_was(volumes):
    directory = volumes / "pvc-1"
    directory.mkdir()
    (directory / "disk.img").write_bytes(bytes(1024))
    with pytest.raises(bases.Busy):
        await bases.freeze(directory, volumes, size=1024, is_free=lambda: False)
    assert [each.name for each in directory.iterdir()] == ["disk.img"]
    assert list(bases.folder(volumes).iterdir()) == []


@pytest.mark.parametrize("was_moved", [False, True])
def test_a_freeze_that_was_interrupted_is_undone_or_finished(volumes, was_moved):
    directory, path = volumes / "pvc-1", volumes / bases.FOLDER / "a" / "disk.raw"
    new = qcow2(directory / ".frozen.qcow2", path)
    (directory / "disk.img").write_bytes(b"data")
    path.parent.mkdir(parents=True)
    (directory / bases.NOTE).write_text(json.dumps({"base": str(path), "disk": "disk.img"}))
    if was_moved:
        (directory / "disk.img").rename(path)
    bases.mend(directory)
    bases.mend(directory)
    assert not new.exists()
    assert not (directory / bases.NOTE).exists()
    if was_moved:
        assert path.read_bytes() == b"data"
        assert bases.backing(directory / "disk.qcow2") == str(path)
        assert bases.is_pristine(directory) == bases.Base(path, "raw")
    else:
        assert (directory / "disk.img").read_bytes() == b"data"
        assert not path.parent.exists()


def test_a_disk_that_was_written_to_is_no_longer_what_its_base_is(volumes):
    path = base(volumes, "a")
    directory = volumes / "pvc-1"
    disk = qcow2(directory / "disk.qcow2", path)
    bases._remember(directory, path)
    assert bases.is_pristine(directory) == bases.Base(path, "raw")
    with disk.open("ab") as opened:
        opened.write(b"x")
    assert bases.is_pristine(directory) is None


@pytest.mark.parametrize("base", ["OUTSIDE/disk.raw", "VOLUMES/.bases/../disk.raw", "VOLUMES/pvc-2/disk.raw", 7, None])
def test_a_note_that_a_guest_wrote_has_nothing_of_the_host_changed(volumes, base, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    text = base.replace("OUTSIDE", str(outside)).replace("VOLUMES", str(volumes)) if isinstance(base, str) else base
    directory, there = volumes / "pvc-1", [outside / "disk.raw", volumes / "disk.raw", volumes / "pvc-2" / "disk.raw"]
    for each in (directory, there[2].parent, bases.folder(volumes)):
        each.mkdir()
    for each in there:
        each.write_bytes(b"secret")
        each.chmod(0o600)
    (directory / "disk.qcow2").write_bytes(b"mine")
    (directory / bases.NOTE).write_text(json.dumps({"base": text}))
    bases.mend(directory)
    assert bases.collect(volumes) == []
    assert [each.stat().st_mode & 0o777 for each in there] == [0o600] * 3
    assert (directory / "disk.qcow2").read_bytes() == b"mine"


def test_nobody_waits_for_a_pipe_that_a_guest_made_in_place_of_a_file(volumes):
    directory = volumes / "pvc-1"
    directory.mkdir()
    os.mkfifo(directory / bases.NOTE)
    os.mkfifo(directory / "disk.img")
    asked = "import sys, pathlib\nfrom hotvirt.images import bases\nfrom hotvirt.qemu import locks\n"
    asked += "here = pathlib.Path(sys.argv[1])\nbases.mend(here)\nbases.collect(here.parent)\n"
    asked += "locks.taken(here / 'disk.img', read_only=False, shareable=False)\n"
    subprocess.run([sys.executable, "-c", asked, str(directory)], check=True, timeout=20)
