"""Disks and kernels out of images of an OCI registry, pulled to where they are kept (`pulled`).

skopeo fetches no more than the manifest says, and every byte is checked again here: the manifest against its digest,
each layer against the manifest's. Layers are read in a process of their own (`unpack.py`); a disk is looked into
(`inspect.py`) before anything opens it. `pull` may be called concurrently, by any number of processes: one pulls, the
others wait for it.
"""

import asyncio
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
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
_SLACK = 16 << 20
"""Bytes beyond the layers: the configuration, and what nobody waits for to be exact."""
_LOOK = 0.5
_LISTS = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_PACKINGS = {"tar": "", "tar+gzip": "gzip", "tar.gzip": "gzip", "tar+zstd": "zstd"}
_MISLEADING = 'Error parsing image name "docker://'
"""How skopeo begins whatever went wrong with an image."""
_TOO_LARGE = "file too large"
_UNTRUSTED = (
    ": put the authority's certificate into /etc/containers/certs.d, in a folder of the registry's name, or name it in "
    "certConfigMap of the DataVolume"
)
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

    @property
    def largest(self) -> int:
        return max((size for _, _, size in self.layers), default=0)


async def look_up(name: str, *, auths: Auths | None, cache: Path, authorities: str = "") -> Manifest:
    """What the registry has under this name now. `authorities`: certificates (PEM) to trust beside the machine's."""
    reference = pulled.reference_of(name)
    with publish.build_directory(cache / FOLDER) as work:
        access = _access(reference, auths, authorities, work, "")
        raw = await _raw_manifest(reference.at(), access=access, work=work)
        digest = digest_of(raw)
        if reference.digest and digest != reference.digest:
            raise CorruptImage(f"image {name}: the registry sent another manifest than {reference.digest}")
        if (chosen := one_of_list(raw, name)) is not None:
            raw = await _raw_manifest(reference.at(chosen), access=access, work=work)
            digest = digest_of(raw)
            if digest != chosen:
                raise CorruptImage(f"image {name}: the registry sent another manifest than {chosen}")
        return read_manifest(raw, digest, name)


async def pull(
    name: str, wanted: Sequence[str], cache: Path, *, auths: Auths | None = None, authorities: str = "",
    progress: Progress = no_progress,
) -> Pulled:  # fmt: skip
    """The files of what the registry has under this name now; fetched unless that very image is here. `wanted` are
    absolute paths in it, none for its disk. `authorities` as in `look_up`."""
    folder = cache / FOLDER
    async with publish.build_lock(folder, f"pull-{pulled.short(name)}"):
        progress("asking the registry", None)
        manifest = await look_up(name, auths=auths, cache=cache, authorities=authorities)
        if (found := pulled.at(name, manifest.digest, wanted, cache)) is None:
            async with publish.build_lock(folder, f"blob-{manifest.digest[7:23]}"):
                found = pulled.at(name, manifest.digest, wanted, cache)
                if found is None:
                    await _fetch(name, manifest, wanted, cache, auths=auths, authorities=authorities, progress=progress)
                    found = pulled.at(name, manifest.digest, wanted, cache)
        if found is None:
            raise ImageError(f"{name} was pulled and is not in {folder}: something removes files there")
        pulled.remember(name, manifest.digest, cache)
    await asyncio.to_thread(pulled.prune, cache, limit=pulled.limit())
    return found


# Fetching


async def _fetch(
    name: str, manifest: Manifest, wanted: Sequence[str], cache: Path, *, auths: Auths | None, authorities: str,
    progress: Progress,
) -> None:  # fmt: skip
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
        options = ["copy", "--quiet", "--retry-times", "2", *_access(reference, auths, authorities, work, "src-")]
        await _copied(
            [*options, f"docker://{reference.at(manifest.digest)}", f"dir:{layout}"], layout, manifest, work=work,
            name=name, progress=progress,
        )  # fmt: skip
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


async def _copied(
    arguments: list[str], layout: Path, manifest: Manifest, *, work: Path, name: str, progress: Progress
) -> None:
    """Ended as soon as there is more than the manifest says, in one file or in all."""
    most = manifest.largest + _SLACK
    copying = asyncio.create_task(
        _skopeo(arguments, deadline=LONGEST_PULL, work=work, name=name, file_size=most), name=f"copy {name}"
    )
    try:
        while not (await asyncio.wait({copying}, timeout=_LOOK))[0]:
            has = _size_of(layout)
            if has > manifest.size + _SLACK:
                raise CorruptImage(_sends_more(name))
            progress(
                f"{has // MIB} of {manifest.size // MIB} MiB", min(1.0, has / manifest.size) if manifest.size else None
            )
        await copying
    finally:
        copying.cancel()
        await asyncio.wait({copying})


def _sends_more(name: str) -> str:
    return f"image {name}: the registry sends more than the image's manifest says: push the image again"


def _size_of(layout: Path) -> int:
    has = 0
    with suppress(FileNotFoundError):
        for path in layout.iterdir():
            with suppress(FileNotFoundError):  # it has got its name since
                has += path.stat().st_size
    return has


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


async def _raw_manifest(at: str, *, access: list[str], work: Path) -> bytes:
    options = ["inspect", "--raw", *access]
    text = await _skopeo([*options, f"docker://{at}"], deadline=_QUESTION, work=work, name=at, file_size=_SLACK)
    if len(text) > _LARGEST_MANIFEST:
        raise CorruptImage(f"image {at}: its manifest has {len(text)} bytes, which is no manifest")
    return text.encode()


def _access(reference: Reference, auths: Auths | None, authorities: str, work: Path, side: str) -> list[str]:
    """Plain HTTP is for this machine's own registries; for others, what registries.conf says holds. Where authorities
    are named, they are to be asked, wherever it is."""
    options = [f"--{side}tls-verify=false"] if reference.is_loopback and not authorities else []
    if authorities:
        folder = work / "authorities"
        folder.mkdir(exist_ok=True)
        (folder / "named.crt").write_text(authorities)
        options.append(f"--{side}cert-dir={folder}")
    if auths is None:
        return options
    file = work / "auth.json"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w") as out:
        json.dump({"auths": auths}, out)
    return [*options, f"--authfile={file}"]


async def _skopeo(arguments: list[str], *, deadline: float, work: Path, name: str, file_size: int) -> str:
    argv = ["skopeo", "--insecure-policy", *arguments]
    try:
        return await run(argv, deadline=deadline, env={"TMPDIR": str(work)}, file_size=file_size)
    except ToolFailed as error:
        text = said(str(error))
        if _TOO_LARGE in text:
            raise CorruptImage(_sends_more(name)) from error
        mend = _UNTRUSTED if "x509: certificate signed by unknown authority" in text else ""
        raise ImageError(f"image {name}: {text}{mend}") from error


def said(complaint: str) -> str:
    """The registry's words in what skopeo complains, on a line. Pure."""
    found = _MESSAGE.findall(complaint)
    text = found[-1].replace('\\"', '"').replace("\\\\", "\\") if found else complaint
    text = text.partition('": ')[2] if text.startswith(_MISLEADING) else text
    return "".join(c if c.isprintable() else " " for c in text)[-300:]


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
