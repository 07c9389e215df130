"""ClusterRoles with an aggregationRule hold the rules of all the roles that it selects."""

from typing import Any

from hotvirt.kube.admission import User
from hotvirt.kube.errors import NotFound
from hotvirt.server import rbac
from hotvirt.server.calls import Call
from hotvirt.server.events import Event
from hotvirt.server.keys import Key
from hotvirt.server.verbs import Verbs
from hotvirt.server.work import Worker

Document = dict[str, Any]
ROLES = f"{rbac.GROUP}/clusterroles"


class RoleKeeper:
    def __init__(self, verbs: Verbs, user: User) -> None:
        self._verbs, self._user = verbs, user
        self._aggregating: set[Key] = set()
        self._worker: Worker[Key] = Worker("role aggregation", self._aggregate)

    def start(self) -> None:
        for entry in self._verbs.store.entries(ROLES):
            if self._verbs.store.doc(entry).get("aggregationRule"):
                self._aggregating.add(entry.key)
                self._worker.add(entry.key)
        self._worker.start(self._verbs.store.listen(ROLES, self._hear))

    async def stop(self) -> None:
        await self._worker.stop()

    def _hear(self, event: Event) -> None:
        if event.type != "DELETED" and event.doc.get("aggregationRule"):
            self._aggregating.add(event.key)
        else:
            self._aggregating.discard(event.key)
        for key in self._aggregating:
            self._worker.add(key)

    async def _aggregate(self, key: Key) -> None:
        store = self._verbs.store
        served = self._verbs.registry.by_store(ROLES)
        if served is None or store.get(key) is None:
            return
        roles = [store.doc(entry) for entry in store.entries(ROLES)]
        call = Call(served=served, user=self._user, name=key.name)
        try:
            await self._verbs.change(call, lambda old: {**old, "rules": rbac.aggregate(old, roles)})
        except NotFound:
            return
