"""Files of the host as disks: only behind KubeVirt's gate, and only where a disk image can be meant.

Who may make machines could else read or overwrite any file of the host. So the file is a regular one, no part of its
path is a link, and it is neither the system's nor the home's own. It is raw whatever its content says, as its guest
writes that.
"""

import os
from pathlib import Path

from hotvirt.api import gates, quantity
from hotvirt.kube.client import Document

SYSTEM = tuple(map(Path, (
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/root/.ssh", "/run", "/sbin",
    "/sys", "/usr", "/var/lib/dpkg", "/var/log", "/var/run", "/var/spool",
)))  # fmt: skip
SECTOR = 512


class HostDiskError(Exception):
    """What is wrong with the path, and the mend."""


def prepare(source: Document, kubevirt: Document | None, *, home: Path) -> Path:
    """The file, made first if that is asked for. `kubevirt` is the KubeVirt object, `home` the home's own."""
    if gates.HOST_DISK not in gates.listed(kubevirt):
        raise HostDiskError(gates.not_on(gates.HOST_DISK))
    path = Path(str(source.get("path")))
    allowed(path, home=home)
    if source.get("type") == "DiskOrCreate" and not path.exists():
        _create(path, quantity.parse_bytes(source.get("capacity") or "0"))
    if path.is_symlink() or not path.is_file():
        what = "does not exist" if not path.exists() else "is not a regular file"
        raise HostDiskError(f"{path} {what}: make a disk image there, or use type DiskOrCreate with a capacity")
    if path.stat().st_size % SECTOR or path.stat().st_size == 0:
        raise HostDiskError(f"{path} is no disk image: its size is not a multiple of {SECTOR} bytes")
    if path.stat().st_nlink > 1:
        raise HostDiskError(f"{path} has other names too, so it may be anything: copy it to a file of its own")
    return path


def allowed(path: Path, *, home: Path) -> None:
    if not path.is_absolute() or ".." in path.parts:
        raise HostDiskError(f"{path} is not an absolute path without '..': give the whole path")
    real = path.resolve()
    if real != path:
        raise HostDiskError(f"{path} leads over a link to {real}: name that")
    if any(path.is_relative_to(each) for each in (*SYSTEM, home.resolve())):
        raise HostDiskError(f"{path} is the system's or hotvirt's own: use another directory, such as /srv/disks")


def _create(path: Path, size: int) -> None:
    if size < 1 << 20:
        raise HostDiskError(f"{path} does not exist, and no capacity says how large to make it: set capacity")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HostDiskError(f"{path} cannot be made: {error.strerror}: make its directory first") from error
    try:
        os.ftruncate(descriptor, -(-size // SECTOR) * SECTOR)
    finally:
        os.close(descriptor)
