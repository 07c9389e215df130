"""The life of namespaces: what each one gets at first, and how one that is deleted empties itself.

Also empties custom resources of a CRD that is deleted, which is the same work. Driven by the store's events; nothing
here polls. A create that slipped in while its namespace went is found by its own event and deleted.
"""

from typing import Any

from hotvirt.kube.admission import User
from hotvirt.kube.errors import AlreadyExists, Forbidden, NotFound
from hotvirt.server import customresources
from hotvirt.server.calls import Call, DeleteOptions
from hotvirt.server.events import Event
from hotvirt.server.keys import Key
from hotvirt.server.registry import Served
from hotvirt.server.verbs import Verbs
from hotvirt.server.work import Worker

Document = dict[str, Any]
NAMESPACES = "/namespaces"
_INITIAL = ((Key("/serviceaccounts", "", "default")), (Key("/configmaps", "", "kube-root-ca.crt")))


class NamespaceKeeper:
    """`ca` is the PEM that pods are given to trust this server."""

    def __init__(self, verbs: Verbs, user: User, *, ca: str) -> None:
        self._verbs, self._user, self._ca = verbs, user, ca
        self._worker: Worker[Key] = Worker("namespaces", self._look_at)

    def start(self) -> None:
        for resource in (NAMESPACES, customresources.STORE):
            for entry in self._verbs.store.entries(resource):
                self._worker.add(entry.key)
        self._worker.start(self._verbs.store.listen(None, self._hear))

    async def stop(self) -> None:
        await self._worker.stop()

    def _hear(self, event: Event) -> None:
        key = event.key
        if key.resource in (NAMESPACES, customresources.STORE):
            if event.type == "ADDED" or event.doc["metadata"].get("deletionTimestamp"):
                self._worker.add(key)
            return
        if event.type == "DELETED":
            self._after_removal(key)
        elif event.type == "ADDED" and key.namespace and not self._is_open(key.namespace):
            self._worker.add(Key(NAMESPACES, "", key.namespace))

    def _after_removal(self, key: Key) -> None:
        definition = Key(customresources.STORE, "", ".".join(reversed(key.resource.split("/"))))
        if self._verbs.store.get(definition) is not None and not self._verbs.store.count(key.resource):
            self._worker.add(definition)
        if not key.namespace:
            return
        is_initial = key._replace(namespace="") in _INITIAL
        if is_initial or not self._is_open(key.namespace):
            self._worker.add(Key(NAMESPACES, "", key.namespace))

    def _is_open(self, namespace: str) -> bool:
        entry = self._verbs.store.get(Key(NAMESPACES, "", namespace))
        return entry is not None and not self._verbs.store.doc(entry)["metadata"].get("deletionTimestamp")

    async def _look_at(self, key: Key) -> None:
        if key.resource == customresources.STORE:
            await self._look_at_definition(key)
        elif self._is_open(key.name):
            await self._furnish(key.name)
        else:
            await self._empty(key)

    # -- namespaces

    async def _furnish(self, namespace: str) -> None:
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        trust = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-root-ca.crt"}}
        await self._create("serviceaccounts", namespace, account)
        await self._create("configmaps", namespace, {**trust, "data": {"ca.crt": self._ca}})

    async def _create(self, plural: str, namespace: str, doc: Document) -> None:
        served = self._verbs.registry.find("", "v1", plural)
        name = doc["metadata"]["name"]
        if served is None or self._verbs.store.get(Key(served.store, namespace, name)) is not None:
            return
        try:
            await self._verbs.create(self._call(served, namespace, ""), doc)
        except (AlreadyExists, NotFound):
            return
        except Forbidden:
            if self._is_open(namespace):  # else it is being deleted meanwhile
                raise

    async def _empty(self, key: Key) -> None:
        left = False
        for served in self._verbs.registry.stores():
            if served.resource.namespaced and "delete" in served.verbs:
                left = await self._remove_all(served, key.name) or left
        kind = self._verbs.registry.by_store(NAMESPACES)
        if not left and kind is not None:
            call = self._call(kind, "", key.name, subresource="finalize")
            try:
                await self._verbs.change(call, _without_finalizer)
            except NotFound:
                return

    async def _remove_all(self, served: Served, namespace: str) -> bool:
        """Whether something is still there."""
        for entry in self._verbs.store.entries(served.store, namespace):
            if self._verbs.store.doc(entry)["metadata"].get("deletionTimestamp"):
                continue
            try:
                await self._verbs.delete(
                    self._call(served, entry.key.namespace, entry.key.name), DeleteOptions(propagation="Background")
                )
            except NotFound:
                continue
        return self._verbs.store.count(served.store, namespace) > 0

    # -- definitions

    async def _look_at_definition(self, key: Key) -> None:
        store = self._verbs.store
        entry = store.get(key)
        if entry is None or not store.doc(entry)["metadata"].get("deletionTimestamp"):
            return
        spec = store.doc(entry)["spec"]
        served = self._verbs.registry.by_store(f"{spec['group']}/{spec['names']['plural']}")
        if served is not None and await self._remove_all(served, ""):
            return
        definitions = self._verbs.registry.by_store(customresources.STORE)
        if definitions is not None:
            await self._verbs.change(self._call(definitions, "", key.name), _without_cleanup)

    def _call(self, served: Served, namespace: str, name: str, *, subresource: str = "") -> Call:
        return Call(
            served=served, user=self._user, namespace=namespace, name=name, subresource=subresource,
            field_validation="Ignore",
        )  # fmt: skip


def _without_finalizer(old: Document) -> Document:
    spec = old.get("spec") or {}
    return {**old, "spec": {**spec, "finalizers": [f for f in spec.get("finalizers") or () if f != "kubernetes"]}}


def _without_cleanup(old: Document) -> Document:
    meta = dict(old["metadata"])
    meta["finalizers"] = [f for f in meta.get("finalizers") or () if f != customresources.FINALIZER]
    return {**old, "metadata": meta}
