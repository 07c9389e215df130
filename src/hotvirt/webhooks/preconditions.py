"""`virtualmachines/NAME/preconditions`: what stands between a machine and a change, before anything is changed.

Reads what the judgement rests on, most of it at once, and lets `hotvirt.preconditions` judge. Each part is read with
our own rights, but claims and their users only for a caller who may read claims himself: nothing comes out here that
he could not learn elsewhere. What could not be read is not told. Stateless, so requests run concurrently.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from msgspec import structs

from hotvirt.kube.admission import User
from hotvirt.kube.aggregated import RequestContext
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import ApiError, BadRequest, NotFound
from hotvirt.kube.resources import (
    ATTACHMENTS,
    CLAIMS,
    KUBEVIRTS,
    NODES,
    PODS,
    QUOTAS,
    STORAGE_CLASSES,
    VMIS,
    VMS,
    Resource,
)
from hotvirt.preconditions import gather
from hotvirt.preconditions import report as reports
from hotvirt.preconditions.facts import READ_CLAIM, Caller, Places
from hotvirt.preconditions.gather import REVIEWS, Read
from hotvirt.webhooks import callers, expand, states
from hotvirt.webhooks.guests import GuestAccess

T = TypeVar("T")
MOST_CHANGES = 32
PATIENCE = 3.0
"""Seconds that the guest's own word is waited for."""


async def report(
    client: Client, guests: Callable[[], GuestAccess], context: RequestContext, changes: Sequence[str]
) -> Document:
    """NotFound without such a VM; BadRequest for what is no change."""
    if len(changes) > MOST_CHANGES:
        raise BadRequest(f"{len(changes)} changes are asked about; ask about {MOST_CHANGES} at most")
    written = await client.get(VMS, context.name, context.namespace)
    vm = await expand.expanded(client, written)
    vmi = await states.instance(client, context)
    read = await _read(client, guests, context, vmi)
    facts = gather.facts(read, context.name, context.namespace)
    facts = structs.replace(facts, sized_by=gather.sized_by(written, vm))
    try:
        found = reports.judge(changes, vm, vmi, facts, read.kubevirt)
    except ValueError as error:
        raise BadRequest(f"change: {error}") from error
    return found.document()


async def _read(
    client: Client, guests: Callable[[], GuestAccess], context: RequestContext, vmi: Document | None
) -> Read:
    space = context.namespace
    node_name = str(((vmi or {}).get("status") or {}).get("nodeName") or "")
    caller, kubevirts, claims, classes, vmis, attachments, pods, node, quotas, places, spare = await asyncio.gather(
        _caller(client, context.user, space),
        _items(client, KUBEVIRTS),
        _items(client, CLAIMS, space),
        _items(client, STORAGE_CLASSES),
        _items(client, VMIS, space),
        _items(client, ATTACHMENTS),
        _items(client, PODS),
        _unless_refused(client.get(NODES, node_name)) if node_name else _nothing(),
        _items(client, QUOTAS, space),
        _places(guests, context) if reports.is_running(vmi) else _nothing(),
        _spare(guests, context) if states.has(vmi or {}, "AgentConnected") else _nothing(),
    )
    may_read = caller.may.get(READ_CLAIM, False)
    return Read(
        kubevirt=next(iter(kubevirts or ()), None),
        claims=claims if may_read else None,
        classes=classes,
        vmis=vmis if may_read else None,
        attachments=attachments, node=node, pods=pods, quotas=quotas, places=places, spare=spare,
        caller=caller,
    )  # fmt: skip


async def _caller(client: Client, user: User, space: str) -> Caller:
    """What the caller may, by the API's own judgement."""
    answers = await asyncio.gather(
        *(callers.may(client, user, {**each, "namespace": space}) for each in REVIEWS.values())
    )
    return Caller(name=user.name, may=dict(zip(REVIEWS, answers, strict=True)))


async def _places(guests: Callable[[], GuestAccess], context: RequestContext) -> Places | None:
    try:
        found = await guests().places(context.namespace, context.name)
    except ApiError:
        return None  # its node does not answer: not known
    return Places(
        ports=found["ports"], scsi=found["scsi"], network=found.get("network", ""), bridges=found.get("bridges", {})
    )  # fmt: skip


async def _spare(guests: Callable[[], GuestAccess], context: RequestContext) -> int | None:
    """What the guest has available at this moment; None when it does not say so soon."""
    try:
        async with asyncio.timeout(PATIENCE):
            found = (await guests().facts(context.namespace, context.name)).get("memAvailableBytes")
    except (ApiError, TimeoutError):
        return None
    return found if isinstance(found, int) else None


async def _items(client: Client, resource: Resource, space: str | None = None) -> list[Document] | None:
    """None for a kind that is not served."""
    listed = await _unless_refused(client.list(resource, space))
    return None if listed is None else listed["items"]


async def _unless_refused(call: Awaitable[Document]) -> Document | None:
    try:
        return await call
    except NotFound:
        return None


async def _nothing() -> Any:
    return None
