"""Rules, bindings and aggregation as pure decisions."""

from typing import Any

import pytest

from hotvirt.kube.admission import User
from hotvirt.server import rbac
from hotvirt.server.rbac import Attributes, Grant, parse_rules

JANE = User("jane", ("staff", "system:authenticated"))


def rule(verbs: str, resources: str = "", *, groups: str = "apps", names: str = "", paths: str = "") -> dict[str, Any]:
    return {
        "verbs": verbs.split(), "resources": resources.split(), "apiGroups": groups.split(),
        "resourceNames": names.split(), "nonResourceURLs": paths.split(),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "asked", "allowed"),
    [
        (rule("get", "pods"), Attributes(verb="get", group="apps", resource="pods"), True),
        (rule("get", "pods"), Attributes(verb="list", group="apps", resource="pods"), False),
        (rule("get", "pods"), Attributes(verb="get", group="batch", resource="pods"), False),
        (rule("*", "*", groups="*"), Attributes(verb="x", group="y", resource="z", subresource="s"), True),
        (rule("get", "pods"), Attributes(verb="get", group="apps", resource="pods", subresource="log"), False),
        (rule("get", "pods/log"), Attributes(verb="get", group="apps", resource="pods", subresource="log"), True),
        (rule("get", "*/log"), Attributes(verb="get", group="apps", resource="pods", subresource="log"), True),
        (rule("get", "pods", names="a"), Attributes(verb="get", group="apps", resource="pods", name="a"), True),
        (rule("get", "pods", names="a"), Attributes(verb="get", group="apps", resource="pods", name="b"), False),
        (rule("list", "pods", names="a"), Attributes(verb="list", group="apps", resource="pods"), False),
        (rule("get", paths="/healthz /logs/*"), Attributes(verb="get", path="/healthz"), True),
        (rule("get", paths="/healthz /logs/*"), Attributes(verb="get", path="/logs/a"), True),
        (rule("get", paths="/healthz"), Attributes(verb="get", path="/healthz/deep"), False),
        (rule("*", "*", groups="*"), Attributes(verb="get", path="/healthz"), False),
    ],
)
def test_one_rule(given: dict[str, Any], asked: Attributes, allowed: bool) -> None:
    assert parse_rules([given])[0].allows(asked) is allowed


def test_a_grant_reaches_as_far_as_its_binding() -> None:
    grants = [Grant("team", parse_rules([rule("get", "pods"), rule("get", paths="*")]))]
    inside = Attributes(verb="get", group="apps", resource="pods", namespace="team")
    assert rbac.allows(grants, inside)
    assert not rbac.allows(grants, Attributes(verb="get", group="apps", resource="pods", namespace="other"))
    assert not rbac.allows(grants, Attributes(verb="get", group="apps", resource="pods"))
    assert not rbac.allows(grants, Attributes(verb="get", path="/healthz"))


@pytest.mark.parametrize(
    ("subject", "concerned"),
    [
        ({"kind": "User", "name": "jane"}, True),
        ({"kind": "User", "name": "joe"}, False),
        ({"kind": "Group", "name": "staff"}, True),
        ({"kind": "Group", "name": "jane"}, False),
        ({"kind": "ServiceAccount", "name": "jane"}, False),
    ],
)
def test_subjects(subject: dict[str, str], concerned: bool) -> None:
    assert rbac.concerns([subject], JANE, "team") is concerned


def test_a_service_account_is_of_its_namespace() -> None:
    robot = User("system:serviceaccount:team:robot")
    assert rbac.concerns([{"kind": "ServiceAccount", "name": "robot"}], robot, "team")
    assert rbac.concerns([{"kind": "ServiceAccount", "name": "robot", "namespace": "team"}], robot, "other")
    assert not rbac.concerns([{"kind": "ServiceAccount", "name": "robot"}], robot, "other")


def test_what_the_giver_does_not_have_is_named() -> None:
    grants = [Grant("team", parse_rules([rule("get list", "pods"), rule("*", "secrets", names="mine")]))]
    assert rbac.uncovered([rule("get", "pods")], grants, "team") == []
    assert rbac.uncovered([rule("get", "secrets", names="mine")], grants, "team") == []
    assert len(rbac.uncovered([rule("get", "pods")], grants, "other")) == 1
    missing = rbac.uncovered([rule("get delete", "pods nodes")], grants, "team")
    assert len(missing) == 3
    assert "nodes" in missing[0]
    assert rbac.uncovered([rule("get", "secrets")], grants, "team")
    assert rbac.uncovered([rule("*", "pods")], grants, "team")


def test_aggregation_takes_each_rule_once() -> None:
    def role(name: str, into: str, *rules: dict[str, Any]) -> dict[str, Any]:
        return {"metadata": {"name": name, "labels": {"into": into}}, "rules": list(rules)}

    view = {"metadata": {"name": "view"}, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"into": "v"}}]}}
    one, two = rule("get", "pods"), rule("list", "pods")
    roles = [view, role("b", "v", one, two), role("a", "v", one), role("c", "other", rule("*", "*"))]
    assert rbac.aggregate(view, roles) == [one, two]
