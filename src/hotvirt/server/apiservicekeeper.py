"""Keeps the APIServices of what is served: built in, by CRDs, and mounted beside them."""

import asyncio
from collections.abc import Sequence
from typing import Any

from hotvirt.kube.admission import User
from hotvirt.kube.aggregated import AggregatedGroup
from hotvirt.kube.errors import AlreadyExists, NotFound
from hotvirt.server.apiservices import BUILT_IN, CUSTOM, MANAGED, OWN_GROUP, STORE, Version, api_service
from hotvirt.server.calls import Call
from hotvirt.server.crd import version_rank
from hotvirt.server.events import Event
from hotvirt.server.verbs import Verbs
from hotvirt.server.work import Worker

Document = dict[str, Any]


class ApiServiceKeeper:
    """Makes those that are missing and takes away those of groups that are served no more."""

    def __init__(self, verbs: Verbs, user: User, groups: Sequence[AggregatedGroup]) -> None:
        self._verbs, self._user, self._groups = verbs, user, groups
        self._worker: Worker[str] = Worker("API services", self._bring)

    def start(self) -> None:
        self._worker.add("")
        self._worker.start(
            self._verbs.store.listen(STORE, self._hear),
            self._verbs.registry.on_change(lambda: self._worker.add("")),
        )

    async def stop(self) -> None:
        await self._worker.stop()

    def _hear(self, event: Event) -> None:
        if event.type == "DELETED":
            self._worker.add("")

    async def _bring(self, _: str) -> None:
        wanted = self.wanted()
        there = {entry.key.name: self._verbs.store.doc(entry) for entry in self._verbs.store.entries(STORE)}
        ours = [name for name, doc in there.items() if MANAGED in (doc["metadata"].get("labels") or {})]
        async with asyncio.TaskGroup() as group:  # one commit, not one for each
            for name in wanted.keys() - there.keys():
                group.create_task(self._create(wanted[name]))
            for name in set(ours) - wanted.keys():
                group.create_task(self._delete(name))

    def wanted(self) -> dict[str, Document]:
        versions: dict[str, dict[str, Version]] = {}
        for served in self._verbs.registry.all():
            group, version = served.resource.group, served.resource.version
            managed = CUSTOM if served.is_custom else BUILT_IN
            versions.setdefault(group, {})[version] = Version(group, version, managed)
        for other in self._groups:
            for version in other.versions:
                versions.setdefault(other.name, {})[version] = Version(other.name, version, BUILT_IN)
        versions.pop(OWN_GROUP, None)
        return {
            each.name: api_service(each, sorted(found, key=version_rank))
            for found in versions.values()
            for each in found.values()
        }

    async def _create(self, doc: Document) -> None:
        if (call := self._call(doc["metadata"]["name"])) is None:
            return
        try:
            await self._verbs.create(call, doc)
        except AlreadyExists:
            return

    async def _delete(self, name: str) -> None:
        if (call := self._call(name)) is None:
            return
        try:
            await self._verbs.delete(call)
        except NotFound:
            return

    def _call(self, name: str) -> Call | None:
        served = self._verbs.registry.by_store(STORE)
        return Call(served=served, user=self._user, name=name) if served else None
