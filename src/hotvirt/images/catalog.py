"""Images by name: what this machine offers without a registry, and where each one's files are.

    hotvirt/tiny        kernel and initramfs, built on the spot (tiny.py), for `kernelBoot`
    hotvirt/debian:12   a disk, built on the spot (debian.py), for `containerDisk`
    local/<name>        a file that a person put into <cache>/local/, for `containerDisk`

`ensure` may be called concurrently, by any number of processes, for the same name: it is built once, and everybody
gets the same files. They never change afterwards; a disk among them is a base to put an overlay on, never to write to.
"""

import asyncio
import os
import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from hotvirt.images import debian, disks, publish, pulled, tiny
from hotvirt.images.errors import ImageError, ImageNotFound
from hotvirt.images.inspect import inspect
from hotvirt.images.tools import Progress, no_progress

LOCAL = "local/"
_LOCAL_FORMATS = {".qcow2": "qcow2", ".raw": "raw", ".img": None}
"""File endings under <cache>/local, and the format each must have; people name anything .img."""
_NAME = re.compile(r"[a-z0-9]([-a-z0-9._]{0,61}[a-z0-9])?")


class ImageFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Where an image is. `disk` is None for one that is only a kernel; `kernel` may also come beside a disk, as the
    quicker way to start it. Kernel and disk are never written to."""

    name: str
    disk: Path | None = None
    disk_format: str = ""
    kernel: Path | None = None
    efi_kernel: Path | None = None
    """The same kernel for UEFI to start, where `kernel` is one that only a BIOS can."""
    initrd: Path | None = None
    kernel_args: str = ""
    virtual_size: int = 0


class ImageEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `hotvirt images list`. `ready` is whether it is on this machine already."""

    name: str
    description: str
    use: str
    ready: bool
    path: Path | None = None
    disk_format: str = ""
    virtual_size: int = 0
    size_on_disk: int = 0


class Builtin(msgspec.Struct, frozen=True, kw_only=True):
    """An image built on the spot; `use` is the volume or firmware field of a VM that takes it."""

    family: str
    description: str
    use: str
    build: Callable[..., Awaitable[Path]]
    builder_id: Callable[[], str]


BUILTIN: dict[str, Builtin] = {
    "hotvirt/tiny": Builtin(
        family=tiny.FAMILY,
        description="Test guest: busybox and the guest agent in memory; boots in seconds, keeps nothing",
        use="domain.firmware.kernelBoot.container (kernelPath /boot/vmlinuz, initrdPath /boot/initrd)",
        build=tiny.build,
        builder_id=tiny.builder_id,
    ),
    "hotvirt/debian:12": Builtin(
        family=debian.FAMILY,
        description="Debian 12: systemd, cloud-init, the guest agent, sshd; root on the serial console without a seed",
        use="containerDisk",
        build=debian.build,
        builder_id=debian.builder_id,
    ),
}


def default_cache() -> Path:
    """Where this user's built images are kept across homes and test runs."""
    if chosen := os.environ.get("HOTVIRT_IMAGE_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "hotvirt" / "images"


async def ensure(name: str, cache: Path, progress: Progress | None = None, *, refresh: bool = False) -> ImageFiles:
    """The image's files, built first if they are not there. `refresh` builds again from the newest packages."""
    wanted = canonical(name)
    if wanted.startswith(LOCAL):
        return await _local(wanted, cache)
    builtin = BUILTIN.get(wanted)
    if builtin is None:
        raise ImageNotFound(unknown(name, cache))
    if not refresh and (found := _published(wanted, builtin, cache)):
        return found
    async with publish.build_lock(cache, builtin.family):
        # Another process may have built it while this one waited.
        if not refresh and (found := _published(wanted, builtin, cache) or _adopted(wanted, builtin, cache)):
            return found
        await builtin.build(cache, progress=progress or no_progress)
    found = _published(wanted, builtin, cache)
    if found is None:
        raise ImageError(f"{name} was built and is not in {cache}: something removes files there")
    return found


def needs_building(name: str, cache: Path) -> bool:
    """Whether `ensure` would take seconds or minutes, to be told to whoever waits."""
    wanted = canonical(name)
    builtin = BUILTIN.get(wanted)
    return builtin is not None and not (_published(wanted, builtin, cache) or _adoptable(builtin, cache))


def list_images(cache: Path) -> list[ImageEntry]:
    """Every image that `ensure` would give, ready or not. Local files are listed unopened."""
    entries = []
    for name, builtin in BUILTIN.items():
        files = _published(name, builtin, cache)
        entry = ImageEntry(name=name, description=builtin.description, use=builtin.use, ready=files is not None)
        if files is not None:
            path = files.disk or files.kernel
            assert path is not None
            entry = msgspec.structs.replace(
                entry, path=path, disk_format=files.disk_format, virtual_size=files.virtual_size,
                size_on_disk=sum(_allocated(file) for file in path.parent.iterdir()),
            )  # fmt: skip
        entries.append(entry)
    return entries + [_local_entry(path) for path in local_files(cache)] + [_kept(each) for each in pulled.kept(cache)]


async def import_local(path: Path, name: str, cache: Path, progress: Progress | None = None) -> ImageFiles:
    """Take a disk image of any known format in as `local/<name>`: inspected, then converted or copied sparse.

    A name that is taken is refused: running guests may have overlays on its file.
    """
    tell = progress or no_progress
    short = canonical(name).removeprefix(LOCAL)
    if not _NAME.fullmatch(short):
        raise ImageError(f"{name!r} can't name an image: use lower-case letters, digits, '-', '.' and '_'")
    if taken := [file for file in local_files(cache) if file.stem == short]:
        raise ImageError(f"local/{short} exists already ({taken[0]}): choose another name, or delete that file first")
    tell("inspecting", None)
    info = await inspect(path)
    kind = "raw" if info.format == "raw" else "qcow2"
    target = cache / "local" / f"{short}.{kind}"
    target.parent.mkdir(parents=True, exist_ok=True)
    tell(f"copying as {kind}", None)
    await disks.convert(path, target, source_format=info.format, target_format=kind)
    tell("ready", 1.0)
    return await _local(LOCAL + short, cache)


def local_files(cache: Path) -> list[Path]:
    """The files that `local/<name>` can mean, by name."""
    try:
        found = [path for path in (cache / "local").iterdir() if path.suffix in _LOCAL_FORMATS and path.is_file()]
    except FileNotFoundError:
        return []
    return sorted(path for path in found if _NAME.fullmatch(path.stem))


def canonical(name: str) -> str:
    """`hotvirt/tiny:latest` and `hotvirt/debian` are what people will type."""
    name = name.removesuffix(":latest")
    return "hotvirt/debian:12" if name == "hotvirt/debian" else name


def unknown(name: str, cache: Path) -> str:
    """The sentence for a name that nothing has."""
    offered = [*BUILTIN, *(LOCAL + path.stem for path in local_files(cache))]
    return (
        f"there is no image {name!r}; this machine offers {', '.join(offered)}. "
        f"One of a registry is named with its host (docker.io/library/NAME:TAG). "
        f"To add your own: `hotvirt images import FILE --name NAME`, then use local/NAME"
    )


def _local_entry(path: Path) -> ImageEntry:
    return ImageEntry(
        name=LOCAL + path.stem,
        description="Imported on this machine",
        use="containerDisk",
        ready=True,
        path=path,
        disk_format=_LOCAL_FORMATS[path.suffix] or "",
        size_on_disk=_allocated(path),
    )


def _kept(image: pulled.Kept) -> ImageEntry:
    """A pulled image. Its name may mean another one by now, see its directory."""
    return ImageEntry(
        name=image.name, description=f"Pulled ({image.digest[:19]})",
        use="containerDisk" if image.disk_format else "domain.firmware.kernelBoot.container", ready=True,
        path=image.directory, disk_format=image.disk_format, virtual_size=image.virtual_size,
        size_on_disk=image.size_on_disk,
    )  # fmt: skip


def _published(name: str, builtin: Builtin, cache: Path) -> ImageFiles | None:
    found = publish.built_by(builtin.builder_id(), cache, builtin.family)
    return None if found is None else _files(name, *found)


def _adopted(name: str, builtin: Builtin, cache: Path) -> ImageFiles | None:
    """What another home of this user has built already need not be built again."""
    found = _adoptable(builtin, cache)
    if found is None:
        return None
    directory, manifest = found
    publish.adopt(directory, manifest, cache=cache, family=builtin.family, key=str(manifest["key"]))
    return _published(name, builtin, cache)


def _adoptable(builtin: Builtin, cache: Path) -> tuple[Path, dict[str, Any]] | None:
    shared = default_cache()
    if shared == cache or not _is_ours(shared):
        return None
    return publish.built_by(builtin.builder_id(), shared, builtin.family)


def _is_ours(directory: Path) -> bool:
    try:
        return directory.stat().st_uid == os.geteuid()
    except OSError:
        return False


def _files(name: str, directory: Path, manifest: dict[str, Any]) -> ImageFiles:
    def here(file: str) -> Path | None:
        path = directory / file
        return path if path.exists() else None

    disk = here("disk.qcow2")
    return ImageFiles(
        name=name, disk=disk, disk_format="qcow2" if disk else "", kernel=here("vmlinuz"),
        efi_kernel=here("vmlinuz.efi"), initrd=here("initrd"),
        kernel_args=str(manifest.get("kernelArgs", "")), virtual_size=int(manifest.get("virtualSize", 0)),
    )  # fmt: skip


async def _local(name: str, cache: Path) -> ImageFiles:
    short = name.removeprefix(LOCAL)
    matching = [path for path in await asyncio.to_thread(local_files, cache) if path.stem == short]
    if not matching:
        raise ImageNotFound(unknown(name, cache))
    if len(matching) > 1:
        names = " and ".join(path.name for path in matching)
        raise ImageError(f"{name} could be {names} in {cache / 'local'}: remove or rename one of them")
    info = await inspect(matching[0], _LOCAL_FORMATS[matching[0].suffix])
    if info.format not in ("qcow2", "raw"):
        raise ImageError(
            f"{name} is {info.format}, which no guest runs from: `hotvirt images import {matching[0]}` converts it"
        )
    return ImageFiles(name=name, disk=matching[0], disk_format=info.format, virtual_size=info.virtual_size)


def _allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


def main(names: list[str]) -> None:
    """Build images into this user's cache beforehand, e.g. while there is a network."""
    told: list[str] = []

    def tell(step: str, _fraction: float | None = None) -> None:
        if step not in told[-1:]:  # else only the fraction moved
            print(f"{name}: {step}", flush=True)
            told.append(step)

    for name in names:
        try:
            files = asyncio.run(ensure(name, default_cache(), tell))
        except ImageError as error:
            sys.exit(f"{name}: {error}")
        print(f"{files.name} is in {(files.disk or files.kernel or default_cache()).parent}")


if __name__ == "__main__":
    main(sys.argv[1:])
