"""ValidatingAdmissionPolicies at work: which are bound to a write, and what comes of their expressions.

Everything is local and synchronous, on the event loop, after the mutating webhooks and the schema, before the
validating webhooks. What is read of a policy is kept until it, or a binding, changes. Like webhooks, policies have no
say in what the server makes for itself while it starts.
"""

import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from msgspec import Struct, structs

from hotvirt.kube.errors import ApiError, from_status
from hotvirt.server import webhook_match, webhook_review
from hotvirt.server.calls import Call
from hotvirt.server.cel_requests import Question, about, conditions_hold
from hotvirt.server.events import Event
from hotvirt.server.keys import Key
from hotvirt.server.policy_configs import BINDINGS, CODES, POLICIES, Binding, Policy, read_binding, read_policy
from hotvirt.server.registry import Registry
from hotvirt.server.store import Store
from hotvirt.server.webhook_configs import Matching, Rule
from hotvirt.server.webhooks import in_form

if TYPE_CHECKING:
    from hotvirt.server.cel.authority import Authorize
    from hotvirt.server.cel.engine import Budget

Document = dict[str, Any]
LONGEST_MESSAGE = 5 * 1024
_ANY = frozenset("*")
_EVERYTHING = Rule(_ANY, _ANY, _ANY, (("*", "*"),), "*")
_log = logging.getLogger(__name__)


class Fault(Struct, frozen=True):
    message: str
    reason: str = "Invalid"


class Unconfigured(Exception):
    """A binding's params can't be had. The text says why."""


class Policies:
    def __init__(self, store: Store, registry: Registry, authorize: "Authorize | None" = None) -> None:
        self._store, self._registry, self._authorize = store, registry, authorize
        self._bound: list[tuple[Policy, list[Binding]]] | None = None
        self._started = False
        for kind in (POLICIES, BINDINGS):
            store.listen(kind, self._forget)

    def _forget(self, _: Event) -> None:
        self._bound = None

    def start(self) -> None:
        self._started = True

    def validate(self, call: Call, operation: str, new: Document | None, old: Document | None) -> None:
        """Raises what the first that denies says; warnings go into the call."""
        if not self._started or call.served.store in (POLICIES, BINDINGS):
            return
        bound = self._read()
        if not bound:
            return
        from hotvirt.server.cel.engine import Budget

        name, budget = ((new or old or {}).get("metadata") or {}).get("name") or call.name, Budget()
        call = structs.replace(call, name=name)  # of a create the path does not say it
        denied: list[tuple[str, Fault]] = []
        for policy, bindings in bound:
            denied += self._ask(policy, bindings, call, operation, new, old, budget)
        if denied:
            raise _refusal(call, *denied[0])

    def _ask(
        self, policy: Policy, bindings: list[Binding], call: Call, operation: str, new: Document | None,
        old: Document | None, budget: "Budget",
    ) -> Iterator[tuple[str, Fault]]:  # fmt: skip
        form = self._form(policy.match, call, operation, new, old)
        if form is None:
            return
        if policy.fault:
            if not policy.is_ignored_when_failing:
                yield f"ValidatingAdmissionPolicy '{policy.name}'", Fault(f"failed to configure policy: {policy.fault}")
            return
        after, before = (doc and in_form(call.served, form, doc) for doc in (new, old))
        request = webhook_review.question(call, operation, after, before, form=form, uid="")["request"]
        for binding in bindings:
            if not self._is_bound(binding.match, call, operation, new, old):
                continue
            title = f"ValidatingAdmissionPolicy '{policy.name}' with binding '{binding.name}'"
            for fault in self._faults(policy, binding, call, request, budget):
                if "Deny" in binding.actions:
                    yield title, fault
                if "Warn" in binding.actions:
                    warning = f"Validation failed for {title}: {fault.message}"
                    call.warnings += [warning] if warning not in call.warnings else []

    def _faults(
        self, policy: Policy, binding: Binding, call: Call, request: Document, budget: "Budget"
    ) -> Iterator[Fault]:
        try:
            params = self._params(policy, binding, call)
        except Unconfigured as error:
            if not policy.is_ignored_when_failing:
                yield Fault(f"failed to configure binding: {error}")
            return
        space = self._namespace(call)
        for each in params:
            question = about(
                request, namespace=space, params=each, variables=policy.variables, authorize=self._authorize
            )  # fmt: skip
            yield from _judge(policy, question, budget)

    def _form(self, match: Matching, call: Call, operation: str, new: Document | None, old: Document | None) -> Any:
        form = webhook_match.form(match, call, operation, self._registry.all)
        return form if form is not None and self._is_selected(match, call, new, old) else None

    def _is_bound(
        self, match: Matching, call: Call, operation: str, new: Document | None, old: Document | None
    ) -> bool:
        """A binding without rules narrows by its selectors alone."""
        if match.rules or match.excluded:
            every = match if match.rules else structs.replace(match, rules=(_EVERYTHING,))
            return self._form(every, call, operation, new, old) is not None
        return self._is_selected(match, call, new, old)

    def _is_selected(self, match: Matching, call: Call, new: Document | None, old: Document | None) -> bool:
        return webhook_match.is_selected(match, call, new, old, self._labels)

    def _params(self, policy: Policy, binding: Binding, call: Call) -> Iterable[Document | None]:
        if policy.params is None or not binding.has_params:
            return [None]
        api_version, kind = policy.params
        served = self._registry.by_kind(api_version, kind)
        if served is None:
            raise Unconfigured(f"failed to find resource referenced by paramKind: '{api_version}, Kind={kind}'")
        space = binding.param_namespace
        if not served.resource.namespaced:
            if space:
                raise Unconfigured("paramRef.namespace must not be provided for a cluster-scoped `paramKind`")
        elif not (space := space or call.namespace):
            raise Unconfigured(
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
            )  # fmt: skip
        if binding.param_name:
            found = [entry] if (entry := self._store.get(Key(served.store, space, binding.param_name))) else []
        else:
            found = list(self._store.entries(served.store, space) if space else self._store.entries(served.store))
        params = [served.shown(self._store.doc(each)) for each in found]
        if binding.selector is not None:
            params = [each for each in params if binding.selector.matches(each["metadata"].get("labels") or {})]
        if not params and not binding.allows_absent:
            raise Unconfigured("no params found for policy binding with `Deny` parameterNotFoundAction")
        return params

    def _read(self) -> list[tuple[Policy, list[Binding]]]:
        """The policies that are bound, by name, with their bindings by name."""
        if self._bound is None:
            bindings: dict[str, list[Binding]] = {}
            for entry in self._store.entries(BINDINGS):
                if (binding := _binding(self._store.doc(entry))) is not None:
                    bindings.setdefault(binding.policy, []).append(binding)
            docs = [self._store.doc(entry) for entry in self._store.entries(POLICIES)]
            policies = [_policy(doc) for doc in docs if doc["metadata"]["name"] in bindings]
            self._bound = [(policy, bindings[policy.name]) for policy in policies if policy is not None]
        return self._bound

    def _namespace(self, call: Call) -> Document | None:
        if not call.namespace or call.served.store == "/namespaces":
            return None
        entry = self._store.get(Key("/namespaces", "", call.namespace))
        return self._store.doc(entry) if entry else None

    def _labels(self, namespace: str) -> Document:
        entry = self._store.get(Key("/namespaces", "", namespace))
        return ((self._store.doc(entry)["metadata"] if entry else {}).get("labels")) or {}


def _judge(policy: Policy, question: Question, budget: "Budget") -> Iterator[Fault]:
    from hotvirt.server.cel.engine import EvaluationError

    holds, why = conditions_hold(policy.conditions, question, budget)
    if not holds:
        if why and not policy.is_ignored_when_failing:
            yield Fault(why)
        return
    for each in policy.validations:
        try:
            if question.ask(each.expression, budget) is not True:
                words = _words(each.words, question, budget) or each.message
                yield Fault(words or f"failed expression: {each.expression.text}", each.reason)
        except EvaluationError as error:
            if not policy.is_ignored_when_failing:
                yield Fault(f"expression '{each.expression.text}' resulted in error: {error}")
    for annotation in policy.annotations:  # kept nowhere, for there is no audit log; but one that fails is a fault
        try:
            question.ask(annotation, budget)
        except EvaluationError as error:
            if not policy.is_ignored_when_failing:
                yield Fault(f"expression '{annotation.text}' resulted in error: {error}")


def _words(expression: Any, question: Question, budget: "Budget") -> str:
    from hotvirt.server.cel.engine import EvaluationError

    if expression is None:
        return ""
    try:
        found = question.ask(expression, budget)
    except EvaluationError:
        return ""
    text = found.strip() if isinstance(found, str) else ""
    return text if len(text) <= LONGEST_MESSAGE and "\n" not in text else ""


def _refusal(call: Call, title: str, fault: Fault) -> ApiError:
    said = f"{title} denied request: {fault.message}"
    code = CODES.get(fault.reason, 422)
    status: Document = {
        "code": code, "reason": fault.reason,
        "message": f'{call.served.qualified} "{call.name}" is forbidden: {said}',
        "details": {"name": call.name, "group": call.served.resource.group, "kind": call.served.resource.plural,
                    "causes": [{"message": said}]},
    }  # fmt: skip
    return from_status(status, code)


def _policy(doc: Document) -> Policy | None:
    try:
        return read_policy(doc)
    except (KeyError, TypeError, ValueError, ApiError) as error:
        _log.error("policy %s can't be read, write it anew: %r", doc["metadata"]["name"], error)
        return None


def _binding(doc: Document) -> Binding | None:
    try:
        return read_binding(doc)
    except (KeyError, TypeError, ValueError, ApiError) as error:
        _log.error("policy binding %s can't be read, write it anew: %r", doc["metadata"]["name"], error)
        return None
