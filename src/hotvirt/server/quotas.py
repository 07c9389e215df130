"""ResourceQuotas at work: they hold creates and growth back, and show what is used.

A write that could pass a limit is decided and stored under the lock of its namespace's quotas, so two cannot both take
the last place. Namespaces without quotas pay nothing.
"""

import contextlib
from collections.abc import AsyncIterator, Iterable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from hotvirt.kube.admission import User
from hotvirt.kube.errors import Forbidden, NotFound
from hotvirt.server import quantities, quota
from hotvirt.server.calls import Call
from hotvirt.server.events import Event
from hotvirt.server.keys import Key
from hotvirt.server.quota import Usage
from hotvirt.server.store import Store
from hotvirt.server.work import Worker

if TYPE_CHECKING:
    from hotvirt.server.verbs import Verbs

Document = dict[str, Any]
QUOTAS = "/resourcequotas"


class QuotaGuard:
    def __init__(self, store: Store) -> None:
        self._store = store

    @contextlib.asynccontextmanager
    async def admitted(self, call: Call, new: Document, old: Document | None) -> AsyncIterator[None]:
        """Store inside. Raises Forbidden when a quota has no room for what `new` uses more than `old`."""
        if not call.namespace or not self._store.count(QUOTAS, call.namespace):
            yield
            return
        store = call.served.store
        added = _growth(store, new, old)
        if not added:
            yield
            return
        async with self._store.locked(Key(QUOTAS, call.namespace, "")):
            for entry in self._store.entries(QUOTAS, call.namespace):
                self._check(call, self._store.doc(entry), new, added, is_new=old is None)
            yield

    def _check(self, call: Call, found: Document, new: Document, added: Usage, *, is_new: bool) -> None:
        store, name = call.served.store, found["metadata"]["name"]
        if not quota.covers(found, store, new):
            return
        title = f'{call.served.qualified} "{new["metadata"]["name"]}" is forbidden'
        missing = quota.unstated(found, store, new) if is_new else []
        if missing:
            raise Forbidden(f"{title}: failed quota: {name}: must specify {','.join(missing)}")
        passed = quota.excesses(found, used_by(self._store, found), added)
        if passed:
            requested, used, limited = (",".join(each) for each in zip(*(e.shown() for e in passed), strict=True))
            raise Forbidden(
                f"{title}: exceeded quota: {name}, requested: {requested}, used: {used}, limited: {limited}"
            )


def _growth(store: str, new: Document, old: Document | None) -> Usage:
    after, before = quota.usage_of(store, new), quota.usage_of(store, old) if old else {}
    more = {name: value - before.get(name, Decimal(0)) for name, value in after.items()}
    return {name: value for name, value in more.items() if value > 0}


def used_by(store: Store, found: Document) -> Usage:
    """What the quota's namespace uses of what it limits."""
    namespace = found["metadata"]["namespace"]

    def usages() -> Iterable[Usage]:
        for resource in store.resources():
            if not _matters(resource, quota.hard(found)):
                continue
            for entry in store.entries(resource, namespace):
                doc = store.doc(entry)
                if quota.covers(found, resource, doc):
                    yield quota.usage_of(resource, doc)

    return quota.total(usages())


def _matters(resource: str, limited: Iterable[str]) -> bool:
    group, _, plural = resource.partition("/")
    if f"count/{plural}.{group}".rstrip(".") in limited:
        return True
    return resource in ("/pods", "/persistentvolumeclaims") or (
        group == "" and any(n.startswith(plural) for n in limited)
    )


class QuotaKeeper:
    """Writes status.used of quotas as the things they count come and go."""

    def __init__(self, verbs: "Verbs", user: User) -> None:
        self._verbs, self._user = verbs, user
        self._worker: Worker[str] = Worker("quotas", self._count)

    def start(self) -> None:
        for entry in self._verbs.store.entries(QUOTAS):
            self._worker.add(entry.key.namespace)
        self._worker.start(self._verbs.store.listen(None, self._hear))

    async def stop(self) -> None:
        await self._worker.stop()

    def _hear(self, event: Event) -> None:
        namespace = event.key.namespace
        if namespace and self._verbs.store.count(QUOTAS, namespace):
            changes_count = event.type != "MODIFIED" or event.key.resource in (
                QUOTAS,
                "/pods",
                "/persistentvolumeclaims",
            )
            if changes_count:
                self._worker.add(namespace)

    async def _count(self, namespace: str) -> None:
        served = self._verbs.registry.by_store(QUOTAS)
        for entry in self._verbs.store.entries(QUOTAS, namespace):
            if served is None:
                return
            call = Call(
                served=served, user=self._user, namespace=namespace, name=entry.key.name, subresource="status",
                field_validation="Ignore",
            )  # fmt: skip
            with contextlib.suppress(NotFound):
                await self._verbs.change(call, self._with_status)

    def _with_status(self, found: Document) -> Document:
        limits, used = quota.hard(found), used_by(self._verbs.store, found)
        shown = {name: quantities.show(used.get(name, Decimal(0)), like=limit) for name, limit in limits.items()}
        return {**found, "status": {"hard": dict(limits), "used": shown}}
