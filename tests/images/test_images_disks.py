"""Making disk files with the real qemu-img, and cloud-init seeds."""

import asyncio
import io
import os
import subprocess
import time
from pathlib import Path

import pycdlib
import pytest

from hotvirt.images import disks, inspect, seed
from hotvirt.images.errors import ImageError, ToolFailed, ToolMissing
from hotvirt.images.tools import run

pytestmark = pytest.mark.server  # real programs run

MIB = 1 << 20


def left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


@pytest.mark.parametrize("kind", disks.FORMATS)
async def test_a_blank_disk_has_its_size_and_takes_no_room(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "disk"
    await disks.create(path, 10 << 30, kind)
    assert await inspect.inspect(path, kind) == inspect.DiskInfo(format=kind, virtual_size=10 << 30)
    assert path.stat().st_blocks * 512 < MIB
    assert path.stat().st_mode & 0o777 == 0o600
    assert left_behind(tmp_path) == []


async def test_an_existing_disk_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"somebody's data")
    with pytest.raises(ImageError, match="exists already"):
        await disks.create(path, MIB, "raw")
    with pytest.raises(ImageError, match="exists already"):
        await disks.overlay(path, path, "raw")
    assert path.read_bytes() == b"somebody's data"


async def test_of_two_makers_of_one_disk_one_wins(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    results = await asyncio.gather(
        *(disks.create(path, size * MIB, "qcow2") for size in (1, 2)), return_exceptions=True
    )
    assert [type(result) for result in results].count(type(None)) == 1
    assert left_behind(tmp_path) == []


async def test_an_overlay_begins_as_its_backing_and_may_be_larger(tmp_path: Path) -> None:
    base, top = tmp_path / "base.raw", tmp_path / "top.qcow2"
    base.write_bytes(b"hello".ljust(MIB, b"\0"))
    await disks.overlay(top, base, "raw", 4 * MIB)
    flat = tmp_path / "flat.raw"
    await disks.convert(top, flat, source_format="qcow2", target_format="raw")
    assert flat.stat().st_size == 4 * MIB
    assert flat.read_bytes()[:5] == b"hello"


def create_with_backing(path: Path, backing: str) -> None:
    argv = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", backing, path, "1M"]
    subprocess.run(argv, check=True)


async def test_a_raw_backing_is_not_probed_even_if_a_guest_made_it_look_like_qcow2(tmp_path: Path) -> None:
    base, top = tmp_path / "base.raw", tmp_path / "top.qcow2"
    create_with_backing(base, "/etc/passwd")
    written = base.stat().st_size // 512 * 512
    os.truncate(base, written)
    await disks.overlay(top, base, "raw")
    assert (await asyncio.to_thread(_virtual_size, top)) == written


def _virtual_size(path: Path) -> int:
    return int.from_bytes(path.read_bytes()[24:32], "big")


@pytest.mark.parametrize("kind", disks.FORMATS)
async def test_a_disk_grows_and_never_shrinks(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "disk"
    await disks.create(path, 2 * MIB, kind)
    await disks.grow(path, 8 * MIB, kind)
    with pytest.raises(ImageError):
        await disks.grow(path, MIB, kind)
    assert (await inspect.inspect(path)).virtual_size == 8 * MIB


@pytest.mark.parametrize(("size", "kind"), [(0, "raw"), (-512, "raw"), (1000, "raw"), (512, "vmdk"), (512, "")])
async def test_sizes_and_formats_that_cannot_be(tmp_path: Path, size: int, kind: str) -> None:
    with pytest.raises(ImageError):
        await disks.create(tmp_path / "disk", size, kind)
    assert list(tmp_path.iterdir()) == []


async def test_conversion_failing_leaves_nothing(tmp_path: Path) -> None:
    source = tmp_path / "broken.qcow2"
    source.write_bytes(b"not a disk")
    with pytest.raises(ToolFailed, match="qemu-img"):
        await disks.convert(source, tmp_path / "out", source_format="qcow2", target_format="raw")
    assert [path.name for path in tmp_path.iterdir()] == ["broken.qcow2"]


async def test_a_program_that_hangs_is_stopped_with_its_children() -> None:
    started = time.monotonic()
    with pytest.raises(ToolFailed, match=r"did not finish within 0\.2 s"):
        await run(["sh", "-c", "sleep 60 & wait"], deadline=0.2)
    assert time.monotonic() - started < 5


async def test_a_cancelled_run_takes_its_program_along(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    task = asyncio.create_task(run(["sh", "-c", f"echo $$ >{fifo}; exec sleep 60"], deadline=90))
    pid = int(await asyncio.to_thread(fifo.read_text))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("hotvirt.images.tools.shutil.which", lambda *_args, **_kwargs: None)
    with pytest.raises(ToolMissing, match="apt-get install qemu-utils"):
        await disks.create(tmp_path / "disk", MIB, "qcow2")


async def test_memory_limits_reach_the_program() -> None:
    with pytest.raises(ToolFailed):
        await run(["python3", "-c", "bytearray(1 << 30)"], deadline=20, memory=256 * MIB)


def read_iso(content: bytes) -> dict[str, bytes]:
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(content))
    found = {}
    for child in iso.list_children(joliet_path="/"):
        if child.is_file():
            name = child.file_identifier().decode("utf-16-be")
            out = io.BytesIO()
            iso.get_file_from_iso_fp(out, joliet_path=f"/{name}")
            found[name] = out.getvalue()
    iso.close()
    return found


def test_a_seed_holds_what_cloud_init_looks_for() -> None:
    content = seed.render(
        instance_id="i-1", hostname='quo"te', user_data="#cloud-config\nä: 1\n", network_config="version: 2\n"
    )
    assert len(content) >= 256 << 10
    assert content[0x8000 + 40 : 0x8000 + 46] == b"cidata"
    assert read_iso(content) == {
        "meta-data": b'instance-id: "i-1"\nlocal-hostname: "quo\\"te"\n',
        "user-data": "#cloud-config\nä: 1\n".encode(),
        "network-config": b"version: 2\n",
    }


def test_a_seed_is_the_same_whenever_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def at(moment: float) -> bytes:
        monkeypatch.setattr("time.time", lambda: moment)
        return seed.render(instance_id="i", hostname="h")

    assert at(1e9) == at(2e9)
    assert sorted(read_iso(at(1e9))) == ["meta-data", "user-data"]


def test_a_seed_is_written_whole_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "seed.iso"
    seed.write(path, b"one")
    seed.write(path, b"two")
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert left_behind(tmp_path) == []


def test_an_endless_user_data_is_refused() -> None:
    with pytest.raises(ImageError, match="user-data has"):
        seed.render(instance_id="i", hostname="h", user_data=b"x" * (seed.LIMIT + 1))
