"""Query options and option bodies as values. Pure; BadRequest names the option that can't be used."""

from collections.abc import Mapping
from typing import Any, Literal

from hotvirt.kube.errors import BadRequest
from hotvirt.server.calls import DeleteOptions, ListOptions

Document = dict[str, Any]
_TRUE = ("true", "1", "True", "")
LARGEST_NUMBER = 2**31


def flag(query: Mapping[str, str], name: str) -> bool:
    return name in query and query[name] in _TRUE


def number(query: Mapping[str, str], name: str, default: int = 0) -> int:
    text = query.get(name, "")
    if not text:
        return default
    if not text.isdecimal() or int(text) > LARGEST_NUMBER:
        raise BadRequest(f"{name}: {text[:40]!r} is not a number from 0 to {LARGEST_NUMBER}")
    return int(text)


def dry_run(query: Mapping[str, str]) -> bool:
    return _dry([query["dryRun"]]) if query.get("dryRun") else False


def _dry(values: Any) -> bool:
    if not values:
        return False
    if values != ["All"]:
        raise BadRequest(f"dryRun: Unsupported value: {values}: supported values: All")
    return True


def field_manager(query: Mapping[str, str], agent: str) -> str:
    """Who is noted as the writer of fields: who says so, else the program's name."""
    named = query.get("fieldManager", "")
    if len(named) > 128:
        raise BadRequest("fieldManager: may have at most 128 characters")
    return named or agent.partition("/")[0][:128] or "unknown"


def field_validation(query: Mapping[str, str]) -> Literal["Strict", "Warn", "Ignore"]:
    match query.get("fieldValidation", ""):
        case "" | "Warn":
            return "Warn"
        case "Strict":
            return "Strict"
        case "Ignore":
            return "Ignore"
        case other:
            raise BadRequest(f"fieldValidation: {other!r} is not one of Ignore, Warn, Strict")


def include_object(query: Mapping[str, str]) -> str:
    value = query.get("includeObject", "Metadata") or "Metadata"
    if value not in ("None", "Metadata", "Object"):
        raise BadRequest(f"includeObject: {value!r} is not one of None, Metadata, Object")
    return value


def list_options(query: Mapping[str, str]) -> ListOptions:
    match = query.get("resourceVersionMatch", "")
    version, token = query.get("resourceVersion", ""), query.get("continue", "")
    if match not in ("", "Exact", "NotOlderThan"):
        raise BadRequest(f"resourceVersionMatch: {match!r} is not one of Exact, NotOlderThan")
    if match and not version and not flag(query, "sendInitialEvents"):
        raise BadRequest("resourceVersionMatch is forbidden unless resourceVersion is provided")
    if token and version not in ("", "0"):
        raise BadRequest("specifying resource version is not allowed when using continue")
    number(query, "timeoutSeconds")
    return ListOptions(
        label_selector=query.get("labelSelector", ""),
        field_selector=query.get("fieldSelector", ""),
        limit=number(query, "limit"),
        continue_token=token,
        version=version,
        match=match,
    )


def delete_options(query: Mapping[str, str], body: Document) -> tuple[DeleteOptions, bool]:
    """From the query, and from a DeleteOptions body, which counts more. Also whether it is a dry run."""
    grace: Any = body.get("gracePeriodSeconds")
    if grace is None and query.get("gracePeriodSeconds"):
        grace = number(query, "gracePeriodSeconds")
    propagation: Any = body.get("propagationPolicy") or query.get("propagationPolicy") or ""
    orphan = body.get("orphanDependents")
    if orphan is None and "orphanDependents" in query:
        orphan = flag(query, "orphanDependents")
    if orphan is not None and propagation:
        raise BadRequest("orphanDependents and deletionPropagation cannot be both set")
    if orphan is not None:
        propagation = "Orphan" if orphan else "Background"
    if propagation not in ("", "Background", "Foreground", "Orphan"):
        raise BadRequest(f"propagationPolicy: {propagation!r} is not one of Background, Foreground, Orphan")
    conditions = body.get("preconditions") or {}
    options = DeleteOptions(
        grace=max(grace, 0) if grace is not None else None,
        propagation=propagation,
        uid=str(conditions.get("uid") or ""),
        resource_version=str(conditions.get("resourceVersion") or ""),
    )
    return options, _dry(body.get("dryRun"))
