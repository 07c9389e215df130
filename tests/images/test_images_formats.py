"""The pure parts: archive writer, ELF and kernel readers, module order, package choice, partition table."""

import gzip
import lzma
import os
import struct
import subprocess
import uuid
import zlib
from itertools import pairwise
from pathlib import Path

import pytest

from hotvirt.images import compression, elf, gpt, kernel, packages, tiny
from hotvirt.images.cpio import Archive


def parse_newc(data: bytes) -> dict[str, tuple[int, bytes]]:
    """An independent reading of the format, as the kernel's documentation describes it."""
    found: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = data[at + 110 : at + 110 + name_size - 1].decode()
        start = -(-(at + 110 + name_size) // 4) * 4
        if name == "TRAILER!!!":
            return found
        found[name] = (mode, data[start : start + size])
        at = -(-(start + size) // 4) * 4


def test_an_archive_reads_back_with_parents_before_children() -> None:
    archive = Archive()
    archive.file("/etc/deep/file", b"content", mode=0o600)
    archive.symlink("bin/sh", "/bin/busybox")
    archive.char_device("dev/console", major=5, minor=1)
    names = parse_newc(archive.render())
    assert list(names) == ["bin", "bin/sh", "dev", "dev/console", "etc", "etc/deep", "etc/deep/file"]
    assert names["etc/deep/file"] == (0o100600, b"content")
    assert names["bin/sh"] == (0o120777, b"/bin/busybox")
    assert names["dev/console"][0] == 0o020600
    assert "etc/deep/file" in archive


def test_an_archive_does_not_depend_on_the_order_of_making() -> None:
    one, other = Archive(), Archive()
    one.file("a", b"1"), one.file("b", b"22")
    other.file("b", b"22"), other.file("a", b"1")
    assert one.render() == other.render()


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress], ids=["gzip", "xz"])
def test_compressed_data_comes_out_whole_and_trailing_bytes_are_ignored(pack: object) -> None:
    content = os.urandom(1000) * 50
    assert compression.unpack(pack(content) + b"\x00\x01\x02\x03") == content  # type: ignore[operator]


def test_zstd_comes_out_whole_and_damage_is_noticed() -> None:
    # One frame without a content size, as the kernel's build writes it: magic, header, one RLE block of 70,000 'a'.
    blocks = b"".join((last | 1 << 1 | 35_000 << 3).to_bytes(3, "little") + b"a" for last in (0, 1))
    frame = b"\x28\xb5\x2f\xfd" + bytes([0x00, 0x58]) + blocks
    assert compression.unpack(frame) == b"a" * 70_000
    with pytest.raises(compression.Unsupported):
        compression.unpack(frame[:-3])


def lz4_literals(data: bytes) -> bytes:
    """One LZ4 block that holds `data` as literals only."""
    extra, more = divmod(len(data) - 15, 255)
    return bytes([0xF0]) + b"\xff" * extra + bytes([more]) + data


def test_lz4_stops_at_the_size_that_the_kernel_build_appends() -> None:
    content = os.urandom(5000)
    block = lz4_literals(content)
    frame = b"\x02\x21\x4c\x18" + struct.pack("<I", len(block)) + block + struct.pack("<I", len(content))
    assert compression.unpack(frame) == content


@pytest.mark.parametrize(
    "data",
    [b"", b"nonsense", gzip.compress(b"x" * 5000)[:-20], lzma.compress(b"x" * 99)[:40]],
    ids=["empty", "nonsense", "gzip cut short", "xz cut short"],
)
def test_damaged_compression_says_so(data: bytes) -> None:
    with pytest.raises(compression.Unsupported):
        compression.unpack(data)


def test_a_kernel_that_cannot_be_unpacked_is_used_as_it_is() -> None:
    image = bytearray(0x300)
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", image, 0x248, 0, 64)
    assert kernel.boot_image(bytes(image)) == bytes(image)
    assert kernel.boot_image(b"short") == b"short"


def test_elf_agrees_with_the_loader_about_what_a_program_needs() -> None:
    program = Path("/bin/sh").resolve()
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    for name in elf.needed(program.read_bytes()):
        assert name in listed
    assert (elf.interpreter(program.read_bytes()) or "") in listed
    assert not elf.has_pvh_entry(program.read_bytes())


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"\x7fELF\x02\x01" + b"\xff" * 100])
def test_elf_refuses_what_is_not_elf(data: bytes) -> None:
    with pytest.raises(elf.NotElf):
        elf.needed(data)


DEPENDS = {"net": ["ring", "failover"], "failover": [], "ring": ["virtio"], "virtio": [], "blk": ["virtio", "ring"]}


def test_modules_load_after_what_they_need() -> None:
    assert kernel.load_order(["net", "blk", "built_in"], depends=DEPENDS) == [
        "virtio", "ring", "failover", "net", "blk",
    ]  # fmt: skip


def test_a_dependency_circle_does_not_hang_the_builder() -> None:
    assert set(kernel.load_order(["a"], depends={"a": ["b"], "b": ["a"]})) == {"a", "b"}


def test_modules_dep_lists_what_to_load_first_last() -> None:
    paths = {name: f"kernel/{name}.ko" for name in DEPENDS}
    table = kernel.modules_dep(["virtio", "ring", "blk"], depends=DEPENDS, paths=paths)
    assert table.splitlines() == [
        "kernel/virtio.ko:",
        "kernel/ring.ko: kernel/virtio.ko",
        "kernel/blk.ko: kernel/ring.ko kernel/virtio.ko",
    ]


def test_module_names_are_as_the_kernel_says_them() -> None:
    assert kernel.module_name("kernel/drivers/char/hw_random/virtio-rng.ko.xz") == "virtio_rng"


APT_DEBIAN = """\
linux-image-cloud-amd64
  Depends: linux-image-6.1.0-56-cloud-amd64
linux-image-6.1.0-56-cloud-amd64
  Depends: kmod
 |Depends: initramfs-tools
  Depends: <linux-initramfs-tool>
    initramfs-tools
busybox-static
qemu-guest-agent
  PreDepends: init-system-helpers
  Depends: libc6
  Depends: libglib2.0-0
init-system-helpers
  Depends: perl
libglib2.0-0
  Depends: libc6
  Depends: libpcre2-8-0
libc6
libpcre2-8-0
  Depends: libc6:amd64
"""
APT_UBUNTU = """\
linux-image-virtual
  Depends: linux-image-6.8.0-90-generic
linux-image-6.8.0-90-generic
  Depends: kmod
  Depends: linux-modules-6.8.0-90-generic
linux-modules-6.8.0-90-generic
busybox-static
qemu-guest-agent
  Depends: libglib2.0-0t64
libglib2.0-0t64
"""


def test_debian_packages_are_chosen_from_what_apt_says() -> None:
    graph = packages.parse_depends(APT_DEBIAN)
    assert graph["linux-image-6.1.0-56-cloud-amd64"] == ["kmod", "initramfs-tools"]
    assert tiny.select_packages(graph) == [
        "linux-image-6.1.0-56-cloud-amd64", "busybox-static", "qemu-guest-agent", "libc6", "libglib2.0-0",
        "libpcre2-8-0",
    ]  # fmt: skip


def test_ubuntu_keeps_its_modules_in_a_package_of_their_own() -> None:
    assert tiny.select_packages(packages.parse_depends(APT_UBUNTU)) == [
        "linux-image-6.8.0-90-generic", "linux-modules-6.8.0-90-generic", "busybox-static", "qemu-guest-agent",
        "libglib2.0-0t64",
    ]  # fmt: skip


@pytest.mark.parametrize("missing", ["busybox-static", "qemu-guest-agent", "linux-image-cloud-amd64"])
def test_nothing_is_chosen_when_a_part_is_missing(missing: str) -> None:
    graph = {name: needs for name, needs in packages.parse_depends(APT_DEBIAN).items() if name != missing}
    assert tiny.select_packages(graph) == []


def test_the_build_key_follows_versions_and_not_their_order() -> None:
    assert tiny.build_key({"a": "1", "b": "2"}) == tiny.build_key({"b": "2", "a": "1"})
    assert tiny.build_key({"a": "1"}) != tiny.build_key({"a": "2"})


def test_the_partition_table_is_a_gpt_with_good_checksums() -> None:
    size = gpt.disk_bytes(64 << 20)
    core = os.urandom(30_000)
    disk = bytearray(size)
    for piece in gpt.layout(
        size=size, boot_image=b"\xeb" + bytes(509) + b"\x55\xaa", core_image=core, disk_id=uuid.uuid4()
    ):
        disk[piece.offset : piece.offset + len(piece.data)] = piece.data
    assert disk[510:512] == b"\x55\xaa"
    assert disk[450] == 0xEE
    for at, other in ((512, size - 512), (size - 512, 512)):
        header = bytes(disk[at : at + 92])
        assert header[:8] == b"EFI PART"
        (checksum,) = struct.unpack_from("<I", header, 16)
        assert checksum == zlib.crc32(header[:16] + bytes(4) + header[20:])
        here, there = struct.unpack_from("<QQ", header, 24)
        assert (here * 512, there * 512) == (at, other)
        table_at, entries, entry_size, table_checksum = struct.unpack_from("<QIII", header, 72)
        table = disk[table_at * 512 : table_at * 512 + entries * entry_size]
        assert zlib.crc32(table) == table_checksum
        first, last = struct.unpack_from("<QQ", table, 128 + 32)
        assert first == gpt.ROOT_START
        assert (last - first + 1) * 512 >= 64 << 20
        parts = sorted(struct.unpack_from("<QQ", table, number * 128 + 32) for number in range(3))
        assert [start for start, _ in parts] == [gpt.BOOT_START, gpt.EFI_START, gpt.ROOT_START]  # the root can grow
        assert all(end < start for (_, end), (start, _) in pairwise(parts))
        assert table[2 * 128 : 2 * 128 + 16] == uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b").bytes_le
    # GRUB: the first sector names where the core is, the core's first sector where the rest of it is.
    (core_at,) = struct.unpack_from("<Q", disk, 0x5C)
    rest_at, sectors = struct.unpack_from("<QH", disk, core_at * 512 + 500)
    assert rest_at == core_at + 1
    assert sectors == -(-len(core) // 512) - 1


def test_a_boot_loader_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        gpt.layout(size=1 << 30, boot_image=bytes(512), core_image=bytes(2 << 20), disk_id=uuid.uuid4())
