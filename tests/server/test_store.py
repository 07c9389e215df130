"""The store keeps what it acknowledged, in order, and refuses files it can't trust."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hotvirt.kube.errors import Gone, StorageFull
from hotvirt.server import database
from hotvirt.server.database import Database, StateFileError
from hotvirt.server.events import Event
from hotvirt.server.keys import Key
from hotvirt.server.store import Store

MAPS = "/configmaps"


def key(name: str, namespace: str = "default") -> Key:
    return Key(MAPS, namespace, name)


def doc(name: str, **fields: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, **fields}


async def test_a_write_is_there_after_reopening(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "state.db")
    first = await store.put(key("a"), doc("a", x=1))
    second = await store.put(key("a"), doc("a", x=2))
    await store.put(key("b"), doc("b"))
    await store.remove(key("b"), doc("b"))
    assert (first.revision, second.revision, store.revision) == (1, 2, 4)
    await store.close()

    again = await Store.open(tmp_path / "state.db")
    found = again.get(key("a"))
    assert found is not None
    assert again.doc(found) == {"metadata": {"name": "a", "resourceVersion": "2"}, "x": 2}
    assert again.get(key("b")) is None
    assert again.revision == 4
    assert (await again.put(key("c"), doc("c"))).revision == 5
    await again.close()


async def test_events_come_in_order_of_revision_and_only_once_durable(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "state.db")
    heard: list[Event] = []
    store.listen(MAPS, heard.append)
    writes = [store.put(key(f"n{i}"), doc(f"n{i}")) for i in range(50)]
    assert store.count(MAPS) == 0  # nothing is visible before it is on disk
    await asyncio.gather(*writes)
    assert [event.revision for event in heard] == list(range(1, 51))
    await store.close()


async def test_a_watch_resumes_after_a_restart_from_history_on_disk(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "state.db")
    await store.put(key("a"), doc("a", x=1))
    await store.put(key("a"), doc("a", x=2))
    await store.remove(key("a"), doc("a", x=2))
    await store.close()
    again = await Store.open(tmp_path / "state.db")
    events = await again.events_since(1, MAPS)
    assert [(e.type, e.revision) for e in events] == [("MODIFIED", 2), ("DELETED", 3)]
    assert events[0].before_doc is not None
    assert events[0].before_doc["x"] == 1
    await again.close()


async def test_the_past_can_be_listed_until_it_is_compacted(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "state.db")
    for name in ("a", "b"):
        await store.put(key(name), doc(name, x=1))
    await store.put(key("a"), doc("a", x=2))
    await store.remove(key("b"), doc("b"))
    past = await store.list_at(MAPS, "", 2)
    assert [store.doc(entry)["x"] for entry in past] == [1, 1]
    await store.compact(3)
    with pytest.raises(Gone):
        await store.list_at(MAPS, "", 2)
    await store.close()
    again = await Store.open(tmp_path / "state.db")  # compaction leaves what exists
    assert [entry.key.name for entry in again.entries(MAPS)] == ["a"]
    assert again.compacted == 3
    await again.close()


async def test_revisions_never_repeat_when_everything_was_compacted(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "state.db")
    await store.put(key("a"), doc("a"))
    await store.remove(key("a"), doc("a"))
    await store.compact(2)
    await store.close()
    again = await Store.open(tmp_path / "state.db")
    assert (await again.put(key("b"), doc("b"))).revision == 3
    await again.close()


async def test_old_history_goes_by_itself_with_time_and_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hotvirt.server.store.COMPACT_EVERY", 10)
    monkeypatch.setattr("hotvirt.server.store.KEPT_REVISIONS", 20)
    now = 0.0
    store = await Store.open(tmp_path / "state.db", clock=lambda: now)
    for i in range(40):
        await store.put(key("a"), doc("a", x=i))
    assert store.compacted == 0  # not old enough
    now = 1000.0
    for i in range(40):
        await store.put(key("a"), doc("a", x=i))
    assert 20 <= store.compacted <= 60
    await store.close()


async def test_a_full_disk_refuses_writes_and_serves_reads(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "state.db")
    await store.put(key("a"), doc("a"))
    await store.run(lambda db: db.limit_pages(8))
    writes = [store.put(key(f"n{i}"), doc(f"n{i}", x="y" * 4000)) for i in range(100)]
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert isinstance(results[-1], StorageFull)
    assert "free space" in str(results[-1])
    assert store.get(key("a")) is not None
    seen = store.revision
    await store.run(lambda db: db.limit_pages(0))
    assert (await store.put(key("later"), doc("later"))).revision > seen
    await store.close()


async def test_a_cancelled_writer_keeps_others_off_the_key_until_its_write_is_visible(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "state.db")

    async def write() -> None:
        async with store.locked(key("a")):
            await store.put(key("a"), doc("a"))

    task = asyncio.create_task(write())
    await asyncio.sleep(0)  # it holds the key and has handed over its write
    task.cancel()
    async with store.locked(key("a")):
        assert store.get(key("a")) is not None
    with pytest.raises(asyncio.CancelledError):
        await task
    await store.close()


async def test_a_backup_is_a_complete_store(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "state.db")
    await store.put(key("a"), doc("a"))
    await store.backup(tmp_path / "copy.db")
    await store.put(key("b"), doc("b"))
    await store.close()
    copy = await Store.open(tmp_path / "copy.db")
    assert [entry.key.name for entry in copy.entries(MAPS)] == ["a"]
    await copy.close()


async def _made(path: Path) -> bytes:
    store = await Store.open(path)
    for i in range(20):
        await store.put(key(f"n{i}"), doc(f"n{i}", x="y" * 3000))
    await store.close()
    return path.read_bytes()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: b"not a database at all" * 100, "not a SQLite database"),
        (lambda data: data[: len(data) // 2], "cut off"),
        (lambda data: data[:60] + (99).to_bytes(4, "big") + data[64:], "format 99"),
        (lambda data: data[:68] + bytes(4) + data[72:], "another program"),
        (lambda data: data[:4096] + b"\xff" * 8192 + data[12288:], "damaged"),
    ],
    ids=["garbage", "cut off", "newer", "foreign", "torn pages"],
)
async def test_a_file_that_cannot_be_trusted_is_refused_and_left_alone(tmp_path: Path, damage: Any, words: str) -> None:
    path = tmp_path / "state.db"
    damaged = damage(await _made(path))
    path.write_bytes(damaged)
    with pytest.raises(StateFileError, match=words) as refusal:
        await Store.open(path)
    assert str(path) in str(refusal.value)
    assert path.read_bytes() == damaged


def test_an_old_sqlite_is_refused() -> None:
    database.check_sqlite("3.51.3")
    with pytest.raises(StateFileError, match=r"SQLite 3\.40\.1 can corrupt"):
        database.check_sqlite("3.40.1")


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    held = Database(tmp_path / "state.db")
    opened = "import sys; from pathlib import Path; from hotvirt.server.database import Database, StateFileError\n"
    opened += "try: Database(Path(sys.argv[1]))\nexcept StateFileError as error: print(error)"
    done = subprocess.run([sys.executable, "-c", opened, str(tmp_path / "state.db")], capture_output=True, text=True)
    held.close()
    assert "in use by another process" in done.stdout


_WRITER = """
import asyncio, sys
from pathlib import Path
from hotvirt.server.keys import Key
from hotvirt.server.store import Store

async def main():
    store = await Store.open(Path(sys.argv[1]))
    async def write(lane):
        for i in range(100000):
            name = f"l{lane}-{i}"
            entry = await store.put(Key("/configmaps", "default", name), {"metadata": {"name": name}, "x": "y" * 500})
            sys.stdout.write(f"{name} {entry.revision}\\n")
            sys.stdout.flush()
    await asyncio.gather(*(write(lane) for lane in range(8)))

asyncio.run(main())
"""


def _killed_after(path: Path, lines: int) -> list[str]:
    """What the writer reported before it was killed."""
    with subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = [process.stdout.readline() for _ in range(lines)]
        os.kill(process.pid, signal.SIGKILL)
        return told + [line for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]


@pytest.mark.parametrize("lines", [1, 40, 200])
async def test_kill_9_under_load_loses_nothing_that_was_acknowledged(tmp_path: Path, lines: int) -> None:
    """The process is killed while its writers run; every write it reported is there, whole, under its revision."""
    path = tmp_path / "state.db"
    told = _killed_after(path, lines)
    store = await Store.open(path)
    for line in told:
        name, revision = line.split()
        entry = store.get(key(name))
        assert entry is not None, f"{name} was acknowledged and is gone"
        assert entry.revision == int(revision)
        assert store.doc(entry)["x"] == "y" * 500
    seen = [event.revision for event in await store.events_since(0)]
    assert seen == sorted(seen)
    assert {int(line.split()[1]) for line in told} <= set(seen)
    await store.close()
