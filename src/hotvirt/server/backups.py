"""Copies of the state: one sent over HTTP, and one put in the place of a home's state file.

`send` runs on the event loop and reads in a thread. `restore` is blocking, and for a state file that no process has
open.
"""

import asyncio
import os
import shutil
from pathlib import Path
from typing import BinaryIO

import apsw
from aiohttp import web

from hotvirt.server.database import Database, InUse, StateFileError, check_file

PART = 256 * 1024
UNKNOWN = 1_000_000_000
"""How far revisions go ahead of a backup's when it is not known how far the replaced file's had come."""


async def send(request: web.Request, copy: BinaryIO) -> web.StreamResponse:
    """The file, which is closed afterwards. Its size is told first, so that a client notices when it breaks off."""
    with copy:
        size = os.fstat(copy.fileno()).st_size
        response = web.StreamResponse(
            headers={
                "Content-Type": "application/vnd.sqlite3",
                "Content-Length": str(size),
                "Cache-Control": "no-store",
            }
        )
        await response.prepare(request)
        while request.method != "HEAD" and (part := await asyncio.to_thread(copy.read, PART)):
            await response.write(part)
        await response.write_eof()
        return response


def restore(source: Path, target: Path) -> Path | None:
    """Puts a copy of `source` in the place of the state file `target`, in one step: a crash leaves the one or the
    other. Where the replaced file is kept, None when there was none. StateFileError: nothing was replaced.

    Revisions go on after both files', and what came before is marked as forgotten: a client that comes back with a
    revision of the replaced state is told to list again, instead of being shown changes to what it believes is there.
    """
    check_file(source, largest=1 << 62)
    if (log := _logs(source)[0]).exists() and log.stat().st_size:
        raise StateFileError(f"{source} was not closed, part of it is in {log.name}: name a file of 'hotvirt backup'")
    replaced = _settle(target)
    partial, kept = target.with_name(f".{target.name}.restored"), target.with_name(f"{target.name}.before-restore")
    try:
        partial.unlink(missing_ok=True)
        shutil.copyfile(source, partial)
        partial.chmod(0o600)
        database = Database(partial)
        try:
            database.begin_anew(after=database.revision() + UNKNOWN if replaced is None else replaced)
        finally:
            database.close()
        _sync(partial)
        had = target.exists()
        if had:
            _keep(target, kept)
        partial.replace(target)
        _sync(target.parent)
    except (OSError, apsw.Error) as error:
        raise StateFileError(f"{target} can't be replaced: {error}; check the disk and the rights on it") from error
    finally:
        for each in (partial, *_logs(partial)):
            each.unlink(missing_ok=True)
    return kept if had else None


def _settle(target: Path) -> int | None:
    """The revision of the file to be replaced, with its write-ahead log folded in; None when it can't be read, which
    may be why a backup is restored."""
    if not target.exists():
        return 0
    try:
        database = Database(target)
    except InUse:
        raise
    except StateFileError:
        return None
    try:
        return database.revision()
    finally:
        database.close()


def _keep(target: Path, kept: Path) -> None:
    """A second name for what is about to be replaced. The log of a file that can't be read goes with it: it must not
    be taken for the new file's."""
    for each in (kept, *_logs(kept)):
        each.unlink(missing_ok=True)
    for log, kept_log in zip(_logs(target), _logs(kept), strict=True):
        if log.exists() and log.stat().st_size and not log.name.endswith("-shm"):
            log.replace(kept_log)
        else:
            log.unlink(missing_ok=True)
    try:
        os.link(target, kept)
    except OSError:  # a file system without links
        shutil.copyfile(target, kept)
        kept.chmod(0o600)


def _logs(path: Path) -> tuple[Path, Path]:
    return path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
