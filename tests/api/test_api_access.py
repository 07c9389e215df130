"""Who may do what: identities, RBAC, reviews, impersonation, escalation."""

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest

Doc = dict[str, Any]
RBAC = "/apis/rbac.authorization.k8s.io/v1"
API = "rbac.authorization.k8s.io"
WIDGETS = "/apis/conformance.hotvirt.io/v1/namespaces/{ns}/widgets"


@pytest.fixture
def user() -> str:
    return f"jane-{secrets.token_hex(3)}"


@pytest.fixture
def cluster_role(target: Any) -> Iterator[Callable[..., str]]:
    """Makes ClusterRoles that go with the case."""
    made: list[str] = []

    def make(rules: list[Doc], *, labels: Doc | None = None, **more: Any) -> str:
        name = f"case-{secrets.token_hex(4)}"
        role = {"metadata": {"name": name, "labels": labels or {}}, "rules": rules, **more}
        told = target.ask("POST", f"{RBAC}/clusterroles", role)
        assert told.status == 201, told.doc
        made.append(name)
        return name

    yield make
    for name in made:
        target.ask("DELETE", f"{RBAC}/clusterroles/{name}")


def rule(verbs: str, resources: str, *groups: str) -> Doc:
    return {"apiGroups": list(groups or ("",)), "resources": resources.split(), "verbs": verbs.split()}


def grant(target: Any, ns: str, role: str, *, user: str = "", account: str = "", kind: str = "ClusterRole") -> None:
    subject: Doc = {"kind": "User", "name": user, "apiGroup": API}
    if account:
        subject = {"kind": "ServiceAccount", "name": account, "namespace": ns}
    binding = {"metadata": {"generateName": "case-"}, "roleRef": {"apiGroup": API, "kind": kind, "name": role},
               "subjects": [subject]}  # fmt: skip
    told = target.ask("POST", f"{RBAC}/namespaces/{ns}/rolebindings", binding)
    assert told.status == 201, told.doc


def test_nobody_reaches_health_and_version_alone(target: Any) -> None:
    for path in ("/api", "/apis", "/openapi/v2", "/api/v1/namespaces", "/metrics", "/nothing"):
        told = target.ask("GET", path, nobody=True)
        assert (told.status, told.doc["kind"]) in ((403, "Status"), (401, "Status")), path
    told = target.ask("GET", "/api/v1/namespaces", token="nonsense")
    assert (told.status, told.doc["reason"]) == (401, "Unauthorized")


def test_who_am_i(client: Any, kubectl: Any, user: str) -> None:
    kubectl.needs(26, "auth whoami")
    told = kubectl.as_user(user)("auth", "whoami")
    assert user in told
    assert "system:authenticated" in told


def test_impersonated_with_groups_and_extra(target: Any, user: str) -> None:
    headers = {"Impersonate-User": user, "Impersonate-Group": "staff", "Impersonate-Extra-Team": "a"}
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    told = target.ask("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", review, headers=headers)
    who = told.doc["status"]["userInfo"]
    assert (who["username"], set(who["groups"])) == (user, {"staff", "system:authenticated"})
    assert who["extra"] == {"team": ["a"]}
    told = target.ask("GET", "/api/v1/namespaces", headers={"Impersonate-Group": "staff"})
    assert told.status in (400, 500)  # an error of the server's in older Kubernetes


def test_a_role_gives_what_it_says(client: Any, target: Any, ns: str, user: str, widget: Any, refused: Any) -> None:
    client.create(widget("a"), ns)
    jane = client.as_user(user)
    with pytest.raises(refused) as told:
        jane.get("widgets", "a", ns)
    assert told.value.reason == "Forbidden"
    assert f'User "{user}" cannot get resource "widgets" in API group "conformance.hotvirt.io"' in told.value.message
    assert f'in the namespace "{ns}"' in told.value.message
    role = {"metadata": {"name": "reader"}, "rules": [rule("get list watch", "widgets", "conformance.hotvirt.io")]}
    target.ask("POST", f"{RBAC}/namespaces/{ns}/roles", role)
    grant(target, ns, "reader", user=user, kind="Role")
    target.until(lambda: jane.may("get", "widgets.conformance.hotvirt.io", ns))
    assert jane.get("widgets", "a", ns)["metadata"]["name"] == "a"
    assert not jane.may("delete", "widgets.conformance.hotvirt.io", ns)
    assert not jane.may("get", "widgets.conformance.hotvirt.io", "default")
    with pytest.raises(refused):
        jane.delete("widgets", "a", ns)


@pytest.mark.parametrize(
    ("role", "may", "may_not"),
    [
        ("view", ["list pods", "watch configmaps", "get services"],
         ["create pods", "list secrets", "list roles.rbac.authorization.k8s.io"]),
        ("edit", ["create pods", "delete secrets", "patch deployments.apps"],
         ["create roles.rbac.authorization.k8s.io", "delete resourcequotas"]),
        ("admin", ["create pods", "delete secrets", "create rolebindings.rbac.authorization.k8s.io"],
         ["update resourcequotas", "delete nodes"]),
    ],
)  # fmt: skip
def test_the_roles_everybody_knows(
    client: Any, target: Any, ns: str, user: str, role: str, may: list[str], may_not: list[str]
) -> None:
    grant(target, ns, role, user=user)
    jane = client.as_user(user)
    target.until(lambda: jane.may(*may[0].split(), ns))
    assert [each for each in may if not jane.may(*each.split(), ns)] == []
    assert [each for each in may_not if jane.may(*each.split(), ns)] == []


def test_system_masters_and_roles_are_there(target: Any) -> None:
    roles = {item["metadata"]["name"] for item in target.ask("GET", f"{RBAC}/clusterroles").doc["items"]}
    assert {"cluster-admin", "admin", "edit", "view", "system:discovery", "system:basic-user",
            "system:public-info-viewer", "system:auth-delegator"} <= roles  # fmt: skip
    bindings = target.ask("GET", f"{RBAC}/clusterrolebindings/cluster-admin").doc
    assert bindings["subjects"][0]["name"] == "system:masters"


def test_cluster_roles_aggregate(target: Any, client: Any, ns: str, user: str, cluster_role: Any) -> None:
    label = f"conformance.hotvirt.io/into-{user}"
    whole = cluster_role([], aggregationRule={"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]})
    grant(target, ns, whole, user=user)
    jane = client.as_user(user)
    assert not jane.may("get", "secrets", ns)
    part = cluster_role([rule("get", "secrets")], labels={label: "true"})
    target.until(lambda: jane.may("get", "secrets", ns))
    told = target.ask("GET", f"{RBAC}/clusterroles/{whole}").doc
    assert told["rules"] == [rule("get", "secrets")]
    target.ask("DELETE", f"{RBAC}/clusterroles/{part}")
    target.until(lambda: not jane.may("get", "secrets", ns))


def test_can_i_list(kubectl: Any, target: Any, ns: str, user: str) -> None:
    grant(target, ns, "view", user=user)
    jane = kubectl.as_user(user)
    target.until(lambda: jane.may("list", "pods", ns))
    rows = [line.split() for line in jane("auth", "can-i", "--list", "-n", ns).splitlines()]
    assert rows[0][:2] == ["Resources", "Non-Resource"]
    pods = next(row for row in rows if row[0] == "pods")
    assert pods[-3:] == ["[get", "list", "watch]"]
    assert any(row[0] == "selfsubjectaccessreviews.authorization.k8s.io" for row in rows)
    assert any("[/healthz]" in row for row in rows)


def test_nobody_grants_what_they_do_not_have(target: Any, ns: str, user: str, cluster_role: Any) -> None:
    able = cluster_role([rule("create update patch", "roles rolebindings", API), rule("get", "pods")])
    grant(target, ns, able, user=user)
    acting = {"Impersonate-User": user}
    roles, bindings = f"{RBAC}/namespaces/{ns}/roles", f"{RBAC}/namespaces/{ns}/rolebindings"

    def role(*rules: Doc) -> Doc:
        return {"metadata": {"generateName": "case-"}, "rules": list(rules)}

    def bind(name: str) -> Doc:
        role_ref = {"apiGroup": API, "kind": "ClusterRole", "name": name}
        subjects = [{"kind": "User", "name": user, "apiGroup": API}]
        return {"metadata": {"generateName": "case-"}, "roleRef": role_ref, "subjects": subjects}

    target.until(lambda: target.ask("POST", roles, role(rule("get", "pods")), headers=acting).status == 201)
    told = target.ask("POST", roles, role(rule("get list", "pods")), headers=acting)
    assert told.status == 403
    assert "attempting to grant RBAC permissions not currently held" in told.doc["message"]
    assert target.ask("POST", bindings, bind(able), headers=acting).status == 201
    told = target.ask("POST", bindings, bind("cluster-admin"), headers=acting)
    assert told.status == 403
    # With "escalate" on roles, or "bind" on the role, it is allowed.
    grant(target, ns, cluster_role([rule("escalate", "roles", API)]), user=user)
    target.until(lambda: target.ask("POST", roles, role(rule("*", "*", "*")), headers=acting).status == 201)
    binder = cluster_role([{**rule("bind", "clusterroles", API), "resourceNames": ["view"]}])
    grant(target, ns, binder, user=user)
    target.until(lambda: target.ask("POST", bindings, bind("view"), headers=acting).status == 201)
    assert target.ask("POST", bindings, bind("admin"), headers=acting).status == 403


def test_a_binding_keeps_its_role(target: Any, ns: str) -> None:
    path = f"{RBAC}/namespaces/{ns}/rolebindings"
    body = {"metadata": {"name": "b"}, "roleRef": {"apiGroup": API, "kind": "ClusterRole", "name": "view"}}
    assert target.ask("POST", path, body).status == 201
    change = {"roleRef": {"apiGroup": API, "kind": "ClusterRole", "name": "edit"}}
    told = target.ask("PATCH", f"{path}/b", change, kind="application/merge-patch+json")
    assert (told.status, told.doc["reason"]) == (422, "Invalid")
    assert "cannot change roleRef" in told.doc["message"]


def test_roles_by_name_of_the_object(target: Any, ns: str, user: str, cluster_role: Any) -> None:
    one = cluster_role([{**rule("get update", "configmaps"), "resourceNames": ["mine"]}])
    grant(target, ns, one, user=user)
    acting = {"Impersonate-User": user}
    for name in ("mine", "other"):
        target.ask("POST", f"/api/v1/namespaces/{ns}/configmaps", {"metadata": {"name": name}})
    path = f"/api/v1/namespaces/{ns}/configmaps"
    target.until(lambda: target.ask("GET", f"{path}/mine", headers=acting).status == 200)
    assert target.ask("GET", f"{path}/other", headers=acting).status == 403
    assert target.ask("GET", path, headers=acting).status == 403


def test_impersonation_must_be_allowed(target: Any, kubectl: Any, ns: str, cluster_role: Any, refused: Any) -> None:
    name = "robot"
    target.ask("POST", f"/api/v1/namespaces/{ns}/serviceaccounts", {"metadata": {"name": name}})
    token = kubectl.token(name, ns)
    told = target.ask("GET", "/api/v1/namespaces", token=token, headers={"Impersonate-User": "joe"})
    assert (told.status, told.doc["reason"]) == (403, "Forbidden")
    assert "cannot impersonate" in told.doc["message"]


# -- service accounts


def test_tokens(client: Any, target: Any, ns: str) -> None:
    client.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}}, ns)
    token = client.token("robot", ns)
    assert token.count(".") == 2
    path = f"/api/v1/namespaces/{ns}/configmaps"
    told = target.ask("GET", path, token=token)
    assert told.status == 403
    assert f'User "system:serviceaccount:{ns}:robot"' in told.doc["message"]
    grant(target, ns, "view", account="robot")
    target.until(lambda: target.ask("GET", path, token=token).status == 200)
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    told = target.ask("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review).doc["status"]
    assert told["authenticated"]
    assert told["user"]["username"] == f"system:serviceaccount:{ns}:robot"
    assert {"system:serviceaccounts", f"system:serviceaccounts:{ns}", "system:authenticated"} == {
        *told["user"]["groups"]
    }
    client.delete("serviceaccounts", "robot", ns)
    target.until(lambda: target.ask("GET", path, token=token).status == 401)


def test_tokens_for_others(target: Any, ns: str) -> None:
    accounts = f"/api/v1/namespaces/{ns}/serviceaccounts"
    target.ask("POST", accounts, {"metadata": {"name": "robot"}})
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
               "spec": {"audiences": ["vault"], "expirationSeconds": 600}}  # fmt: skip
    told = target.ask("POST", f"{accounts}/robot/token", request)
    assert told.status == 201, told.doc
    token = told.doc["status"]["token"]
    assert target.ask("GET", "/api", token=token).status == 401  # it is not for this API
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
              "spec": {"token": token, "audiences": ["vault"]}}  # fmt: skip
    status = target.ask("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review).doc["status"]
    assert (status["authenticated"], status["audiences"]) == (True, ["vault"])
    request["spec"] = {"expirationSeconds": 5}
    told = target.ask("POST", f"{accounts}/robot/token", request)
    assert (told.status, told.doc["reason"]) == (422, "Invalid")
    assert target.ask("POST", f"{accounts}/nobody/token", request).status == 404


def test_reviews_of_others(target: Any, ns: str, user: str) -> None:
    grant(target, ns, "view", user=user)
    attributes = {"verb": "list", "resource": "pods", "namespace": ns}
    path = "/apis/authorization.k8s.io/v1"
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {"user": user, "resourceAttributes": attributes}}  # fmt: skip
    target.until(lambda: target.ask("POST", f"{path}/subjectaccessreviews", body).doc["status"]["allowed"])
    body["spec"]["resourceAttributes"] = {**attributes, "verb": "delete"}
    told = target.ask("POST", f"{path}/subjectaccessreviews", body).doc["status"]
    assert not told["allowed"]
    local = {**body, "kind": "LocalSubjectAccessReview"}
    told = target.ask("POST", f"{path}/namespaces/{ns}/localsubjectaccessreviews", local)
    assert (told.status, told.doc["status"]["allowed"]) == (201, False)
    body["spec"] = {"user": user, "nonResourceAttributes": {"verb": "get", "path": "/version"}}
    assert not target.ask("POST", f"{path}/subjectaccessreviews", body).doc["status"]["allowed"]  # names no groups
    rules = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": ns}}
    told = target.ask("POST", f"{path}/selfsubjectrulesreviews", rules, headers={"Impersonate-User": user})
    assert told.status == 201
    assert any("pods" in each["resources"] for each in told.doc["status"]["resourceRules"])
    assert told.doc["status"]["incomplete"] is False


def test_a_token_ends_with_what_it_is_bound_to(target: Any, ns: str) -> None:
    secrets_path, accounts = f"/api/v1/namespaces/{ns}/secrets", f"/api/v1/namespaces/{ns}/serviceaccounts"
    target.ask("POST", accounts, {"metadata": {"name": "robot"}})
    target.ask("POST", secrets_path, {"metadata": {"name": "s"}})
    to = {"apiVersion": "v1", "kind": "Secret", "name": "s"}
    told = target.ask("POST", f"{accounts}/robot/token", {"spec": {"audiences": [], "boundObjectRef": to}})
    assert told.status == 201, told.doc
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    ask = ("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
    token = told.doc["status"]["token"]
    assert target.ask(*ask, token=token).status == 201
    target.ask("DELETE", f"{secrets_path}/s")
    target.until(lambda: target.ask(*ask, token=token).status == 401)
    to["name"] = "none"
    assert target.ask("POST", f"{accounts}/robot/token", {"spec": {"boundObjectRef": to}}).status in (404, 422)
