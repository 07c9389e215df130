"""One place for finished images: built in a private directory, then shown all at once under their final name.

A published build never changes: it lives in `<cache>/<family>/<key>/` and `<cache>/<family>/current` points at the
newest. Readers need no lock. Builders (this process or others) take turns by a file lock, so an image is built once.
The newest build before the current one is kept, as a guest may be starting from it; older ones are removed.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"


@contextlib.asynccontextmanager
async def build_lock(cache: Path, family: str) -> AsyncIterator[None]:
    """Hold the right to build this family. The kernel lets go of it when the process dies, however it dies."""
    cache.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(cache / f".{family}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # A blocking flock in a thread could not be cancelled; another builder takes seconds to minutes.
                await asyncio.sleep(0.2)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def build_directory(cache: Path) -> Iterator[Path]:
    """A private directory on the cache's own filesystem, gone afterwards whatever happens."""
    cache.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix=".build-", dir=cache))
    try:
        yield path
    finally:
        remove_tree(path)


def publish(built: Path, *, cache: Path, family: str, key: str, manifest: dict[str, Any]) -> Path:
    """Show a finished directory as the family's current build; durable when this returns."""
    (built / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
    for path in built.iterdir():
        path.chmod(0o444)
        sync_path(path)
    built.chmod(0o755)
    sync_path(built)
    parent = cache / family
    parent.mkdir(exist_ok=True)
    target = parent / key
    if target.exists():  # a rebuild of the same content: what is there may be in use
        shutil.rmtree(built, ignore_errors=True)
    else:
        built.rename(target)
    _point(parent / "current", key)
    sync_path(parent)
    _prune(parent, keep=key)
    return target


def current(cache: Path, family: str) -> tuple[Path, dict[str, Any]] | None:
    """The newest published build and its manifest."""
    return _read(cache, family, "current")


def _read(cache: Path, family: str, name: str) -> tuple[Path, dict[str, Any]] | None:
    try:
        path = (cache / family / name).resolve(strict=True)
        manifest = json.loads((path / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return None
    return (path, manifest) if isinstance(manifest, dict) else None


def built_by(builder: str, cache: Path, family: str) -> tuple[Path, dict[str, Any]] | None:
    """The build of this builder, if it is among those kept: another version of hotvirt may have made its own the
    current one."""
    found = (_read(cache, family, name) for name in _builds(cache / family))
    return next((build for build in found if build is not None and build[1].get("builder") == builder), None)


def _builds(directory: Path) -> Iterator[str]:
    """The likely one first: others are only looked for when it is not that."""
    yield "current"
    yield from sorted(path.name for path in directory.glob("*") if path.is_dir() and not path.is_symlink())


def adopt(source: Path, manifest: dict[str, Any], *, cache: Path, family: str, key: str) -> Path:
    """Publish in `cache` what another cache of this user has built: by hard links where possible, else by copying."""
    with build_directory(cache) as work:
        built = work / "image"
        built.mkdir()
        for path in source.iterdir():
            if path.name == MANIFEST:
                continue
            try:
                os.link(path, built / path.name)
            except OSError:
                shutil.copyfile(path, built / path.name)
        return publish(built, cache=cache, family=family, key=key, manifest=manifest)


def remove_tree(path: Path) -> None:
    """Remove a build's directory, unless something is mounted in it: that could be the machine's own /dev."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        mounts = []
    if not any((line.split()[4] + "/").startswith(f"{path.resolve()}/") for line in mounts):
        shutil.rmtree(path, ignore_errors=True)


def sync_path(path: Path) -> None:
    """fsync a file or a directory by name."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _point(link: Path, target: str) -> None:
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.rename(link)


def _prune(parent: Path, *, keep: str) -> None:
    builds = [path for path in parent.iterdir() if path.is_dir() and not path.is_symlink() and path.name != keep]
    builds.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in builds[1:]:
        shutil.rmtree(path, ignore_errors=True)
