"""Kubernetes quantities: `1536Mi`, `1.5Gi`, `100m`, `2e3`.

Exact: a quantity is a Fraction, never a float. Source of the notation: Kubernetes API conventions, "resource.Quantity".
"""

import re
from fractions import Fraction
from functools import lru_cache

_BINARY = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "Pi": 1 << 50, "Ei": 1 << 60}
_DECIMAL = {
    "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "": Fraction(1), "k": Fraction(10**3),
    "M": Fraction(10**6), "G": Fraction(10**9), "T": Fraction(10**12), "P": Fraction(10**15), "E": Fraction(10**18),
}  # fmt: skip
_PATTERN = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]|[eE][+-]?[0-9]{1,3})?")
_LIMIT = 2**63 - 1
_LONGEST = 64
"""Characters. No amount needs more, and exact arithmetic on a hostile million of digits would take long."""


class QuantityError(ValueError):
    """The text says what is not a quantity and shows one that is."""


def parse(value: object) -> Fraction:
    """The exact amount of a quantity as JSON has it (a string, or a bare number)."""
    return _parsed(_text(value))


def _text(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise QuantityError(f"{value!r} is not a quantity: write it like 2Gi or 500m")
    return str(value)


@lru_cache(maxsize=4096)
def _parsed(text: str) -> Fraction:
    """The same few texts are read again and again, in every look at an object; refusals are not remembered."""
    match = _PATTERN.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        raise QuantityError(f"{text[:40]!r} is not a quantity: write it like 2Gi, 512Mi or 500m")
    number, suffix = Fraction(match[1]), match[2] or ""
    if suffix in _BINARY:
        amount = number * _BINARY[suffix]
    elif suffix in _DECIMAL:
        amount = number * _DECIMAL[suffix]
    else:
        amount = number * Fraction(10) ** int(suffix[1:])
    if abs(amount) > _LIMIT:
        raise QuantityError(f"{text[:40]!r} is beyond what a quantity can hold (2^63-1)")
    return amount


def parse_bytes(value: object) -> int:
    """Whole bytes (or whole units), rounded up as Kubernetes does."""
    return _whole(_text(value), 1)


def parse_cpu(value: object) -> int:
    """Thousandths, rounded up: `250m` of CPU is 250."""
    return _whole(_text(value), 1000)


@lru_cache(maxsize=4096)
def _whole(text: str, parts: int) -> int:
    return -int(-(_parsed(text) * parts) // 1)


def format_bytes(amount: int) -> str:
    """The shortest exact binary form: 1073741824 -> `1Gi`, 1000 -> `1000`."""
    for suffix, factor in reversed(_BINARY.items()):
        if amount and amount % factor == 0:
            return f"{amount // factor}{suffix}"
    return str(amount)


def format_cpu(amount: int) -> str:
    """1000 -> `1`, 250 -> `250m`."""
    return str(amount // 1000) if amount % 1000 == 0 else f"{amount}m"
