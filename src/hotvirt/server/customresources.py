"""CustomResourceDefinitions at work: what is stored of them becomes what is served, in the same step.

`DefinitionWatcher` listens to the store, so a CRD serves from the moment its create is acknowledged. Its status is
written together with it. Everything here runs on the event loop and never waits.
"""

import logging
from collections.abc import Sequence
from typing import Any

from hotvirt.server import cel_rules, crd
from hotvirt.server.events import Event
from hotvirt.server.registry import ALL_VERBS, Registry, Scale, Served, Subresource
from hotvirt.server.schema import compile_schema
from hotvirt.server.store import Store

Document = dict[str, Any]
STORE = "apiextensions.k8s.io/customresourcedefinitions"
FINALIZER = "customresourcecleanup.apiextensions.k8s.io"
_META_FIELDS = frozenset({"metadata.name", "metadata.namespace"})
_log = logging.getLogger(__name__)


class DefinitionWatcher:
    def __init__(self, store: Store, registry: Registry) -> None:
        self._store, self._registry = store, registry
        for entry in store.entries(STORE):
            self._serve(store.doc(entry))
        store.listen(None, self._hear)

    def _hear(self, event: Event) -> None:
        if event.key.resource != STORE:
            return
        if event.type == "DELETED":
            self._registry.set_custom(event.key.name, ())
        elif event.before_doc is None or _shape(event.before_doc) != _shape(event.doc):
            self._serve(event.doc)

    def _serve(self, definition: Document) -> None:
        name = definition["metadata"]["name"]
        try:
            self._registry.set_custom(name, served_by(definition) if is_established(definition) else ())
        except ValueError as error:  # stored by an older version that let it pass
            _log.error("CustomResourceDefinition %s can't be served: %s", name, error)

    def complete_status(self, store: str, doc: Document, now: str) -> Document:
        """For `Verbs`: a CRD about to be stored, with its status and the finalizer that empties it first."""
        if store != STORE:
            return doc
        meta: Document = dict(doc["metadata"])
        if not meta.get("deletionTimestamp") and FINALIZER not in (meta.get("finalizers") or ()):
            meta["finalizers"] = [*(meta.get("finalizers") or ()), FINALIZER]
        clash = _conflict(self._registry, doc)
        return {**doc, "metadata": meta, "status": crd.status_of(doc, now, conflict=clash)}


def _shape(definition: Document) -> Any:
    stored = (definition.get("status") or {}).get("storedVersions")
    return definition.get("spec"), is_established(definition), stored


def is_established(definition: Document) -> bool:
    conditions = (definition.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Established" and c.get("status") == "True" for c in conditions)


def served_by(definition: Document) -> Sequence[Served]:
    group = definition["spec"]["group"]
    stored = f"{group}/{crd.storage_version(definition)}"
    is_mixed = len((definition.get("status") or {}).get("storedVersions") or ()) > 1
    return [_served(version, stored, is_mixed=is_mixed) for version in crd.served(definition)]


def _served(version: crd.ServedVersion, stored: str, *, is_mixed: bool) -> Served:
    kind = version.resource.kind
    scale = version.scale
    subresources = [Subresource("status", kind)] if version.status else []
    if scale:
        subresources.append(Subresource("scale", "Scale", group="autoscaling", version="v1"))
    return Served(
        resource=version.resource,
        stored_version=stored,
        singular=version.singular,
        short_names=version.short_names,
        categories=version.categories,
        verbs=ALL_VERBS,
        subresources=tuple(subresources),
        has_status=version.status,
        has_generation=True,
        is_custom=True,
        is_mixed=is_mixed,
        list_kind=version.list_kind,
        scale=_scale(scale) if scale else None,
        schema=compile_schema(version.schema, evaluator=cel_rules.evaluator(version.schema)),
        columns=version.columns,
        fields=_META_FIELDS | frozenset(version.selectable_fields),
        deprecated=version.deprecation_warning,
    )


def _scale(paths: Document) -> Scale:
    def plain(key: str) -> str:
        return str(paths.get(key) or "").removeprefix(".")

    return Scale(plain("specReplicasPath"), plain("statusReplicasPath"), plain("labelSelectorPath"))


def _conflict(registry: Registry, definition: Document) -> str:
    """Which name another kind of the group has already, as a sentence; "" when none."""
    spec = definition["spec"]
    names = crd.default(definition)["spec"]["names"]
    for served in registry.in_group(spec["group"]):
        if served.resource.plural == names["plural"]:
            continue
        taken = {served.resource.plural, served.singular, *served.short_names}
        for word in (names["plural"], names["singular"], *(names.get("shortNames") or ())):
            if word in taken:
                return f'"{word}" is already in use'
        if names["kind"] == served.resource.kind:
            return f'"{names["kind"]}" is already in use'
    return ""
