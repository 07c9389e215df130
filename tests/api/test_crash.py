"""SIGKILL under concurrent writes: what was acknowledged is there, whole, and a watcher that goes on missed nothing.
`benchmarks/crash.py` has the machinery, and runs it in full: 300 kills."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

KILLS = 15
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "crash.py"


@pytest.fixture(scope="module")
def crash() -> ModuleType:
    spec = importlib.util.spec_from_file_location("crash", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_nothing_acknowledged_is_lost(crash: ModuleType, tmp_path: Path) -> None:
    seen = await crash.crash(tmp_path, kills=KILLS, seed=11)
    assert seen.writes > KILLS * 5, "hardly anything was written: nothing was tried"
    assert seen.events >= seen.writes * 0.9


def test_a_torn_object_would_be_seen(crash: ModuleType) -> None:
    obj = crash.sealed(crash.PATHS[0], "a", 5)
    crash.check_seal(obj)
    obj["data"]["text"] = obj["data"]["text"][:-1]
    with pytest.raises(AssertionError, match="torn"):
        crash.check_seal(obj)


def test_a_missed_or_doubled_event_would_be_seen(crash: ModuleType) -> None:
    path, seen = crash.PATHS[0], crash.Seen()
    obj = crash.sealed(path, "a", 5)
    obj["metadata"]["resourceVersion"] = "7"
    crash._take(seen, path, {"type": "ADDED", "object": obj})
    with pytest.raises(AssertionError, match="twice"):
        crash._take(seen, path, {"type": "MODIFIED", "object": obj})
    obj["metadata"]["resourceVersion"] = "9"
    with pytest.raises(AssertionError, match="it was known"):
        crash._take(seen, path, {"type": "ADDED", "object": obj})
