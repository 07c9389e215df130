"""Wall-clock time as the API writes it: UTC, whole seconds, `2026-11-28T16:40:06Z`.

Everything that stamps an object is handed a `Clock`, so that tests choose the time. Waiting is never done by this
clock, but by the event loop's.
"""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


def stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse(text: str | None) -> datetime | None:
    """A stamp, with or without fractions of a second; None for what is absent or no time."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
