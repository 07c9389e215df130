"""Which webhooks a write concerns, and in which version of the object. Pure."""

from collections.abc import Callable, Iterable
from typing import Any

from hotvirt.server.calls import Call
from hotvirt.server.registry import Served
from hotvirt.server.webhook_configs import GROUP, Matching, Rule

Document = dict[str, Any]
_NAMESPACES = "/namespaces"


def is_exempt(call: Call) -> bool:
    """What says who is asked is asked nobody about: a webhook that refuses everything can still be taken away."""
    return call.served.resource.group == GROUP


def form(hook: Matching, call: Call, operation: str, equivalents: Callable[[], Iterable[Served]]) -> Served | None:
    """The version to ask the webhook about the object in; None when no rule of it is about this write."""
    if _is_ruled(hook.excluded, call.served, call, operation):
        return None
    if _is_ruled(hook.rules, call.served, call, operation):
        return call.served
    if hook.takes_equivalents:
        for other in equivalents():
            if (
                other.store == call.served.store
                and other != call.served
                and _is_ruled(hook.rules, other, call, operation)
            ):
                return other
    return None


def is_selected(
    hook: Matching, call: Call, new: Document | None, old: Document | None, labels_of: Callable[[str], Document]
) -> bool:
    """`labels_of` gives a namespace's labels. Objects are selected by their labels before or after the write."""
    if hook.objects.requirements and not any(hook.objects.matches(_labels(doc)) for doc in (new, old) if doc):
        return False
    if not hook.namespaces.requirements:
        return True
    if call.served.store == _NAMESPACES:
        return hook.namespaces.matches(_labels(new or old or {}))
    return not call.namespace or hook.namespaces.matches(labels_of(call.namespace))


def _is_ruled(rules: Iterable[Rule], served: Served, call: Call, operation: str) -> bool:
    return any(
        _covers(rule, served, call.subresource, operation) and (not rule.names or call.name in rule.names)
        for rule in rules
    )


def _covers(rule: Rule, served: Served, subresource: str, operation: str) -> bool:
    resource = served.resource
    if rule.scope != "*" and resource.namespaced is not (rule.scope == "Namespaced"):
        return False
    named = any(
        plural in ("*", resource.plural) and sub in ("*", subresource) for plural, sub in rule.resources
    )  # fmt: skip
    return (
        named
        and not rule.operations.isdisjoint(("*", operation))
        and not rule.groups.isdisjoint(("*", resource.group))
        and not rule.versions.isdisjoint(("*", resource.version))
    )


def _labels(doc: Document) -> Document:
    return (doc.get("metadata") or {}).get("labels") or {}
