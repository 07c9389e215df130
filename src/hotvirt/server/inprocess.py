"""`hotvirt.kube.client.Client` straight on the verbs: for the parts of a home that run in the server's own process.

No HTTP, no encoding on the way out: documents are shared with the server's cache, so never change one. The user's
permissions are checked as for any other caller.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Literal

from hotvirt.kube.admission import User
from hotvirt.kube.client import Document, JsonPatch, PatchKind, WatchEvent
from hotvirt.kube.errors import MethodNotAllowed, NotFound
from hotvirt.kube.resources import Resource
from hotvirt.server.access import Access, Attributes
from hotvirt.server.calls import Call, DeleteOptions, ListOptions
from hotvirt.server.events import Event, Type
from hotvirt.server.patches.copies import fresh
from hotvirt.server.selection import select
from hotvirt.server.store import Entry
from hotvirt.server.subresources import Subresources
from hotvirt.server.verbs import Verbs
from hotvirt.server.watch import Bookmarks, Watch

Closed = asyncio.Event
_log = logging.getLogger(__name__)


class LocalClient:
    """Made by `ApiServer.client(user)`. `closed` ends its watches when the server stops."""

    def __init__(
        self, verbs: Verbs, subresources: Subresources, access: Access, bookmarks: Bookmarks, user: User, closed: Closed
    ) -> None:
        self._verbs, self._subresources, self._access, self._bookmarks = verbs, subresources, access, bookmarks
        self._user, self._closed = user, closed

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Document:
        call = self._call("get", resource, namespace, name)
        return self._doc(call, await self._verbs.get(call))

    def peek(self, resource: Resource, name: str, namespace: str = "") -> Document | None:
        """What is stored now, for those who may not wait; None also when nobody knows the kind."""
        registry, store = self._verbs.registry, self._verbs.store
        if registry.find(resource.group, resource.version, resource.plural) is None:
            return None
        call = self._call("get", resource, namespace, name)
        entry = store.get(call.key)
        return self._doc(call, entry) if entry is not None else None

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 0,
        continue_token: str = "",
    ) -> Document:
        call = self._call("list", resource, namespace)
        options = ListOptions(
            label_selector=label_selector, field_selector=field_selector, limit=limit, continue_token=continue_token
        )
        found = await self._verbs.list(call, options)
        metadata: Document = {"resourceVersion": str(found.revision)}
        if found.continue_token:
            metadata["continue"] = found.continue_token
        if found.remaining is not None:
            metadata["remainingItemCount"] = found.remaining
        return {
            "apiVersion": resource.api_version,
            "kind": call.served.kind_of_list,
            "metadata": metadata,
            "items": [self._doc(call, entry) for entry in found.entries],
        }

    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncIterator[WatchEvent]:
        call = self._call("watch", resource, namespace)
        selection = select(call, label_selector=label_selector, field_selector=field_selector)
        inbox = _Inbox(call, self._verbs)
        watch = Watch(self._verbs.store, call, selection, inbox.deliver)
        await watch.start(resource_version)
        forget = self._bookmarks.add(inbox.bookmark)
        closing = asyncio.ensure_future(self._closed.wait())
        closing.add_done_callback(lambda _: inbox.close())
        registry = self._verbs.registry
        ignore = registry.on_change(lambda: None if registry.still_serves(call.served) else inbox.close())
        try:
            async for event in inbox:
                yield event
        finally:
            closing.cancel()
            ignore()
            forget()
            watch.stop()

    async def create(
        self, resource: Resource, obj: Document, namespace: str | None = None, *, dry_run: bool = False
    ) -> Document:
        space = namespace or (obj.get("metadata") or {}).get("namespace")
        call = self._call("create", resource, space, dry_run=dry_run)
        if call.served.verbs == ("create",):  # asked, never stored: reviews
            return await self._subresources.review(call, fresh(obj))
        return self._written(call, await self._verbs.create(call, fresh(obj)))

    async def update(self, resource: Resource, obj: Document, *, subresource: str = "") -> Document:
        meta = obj["metadata"]
        call = self._call("update", resource, meta.get("namespace"), meta["name"], subresource=subresource)
        if subresource in ("", "status"):
            return self._written(call, await self._verbs.update(call, fresh(obj)))
        return await self._subresources.write(call, "PUT", fresh(obj))

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Document | JsonPatch,
        namespace: str | None = None,
        *,
        kind: PatchKind = "merge",
        subresource: str = "",
        field_manager: str = "",
        force: bool = False,
        dry_run: bool = False,
    ) -> Document:
        call = self._call("patch", resource, namespace, name, subresource=subresource, dry_run=dry_run)
        call.field_manager = field_manager
        if subresource == "scale":
            return await self._subresources.patch_scale(call, kind, patch)
        return self._written(call, await self._verbs.patch(call, kind, patch, force=force))

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        propagation: Literal["Background", "Foreground", "Orphan"] = "Background",
        uid: str = "",
        grace_period_seconds: int | None = None,
    ) -> Document:
        call = self._call("delete", resource, namespace, name)
        options = DeleteOptions(grace=grace_period_seconds, propagation=propagation, uid=uid)
        entry, _ = await self._verbs.delete(call, options)
        return self._doc(call, entry)

    async def post(
        self, resource: Resource, name: str, subresource: str, body: Document, namespace: str | None = None
    ) -> Document:
        """A create on a subresource: `pods/binding`, `pods/eviction`, `serviceaccounts/token`."""
        call = self._call("create", resource, namespace, name, subresource=subresource)
        return await self._subresources.write(call, "POST", fresh(body))

    def _call(
        self,
        verb: str,
        resource: Resource,
        namespace: str | None,
        name: str = "",
        *,
        subresource: str = "",
        dry_run: bool = False,
    ) -> Call:
        served = self._verbs.registry.find(resource.group, resource.version, resource.plural)
        if served is None:
            raise NotFound(f"the server has no {resource.plural} in {resource.api_version}: is its CRD installed?")
        if subresource and served.subresource(subresource) is None:
            raise NotFound(f"{served.qualified} has no subresource {subresource}")
        if not subresource and verb not in served.verbs:
            raise MethodNotAllowed(f"{served.qualified} can't be asked to {verb}")
        space = (namespace or "") if resource.namespaced else ""
        self._access.require(
            self._user, Attributes(verb=verb, group=resource.group, version=resource.version, resource=resource.plural,
                                   subresource=subresource, namespace=space, name=name)
        )  # fmt: skip
        return Call(
            served=served, user=self._user, namespace=space, name=name, subresource=subresource, dry_run=dry_run,
        )  # fmt: skip

    def _written(self, call: Call, entry: Entry) -> Document:
        """A part of ours that writes what no schema knows would lose it in silence."""
        for warning in call.warnings:
            if warning.startswith("unknown field"):
                _log.warning("%s wrote %s %s: %s, dropped", self._user.name, call.served.qualified, call.name, warning)
        return self._doc(call, entry)

    def _doc(self, call: Call, entry: Entry) -> Document:
        return call.served.shown(self._verbs.store.doc(entry))


class _Inbox:
    """What a watch pushes, for one `async for` to take."""

    def __init__(self, call: Call, verbs: Verbs) -> None:
        self._call, self._verbs = call, verbs
        self._events: deque[WatchEvent] = deque()
        self._wake: asyncio.Future[None] | None = None
        self._closed = False

    def deliver(self, type_: Type, event: Event, as_before: bool) -> None:
        doc: dict[str, Any] = event.doc
        if as_before and event.before_doc is not None:
            before = event.before_doc
            doc = {**before, "metadata": {**before["metadata"], "resourceVersion": str(event.revision)}}
        self._add(WatchEvent(type_, self._call.served.shown(doc)))

    def bookmark(self, revision: int) -> None:
        resource = self._call.served.resource
        meta = {"resourceVersion": str(revision)}
        self._add(WatchEvent("BOOKMARK", {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": meta}))

    def close(self) -> None:
        self._closed = True
        self._rouse()

    def _add(self, event: WatchEvent) -> None:
        self._events.append(event)
        self._rouse()

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def __aiter__(self) -> "_Inbox":
        return self

    async def __anext__(self) -> WatchEvent:
        while not self._events:
            if self._closed:
                raise StopAsyncIteration
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake
        return self._events.popleft()
