"""x-kubernetes-validations: the CEL rules in a CRD's schema, checked when it is written, asked about every object.

Rules are compiled once for each schema, on the first of these occasions; until then nothing of CEL is loaded. What is
compiled never changes. A rule that reads `oldSelf` is asked only about a value that has an old one: a list's items are
paired by their keys (list-type=map), other lists' not at all. Rules about a value that did not change are left out, so
that they may become stricter without locking stored objects.
"""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec import Struct

from hotvirt.kube.errors import Cause
from hotvirt.server.cel_paths import valid_path
from hotvirt.server.schema import Evaluator
from hotvirt.server.schema_checks import DUPLICATE, INVALID, NOT_SUPPORTED, REQUIRED, TOO_LONG, TOO_MANY, digest, shown

Document = dict[str, Any]
WORD = "x-kubernetes-validations"
FORBIDDEN = "FieldValueForbidden"
REASONS = (REQUIRED, FORBIDDEN, INVALID, DUPLICATE)
LONGEST_MESSAGE = 5 * 1024
LONGEST_RULES = 256 * 1024
MOST_RULES = 500
MOST_RECENT = 32  # schemas: what a CRD's check compiled is what then serves it
_FIELDS: dict[str, type] = {
    "rule": str, "message": str, "messageExpression": str, "reason": str, "fieldPath": str, "optionalOldSelf": bool,
}  # fmt: skip


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
    return any(True for _ in _nodes_with_rules(openapi))


def _nodes_with_rules(node: Any) -> Iterator[Document]:
    if isinstance(node, dict):
        if node.get(WORD):
            yield node
        for below in _children(node):
            yield from _nodes_with_rules(below)


def _children(node: Document) -> list[Any]:
    properties = node.get("properties")
    inner = list(properties.values()) if isinstance(properties, dict) else []
    return [*inner, node.get("items"), node.get("additionalProperties")]


# -- when a CRD is written


def check(openapi: Document, field: str) -> list[Cause]:
    """Every fault of the rules in a schema that is structural, and lies at `field`."""
    if not has_rules(openapi):
        return []
    causes = [*_check_amount(openapi, field), *_check_shapes(openapi, field)]
    if causes:
        return causes
    return [*_check_compiled(openapi, compiled(openapi), field, unpaired="")]


def _check_amount(openapi: Document, field: str) -> Iterator[Cause]:
    """Each takes some milliseconds to compile, while nothing else is served."""
    rules = [rule for node in _nodes_with_rules(openapi) for rule in node[WORD]]
    if len(rules) > MOST_RULES:
        yield Cause(TOO_MANY, f"Too many: {len(rules)}: must have at most {MOST_RULES} rules", f"{field}.{WORD}")
    elif sum(len(str(rule)) for rule in rules) > LONGEST_RULES:
        words = f"Too long: all rules together may not be more than {LONGEST_RULES} bytes"
        yield Cause(TOO_LONG, words, f"{field}.{WORD}")


def _check_shapes(node: Document, field: str) -> Iterator[Cause]:
    for index, rule in enumerate(node.get(WORD) or ()):
        yield from _check_shape(rule, f"{field}.{WORD}[{index}]", node)
    for below_at, below in _below(node, field):
        yield from _check_shapes(below, below_at)


def _below(node: Document, field: str) -> Iterator[tuple[str, Document]]:
    for name, below in (node.get("properties") or {}).items():
        yield f"{field}.properties[{name}]", below
    for word in ("items", "additionalProperties"):
        if isinstance(node.get(word), dict):
            yield f"{field}.{word}", node[word]


def _check_shape(rule: Any, at: str, node: Document) -> Iterator[Cause]:
    if not isinstance(rule, dict):
        yield Cause(INVALID, f"Invalid value: {shown(rule)}: must be an object with a rule", at)
        return
    wrong = [key for key, kind in _FIELDS.items() if rule.get(key) is not None and not isinstance(rule[key], kind)]
    for key in wrong:
        words = "a boolean" if _FIELDS[key] is bool else "a string"
        yield Cause(INVALID, f"Invalid value: {shown(rule[key])}: must be {words}", f"{at}.{key}")
    if wrong:
        return
    text, message = rule.get("rule") or "", rule.get("message")
    if not text.strip():
        yield Cause(REQUIRED, "Required value: rule is not specified", f"{at}.rule")
    for key in ("message", "messageExpression"):
        if rule.get(key) is not None and rule[key] and not rule[key].strip():
            yield Cause(
                INVALID, f"Invalid value: {shown(rule[key])}: {key} must be non-empty if specified", f"{at}.{key}"
            )
    if message and "\n" in message.strip():
        yield Cause(INVALID, f"Invalid value: {shown(message)}: message must not contain line breaks", f"{at}.message")
    elif not message and "\n" in text.strip():
        words = "Required value: message must be specified if rule contains line breaks"
        yield Cause(REQUIRED, words, f"{at}.message")
    if rule.get("reason") and rule["reason"] not in REASONS:
        names = ", ".join(f'"{each}"' for each in REASONS)
        words = f"Unsupported value: {shown(rule['reason'])}: supported values: {names}"
        yield Cause(NOT_SUPPORTED, words, f"{at}.reason")
    if (path := rule.get("fieldPath")) and isinstance(why := valid_path(path, node), ValueError):
        words = f"Invalid value: {shown(path)}: fieldPath must be a valid path: {why}"
        yield Cause(INVALID, words, f"{at}.fieldPath")


def _check_compiled(node: Document, site: Site, field: str, *, unpaired: str) -> Iterator[Cause]:
    """`unpaired` is the list above whose items can't be told from their old selves."""
    for index, rule in enumerate(site.rules):
        yield from _check_rule(node[WORD][index], rule, f"{field}.{WORD}[{index}]", unpaired)
    for name, below in site.fields.items():
        yield from _check_compiled(node["properties"][name], below, f"{field}.properties[{name}]", unpaired=unpaired)
    if site.item:
        above = unpaired if unpaired or site.keys else field
        yield from _check_compiled(node["items"], site.item, f"{field}.items", unpaired=above)
    if site.value:
        below_at = f"{field}.additionalProperties"
        yield from _check_compiled(node["additionalProperties"], site.value, below_at, unpaired=unpaired)


def _check_rule(sent: Document, rule: Rule, at: str, unpaired: str) -> Iterator[Cause]:
    if rule.expression is None:
        yield Cause(INVALID, f"Invalid value: {shown(rule.text)}: {rule.fault}", f"{at}.rule")
        return
    if rule.is_transition and unpaired:
        words = f"oldSelf cannot be used on the uncorrelatable portion of the schema within {unpaired}"
        yield Cause(INVALID, f"Invalid value: {shown(rule.text)}: {words}", f"{at}.rule")
    if sent.get("optionalOldSelf") is not None and not rule.is_transition:
        value = shown(sent["optionalOldSelf"])
        words = f"Invalid value: {value}: may not be set if oldSelf is not used in rule"
        yield Cause(INVALID, words, f"{at}.optionalOldSelf")
    if isinstance(rule.message_expression, str):
        words = f"Invalid value: {shown(sent['messageExpression'])}: {rule.message_expression}"
        yield Cause(INVALID, words, f"{at}.messageExpression")


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
