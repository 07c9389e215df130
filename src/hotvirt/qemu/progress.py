"""How a live change tells how far it is, and how often it looks where no event tells it. Pure."""

from collections.abc import Callable, Iterator

from msgspec import Struct


class Progress(Struct, frozen=True):
    """`current` of `target`, in `unit` (bytes or vCPUs)."""

    current: int
    target: int
    unit: str


Report = Callable[[Progress], None]
"""Called on the loop, often: must be quick, and must not raise."""


def pauses(first: float = 0.01, *, longest: float = 0.5, growth: float = 1.5) -> Iterator[float]:
    """Seconds to wait before each next look: soon at first, since most changes take a few milliseconds."""
    pause = first
    while True:
        yield pause
        pause = min(pause * growth, longest)
