"""What is served: built-in kinds and those of CRDs, by group, version and plural.

A `Served` is one resource in one version; versions of one kind share `store` (the key's resource in the store). The
registry is changed on the event loop only, whole groups at a time; a `Served` never changes, so a request may hold one.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from msgspec import Struct

from hotvirt.kube.resources import Resource
from hotvirt.server import builtin_schemas
from hotvirt.server.schema import Schema
from hotvirt.server.tables import Columns, columns_for

Document = dict[str, Any]
ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


class Subresource(Struct, frozen=True):
    """`pods/status`, say; `kind` is what it takes and gives."""

    name: str
    kind: str
    verbs: tuple[str, ...] = ("get", "patch", "update")
    group: str = ""
    version: str = ""


class Scale(Struct, frozen=True):
    """Where a kind keeps its replica counts: dotted paths without the leading dot."""

    spec: str
    status: str
    selector: str = ""


class Served(Struct, frozen=True, kw_only=True):
    """`stored_version` is the apiVersion that objects are kept in; with `is_mixed` some are still kept in another.
    `stored_group` is where they are kept when not in their own group.
    `has_generation` for kinds whose metadata.generation counts. `check_name` is one of `label`, `subdomain`, `path`."""

    resource: Resource
    stored_version: str
    singular: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    subresources: tuple[Subresource, ...] = ()
    has_status: bool = False
    has_generation: bool = False
    is_custom: bool = False
    is_mixed: bool = False
    list_kind: str = ""
    scale: Scale | None = None
    schema: Schema | None = None
    columns: tuple[Document, ...] | None = None
    fields: frozenset[str] = frozenset()
    check_name: str = "subdomain"
    to_stored: Callable[[Document], Document] | None = None
    from_stored: Callable[[Document], Document] | None = None
    stored_group: str | None = None
    deprecated: str = ""

    @property
    def store(self) -> str:
        group = self.resource.group if self.stored_group is None else self.stored_group
        return f"{group}/{self.resource.plural}"

    @property
    def is_stored_version(self) -> bool:
        """What is kept can be shown as it is."""
        same = self.resource.api_version == self.stored_version
        return same and self.from_stored is None and not self.is_mixed

    @property
    def qualified(self) -> str:
        """As in messages: `virtualmachines.kubevirt.io`, `pods`."""
        return f"{self.resource.plural}.{self.resource.group}" if self.resource.group else self.resource.plural

    @property
    def any_schema(self) -> Schema | None:
        """Of a CRD as given, of a built-in kind as this server knows it; compiled on first use."""
        if self.schema or self.is_custom:
            return self.schema
        return builtin_schemas.compiled(self.resource.api_version, self.resource.kind)

    @property
    def kind_of_list(self) -> str:
        return self.list_kind or f"{self.resource.kind}List"

    def subresource(self, name: str) -> Subresource | None:
        return next((each for each in self.subresources if each.name == name), None)

    def table_columns(self) -> Columns:
        return columns_for(self.resource, self.columns)

    def stored(self, doc: Document) -> Document:
        """`doc`, sent in this version, as it is kept. A new top level, when it changes anything."""
        if self.to_stored:
            return self.to_stored(doc)
        return doc if doc.get("apiVersion") == self.stored_version else {**doc, "apiVersion": self.stored_version}

    def shown(self, doc: Document) -> Document:
        """A kept object in this version."""
        if self.from_stored:
            return self.from_stored(doc)
        wanted = self.resource.api_version
        return doc if doc.get("apiVersion") == wanted else {**doc, "apiVersion": wanted}


class Registry:
    def __init__(self, built_in: Iterable[Served]) -> None:
        self._served: dict[tuple[str, str, str], Served] = {}
        self._by_store: dict[str, Served] = {}
        self._custom: dict[str, tuple[Served, ...]] = {}
        self._listeners: dict[Callable[[], None], None] = {}
        self._built_in = tuple(built_in)
        self._rebuild()

    def find(self, group: str, version: str, plural: str) -> Served | None:
        return self._served.get((group, version, plural))

    def by_store(self, store: str) -> Served | None:
        """The kind by the resource of its keys, in the version it is kept in if that is served."""
        return self._by_store.get(store)

    def by_kind(self, api_version: str, kind: str) -> Served | None:
        """By what a manifest or an owner reference says; any version of the group will do."""
        group, _, version = api_version.rpartition("/")
        matches = [s for s in self._served.values() if s.resource.kind == kind and s.resource.group == group]
        return next((s for s in matches if s.resource.version == version), matches[0] if matches else None)

    def all(self) -> Sequence[Served]:
        return tuple(self._served.values())

    def stores(self) -> Sequence[Served]:
        """One for each kind."""
        return tuple(self._by_store.values())

    def in_group(self, group: str) -> Sequence[Served]:
        return [served for served in self._served.values() if served.resource.group == group]

    def set_custom(self, definition: str, served: Sequence[Served]) -> None:
        """What the CRD of that name serves; nothing to take it out."""
        if served:
            self._custom[definition] = tuple(served)
        else:
            self._custom.pop(definition, None)
        self._rebuild()
        for listener in tuple(self._listeners):
            listener()

    def on_change(self, listener: Callable[[], None]) -> Callable[[], object]:
        """Calls `listener` after each change of what is served. Returns what ends it."""
        self._listeners[listener] = None
        return lambda: self._listeners.pop(listener, None)

    def still_serves(self, served: Served) -> bool:
        resource = served.resource
        return (resource.group, resource.version, resource.plural) in self._served

    def _rebuild(self) -> None:
        every = [*self._built_in, *(each for served in self._custom.values() for each in served)]
        self._served = {(s.resource.group, s.resource.version, s.resource.plural): s for s in every}
        self._by_store = {}
        for served in every:
            if served.store not in self._by_store or served.is_stored_version:
                self._by_store[served.store] = served
