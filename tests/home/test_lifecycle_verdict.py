"""The benchmark's word on a home's memory: what fills, what is flat, what leaks."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def lifecycle() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        spec = importlib.util.spec_from_file_location("lifecycle_benchmark", BENCHMARKS / "lifecycle.py")
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


@pytest.mark.parametrize(
    ("memory", "word"),
    [
        ([80, 81, 80.5, 82, 81, 81.5, 80, 81, 81], "flat"),
        ([80, 84, 87, 89, 90, 90.5, 91, 92.2, 93, 92.8], "a cache that fills"),
        ([80, 82, 84, 86, 88, 90, 92, 94, 96], "A LEAK"),
        ([80, 81, 80, 81, 80, 82, 84, 86, 88], "A LEAK"),
        ([80, 85, 80, 86, 95, 81, 84, 80, 87], "flat"),
    ],
)
def test_the_word_on_memory(lifecycle: Any, memory: list[float], word: str) -> None:
    assert lifecycle.verdict([(25 * i, each) for i, each in enumerate(memory)]).startswith(word)
