"""Which QEMU this machine has. Found once per process; a missing one is an error that says what to install."""

import functools
import re
import shutil
import subprocess

from msgspec import Struct

from hotvirt.qemu.errors import QemuMissing

OLDEST = (7, 2)
"""What is tested: Debian 12. -device takes JSON since 6.2, -netdev JSON since 7.0."""


class QemuBinary(Struct, frozen=True):
    """`version` such as (7, 2, 22)."""

    path: str
    version: tuple[int, int, int]


def parse_version(text: str) -> tuple[int, int, int] | None:
    """From `QEMU emulator version 7.2.22 (Debian ...)`."""
    match = re.search(r"version (\d+)\.(\d+)(?:\.(\d+))?", text)
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else None


@functools.cache
def find(directory: str | None = None) -> QemuBinary:
    """qemu-system-x86_64 on the PATH (or in `directory`). QemuMissing says what to install."""
    path = shutil.which("qemu-system-x86_64", path=directory)
    if path is None:
        raise QemuMissing(
            "qemu-system-x86_64 is not installed; run: apt-get install --no-install-recommends qemu-system-x86"
        )
    text = _output([path, "-version"], package="qemu-system-x86")
    version = parse_version(text)
    if version is None:
        raise QemuMissing(f"{path} -version says {text[:80]!r}, which has no version; reinstall: qemu-system-x86")
    if version < OLDEST:
        old = ".".join(map(str, version))
        raise QemuMissing(f"{path} is version {old}; hotvirt needs 7.2 or newer (Debian 12, Ubuntu 24.04 have it)")
    return QemuBinary(path, version)


@functools.cache
def find_img(directory: str | None = None) -> str:
    """Path of qemu-img."""
    path = shutil.which("qemu-img", path=directory)
    if path is None:
        raise QemuMissing("qemu-img is not installed; run: apt-get install --no-install-recommends qemu-utils")
    return path


def _output(argv: list[str], *, package: str) -> str:
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise QemuMissing(f"{argv[0]} does not run ({error}); run: apt-get install --reinstall {package}") from error
