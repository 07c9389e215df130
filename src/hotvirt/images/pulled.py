"""Images that were pulled from registries (`registry`), as they are kept: once for any number of machines.

    <cache>/registry/<digest>/<what is wanted>/   the files, never changed, and what they are (manifest.json)
    <cache>/registry/names/<hash>.json            which digest a name had when it was last pulled

Any number of processes may look and clean up at the same time.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from hotvirt.api import quantity
from hotvirt.images import publish
from hotvirt.images.errors import ImageError
from hotvirt.images.reference import Reference, parse
from hotvirt.qemu import locks

LONGEST_PULL = 3600.0
"""Seconds."""
FOLDER = "registry"
KERNEL = "kernel"
"""First of `wanted` for what is booted and not a disk."""
NAMES = "names"
LIMIT_VARIABLE, USUAL_LIMIT = "HOTVIRT_IMAGE_LIMIT", 64 << 30
"""What the pulled images may take together before those unused for longest go."""
FRESH = 600.0
"""Seconds after its last use in which an image is not removed by itself: a guest may be about to open it."""


class Pulled(Struct, frozen=True):
    """`files` by their paths in the image. With a disk, its format and size."""

    name: str
    digest: str
    files: dict[str, Path]
    disk: Path | None = None
    disk_format: str = ""
    virtual_size: int = 0


class Kept(Struct, frozen=True):
    """One image in the cache, for lists and clean-up."""

    name: str
    digest: str
    directory: Path
    size_on_disk: int
    used_at: float
    disk_format: str = ""
    virtual_size: int = 0


def find(name: str, wanted: Sequence[str], cache: Path) -> Pulled | None:
    """The files of an image as it was last pulled by this name."""
    reference = reference_of(name)
    try:
        digest = str(json.loads(_name_file(name, cache).read_bytes())["digest"])
    except (OSError, ValueError, KeyError):
        digest = reference.digest  # pulled by another name
    return at(name, digest, wanted, cache) if digest else None


def at(name: str, digest: str, wanted: Sequence[str], cache: Path) -> Pulled | None:
    """The files of the image of this digest, if they are here."""
    directory = cache / FOLDER / digest.removeprefix("sha256:") / key(wanted)
    try:
        facts = json.loads((directory / publish.MANIFEST).read_bytes())
        os.utime(directory / publish.MANIFEST)  # it is in use again
    except (OSError, ValueError):
        return None
    files = {path: directory / file for path, file in facts["files"].items()}
    return Pulled(
        name, digest, files, directory / facts["disk"] if facts.get("disk") else None, str(facts.get("format") or ""),
        int(facts.get("virtualSize") or 0),
    )  # fmt: skip


def remember(name: str, digest: str, cache: Path) -> None:
    """That the name means this image now."""
    file = _name_file(name, cache)
    file.parent.mkdir(exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(json.dumps({"name": name, "digest": digest}))
    temporary.rename(file)


def is_disk(wanted: Sequence[str]) -> bool:
    """Kernels come by their paths, with a mark; a disk is all else."""
    return not wanted or wanted[0] != KERNEL


def kept(cache: Path) -> list[Kept]:
    """All pulled images, the one unused for longest first."""
    found = []
    for path in (cache / FOLDER).glob(f"*/*/{publish.MANIFEST}"):
        try:
            facts = json.loads(path.read_bytes())
            size = sum(file.stat().st_blocks * 512 for file in path.parent.iterdir())
            found.append(
                Kept(
                    str(facts["name"]), str(facts["digest"]), path.parent, size, path.stat().st_mtime,
                    str(facts.get("format") or ""), int(facts.get("virtualSize") or 0),
                )
            )  # fmt: skip
        except (OSError, ValueError, KeyError):
            continue
    return sorted(found, key=lambda each: each.used_at)


def limit() -> int:
    try:
        return quantity.parse_bytes(os.environ[LIMIT_VARIABLE])
    except (KeyError, quantity.QuantityError):
        return USUAL_LIMIT


def prune(cache: Path, *, limit: int = 0, fresh: float = FRESH) -> list[Kept]:
    """Remove images that no guest has open, those unused for longest first, until the rest is within `limit`. Returns
    the removed."""
    images = kept(cache)
    total, removed = sum(each.size_on_disk for each in images), []
    for each in images:
        if total <= limit:
            break
        if time.time() - each.used_at < fresh or in_use(each):
            continue
        gone = each.directory.with_name(f".gone-{each.directory.name}")
        try:
            each.directory.rename(gone)  # all at once: nobody finds half an image
        except OSError:
            continue
        shutil.rmtree(gone, ignore_errors=True)
        _without_error(each.directory.parent)
        removed.append(each)
        total -= each.size_on_disk
    for path in (cache / FOLDER).glob(".build-*"):
        if time.time() - path.stat().st_mtime > 2 * LONGEST_PULL:  # of a home that was killed
            publish.remove_tree(path)
    return removed


def in_use(image: Kept) -> bool:
    """Whether a guest has a file of it open."""
    try:
        return any(locks.taken(path, read_only=False, shareable=False) for path in image.directory.glob("file-*"))
    except OSError:
        return True


def _without_error(directory: Path) -> None:
    try:
        directory.rmdir()
    except OSError:
        pass  # other files of the same image


def reference_of(name: str) -> Reference:
    """ImageError when it is no name of an image."""
    try:
        return parse(name)
    except ValueError as error:
        raise ImageError(str(error)) from error


def _name_file(name: str, cache: Path) -> Path:
    return cache / FOLDER / NAMES / f"{short(reference_of(name).at())}.json"


def short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def key(wanted: Sequence[str]) -> str:
    """The directory of these files, beside others of the same image."""
    return short(json.dumps([*wanted])) if wanted else "disk"
