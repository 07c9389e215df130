"""Durations as KubeVirt's API spells them (Go's notation): `90s`, `5m0s`, `1h30m`, `250ms`. Pure."""

import re

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
LONGEST = 290 * 365 * 86400.0
"""As many years as the notation can hold."""


def seconds(text: str) -> float:
    """ValueError says what a duration looks like."""
    rest = text.removeprefix("+")
    parts = list(_PART.finditer(rest))
    if rest == "0":
        return 0.0
    if len(text) > 64 or not parts or "".join(part[0] for part in parts) != rest:
        raise ValueError(f"{text[:40]!r} is not a duration such as 30s, 5m or 1h30m")
    total = sum(float(part[1]) * _UNITS[part[2]] for part in parts)
    if total > LONGEST:
        raise ValueError(f"{text[:40]!r} is longer than a duration can be")
    return total
