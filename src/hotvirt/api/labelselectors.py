"""Label selectors as objects have them (`matchLabels`, `matchExpressions`): matching, text and faults. Pure."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from hotvirt.api.faults import Fault, invalid, required

Document = dict[str, Any]
OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")
NODE_OPERATORS = (*OPERATORS, "Gt", "Lt")
_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_KEY = re.compile(rf"([a-z0-9]([-a-z0-9.]{{0,251}}[a-z0-9])?/)?{_NAME}")
_VALUE = re.compile(rf"({_NAME})?")


def matches(selector: Document | None, labels: Mapping[str, Any] | None) -> bool:
    """An empty selector matches all, none matches nothing."""
    return selector is not None and all(fits(each, labels or {}) for each in _requirements(selector))


def fits(requirement: Document, labels: Mapping[str, Any]) -> bool:
    """One expression; those of node selectors too."""
    key, values = requirement["key"], list(requirement.get("values") or ())
    has = labels.get(key)
    match requirement.get("operator"):
        case "In":
            return has in values
        case "NotIn":
            return has not in values
        case "Exists":
            return has is not None
        case "DoesNotExist":
            return has is None
        case "Gt" | "Lt" as operator:
            try:
                number, bound = int(str(has)), int(str(values[0]))
            except (ValueError, IndexError):
                return False
            return number > bound if operator == "Gt" else number < bound
    return False


def text(selector: Document | None) -> str:
    """As kubectl and autoscalers take it: `app=web,tier in (a,b),!old`."""
    parts = sorted((each["key"], _text(each)) for each in _requirements(selector or {}))
    return ",".join(part for _, part in parts)


def faults(selector: Document | None, path: str) -> Iterator[Fault]:
    """What is wrong with a selector that says whose objects are whose: an empty one would claim all there are."""
    if not any(_requirements(selector or {})):
        yield required(path, "say which labels the objects have, such as matchLabels: {app: web}")
    for key, value in ((selector or {}).get("matchLabels") or {}).items():
        if not _KEY.fullmatch(key):
            yield invalid(f"{path}.matchLabels", f"{key[:80]!r} is not a label's name")
        if not _VALUE.fullmatch(value):
            yield invalid(f"{path}.matchLabels[{key[:80]}]", f"{value[:80]!r} is not a label's value")
    yield from expression_faults((selector or {}).get("matchExpressions"), f"{path}.matchExpressions")


def expression_faults(expressions: Any, path: str, *, operators: tuple[str, ...] = OPERATORS) -> Iterator[Fault]:
    for index, each in enumerate(expressions or ()):
        yield from _faults(each, f"{path}[{index}]", operators)


def _faults(requirement: Document, path: str, operators: tuple[str, ...]) -> Iterator[Fault]:
    key, operator = requirement.get("key") or "", requirement.get("operator")
    values = list(requirement.get("values") or ())
    if not _KEY.fullmatch(key):
        yield invalid(f"{path}.key", f"{key[:80]!r} is not a label's name")
    if operator not in operators:
        yield invalid(f"{path}.operator", f"{str(operator)[:80]!r} is unknown: use {', '.join(operators)}")
    elif operator in ("In", "NotIn") and not values:
        yield invalid(f"{path}.values", f"{operator} needs values")
    elif operator in ("Exists", "DoesNotExist") and values:
        yield invalid(f"{path}.values", f"{operator} takes no values: remove them, or use In")
    elif operator in ("Gt", "Lt") and (len(values) != 1 or not str(values[0]).lstrip("-").isdigit()):
        yield invalid(f"{path}.values", f"{operator} needs one whole number")
    for index, value in enumerate(values):
        if not _VALUE.fullmatch(str(value)):
            yield invalid(f"{path}.values[{index}]", f"{str(value)[:80]!r} is not a label's value")


def _requirements(selector: Document) -> Iterator[Document]:
    for key, value in (selector.get("matchLabels") or {}).items():
        yield {"key": key, "operator": "In", "values": [value], "equals": True}
    yield from selector.get("matchExpressions") or ()


def _text(requirement: Document) -> str:
    key, values = requirement["key"], sorted(str(value) for value in requirement.get("values") or ())
    if requirement.get("equals"):
        return f"{key}={values[0]}"
    match requirement.get("operator"):
        case "In":
            return f"{key} in ({','.join(values)})"
        case "NotIn":
            return f"{key} notin ({','.join(values)})"
        case "DoesNotExist":
            return f"!{key}"
    return str(key)
