"""Disks and kernels out of images of an OCI registry, pulled to where they are kept (`pulled`).

skopeo fetches, and every byte is checked again here: the manifest against its digest, each layer against the
manifest's. Layers are read in a process of their own (`unpack.py`); a disk is looked into (`inspect.py`) before
anything opens it. `pull` may be called concurrently, by any number of processes: one pulls, the others wait for it.
"""

import asyncio
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from hotvirt.images import inspect, publish, pulled
from hotvirt.images.errors import CorruptImage, ImageError, ToolFailed, UnsafeImage
from hotvirt.images.pulled import FOLDER, KERNEL, LONGEST_PULL, Pulled
from hotvirt.images.reference import Reference
from hotvirt.images.tools import MIB, Progress, no_progress, run

MOST_UNPACKED = 1 << 40
MARGIN = 1 << 30
"""Bytes that a pull leaves free on the filesystem."""
_QUESTION = 60.0
_MOST_LAYERS = 128
_LARGEST_MANIFEST = 4 << 20
_LISTS = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_PACKINGS = {"tar": "", "tar+gzip": "gzip", "tar.gzip": "gzip", "tar+zstd": "zstd"}
_MISLEADING = 'Error parsing image name "docker://'
"""How skopeo begins whatever went wrong with an image."""
_MESSAGE = re.compile(r'msg="((?:[^"\\]|\\.)*)"?')

Auths = Mapping[str, Mapping[str, str]]
"""Registry -> its credentials, as in a docker config's `auths`."""


class Manifest(Struct, frozen=True):
    digest: str
    layers: tuple[tuple[str, str, int], ...]
    """(digest, packing, size) of each."""

    @property
    def size(self) -> int:
        return sum(size for _, _, size in self.layers)


async def look_up(name: str, *, auths: Auths | None, cache: Path) -> Manifest:
    """What the registry has under this name now."""
    reference = pulled.reference_of(name)
    with publish.build_directory(cache / FOLDER) as work:
        raw = await _raw_manifest(reference, reference.at(), auths=auths, work=work)
        digest = digest_of(raw)
        if reference.digest and digest != reference.digest:
            raise CorruptImage(f"image {name}: the registry sent another manifest than {reference.digest}")
        if (chosen := one_of_list(raw, name)) is not None:
            raw = await _raw_manifest(reference, reference.at(chosen), auths=auths, work=work)
            digest = digest_of(raw)
            if digest != chosen:
                raise CorruptImage(f"image {name}: the registry sent another manifest than {chosen}")
        return read_manifest(raw, digest, name)


async def pull(
    name: str, wanted: Sequence[str], cache: Path, *, auths: Auths | None = None, progress: Progress = no_progress
) -> Pulled:
    """The files of what the registry has under this name now; fetched unless that very image is here. `wanted` are
    absolute paths in it, none for its disk."""
    folder = cache / FOLDER
    async with publish.build_lock(folder, f"pull-{pulled.short(name)}"):
        progress("asking the registry", None)
        manifest = await look_up(name, auths=auths, cache=cache)
        if (found := pulled.at(name, manifest.digest, wanted, cache)) is None:
            async with publish.build_lock(folder, f"blob-{manifest.digest[7:23]}"):
                found = pulled.at(name, manifest.digest, wanted, cache)
                if found is None:
                    await _fetch(name, manifest, wanted, cache, auths=auths, progress=progress)
                    found = pulled.at(name, manifest.digest, wanted, cache)
        if found is None:
            raise ImageError(f"{name} was pulled and is not in {folder}: something removes files there")
        pulled.remember(name, manifest.digest, cache)
    await asyncio.to_thread(pulled.prune, cache, limit=pulled.limit())
    return found


# Fetching


async def _fetch(
    name: str, manifest: Manifest, wanted: Sequence[str], cache: Path, *, auths: Auths | None, progress: Progress
) -> None:
    folder, reference = cache / FOLDER, pulled.reference_of(name)
    room = shutil.disk_usage(folder).free - MARGIN
    if manifest.size > room:
        raise ImageError(
            f"image {name} has {manifest.size // MIB} MiB, and {max(0, room) // MIB} MiB are free for it in {folder}: "
            f"make room, for example with `hotvirt images prune`"
        )
    with publish.build_directory(folder) as work:
        layout, built = work / "layout", work / "image"
        built.mkdir()
        watch = asyncio.create_task(_watch(layout, manifest.size, progress))
        try:
            source = f"docker://{reference.at(manifest.digest)}"
            options = ["copy", "--quiet", "--retry-times", "2", *_access(reference, auths, work, "src-")]
            await _skopeo([*options, source, f"dir:{layout}"], deadline=LONGEST_PULL, work=work, name=name)
        finally:
            watch.cancel()
        progress("unpacking", None)
        files = await _unpack(name, manifest, wanted, layout=layout, built=built)
        shutil.rmtree(layout, ignore_errors=True)
        facts: dict[str, Any] = {"name": name, "digest": manifest.digest, "files": files}
        facts |= await _disk_facts(name, built, files) if pulled.is_disk(wanted) else {}
        target = folder / manifest.digest[7:]
        target.mkdir(exist_ok=True)
        for path in built.iterdir():
            path.chmod(0o444)
            publish.sync_path(path)
        (built / publish.MANIFEST).write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")
        built.chmod(0o755)
        publish.sync_path(built)
        built.rename(target / pulled.key(wanted))
        publish.sync_path(target)


async def _unpack(name: str, manifest: Manifest, wanted: Sequence[str], *, layout: Path, built: Path) -> dict[str, str]:
    if digest_of((layout / "manifest.json").read_bytes()) != manifest.digest:
        raise CorruptImage(f"image {name}: its manifest is not what its digest says")
    layers = [
        {"path": str(layout / digest.removeprefix("sha256:")), "digest": digest, "packing": packing}
        for digest, packing, _ in manifest.layers
    ]
    room = max(0, shutil.disk_usage(built).free - MARGIN)
    paths = [path for path in wanted if path != KERNEL]
    asked = {"layers": layers, "wanted": paths, "out": str(built), "limit": MOST_UNPACKED}
    argv = [sys.executable, "-P", "-m", "hotvirt.images.unpack", json.dumps(asked)]
    try:
        output = await run(
            argv, deadline=LONGEST_PULL, memory=1024 * MIB, cpu_seconds=int(LONGEST_PULL),
            file_size=max(room, 64 * MIB), what="unpacking it",
        )  # fmt: skip
    except ToolFailed as error:
        raise CorruptImage(f"image {name} is refused: {error}") from error
    found: dict[str, Any] = json.loads(output)
    if why := found.get("error"):
        raise CorruptImage(f"image {name} is refused: {why}")
    files: dict[str, str] = found["files"]
    return files


async def _disk_facts(name: str, built: Path, files: dict[str, str]) -> dict[str, Any]:
    (path, file) = next(iter(files.items()))
    try:
        info = await inspect.inspect(built / file)
    except ImageError as error:
        text = str(error).replace(str(built / file), f"image {name}: {path}")
        raise (UnsafeImage if isinstance(error, UnsafeImage) else CorruptImage)(text) from error
    if info.format not in ("qcow2", "raw"):
        raise CorruptImage(f"image {name}: {path} is {info.format}: build the image with a qcow2 or raw disk")
    return {"disk": file, "format": info.format, "virtualSize": info.virtual_size}


async def _raw_manifest(reference: Reference, at: str, *, auths: Auths | None, work: Path) -> bytes:
    options = ["inspect", "--raw", *_access(reference, auths, work, "")]
    text = await _skopeo([*options, f"docker://{at}"], deadline=_QUESTION, work=work, name=at)
    if len(text) > _LARGEST_MANIFEST:
        raise CorruptImage(f"image {at}: its manifest has {len(text)} bytes, which is no manifest")
    return text.encode()


def _access(reference: Reference, auths: Auths | None, work: Path, side: str) -> list[str]:
    """Plain HTTP is for this machine's own registries; for others, what registries.conf says holds."""
    options = [f"--{side}tls-verify=false"] if reference.is_loopback else []
    if auths is None:
        return options
    file = work / "auth.json"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w") as out:
        json.dump({"auths": auths}, out)
    return [*options, f"--authfile={file}"]


async def _skopeo(arguments: list[str], *, deadline: float, work: Path, name: str) -> str:
    try:
        return await run(["skopeo", "--insecure-policy", *arguments], deadline=deadline, env={"TMPDIR": str(work)})
    except ToolFailed as error:
        raise ImageError(f"image {name}: {said(str(error))}") from error


def said(complaint: str) -> str:
    """The registry's words in what skopeo complains, on a line. Pure."""
    found = _MESSAGE.findall(complaint)
    text = found[-1].replace('\\"', '"').replace("\\\\", "\\") if found else complaint
    text = text.partition('": ')[2] if text.startswith(_MISLEADING) else text
    return "".join(c if c.isprintable() else " " for c in text)[-300:]


async def _watch(layout: Path, total: int, progress: Progress) -> None:
    while True:
        await asyncio.sleep(1)
        try:
            has = sum(path.stat().st_size for path in layout.iterdir())
        except OSError:
            continue
        progress(f"{has // MIB} of {total // MIB} MiB", has / total if total else None)


# Manifests: pure


def digest_of(raw: bytes) -> str:
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def one_of_list(raw: bytes, name: str) -> str | None:
    """Of a list of images for several platforms, the digest of ours; None for a single image."""
    document = _json(raw, name)
    if document.get("mediaType") not in _LISTS and not isinstance(document.get("manifests"), list):
        return None
    for each in document.get("manifests") or ():
        platform = each.get("platform") or {}
        if (platform.get("os"), platform.get("architecture")) == ("linux", "amd64"):
            return str(each.get("digest"))
    raise ImageError(f"image {name} is for other platforms only: name one that has linux/amd64")


def read_manifest(raw: bytes, digest: str, name: str) -> Manifest:
    layers = []
    given = _json(raw, name).get("layers")
    if not isinstance(given, list) or not 0 < len(given) <= _MOST_LAYERS:
        raise CorruptImage(f"image {name}: its manifest names no layers, or too many: is it a container image?")
    for each in given:
        kind, layer, size = str(each.get("mediaType")), str(each.get("digest")), each.get("size")
        packing = _PACKINGS.get(kind.rpartition(".")[2]) if not kind.endswith("tar.gzip") else "gzip"
        if packing is None:
            raise CorruptImage(f"image {name}: a layer is {kind[:80]}, and layers that are tar archives are read")
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", layer) or not isinstance(size, int) or size < 0:
            raise CorruptImage(f"image {name}: its manifest names a layer without a digest or size")
        layers.append((layer, packing, size))
    return Manifest(digest, tuple(layers))


def _json(raw: bytes, name: str) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise CorruptImage(f"image {name}: the registry sent no manifest")
    return found
