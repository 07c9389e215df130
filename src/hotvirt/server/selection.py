"""Which objects a list or a watch is about: namespace, labels, fields. Pure, and cheap for what is asked most."""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from msgspec import Struct, field

from hotvirt.server.calls import Call
from hotvirt.server.events import Event, Type
from hotvirt.server.selectors import (
    ANY_FIELDS,
    EVERYTHING,
    FieldSelector,
    LabelSelector,
    field_value,
    parse_fields,
    parse_labels,
)
from hotvirt.server.store import Entry

Document = dict[str, Any]


class Selection(Struct, frozen=True):
    """`name` is set when the field selector asks for exactly one object; `fields` is what else it asks for."""

    namespace: str = ""
    name: str = ""
    labels: LabelSelector = EVERYTHING
    fields: FieldSelector = ANY_FIELDS
    shown: Callable[[Document], Document] | None = None

    @property
    def takes_all(self) -> bool:
        """Nothing but namespace and name decides."""
        return not self.labels.requirements and not self.fields.requirements

    def concerns(self, namespace: str, name: str) -> bool:
        return (not self.namespace or self.namespace == namespace) and (not self.name or self.name == name)

    def matches(self, doc: Document) -> bool:
        if self.labels.requirements and not self.labels.matches(doc["metadata"].get("labels")):
            return False
        if not self.fields.requirements:
            return True
        return self.fields.matches(self.shown(doc) if self.shown else doc, _read)

    def pick(self, entries: Iterable[Entry]) -> Iterable[Entry]:
        for entry in entries:
            if self.name and entry.key.name != self.name:
                continue
            if self.takes_all or self._picks(entry):
                yield entry

    def _picks(self, entry: Entry) -> bool:
        if self.labels.requirements and not self.labels.matches(_labels(entry.body).metadata.labels):
            return False
        if not self.fields.requirements:
            return True
        doc = msgspec.json.decode(entry.body)
        return self.fields.matches(self.shown(doc) if self.shown else doc, _read)

    def sees(self, event: Event) -> tuple[Type, bool] | None:
        """What the event is to a watcher of this selection, and whether it is to be shown the object as it was before
        (it left the selection); None when it is none of its concern."""
        if not self.concerns(event.key.namespace, event.key.name):
            return None
        if self.takes_all:
            return event.type, False
        was = event.before_doc is not None and self.matches(event.before_doc)
        if event.type == "DELETED":
            return ("DELETED", False) if was else None
        if self.matches(event.doc):
            return ("MODIFIED" if was else "ADDED"), False
        return ("DELETED", True) if was else None


def select(call: Call, *, label_selector: str, field_selector: str) -> Selection:
    """BadRequest when a selector can't be read, or asks for a field the kind is not selected by."""
    fields = parse_fields(field_selector)
    if fields.requirements:
        fields.check(set(call.served.fields), call.served.qualified)
    name = fields.equal_to("metadata.name") or ""
    namespace = call.namespace or fields.equal_to("metadata.namespace") or ""
    rest = FieldSelector(
        tuple(
            r for r in fields.requirements if r.negated or r.path not in ("metadata.name", "metadata.namespace")
            or r.value not in (name, namespace)
        )
    )  # fmt: skip
    return Selection(namespace, name, parse_labels(label_selector), rest, call.served.from_stored)


def _read(doc: Any, path: str) -> str:
    if path == "source":
        return field_value(doc, "source.component") or field_value(doc, "reportingComponent")
    return field_value(doc, path)


class _Meta(Struct, gc=False):
    labels: dict[str, str] = field(default_factory=dict)


class _Head(Struct, gc=False):
    metadata: _Meta


_labels = msgspec.json.Decoder(_Head).decode
