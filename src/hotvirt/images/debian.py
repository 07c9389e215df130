"""Builds the full guest: a Debian 12 disk with systemd, cloud-init, the guest agent and sshd.

The disk starts by itself, by BIOS and by UEFI, with secure boot too: GRUB in its own partition and Debian's signed
loaders in the EFI system partition read one grub.cfg. Its kernel is Debian's for any PC, as the one for clouds has no
SATA, which KubeVirt makes of a disk that names no bus; of its drivers, those that no virtual machine has are left out.
Kernel and initramfs are also kept beside the disk for a quicker start. Needs mmdebstrap, and neither root nor a loop
device: as an ordinary user it is built in a user namespace. A few minutes.

What is in the guest beyond packages is in `debianroot/`, as its tree shows; `finish-debian` does the rest inside.
"""

import asyncio
import hashlib
import io
import os
import platform
import shutil
import tarfile
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from hotvirt.images import disks, gpt, kernel, publish, tree
from hotvirt.images.errors import ImageError, ToolMissing
from hotvirt.images.tools import Progress, no_progress, require, run

FAMILY = "debian-12"
BUILDER = 2
SUITE = "bookworm"
ROOT_BYTES = 4 << 30
DISK_BYTES = gpt.disk_bytes(ROOT_BYTES)
ROOT_UUID = uuid.UUID("6f1d3b0e-6d0f-4c3a-9a57-0c6f1d8a1200")
KERNEL_ARGS = (
    f"root=UUID={ROOT_UUID} ro console=ttyS0 quiet memhp_default_state=online_movable cryptomgr.notests "
    "scsi_mod.scan=sync no_timer_check systemd.service_watchdogs=0"
)
"""scan=sync: cloud-init looks for its seed once, very early; a SCSI disk or CD must be there by then. no_timer_check is
what Linux does by itself under KVM; see `qemu.argv` for what the check can do to an emulated guest, whose boot loader
nobody could tell. service_watchdogs: a service that gets no CPU for three minutes does not hang."""
EFI_ID = "A1200EF1"
"""Of the EFI system partition's file system."""
PACKAGES = (
    "systemd-sysv", "systemd-resolved", "dbus", "udev", "linux-image-amd64", "initramfs-tools", "lz4", "zstd",
    "grub-pc-bin", "dosfstools", "mtools", "qemu-guest-agent", "openssh-server", "cloud-init", "iproute2",
    "iputils-ping", "ca-certificates", "sudo", "less", "nano", "procps", "libpam-systemd",
)  # fmt: skip

LEFT_OUT = (
    "arch/x86/crypto", "arch/x86/kvm", "drivers/bluetooth", "drivers/comedi", "drivers/cpufreq", "drivers/edac",
    "drivers/firewire", "drivers/gpu/drm/amd",
    "drivers/gpu/drm/i915", "drivers/gpu/drm/nouveau", "drivers/gpu/drm/radeon", "drivers/hwmon", "drivers/i2c/busses",
    "drivers/iio", "drivers/infiniband", "drivers/input/misc", "drivers/input/touchscreen", "drivers/isdn",
    "drivers/leds", "drivers/media", "drivers/mmc", "drivers/mtd", "drivers/net/wireless", "drivers/net/wwan",
    "drivers/nfc", "drivers/platform", "drivers/staging", "drivers/thunderbolt", "net/bluetooth", "net/mac80211",
    "net/wireless", "sound/soc",
)  # fmt: skip
"""Drivers of devices that no guest has: 200 MB that are not unpacked nor written to the disk, nor tried by udev.
And two of CPU features that udev loads in each guest: where the CPU is emulated, patching KVM's calls into the kernel
keeps a CPU for 10 to 25 s, which the kernel at times reports as a soft lockup and does not get over, and ciphers
are no faster with emulated instructions."""

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_MIRROR = "http://deb.debian.org/debian"
_SECURITY = "http://deb.debian.org/debian-security"


async def build(cache: Path, *, progress: Progress = no_progress) -> Path:
    """Build from the newest packages and publish; the directory holds `disk.qcow2`, `vmlinuz` and `initrd`."""
    check_requirements()
    with _open_workspace(cache) as work, publish.build_directory(cache) as private:
        out = work / "out"
        out.mkdir()
        out.chmod(0o777)  # mmdebstrap's root is another user of ours
        _write_inputs(work, out)
        progress("installing Debian 12", 0.0)
        await run(mmdebstrap_argv(work, out), deadline=3600, env={"TMPDIR": str(work)}, what="building Debian 12")
        progress("writing the disk", 0.8)
        built = private / "image"
        built.mkdir()
        await asyncio.to_thread(_write_boot, out, out / "disk.raw")
        await disks.convert(out / "disk.raw", built / "disk.qcow2", source_format="raw", target_format="qcow2")
        manifest = await asyncio.to_thread(_collect, out, built)
        target = publish.publish(built, cache=cache, family=FAMILY, key=manifest["key"], manifest=manifest)
        progress("ready", 1.0)
        return target


def check_requirements() -> None:
    """Say what is missing before anything is downloaded."""
    if platform.machine() != "x86_64":
        raise ImageError(f"hotvirt/debian:12 can be built on x86_64 only, and this machine is {platform.machine()}")
    for program in ("mmdebstrap", "mke2fs", "qemu-img"):
        require(program)
    if not _KEYRING.exists():
        raise ToolMissing(f"{_KEYRING} is missing: run `apt-get install debian-archive-keyring` and try again")
    if os.geteuid() != 0:
        if shutil.which("newuidmap") is None:
            raise ToolMissing(
                "building hotvirt/debian:12 without root needs newuidmap: run `apt-get install uidmap` and try again"
            )
        if not _has_subuids():
            raise ImageError(
                "building hotvirt/debian:12 without root needs a range of user ids in /etc/subuid and /etc/subgid: "
                "`usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER`, or build it as root"
            )


def mmdebstrap_argv(work: Path, out: Path) -> list[str]:
    """Pure, but for the mirror that the environment may name."""
    mirror = os.environ.get("HOTVIRT_DEBIAN_MIRROR", _MIRROR)
    return [
        "mmdebstrap",
        "--mode=root" if os.geteuid() == 0 else "--mode=unshare",
        "--variant=minbase",
        "--architectures=amd64",
        "--format=null",
        "--skip=cleanup",  # the disk is written before that; the tree is thrown away
        f"--keyring={_KEYRING}",
        f"--include={','.join(PACKAGES)}",
        '--aptopt=Acquire::Languages "none"',
        '--aptopt=APT::Install-Recommends "false"',
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        *(f"--dpkgopt=path-exclude=/lib/modules/*/kernel/{each}/*" for each in LEFT_OUT),
        # What initramfs-tools reads must be there before the kernel package runs it.
        f"--essential-hook=tar-in {work / 'files.tar'} /",
        f"--customize-hook={work / 'finish-debian'} \"$1\" {out}",
        SUITE,
        "/dev/null",
        f"deb {mirror} {SUITE} main",
        f"deb {mirror} {SUITE}-updates main",
        f"deb {_SECURITY} {SUITE}-security main",
    ]  # fmt: skip


def builder_id() -> str:
    """Changes with this builder and with any file that it puts into the guest."""
    digest = hashlib.sha256(f"{BUILDER} {KERNEL_ARGS} {ROOT_BYTES} {PACKAGES} {LEFT_OUT}".encode())
    for path, data in _files():
        digest.update(path.encode() + b"\0" + data + b"\0")
    return digest.hexdigest()[:16]


def _files() -> list[tuple[str, bytes]]:
    here = resources.files("hotvirt.images")
    return [*tree.read(here / "debianroot"), ("../finish-debian", (here / "finish-debian").read_bytes())]


@contextmanager
def _open_workspace(cache: Path) -> Iterator[Path]:
    """A directory that mmdebstrap's mapped users can reach: a private cache below a home directory is not."""
    parent = cache if os.geteuid() == 0 else Path("/var/tmp")  # noqa: S108 - mkdtemp makes a name of its own
    parent.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix=".build-" if parent == cache else "hotvirt-build-", dir=parent))
    path.chmod(0o755)
    try:
        yield path
    finally:
        publish.remove_tree(path)


def _write_inputs(work: Path, out: Path) -> None:
    with tarfile.open(work / "files.tar", "w") as archive:
        for path, data in tree.read(resources.files("hotvirt.images") / "debianroot"):
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(data), tree.mode(data)
            archive.addfile(entry, io.BytesIO(data))
    script = work / "finish-debian"
    script.write_bytes((resources.files("hotvirt.images") / "finish-debian").read_bytes())
    script.chmod(0o755)
    settings = {
        "KERNEL_ARGS": KERNEL_ARGS,
        "ROOT_UUID": ROOT_UUID,
        "EFI_ID": EFI_ID,
        "ROOT_KIB": ROOT_BYTES >> 10,
        "ROOT_OFFSET": gpt.ROOT_START * gpt.SECTOR,
        "EFI_KIB": gpt.EFI_SECTORS * gpt.SECTOR >> 10,
        "EFI_OFFSET": gpt.EFI_START * gpt.SECTOR,
        "DISK_BYTES": DISK_BYTES,
    }
    (out / "settings").write_text("".join(f"export {key}='{value}'\n" for key, value in settings.items()))


def _write_boot(out: Path, disk: Path) -> None:
    """Put the boot loader and the partition table around the root filesystem that is on the disk already."""
    pieces = gpt.layout(
        size=DISK_BYTES,
        boot_image=(out / "boot.img").read_bytes(),
        core_image=(out / "core.img").read_bytes(),
        disk_id=ROOT_UUID,
    )
    with disk.open("r+b") as file:
        for piece in pieces:
            file.seek(piece.offset)
            file.write(piece.data)


def _collect(out: Path, built: Path) -> dict[str, Any]:
    versions = dict(line.split() for line in (out / "packages").read_text().splitlines())
    (built / "vmlinuz").write_bytes(kernel.boot_image((out / "kernel").read_bytes()))
    shutil.copyfile(out / "initrd", built / "initrd")
    key = hashlib.sha256(repr((builder_id(), sorted(versions.items()))).encode()).hexdigest()[:16]
    return {
        "key": key,
        "builder": builder_id(),
        "packages": versions,
        "kernelArgs": KERNEL_ARGS,
        "virtualSize": DISK_BYTES,
    }


def _has_subuids() -> bool:
    import pwd

    name, number = pwd.getpwuid(os.getuid()).pw_name, str(os.getuid())
    try:
        lines = Path("/etc/subuid").read_text().splitlines()
    except OSError:
        return False
    return any(line.split(":", 1)[0] in (name, number) for line in lines)
