"""Where two documents differ, field by field, and the merge patch from one to the other. Pure.

Lists whose entries have names are compared by name: `domain.devices.disks[root].disk.bus`. What is absent, null or an
empty list is the same; an empty map is not, since it chooses (`masquerade: {}`).
"""

from collections.abc import Iterator
from typing import Any

from msgspec import Struct, json

SECRET = ("userData", "networkData", "userDataBase64", "networkDataBase64")
LONGEST = 60


class Difference(Struct, frozen=True):
    path: str
    old: Any
    new: Any

    def __str__(self) -> str:
        if any(word in self.path for word in SECRET):
            return f"{self.path} changed"
        return f"{self.path}: {shown(self.old)} -> {shown(self.new)}"


def diff(old: Any, new: Any, path: str = "") -> Iterator[Difference]:
    """The smallest fields that differ, in order of their names. A list's entry that is new or gone is one."""
    if old == new or (_is_empty(old) and _is_empty(new)):
        return
    if (mine := _as_map(old, new)) is not None and (theirs := _as_map(new, old)) is not None:
        inner = [
            each
            for key in sorted(mine.keys() | theirs.keys())
            for each in diff(mine.get(key), theirs.get(key), f"{path}.{key}" if path else str(key))
        ]
        # A map whose entries are all empty lists chooses as much as an empty one does.
        yield from inner or ([] if (old is None) == (new is None) else [Difference(path, old, new)])
    elif (mine := _by_name(old)) is not None and (theirs := _by_name(new)) is not None:
        for name in sorted(mine.keys() | theirs.keys()):
            if name in mine and name in theirs:
                yield from diff(mine[name], theirs[name], f"{path}[{name}]")
            else:
                yield Difference(f"{path}[{name}]", mine.get(name), theirs.get(name))
    elif old != new:
        yield Difference(path, old, new)


def merge_patch(old: Any, new: Any) -> Any:
    """The merge patch that makes `new` of `old`, both maps. Empty when they are equal."""
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            if inner := merge_patch(before, value):
                patch[key] = inner
        elif before != value or key not in old:
            patch[key] = value
    return patch


def merged(target: Any, patch: Any) -> Any:
    """The target with a merge patch in it."""
    if not isinstance(patch, dict):
        return patch
    out = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = merged(out.get(key), value)
    return out


def shown(value: Any) -> str:
    """For a person, in one short line, without secrets."""
    if value is None:
        return "unset"
    text = value if isinstance(value, str) else json.encode(_without_secrets(value)).decode()
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: "(not shown)" if key in SECRET else _without_secrets(inner) for key, inner in value.items()}
    return [_without_secrets(inner) for inner in value] if isinstance(value, list) else value


def _as_map(value: Any, other: Any) -> dict[str, Any] | None:
    """A map, also one that is absent where the other side's has fields to be named."""
    return {} if value is None and isinstance(other, dict) and other else value if isinstance(value, dict) else None


def _by_name(entries: Any) -> dict[str, Any] | None:
    """None when it is no list of entries with names of their own."""
    if _is_empty(entries):
        return {}
    if not isinstance(entries, list):
        return None
    found = {entry["name"]: entry for entry in entries if isinstance(entry, dict) and entry.get("name")}
    return found if len(found) == len(entries) else None


def _is_empty(value: Any) -> bool:
    return value is None or value == []
