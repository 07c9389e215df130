"""The process that reads a registry image's layers: hostile archives, of which a file or two are wanted.

Started by `registry.py` only, under limits of memory, time and file size. Its one argument is JSON: `layers` (path,
digest, packing), `wanted` (absolute paths; none means the one file below /disk), `out` (a directory), `limit` (bytes
that all layers may unpack to). It prints {"files": {path: name in `out`}} or {"error": why}. A file is written under a
name of ours, so no path of an archive reaches the disk.
"""

import contextlib
import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

DISK = "/disk"
_HIDES, _HIDES_ALL = ".wh.", ".wh..wh..opq"
"""How a layer says that something of those below is gone."""
_CHUNK = 1 << 20
_HOLE = 1 << 16
_MOST_FILES = 16
_LISTED = 5


class Refused(Exception):
    """Why the image is not taken."""


def main() -> None:
    asked: dict[str, Any] = json.loads(sys.argv[1])
    try:
        result: dict[str, Any] = {"files": unpack(asked)}
    except Refused as error:
        result = {"error": str(error)}
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        result = {"error": f"a layer is damaged: {error}"}
    print(json.dumps(result))


def unpack(asked: dict[str, Any]) -> dict[str, str]:
    wanted: list[str] = asked["wanted"]
    left = int(asked["limit"])
    files = Files(Path(asked["out"]), wanted, largest=left)
    for layer in asked["layers"]:
        left = _layer(layer, files, left)
    return files.chosen()


class Files:
    """What was found so far; upper layers replace and hide what lower ones have."""

    def __init__(self, out: Path, wanted: list[str], *, largest: int) -> None:
        self._out, self._wanted, self._largest = out, wanted, largest
        self._found: dict[str, str] = {}
        self._count = 0
        self._beside: set[str] = set()

    def wants(self, path: str) -> bool:
        if self._wanted:
            return path in self._wanted
        return str(PurePosixPath(path).parent) == DISK

    def hide(self, path: str, *, below: bool) -> None:
        for each in list(self._found):
            if (each.startswith(f"{path.rstrip('/')}/")) or (not below and each == path):
                del self._found[each]

    def take(self, path: str, member: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
        if member.isdir():
            return
        if not member.isreg():
            what = "a symbolic link" if member.issym() else "a hard link" if member.islnk() else "a special file"
            raise Refused(f"{path} is {what} in the image, and must be the file itself")
        self._count += 1
        if self._count > _MOST_FILES:
            raise Refused(f"it has more than {_MOST_FILES} files in {DISK}: one is the disk")
        if member.size > self._largest:  # a sparse one can say any size
            raise Refused(f"{path} claims {member.size} bytes, which is not believed of a disk")
        source = archive.extractfile(member)
        assert source is not None
        name = f"file-{self._count}"
        _copy(source, self._out / name, size=member.size)
        self._found[path] = name

    def note(self, path: str) -> None:
        if len(self._beside) < _LISTED and path.startswith((f"{DISK}/", "/boot/")):
            self._beside.add(path)

    def chosen(self) -> dict[str, str]:
        if self._wanted:
            missing = [path for path in self._wanted if path not in self._found]
            if missing:
                there = f"; it has {', '.join(sorted(self._beside))}" if self._beside else ""
                raise Refused(f"it has no file {missing[0]}{there}")
            return self._found
        if not self._found:
            raise Refused(f"it has no disk: a container disk has one file in {DISK}, or name it with path")
        if len(self._found) > 1:
            names = ", ".join(sorted(self._found)[:_LISTED])
            raise Refused(f"it has {len(self._found)} files in {DISK} ({names}): name the disk with path")
        return self._found


def _layer(layer: dict[str, str], files: Files, left: int) -> int:
    """Read one layer, and see that it is what its digest says. Returns what further ones may unpack to."""
    with open(layer["path"], "rb", buffering=0) as raw:
        hashed = _Hashed(raw)
        with _unpacked(layer["packing"], hashed) as plain:
            counted = _Counted(plain, left)
            with tarfile.open(fileobj=counted, mode="r|", bufsize=_CHUNK) as archive:  # type: ignore[call-overload]
                for member in archive:
                    path = _path(member.name)
                    if path is None:
                        continue
                    name = PurePosixPath(path).name
                    if name == _HIDES_ALL:
                        files.hide(str(PurePosixPath(path).parent), below=True)
                    elif name.startswith(_HIDES):
                        files.hide(str(PurePosixPath(path).with_name(name.removeprefix(_HIDES) or name)), below=False)
                    elif files.wants(path):
                        files.take(path, member, archive)
                    else:
                        files.note(path)
                    archive.members = []  # else each is kept in memory
        if hashed.finish() != layer["digest"]:
            raise Refused(f"a layer is not what its digest {layer['digest'][:19]} says: it was changed on the way")
        return counted.left


def _path(name: str) -> str | None:
    """A member's absolute path in the image; None for one that climbs out."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return None if ".." in parts else "/" + "/".join(parts)


def _copy(source: IO[bytes], target: Path, *, size: int) -> None:
    """Holes where it is zero."""
    zeros = bytes(_HOLE)
    with open(target, "xb") as out:
        while chunk := source.read(_CHUNK):
            for at in range(0, len(chunk), _HOLE):
                piece = chunk[at : at + _HOLE]
                if piece == zeros[: len(piece)]:
                    out.seek(len(piece), os.SEEK_CUR)
                else:
                    out.write(piece)
        if out.tell() != size:
            raise Refused("a file in it is cut short")
        out.truncate(size)


class _Hashed(io.RawIOBase):
    """A file that knows the digest of what was read of it."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw, self._sum = raw, hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._raw.read(len(buffer))
        self._sum.update(data)
        buffer[: len(data)] = data
        return len(data)

    def fileno(self) -> int:
        return self._raw.fileno()

    def rewind(self) -> None:
        self._raw.seek(0)

    def finish(self) -> str:
        """The digest of the whole file."""
        while data := self._raw.read(_CHUNK):
            self._sum.update(data)
        return f"sha256:{self._sum.hexdigest()}"


class _Counted:
    """Bytes that come out of a layer, up to a limit."""

    def __init__(self, plain: IO[bytes], left: int) -> None:
        self._plain, self.left = plain, left

    def read(self, size: int = -1) -> bytes:
        data = self._plain.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise Refused("its layers unpack to more than is believed of a disk: make a smaller image")
        return data


@contextlib.contextmanager
def _unpacked(packing: str, hashed: _Hashed) -> Iterator[IO[bytes]]:
    if packing == "gzip":
        with gzip.GzipFile(fileobj=io.BufferedReader(hashed, _CHUNK)) as plain:
            yield plain  # type: ignore[misc]
    elif packing == "zstd":
        with _zstd(hashed) as plain:
            yield plain
    else:
        yield io.BufferedReader(hashed, _CHUNK)


@contextlib.contextmanager
def _zstd(hashed: _Hashed) -> Iterator[IO[bytes]]:
    """Python 3.11 has no Zstandard; its program reads the file beside us, and the digest is taken of all of it."""
    try:
        process = subprocess.Popen(
            ["zstd", "-dc", "--memory=256MB"], stdin=hashed.fileno(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except FileNotFoundError:
        raise Refused("a layer is packed with zstd, which is not installed: install the package zstd") from None
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        hashed.rewind()


if __name__ == "__main__":
    main()
