"""Role-based access control as pure decisions: do these rules allow that request, do they cover those rules.

Documents in (Role, ClusterRole, bindings), answers out. `access` keeps them at hand and asks here.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from hotvirt.kube.admission import User
from hotvirt.server.selectors import from_object

Document = dict[str, Any]
GROUP = "rbac.authorization.k8s.io"


class Attributes(Struct, frozen=True, kw_only=True):
    """What somebody wants to do. `path` is set for what is no resource (`/healthz`), and then nothing else but verb."""

    verb: str
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""

    @property
    def full_resource(self) -> str:
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


class Rule(Struct, frozen=True):
    """One PolicyRule."""

    verbs: frozenset[str]
    groups: frozenset[str] = frozenset()
    resources: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    paths: frozenset[str] = frozenset()

    def allows(self, asked: Attributes) -> bool:
        if asked.verb not in self.verbs and "*" not in self.verbs:
            return False
        if asked.path:
            return any(_path_matches(pattern, asked.path) for pattern in self.paths)
        if asked.group not in self.groups and "*" not in self.groups:
            return False
        if self.names and asked.name not in self.names:
            return False
        if asked.full_resource in self.resources or "*" in self.resources:
            return True
        return bool(asked.subresource) and f"*/{asked.subresource}" in self.resources


class Grant(Struct, frozen=True):
    """Rules that somebody has: everywhere for namespace "", else there."""

    namespace: str
    rules: tuple[Rule, ...]


def parse_rules(rules: Iterable[Mapping[str, Any]] | None) -> tuple[Rule, ...]:
    return tuple(
        Rule(
            verbs=frozenset(rule.get("verbs") or ()),
            groups=frozenset(rule.get("apiGroups") or ()),
            resources=frozenset(rule.get("resources") or ()),
            names=frozenset(rule.get("resourceNames") or ()),
            paths=frozenset(rule.get("nonResourceURLs") or ()),
        )
        for rule in rules or ()
        if isinstance(rule, Mapping)
    )


def allows(grants: Iterable[Grant], asked: Attributes) -> bool:
    return any(
        rule.allows(asked)
        for grant in grants
        if not grant.namespace or (grant.namespace == asked.namespace and not asked.path)
        for rule in grant.rules
    )


def concerns(subjects: Iterable[Mapping[str, Any]] | None, user: User, namespace: str) -> bool:
    """Whether a binding's subjects include the user. ServiceAccounts without a namespace are the binding's own."""
    for subject in subjects or ():
        kind, name = subject.get("kind"), subject.get("name")
        if kind == "User" and name == user.name:
            return True
        if kind == "Group" and name in user.groups:
            return True
        if kind == "ServiceAccount":
            space = subject.get("namespace") or namespace
            if user.name == f"system:serviceaccount:{space}:{name}":
                return True
    return False


def grants_of(
    user: User,
    cluster_bindings: Iterable[Document],
    bindings: Iterable[Document],
    find_role: Callable[[str, str, str], Document | None],
) -> tuple[Grant, ...]:
    """All that the user has. `find_role(kind, namespace, name)` gives a Role or ClusterRole."""
    found: list[Grant] = []
    for binding in (*cluster_bindings, *bindings):
        namespace = binding["metadata"].get("namespace") or ""
        if not concerns(binding.get("subjects"), user, namespace):
            continue
        ref = binding.get("roleRef") or {}
        role = find_role(ref.get("kind", ""), namespace, ref.get("name", ""))
        if role is not None:
            found.append(Grant(namespace, parse_rules(role.get("rules"))))
    return tuple(found)


def uncovered(rules: Iterable[Mapping[str, Any]] | None, grants: Sequence[Grant], namespace: str) -> list[str]:
    """What `rules` allow in `namespace` ("" everywhere) and the grants do not, in words: nobody may hand out more than
    they have."""
    own = [rule for grant in grants if grant.namespace in ("", namespace) for rule in grant.rules]
    missing = []
    for rule in parse_rules(rules):
        missing += [_words(part) for part in _split(rule) if not any(_covers(mine, part) for mine in own)]
    return missing


def _split(rule: Rule) -> Iterable[Rule]:
    for verb in sorted(rule.verbs):
        for path in sorted(rule.paths):
            yield Rule(frozenset((verb,)), paths=frozenset((path,)))
        for group in sorted(rule.groups):
            for resource in sorted(rule.resources):
                yield Rule(frozenset((verb,)), frozenset((group,)), frozenset((resource,)), rule.names)


def _covers(mine: Rule, part: Rule) -> bool:
    if not ("*" in mine.verbs or part.verbs <= mine.verbs):
        return False
    if part.paths:
        return all(any(_path_matches(have, path) for have in mine.paths) for path in part.paths)
    if not ("*" in mine.groups or part.groups <= mine.groups):
        return False
    if mine.names and not (part.names and part.names <= mine.names):
        return False
    (resource,) = part.resources
    _, slash, sub = resource.partition("/")
    return "*" in mine.resources or resource in mine.resources or (bool(slash) and f"*/{sub}" in mine.resources)


def _words(part: Rule) -> str:
    if part.paths:
        return f"{{NonResourceURLs:{sorted(part.paths)}, Verbs:{sorted(part.verbs)}}}"
    names = f", ResourceNames:{sorted(part.names)}" if part.names else ""
    return f"{{APIGroups:{sorted(part.groups)}, Resources:{sorted(part.resources)}{names}, Verbs:{sorted(part.verbs)}}}"


def _path_matches(pattern: str, path: str) -> bool:
    if pattern == "*":
        return True
    return path.startswith(pattern[:-1]) if pattern.endswith("*") else path == pattern


def aggregate(role: Document, roles: Iterable[Document]) -> list[Document]:
    """The rules of a ClusterRole with an aggregationRule: those of all it selects, each once."""
    selectors = [from_object(s) for s in (role.get("aggregationRule") or {}).get("clusterRoleSelectors") or ()]
    rules: list[Document] = []
    for other in sorted(roles, key=lambda each: str(each["metadata"]["name"])):
        if other["metadata"]["name"] == role["metadata"]["name"]:
            continue
        if any(selector.matches(other["metadata"].get("labels")) for selector in selectors):
            rules += [rule for rule in other.get("rules") or () if rule not in rules]
    return rules
