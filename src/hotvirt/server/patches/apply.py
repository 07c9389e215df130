"""Server-side apply: who owns which field, what an applied document changes, and where owners disagree.

`apply` merges an applied document into the live object, drops the fields that its manager applied before and no longer
does, and raises Conflict where another manager owns a field that would change. `track_update` keeps managedFields true
for every other write. Both are pure; the caller stores the result under the usual resourceVersion check.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from hotvirt.kube import errors
from hotvirt.kube.errors import Cause
from hotvirt.server.patches import fieldsets, orders
from hotvirt.server.patches.copies import fresh
from hotvirt.server.patches.fieldsets import Set
from hotvirt.server.schema import Schema

Entry = dict[str, Any]

MAX_UPDATERS = 10
"""Update entries an object keeps; the oldest beyond become one."""

_ANCIENT = "ancient-changes"
_BEFORE = "before-first-apply"
# What the server itself sets is nobody's.
_NOBODYS: Set = {
    ".": True,
    "f:apiVersion": {".": True},
    "f:kind": {".": True},
    "f:metadata": {
        ".": True,
        **{
            f"f:{name}": {".": True}
            for name in (
                "name", "namespace", "creationTimestamp", "selfLink", "uid", "clusterName", "generation",
                "managedFields", "resourceVersion",
            )
        },
    },
}  # fmt: skip


class Owner(Struct, frozen=True):
    """Who a managedFields entry belongs to. One manager applies as one owner, whatever version it applies in."""

    manager: str
    operation: str
    api_version: str
    subresource: str

    @property
    def shown(self) -> str:
        text = f'"{self.manager}"'
        if self.subresource:
            text += f' with subresource "{self.subresource}"'
        return f"{text} using {self.api_version}" if self.operation == "Update" else text


def apply(
    live: dict[str, Any] | None,
    applied: dict[str, Any],
    *,
    manager: str,
    force: bool,
    schema: Schema | Mapping[str, Any] | None,
    api_version: str,
    now: datetime | str,
    subresource: str = "",
    reset: tuple[str, ...] = (),
) -> dict[str, Any]:
    """`live` (None: the object is new) with `applied` merged in, managedFields included. `reset` names top-level fields
    that this endpoint does not write (`status`, say): they are left as they are. Conflict names every field that
    another manager owns, one cause each; with `force` the fields change hands instead."""
    if (applied.get("metadata") or {}).get("managedFields"):
        raise errors.BadRequest("metadata.managedFields must be nil in what is applied: remove it")
    if not manager:
        raise errors.BadRequest("an apply needs a field manager: send fieldManager=<name>")
    kinds = fieldsets.root_schema(_openapi(schema))
    wanted = {key: value for key, value in fresh(applied).items() if key not in reset}
    before: dict[str, Any] = live or {}
    owners = _read(_entries(before))
    me = Owner(manager, "Apply", "", subresource)
    owners = _own_what_nobody_tracked(before, owners, kinds, live is None, api_version)
    # What the schema does not know will be pruned, so nobody owns it; it is merged all the same, for admission to see.
    known = schema.prune(wanted)[0] if isinstance(schema, Schema) else wanted
    claimed = fieldsets.difference(fieldsets.of_applied(known, kinds), _NOBODYS)
    last = owners.get(me, {})
    if claimed == last:
        claimed = last  # and need not be written anew
    others = {owner: fields for owner, fields in owners.items() if owner != me}
    merged = _merge(before, wanted, kinds)
    if fieldsets.difference(last, claimed):  # seldom; else a tenth of the time of an apply
        claimed_by_others: Set = {}
        for fields in others.values():
            claimed_by_others = fieldsets.union(claimed_by_others, fields)
        merged = fresh(merged)
        _drop(merged, last, claimed, claimed_by_others, kinds)

    changed, removed = fieldsets.changes(_unmanaged(before), _unmanaged(merged), kinds)
    if not force:
        _refuse_conflicts(others, fieldsets.intersection(claimed, changed))
    kept = {o: _without(fields, changed, removed) for o, fields in others.items()}
    entries = _write_back(
        _entries(before),
        owners,
        {**kept, me: claimed},
        touched={me} if claimed != last or changed or removed else set(),
        api_versions={me: api_version},
        now=_time(now),
    )
    return _with_entries(merged, entries)


def track_update(
    old: dict[str, Any] | None,
    new: dict[str, Any],
    *,
    manager: str,
    operation: str = "Update",
    schema: Schema | Mapping[str, Any] | None,
    api_version: str,
    now: datetime | str,
    subresource: str = "",
) -> list[Entry]:
    """The managedFields of `new` after `manager` wrote it over `old` (None: created) by anything but apply. What it
    changed is now its own alone, what it removed nobody's. Entries that did not change are the same objects as before,
    and when nothing changed the very list is. A `new` whose managedFields are emptied starts anew, owned by nobody."""
    given = (new.get("metadata") or {}).get("managedFields")
    reset = old is not None and (given in ([], [{}]))
    entries = [] if reset else _entries(old) if old is not None else _valid(given)
    kinds = fieldsets.root_schema(_openapi(schema))
    changed, removed = _top_changes(old or {}, new, kinds)
    changed, removed = fieldsets.difference(changed, _NOBODYS), fieldsets.difference(removed, _NOBODYS)
    if (not changed and not removed) or reset:
        return entries
    me = Owner(manager, operation, "" if operation == "Apply" else api_version, subresource)
    owners = _read(entries)
    mine = owners.get(me, {})
    after = {owner: _without(fields, changed, removed) for owner, fields in owners.items() if owner != me}
    after[me] = fieldsets.union(fieldsets.difference(mine, removed) if removed else mine, changed)
    return _write_back(
        entries, owners, after, touched={me} if changed else set(), api_versions={me: api_version}, now=_time(now)
    )


def _top_changes(old: dict[str, Any], new: dict[str, Any], kinds: Mapping[str, Any]) -> tuple[Set, Set]:
    """Changes without managedFields and the other server's own, which differ at each write and count for nothing."""
    return fieldsets.changes(_unmanaged(old), _unmanaged(new), kinds)


_SERVERS = frozenset(key.removeprefix("f:") for key in _NOBODYS["f:metadata"])


def _unmanaged(doc: dict[str, Any]) -> dict[str, Any]:
    metadata = doc.get("metadata")
    if not isinstance(metadata, dict):
        return doc
    return {**doc, "metadata": {key: value for key, value in metadata.items() if key not in _SERVERS}}


def _without(fields: Set, changed: Set, removed: Set) -> Set:
    left = fieldsets.difference(fields, changed) if changed else fields
    return fieldsets.difference(left, removed) if removed else left


def _openapi(schema: Schema | Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return schema.openapi if isinstance(schema, Schema) else schema


def _time(now: datetime | str) -> str:
    return now if isinstance(now, str) else now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# --- managedFields as entries and as owners


def _entries(doc: dict[str, Any] | None) -> list[Entry]:
    found = ((doc or {}).get("metadata") or {}).get("managedFields")
    return found if isinstance(found, list) else []


def _valid(given: Any) -> list[Entry]:
    """The entries that a client sent with a new object, without those that could not be read again."""
    entries = given if isinstance(given, list) else []
    return [entry for entry in entries if isinstance(entry, dict) and fieldsets.is_valid(entry.get("fieldsV1"))]


def _owner(entry: Entry) -> Owner:
    operation = str(entry.get("operation", ""))
    version = "" if operation == "Apply" else str(entry.get("apiVersion", ""))
    return Owner(str(entry.get("manager", "")), operation, version, str(entry.get("subresource", "")))


def _read(entries: list[Entry]) -> dict[Owner, Set]:
    return {_owner(entry): fieldsets.parse(entry["fieldsV1"]) for entry in entries if entry.get("fieldsV1")}


def _write_back(
    entries: list[Entry],
    before: dict[Owner, Set],
    after: dict[Owner, Set],
    *,
    touched: set[Owner],
    api_versions: dict[Owner, str],
    now: str,
) -> list[Entry]:
    """The entries of owners as they are `after`: untouched ones are taken over, those that own nothing go."""
    by_owner = {_owner(entry): entry for entry in entries}
    made: list[Entry] = []
    for owner, fields in after.items():
        if not fields:
            continue
        old = by_owner.get(owner)
        same = old is not None and fields is before.get(owner)
        if old is not None and same and owner not in touched:
            made.append(old)
            continue
        wire = old["fieldsV1"] if old is not None and same else fieldsets.write(fields)
        time = now if owner in touched or old is None else old.get("time")
        version = api_versions.get(owner) or (old or {}).get("apiVersion") or owner.api_version
        entry = {"manager": owner.manager, "operation": owner.operation, "apiVersion": version, "time": time,
                 "fieldsType": "FieldsV1", "fieldsV1": wire}  # fmt: skip
        made.append({**entry, "subresource": owner.subresource} if owner.subresource else entry)
    return sorted(_capped(made), key=_entry_order)


def _entry_order(entry: Entry) -> tuple[str, ...]:
    return tuple(str(entry.get(key) or "") for key in ("operation", "time", "manager", "apiVersion", "subresource"))


def _capped(entries: list[Entry]) -> list[Entry]:
    updaters = sorted((e for e in entries if e.get("operation") == "Update"), key=_entry_order)
    surplus = len(updaters) - MAX_UPDATERS
    if surplus <= 0:
        return entries
    oldest = updaters[: surplus + 1]
    fields: Set = {}
    for entry in oldest:
        fields = fieldsets.union(fields, fieldsets.parse(entry["fieldsV1"]))
    ancient = {**oldest[-1], "manager": _ANCIENT, "fieldsV1": fieldsets.write(fields)}
    ancient.pop("subresource", None)
    return [entry for entry in entries if not any(entry is old for old in oldest)] + [ancient]


def _with_entries(doc: dict[str, Any], entries: list[Entry]) -> dict[str, Any]:
    return {**doc, "metadata": {**(doc.get("metadata") or {}), "managedFields": entries}}


def _own_what_nobody_tracked(
    live: dict[str, Any], owners: dict[Owner, Set], kinds: Mapping[str, Any], new: bool, api_version: str
) -> dict[Owner, Set]:
    """An object from before any tracking: what it holds is owned by a manager of its own, so that a first apply that
    changes it is told."""
    if new or owners:
        return owners
    fields = fieldsets.difference(fieldsets.of_all(_unmanaged(live), kinds), _NOBODYS)
    return {Owner(_BEFORE, "Update", api_version, ""): fields} if fields else owners


# --- merging and dropping


def _merge(live: Any, wanted: Any, schema: Mapping[str, Any]) -> Any:
    """What is not `wanted` is live's own, not a copy, as in a merge patch."""
    if type(live) is dict and type(wanted) is dict and fieldsets.is_open_map(schema):
        merged = dict(live)
        for name, child in wanted.items():
            merged[name] = _merge(live.get(name), child, fieldsets.below_field(schema, name))
        return merged
    kind = fieldsets.list_type(schema)
    if type(live) is not list or type(wanted) is not list or kind == "atomic":
        return wanted
    inner = fieldsets.below_items(schema)
    present, wished = fieldsets.keyed(schema, live), fieldsets.keyed(schema, wanted)
    items = {**present}
    for key, child in wished.items():
        items[key] = _merge(present[key], child, inner) if key in present and kind == "map" else child
    return [items[key] for key in orders.applied([*present], [*wished])]


def _drop(node: Any, last: Set, claimed: Set, others: Set, schema: Mapping[str, Any]) -> None:
    """Take out of `node` what was in `last` and is not `claimed` any more, unless others own it or something in it."""
    gone: list[str] = []
    for key, before in last.items():
        if key == ".":
            continue
        if key not in claimed and key not in others:
            gone.append(key)
            continue
        below, inner = _below(node, key, schema)
        if below is not None:
            _drop(below, before, claimed.get(key, {}), others.get(key, {}), inner)
    if isinstance(node, dict):
        for key in gone:
            node.pop(key.removeprefix("f:"), None)
    elif isinstance(node, list):
        node[:] = [item for item in node if fieldsets.item_key(schema, item) not in gone]


def _below(node: Any, key: str, schema: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
    if isinstance(node, dict) and key.startswith("f:"):
        return node.get(key[2:]), fieldsets.below_field(schema, key[2:])
    if isinstance(node, list) and key[:2] == "k:" and fieldsets.list_type(schema) == "map":
        found = (item for item in node if fieldsets.item_key(schema, item) == key)
        return next(found, None), fieldsets.below_items(schema)
    return None, {}


def _refuse_conflicts(others: dict[Owner, Set], changed: Set) -> None:
    found: list[tuple[str, list[str]]] = []
    for owner, fields in others.items():
        paths = list(fieldsets.members(fieldsets.intersection(fields, changed)))
        if paths:
            found.append((owner.shown, paths))
    if not found:
        return
    found.sort()
    causes = [Cause("FieldManagerConflict", f"conflict with {who}", path) for who, paths in found for path in paths]
    if len(causes) == 1:
        text = f"Apply failed with 1 conflict: {causes[0].message}: {causes[0].field}"
    else:
        parts = ["\n".join([f"conflicts with {who}:", *(f"- {path}" for path in paths)]) for who, paths in found]
        text = f"Apply failed with {len(causes)} conflicts: " + "\n".join(parts)
    raise errors.Conflict(text, causes=causes)
