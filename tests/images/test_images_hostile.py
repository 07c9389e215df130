"""Images made to harm: each is refused with one sentence, before QEMU or qemu-img has seen it."""

import os
import struct
import subprocess
from pathlib import Path

import pytest

from hotvirt.images import catalog, inspect, probe
from hotvirt.images.errors import CorruptImage, ImageError, ImageNotFound, UnsafeImage

pytestmark = pytest.mark.server  # real programs run

SECRET = "/etc/passwd"


def qemu_img(*argv: str | Path) -> None:
    subprocess.run(["qemu-img", *map(str, argv)], check=True, capture_output=True)


@pytest.fixture
def qcow2(tmp_path: Path) -> Path:
    path = tmp_path / "good.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", path, "64M")
    return path


def look(path: Path) -> inspect.DiskInfo:
    """What `inspect` does, without the cost of a process for each of these cases."""
    with path.open("rb", buffering=0) as file:
        return inspect.judge(probe.examine(file), path=path, size=path.stat().st_size)


def patched(path: Path, offset: int, data: bytes) -> Path:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)
    return path


async def test_a_good_qcow2_is_let_through(qcow2: Path) -> None:
    assert await inspect.inspect(qcow2) == inspect.DiskInfo(format="qcow2", virtual_size=64 << 20)


async def test_a_backing_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "backed.qcow2"
    qemu_img("create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", SECRET, path, "1M")
    with pytest.raises(UnsafeImage, match="backing file") as caught:
        await inspect.inspect(path)
    assert "qemu-img convert" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_data_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "external.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={tmp_path / 'data'}", path, "1M")
    with pytest.raises(UnsafeImage, match="another file"):
        look(path)


def test_a_qcow2_feature_nobody_knows_is_refused(qcow2: Path) -> None:
    with pytest.raises(UnsafeImage, match="features"):
        look(patched(qcow2, 0x48, struct.pack(">Q", 1 << 40)))


def test_encryption_is_refused(qcow2: Path) -> None:
    with pytest.raises(UnsafeImage, match="encrypted"):
        look(patched(qcow2, 32, struct.pack(">I", 1)))


@pytest.mark.parametrize("size", [10, 100, 511, 600])
def test_a_header_cut_short_is_refused(qcow2: Path, size: int) -> None:
    os.truncate(qcow2, size)
    with pytest.raises(CorruptImage, match="again"):
        look(qcow2)


def test_a_disk_of_an_exabyte_is_refused(qcow2: Path) -> None:
    with pytest.raises(UnsafeImage, match="TiB"):
        look(patched(qcow2, 24, struct.pack(">Q", 1 << 60)))


def test_a_disk_of_nothing_is_refused(qcow2: Path) -> None:
    with pytest.raises(CorruptImage, match="no size"):
        look(patched(qcow2, 24, bytes(8)))


@pytest.mark.parametrize("bits", [0, 8, 22, 63])
def test_absurd_clusters_are_refused(qcow2: Path, bits: int) -> None:
    with pytest.raises(CorruptImage, match="clusters"):
        look(patched(qcow2, 20, struct.pack(">I", bits)))


def test_qed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.qed"
    qemu_img("create", "-q", "-f", "qed", path, "1M")
    with pytest.raises(UnsafeImage, match="QED"):
        look(path)


@pytest.mark.parametrize(
    "text",
    [
        f'# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\nRW 2048 FLAT "{SECRET}" 0\n',
        f'version=1\ncreateType="monolithicFlat"\nRW 2048 FLAT "{SECRET}" 0\n',
        f'# Disk DescriptorFile\ncreateType="vmfs"\nRW 2048 VMFS "{SECRET}"\n',
    ],
)
def test_a_vmdk_that_is_only_a_descriptor_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "disk.vmdk"
    path.write_text(text.ljust(4096, "\n"))
    with pytest.raises(UnsafeImage, match="descriptor"):
        look(path)


def test_a_sparse_vmdk_with_a_foreign_extent_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "disk.vmdk"
    qemu_img("create", "-q", "-f", "vmdk", path, "4M")
    assert look(path).format == "vmdk"
    content = path.read_bytes()
    at = content.index(b"RW ")
    patched(path, at, f'RW 8192 SPARSE "{SECRET}"\n'.encode())
    with pytest.raises(UnsafeImage, match="descriptor"):
        look(path)


async def test_a_raw_disk_that_looks_like_qcow2_is_refused_as_raw(qcow2: Path) -> None:
    with pytest.raises(CorruptImage, match="should be raw, and its content is qcow2"):
        await inspect.inspect(qcow2, "raw")


def test_two_formats_in_one_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "both.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", path, "64M")
    with path.open("r+b") as file:  # an ISO's volume descriptor where qcow2 has room
        file.truncate(1 << 20)
        file.seek(0x8000)
        file.write(b"\x01CD001\x01")
    with pytest.raises(ImageError):
        look(path)


def entry(kind: int, *, start: bytes = b"\0\2\0", boot: int = 0, first: int = 1, count: int = 100) -> bytes:
    """Of a partition table in the first sector."""
    return struct.pack("<B3sB3sII", boot, start, kind, b"\xff\xff\xff", first, count)


TABLES = {
    "a GPT of an old tool": entry(0xEE, start=b"\0\1\0"),
    "a GPT that begins elsewhere": entry(0xEE, first=0),
    "a GPT and an MBR": entry(0xEE) + entry(0x83, first=2048) + entry(0xEF, first=4096),
    "a GPT that is not the first": entry(0x83, first=2048) + entry(0xEE),
    "a signature alone": b"",
    "entries of no kind": entry(0) + entry(0, first=7),
    "a boot loader without a table": bytes(range(64)),
    "a GPT": entry(0xEE),
    "an MBR": entry(0x83, boot=0x80, first=2048),
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_a_raw_disk_may_have_any_partition_table(tmp_path: Path, table: bytes) -> None:
    path = tmp_path / "disk.raw"
    path.touch()
    os.truncate(path, 8 << 20)
    patched(patched(path, 446, table), 510, b"\x55\xaa")
    assert look(path) == inspect.DiskInfo(format="raw", virtual_size=8 << 20)


@pytest.mark.parametrize("table", [TABLES["a GPT"], TABLES["a GPT and an MBR"], b""], ids=["GPT", "both", "none"])
@pytest.mark.parametrize("kind", ["qcow2", "vmdk", "vdi", "vhdx", "vpc", "qed"])
def test_a_partition_table_makes_no_other_format_raw(tmp_path: Path, kind: str, table: bytes) -> None:
    path = tmp_path / f"both.{kind}"
    qemu_img("create", "-q", "-f", kind, path, "8M")
    with pytest.raises(UnsafeImage):
        look(patched(patched(path, 446, table), 510, b"\x55\xaa"))


@pytest.mark.parametrize("size", [512, 600, 4096])
def test_a_partition_table_hides_no_header_that_is_cut_short(tmp_path: Path, size: int) -> None:
    for kind in ("qcow2", "vmdk", "vhdx", "qed"):
        path = tmp_path / f"short.{kind}"
        qemu_img("create", "-q", "-f", kind, path, "8M")
        os.truncate(patched(patched(path, 446, TABLES["a GPT"]), 510, b"\x55\xaa"), size)
        with pytest.raises(ImageError):
            look(path)


def test_a_partition_table_hides_no_backing_file(tmp_path: Path) -> None:
    path = tmp_path / "backed.qcow2"
    qemu_img("create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", SECRET, path, "1M")
    patched(patched(path, 446, TABLES["a GPT"]), 510, b"\x55\xaa")
    with pytest.raises(UnsafeImage, match=r"backing file|can be read as"):
        look(path)


def test_raw_has_the_size_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    path.touch()
    os.truncate(path, 5 << 30)
    assert look(path) == inspect.DiskInfo(format="raw", virtual_size=5 << 30)


async def test_what_is_not_a_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(CorruptImage, match="regular file"):
            await inspect.inspect(path)
    with pytest.raises(ImageNotFound):
        await inspect.inspect(tmp_path / "nothing")
    (tmp_path / "empty").touch()
    with pytest.raises(CorruptImage, match="empty"):
        await inspect.inspect(tmp_path / "empty")


async def test_a_changed_file_is_looked_at_again(qcow2: Path) -> None:
    await inspect.inspect(qcow2)
    with pytest.raises(UnsafeImage):
        await inspect.inspect(patched(qcow2, 8, struct.pack(">QI", 1024, len(SECRET))))


async def test_hostile_files_are_refused_by_name_too(tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.mkdir()
    qemu_img("create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", SECRET, local / "evil.qcow2", "1M")
    with pytest.raises(UnsafeImage):
        await catalog.ensure("local/evil", tmp_path)
    with pytest.raises(UnsafeImage):
        await catalog.import_local(local / "evil.qcow2", "copy", tmp_path)
    assert sorted(path.name for path in local.iterdir()) == ["evil.qcow2"]


@pytest.mark.parametrize("name", ["local/../../etc/passwd", "local/", "local/.hidden", "local/a/b", "local/UPPER"])
async def test_names_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "local").mkdir()
    with pytest.raises(ImageNotFound):
        await catalog.ensure(name, tmp_path)
    with pytest.raises(ImageError):
        await catalog.import_local(Path(SECRET), name, tmp_path)
