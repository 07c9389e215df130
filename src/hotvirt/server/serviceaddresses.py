"""Gives services their addresses and node ports: one service at a time, so that no two get the same.

What is taken is read from the store each time: there is no second record that could disagree with it after a crash.
"""

import contextlib
import random
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from hotvirt.kube.admission import User
from hotvirt.kube.errors import NotFound
from hotvirt.server import services
from hotvirt.server.calls import Call
from hotvirt.server.keys import Key
from hotvirt.server.schema import invalid
from hotvirt.server.services import Ranges
from hotvirt.server.store import Store

if TYPE_CHECKING:
    from hotvirt.server.verbs import Verbs

Document = dict[str, Any]


class ServiceAddresses:
    def __init__(self, store: Store, ranges: Ranges | None = None) -> None:
        self._store, self._ranges = store, ranges or Ranges()
        self._pick = random.SystemRandom().randrange

    @contextlib.asynccontextmanager
    async def allotted(self, call: Call, new: Document, old: Document | None) -> AsyncIterator[Document]:
        """Store what it gives, inside. Invalid when what was wished for cannot be had."""
        if call.served.store != services.STORE or call.subresource:
            yield new
            return
        async with self._store.locked(Key(services.STORE, "", "")):
            me = Key(services.STORE, call.namespace, new["metadata"]["name"])
            others = (self._store.doc(e) for e in self._store.entries(services.STORE) if e.key != me)
            given, causes = services.allot(new, old, services.taken(others), self._ranges, self._pick)
            if causes:
                raise invalid(causes, kind="Service", name=me.name, group="")
            yield given


async def complete_older(verbs: "Verbs", user: User) -> None:
    """Services from before there were addresses get theirs."""
    served = verbs.registry.by_store(services.STORE)
    for entry in verbs.store.entries(services.STORE):
        spec = verbs.store.doc(entry).get("spec") or {}
        if served is None or spec.get("clusterIP") or spec.get("type") == "ExternalName":
            continue
        call = Call(
            served=served, user=user, namespace=entry.key.namespace, name=entry.key.name, field_validation="Ignore"
        )
        with contextlib.suppress(NotFound):
            await verbs.change(call, lambda old: old)
