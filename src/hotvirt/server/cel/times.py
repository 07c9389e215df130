"""Points in time and durations: from the texts of documents, and into the form in which the CEL library takes them.

The protobuf package, which comes with the library, is imported on first use. ValueError when a text is neither.
"""

import re
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any

_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9,
          "d": 24 * 3600 * 10**9, "w": 7 * 24 * 3600 * 10**9}  # fmt: skip
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(ns|us|µs|ms|[smhdw])", re.ASCII)
_LEAP = re.compile(r":60(?=[.Zz+-])")


@cache
def _messages() -> tuple[Any, Any]:
    from google.protobuf import duration_pb2, timestamp_pb2

    return timestamp_pb2.Timestamp, duration_pb2.Duration


def timestamp(text: str) -> Any:
    """Of RFC 3339, or a date alone."""
    if len(text) == 10:
        found = datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
    else:
        found = datetime.fromisoformat(_LEAP.sub(":59", text).upper())
    return to_cel(found if found.tzinfo else found.replace(tzinfo=UTC))


def duration(text: str) -> Any:
    """As Go writes them: 1h30m, -1.5s, 100ms."""
    sign = -1 if text.startswith("-") else 1
    body = text.lstrip("+-")
    parts = _PART.findall(body)
    if body != "0" and ("".join(f"{number}{unit}" for number, unit in parts) != re.sub(r"\s", "", body) or not parts):
        raise ValueError(f"{text!r} is no duration: write one such as 1h30m")
    nanos = sign * sum(int(float(number) * _UNITS[unit]) for number, unit in parts)
    seconds, rest = divmod(abs(nanos), 10**9)
    return _messages()[1](seconds=seconds * (1 if nanos >= 0 else -1), nanos=rest * (1 if nanos >= 0 else -1))


def to_cel(value: Any) -> Any:
    """A value that an evaluation gave, or a function made, as a value for the next."""
    if isinstance(value, datetime):
        found = _messages()[0]()
        found.FromDatetime(value)
        return found
    if isinstance(value, timedelta):
        found = _messages()[1]()
        found.FromTimedelta(value)
        return found
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, list):
        return [to_cel(each) for each in value]
    if isinstance(value, dict):
        return {key: to_cel(each) for key, each in value.items()}
    return value
