"""Lays out a disk that starts by BIOS and by UEFI: a GPT, GRUB's two parts in their places, an EFI system partition and
the root's, which is the last so that it can grow. Pure: bytes out.

GRUB's own installer needs a mounted filesystem and a block device, so root. What it would write is little: the first
sector jumps to where the core image lies, whose first sector says where the rest of it lies.
"""

import binascii
import struct
import uuid
from dataclasses import dataclass

SECTOR = 512
_MIB = 1 << 20
BOOT_START = 2048
BOOT_SECTORS = 2048
EFI_START = BOOT_START + BOOT_SECTORS
EFI_SECTORS = 32 * _MIB // SECTOR
ROOT_START = EFI_START + EFI_SECTORS
_ENTRIES, _ENTRY_SIZE = 128, 128
_TABLE_SECTORS = _ENTRIES * _ENTRY_SIZE // SECTOR
_BIOS_BOOT = uuid.UUID("21686148-6449-6e6f-744e-656564454649")
_EFI_SYSTEM = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
_LINUX_ROOT_X86_64 = uuid.UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709")
_MBR_CODE_BYTES = 440
_CORE_LOCATION = 0x5C
_FIRST_BLOCKLIST = SECTOR - 12


@dataclass(frozen=True)
class Piece:
    """Bytes and where on the disk they go."""

    offset: int
    data: bytes


def disk_bytes(root_bytes: int) -> int:
    """The size of a disk whose root partition has at least this much, in whole MiB."""
    return -(-(ROOT_START * SECTOR + root_bytes + (1 + _TABLE_SECTORS) * SECTOR) // _MIB) * _MIB


def layout(*, size: int, boot_image: bytes, core_image: bytes, disk_id: uuid.UUID) -> list[Piece]:
    """Everything on a disk of `size` bytes but the file systems, which go to EFI_START and ROOT_START."""
    if len(core_image) > BOOT_SECTORS * SECTOR or len(boot_image) != SECTOR:
        raise ValueError("the boot loader does not fit into its partition")
    total = size // SECTOR
    root_end = total - _TABLE_SECTORS - 2
    table = b"".join(
        (
            _entry(_BIOS_BOOT, number=1, first=BOOT_START, last=EFI_START - 1, name="bios-boot", disk_id=disk_id),
            _entry(_LINUX_ROOT_X86_64, number=2, first=ROOT_START, last=root_end, name="root", disk_id=disk_id),
            _entry(_EFI_SYSTEM, number=3, first=EFI_START, last=ROOT_START - 1, name="efi", disk_id=disk_id),
        )
    ).ljust(_ENTRIES * _ENTRY_SIZE, b"\0")
    return [
        Piece(0, _first_sector(boot_image, total=total)),
        Piece(SECTOR, _header(table, here=1, other=total - 1, table_at=2, total=total, disk_id=disk_id)),
        Piece(2 * SECTOR, table),
        Piece(BOOT_START * SECTOR, _core(core_image)),
        Piece((total - 1 - _TABLE_SECTORS) * SECTOR, table),
        Piece(
            (total - 1) * SECTOR,
            _header(table, here=total - 1, other=1, table_at=total - 1 - _TABLE_SECTORS, total=total, disk_id=disk_id),
        ),
    ]


def _first_sector(boot_image: bytes, *, total: int) -> bytes:
    sector = bytearray(boot_image[:_MBR_CODE_BYTES].ljust(SECTOR, b"\0"))
    struct.pack_into("<Q", sector, _CORE_LOCATION, BOOT_START)
    # The protective entry that keeps tools which know only MBR from taking the disk for empty.
    struct.pack_into("<BBBBBBBBII", sector, 446, 0, 0, 2, 0, 0xEE, 0xFF, 0xFF, 0xFF, 1, min(total - 1, 0xFFFFFFFF))
    sector[510:512] = b"\x55\xaa"
    return bytes(sector)


def _core(core_image: bytes) -> bytes:
    core = bytearray(core_image)
    struct.pack_into("<QH", core, _FIRST_BLOCKLIST, BOOT_START + 1, -(-len(core) // SECTOR) - 1)
    return bytes(core)


def _entry(kind: uuid.UUID, *, number: int, first: int, last: int, name: str, disk_id: uuid.UUID) -> bytes:
    identity = uuid.uuid5(disk_id, f"partition {number}")
    packed = struct.pack("<16s16sQQQ", kind.bytes_le, identity.bytes_le, first, last, 0)
    return packed + name.encode("utf-16-le").ljust(72, b"\0")


def _header(table: bytes, *, here: int, other: int, table_at: int, total: int, disk_id: uuid.UUID) -> bytes:
    first_usable, last_usable = 2 + _TABLE_SECTORS, total - _TABLE_SECTORS - 2

    def pack(checksum: int) -> bytes:
        return struct.pack(
            "<8sIIIIQQQQ16sQIII", b"EFI PART", 0x00010000, 92, checksum, 0, here, other, first_usable, last_usable,
            disk_id.bytes_le, table_at, _ENTRIES, _ENTRY_SIZE, binascii.crc32(table),
        )  # fmt: skip

    return pack(binascii.crc32(pack(0))).ljust(SECTOR, b"\0")
