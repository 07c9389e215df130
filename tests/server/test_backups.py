"""A backup is taken from a server that runs, and put in the place of another state without anybody being misled."""

from pathlib import Path
from typing import Any

import pytest

from hotvirt.kube.errors import Gone
from hotvirt.server import backups
from hotvirt.server.database import StateFileError
from hotvirt.server.keys import Key
from hotvirt.server.store import Store

MAPS = "/configmaps"


async def _store(path: Path, *names: str) -> Store:
    store = await Store.open(path)
    for name in names:
        await store.put(Key(MAPS, "default", name), {"metadata": {"name": name}})
    return store


def _names(store: Store) -> list[str]:
    return [entry.key.name for entry in store.entries(MAPS)]


async def test_a_snapshot_leaves_nothing_behind(tmp_path: Path) -> None:
    store = await _store(tmp_path / "state.db", "a", "b")
    before = sorted(tmp_path.iterdir())
    with await store.snapshot() as copy:
        assert sorted(tmp_path.iterdir()) == before
        (tmp_path / "copy.db").write_bytes(copy.read())
    await store.close()
    again = await Store.open(tmp_path / "copy.db")
    assert _names(again) == ["a", "b"]
    await again.close()


async def test_what_was_restored_comes_back_and_what_it_replaced_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = await _store(path, "a")
    await store.backup(tmp_path / "monday.db")
    await store.put(Key(MAPS, "default", "b"), {"metadata": {"name": "b"}})
    await store.close()
    assert backups.restore(tmp_path / "monday.db", path) == tmp_path / "state.db.before-restore"
    store = await Store.open(path)
    assert _names(store) == ["a"]
    await store.close()
    backups.restore(tmp_path / "state.db.before-restore", path)  # the way back
    store = await Store.open(path)
    assert _names(store) == ["a", "b"]
    await store.close()
    left = sorted(each.name for each in tmp_path.iterdir() if not each.name.endswith(("-wal", "-shm")))
    assert left == ["monday.db", "state.db", "state.db.before-restore"]
    assert path.stat().st_mode & 0o777 == 0o600


async def test_revisions_of_the_replaced_state_are_gone_and_never_given_out_again(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = await _store(path, "a")
    await store.backup(tmp_path / "old.db")
    for _ in range(20):
        await store.put(Key(MAPS, "default", "a"), {"metadata": {"name": "a"}})
    seen = store.revision
    await store.close()
    backups.restore(tmp_path / "old.db", path)
    store = await Store.open(path)
    for since in (1, seen):
        with pytest.raises(Gone):
            await store.events_since(since, MAPS)
    begin = store.revision
    written = await store.put(Key(MAPS, "default", "c"), {"metadata": {"name": "c"}})
    assert written.revision > seen
    assert [event.key.name for event in await store.events_since(begin, MAPS)] == ["c"]
    await store.compact(store.revision)
    await store.close()
    store = await Store.open(path)
    assert _names(store) == ["a", "c"]
    await store.close()


async def test_a_damaged_state_can_be_replaced_and_a_damaged_backup_cannot_replace(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = await _store(path, "a")
    await store.backup(tmp_path / "good.db")
    await store.close()
    good = path.read_bytes()
    (tmp_path / "bad.db").write_bytes(good[: len(good) // 2])
    with pytest.raises(StateFileError, match=r"bad\.db is damaged"):
        backups.restore(tmp_path / "bad.db", path)
    assert path.read_bytes() == good
    path.write_bytes(b"nothing that anybody could read")
    path.with_name("state.db-wal").write_bytes(b"nor this")
    kept = backups.restore(tmp_path / "good.db", path)
    assert kept is not None
    assert kept.read_bytes().startswith(b"nothing")
    store = await Store.open(path)
    assert _names(store) == ["a"]
    assert store.revision > backups.UNKNOWN  # how far the damaged one was nobody knows
    await store.close()


async def test_a_state_that_is_in_use_is_not_replaced(tmp_path: Path, client: Any, server: Any) -> None:
    await server.backup(tmp_path / "copy.db")
    with pytest.raises(StateFileError, match="in use"):
        backups.restore(tmp_path / "copy.db", server.config.state_db)
