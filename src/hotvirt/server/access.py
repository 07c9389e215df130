"""Who may do what, from the roles and bindings in the store. Used on the event loop; never waits.

Grants are worked out once per identity and forgotten when any role or binding changes. Group `system:masters` may do
everything, whatever is stored: it is how a home that has lost its bindings is mended.
"""

from collections.abc import Iterable
from typing import Any

from hotvirt.kube.admission import User
from hotvirt.kube.errors import Forbidden
from hotvirt.server import rbac
from hotvirt.server.events import Event
from hotvirt.server.keys import Key
from hotvirt.server.rbac import Attributes, Grant, Rule
from hotvirt.server.store import Store

Document = dict[str, Any]
MASTERS = "system:masters"
CACHED_IDENTITIES = 256
_KINDS = tuple(f"{rbac.GROUP}/{plural}" for plural in ("roles", "clusterroles", "rolebindings", "clusterrolebindings"))
_EVERYTHING = Grant(
    "",
    (
        Rule(frozenset("*"), frozenset("*"), frozenset("*")),
        Rule(frozenset("*"), paths=frozenset("*")),
    ),
)


class Access:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._grants: dict[tuple[str, tuple[str, ...]], tuple[Grant, ...]] = {}
        store.listen(None, self._hear)

    def grants(self, user: User) -> tuple[Grant, ...]:
        who = (user.name, user.groups)
        found = self._grants.get(who)
        if found is None:
            found = self._work_out(user)
            if len(self._grants) >= CACHED_IDENTITIES:
                self._grants.clear()
            self._grants[who] = found
        return found

    def may(self, user: User, asked: Attributes) -> bool:
        return MASTERS in user.groups or rbac.allows(self.grants(user), asked)

    def require(self, user: User, asked: Attributes) -> None:
        if not self.may(user, asked):
            raise forbidden(user, asked)

    def may_not_grant(self, user: User, rules: Iterable[Document] | None, namespace: str) -> list[str]:
        """What of these rules the user does not have, and so may not give away."""
        return [] if MASTERS in user.groups else rbac.uncovered(rules, self.grants(user), namespace)

    def role(self, kind: str, namespace: str, name: str) -> Document | None:
        plural, space = ("clusterroles", "") if kind == "ClusterRole" else ("roles", namespace)
        entry = self._store.get(Key(f"{rbac.GROUP}/{plural}", space, name))
        return self._store.doc(entry) if entry else None

    def _work_out(self, user: User) -> tuple[Grant, ...]:
        if MASTERS in user.groups:
            return (_EVERYTHING,)
        return rbac.grants_of(user, self._all("clusterrolebindings"), self._all("rolebindings"), self.role)

    def _all(self, plural: str) -> list[Document]:
        return [self._store.doc(entry) for entry in self._store.entries(f"{rbac.GROUP}/{plural}")]

    def _hear(self, event: Event) -> None:
        if event.key.resource in _KINDS:
            self._grants.clear()


def forbidden(user: User, asked: Attributes) -> Forbidden:
    if asked.path:
        return Forbidden(f'forbidden: User "{user.name}" cannot {asked.verb} path "{asked.path}"')
    what = f"{asked.resource}.{asked.group}" if asked.group else asked.resource
    title = f'{what} "{asked.name}"' if asked.name else what
    where = f'in the namespace "{asked.namespace}"' if asked.namespace else "at the cluster scope"
    return Forbidden(
        f'{title} is forbidden: User "{user.name}" cannot {asked.verb} resource "{asked.full_resource}" '
        f'in API group "{asked.group}" {where}',
        group=asked.group, kind=asked.resource, name=asked.name,
    )  # fmt: skip


__all__ = ["Access", "Attributes", "forbidden"]
