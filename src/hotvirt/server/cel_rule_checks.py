"""The CEL rules in a CRD's schema, judged when it is written: how many, of what shape, and whether they compile."""

from collections.abc import Iterator
from typing import Any

from hotvirt.kube.errors import Cause
from hotvirt.server.cel_paths import valid_path
from hotvirt.server.cel_rules import FORBIDDEN, WORD, Rule, Site, compiled, has_rules, nodes_with_rules
from hotvirt.server.schema_checks import DUPLICATE, INVALID, NOT_SUPPORTED, REQUIRED, TOO_LONG, TOO_MANY, shown

Document = dict[str, Any]
REASONS = (REQUIRED, FORBIDDEN, INVALID, DUPLICATE)
LONGEST_RULES = 256 * 1024
MOST_RULES = 500
_FIELDS: dict[str, type] = {
    "rule": str, "message": str, "messageExpression": str, "reason": str, "fieldPath": str, "optionalOldSelf": bool,
}  # fmt: skip


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
    rules = [rule for node in nodes_with_rules(openapi) for rule in node[WORD]]
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
