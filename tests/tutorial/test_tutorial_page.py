"""The page and those who walk it keep in step: every command is known, and none is known that the page has not."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"


@pytest.fixture(scope="module")
def walk() -> Any:
    """The walker imports what is beside it, as a script does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        import walk as found

        yield found
    for name in ("walk", "steps"):
        del sys.modules[name]


def test_every_command_of_the_page_is_known_and_there_is_no_other(walk: Any) -> None:
    told = [command for _, command in walk.commands(PAGE.read_text())]
    used = [walk.step_of(command) for command in told]
    assert len(told) > 40
    assert [step.command for step in walk.STEPS if step not in used] == []


def test_a_command_that_goes_on_over_lines_is_one(walk: Any) -> None:
    page = "## 1. A\n\n    one \\\n      two\n    three\n\ntext\n\n## 2. B\n\n    four\n"
    told = [("1. A", "one \\\n  two"), ("1. A", "three"), ("2. B", "four")]
    assert list(walk.commands(page)) == told


def test_a_command_that_nobody_knows_is_told(walk: Any) -> None:
    with pytest.raises(walk.Strayed, match=re.escape("'rm -rf'")):
        walk.step_of("rm -rf")
