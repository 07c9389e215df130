"""Many machines over a restart of the home, guests that all start, pause, restart and stop at once, and one that is
started and stopped again and again. `benchmarks/lifecycle.py` has the machinery, and does it in full."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = [pytest.mark.guest, pytest.mark.timeout(400)]
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
GROWTH = 12.0
"""MiB that a home may grow in a few starts and stops: caches that fill, not what each start leaves."""


@pytest.fixture
def lifecycle(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("lifecycle", BENCHMARKS / "lifecycle.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_machines_in_mixed_states_are_reconciled_after_a_kill(lifecycle: ModuleType) -> None:
    async with lifecycle.Home() as home:
        took = await lifecycle.restart(home, 200)
    seconds, cpu = took["all are reconciled"]
    assert cpu < 5, f"{cpu:.1f} s of CPU for 200 machines (all were reconciled after {seconds:.1f} s)"


async def test_guests_that_act_all_at_once_do_not_get_stuck(lifecycle: ModuleType) -> None:
    async with lifecycle.Home() as home:
        await lifecycle.crowd(home, 4)


async def test_starts_and_stops_leave_nothing_behind(lifecycle: ModuleType) -> None:
    async with lifecycle.Home() as home:
        found, _ = await lifecycle.cycles(home, 8, boots=8, window=100)  # too few for the word on memory
        open_now = sorted(lifecycle.descriptors(Path(f"/proc/{home.pid}")))
    memory = found.pop("memory, MiB")
    left = {what: (before, after) for what, (before, after) in found.items() if after > before}
    assert not left, f"more than before: {left}; descriptors at the end: {open_now}"
    assert memory[1] - memory[0] < GROWTH
