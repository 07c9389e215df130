"""A distribution's kernel, made quick to start: the ELF inside the bzImage, and modules in the order they load.

Pure functions over bytes and names.
"""

import struct
from collections.abc import Iterable, Mapping

from hotvirt.images import compression, elf


def boot_image(bzimage: bytes) -> bytes:
    """What QEMU should be given as `-kernel`: the unpacked ELF when it has a PVH entry, else the bzImage itself.

    A guest then has no decompressor to run, which under emulation saves more than a tenth of the whole boot.
    """
    try:
        image = compression.unpack(_payload(bzimage))
        return image if elf.has_pvh_entry(image) else bzimage
    except (compression.Unsupported, elf.NotElf):
        return bzimage  # slower, but every QEMU boots it


def _payload(bzimage: bytes) -> bytes:
    """The compressed kernel, found by the x86 boot protocol's header (2.08 or later)."""
    if len(bzimage) < 0x260 or bzimage[0x202:0x206] != b"HdrS":
        raise compression.Unsupported("not a bzImage")
    setup_sectors = bzimage[0x1F1] or 4
    offset, length = struct.unpack_from("<II", bzimage, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    return bzimage[start : start + length]


def module_name(path: str) -> str:
    """`kernel/drivers/char/hw_random/virtio-rng.ko.xz` -> `virtio_rng`."""
    return path.rsplit("/", 1)[-1].split(".ko", 1)[0].replace("-", "_")


def load_order(wanted: Iterable[str], *, depends: Mapping[str, list[str]]) -> list[str]:
    """The wanted modules and what they need, each after all it depends on. Names that `depends` lacks are built in."""
    order: list[str] = []
    visiting: set[str] = set()

    def visit(name: str) -> None:
        if name in order or name in visiting or name not in depends:
            return
        visiting.add(name)
        for dependency in depends[name]:
            visit(dependency)
        order.append(name)

    for name in wanted:
        visit(name.replace("-", "_"))
    return order


def modules_dep(order: Iterable[str], *, depends: Mapping[str, list[str]], paths: Mapping[str, str]) -> str:
    """A `modules.dep` that modprobe reads: `path: paths of everything it needs, nearest first`."""
    lines = []
    for name in order:
        needs = [other for other in load_order([name], depends=depends) if other != name]
        lines.append(f"{paths[name]}: {' '.join(paths[other] for other in reversed(needs))}".rstrip())
    return "\n".join(lines) + "\n"
