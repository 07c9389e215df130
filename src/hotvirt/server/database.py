"""The state file: one SQLite database with an append-only table of revisions, in the manner of kine.

Each write adds a row; its id is the resourceVersion. The newest row of a key is the object, unless it is a tombstone.
A row knows the revision it replaced, so compaction needs no index besides the primary key.

Blocking, and one thread's at a time: `hotvirt.server.writer` owns it once a store runs. The file is locked for as long
as it is open, so a second process is refused. `synchronous=FULL`: what `commit` returned from survives power loss.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import apsw
from msgspec import Struct

from hotvirt.server.keys import Key

APPLICATION_ID = 0x68747631
FORMAT = 1
OLDEST_SQLITE = (3, 51, 3)  # older ones can corrupt a database when the WAL is reset
MAGIC = b"SQLite format 3\x00"
CHECKED_SIZE = (
    32 * 1024 * 1024
)  # a full check of more than this would delay the start; rows are read and checked anyway

TABLES = """
CREATE TABLE revisions(
  id INTEGER PRIMARY KEY, resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
  deleted INTEGER NOT NULL, previous INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE facts(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO facts VALUES('compacted', 0), ('revision', 0);
"""


class StateFileError(Exception):
    """The state file can't be used. The text names it, says why and what to do; the file was not changed."""


class InUse(StateFileError):
    """Another process has the state file open."""


class Full(Exception):
    """There is no room to write; nothing of the batch was stored."""


class Row(Struct, frozen=True, gc=False):
    """One revision. `previous` is the revision that it replaced, 0 for a creation. A tombstone (`deleted`) holds the
    object as it last was."""

    revision: int
    key: Key
    deleted: bool
    previous: int
    body: bytes


class Database:
    def __init__(self, path: Path) -> None:
        check_sqlite(apsw.sqlite_lib_version())
        self.path = path
        if not path.exists() or path.stat().st_size == 0:
            _create(path)
        check_file(path)
        with _in_words(path, "opened"):
            self._db = apsw.Connection(str(path))
            self._db.set_busy_timeout(250)
            self._prepare()

    def _prepare(self) -> None:
        db = self._db
        db.pragma("locking_mode", "EXCLUSIVE")
        if str(db.pragma("journal_mode", "WAL")).lower() != "wal":
            raise StateFileError(f"{self.path}: this file system can't hold a write-ahead log; put the home on another")
        db.pragma("synchronous", "FULL")
        with self._transaction():  # takes the lock now, not at the first write
            db.execute("UPDATE facts SET value = value WHERE name = 'compacted'")

    def close(self) -> None:
        self._db.close()

    def fact(self, name: str) -> int:
        for (value,) in self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)):
            return int(value)
        return 0

    def revision(self) -> int:
        """The highest revision that was ever stored."""
        (newest,) = next(iter(self._db.execute("SELECT max(id) FROM revisions")))
        return max(int(newest or 0), self.fact("revision"))

    def current(self) -> Iterator[Row]:
        """The newest row of each key that exists."""
        yield from _rows(
            self._db.execute(
                "SELECT id, resource, namespace, name, deleted, previous, body FROM revisions WHERE deleted = 0 "
                "AND id NOT IN (SELECT previous FROM revisions) ORDER BY id"
            )
        )

    def history(self, resource: str | None, *, after: int, upto: int) -> list[tuple[Row, bytes | None]]:
        """The rows in (after, upto], each with the body it replaced."""
        found = self._db.execute(
            "SELECT r.id, r.resource, r.namespace, r.name, r.deleted, r.previous, r.body, p.body "
            "FROM revisions r LEFT JOIN revisions p ON p.id = r.previous "
            "WHERE r.id > ? AND r.id <= ? AND (? IS NULL OR r.resource = ?) ORDER BY r.id",
            (after, upto, resource, resource),
        )
        return [(row, columns[7]) for columns in found for row in _rows([columns[:7]])]

    def commit(self, rows: Sequence[Row]) -> None:
        """All rows or none, durably."""
        try:
            with self._transaction():
                self._db.executemany(
                    "INSERT INTO revisions VALUES(?, ?, ?, ?, ?, ?, ?)",
                    ((r.revision, *r.key, int(r.deleted), r.previous, r.body) for r in rows),
                )
        except apsw.FullError as error:
            raise Full(str(error)) from error

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # SQLite may have rolled back by itself, when the disk is full for one
                self._db.execute("ROLLBACK")
            raise

    def compact(self, upto: int, *, rows: int = 500) -> bool:
        """Forgets history up to and including `upto`, at most `rows` revisions of it at a time; False when done. The
        newest revision of everything that exists stays, however old it is."""
        begin = self.fact("compacted")
        end = min(upto, begin + rows)
        if end <= begin:
            return False
        newest = self.revision()
        span = "id > ? AND id <= ?"
        try:
            with self._transaction():
                self._db.execute(
                    f"DELETE FROM revisions WHERE id IN (SELECT previous FROM revisions WHERE {span})",  # noqa: S608
                    (begin, end),
                )
                self._db.execute(f"DELETE FROM revisions WHERE deleted = 1 AND {span}", (begin, end))  # noqa: S608
                self._db.execute("UPDATE facts SET value = ? WHERE name = 'compacted'", (end,))
                self._db.execute("UPDATE facts SET value = ? WHERE name = 'revision'", (newest,))
        except apsw.FullError as error:
            raise Full(str(error)) from error
        return end < upto

    def begin_anew(self, *, after: int) -> None:
        """Forgets all history, and lets the next revision come after `after` too."""
        newest = max(self.revision(), after) + 1
        with self._transaction():
            self._db.execute("DELETE FROM revisions WHERE id IN (SELECT previous FROM revisions)")
            self._db.execute("DELETE FROM revisions WHERE deleted = 1")
            self._db.execute("UPDATE facts SET value = ? WHERE name IN ('compacted', 'revision')", (newest,))

    def backup(self, target: Path) -> None:
        """A complete copy, written beside `target` and then moved there."""
        partial = target.with_name(f".{target.name}.partial")
        partial.unlink(missing_ok=True)
        try:
            self._db.execute("VACUUM INTO ?", (str(partial),))
            partial.chmod(0o600)
            partial.replace(target)
        except apsw.FullError as error:
            raise Full(str(error)) from error
        finally:
            partial.unlink(missing_ok=True)

    def snapshot(self) -> BinaryIO:
        """A complete copy as an open file without a name: it is gone when it is closed, however this process ends."""
        copy = self.path.with_name(f".{self.path.name}.snapshot")
        self.backup(copy)
        try:
            return copy.open("rb")
        finally:
            copy.unlink()

    def limit_pages(self, pages: int) -> None:
        """The file may not grow beyond this many pages (0: no limit). For tests of a full disk."""
        self._db.pragma("max_page_count", pages or 4294967294)


def _create(path: Path) -> None:
    """Complete beside its place, then moved there: a crash leaves either no file or a good one. What the file is stands
    in its own header before there is a write-ahead log, so that it can be read without one."""
    partial = path.with_name(f".{path.name}.new")
    try:
        partial.unlink(missing_ok=True)
        db = apsw.Connection(str(partial))
        db.pragma("synchronous", "FULL")
        db.pragma("application_id", APPLICATION_ID)
        db.pragma("user_version", FORMAT)
        db.execute(f"BEGIN; {TABLES} COMMIT")
        db.close()
        partial.chmod(0o600)
        partial.replace(path)
        handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except (apsw.Error, OSError) as error:
        raise StateFileError(f"{path} can't be made: {error}; check the disk and the rights on it") from error


def check_file(path: Path, *, largest: int = CHECKED_SIZE) -> None:
    """Raises StateFileError when the file is none of ours, newer than this program, or damaged; it is not changed.
    What is in a file of more than `largest` bytes is not looked at."""
    check_header(path)
    if path.stat().st_size <= largest:
        _check_content(path)


def check_sqlite(version: str) -> None:
    numbers = tuple(int(part) for part in version.split(".")[:3])
    if numbers < OLDEST_SQLITE:
        wanted = ".".join(map(str, OLDEST_SQLITE))
        raise StateFileError(
            f"SQLite {version} can corrupt a database with a write-ahead log: install apsw with SQLite {wanted}+"
        )


def check_header(path: Path) -> None:
    """Looks at the file without SQLite, which might repair or recover before it is known to be ours."""
    with path.open("rb") as file:
        header = file.read(100)
    if len(header) < 100 or not header.startswith(MAGIC):
        raise _corrupt(path, "it is not a SQLite database")
    if int.from_bytes(header[68:72], "big") != APPLICATION_ID:
        raise StateFileError(f"{path} is a database of another program: name another home, or move the file away")
    written = int.from_bytes(header[60:64], "big")
    if written > FORMAT:
        raise StateFileError(
            f"{path} has format {written}, this version reads up to {FORMAT}: start the newer hotvirt that wrote it"
        )
    page = int.from_bytes(header[16:18], "big")
    expected = (65536 if page == 1 else page) * int.from_bytes(header[28:32], "big")
    wal = path.with_name(path.name + "-wal")
    has_log = wal.exists() and wal.stat().st_size > 0
    if not has_log and path.stat().st_size < expected:
        raise _corrupt(path, f"it is cut off: {path.stat().st_size} of {expected} bytes")


def _check_content(path: Path) -> None:
    """Read-only, so that a damaged file stays as it is."""
    with _in_words(path, "read"):
        db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        db.set_busy_timeout(250)
        try:
            found = [str(row[0]) for row in db.execute("PRAGMA quick_check(1)")]
        finally:
            db.close()
    if found != ["ok"]:
        raise _corrupt(path, found[0].splitlines()[-1])


@contextlib.contextmanager
def _in_words(path: Path, what: str) -> Iterator[None]:
    """What SQLite raises as what is wrong with the file. `what` could not be done: opened, read."""
    try:
        yield
    except apsw.BusyError as error:
        raise InUse(f"{path} is in use by another process: stop that one first") from error
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise _corrupt(path, error) from error
    except apsw.Error as error:
        raise StateFileError(f"{path} can't be {what}: {error}; check the disk and the rights on it") from error


def _corrupt(path: Path, why: object) -> StateFileError:
    return StateFileError(f"{path} is damaged ({why}); it was left as it is: restore a backup, or move it away")


def _rows(found: Iterable[tuple[Any, ...]]) -> Iterator[Row]:
    for revision, resource, namespace, name, deleted, previous, body in found:
        yield Row(revision, Key(resource, namespace, name), bool(deleted), previous, body)
