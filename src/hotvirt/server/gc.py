"""Owner references at work: what is left behind goes too, in the background, in the foreground, or not at all.

Knows every uid and who owns whom from the store's events, and looks at an object only when something about it or an
owner of it changed. Decisions are `decide`, a pure function; carrying them out goes through the ordinary verbs.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct, field

from hotvirt.kube.admission import User
from hotvirt.kube.errors import NotFound
from hotvirt.server.calls import Call, DeleteOptions, Propagation
from hotvirt.server.events import Event
from hotvirt.server.keys import Key
from hotvirt.server.objectmeta import FOREGROUND, ORPHAN
from hotvirt.server.verbs import Verbs
from hotvirt.server.work import Worker

Document = dict[str, Any]


class Owner(Struct, frozen=True):
    """One owner of an object, as it is now."""

    uid: str
    is_absent: bool
    is_waiting: bool  # in foreground deletion: it waits for this object to go


class Decision(Struct, frozen=True):
    """`delete` the object with that propagation, or take references to owners that are gone or going out of it."""

    delete: Propagation = ""
    drop_owners: tuple[str, ...] = ()


def decide(owners: Sequence[Owner], *, has_dependents: bool) -> Decision:
    solid = [o for o in owners if not o.is_absent and not o.is_waiting]
    lost = tuple(o.uid for o in owners if o.is_absent or o.is_waiting)
    if not lost:
        return Decision()
    if solid:
        return Decision(drop_owners=lost)
    waiting = any(o.is_waiting for o in owners)
    return Decision(delete="Foreground" if waiting and has_dependents else "Background")


class GarbageCollector:
    def __init__(self, verbs: Verbs, user: User) -> None:
        self._verbs, self._user = verbs, user
        self._keys: dict[str, Key] = {}
        self._owners: dict[Key, tuple[_Reference, ...]] = {}
        self._dependents: dict[str, set[Key]] = {}
        self._worker: Worker[Key] = Worker("garbage collector", self._look_at)

    def start(self) -> None:
        store = self._verbs.store
        for resource in store.resources():
            for entry in store.entries(resource):
                head = _head(entry.body).metadata
                self._keys[head.uid] = entry.key
                self._note_owners(entry.key, head.ownerReferences)
                if head.ownerReferences or (head.deletionTimestamp and head.finalizers):
                    self._worker.add(entry.key)
        self._worker.start(store.listen(None, self._hear))

    async def stop(self) -> None:
        await self._worker.stop()

    def _hear(self, event: Event) -> None:
        meta = event.doc["metadata"]
        uid = meta["uid"]
        if event.type == "DELETED":
            self._keys.pop(uid, None)
            for owner in self._note_owners(event.key, ()):
                if owner.uid in self._keys:
                    self._worker.add(self._keys[owner.uid])
            for key in self._dependents.get(uid, ()):
                self._worker.add(key)
            return
        self._keys[uid] = event.key
        references = meta.get("ownerReferences")
        if references or event.key in self._owners:
            found = tuple(_Reference.of(each) for each in references or ())
            if self._owners.get(event.key, ()) != found:
                self._note_owners(event.key, found)
                self._worker.add(event.key)
        if meta.get("deletionTimestamp") and {FOREGROUND, ORPHAN} & set(meta.get("finalizers") or ()):
            self._worker.add(event.key)

    def _note_owners(self, key: Key, references: "Sequence[_Reference]") -> "tuple[_Reference, ...]":
        """Returns those it had."""
        before = self._owners.pop(key, ())
        for owner in before:
            held = self._dependents.get(owner.uid)
            if held is not None:
                held.discard(key)
                if not held:
                    del self._dependents[owner.uid]
        if references:
            self._owners[key] = tuple(references)
            for owner in references:
                self._dependents.setdefault(owner.uid, set()).add(key)
        return before

    # -- looking at one object

    async def _look_at(self, key: Key) -> None:
        entry = self._verbs.store.get(key)
        if entry is None:
            return
        meta = self._verbs.store.doc(entry)["metadata"]
        finalizers = meta.get("finalizers") or ()
        if meta.get("deletionTimestamp") and ORPHAN in finalizers:
            await self._orphan(key, meta["uid"])
        elif meta.get("deletionTimestamp") and FOREGROUND in finalizers:
            await self._delete_dependents_first(key, meta["uid"])
        if self._owners.get(key) and not meta.get("deletionTimestamp"):
            await self._follow_owners(key, meta["uid"])

    async def _follow_owners(self, key: Key, uid: str) -> None:
        owners = [self._state_of(key, reference) for reference in self._owners[key]]
        decision = decide(owners, has_dependents=bool(self._dependents.get(uid)))
        if decision.delete:
            await self._delete(key, uid, decision.delete)
        elif decision.drop_owners:
            await self._drop_owners(key, decision.drop_owners)

    def _state_of(self, key: Key, reference: "_Reference") -> Owner:
        served = self._verbs.registry.by_kind(reference.apiVersion, reference.kind)
        if served is None:  # not a kind of ours: nobody here can know whether it is gone
            return Owner(reference.uid, is_absent=False, is_waiting=False)
        found = self._keys.get(reference.uid)
        entry = self._verbs.store.get(found) if found else None
        if entry is None or found is None or found.namespace not in ("", key.namespace):
            return Owner(reference.uid, is_absent=True, is_waiting=False)
        meta = self._verbs.store.doc(entry)["metadata"]
        waiting = bool(meta.get("deletionTimestamp")) and FOREGROUND in (meta.get("finalizers") or ())
        return Owner(reference.uid, is_absent=False, is_waiting=waiting)

    async def _orphan(self, key: Key, uid: str) -> None:
        for dependent in tuple(self._dependents.get(uid, ())):
            await self._drop_owners(dependent, (uid,))
        await self._drop_finalizer(key, ORPHAN)

    async def _delete_dependents_first(self, key: Key, uid: str) -> None:
        blocked = False
        for dependent in tuple(self._dependents.get(uid, ())):
            entry = self._verbs.store.get(dependent)
            if entry is None:
                continue
            blocked = blocked or any(o.uid == uid and o.blockOwnerDeletion for o in self._owners.get(dependent, ()))
            self._worker.add(dependent)
        if not blocked:
            await self._drop_finalizer(key, FOREGROUND)

    # -- writes

    def _call(self, key: Key) -> Call | None:
        served = self._verbs.registry.by_store(key.resource)
        if served is None:
            return None
        return Call(
            served=served, user=self._user, namespace=key.namespace, name=key.name, field_validation="Ignore"
        )  # fmt: skip

    async def _delete(self, key: Key, uid: str, propagation: Propagation) -> None:
        call = self._call(key)
        if call is not None:
            try:
                await self._verbs.delete(call, DeleteOptions(propagation=propagation, uid=uid))
            except NotFound:
                return

    async def _drop_owners(self, key: Key, uids: Sequence[str]) -> None:
        await self._change_list(key, "ownerReferences", lambda each: each.get("uid") not in uids)

    async def _drop_finalizer(self, key: Key, finalizer: str) -> None:
        await self._change_list(key, "finalizers", lambda each: each != finalizer)

    async def _change_list(self, key: Key, where: str, keep: Callable[[Any], bool]) -> None:
        def change(old: Document) -> Document:
            meta = dict(old["metadata"])
            left = [each for each in meta.get(where) or () if keep(each)]
            if left:
                meta[where] = left
            else:
                meta.pop(where, None)
            return {**old, "metadata": meta}

        call = self._call(key)
        if call is not None:
            try:
                await self._verbs.change(call, change)
            except NotFound:
                return


class _Reference(Struct, frozen=True, gc=False):
    uid: str = ""
    kind: str = ""
    apiVersion: str = ""  # noqa: N815
    blockOwnerDeletion: bool | None = None  # noqa: N815

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> "_Reference":
        return cls(
            str(found.get("uid")), str(found.get("kind")), str(found.get("apiVersion")), found.get("blockOwnerDeletion")
        )


class _Meta(Struct, gc=False):
    uid: str = ""
    ownerReferences: tuple[_Reference, ...] = ()  # noqa: N815
    finalizers: list[str] = field(default_factory=list)
    deletionTimestamp: str = ""  # noqa: N815


class _Head(Struct, gc=False):
    metadata: _Meta


_head = msgspec.json.Decoder(_Head).decode
