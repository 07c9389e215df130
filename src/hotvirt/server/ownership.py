"""Who manages which fields: the server's use of server-side apply and its book-keeping (`patches.apply`)."""

from typing import Any

from hotvirt.kube.errors import Conflict
from hotvirt.server.calls import Call
from hotvirt.server.patches import apply as applying
from hotvirt.server.patches import lastapplied

Document = dict[str, Any]


def apply(call: Call, live: Document | None, applied: Document, *, force: bool, now: str) -> Document:
    """`live` with what was applied merged in. Conflict names each field that another manager owns."""
    if call.field_manager != lastapplied.MANAGER:
        return _apply(call, live, applied, force=force, now=now)
    try:
        new = _apply(call, live, applied, force=force, now=now)
    except Conflict as conflict:
        own = lastapplied.own(live or {}, api_version=call.served.resource.api_version, schema=_openapi(call))
        if not own.issuperset(cause.field for cause in conflict.causes):
            raise
        new = _apply(call, live, applied, force=True, now=now)
    return lastapplied.renewed(new, applied)


def _openapi(call: Call) -> Document | None:
    return call.served.any_schema.openapi if call.served.any_schema else None


def _apply(call: Call, live: Document | None, applied: Document, *, force: bool, now: str) -> Document:
    if call.subresource == "status":
        applied = _status_alone(call, applied)
    reset = ("status",) if call.served.has_status and not call.subresource else ()
    return applying.apply(
        live,
        applied,
        manager=call.field_manager,
        force=force,
        schema=call.served.any_schema,
        api_version=call.served.resource.api_version,
        now=now,
        subresource=call.subresource,
        reset=reset,
    )


def _status_alone(call: Call, applied: Document) -> Document:
    """What `status` writes of what was applied; of a custom kind not even the metadata."""
    kept = {key: value for key, value in applied.items() if key in ("apiVersion", "kind", "metadata", "status")}
    if call.served.is_custom:
        kept["metadata"] = {k: v for k, v in (kept.get("metadata") or {}).items() if k in ("name", "namespace")}
    return kept


def track(call: Call, new: Document, old: Document | None, *, now: str) -> None:
    """Sets new's managedFields (the caller owns its metadata) after a write that was no apply. A write in process by
    nobody in particular is noted only where somebody applies: until then nobody could ask."""
    before = (old or {}).get("metadata", {}).get("managedFields")
    meta = new["metadata"]
    if not call.field_manager and not any(entry.get("operation") == "Apply" for entry in before or ()):
        fields = before
    else:
        fields = applying.track_update(
            old,
            new,
            manager=call.field_manager or "hotvirt",
            schema=call.served.any_schema,
            api_version=call.served.resource.api_version,
            now=now,
            subresource=call.subresource,
        )
    if fields:
        meta["managedFields"] = fields
    else:
        meta.pop("managedFields", None)
