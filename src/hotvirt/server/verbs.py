"""The verbs of the API on stored objects, for HTTP and in-process callers alike.

Everything runs on the event loop. A write holds the lock of its key from reading to durable, so writes of one object
are serial and of different objects are not. Authorization is the caller's: a `Call` that arrives here may do what it
asks. Returned entries are in the version they are kept in; `Served.shown` gives the version that was asked for.
"""

import secrets
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from hotvirt.kube.admission import Admission
from hotvirt.kube.client import PatchKind
from hotvirt.kube.errors import BadRequest, Cause, Forbidden, Invalid, MethodNotAllowed, UnsupportedMediaType
from hotvirt.server import deletion, objectmeta, ownership, pods, services
from hotvirt.server.admit import Chain
from hotvirt.server.bookkeeping_checks import SYSTEM_PRIORITIES
from hotvirt.server.calls import Call, DeleteOptions, ListOptions, option_fault
from hotvirt.server.keys import Key
from hotvirt.server.lists import Listing, list_objects
from hotvirt.server.patches import json_patch, merge_patch, strategic_merge
from hotvirt.server.policies import Policies
from hotvirt.server.quotas import QuotaGuard
from hotvirt.server.registry import Registry
from hotvirt.server.serviceaddresses import ServiceAddresses
from hotvirt.server.services import Ranges
from hotvirt.server.store import Entry, Store
from hotvirt.server.webhooks import Webhooks

Document = dict[str, Any]
Change = Callable[[Document], Document]
NAME_ATTEMPTS = 8
_LASTING = {
    Key("/namespaces", "", name): "this namespace may not be deleted"
    for name in ("default", "kube-system", "kube-public")
} | {
    Key("scheduling.k8s.io/priorityclasses", "", name): "this is a system priority class and cannot be deleted"
    for name in SYSTEM_PRIORITIES
}


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _suffix() -> str:
    return "".join(secrets.choice(objectmeta.SUFFIX_LETTERS) for _ in range(5))


class Verbs:
    """`now`, `uid` and `suffix` are how tests hold time and chance still. `complete_status` may set what the server
    itself answers for in an object about to be stored (a CRD's conditions)."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        admissions: Sequence[Admission] = (),
        *,
        now: Callable[[], datetime] = _utc_now,
        uid: Callable[[], str] = lambda: str(uuid.uuid4()),
        suffix: Callable[[], str] = _suffix,
        webhooks: Webhooks | None = None,
        policies: Policies | None = None,
        complete_status: Callable[[str, Document, str], Document] = lambda _store, doc, _now: doc,
        service_ranges: Ranges | None = None,
    ) -> None:
        self.store, self.registry = store, registry
        self.now, self._uid, self._suffix = now, uid, suffix
        self._chain = Chain(admissions, self._lookup, webhooks, policies)
        self._complete_status = complete_status
        self._quotas = QuotaGuard(store)
        self._addresses = ServiceAddresses(store, service_ranges)

    # -- reading

    async def get(self, call: Call) -> Entry:
        entry = self.store.get(call.key)
        if entry is None:
            raise call.not_found()
        return entry

    async def list(self, call: Call, options: ListOptions) -> Listing:
        return await list_objects(self.store, call, options)

    # -- writing

    async def create(self, call: Call, doc: Document) -> Entry:
        doc = _headed(call, doc)
        self._check_header(call, doc)
        if (doc.get("metadata") or {}).get("resourceVersion"):
            raise BadRequest("resourceVersion should not be set on objects to be created")
        self._check_namespace(call)
        generated = not (doc.get("metadata") or {}).get("name") and not call.name
        for attempt in range(NAME_ATTEMPTS):
            new = self._begin(call, doc)
            key = Key(call.served.store, call.namespace, new["metadata"]["name"])
            async with self.store.locked(key):
                if self.store.get(key) is not None:
                    if generated and attempt < NAME_ATTEMPTS - 1:
                        continue
                    raise call.already_exists(key.name)
                new = await self._chain.admit(call, "CREATE", new, None)
                async with self._addresses.allotted(call, new, None) as new, self._quotas.admitted(call, new, None):
                    return await self._finish(call, key, new, None)
        raise call.already_exists(call.name)

    async def update(self, call: Call, doc: Document) -> Entry:
        doc = _headed(call, doc)
        self._check_header(call, doc)
        if not (doc.get("metadata") or {}).get("name"):
            raise BadRequest(
                f"the name of the object ({call.name} based on URL) was undeterminable: name must be provided"
            )

        def replace(_: Document) -> Document:
            if call.served.is_custom and not (doc.get("metadata") or {}).get("resourceVersion"):
                raise _unversioned(call)
            return doc

        return await self.change(call, replace)

    async def patch(
        self,
        call: Call,
        kind: PatchKind,
        patch: Any,
        *,
        force: bool = False,
        inspect: Callable[[Document], None] = lambda _: None,
    ) -> Entry:
        """`inspect` sees the patched object before anything else does, and may refuse it."""
        if kind == "strategic" and call.served.is_custom:
            raise UnsupportedMediaType(
                "the body of the request was in an unknown format - accepted media types include: "
                "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
            )
        if kind == "apply":
            return await self._apply(call, patch, force=force, inspect=inspect)

        def change(old: Document) -> Document:
            if kind == "json":
                new = json_patch(old, patch)
            elif kind == "merge":
                new = merge_patch(old, patch)
            else:
                new = strategic_merge(old, patch, call.served.resource.kind)
            if not isinstance(new, dict) or not isinstance(new.get("metadata"), dict):
                raise BadRequest("the patch leaves no object with metadata: an object stays an object")
            self._check_header(call, new)
            inspect(new)
            return new

        return await self.change(call, change)

    async def _apply(self, call: Call, applied: Document, *, force: bool, inspect: Callable[[Document], None]) -> Entry:
        if not call.field_manager:
            message = "Required value: is required for apply patch"
            raise option_fault("PatchOptions", "fieldManager", objectmeta.REQUIRED, message)
        self._check_header(call, applied)
        if (applied.get("metadata") or {}).get("managedFields"):
            raise BadRequest("metadata.managedFields must be nil: leave it out of what is applied")
        call.is_apply = True
        if self.store.get(call.key) is None:
            if call.subresource or (applied.get("metadata") or {}).get("resourceVersion"):
                raise call.not_found()
            made = ownership.apply(call, None, applied, force=force, now=self._stamp())
            inspect(made)
            return await self.create(call, made)

        def change(old: Document) -> Document:
            new = ownership.apply(call, old, applied, force=force, now=self._stamp())
            inspect(new)
            return new

        return await self.change(call, change)

    async def change(self, call: Call, change: Change) -> Entry:
        """Reads, changes, admits, stores. `change` gets the object in the asked version and must not write into it."""
        async with self.store.locked(call.key):
            entry = await self.get(call)
            old = call.served.shown(self.store.doc(entry))
            sent = change(old)
            _check_preconditions(call, sent, old)
            new = objectmeta.carry(call.served, sent, old, subresource=call.subresource)
            if call.subresource == "resize":
                new, causes = pods.resized(new, old)
                if causes:
                    raise Invalid(causes[0].message, causes=causes, **call.about(call.name))
            elif call.served.store == services.STORE and not call.subresource:
                new = services.carried(new, old)
            new = _own_meta(await self._chain.admit(call, "UPDATE", new, old))
            # Again, as what was pruned, defaulted or changed by a webhook counts by what came of it.
            new = objectmeta.count_generation(call.served, new, old, subresource=call.subresource)
            async with self._addresses.allotted(call, new, old) as new, self._quotas.admitted(call, new, old):
                return await self._finish(call, call.key, new, entry)

    async def admit_eviction(self, call: Call, eviction: Document, pod: Document) -> None:
        """As `Chain.admit_eviction`."""
        await self._chain.admit_eviction(call, eviction, call.served.shown(pod))

    async def delete(self, call: Call, options: DeleteOptions | None = None) -> tuple[Entry, bool]:
        """The object as last seen, and whether it is gone already."""
        options = options or DeleteOptions()
        async with self.store.locked(call.key):
            entry = await self.get(call)
            stored = self.store.doc(entry)
            meta = stored["metadata"]
            if options.uid and options.uid != meta["uid"]:
                raise call.conflict(
                    f"Precondition failed: UID in precondition: {options.uid}, UID in object meta: {meta['uid']}"
                )
            if options.resource_version and options.resource_version != meta["resourceVersion"]:
                raise call.conflict(
                    f"Precondition failed: ResourceVersion in precondition: {options.resource_version}, "
                    f"ResourceVersion in object meta: {meta['resourceVersion']}"
                )
            _check_removable(call)
            await self._chain.admit_delete(call, call.served.shown(stored))
            marked = deletion.mark(call.served, stored, options, self.now())
            if marked is None:
                if call.dry_run:
                    return entry, True
                return await self.store.remove(call.key, _own_meta(stored)), True
            if call.dry_run or objectmeta.same(marked, stored):
                return _unstored(entry.key, marked), False
            return await self.store.put(call.key, marked), False

    async def delete_collection(self, call: Call, options: DeleteOptions, chosen: ListOptions) -> Listing:
        listing = await self.list(call, chosen)
        for entry in listing.entries:
            each = msgspec.structs.replace(call, namespace=entry.key.namespace, name=entry.key.name)
            try:
                await self.delete(each, options)
            except type(each.not_found()):
                continue
        return listing

    async def connect(self, call: Call, options: Document) -> None:
        """Whether admission lets this stream begin; raises when not."""
        await self._chain.admit_connect(call, options)

    async def bind(self, call: Call, binding: Document) -> None:
        """pods/binding: the scheduler's decision."""
        node = (binding.get("target") or {}).get("name")
        if not node:
            raise BadRequest("Binding needs target.name: the node to run on")

        def change(pod: Document) -> Document:
            if (bound := pods.bind(pod, node, self._stamp())) is None:
                raise call.conflict(f"pod {call.name} is already assigned to node {pod['spec']['nodeName']!r}")
            return bound

        async with self.store.locked(call.key):
            entry = await self.get(call)
            old = self.store.doc(entry)
            new = _own_meta(change(old))
            objectmeta.count_generation(call.served, new, old, subresource="binding")
            await self._finish(call, call.key, new, entry)

    # -- parts

    def _begin(self, call: Call, doc: Document) -> Document:
        return objectmeta.begin(
            call.served, doc, namespace=call.namespace, name=call.name, now=self._stamp(), uid=self._uid(),
            suffix=self._suffix,
        )  # fmt: skip

    async def _finish(self, call: Call, key: Key, new: Document, before: Entry | None) -> Entry:
        """Stores an admitted document, unless nothing changed; removes it when nothing holds it any more."""
        served = call.served
        old = self.store.doc(before) if before else None
        now = self._stamp()
        if not call.subresource:
            new = self._complete_status(served.store, new, now)
        stored = _own_meta(served.stored(new))
        if old is not None and before is not None and objectmeta.same(stored, old, managers=call.is_apply):
            return before
        if not call.is_apply:
            ownership.track(call, stored, old, now=now)
        if old is not None and objectmeta.is_finished(served, stored):
            return _unstored(key, stored) if call.dry_run else await self.store.remove(key, stored)
        return _unstored(key, stored) if call.dry_run else await self.store.put(key, stored)

    def _check_header(self, call: Call, doc: Any) -> None:
        if not isinstance(doc, dict):
            raise BadRequest("the body must be one JSON object with apiVersion, kind and metadata")
        wanted = call.served.resource
        if doc.get("apiVersion") != wanted.api_version:
            raise BadRequest(
                f"the API version in the data ({doc.get('apiVersion', '')}) does not match the expected API version "
                f"({wanted.api_version})"
            )
        if doc.get("kind") != wanted.kind:
            raise BadRequest(f"the object provided is a {doc.get('kind', '')}, expected a {wanted.kind}")
        meta = doc.get("metadata")
        if meta is not None and not isinstance(meta, dict):
            raise BadRequest("metadata must be an object")
        for key in ("name", "namespace"):
            if not isinstance((meta or {}).get(key) or "", str):
                raise BadRequest(f"metadata.{key} must be a string")
        space = (meta or {}).get("namespace")
        if space and call.served.resource.namespaced and space != call.namespace:
            raise BadRequest(
                f"the namespace of the provided object does not match the namespace sent on the request "
                f"({space} and {call.namespace})"
            )

    def _check_namespace(self, call: Call) -> None:
        if not call.served.resource.namespaced:
            return
        if not call.namespace:
            raise BadRequest("an empty namespace may not be set during creation: name one")
        entry = self.store.get(Key("/namespaces", "", call.namespace))
        if entry is None:
            text = f'namespaces "{call.namespace}" not found'
            raise type(call.not_found())(text, kind="namespaces", name=call.namespace)
        if self.store.doc(entry)["metadata"].get("deletionTimestamp"):
            cause = Cause(
                "NamespaceTerminating", f"namespace {call.namespace} is being terminated", "metadata.namespace"
            )
            raise Forbidden(
                f"{call.served.qualified} is forbidden: unable to create new content in namespace {call.namespace} "
                "because it is being terminated", causes=[cause], **call.about(call.name),
            )  # fmt: skip

    def _lookup(self, store: str) -> Sequence[Document]:
        return [self.store.doc(entry) for entry in self.store.entries(store)]

    def _stamp(self) -> str:
        return objectmeta.timestamp(self.now())


def _headed(call: Call, doc: Any) -> Any:
    """A body of a built-in kind may leave out what the path says already: apiVersion and kind."""
    if call.served.is_custom or not isinstance(doc, dict) or (doc.get("apiVersion") and doc.get("kind")):
        return doc
    resource = call.served.resource
    head = {"apiVersion": doc.get("apiVersion") or resource.api_version, "kind": doc.get("kind") or resource.kind}
    return head | {k: v for k, v in doc.items() if k not in head}


def _check_preconditions(call: Call, sent: Document, old: Document) -> None:
    asked, present = sent.get("metadata") or {}, old["metadata"]
    if asked.get("uid") and asked["uid"] != present["uid"]:
        raise call.conflict(
            f"Precondition failed: UID in precondition: {asked['uid']}, UID in object meta: {present['uid']}"
        )
    version = asked.get("resourceVersion")
    if version and version != present["resourceVersion"]:
        raise call.conflict(
            "the object has been modified; please apply your changes to the latest version and try again"
        )
    if asked.get("name") not in (None, present["name"]):
        named, wanted = asked["name"], present["name"]
        raise BadRequest(f"the name of the object ({named}) does not match the name on the URL ({wanted})")


def _unversioned(call: Call) -> Invalid:
    message = "Invalid value: 0x0: must be specified for an update"
    cause = Cause(objectmeta.INVALID, message, "metadata.resourceVersion")
    text = f'{call.served.qualified} "{call.name}" is invalid: {cause.field}: {cause.message}'
    return Invalid(text, causes=[cause], **call.about(call.name))


def _check_removable(call: Call) -> None:
    if why := _LASTING.get(call.key):
        raise Forbidden(f'{call.served.qualified} "{call.name}" is forbidden: {why}', **call.about(call.name))
    if "delete" not in call.served.verbs:
        raise MethodNotAllowed(f"{call.served.qualified} can't be deleted")


def _own_meta(doc: Document) -> Document:
    """A top level and metadata that the store may write into."""
    return {**doc, "metadata": {**doc["metadata"]}}


def _unstored(key: Key, doc: Document) -> Entry:
    """What a dry run gives back."""
    return Entry(key, 0, msgspec.json.encode(doc))
