"""What roles and bindings may say. Every fault is found. Pure."""

import re
from collections.abc import Iterator
from typing import Any

from hotvirt.kube.errors import Cause
from hotvirt.server.kind_checks import unsupported
from hotvirt.server.objectmeta import INVALID, REQUIRED

Document = dict[str, Any]
_SUBJECTS = ("ServiceAccount", "User", "Group")
_ACCOUNT = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?\Z")


def role(new: Document, _: Document | None) -> list[Cause]:
    causes: list[Cause] = []
    for index, rule in enumerate(new.get("rules") or ()):
        causes += _rule(rule, f"rules[{index}]", namespaced=bool(new["metadata"].get("namespace")))
    return causes


def _rule(rule: Any, at: str, *, namespaced: bool) -> Iterator[Cause]:
    rule = rule if isinstance(rule, dict) else {}
    if not rule.get("verbs"):
        yield Cause(REQUIRED, "Required value: verbs must contain at least one value", f"{at}.verbs")
    if paths := rule.get("nonResourceURLs"):
        if namespaced:
            message = f"Invalid value: {paths}: namespaced rules cannot apply to non-resource URLs"
            yield Cause(INVALID, message, f"{at}.nonResourceURLs")
        if any(rule.get(key) for key in ("apiGroups", "resources", "resourceNames")):
            message = f"Invalid value: {paths}: rules cannot apply to both regular resources and non-resource URLs"
            yield Cause(INVALID, message, f"{at}.nonResourceURLs")
        return
    if not rule.get("apiGroups"):
        yield Cause(REQUIRED, "Required value: resource rules must supply at least one api group", f"{at}.apiGroups")
    if not rule.get("resources"):
        yield Cause(REQUIRED, "Required value: resource rules must supply at least one resource", f"{at}.resources")


def binding(new: Document, old: Document | None) -> list[Cause]:
    given = new.get("roleRef")
    ref: Document = given if isinstance(given, dict) else {}
    kinds = ("Role", "ClusterRole") if new["metadata"].get("namespace") else ("ClusterRole",)
    causes = [] if ref.get("kind") in kinds else [unsupported(ref.get("kind") or "", kinds, "roleRef.kind")]
    if not ref.get("name"):
        causes.append(Cause(REQUIRED, "Required value", "roleRef.name"))
    if old is not None and given != old.get("roleRef"):
        causes.append(Cause(INVALID, f"Invalid value: {given}: cannot change roleRef", "roleRef"))
    for index, subject in enumerate(new.get("subjects") or ()):
        found = subject if isinstance(subject, dict) else {}
        causes += _subject(found, f"subjects[{index}]", namespaced=len(kinds) > 1)
    return causes


def _subject(subject: Document, at: str, *, namespaced: bool) -> Iterator[Cause]:
    name, kind = subject.get("name"), subject.get("kind")
    if not name:
        yield Cause(REQUIRED, "Required value", f"{at}.name")
    if kind not in _SUBJECTS:
        yield unsupported(kind or "", _SUBJECTS, f"{at}.kind")
    elif kind == "ServiceAccount":
        if name and not _ACCOUNT.match(str(name)):
            yield Cause(INVALID, f'Invalid value: "{name}": is not the name of a service account', f"{at}.name")
        if not namespaced and not subject.get("namespace"):
            yield Cause(REQUIRED, "Required value", f"{at}.namespace")
