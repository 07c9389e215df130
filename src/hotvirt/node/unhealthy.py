"""The note, in its pod's directory, that a guest's liveness probe failed: it is to be stopped, whatever home runs."""

from datetime import datetime

from msgspec import DecodeError, Struct, json

from hotvirt.node.places import PodPlace


class Note(Struct, frozen=True):
    since: datetime
    words: str


def write(place: PodPlace, words: str, *, now: datetime) -> bool:
    """Whether there was a directory to leave it in: not so once the pod is cleaned up."""
    temporary = place.directory / ".unhealthy"
    try:
        temporary.write_bytes(json.encode(Note(now, words)))
        temporary.rename(place.unhealthy)
    except FileNotFoundError:
        return False
    return True


def read(place: PodPlace) -> Note | None:
    try:
        return json.decode(place.unhealthy.read_bytes(), type=Note)
    except (FileNotFoundError, DecodeError):
        return None
