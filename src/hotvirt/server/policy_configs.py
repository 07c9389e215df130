"""ValidatingAdmissionPolicies and their bindings: what is wrong with one, and what it says, ready to match.

Pure, but that expressions are compiled on first use, and kept (`cel_requests`).
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from msgspec import Struct, structs

from hotvirt.kube.errors import BadRequest, Cause
from hotvirt.server import cel_conditions
from hotvirt.server.cel_conditions import check_expression
from hotvirt.server.cel_requests import Scope, compile_text
from hotvirt.server.objectmeta import INVALID, REQUIRED, check_name
from hotvirt.server.schema_checks import DUPLICATE, NOT_SUPPORTED, TOO_MANY, shown
from hotvirt.server.selectors import LabelSelector, from_object
from hotvirt.server.webhook_configs import GROUP, Matching, check_rule, read_rule

if TYPE_CHECKING:
    from hotvirt.server.cel.engine import Expression

Document = dict[str, Any]
POLICIES, BINDINGS = f"{GROUP}/validatingadmissionpolicies", f"{GROUP}/validatingadmissionpolicybindings"
ACTIONS = ("Audit", "Deny", "Warn")
CODES = {"Forbidden": 403, "Invalid": 422, "RequestEntityTooLarge": 413, "Unauthorized": 401}
MOST_ANNOTATIONS = 20
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_EMPTY: tuple[Any, ...] = ()


class Validation(Struct, frozen=True):
    expression: "Expression"
    message: str
    words: "Expression | None"
    reason: str


class Policy(Struct, frozen=True, kw_only=True):
    """`params` is apiVersion and kind of what the expressions are given, if they are given any. With a `fault` there
    are no expressions, for they can't be used."""

    name: str
    match: Matching
    is_ignored_when_failing: bool
    fault: str = ""
    params: tuple[str, str] | None = None
    conditions: "tuple[tuple[str, Expression], ...]" = ()
    variables: "dict[str, Expression]" = {}
    validations: tuple[Validation, ...] = ()
    annotations: "tuple[Expression, ...]" = ()


class Binding(Struct, frozen=True, kw_only=True):
    """`selector` finds params where no name does."""

    name: str
    policy: str
    match: Matching
    actions: tuple[str, ...]
    has_params: bool
    param_name: str = ""
    param_namespace: str = ""
    selector: LabelSelector | None = None
    allows_absent: bool = False


# -- reading


def read_policy(policy: Document) -> Policy:
    """ValueError, KeyError, TypeError or BadRequest when it does not even say what it is about."""
    spec = policy["spec"]
    head = Policy(
        name=policy["metadata"]["name"],
        match=_matching(spec.get("matchConstraints") or {}),
        is_ignored_when_failing=spec.get("failurePolicy") == "Ignore",
    )
    try:
        return _with_expressions(head, spec)
    except (KeyError, TypeError, ValueError) as error:  # stored before it was checked as it is now
        return structs.replace(head, fault=f"it can't be read, write it anew: {error}")


def _with_expressions(head: Policy, spec: Document) -> Policy:
    variables: dict[str, Expression] = {}
    for each in spec.get("variables") or ():
        variables[each["name"]] = compile_text(each["expression"].strip(), _scope(spec, variables), ())
    scope, kind = _scope(spec, variables), spec.get("paramKind")
    return structs.replace(
        head,
        params=(kind["apiVersion"], kind["kind"]) if kind else None,
        conditions=tuple((name, compile_text(text.strip(), scope)) for name, text in cel_conditions.read(spec)),
        variables=variables,
        validations=tuple(_validation(each, scope) for each in spec.get("validations") or ()),
        annotations=tuple(
            compile_text(each["valueExpression"].strip(), scope, ("STRING", "NULL"))
            for each in spec.get("auditAnnotations") or ()
        ),
    )


def _validation(each: Document, scope: Scope) -> Validation:
    words = (each.get("messageExpression") or "").strip()
    return Validation(
        compile_text(each["expression"].strip(), scope),
        (each.get("message") or "").strip(),
        compile_text(words, scope, ("STRING",)) if words else None,
        each.get("reason") or "Invalid",
    )


def _scope(spec: Document, variables: "dict[str, Expression]") -> Scope:
    named = tuple((name, expression.gives) for name, expression in variables.items())
    return Scope(has_params=bool(spec.get("paramKind")), has_namespace=True, variables=named)


def _matching(match: Document) -> Matching:
    return Matching(
        rules=tuple(read_rule(rule) for rule in match.get("resourceRules") or ()),
        excluded=tuple(read_rule(rule) for rule in match.get("excludeResourceRules") or ()),
        namespaces=from_object(match.get("namespaceSelector")),
        objects=from_object(match.get("objectSelector")),
        takes_equivalents=match.get("matchPolicy") != "Exact",
    )


def read_binding(binding: Document) -> Binding:
    spec = binding["spec"]
    reference = spec.get("paramRef") or {}
    return Binding(
        name=binding["metadata"]["name"],
        policy=spec["policyName"],
        match=_matching(spec.get("matchResources") or {}),
        actions=tuple(spec.get("validationActions") or ()),
        has_params="paramRef" in spec,
        param_name=reference.get("name") or "",
        param_namespace=reference.get("namespace") or "",
        selector=from_object(reference["selector"]) if "selector" in reference else None,
        allows_absent=reference.get("parameterNotFoundAction") == "Allow",
    )


# -- checking


def complete(policy: Document) -> Document:
    """What is left out, as what it means; and that its types were looked at. Other defaults are the schema's."""
    spec = policy.get("spec")
    if not isinstance(spec, dict):
        return policy
    match = spec.get("matchConstraints")
    if isinstance(match, dict):
        spec = {**spec, "matchConstraints": {"namespaceSelector": {}, "objectSelector": {}, **match}}
    status = {**(policy.get("status") or {}), "typeChecking": {}}
    status["observedGeneration"] = policy["metadata"].get("generation", 1)
    return {**policy, "spec": spec, "status": status}


def complete_binding(binding: Document) -> Document:
    spec = binding.get("spec")
    if not isinstance(spec, dict) or not isinstance(match := spec.get("matchResources"), dict):
        return binding
    return {**binding, "spec": {**spec, "matchResources": {"namespaceSelector": {}, "objectSelector": {}, **match}}}


def check(policy: Document) -> list[Cause]:
    spec = policy.get("spec") or {}
    causes = [*_check_words(spec), *_check_match(spec.get("matchConstraints"), "spec.matchConstraints", is_needed=True)]
    variables, faults = _check_variables(spec)
    causes += faults
    scope = _scope(spec, variables)
    if not spec.get("validations") and not spec.get("auditAnnotations"):
        message = "Required value: validations or auditAnnotations must be specified"
        causes += [Cause(REQUIRED, message, f"spec.{key}") for key in ("validations", "auditAnnotations")]
    for index, each in enumerate(spec.get("validations") or ()):
        causes += _check_validation(each, f"spec.validations[{index}]", scope)
    annotations = spec.get("auditAnnotations") or ()
    if len(annotations) > MOST_ANNOTATIONS:
        words = f"Too many: {len(annotations)}: must have at most {MOST_ANNOTATIONS} items"
        causes.append(Cause(TOO_MANY, words, "spec.auditAnnotations"))
    keys: set[str] = set()
    for index, each in enumerate(annotations):
        causes += _check_annotation(each, f"spec.auditAnnotations[{index}]", scope, keys)
    return causes + cel_conditions.check(spec, "spec", scope)


def _check_words(spec: Document) -> Iterator[Cause]:
    if spec.get("failurePolicy", "Fail") not in ("Fail", "Ignore"):
        yield _unsupported(spec["failurePolicy"], ("Fail", "Ignore"), "spec.failurePolicy")
    kind = spec.get("paramKind")
    if kind is not None:
        for key in ("apiVersion", "kind"):
            if not kind.get(key):
                yield Cause(REQUIRED, "Required value", f"spec.paramKind.{key}")


def _check_match(match: Document | None, at: str, *, is_needed: bool) -> Iterator[Cause]:
    if match is None or (is_needed and not match.get("resourceRules")):
        if is_needed:
            yield Cause(REQUIRED, "Required value", at if match is None else f"{at}.resourceRules")
        return
    for key in ("resourceRules", "excludeResourceRules"):
        for index, rule in enumerate(match.get(key) or ()):
            yield from check_rule(rule, f"{at}.{key}[{index}]")
    if match.get("matchPolicy", "Equivalent") not in ("Equivalent", "Exact"):
        yield _unsupported(match["matchPolicy"], ("Equivalent", "Exact"), f"{at}.matchPolicy")
    for key in ("namespaceSelector", "objectSelector"):
        yield from _check_selector(match.get(key), f"{at}.{key}")


def _check_selector(selector: Any, at: str) -> Iterator[Cause]:
    try:
        from_object(selector)
    except BadRequest as error:
        yield Cause(INVALID, f"Invalid value: {error}", at)


def _check_variables(spec: Document) -> "tuple[dict[str, Expression], list[Cause]]":
    """Those that compile, each of which may read the ones before."""
    known: dict[str, Expression] = {}
    causes: list[Cause] = []
    for index, each in enumerate(spec.get("variables") or ()):
        at, name, text = f"spec.variables[{index}]", each.get("name") or "", each.get("expression")
        if not name:
            causes.append(Cause(REQUIRED, "Required value: name is not specified", f"{at}.name"))
        elif not _IDENTIFIER.match(name):
            words = f"Invalid value: {shown(name)}: name is not a valid CEL identifier"
            causes.append(Cause(INVALID, words, f"{at}.name"))
        elif name in known:
            causes.append(Cause(DUPLICATE, f"Duplicate value: {shown(name)}", f"{at}.name"))
        scope = _scope(spec, known)
        faults = list(check_expression(text, f"{at}.expression", scope, ()))
        causes += faults
        if not faults and name not in known and _IDENTIFIER.match(name):
            known[name] = compile_text(str(text).strip(), scope, ())
    return known, causes


def _check_validation(each: Document, at: str, scope: Scope) -> Iterator[Cause]:
    text, message = each.get("expression") or "", each.get("message")
    yield from check_expression(text, f"{at}.expression", scope)
    if message and not message.strip():
        words = f"Invalid value: {shown(message)}: message must be non-empty if specified"
        yield Cause(INVALID, words, f"{at}.message")
    elif message and "\n" in message.strip():
        words = f"Invalid value: {shown(message)}: message must not contain line breaks"
        yield Cause(INVALID, words, f"{at}.message")
    elif not message and "\n" in text.strip():
        words = "Required value: message must be specified if expression contains line breaks"
        yield Cause(REQUIRED, words, f"{at}.message")
    said = each.get("messageExpression")
    yield from check_expression(said, f"{at}.messageExpression", scope, ("STRING",), is_needed=bool(said))
    if each.get("reason") and each["reason"] not in CODES:
        yield _unsupported(each["reason"], tuple(CODES), f"{at}.reason")


def _check_annotation(each: Document, at: str, scope: Scope, seen: set[str]) -> Iterator[Cause]:
    key = each.get("key") or ""
    if not key:
        yield Cause(REQUIRED, "Required value", f"{at}.key")
    elif key in seen:
        yield Cause(DUPLICATE, f"Duplicate value: {shown(key)}", f"{at}.key")
    seen.add(key)
    yield from check_expression(each.get("valueExpression"), f"{at}.valueExpression", scope, ("STRING", "NULL"))


def check_binding(binding: Document) -> list[Cause]:
    spec = binding.get("spec") or {}
    causes = []
    if not spec.get("policyName"):
        causes.append(Cause(REQUIRED, "Required value", "spec.policyName"))
    elif check_name("subdomain", spec["policyName"]):
        words = f"Invalid value: {shown(spec['policyName'])}: must be the name of a ValidatingAdmissionPolicy"
        causes.append(Cause(INVALID, words, "spec.policyName"))
    causes += _check_reference(spec.get("paramRef"))
    causes += _check_match(spec.get("matchResources"), "spec.matchResources", is_needed=False)
    actions = spec.get("validationActions") or ()
    if not actions:
        causes.append(Cause(REQUIRED, "Required value: at least one validation action is required",
                            "spec.validationActions"))  # fmt: skip
    for index, action in enumerate(actions):
        if action not in ACTIONS:
            causes.append(_unsupported(action, ACTIONS, f"spec.validationActions[{index}]"))
    if {"Deny", "Warn"} <= set(actions):
        words = (
            "Invalid value: must not contain both Deny and Warn (repeating the same validation failure information in "
            "the API response and headers serves no purpose)"
        )
        causes.append(Cause(INVALID, words, "spec.validationActions"))
    return causes


def _check_reference(reference: Document | None) -> Iterator[Cause]:
    if reference is None:
        return
    has_name, has_selector = bool(reference.get("name")), "selector" in reference
    if has_name is has_selector:
        word = "Forbidden: name and selector are mutually exclusive" if has_name else "one of name or selector must be "
        if has_name:
            yield Cause("FieldValueForbidden", word, "spec.paramRef.name")
        else:
            yield Cause(REQUIRED, f"Required value: {word}specified", "spec.paramRef")
    if has_selector:
        yield from _check_selector(reference["selector"], "spec.paramRef.selector")
    action = reference.get("parameterNotFoundAction")
    if not action:
        yield Cause(REQUIRED, "Required value", "spec.paramRef.parameterNotFoundAction")
    elif action not in ("Allow", "Deny"):
        yield _unsupported(action, ("Allow", "Deny"), "spec.paramRef.parameterNotFoundAction")


def _unsupported(value: Any, words: tuple[str, ...], at: str) -> Cause:
    names = ", ".join(f'"{word}"' for word in words)
    return Cause(NOT_SUPPORTED, f"Unsupported value: {shown(value)}: supported values: {names}", at)
