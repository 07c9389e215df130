"""The one way to the Kubernetes API that every part of hotvirt uses.

Two implementations: `hotvirt.server.inprocess.LocalClient` (straight to the store of the embedded home, no HTTP) and
`hotvirt.kube.remote.RemoteClient` (any cluster, over TLS). Parts are handed a `Client` and never know which.

Documents are plain dicts as JSON has them. What a client returns, and what a watch delivers, may be shared with a
cache: **never change a document you were given**; build a new one, or patch.
Writers use `patch` (merge patch, or server-side apply) or `/status` rather than `update` of a whole object, so that a
field they do not know is never lost.
"""

from collections.abc import AsyncIterator
from typing import Any, Literal, Protocol

from msgspec import Struct

from hotvirt.kube.resources import Resource

Document = dict[str, Any]
JsonPatch = list[Document]
PatchKind = Literal["json", "merge", "strategic", "apply"]
EventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]


class WatchEvent(Struct, frozen=True):
    """One watch event. `object` of a BOOKMARK has only kind, apiVersion and metadata.resourceVersion."""

    type: EventType
    object: Document


class Client(Protocol):
    """All calls raise `hotvirt.kube.errors.ApiError` (or `Unreachable`); none retries by itself."""

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Document: ...

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
        """A List document: `items` and `metadata.resourceVersion` to watch from. namespace None: all namespaces."""
        ...

    def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncIterator[WatchEvent]:
        """Events after `resource_version`, in order, with bookmarks. Ends when the server closes the stream (go on
        from the last resourceVersion); raises `Gone` when that version is compacted (list again)."""
        ...

    async def create(
        self, resource: Resource, obj: Document, namespace: str | None = None, *, dry_run: bool = False
    ) -> Document: ...

    async def update(self, resource: Resource, obj: Document, *, subresource: str = "") -> Document:
        """PUT; `obj.metadata` names it, and its resourceVersion (if set) must be current, else Conflict."""
        ...

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
        """`json` takes a list of operations, the others a document. `force` is for `apply` only."""
        ...

    async def post(
        self, resource: Resource, name: str, subresource: str, body: Document, namespace: str | None = None
    ) -> Document:
        """A create on a subresource: `pods/binding`, `pods/eviction`, `serviceaccounts/token`."""
        ...

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
        """Returns the object as last seen (it may go on existing until its finalizers are gone)."""
        ...
