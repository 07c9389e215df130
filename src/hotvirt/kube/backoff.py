"""How long to wait after the n-th failure in a row. Pure; randomness is handed in."""

from collections.abc import Callable
from random import random

from msgspec import Struct


class Backoff(Struct, frozen=True):
    """`base` seconds after the first failure, times `factor` after each further one, never above `cap`. With
    `jitter` 0.2 the result is up to 20 % longer, so that many who failed together do not return together."""

    base: float
    cap: float
    factor: float = 2.0
    jitter: float = 0.0

    def delay(self, failures: int, draw: Callable[[], float] = random) -> float:
        if failures <= 0:
            return 0.0
        # The exponent is bounded first: a key may fail for months, and 2.0 ** 1100 overflows.
        exact = min(self.cap, self.base * self.factor ** min(failures - 1, 64))
        return exact * (1.0 + self.jitter * draw()) if self.jitter else exact
