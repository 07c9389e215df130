"""ValidatingAdmissionPolicies: what they are asked about, what they deny and warn of, with which params."""

from typing import Any

import pytest

from hotvirt.kube.admission import User
from hotvirt.kube.errors import ApiError, Forbidden, Invalid
from hotvirt.kube.resources import CONFIG_MAPS, NAMESPACES, Resource
from hotvirt.server import policy_configs
from hotvirt.server.app import ApiServer
from hotvirt.server.calls import Call
from hotvirt.server.inprocess import LocalClient

GROUP = "admissionregistration.k8s.io"
POLICIES = Resource(GROUP, "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", namespaced=False)
BINDINGS = Resource(
    GROUP, "v1", "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", namespaced=False
)  # fmt: skip
WIDGETS = Resource("example.com", "v1", "widgets", "Widget")
OLD_WIDGETS = Resource("example.com", "v1alpha1", "widgets", "Widget")
ON_WIDGETS = {"operations": ["*"], "apiGroups": ["example.com"], "apiVersions": ["v1"], "resources": ["widgets"]}
Doc = dict[str, Any]


def policy(*expressions: str | Doc, name: str = "p", rules: list[Doc] | None = None, **spec: Any) -> Doc:
    validations = [{"expression": each} if isinstance(each, str) else each for each in expressions]
    match = {"resourceRules": rules or [ON_WIDGETS], **spec.pop("match", {})}
    return {
        "apiVersion": f"{GROUP}/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
        "spec": {"matchConstraints": match, "validations": validations, **spec},
    }  # fmt: skip


def binding(name: str = "b", *actions: str, policy: str = "p", **spec: Any) -> Doc:
    return {
        "apiVersion": f"{GROUP}/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name},
        "spec": {"policyName": policy, "validationActions": list(actions or ("Deny",)), **spec},
    }  # fmt: skip


def widget(name: str = "a", *, labels: Doc | None = None, version: str = "v1", **spec: Any) -> Doc:
    meta = {"name": name, "labels": labels or {}}
    return {"apiVersion": f"example.com/{version}", "kind": "Widget", "metadata": meta, "spec": spec}


async def bind(client: LocalClient, made: Doc, *bindings: Doc) -> None:
    await client.create(POLICIES, made)
    for each in bindings or (binding(),):
        await client.create(BINDINGS, each)


async def refusal(client: LocalClient, doc: Doc, namespace: str = "default") -> ApiError | None:
    try:
        await client.create(WIDGETS, doc, namespace, dry_run=True)
    except ApiError as error:
        return error
    return None


async def denied(client: LocalClient, doc: Doc, namespace: str = "default") -> str:
    """What the first that denies says; "" when none does."""
    error = await refusal(client, doc, namespace)
    return error.message.partition("denied request: ")[2] if error else ""


async def test_a_denial_in_kubernetes_words(client: LocalClient) -> None:
    await client.create(POLICIES, policy("object.spec.replicas <= 5"))
    assert await denied(client, widget(replicas=9)) == ""  # nothing binds it yet
    await client.create(BINDINGS, binding())
    assert await denied(client, widget(replicas=5)) == ""
    error = await refusal(client, widget(replicas=9))
    assert isinstance(error, Invalid)
    said = "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: failed expression: object.spec.replicas <= 5"
    assert error.message == f'widgets.example.com "a" is forbidden: {said}'
    status = error.to_status()
    assert (status["code"], status["reason"]) == (422, "Invalid")
    assert status["details"] == {"name": "a", "group": "example.com", "kind": "widgets",
                                 "causes": [{"reason": "", "message": said}]}  # fmt: skip
    await client.delete(BINDINGS, "b")
    assert await denied(client, widget(replicas=9)) == ""


async def test_messages_and_reasons(client: LocalClient) -> None:
    rules: list[Doc] = [
        {"expression": "object.spec.?color != optional.of('red')", "message": " not red ", "reason": "Forbidden"},
        {"expression": "object.spec.replicas != 2", "messageExpression": "'not ' + string(object.spec.replicas)"},
        {"expression": "object.spec.replicas != 3", "messageExpression": "object.spec.missing", "message": "no three"},
        {"expression": "object.spec.replicas != 4", "messageExpression": "''"},
    ]
    await bind(client, policy(*rules))
    assert await denied(client, widget()) == ""
    error = await refusal(client, widget(color="red"))
    assert isinstance(error, Forbidden)
    assert (error.code, error.message.partition("request: ")[2]) == (403, "not red")
    assert await denied(client, widget(replicas=2)) == "not 2"
    assert await denied(client, widget(replicas=3)) == "no three"
    assert await denied(client, widget(replicas=4)) == "failed expression: object.spec.replicas != 4"


async def test_warnings_and_audits_let_it_pass(client: LocalClient) -> None:
    await bind(client, policy("object.spec.replicas <= 5"), binding("warn", "Warn", "Audit"), binding("audit", "Audit"))
    call = client._call("create", WIDGETS, "default")
    await client._verbs.create(call, widget(replicas=9))
    said = "Validation failed for ValidatingAdmissionPolicy 'p' with binding 'warn': "
    assert call.warnings == [f"{said}failed expression: object.spec.replicas <= 5"]


async def test_variables_are_found_when_they_are_read(client: LocalClient) -> None:
    variables = [
        {"name": "many", "expression": "object.spec.replicas > 5"},
        {"name": "broken", "expression": "object.spec.missing"},
        {"name": "limit", "expression": "variables.many ? 7 : 3"},
        {"name": "names", "expression": "[object.metadata.name].map(n, n + '!')"},
    ]
    await bind(client, policy(
        "object.spec.replicas <= variables.limit", "variables.names == ['a!']",
        "object.spec.replicas != 1 || variables.broken == 1", variables=variables,
    ))  # fmt: skip
    assert await denied(client, widget(replicas=7)) == ""
    assert await denied(client, widget(replicas=8)) == "failed expression: object.spec.replicas <= variables.limit"
    assert await denied(client, widget("b", replicas=2)) == "failed expression: variables.names == ['a!']"
    assert await denied(client, widget(replicas=1)) == (
        "expression 'object.spec.replicas != 1 || variables.broken == 1' resulted in error: composited variable "
        '"broken" fails to evaluate: no such key: missing'
    )


async def test_what_is_known_of_a_write(client: LocalClient) -> None:
    await client.create(NAMESPACES, {"metadata": {"name": "prod", "labels": {"env": "prod"}}})
    conditions = [{"name": "only-prod", "expression": "namespaceObject.metadata.labels.env == 'prod'"}]
    await bind(client, policy(
        "request.operation != 'UPDATE' || oldObject.spec.replicas <= object.spec.replicas",
        "request.operation != 'DELETE' || (object == null && oldObject.metadata.name != 'kept')",
        "request.kind.kind == 'Widget' && request.resource.version == 'v1' && request.namespace == 'prod'",
        "request.userInfo.username == 'system:apiserver' && request.dryRun in [true, false]",
        "namespaceObject.status.phase == 'Active' && namespaceObject.metadata.creationTimestamp.getFullYear() > 2000",
        matchConditions=conditions, failurePolicy="Ignore",
    ))  # fmt: skip
    await client.create(WIDGETS, widget("kept", replicas=3), "default")
    await client.delete(WIDGETS, "kept", "default")
    await client.create(WIDGETS, widget("kept", replicas=3), "prod")
    with pytest.raises(Invalid, match=r"oldObject\.spec\.replicas <="):
        await client.patch(WIDGETS, "kept", {"spec": {"replicas": 2}}, "prod")
    await client.patch(WIDGETS, "kept", {"spec": {"replicas": 4}}, "prod")
    with pytest.raises(Invalid, match=r"oldObject\.metadata\.name"):
        await client.delete(WIDGETS, "kept", "prod")
    old = {**widget("kept", replicas=5, version="v1alpha1")}  # an equivalent version is asked about as v1
    await client.update(OLD_WIDGETS, {**await client.get(OLD_WIDGETS, "kept", "prod"), "spec": old["spec"]})


async def test_what_can_not_be_evaluated_follows_the_failure_policy(client: LocalClient) -> None:
    await bind(client, policy("object.spec.size > 1"))
    assert await denied(client, widget()) == "expression 'object.spec.size > 1' resulted in error: no such key: size"
    await client.patch(POLICIES, "p", {"spec": {"failurePolicy": "Ignore"}})
    assert await denied(client, widget()) == ""
    await client.patch(POLICIES, "p", {"spec": {"failurePolicy": "Fail", "validations": [{"expression": "true"}],
                       "auditAnnotations": [{"key": "k", "valueExpression": "string(object.spec.size)"}]}})  # fmt: skip
    assert "string(object.spec.size)" in await denied(client, widget())
    conditions = [{"name": "a", "expression": "object.spec.size > 1"}]
    await client.patch(POLICIES, "p", {"spec": {"auditAnnotations": None, "matchConditions": conditions}})
    assert await denied(client, widget()) == "expression 'object.spec.size > 1' resulted in error: no such key: size"


async def test_a_policy_that_got_too_costly_for_the_object(client: LocalClient) -> None:
    await bind(client, policy("object.metadata.labels.all(a, object.metadata.labels.all(b, "
                              "object.metadata.labels.all(c, a != 'x' + b + c)))"))  # fmt: skip
    assert await denied(client, widget(labels={"a": "b"})) == ""
    many = {f"label-{i}": "x" for i in range(300)}
    assert "actual cost limit exceeded" in await denied(client, widget(labels=many))


LIMITS = {"apiVersion": "v1", "kind": "ConfigMap"}


def limit(name: str, most: int, **labels: str) -> Doc:
    return {"metadata": {"name": name, "labels": labels}, "data": {"most": str(most)}}


async def test_params_by_name_and_by_labels(client: LocalClient) -> None:
    await client.create(CONFIG_MAPS, limit("small", 3), "default")
    reference = {"name": "small", "parameterNotFoundAction": "Deny"}
    most = policy("object.spec.replicas <= int(params.data.most)", paramKind=LIMITS)
    await bind(client, most, binding(paramRef=reference))
    assert await denied(client, widget(replicas=3)) == ""
    assert "params.data.most" in await denied(client, widget(replicas=4))
    await client.patch(CONFIG_MAPS, "small", {"data": {"most": "8"}}, "default")
    assert await denied(client, widget(replicas=4)) == ""
    await client.create(NAMESPACES, {"metadata": {"name": "other"}})
    none = "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"
    assert await denied(client, widget(), "other") == none
    await client.patch(BINDINGS, "b", {"spec": {"paramRef": {**reference, "parameterNotFoundAction": "Allow"}}})
    assert await denied(client, widget(replicas=99), "other") == ""
    await client.patch(BINDINGS, "b", {"spec": {"paramRef": {**reference, "namespace": "default"}}})
    assert "params.data.most" in await denied(client, widget(replicas=99), "other")
    await client.create(CONFIG_MAPS, limit("one", 50, limits="yes"), "default")
    await client.create(CONFIG_MAPS, limit("two", 60, limits="yes"), "default")
    chosen = {"selector": {"matchLabels": {"limits": "yes"}}, "parameterNotFoundAction": "Deny"}
    await client.update(BINDINGS, {**await client.get(BINDINGS, "b"), "spec": binding(paramRef=chosen)["spec"]})
    assert await denied(client, widget(replicas=50)) == ""
    assert "params.data.most" in await denied(client, widget(replicas=55))  # every one of them must be satisfied


async def test_params_that_can_not_be_had(client: LocalClient) -> None:
    kind = {"apiVersion": "rules.example.com/v1", "kind": "Limit"}
    by_name = {"name": "x", "parameterNotFoundAction": "Allow"}
    await bind(client, policy("params == null || params.x == 1", paramKind=kind), binding(paramRef=by_name))
    assert await denied(client, widget()) == (
        "failed to configure binding: failed to find resource referenced by paramKind: 'rules.example.com/v1, "
        "Kind=Limit'"
    )
    await client.patch(BINDINGS, "b", {"spec": {"paramRef": None}})
    assert await denied(client, widget()) == ""


async def test_which_writes_a_policy_is_about(client: LocalClient) -> None:
    named = {**ON_WIDGETS, "resourceNames": ["special"]}
    match = {"excludeResourceRules": [named], "objectSelector": {"matchLabels": {"watched": "yes"}}}
    await bind(client, policy("false", match=match), binding(matchResources={
        "namespaceSelector": {"matchLabels": {"env": "prod"}},
        "resourceRules": [{**ON_WIDGETS, "operations": ["CREATE"]}],
    }))  # fmt: skip
    await client.create(NAMESPACES, {"metadata": {"name": "prod", "labels": {"env": "prod"}}})
    yes = {"watched": "yes"}
    assert await denied(client, widget(labels=yes), "prod") == "failed expression: false"
    assert await denied(client, widget("special", labels=yes), "prod") == ""
    assert await denied(client, widget(), "prod") == ""
    assert await denied(client, widget(labels=yes)) == ""
    await client.create(WIDGETS, widget(), "prod")
    await client.patch(WIDGETS, "a", {"metadata": {"labels": yes}}, "prod")  # updates are not for this binding


async def test_policies_have_no_say_in_policies(client: LocalClient) -> None:
    every = {"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}
    await bind(client, policy("false", rules=[every]))
    with pytest.raises(Invalid, match="denied request"):
        await client.create(NAMESPACES, {"metadata": {"name": "n"}})
    await client.delete(BINDINGS, "b")
    await client.delete(POLICIES, "p")
    await client.create(NAMESPACES, {"metadata": {"name": "n"}})


async def test_a_policy_is_completed(client: LocalClient) -> None:
    made = await client.create(POLICIES, policy("true"))
    assert made["spec"]["failurePolicy"] == "Fail"
    assert made["spec"]["matchConstraints"] == {
        "matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {},
        "resourceRules": [{**ON_WIDGETS, "scope": "*"}],
    }  # fmt: skip
    assert made["status"] == {"observedGeneration": 1, "typeChecking": {}}
    changed = await client.patch(POLICIES, "p", {"spec": {"failurePolicy": "Ignore"}})
    assert (changed["metadata"]["generation"], changed["status"]["observedGeneration"]) == (2, 2)


WRONG: list[tuple[Doc, list[str]]] = [
    (policy("object.x ==")["spec"], ["spec.validations[0].expression"]),
    (policy("request.who == 'me'", "params.x")["spec"], ["spec.validations[0].expression",
                                                        "spec.validations[1].expression"]),
    (policy({"expression": "true", "messageExpression": "1", "reason": "Because"})["spec"],
     ["spec.validations[0].messageExpression", "spec.validations[0].reason"]),
    (policy({"expression": "true\n&& true"})["spec"], ["spec.validations[0].message"]),
    (policy("variables.later", variables=[{"name": "a", "expression": "variables.b"}, {"name": "b", "expression": "1"},
                                          {"name": "1", "expression": "2"}])["spec"],
     ["spec.variables[0].expression", "spec.variables[2].name", "spec.validations[0].expression"]),
    (policy()["spec"], ["spec.validations", "spec.auditAnnotations"]),
    (policy("true", failurePolicy="Maybe", paramKind={"kind": "X"})["spec"],
     ["spec.failurePolicy", "spec.paramKind.apiVersion"]),
    (policy("true", rules=[{**ON_WIDGETS, "operations": []}])["spec"],
     ["spec.matchConstraints.resourceRules[0].operations"]),
    ({"validations": [{"expression": "true"}]}, ["spec.matchConstraints"]),
    (policy("true", matchConditions=[{"name": "a", "expression": "1"}])["spec"],
     ["spec.matchConditions[0].expression"]),
    (policy("true", auditAnnotations=[{"key": "", "valueExpression": "1"}])["spec"],
     ["spec.auditAnnotations[0].key", "spec.auditAnnotations[0].valueExpression"]),
    (policy("true", match={"objectSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}})["spec"],
     ["spec.matchConstraints.objectSelector"]),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "fields"), WRONG, ids=lambda value: str(value)[:60])
def test_policies_that_are_refused(spec: Doc, fields: list[str]) -> None:
    causes = policy_configs.check({**policy(), "spec": spec})
    assert sorted(cause.field for cause in causes) == sorted(fields), causes


@pytest.mark.parametrize(
    ("spec", "fields"),
    [({"policyName": ""}, ["spec.policyName"]), ({"validationActions": []}, ["spec.validationActions"]),
     ({"validationActions": ["Deny", "Warn"]}, ["spec.validationActions"]),
     ({"validationActions": ["Shout"]}, ["spec.validationActions[0]"]),
     ({"paramRef": {"name": "x"}}, ["spec.paramRef.parameterNotFoundAction"]),
     ({"paramRef": {"parameterNotFoundAction": "Deny"}}, ["spec.paramRef"]),
     ({"paramRef": {"name": "x", "selector": {}, "parameterNotFoundAction": "Perhaps"}},
      ["spec.paramRef.name", "spec.paramRef.parameterNotFoundAction"]),
     ({"matchResources": {"resourceRules": [{"operations": ["*"]}]}},
      [f"spec.matchResources.resourceRules[0].{key}" for key in ("apiGroups", "apiVersions", "resources")])],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_bindings_that_are_refused(spec: Doc, fields: list[str]) -> None:
    causes = policy_configs.check_binding({**binding(), "spec": {**binding()["spec"], **spec}})
    assert sorted(cause.field for cause in causes) == sorted(fields), causes


async def test_a_refusal_names_every_fault(client: LocalClient) -> None:
    with pytest.raises(Invalid, match="compilation failed") as told:
        await client.create(POLICIES, policy("object.x ==", failurePolicy="Maybe"))
    assert {cause.field for cause in told.value.causes} == {"spec.validations[0].expression", "spec.failurePolicy"}
    with pytest.raises(Invalid, match=r"spec\.validationActions\[0\]: Unsupported value"):
        await client.create(BINDINGS, binding("b", "Shout"))


async def test_one_that_can_not_be_read_denies_what_it_may_be_about(server: ApiServer, client: LocalClient) -> None:
    await bind(client, policy("true"))
    from hotvirt.server.keys import Key

    stored = await client.get(POLICIES, "p")
    stored["spec"]["validations"] = [{"expression": "nonsense("}]
    await server.store.put(Key(f"{GROUP}/validatingadmissionpolicies", "", "p"), stored)
    error = await refusal(client, widget())
    assert error is not None
    assert "failed to configure policy: it can't be read, write it anew" in error.message
    await client.create(NAMESPACES, {"metadata": {"name": "others"}})  # which it is not about
    await client.delete(POLICIES, "p")
    assert await refusal(client, widget()) is None


async def test_what_the_writer_may_do_can_be_asked(server: ApiServer, client: LocalClient) -> None:
    roles = Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False)
    bindings = Resource(
        "rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False
    )
    rules = [{"apiGroups": ["example.com"], "resources": ["widgets", "widgets/paint"], "verbs": ["create", "update"]},
             {"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]  # fmt: skip
    await client.create(roles, {"metadata": {"name": "r"}, "rules": rules})
    subjects = [{"kind": "User", "name": "ann"}, {"kind": "ServiceAccount", "namespace": "default", "name": "robot"}]
    await client.create(bindings, {"metadata": {"name": "r"}, "roleRef": {"kind": "ClusterRole", "name": "r"},
                                   "subjects": subjects})  # fmt: skip
    await bind(client, policy(
        "authorizer.group('example.com').resource('widgets').subresource('paint').namespace('default').name('a')"
        ".check('update').allowed()",
        "authorizer.requestResource.check('create').allowed() && !authorizer.requestResource.check('delete').allowed()",
        "authorizer.path('/metrics').check('get').allowed() && !authorizer.path('/metrics').check('put').allowed()",
        "authorizer.serviceAccount('default', 'robot').group('example.com').resource('widgets').check('create')"
        ".allowed() && variables.known",
        variables=[{"name": "known", "expression": "authorizer.path('/').check('get').reason() == ''"}],
    ))  # fmt: skip
    ann = server.client(User("ann", ("system:authenticated",)))
    await ann.create(WIDGETS, widget(), "default", dry_run=True)
    assert "check('delete')" in await denied(client, widget())  # the server itself may do everything


async def test_streams_into_pods_are_asked_about(client: LocalClient, server: ApiServer) -> None:
    on = {"operations": ["CONNECT"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/exec"]}
    rule = "request.name != 'db' || object.command[0] in ['ls', 'cat']"
    kind = "request.kind.kind == 'PodExecOptions' && request.operation == 'CONNECT' && request.subResource == 'exec'"
    await bind(client, policy({"expression": rule, "message": "look, but do not touch"}, kind, rules=[on]))

    async def connect(name: str, *command: str, subresource: str = "exec") -> str:
        served = server.registry.find("", "v1", "pods")
        assert served is not None
        call = Call(served=served, user=User("eve", ()), namespace="default", name=name, subresource=subresource)
        try:
            asked = {"apiVersion": "v1", "kind": "PodExecOptions", "container": "c", "command": list(command)}
            await server.verbs.connect(call, asked)
        except ApiError as error:
            return error.message
        return ""

    assert "look, but do not touch" in await connect("db", "rm", "-r", "/")
    assert await connect("db", "ls") == ""
    assert await connect("web", "rm") == ""
    assert await connect("db", "rm", subresource="attach") == ""
