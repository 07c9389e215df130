"""Where the items of a merged list stand."""

import pytest

from hotvirt.server.patches.orders import applied


@pytest.mark.parametrize(
    ("before", "wished", "after"),
    [
        ("", "ba", "ba"), ("ab", "", "ab"), ("ab", "ba", "ba"),
        ("x", "y", "xy"),  # another's first
        ("abc", "ca", "bca"),  # b was in front of c
        ("abd", "cd", "abcd"),
        ("abd", "acd", "abcd"),
        ("ab", "xby", "axby"),
    ],
)  # fmt: skip
def test_after_an_apply(before: str, wished: str, after: str) -> None:
    assert "".join(applied(before, wished)) == after
