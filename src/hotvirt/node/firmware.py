"""UEFI for a guest: the code that the machine's package `ovmf` brings, and variables of the guest's own.

The code is opened read-only and shared by all. Variables start as a copy of the package's: in the pod's directory, gone
with the guest, or with `efi.persistent` among what the machine keeps (`machinestate`). Secure boot starts with
Microsoft's keys enrolled, and keeps variables of its own.
"""

import os
import shutil
from pathlib import Path

from msgspec import Struct

from hotvirt.kube.client import Document
from hotvirt.qemu.launch import Descriptors
from hotvirt.qemu.machine import Uefi

DIRECTORY = Path("/usr/share/OVMF")
PACKAGE = "ovmf"


class FirmwareMissing(Exception):
    """The text names what to install."""


class Wish(Struct, frozen=True):
    """What an instance's `firmware.bootloader.efi` asks for."""

    secure_boot: bool
    persistent: bool

    @property
    def code(self) -> str:
        return "OVMF_CODE_4M.secboot.fd" if self.secure_boot else "OVMF_CODE_4M.fd"

    @property
    def variables(self) -> str:
        return "OVMF_VARS_4M.ms.fd" if self.secure_boot else "OVMF_VARS_4M.fd"


def wish(spec: Document) -> Wish | None:
    """None: BIOS. Pure."""
    efi = (((spec.get("domain") or {}).get("firmware") or {}).get("bootloader") or {}).get("efi")
    if efi is None:
        return None
    return Wish(secure_boot=efi.get("secureBoot") is not False, persistent=bool(efi.get("persistent")))


def prepare(wanted: Wish, *, keep: Path, descriptors: Descriptors, directory: Path = DIRECTORY) -> Uefi:
    """Opened for QEMU. `keep`: where the variables are, and stay when they are there already."""
    code, template = directory / wanted.code, directory / wanted.variables
    for file in (code, template):
        if not file.exists():
            raise FirmwareMissing(
                f"firmware.bootloader.efi: {file} is missing on this machine; run: apt-get install {PACKAGE} "
                "(or leave out efi to boot by BIOS)"
            )
    variables = keep / ("uefi-secure.vars" if wanted.secure_boot else "uefi.vars")
    if not variables.exists():
        _copy(template, variables)
    return Uefi(
        descriptors.open(code, read_only=True), descriptors.open(variables, read_only=False),
        secure_boot=wanted.secure_boot,
    )  # fmt: skip


def _copy(source: Path, target: Path) -> None:
    """Whole or not at all: half a variable store would keep a machine from ever booting."""
    temporary = target.with_name(f".{target.name}")
    shutil.copyfile(source, temporary)
    os.chmod(temporary, 0o600)
    temporary.rename(target)
