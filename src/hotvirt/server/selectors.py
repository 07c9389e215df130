"""Label and field selectors: the `labelSelector` and `fieldSelector` of a list, a watch or a deletecollection.

Text in, a frozen matcher out; the grammar and the meaning of absent labels are Kubernetes'. Pure, safe from any thread.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from hotvirt.kube import errors

_NAME = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)\Z")
_PREFIX = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*\Z")
_TOKEN = re.compile(r"\s*(==|!=|[=!<>(),]|[^\s=!<>(),]+)")
_WORDS = {"in": "in", "notin": "notin"}
_SIGNS = {"=": "in", "==": "in", "!=": "notin", ">": "gt", "<": "lt"}


class Requirement(Struct, frozen=True):
    """One term. `operator` is in, notin, exists, absent, gt or lt; equality is `in` with one value."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        present = self.key in labels
        match self.operator:
            case "in":
                return present and labels[self.key] in self.values
            case "notin":
                return not present or labels[self.key] not in self.values
            case "exists":
                return present
            case "absent":
                return not present
        if not present:
            return False
        try:
            number = int(labels[self.key])
        except (ValueError, TypeError):
            return False
        bound = int(next(iter(self.values)))
        return number > bound if self.operator == "gt" else number < bound


class LabelSelector(Struct, frozen=True):
    """All requirements must hold; without any, everything matches."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        if not self.requirements:
            return True
        present = labels or {}
        return all(requirement.matches(present) for requirement in self.requirements)


EVERYTHING = LabelSelector()


def parse_labels(text: str | None) -> LabelSelector:
    """`app=web,tier in (a,b),!old` as a selector. BadRequest says which part can't be read."""
    if not text or not text.strip():
        return EVERYTHING
    return LabelSelector(_LabelParser(text).parse())


def from_object(selector: Mapping[str, Any] | None) -> LabelSelector:
    """A `metav1.LabelSelector` document (matchLabels, matchExpressions) as a selector."""
    operators = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "absent"}
    found = [Requirement(k, "in", frozenset((v,))) for k, v in ((selector or {}).get("matchLabels") or {}).items()]
    for term in (selector or {}).get("matchExpressions") or ():
        operator = operators.get(term.get("operator"))
        if operator is None:
            known = ", ".join(operators)
            raise errors.BadRequest(f"{term.get('operator')!r} is not a label selector operator: use one of {known}")
        found.append(Requirement(term.get("key", ""), operator, frozenset(term.get("values") or ())))
    return LabelSelector(tuple(found))


class _LabelParser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = [match.group(1) for match in _TOKEN.finditer(text)] + [""]
        self.at = 0

    def parse(self) -> tuple[Requirement, ...]:
        found = [self._requirement()]
        while self._peek() == ",":
            self._next()
            found.append(self._requirement())
        if self._peek():
            raise self._error(f"found '{self._peek()}', expected ',' or the end")
        return tuple(found)

    def _peek(self) -> str:
        return self.tokens[self.at]

    def _next(self) -> str:
        token = self.tokens[self.at]
        self.at = min(self.at + 1, len(self.tokens) - 1)
        return token

    def _error(self, why: str) -> errors.BadRequest:
        return errors.BadRequest(f"unable to parse requirement: {why} in the label selector {self.text!r}")

    def _requirement(self) -> Requirement:
        if self._peek() == "!":
            self._next()
            return Requirement(self._key(), "absent")
        key = self._key()
        sign = self._peek()
        if sign in ("", ","):
            return Requirement(key, "exists")
        self._next()
        if sign in _WORDS:
            return Requirement(key, _WORDS[sign], self._value_list())
        if sign not in _SIGNS:
            raise self._error(f"found '{sign}', expected one of =, ==, !=, in, notin, <, >")
        value = self._value()
        if sign in "<>" and not re.fullmatch(r"-?[0-9]+", value):
            raise self._error(f"'{value}' after '{sign}' is not an integer")
        return Requirement(key, _SIGNS[sign], frozenset((value,)))

    def _key(self) -> str:
        key = self._next()
        prefix, slash, name = key.rpartition("/")
        good_prefix = bool(_PREFIX.match(prefix)) and len(prefix) <= 253 if slash else True
        if not good_prefix or not _NAME.match(name):
            raise self._error(f"'{key}' is not a label key ([prefix/]name of letters, digits, '-', '_', '.')")
        return key

    def _value(self) -> str:
        if self._peek() in ("", ",", ")"):
            return ""
        value = self._next()
        if not _NAME.match(value):
            raise self._error(f"'{value}' is not a label value (at most 63 letters, digits, '-', '_', '.')")
        return value

    def _value_list(self) -> frozenset[str]:
        if self._next() != "(":
            raise self._error("expected '(' and a list of values after in or notin")
        values = {self._value()}
        while self._peek() == ",":
            self._next()
            values.add(self._value())
        if self._next() != ")":
            raise self._error("expected ',' or ')' in the list of values")
        return frozenset(values)


class FieldRequirement(Struct, frozen=True):
    """`path` (such as `spec.nodeName`) equals `value`, or with `negated` does not."""

    path: str
    value: str
    negated: bool = False


class FieldSelector(Struct, frozen=True):
    """All requirements must hold. `requirements` is open for a store that keeps an index for a path."""

    requirements: tuple[FieldRequirement, ...] = ()

    def matches(self, doc: Mapping[str, Any], read: Callable[[Mapping[str, Any], str], str] | None = None) -> bool:
        """Whether `doc` fits. `read` replaces the plain look-up along the path where a kind has a field of its own."""
        look_up = read or field_value
        return all((look_up(doc, r.path) == r.value) is not r.negated for r in self.requirements)

    def equal_to(self, path: str) -> str | None:
        """The value that `path` must have, when the selector asks for one: `metadata.name`, say."""
        return next((r.value for r in self.requirements if r.path == path and not r.negated), None)

    def check(self, supported: frozenset[str] | set[str], kind: str) -> None:
        """BadRequest when the selector asks for a path that this kind can't be selected by."""
        for requirement in self.requirements:
            if requirement.path not in supported:
                raise errors.BadRequest(
                    f'"{requirement.path}" is not a known field selector for {kind}: '
                    f"use one of {', '.join(sorted(supported))}"
                )


ANY_FIELDS = FieldSelector()


def field_value(doc: Mapping[str, Any], path: str) -> str:
    """The value at a dotted path as a field selector compares it: text, with "" for what is not there."""
    node: Any = doc
    for part in path.split("."):
        if not isinstance(node, Mapping):
            return ""
        node = node.get(part)
    if node is None or isinstance(node, Mapping | list):
        return ""
    if isinstance(node, bool):
        return "true" if node else "false"
    return str(node)


def parse_fields(text: str | None) -> FieldSelector:
    """`metadata.name=web,status.phase!=Failed` as a selector; `\\`, `,` and `=` in values are escaped with `\\`."""
    if not text or not text.strip():
        return ANY_FIELDS
    return FieldSelector(tuple(_field_requirement(term) for term in _split_terms(text) if term))


def _split_terms(text: str) -> list[str]:
    return [match.group(0) for match in re.finditer(r"(?:\\.|[^,\\])+", text, re.DOTALL)]


def _field_requirement(term: str) -> FieldRequirement:
    match = re.match(r"((?:\\.|[^=!\\])*)(!=|==|=)(.*)\Z", term, re.DOTALL)
    if match is None:
        raise errors.BadRequest(
            f"invalid selector: '{term}'; can't understand '{term}': write field=value or field!=value"
        )
    path, sign, value = match.groups()
    return FieldRequirement(path.strip(), _unescape(value.strip()), sign == "!=")


def _unescape(value: str) -> str:
    if re.search(r"(?<!\\)(?:\\\\)*=", value):
        raise errors.BadRequest(f"invalid field selector: unescaped '=' in the value {value!r}: write \\=")
    if re.search(r"\\(?![\\,=])", value):
        raise errors.BadRequest(f"invalid field selector: invalid escape sequence in {value!r}: escape only \\ , =")
    return re.sub(r"\\([\\,=])", r"\1", value)
