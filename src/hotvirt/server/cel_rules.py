"""x-kubernetes-validations: the CEL rules in a CRD's schema, asked about every object.

Rules are compiled once for each schema, when it is written (`cel_rule_checks`) or first asked about; until then nothing
of CEL is loaded. What is compiled never changes. A rule that reads `oldSelf` is asked only about a value that has an
old one: a list's items are paired by their keys (list-type=map), other lists' not at all. Rules about a value that did
not change are left out, so that they may become stricter without locking stored objects.
"""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec import Struct

from hotvirt.kube.errors import Cause
from hotvirt.server.cel_paths import valid_path
from hotvirt.server.schema import Evaluator
from hotvirt.server.schema_checks import DUPLICATE, INVALID, REQUIRED, digest, shown

Document = dict[str, Any]
WORD = "x-kubernetes-validations"
FORBIDDEN = "FieldValueForbidden"
LONGEST_MESSAGE = 5 * 1024
MOST_RECENT = 32  # schemas: what a CRD's check compiled is what then serves it


class Rule(Struct, frozen=True):
    """`expression` is None when it does not compile: `fault` then says why. `at` is where its faults are, below the
    node."""

    text: str
    expression: Any = None
    fault: str = ""
    message: str = ""
    message_expression: Any = None
    reason: str = INVALID
    at: str = ""
    is_optional: bool = False
    is_transition: bool = False

    @property
    def title(self) -> str:
        return self.message.strip() or self.text.strip()


class Site(Struct, frozen=True):
    """A node of a schema that has rules, or has a node below that has. `keys` of a list whose items have identities."""

    kind: str
    rules: tuple[Rule, ...] = ()
    convert: Callable[[Any], Any] | None = None
    align: Callable[[Any, Any], Any] | None = None
    fields: dict[str, "Site"] = {}
    item: "Site | None" = None
    value: "Site | None" = None
    keys: tuple[str, ...] = ()


_recent: dict[bytes, Site] = {}


def has_rules(openapi: Any) -> bool:
    return any(True for _ in nodes_with_rules(openapi))


def nodes_with_rules(node: Any) -> Iterator[Document]:
    if isinstance(node, dict):
        if node.get(WORD):
            yield node
        for below in _children(node):
            yield from nodes_with_rules(below)


def _children(node: Document) -> list[Any]:
    properties = node.get("properties")
    inner = list(properties.values()) if isinstance(properties, dict) else []
    return [*inner, node.get("items"), node.get("additionalProperties")]


# -- compiling


def compiled(openapi: Document) -> Site:
    """The rules of a schema, ready; those that do not compile have a fault."""
    known = digest(openapi)
    site = _recent.pop(known, None) or _compile(openapi)
    _recent[known] = site
    if len(_recent) > MOST_RECENT:
        del _recent[next(iter(_recent))]
    return site


def _compile(openapi: Document) -> Site:
    from hotvirt.server.cel import engine
    from hotvirt.server.cel.types import SchemaTypes

    try:
        types = SchemaTypes()
        for node, is_resource in _sites(openapi, is_resource=True):
            types.of(node, is_resource=is_resource)
    except engine.CompileError as error:
        why = str(error)
        return _site(openapi, lambda _node, _is_resource: why, is_resource=True)

    made: dict[tuple[bytes, bool], Any] = {}  # schemas repeat themselves, and a checker is what takes time

    def checker(node: Document, is_resource: bool) -> Any:
        known = digest(node), is_resource
        if known not in made:
            kind = types.of(node, is_resource=is_resource)
            variables = {"self": kind, "oldSelf": kind, engine.MAYBE: engine.library().Type.List(kind)}
            made[known] = engine.Checker(variables, types.pool)
        return made[known]

    return _site(openapi, checker, is_resource=True)


def _sites(node: Document, *, is_resource: bool) -> Iterator[tuple[Document, bool]]:
    if node.get(WORD):
        yield node, is_resource
    for below in _children(node):
        if isinstance(below, dict):
            yield from _sites(below, is_resource=bool(below.get("x-kubernetes-embedded-resource")))


def _site(node: Document, checker: Callable[[Document, bool], Any], *, is_resource: bool) -> Site:
    from hotvirt.server.cel.values import compile_alignment, compile_conversion

    def below(child: Any) -> Site | None:
        if not has_rules(child):
            return None
        return _site(child, checker, is_resource=bool(child.get("x-kubernetes-embedded-resource")))

    rules: tuple[Rule, ...] = ()
    if node.get(WORD):
        checks = checker(node, is_resource)
        rules = tuple(_rule(each, checks, node) for each in node[WORD])
    keys = node.get("x-kubernetes-list-map-keys") if node.get("x-kubernetes-list-type") == "map" else ()
    return Site(
        kind=str(node.get("type") or ""),
        rules=rules,
        convert=compile_conversion(node, is_resource=is_resource) if rules else None,
        align=compile_alignment(node) if rules else None,
        fields={name: site for name, child in (node.get("properties") or {}).items() if (site := below(child))},
        item=below(node.get("items")),
        value=below(node.get("additionalProperties")),
        keys=tuple(keys or ()),
    )


def _rule(sent: Document, checker: Any, node: Document) -> Rule:
    from hotvirt.server.cel.engine import CompileError

    text = str(sent.get("rule"))
    optional = "oldSelf" if sent.get("optionalOldSelf") else ""
    if isinstance(checker, str):  # why there is none
        return Rule(text, fault=checker)
    try:
        expression = checker.compile(text, gives=("BOOL",), optional=optional)
    except CompileError as error:
        return Rule(text, fault=str(error))
    words: Any = None
    if sent.get("messageExpression"):
        try:
            words = checker.compile(sent["messageExpression"], gives=("STRING",), optional=optional)
        except CompileError as error:
            words = f"messageExpression {error}"
    path = sent.get("fieldPath")
    at = valid_path(path, node) if path else ""
    return Rule(
        text, expression, message=sent.get("message") or "", message_expression=words, at=str(at),
        reason=sent.get("reason") or INVALID, is_optional=bool(optional),
        is_transition=expression.mentions("oldSelf"),
    )  # fmt: skip


# -- when an object is written


def evaluator(openapi: Document) -> Evaluator:
    """For `compile_schema`."""

    def ready(_: Any) -> Callable[[Document, Document | None], list[Cause]]:
        site: Site | None = None

        def ask(doc: Document, old: Document | None) -> list[Cause]:
            nonlocal site
            if site is None:
                site = compiled(openapi)
            return evaluate(site, doc, old)

        return ask

    return ready


def evaluate(site: Site, doc: Document, old: Document | None) -> list[Cause]:
    """Every fault that the rules find."""
    from hotvirt.server.cel.cost import SMALL
    from hotvirt.server.cel.engine import Budget

    out: list[Cause] = []
    is_small = len(msgspec.json.encode((doc, old))) <= SMALL
    try:
        _descend(site, doc, old, "", out, Budget(are_small=is_small))
    except _Spent:
        pass
    return out


class _Spent(Exception):
    """The rest of the rules is not asked."""


def _descend(site: Site, value: Any, old: Any, at: str, out: list[Cause], budget: Any) -> None:
    if value is None:
        return
    if site.rules:
        _ask(site, value, old, at, out, budget)
    if isinstance(value, dict):
        before = old if isinstance(old, dict) else {}
        for name, below in site.fields.items():
            if name in value:
                _descend(below, value[name], before.get(name), f"{at}.{name}" if at else name, out, budget)
        if site.value:
            for key, child in value.items():
                _descend(site.value, child, before.get(key), f"{at}[{key}]", out, budget)
    elif isinstance(value, list) and site.item:
        pairs = _pairs(site, old)
        for index, child in enumerate(value):
            _descend(site.item, child, pairs(child), f"{at}[{index}]", out, budget)


def _pairs(site: Site, old: Any) -> Callable[[Any], Any]:
    if not site.keys or not isinstance(old, list):
        return lambda _: None
    from hotvirt.server.cel.values import identity

    keys = list(site.keys)
    known = {identity(each, keys): each for each in old}
    return lambda item: known.get(identity(item, keys))


def _ask(site: Site, value: Any, old: Any, at: str, out: list[Cause], budget: Any) -> None:
    from hotvirt.server.cel.engine import MAYBE, Values

    is_same = old is not None and value == old
    due = [
        rule for rule in site.rules
        if rule.is_optional or (old is not None if rule.is_transition else not is_same)
    ]  # fmt: skip
    if not due:
        return
    now = site.convert(value) if site.convert else value
    known: Document = {"self": now}
    if old is not None and any(rule.is_transition for rule in due):
        was = site.align(old, value) if site.align else old
        known["oldSelf"] = site.convert(was) if site.convert else was
    known[MAYBE] = [known["oldSelf"]] if "oldSelf" in known else []
    values = Values(known, are_small=budget.are_small) if any(rule.expression is not None for rule in due) else None
    for rule in due:
        if cause := _verdict(rule, values, site.kind, at, budget, value):
            out.append(cause[0])
            if cause[1]:
                raise _Spent


def _verdict(rule: Rule, values: Any, kind: str, at: str, budget: Any, value: Any) -> tuple[Cause, bool] | None:
    """The fault if there is one, and whether to ask no more. A value is shown unless it has parts."""
    from hotvirt.server.cel.engine import EvaluationError

    where = at or "<nil>"
    if rule.expression is None:
        return Cause(INVALID, f'Invalid value: "{kind}": rule compile error: {rule.fault}', where), False
    try:
        found = rule.expression.evaluate(values, budget)
    except EvaluationError as error:
        if error.is_costly:
            words = f"'{error}': no further validation rules will be run due to call cost exceeds limit for rule"
            return Cause(INVALID, f'Invalid value: "{kind}": {words}: {rule.title}', where), True
        words = f"{error} evaluating rule: {rule.title}"
        if str(error).startswith("no such overload"):
            words = f"'{error}': call arguments did not match a supported operator, function or macro signature for "
            words += f"rule: {rule.title}"
        return Cause(INVALID, f'Invalid value: "{kind}": {words}', where), False
    if found is True:
        return None
    words = _message(rule, values, budget) or rule.message.strip() or f"failed rule: {rule.text.strip()}"
    told = "" if isinstance(value, dict | list) else f": {shown(value)}"
    head = {
        FORBIDDEN: f"Forbidden: {words}", REQUIRED: f"Required value: {words}", DUPLICATE: f"Duplicate value{told}",
    }.get(rule.reason, f"Invalid value{told}: {words}")  # fmt: skip
    return Cause(rule.reason, head, (at + rule.at).removeprefix(".") or "<nil>"), False


def _message(rule: Rule, values: Any, budget: Any) -> str:
    """What the message's expression says, when that can be shown."""
    from hotvirt.server.cel.engine import EvaluationError

    if rule.message_expression is None or isinstance(rule.message_expression, str):
        return ""
    try:
        found = rule.message_expression.evaluate(values, budget)
    except EvaluationError:
        return ""
    text = found.strip() if isinstance(found, str) else ""
    return text if len(text) <= LONGEST_MESSAGE and "\n" not in text else ""
