"""CEL's string library (version 4: charAt, split, format, ...) over Python texts. Pure.

The library's own extension can't stand beside Kubernetes' `list.indexOf`: a function's overloads come from one place.
ValueError has the words that a person gets to see.
"""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", "\\": "\\\\",
            '"': '\\"'}  # fmt: skip
_WIDEST = 200
_UPPER = {ord(c): ord(c.upper()) for c in "abcdefghijklmnopqrstuvwxyz"}
_LOWER = {upper: lower for lower, upper in _UPPER.items()}


def char_at(text: str, index: int) -> str:
    if not 0 <= index <= len(text):
        raise ValueError(f"index out of range: {index}")
    return text[index : index + 1]


def index_of(where: Any, what: Any, start: int = 0) -> int:
    """Of a text in a text, or of an element in a list."""
    if isinstance(where, list):
        return next((index for index, each in enumerate(where) if same(each, what)), -1)
    if not 0 <= start <= len(where):
        raise ValueError(f"index out of range: {start}")
    return int(where.find(what, start))


def last_index_of(where: Any, what: Any, start: int | None = None) -> int:
    if isinstance(where, list):
        return next((index for index in reversed(range(len(where))) if same(where[index], what)), -1)
    if start is None:
        return int(where.rfind(what))
    if not 0 <= start <= len(where):
        raise ValueError(f"index out of range: {start}")
    return int(where.rfind(what, 0, start + len(what)))


def same(left: Any, right: Any) -> bool:
    """CEL's equality: true is not 1."""
    if isinstance(left, bool) is not isinstance(right, bool):
        return False
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return bool(left == right)


def join(parts: list[Any], between: str = "") -> str:
    if not all(isinstance(part, str) for part in parts):
        raise ValueError("no such overload: join needs a list of strings")
    return between.join(parts)


def lower_ascii(text: str) -> str:
    return text.translate(_LOWER)


def upper_ascii(text: str) -> str:
    return text.translate(_UPPER)


def replace(text: str, old: str, new: str, most: int = -1) -> str:
    return text.replace(old, new, most if most >= 0 else -1)


def split(text: str, at: str, most: int = -1) -> list[str]:
    if most in (0, 1):
        return [text] if most else []
    if not at:
        return list(text) if most < 0 or len(text) <= most else [*text[: most - 1], text[most - 1 :]]
    return text.split(at, most - 1 if most > 0 else -1)


def substring(text: str, start: int, end: int | None = None) -> str:
    end = len(text) if end is None else end
    if not 0 <= start <= len(text):
        raise ValueError(f"index out of range: {start}")
    if not 0 <= end <= len(text):
        raise ValueError(f"index out of range: {end}")
    if start > end:
        raise ValueError(f"invalid substring range. start: {start}, end: {end}")
    return text[start:end]


def trim(text: str) -> str:
    return text.strip()


def quote(text: str) -> str:
    return '"' + "".join(_ESCAPES.get(c, c) for c in text) + '"'


# -- format


def formatted(pattern: str, arguments: list[Any]) -> str:
    """%s %d %f %e %b %o %x %X %%, with a precision for %f and %e."""
    out: list[str] = []
    rest = iter(arguments)
    at = 0
    while at < len(pattern):
        if pattern[at] != "%":
            end = pattern.find("%", at)
            end = len(pattern) if end < 0 else end
            out.append(pattern[at:end])
            at = end
            continue
        verb, precision, at = _verb(pattern, at + 1)
        if verb == "%":
            out.append("%")
            continue
        try:
            value = next(rest)
        except StopIteration:
            raise ValueError(f"index {len(arguments)} out of range") from None
        out.append(_VERBS[verb](value, precision))
    return "".join(out)


def _verb(pattern: str, at: int) -> tuple[str, int, int]:
    digits = ""
    if pattern[at : at + 1] == ".":
        at += 1
        while at < len(pattern) and pattern[at] in "0123456789":
            digits += pattern[at]
            at += 1
    verb = pattern[at : at + 1]
    if verb not in _VERBS and verb != "%":
        raise ValueError(f'could not parse formatting clause: unrecognized formatting clause "{verb}"')
    precision = int(digits or 6)
    if precision > _WIDEST:
        raise ValueError(f"precision {precision} is more than {_WIDEST}")
    return verb, precision, at + 1


def _string(value: Any, _: int = 0) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, float):
        return _double(value)
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode("utf-8", "replace")
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return f"{_double(value.total_seconds())}s"
    if isinstance(value, list):
        return "[" + ", ".join(map(_string, value)) + "]"
    if isinstance(value, dict):
        if "" in value and "is" in value:  # one of Kubernetes' own types
            return _string(value["is"])
        return "{" + ", ".join(sorted(f"{_string(k)}: {_string(v)}" for k, v in value.items())) + "}"
    return str(value)


def _double(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return str(int(value)) if value.is_integer() and abs(value) < 1e21 else repr(value)


def _decimal(value: Any, _: int) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("error during formatting: decimal clause can only be used on integers")
    return str(value) if isinstance(value, int) else _double(value)


def _fixed(verb: str) -> Any:
    def write(value: Any, precision: int) -> str:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError("error during formatting: fixed-point and scientific clauses are for numbers")
        return format(float(value), f".{precision}{verb}") if math.isfinite(value) else _double(float(value))

    return write


def _based(base: str) -> Any:
    def write(value: Any, _: int) -> str:
        if isinstance(value, str | bytes | bytearray) and base in "xX":
            text = (value.encode() if isinstance(value, str) else bytes(value)).hex()
            return text.upper() if base == "X" else text
        if not isinstance(value, int) or (isinstance(value, bool) and base != "b"):
            raise ValueError(f"error during formatting: %{base} is for integers")
        return format(int(value), base)

    return write


_VERBS: dict[str, Any] = {
    "s": _string, "d": _decimal, "f": _fixed("f"), "e": _fixed("e"),
    "b": _based("b"), "o": _based("o"), "x": _based("x"), "X": _based("X"),
}  # fmt: skip
