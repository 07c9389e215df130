"""Kubernetes quantities (`1500m`, `2Gi`, `3e6`) as exact numbers, and back. Pure."""

import re
from decimal import Decimal, InvalidOperation

_SUFFIXES = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1), "k": Decimal(10**3),
    "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12), "P": Decimal(10**15), "E": Decimal(10**18),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40), "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}  # fmt: skip
_SHAPE = re.compile(r"([+-]?[0-9]*\.?[0-9]*(?:[eE][+-]?[0-9]{1,2})?)([numkMGTPE]|[KMGTPE]i)?\Z")


def parse(value: object) -> Decimal:
    """ValueError when it is no quantity."""
    match = _SHAPE.match(str(value))
    if match is None or not match.group(1):
        raise ValueError(f"{value!r} is not a quantity: write a number such as 500m, 2 or 4Gi")
    try:
        return Decimal(match.group(1)) * _SUFFIXES[match.group(2) or ""]
    except InvalidOperation as error:
        raise ValueError(f"{value!r} is not a quantity: write a number such as 500m, 2 or 4Gi") from error


def amount(value: object) -> Decimal:
    """The same for what may be absent or broken: 0 then."""
    try:
        return parse(value) if value is not None else Decimal(0)
    except ValueError:
        return Decimal(0)


def show(value: Decimal, *, like: object = "") -> str:
    """As people write it: in the unit of `like` where that is exact, else in thousandths or whole."""
    suffix = str(like).lstrip("+-0123456789.")
    if suffix in _SUFFIXES and suffix and (whole := value / _SUFFIXES[suffix]) == whole.to_integral_value():
        return f"{int(whole)}{suffix}"
    for binary in ("Gi", "Mi", "Ki") if str(like).endswith("i") else ():
        if (whole := value / _SUFFIXES[binary]) == whole.to_integral_value() and whole:
            return f"{int(whole)}{binary}"
    if value == value.to_integral_value():
        return str(int(value))
    return f"{int((value * 1000).to_integral_value(rounding='ROUND_CEILING'))}m"
