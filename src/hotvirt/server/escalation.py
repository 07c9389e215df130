"""Nobody hands out what they do not have: roles hold only what their writer may do, bindings bind only such roles.

`escalate` on the role, or `bind` on it, allows it all the same, as in Kubernetes.
"""

from typing import Any

from hotvirt.kube.errors import Forbidden
from hotvirt.server import rbac
from hotvirt.server.access import Access, Attributes
from hotvirt.server.calls import Call

Document = dict[str, Any]
_ROLES, _BINDINGS = ("roles", "clusterroles"), ("rolebindings", "clusterrolebindings")


class Escalation:
    def __init__(self, access: Access) -> None:
        self._access = access

    def check(self, call: Call, doc: Any) -> None:
        """Raises Forbidden when storing `doc` would give somebody more than the writer has."""
        resource = call.served.resource
        if resource.group != rbac.GROUP or not isinstance(doc, dict):
            return
        if resource.plural in _ROLES:
            self._check_rules(call, doc)
        elif resource.plural in _BINDINGS:
            self._check_binding(call, doc)

    def _check_rules(self, call: Call, role: Document) -> None:
        if self._has(call, "escalate", call.served.resource.plural, call.name):
            return
        rules = role.get("rules")
        missing = self._access.may_not_grant(call.user, rules if isinstance(rules, list) else (), call.namespace)
        if missing:
            raise _refusal(call, missing)

    def _check_binding(self, call: Call, binding: Document) -> None:
        ref = binding.get("roleRef")
        if not isinstance(ref, dict):
            return
        kind, name = str(ref.get("kind")), str(ref.get("name"))
        plural = "clusterroles" if kind == "ClusterRole" else "roles"
        if self._has(call, "bind", plural, name):
            return
        role = self._access.role(kind, call.namespace, name)
        if role is None:
            raise Forbidden(
                f'{call.served.qualified} is forbidden: {kind} "{name}" does not exist, so only who may bind it can'
            )
        missing = self._access.may_not_grant(call.user, role.get("rules"), call.namespace)
        if missing:
            raise _refusal(call, missing)

    def _has(self, call: Call, verb: str, plural: str, name: str) -> bool:
        asked = Attributes(
            verb=verb, group=rbac.GROUP, version="v1", resource=plural, namespace=call.namespace, name=name
        )
        return self._access.may(call.user, asked)


def _refusal(call: Call, missing: list[str]) -> Forbidden:
    name = call.name or "(new)"
    return Forbidden(
        f'{call.served.qualified} "{name}" is forbidden: user "{call.user.name}" (groups={list(call.user.groups)}) is '
        f"attempting to grant RBAC permissions not currently held:\n" + "\n".join(missing),
        group=call.served.resource.group,
        kind=call.served.resource.plural,
        name=call.name,
    )
