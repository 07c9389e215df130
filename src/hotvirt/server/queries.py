"""Query options and option bodies as values. Pure; Invalid or BadRequest names the option that can't be used."""

from collections.abc import Mapping
from typing import Any, Literal

from hotvirt.kube.errors import BadRequest, Invalid
from hotvirt.server.calls import DeleteOptions, ListOptions, option_fault
from hotvirt.server.objectmeta import FORBIDDEN, INVALID, TOO_LONG

Document = dict[str, Any]
_TRUE = ("true", "1", "True", "")
LARGEST_NUMBER = 2**31


def flag(query: Mapping[str, str], name: str) -> bool:
    return name in query and query[name] in _TRUE


def _unknown(options: str, field: str, value: str, known: str) -> Invalid:
    return option_fault(
        options, field, "FieldValueNotSupported", f"Unsupported value: {value}: supported values: {known}"
    )


def number(query: Mapping[str, str], name: str, default: int = 0) -> int:
    text = query.get(name, "")
    if not text:
        return default
    if not text.isdecimal() or int(text) > LARGEST_NUMBER:
        raise BadRequest(f"{name}: {text[:40]!r} is not a number from 0 to {LARGEST_NUMBER}")
    return int(text)


def dry_run(query: Mapping[str, str], *, options: str = "CreateOptions") -> bool:
    return _dry([query["dryRun"]], options) if query.get("dryRun") else False


def _dry(values: Any, options: str) -> bool:
    if not values:
        return False
    if values != ["All"]:
        raise _unknown(options, "dryRun", str(values).replace("'", '"'), '"All"')
    return True


def field_manager(query: Mapping[str, str], agent: str, *, options: str = "CreateOptions") -> str:
    """Who is noted as the writer of fields: who says so, else the program's name."""
    named = query.get("fieldManager", "")
    if len(named) > 128:
        raise option_fault(options, "fieldManager", TOO_LONG, "Too long: may not be more than 128 bytes")
    if not named.isprintable():
        raise option_fault(
            options, "fieldManager", INVALID, f"Invalid value: {named!r}: should only contain printable characters"
        )
    return named or agent.partition("/")[0][:128] or "unknown"


def field_validation(
    query: Mapping[str, str], *, options: str = "CreateOptions"
) -> Literal["Strict", "Warn", "Ignore"]:
    match query.get("fieldValidation", ""):
        case "" | "Warn":
            return "Warn"
        case "Strict":
            return "Strict"
        case "Ignore":
            return "Ignore"
        case other:
            raise _unknown(options, "fieldValidation", f'"{other}"', '"", "Ignore", "Strict", "Warn"')


def include_object(query: Mapping[str, str]) -> str:
    value = query.get("includeObject", "Metadata") or "Metadata"
    if value not in ("None", "Metadata", "Object"):
        raise BadRequest(f"includeObject: {value!r} is not one of None, Metadata, Object")
    return value


def list_options(query: Mapping[str, str], *, watch: bool = False) -> ListOptions:
    match = query.get("resourceVersionMatch", "")
    version, token = query.get("resourceVersion", ""), query.get("continue", "")
    at, initial = "resourceVersionMatch", flag(query, "sendInitialEvents")
    if match not in ("", "Exact", "NotOlderThan"):
        raise _unknown("ListOptions", at, f'"{match}"', '"Exact", "NotOlderThan"')
    if match and not version and not initial:
        message = "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
        raise option_fault("ListOptions", at, FORBIDDEN, message)
    if match == "Exact" and version == "0":
        message = 'Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
        raise option_fault("ListOptions", at, FORBIDDEN, message)
    if not watch and initial:
        message = "Forbidden: sendInitialEvents is forbidden for list"
        raise option_fault("ListOptions", "sendInitialEvents", FORBIDDEN, message)
    if initial and match != "NotOlderThan":
        message = "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        raise option_fault("ListOptions", at, FORBIDDEN, message)
    if watch and match and not initial:
        message = "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        raise option_fault("ListOptions", at, FORBIDDEN, message)
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
    at = "propagationPolicy"
    if orphan is not None and propagation:
        message = f'Invalid value: "{propagation}": orphanDependents and deletionPropagation cannot be both set'
        raise option_fault("DeleteOptions", at, INVALID, message)
    if orphan is not None:
        propagation = "Orphan" if orphan else "Background"
    if propagation not in ("", "Background", "Foreground", "Orphan"):
        known = '"Background", "Foreground", "Orphan"'
        raise _unknown("DeleteOptions", at, f'"{propagation}"', known)
    conditions = body.get("preconditions") or {}
    options = DeleteOptions(
        grace=max(grace, 0) if grace is not None else None,
        propagation=propagation,
        uid=str(conditions.get("uid") or ""),
        resource_version=str(conditions.get("resourceVersion") or ""),
    )
    return options, _dry(body.get("dryRun"), "DeleteOptions")
