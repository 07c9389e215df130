"""Stored objects in the form a client asked for: as they are, as a Table, or their metadata alone. Bytes out.

As they are costs nothing: what is stored is what is sent, also for lists and watch events.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

import msgspec

from hotvirt.server import tables
from hotvirt.server.events import Event, Type
from hotvirt.server.lists import Listing
from hotvirt.server.negotiation import Form
from hotvirt.server.registry import Served
from hotvirt.server.store import Entry, Store

Document = dict[str, Any]
_encode = msgspec.json.Encoder().encode
_decode: Callable[[bytes], Any] = msgspec.json.Decoder().decode


class Renderer:
    """`now` is what ages in tables are counted to."""

    def __init__(self, store: Store, now: Callable[[], datetime]) -> None:
        self._store, self._now = store, now

    def entry(self, served: Served, form: Form, entry: Entry, *, include: str) -> bytes:
        if form.kind == "plain" and served.is_stored_version:
            return entry.body
        return self._render(served, form, self._store.doc(entry), include=include, headers=True)

    def listing(self, served: Served, form: Form, listing: Listing, *, include: str) -> list[bytes]:
        """In pieces, since it may be long and most of it is there already."""
        meta: Document = {"resourceVersion": str(listing.revision)}
        if listing.continue_token:
            meta["continue"] = listing.continue_token
        if listing.remaining is not None:
            meta["remainingItemCount"] = listing.remaining
        if form.kind == "table":
            docs = [served.shown(_decode(entry.body)) for entry in listing.entries]
            table = tables.render(served.table_columns(), docs, self._now(), include, metadata=meta)
            return [_encode(table | {"apiVersion": f"meta.k8s.io/{form.version}"})]
        if form.kind == "partial":
            head = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": meta}
            return _list(head, (_encode(_partial(_decode(entry.body))) for entry in listing.entries))
        head = {"kind": served.kind_of_list, "apiVersion": served.resource.api_version, "metadata": meta}
        if served.is_stored_version:
            return _list(head, (entry.body for entry in listing.entries))
        return _list(head, (_encode(served.shown(_decode(entry.body))) for entry in listing.entries))

    def frame(
        self,
        served: Served,
        form: Form,
        event: Event,
        type_: Type,
        *,
        as_before: bool,
        include: str,
        headers: bool,
        variant: str,
    ) -> bytes:
        """One watch event as a chunk of a chunked HTTP answer; made once for everybody who wants the same, which is
        who has the same `variant` (see `variant_of`)."""
        wanted = (variant, type_, as_before, headers)
        found = event.frames.get(wanted)
        if found is None:
            body = self._event_body(served, form, event, as_before=as_before, include=include, headers=headers)
            found = event.frames[wanted] = chunk(b'{"type":"%b","object":%b}\n' % (type_.encode(), body))
        return found

    @staticmethod
    def variant_of(served: Served, form: Form, include: str) -> str:
        """What tells one encoding of an object from another."""
        return f"{served.resource.api_version} {form.kind} {form.version} {include}"

    def bookmark(self, served: Served, form: Form, revision: int, *, initial_end: bool = False) -> bytes:
        meta: Document = {"resourceVersion": str(revision), "creationTimestamp": None}
        if initial_end:
            meta["annotations"] = {"k8s.io/initial-events-end": "true"}
        doc: Document = {"kind": served.resource.kind, "apiVersion": served.resource.api_version, "metadata": meta}
        if form.kind == "partial":
            doc = _partial(doc)
        elif form.kind == "table":
            row = {"cells": [], "object": _partial(doc)}
            doc = {
                "kind": "Table", "apiVersion": f"meta.k8s.io/{form.version}", "metadata": meta,
                "columnDefinitions": [], "rows": [row],
            }  # fmt: skip
        return chunk(b'{"type":"BOOKMARK","object":%b}\n' % _encode(doc))

    def _event_body(
        self, served: Served, form: Form, event: Event, *, as_before: bool, include: str, headers: bool
    ) -> bytes:
        doc = event.doc
        if as_before and event.before_doc is not None:
            before = event.before_doc
            doc = {**before, "metadata": {**before["metadata"], "resourceVersion": str(event.revision)}}
        elif form.kind == "plain" and served.is_stored_version:
            return event.body
        return self._render(served, form, doc, include=include, headers=headers)

    def _render(self, served: Served, form: Form, doc: Document, *, include: str, headers: bool) -> bytes:
        shown = served.shown(doc)
        if form.kind == "partial":
            return _encode(_partial(shown))
        if form.kind == "table":
            meta = {"resourceVersion": doc["metadata"].get("resourceVersion", "")}
            table = tables.render(served.table_columns(), [shown], self._now(), include, metadata=meta, headers=headers)
            return _encode(table | {"apiVersion": f"meta.k8s.io/{form.version}"})
        return _encode(shown)


def chunk(data: bytes) -> bytes:
    """Framed for Transfer-Encoding: chunked."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _partial(doc: Document) -> Document:
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": doc["metadata"]}


def _list(head: Document, items: Iterable[bytes]) -> list[bytes]:
    pieces = [_encode(head)[:-1] + b',"items":[']
    for item in items:
        pieces += (item, b",")
    if len(pieces) > 1:
        pieces.pop()  # the comma after the last
    return [*pieces, b"]}\n"]
