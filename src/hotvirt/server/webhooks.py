"""Admission by others: who is asked about a write, in which order, and what comes of their answers.

Mutating webhooks are asked one after the other, by their configurations' names; validating ones all at once. A write
waits for them with its object locked, others go on. Nobody is asked before `start`: what the server makes for itself
as it comes up must not wait for webhooks that run in it.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hotvirt.kube.errors import ApiError, BadRequest, Forbidden, InternalError
from hotvirt.server import cel_conditions, webhook_configs, webhook_match, webhook_places, webhook_review
from hotvirt.server.calls import Call
from hotvirt.server.events import Event
from hotvirt.server.keys import Key
from hotvirt.server.patches import json_patch
from hotvirt.server.registry import Registry, Served
from hotvirt.server.store import Store
from hotvirt.server.webhook_client import CallFailed, WebhookClient
from hotvirt.server.webhook_configs import MUTATING, VALIDATING, Hook
from hotvirt.server.webhook_review import Answer, BadAnswer

if TYPE_CHECKING:
    from hotvirt.server.cel.authority import Authorize

Document = dict[str, Any]
_FIXED = ("name", "namespace", "uid", "creationTimestamp")
_log = logging.getLogger(__name__)


class Webhooks:
    def __init__(self, store: Store, registry: Registry, authorize: "Authorize | None" = None) -> None:
        self._store, self._registry, self._authorize = store, registry, authorize
        self._client = WebhookClient()
        self._hooks: dict[str, list[Hook]] = {}
        self._started = False
        for kind in (MUTATING, VALIDATING):
            store.listen(kind, self._forget)

    def _forget(self, event: Event) -> None:
        self._hooks.pop(event.key.resource, None)

    def start(self) -> None:
        self._started = True

    async def stop(self) -> None:
        self._started = False
        await self._client.close()

    async def mutate(
        self,
        call: Call,
        operation: str,
        new: Document | None,
        old: Document | None,
        settle: Callable[[Document], Document],
    ) -> Document | None:
        """`new` as the mutating webhooks leave it. After they changed it, `settle` makes it a good object again; who
        wants to see what was changed after its turn is asked once more."""
        asked: list[Hook] = []
        unaware: list[Hook] = []
        doc = new
        for hook in self._of(MUTATING, call):
            was_asked, after = await self._changed(hook, call, operation, doc, old)
            if after is not doc:
                unaware, doc = list(asked), after
            if was_asked:
                asked.append(hook)
        if doc is new or doc is None:
            return doc
        settled = settle(doc)
        again = asked if settled != doc else unaware
        doc = settled
        for hook in again:
            if hook.is_reinvoked:
                doc = (await self._changed(hook, call, operation, doc, old))[1] or doc
        return doc if doc is settled else settle(doc)

    async def validate(self, call: Call, operation: str, new: Document | None, old: Document | None) -> None:
        """Raises what the first of the validating webhooks that refuses says."""
        hooks = self._of(VALIDATING, call)
        if not hooks:
            return
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._verdict(hook, call, operation, new, old)) for hook in hooks]
        for task in tasks:
            if (refusal := task.result()) is not None:
                raise refusal

    async def _verdict(
        self, hook: Hook, call: Call, operation: str, new: Document | None, old: Document | None
    ) -> ApiError | None:
        try:
            await self._ask(hook, call, operation, new, old)
        except ApiError as error:
            return error
        return None

    async def _changed(
        self, hook: Hook, call: Call, operation: str, doc: Document | None, old: Document | None
    ) -> tuple[bool, Document | None]:
        """Whether the webhook was asked, and the object after it: `doc` itself when it changed nothing."""
        asked = await self._ask(hook, call, operation, doc, old)
        if asked is None:
            return False, doc
        answer, form = asked
        if not answer.patch:
            return True, doc
        if doc is None or operation == "CONNECT":
            raise InternalError(
                f'Internal error occurred: admission webhook "{hook.name}" attempted to modify the object, '
                "which is not supported for this operation"
            )
        try:
            sent = in_form(call.served, form, doc)
            patched = json_patch(sent, answer.patch)
            _check_identity(patched, sent)
        except ApiError as error:
            raise InternalError(
                f'Internal error occurred: the patch of admission webhook "{hook.name}" is no good: {error}'
            ) from error
        result = in_form(form, call.served, patched)
        return True, doc if result == doc else result

    async def _ask(
        self, hook: Hook, call: Call, operation: str, new: Document | None, old: Document | None
    ) -> tuple[Answer, Served] | None:
        """None when the webhook has nothing to do with it, or failed and may. ApiError when it refuses or fails."""
        form = webhook_match.form(hook, call, operation, self._registry.all)
        if form is None or not webhook_match.is_selected(hook, call, new, old, self._labels):
            return None
        if call.dry_run and hook.has_side_effects:
            raise BadRequest(f'admission webhook "{hook.name}" does not support dry run')
        uid = str(uuid.uuid4())
        before, after = (doc and in_form(call.served, form, doc) for doc in (old, new))
        review = webhook_review.question(call, operation, after, before, form=form, uid=uid)
        if hook.conditions and not _is_meant(hook, call, review["request"], self._authorize):
            return None
        try:
            url, server_name = self._address(hook)
            said = await self._client.ask(url, review, ca=hook.ca, server_name=server_name, timeout=hook.timeout)
            answer = webhook_review.read(said, uid=uid, name=hook.name)
        except (CallFailed, BadAnswer, webhook_places.Unplaced) as error:
            if hook.is_ignored_when_failing:
                _log.warning("webhook %s failed and is ignored, as it says: %s", hook.name, error)
                return None
            raise InternalError(
                f'Internal error occurred: failed calling webhook "{hook.name}": failed to call webhook: {error}'
            ) from error
        call.warnings += [text for text in answer.warnings if text not in call.warnings]
        if answer.refusal is not None:
            raise answer.refusal
        return answer, form

    def _of(self, kind: str, call: Call) -> list[Hook]:
        if not self._started or webhook_match.is_exempt(call):
            return []
        if kind not in self._hooks:
            self._hooks[kind] = [hook for entry in self._store.entries(kind) for hook in _read(self._store.doc(entry))]
        return self._hooks[kind]

    def _address(self, hook: Hook) -> tuple[str, str | None]:
        service = hook.service
        if service is None:
            return hook.url, None
        host, port = webhook_places.place(service, self._find, self._slices)
        host = f"[{host}]" if ":" in host else host
        path = "/" + (service.get("path") or "").lstrip("/")
        return f"https://{host}:{port}{path}", f"{service['name']}.{service['namespace']}.svc"

    def _find(self, store: str, namespace: str, name: str) -> Document | None:
        entry = self._store.get(Key(store, namespace, name))
        return self._store.doc(entry) if entry else None

    def _slices(self, namespace: str) -> list[Document]:
        return [self._store.doc(each) for each in self._store.entries("discovery.k8s.io/endpointslices", namespace)]

    def _labels(self, namespace: str) -> Document:
        found = self._find("/namespaces", "", namespace) or {}
        return (found.get("metadata") or {}).get("labels") or {}


def _read(config: Document) -> list[Hook]:
    """One that was stored before it was checked as it is now can't be asked."""
    try:
        return list(webhook_configs.read(config))
    except (KeyError, TypeError, ValueError, ApiError) as error:
        _log.error("webhook configuration %s can't be read, write it anew: %r", config["metadata"]["name"], error)
        return []


def _is_meant(hook: Hook, call: Call, request: Document, authorize: "Authorize | None") -> bool:
    """Whether the matchConditions hold. Forbidden when that can't be said, and the webhook may not be left out."""
    try:
        meant, fault = cel_conditions.hold(hook.conditions, request, authorize)
    except ValueError as error:
        meant, fault = False, str(error)
    if fault and not hook.is_ignored_when_failing:
        name = request["name"]
        raise Forbidden(f'{call.served.qualified} "{name}" is forbidden: {fault}', **call.about(name))
    return meant


def in_form(sent: Served, wanted: Served, doc: Document) -> Document:
    """`doc`, in the version `sent`, in the version `wanted`."""
    return doc if sent == wanted else wanted.shown(sent.stored(doc))


def _check_identity(patched: Any, sent: Document) -> None:
    meta = patched.get("metadata") if isinstance(patched, dict) else None
    if not isinstance(meta, dict):
        raise BadRequest("it leaves no object with metadata")
    for key in ("apiVersion", "kind"):
        if patched.get(key) != sent.get(key):
            raise BadRequest(f"{key} can't be changed")
    for key in _FIXED:
        if meta.get(key) != sent["metadata"].get(key):
            raise BadRequest(f"metadata.{key} can't be changed")
