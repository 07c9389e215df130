"""Fetching a disk image over HTTP, so that a kill, a stall or a changed source costs no more than it must.

`fetch` writes to a file that goes on growing over as many calls as it takes: what is there is asked for no more (Range
with If-Range, so that it is never joined to another version), and a note beside the file says of which version it is.
A server that sends nothing for a while, one that ends too early and a source that changed are told apart. `most` bounds
what is taken, and `MARGIN` stays free, whether the server says before how much it will send or not. Zeros are left out
of the file. The file belongs to one caller at a time.
"""

import asyncio
import base64
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from hotvirt.images import copying, threads
from hotvirt.images.errors import CorruptImage, ImageError, ImageNotFound, NoRoom, TooLarge

if TYPE_CHECKING:
    import ssl

    from aiohttp import ClientResponse

STALL = 60.0
"""Seconds that a server may send nothing."""
MARGIN = 256 << 20
"""Bytes that stay free on the disk."""
_CHUNK = 4 << 20
_SYNC_EVERY = 30.0
"""Seconds of a download that the machine's own crash may cost. A quick one is on disk only as what becomes of it."""
_REDIRECTS = 10

Told = Callable[[int, int], None]
"""Called with the bytes there are and, where it is known (else 0), how many there will be."""


Free = Callable[[Path], int]
"""Bytes that are free on the disk of a directory."""


class SourceChanged(ImageError):
    """The server has another version than the one that was begun with: it must be begun anew."""


class Source(Struct, frozen=True, kw_only=True):
    """`checksum` is as sha256:HEX. `headers` may hold secrets: they are neither kept nor told."""

    url: str
    headers: Mapping[str, str] = {}
    user: str = ""
    password: str = ""
    authorities: str = ""
    """Certificates (PEM) to trust beside the machine's."""
    checksum: str = ""


class _Note(Struct):
    url: str
    version: str = ""
    size: int = 0
    whole: int = 0
    """As the server said; 0: it did not."""
    synced: int = 0
    boot: str = ""
    done: bool = False


def free_in(directory: Path) -> int:
    return shutil.disk_usage(directory).free


async def fetch(
    source: Source, file: Path, *, most: int | None = None, stall: float = STALL, tell: Told | None = None,
    free: Free = free_in,
) -> None:  # fmt: skip
    """The whole of it is in `file` when this returns (what becomes of it is to be synced). ImageError says what stands
    in the way; calling again goes on where it ended. TooLarge when it has more than `most` bytes.

    Where no room is left, what there is stays only if it is known to be part of what there will be room for: else each
    new attempt would fill the disk, to no end."""
    note = _read(file, source.url)
    if note.done:
        return
    try:
        await _fetch(source, file, note, most=most, stall=stall, tell=tell or (lambda _has, _all: None), free=free)
    except (SourceChanged, TooLarge):
        forget(file)
        raise
    except NoRoom:
        if not note.whole:
            forget(file)
        raise
    except OSError as error:
        if error.errno == errno.ENOSPC:
            if not note.whole:
                forget(file)
            raise NoRoom(copying.told(error, file)) from error
        raise ImageError(f"{shown(source.url)}: {error.strerror or error}") from error


def forget(file: Path) -> None:
    """Begin anew next time."""
    file.unlink(missing_ok=True)
    _note_file(file).unlink(missing_ok=True)


def shown(url: str) -> str:
    """An address as it may be told: without a password, and without a query, which may be one."""
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"


async def _fetch(
    source: Source, file: Path, note: _Note, *, most: int | None, stall: float, tell: Told, free: Free
) -> None:  # fmt: skip
    import aiohttp

    has = note.size
    digest = await _digest_so_far(source.checksum, file, has)
    headers = {**source.headers, "Accept-Encoding": "identity"}
    if has and note.version:
        headers |= {"Range": f"bytes={has}-", "If-Range": note.version}
    else:
        has = 0
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=min(stall, 30.0), sock_read=stall)
    if source.user:
        code = base64.b64encode(f"{source.user}:{source.password}".encode()).decode()
        headers["Authorization"] = f"Basic {code}"  # a redirect to another server does not take it along
    name = shown(source.url)
    try:
        # Reading the machine's authorities takes some 0.03 s, which others of this loop would stand still for.
        connector = aiohttp.TCPConnector(ssl=await asyncio.to_thread(trust, source.authorities))
        async with (
            # As it was sent: what was asked for in its own form, and of the size that the server says.
            aiohttp.ClientSession(
                connector=connector, timeout=timeout, trust_env=True, auto_decompress=False
            ) as session,
            session.get(source.url, headers=headers, max_redirects=_REDIRECTS, read_bufsize=_CHUNK) as answer,
        ):
            total = _judge(answer, name, has=has)
            if answer.status == 200 and has:
                raise SourceChanged(f"{name} changed while it was read: it is read anew")
            if answer.status == 200:
                digest = _hasher(source.checksum)
            room = _Room(name, file, total=total, most=most, free=free)
            room.begin(has)
            note.version, note.whole = _version(answer.headers), total or 0
            await _save(answer, file, note, digest, room, has=has, total=total, tell=tell)
    except TimeoutError as error:
        raise ImageError(f"{name}: the server sent nothing for {stall:g} s: is it overloaded?") from error
    except aiohttp.ClientPayloadError as error:
        raise ImageError(f"{name}: the server ended too early, after {file.stat().st_size} bytes") from error
    except aiohttp.ClientError as error:
        raise ImageError(f"{name}: {_cause(error)}") from error
    if total is not None and file.stat().st_size != total:
        raise ImageError(f"{name}: the server ended too early, after {file.stat().st_size} of {total} bytes")
    if digest is not None:
        _compare(source.checksum, digest.hexdigest(), name, file)
    note.size, note.done = file.stat().st_size, True
    await asyncio.to_thread(_write, file, note)


async def _save(
    answer: "ClientResponse", file: Path, note: _Note, digest: Any, room: "_Room", *, has: int, total: int | None,
    tell: Told,
) -> None:  # fmt: skip
    import aiohttp

    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(descriptor, has)
        note.size = note.synced = has
        _write(file, note)
        at, pieces, loop = has, copying.Pieces(), asyncio.get_running_loop()
        due = loop.time() + _SYNC_EVERY
        try:
            async for chunk, _ in answer.content.iter_chunks():
                is_enough = pieces.add(chunk)
                room.arrived(at + pieces.size)
                if is_enough:
                    room.write(pieces.size, at)
                    at = await threads.to_its_end(_append, descriptor, pieces.taken(), at, digest)
                    tell(at, total or 0)
                    if loop.time() > due:
                        await threads.to_its_end(_sync, descriptor, file, note, at)
                        due = loop.time() + _SYNC_EVERY
        except (TimeoutError, OSError, aiohttp.ClientError):
            _append(descriptor, pieces.taken(), at, digest)  # what came is not asked for again
            raise
        room.write(pieces.size, at)
        at = await threads.to_its_end(_append, descriptor, pieces.taken(), at, digest)
        tell(at, total or at)
    finally:
        os.close(descriptor)


def _append(descriptor: int, pieces: list[bytes], at: int, digest: Any) -> int:
    if digest is not None:
        for each in pieces:
            digest.update(each)
    return copying.append(descriptor, pieces, at)


def _sync(descriptor: int, file: Path, note: _Note, at: int) -> None:
    os.fsync(descriptor)
    note.synced = at
    _write(file, note)


def _judge(answer: "ClientResponse", name: str, *, has: int) -> int | None:
    """The size of the whole, where the server says it."""
    if answer.status == 206:
        begin, _, rest = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")
        total = rest.partition("/")[2]
        if begin != str(has):
            raise ImageError(f"{name}: the server sent another part than the one it was asked for")
        return int(total) if total.isdigit() else None
    if answer.status == 416:
        raise SourceChanged(f"{name} became shorter while it was read: it is read anew")
    if answer.status == 404:
        raise ImageNotFound(f"{name}: the server has no such file (404): correct the url")
    if answer.status in (401, 403):
        raise ImageError(f"{name}: the server asks for a user and password ({answer.status}): name them in secretRef")
    if answer.status != 200:
        raise ImageError(f"{name}: the server answered {answer.status} {answer.reason}")
    return answer.content_length


def _version(headers: Mapping[str, str]) -> str:
    """What tells one version of the source from another, in a form that If-Range takes."""
    etag = headers.get("ETag", "")
    if etag and not etag.startswith("W/"):
        return etag
    return headers.get("Last-Modified", "")


def _cause(error: Exception) -> str:
    import ssl

    inner = getattr(error, "os_error", None) or getattr(error, "certificate_error", None)
    if isinstance(inner, ssl.SSLError) or "certificate" in str(error).lower():
        why = getattr(inner, "verify_message", "") or getattr(inner, "reason", "") or str(inner or error)
        return f"its certificate is not trusted ({why}): name the authority's in certConfigMap"
    return f"the server cannot be reached: {getattr(inner, 'strerror', None) or error}"


def trust(authorities: str) -> "ssl.SSLContext":
    """The machine's authorities, and these. ImageError when they are none."""
    import ssl

    context = ssl.create_default_context()
    if authorities:
        try:
            context.load_verify_locations(cadata=authorities)
        except ssl.SSLError as error:
            raise ImageError(f"certConfigMap holds no certificates in PEM form: {error.reason}") from error
    return context


class _Room:
    """What a download may take: never more than it is for, than the server said, or than the disk has."""

    def __init__(self, name: str, file: Path, *, total: int | None, most: int | None, free: Free) -> None:
        self._name, self._directory, self._total, self._most, self._free = name, file.parent, total, most, free

    def begin(self, has: int) -> None:
        """Before anything is written."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._bound(self._total or 0)
        more, free = (self._total or 0) - has, self._left()
        if self._total and more > free:
            raise NoRoom(
                f"{self._name} has {more >> 20} MiB more, and {max(0, free) >> 20} MiB are free for it in "
                f"{self._directory}: make room there"
            )

    def arrived(self, at: int) -> None:
        """So much came in all, written or not."""
        self._bound(at)
        if self._total is not None and at > self._total:
            raise TooLarge(f"{self._name}: the server sends more than the {self._total} bytes that it said: correct it")

    def write(self, size: int, at: int) -> None:
        """Before so much is written behind the `at` bytes that there are."""
        if size > self._left():
            of = f" of {self._total >> 20}" if self._total else ", and the server does not say how many there will be"
            raise NoRoom(
                f"{self._name}: no room is left in {self._directory} after {at >> 20} MiB{of}; {MARGIN >> 20} MiB stay "
                "free for all else on that disk: make room there"
            )

    def _bound(self, size: int) -> None:
        if self._most is not None and size > self._most:
            raise TooLarge(
                f"{self._name} is far larger than its claim: more than {self._most >> 20} MiB; ask for a larger claim, "
                "or correct the url"
            )

    def _left(self) -> int:
        return self._free(self._directory) - MARGIN


def _hasher(checksum: str) -> Any:
    return hashlib.new(checksum.partition(":")[0], usedforsecurity=False) if checksum else None


async def _digest_so_far(checksum: str, file: Path, has: int) -> Any:
    digest = _hasher(checksum)
    if digest is None or not has:
        return digest

    def read() -> None:
        with file.open("rb") as opened:
            while chunk := opened.read(_CHUNK):
                digest.update(chunk)

    await asyncio.to_thread(read)
    return digest


def _compare(checksum: str, found: str, name: str, file: Path) -> None:
    kind, _, wanted = checksum.partition(":")
    if found != wanted.lower():
        forget(file)
        raise CorruptImage(
            f"{name}: its {kind} is {found} and should be {wanted}: correct the checksum, or find out who changed it"
        )


def _note_file(file: Path) -> Path:
    return file.with_name(f"{file.name}.json")


def _read(file: Path, url: str) -> _Note:
    """What is there of this source, cut to what is surely there."""
    import msgspec

    fresh = _Note(url=url, boot=boot())
    try:
        note = msgspec.json.decode(_note_file(file).read_bytes(), type=_Note)
        size = file.stat().st_size
    except (OSError, msgspec.MsgspecError):
        return fresh
    note.done = note.done and note.boot == fresh.boot
    if note.url != url or (note.done and size < note.size):  # one that is done may have been grown already
        return fresh
    if not note.done:
        # After a crash of the machine only what was synced is sure; after a kill, all that was written.
        note.size = min(size, note.synced) if note.boot != fresh.boot else size
        os.truncate(file, note.size)
    note.boot = fresh.boot
    return note


def _write(file: Path, note: _Note) -> None:
    import msgspec

    temporary = file.with_name(f".{file.name}.json")
    temporary.write_bytes(msgspec.json.encode(note))
    temporary.rename(_note_file(file))


def boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def describe(file: Path) -> dict[str, Any]:
    """The note beside a file, for tests and people."""
    found: dict[str, Any] = json.loads(_note_file(file).read_bytes())
    return found
