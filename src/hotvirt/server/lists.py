"""Lists: which objects, as of which revision, and in which pages."""

import base64
import binascii
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from hotvirt.kube.errors import BadRequest
from hotvirt.server.calls import Call, ListOptions
from hotvirt.server.selection import select
from hotvirt.server.store import Entry, Store, too_new


class Listing(Struct, frozen=True):
    """`remaining` counts what follows this page, when that is known."""

    revision: int
    entries: Sequence[Entry]
    continue_token: str = ""
    remaining: int | None = None


class _Position(Struct, frozen=True):
    revision: int
    namespace: str
    name: str


async def list_objects(store: Store, call: Call, options: ListOptions) -> Listing:
    """Pages that follow each other show the same revision. Gone when that is compacted meanwhile."""
    chosen = select(call, label_selector=options.label_selector, field_selector=options.field_selector)
    position = _read_token(options.continue_token) if options.continue_token else None
    revision = position.revision if position else _asked_revision(store, options)
    if revision is None or revision == store.revision:
        revision = store.revision
        entries: Sequence[Entry] = store.entries(call.served.store, chosen.namespace)
    else:
        entries = await store.list_at(call.served.store, chosen.namespace, revision)
    if position:
        after = (position.namespace, position.name)
        entries = [entry for entry in entries if entry.key[1:] > after]
    if not options.limit:
        return Listing(revision, list(chosen.pick(entries)))
    page: list[Entry] = []
    picked = iter(chosen.pick(entries))
    for entry in picked:
        if len(page) == options.limit:
            last = page[-1].key
            token = _write_token(_Position(revision, last.namespace, last.name))
            plain = chosen.takes_all and not chosen.name
            return Listing(revision, page, token, len(entries) - options.limit if plain else None)
        page.append(entry)
    return Listing(revision, page)


def _asked_revision(store: Store, options: ListOptions) -> int | None:
    """None for the present, which is also what "not older than" gets."""
    if not options.version or options.version == "0":
        if options.match == "Exact":
            raise BadRequest("resourceVersionMatch Exact needs a resourceVersion other than 0")
        return None
    if not options.version.isdecimal():
        raise BadRequest(f"invalid resource version: {options.version!r} is not a number that this server gave out")
    asked = int(options.version)
    if asked > store.revision:
        raise too_new(asked, store.revision)
    exact = options.match == "Exact" or (options.limit > 0 and not options.match)
    return asked if exact else None


def _write_token(position: _Position) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).decode().rstrip("=")


def _read_token(token: str) -> _Position:
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)), type=_Position)
    except (binascii.Error, ValueError, msgspec.MsgspecError) as error:
        raise BadRequest("continue is not a token of this server: list again from the beginning") from error
