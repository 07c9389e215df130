"""CEL: rules in CRDs, admission policies, and the conditions of webhooks, in rules as people write them."""

import json
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest

Doc = dict[str, Any]
CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
MAPS = "/api/v1/namespaces/{ns}/configmaps"
MERGE = "application/merge-patch+json"
TEXT: Doc = {"type": "string", "maxLength": 253}
NUMBER: Doc = {"type": "integer", "format": "int32"}


def of(*rules: Doc, **properties: Doc) -> Doc:
    return {"type": "object", "properties": properties, **({"x-kubernetes-validations": list(rules)} if rules else {})}


def listed(items: Doc, *rules: Doc, most: int = 16, keys: list[str] | None = None) -> Doc:
    kind = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys} if keys else {}
    more = {"x-kubernetes-validations": list(rules)} if rules else {}
    return {"type": "array", "maxItems": most, "items": items, **kind, **more}


def fixed(schema: Doc) -> Doc:
    return {**schema, "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "it is immutable"}]}


LISTENER = of(
    {"rule": "self.protocol in ['HTTP', 'TCP'] ? !has(self.tls) : true", "message": "tls is for HTTPS and TLS only"},
    {"rule": "self.protocol == 'HTTPS' ? has(self.tls) && size(self.tls.certificates) > 0 : true",
     "messageExpression": "'listener ' + self.name + ' needs a certificate'", "reason": "FieldValueRequired",
     "fieldPath": ".tls"},
    name=TEXT, port={**NUMBER, "minimum": 1, "maximum": 65535}, hostname=TEXT, protocol=TEXT,
    tls=of(certificates=listed(TEXT, most=8)),
)  # fmt: skip
LISTENER["required"] = ["name", "port", "protocol"]
GATEWAY = of(
    {"rule": "!has(self.minReplicas) || !has(self.maxReplicas) || self.minReplicas <= self.maxReplicas",
     "message": "minReplicas must not be more than maxReplicas"},
    {"rule": "!has(oldSelf.secretName) || has(self.secretName)", "message": "secretName can't be taken away"},
    className=fixed(TEXT), secretName=fixed(TEXT), minReplicas=NUMBER, maxReplicas=NUMBER,
    listeners=listed(
        LISTENER,
        {"rule": "self.all(l1, self.exists_one(l2, l1.port == l2.port && l1.protocol == l2.protocol && "
                 "(has(l1.hostname) && has(l2.hostname) ? l1.hostname == l2.hostname : "
                 "!has(l1.hostname) && !has(l2.hostname))))",
         "message": "port, protocol and hostname must be unique together"},
        keys=["name"],
    ),
    volumes=listed(
        {**of({"rule": "quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0", "message": "it can only grow"},
              name=TEXT, size={**TEXT, "maxLength": 20}), "required": ["name", "size"]},
        keys=["name"],
    ),
    duration={"type": "string", "format": "duration", "x-kubernetes-validations": [
        {"rule": "self >= duration('1h')", "message": "at least an hour"}]},
    addresses=listed({**TEXT, "maxLength": 45, "x-kubernetes-validations": [{"rule": "isIP(self)"}]}),
    target={"x-kubernetes-int-or-string": True, "x-kubernetes-validations": [
        {"rule": "type(self) == int ? self > 0 : self.matches('^[0-9]+%$')", "message": "a number or a percentage"}]},
    kind=TEXT, issuer=TEXT, **{"max-age": NUMBER, "namespace": TEXT},
)  # fmt: skip
GATEWAY["x-kubernetes-validations"] += [
    {"rule": "has(self.kind) == has(self.issuer)", "message": "kind and issuer go together"},
    {"rule": "!has(self.max__dash__age) || self.max__dash__age > 0", "message": "max-age must be positive"},
    {"rule": "!has(self.__namespace__) || self.__namespace__ != 'kube-system'", "reason": "FieldValueForbidden",
     "message": "not there"},
]  # fmt: skip
STATUS = of({"rule": "self.ready <= self.total", "message": "no more ready than there are"}, ready=NUMBER, total=NUMBER)


def crd(group: str, spec: Doc) -> Doc:
    schema = of(
        {"rule": "self.metadata.name.size() <= 40", "message": "the name is too long"}, spec=spec, status=STATUS
    )
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema},
               "subresources": {"status": {}}}  # fmt: skip
    names = {"plural": "gates", "singular": "gate", "kind": "Gate", "listKind": "GateList"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": f"gates.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [version]},
    }  # fmt: skip


@pytest.fixture(scope="module")
def group(target: Any) -> Iterator[str]:
    name = f"cel{secrets.token_hex(4)}.conformance.hotvirt.io"
    told = target.ask("POST", CRD, crd(name, GATEWAY))
    assert told.status == 201, told.doc
    target.until(lambda: target.ask("GET", f"/apis/{name}/v1/gates").status == 200)
    yield name
    target.ask("DELETE", f"{CRD}/gates.{name}")


@pytest.fixture
def gate(group: str) -> Callable[..., Doc]:
    def make(name: str = "a", **spec: Any) -> Doc:
        return {"apiVersion": f"{group}/v1", "kind": "Gate", "metadata": {"name": name}, "spec": spec}

    return make


def http(name: str, port: int = 80, **more: Any) -> Doc:
    return {"name": name, "port": port, "protocol": "HTTP", **more}


# -- rules about objects


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ({"listeners": [http("a"), http("b", 81), http("c", hostname="x.com"), http("d", hostname="y.com")]}, None),
        ({"listeners": [http("a"), http("b")]}, ("FieldValueInvalid", "spec.listeners")),
        ({"listeners": [http("a"), http("b", 81, tls={})]}, ("FieldValueInvalid", "spec.listeners[1]")),
        ({"listeners": [{**http("a"), "protocol": "HTTPS"}]}, ("FieldValueRequired", "spec.listeners[0].tls")),
        ({"listeners": [{**http("a"), "protocol": "HTTPS", "tls": {"certificates": ["x"]}}]}, None),
        ({"minReplicas": 2, "maxReplicas": 1}, ("FieldValueInvalid", "spec")),
        ({"minReplicas": 1, "maxReplicas": 1, "duration": "90m"}, None),
        ({"duration": "59m59s"}, ("FieldValueInvalid", "spec.duration")),
        ({"addresses": ["10.0.0.1", "::1"]}, None),
        ({"addresses": ["10.0.0.1", "10.0.0"]}, ("FieldValueInvalid", "spec.addresses[1]")),
        ({"target": 3}, None), ({"target": "30%"}, None), ({"target": 0}, ("FieldValueInvalid", "spec.target")),
        ({"target": "many"}, ("FieldValueInvalid", "spec.target")),
        ({"kind": "Issuer"}, ("FieldValueInvalid", "spec")), ({"max-age": 0}, ("FieldValueInvalid", "spec")),
        ({"namespace": "kube-system"}, ("FieldValueForbidden", "spec")), ({"namespace": "x", "max-age": 1}, None),
    ],
    ids=str,
)  # fmt: skip
def test_rules_about_values(target: Any, ns: str, gate: Any, group: str, spec: Doc, fault: tuple[str, str]) -> None:
    told = target.ask("POST", f"/apis/{group}/v1/namespaces/{ns}/gates", gate(**spec), dryRun="All")
    if fault is None:
        assert told.status == 201, told.doc
    else:
        assert (told.status, told.doc["reason"]) == (422, "Invalid"), told.doc
        assert told.causes == {fault}


def test_faults_as_a_person_sees_them(client: Any, ns: str, gate: Any, refused: type[Any]) -> None:
    with pytest.raises(refused) as told:
        client.create(gate(minReplicas=2, maxReplicas=1, listeners=[{**http("a"), "protocol": "HTTPS"}]), ns)
    assert told.value.reason == "Invalid"
    for words in ("spec: Invalid value: minReplicas must not be more than maxReplicas",
                  "spec.listeners[0].tls: Required value: listener a needs a certificate"):  # fmt: skip
        assert words in told.value.message
    client.create(gate(minReplicas=1, maxReplicas=2), ns)


def test_a_rule_about_the_whole_object(target: Any, ns: str, gate: Any, group: str) -> None:
    told = target.ask("POST", f"/apis/{group}/v1/namespaces/{ns}/gates", gate("a" * 41))
    assert told.status == 422
    assert "the name is too long" in told.doc["message"]


def test_what_is_wrong_in_shape_is_said_first(target: Any, ns: str, gate: Any, group: str) -> None:
    bad = gate(minReplicas="2", maxReplicas=1, listeners=[{"name": "a"}])
    told = target.ask("POST", f"/apis/{group}/v1/namespaces/{ns}/gates", bad)
    fields = {field for _, field in told.causes}
    assert {"spec.minReplicas", "spec.listeners[0].port", "spec.listeners[0].protocol"} <= fields
    assert "some validation rules were not checked" in told.doc["message"]
    assert "minReplicas must not be more" not in told.doc["message"]


# -- rules about changes


def test_immutable_fields(client: Any, target: Any, ns: str, gate: Any, group: str, refused: type[Any]) -> None:
    made = client.create(gate(className="x"), ns)
    for changed in ({"className": "y"}, {"className": "x", "secretName": "s"}):
        wanted = {**made, "spec": changed}
        if changed["className"] == "x":
            made = client.replace(wanted, ns)
            continue
        with pytest.raises(refused, match="it is immutable"):
            client.replace(wanted, ns)
    with pytest.raises(refused, match="secretName can't be taken away"):
        client.replace({**made, "spec": {"className": "x"}}, ns)
    with pytest.raises(refused, match="it is immutable"):
        client.apply(gate(className="y"), ns, manager="me", force=True)
    path = f"/apis/{group}/v1/namespaces/{ns}/gates/a"
    told = target.ask("PATCH", path, {"spec": {"className": "z"}}, kind=MERGE)
    assert (told.status, told.causes) == (422, {("FieldValueInvalid", "spec.className")})
    client.apply(gate(className="x", secretName="s", minReplicas=1), ns, manager="me", force=True)


def test_items_of_a_list_are_known_by_their_keys(target: Any, ns: str, gate: Any, group: str) -> None:
    path = f"/apis/{group}/v1/namespaces/{ns}/gates"
    sizes = [{"name": "a", "size": "1Gi"}, {"name": "b", "size": "512Mi"}]
    assert target.ask("POST", path, gate(volumes=sizes)).status == 201
    moved = [{"name": "c", "size": "1Mi"}, {"name": "b", "size": "0.5Gi"}, {"name": "a", "size": "1025Mi"}]
    assert target.ask("PATCH", f"{path}/a", {"spec": {"volumes": moved}}, kind=MERGE).status == 200
    less = [{"name": "a", "size": "1025Mi"}, {"name": "b", "size": "511Mi"}]
    told = target.ask("PATCH", f"{path}/a", {"spec": {"volumes": less}}, kind=MERGE)
    assert (told.status, told.causes) == (422, {("FieldValueInvalid", "spec.volumes[1]")})


def test_rules_about_the_status(target: Any, ns: str, gate: Any, group: str) -> None:
    path = f"/apis/{group}/v1/namespaces/{ns}/gates"
    assert target.ask("POST", path, gate()).status == 201
    status = f"{path}/a/status"
    assert target.ask("PATCH", status, {"status": {"ready": 1, "total": 2}}, kind=MERGE).status == 200
    told = target.ask("PATCH", status, {"status": {"ready": 3, "total": 2}}, kind=MERGE)
    assert (told.status, told.causes) == (422, {("FieldValueInvalid", "status")})


# -- definitions


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ({"rule": "self.nobody == 1"}, "rule"), ({"rule": "self.minReplicas == 'x'"}, "rule"), ({"rule": ""}, "rule"),
        ({"rule": "self.minReplicas"}, "rule"), ({"rule": "self.minReplicas >"}, "rule"),
        ({"rule": "true", "messageExpression": "self.minReplicas"}, "messageExpression"),
        ({"rule": "true", "reason": "Because"}, "reason"), ({"rule": "true", "fieldPath": ".nobody"}, "fieldPath"),
        ({"rule": "true", "optionalOldSelf": True}, "optionalOldSelf"), ({"rule": "true", "message": " "}, "message"),
    ],
    ids=str,
)  # fmt: skip
def test_definitions_with_rules_that_make_no_sense(target: Any, rule: Doc, field: str) -> None:
    name = f"cel{secrets.token_hex(4)}.conformance.hotvirt.io"
    told = target.ask("POST", CRD, crd(name, of(rule, minReplicas=NUMBER)), dryRun="All")
    assert (told.status, told.doc["reason"]) == (422, "Invalid"), told.doc
    at = "spec.versions[0].schema.openAPIV3Schema.properties[spec].x-kubernetes-validations[0]"
    if target.differs("kube-apiserver names a single version's schema by the older path, spec.validation"):
        assert {where for _, where in told.causes} == {f"{at}.{field}"}
    assert all(where.endswith(f"x-kubernetes-validations[0].{field}") for _, where in told.causes), told.causes


def test_an_old_value_that_can_not_be_found(target: Any) -> None:
    name = f"cel{secrets.token_hex(4)}.conformance.hotvirt.io"
    told = target.ask("POST", CRD, crd(name, of(l=listed(of(x=fixed(NUMBER))))), dryRun="All")
    assert told.status == 422
    assert "oldSelf cannot be used on the uncorrelatable portion of the schema" in told.doc["message"]


def test_a_rule_that_comes_later_spares_what_is_there(target: Any, ns: str) -> None:
    name = f"cel{secrets.token_hex(4)}.conformance.hotvirt.io"
    definition = f"{CRD}/gates.{name}"
    path = f"/apis/{name}/v1/namespaces/{ns}/gates"
    assert target.ask("POST", CRD, crd(name, of(a=NUMBER, b=NUMBER))).status == 201
    try:
        target.until(lambda: target.ask("GET", path).status == 200)
        obj = {"apiVersion": f"{name}/v1", "kind": "Gate", "metadata": {"name": "a"}, "spec": {"a": 1, "b": 1}}
        assert target.ask("POST", path, obj).status == 201
        strict = {**NUMBER, "x-kubernetes-validations": [{"rule": "self > 5"}]}
        current = target.ask("GET", definition).doc
        current["spec"]["versions"] = crd(name, of(a=strict, b=NUMBER))["spec"]["versions"]
        assert target.ask("PUT", definition, current).status == 200
        target.until(lambda: target.ask("POST", path, {**obj, "metadata": {"name": "x"}}, dryRun="All").status == 422)
        assert target.ask("PATCH", f"{path}/a", {"spec": {"b": 2}}, kind=MERGE).status == 200
        assert target.ask("PATCH", f"{path}/a", {"spec": {"a": 2}}, kind=MERGE).status == 422
        assert target.ask("PATCH", f"{path}/a", {"spec": {"a": 6}}, kind=MERGE).status == 200
    finally:
        target.ask("DELETE", definition)


def test_a_rule_that_costs_too_much_does_no_harm(target: Any, ns: str) -> None:
    """A kube-apiserver refuses such a CRD; ours the objects that would make the rule expensive."""
    name = f"cel{secrets.token_hex(4)}.conformance.hotvirt.io"
    numbers = {"type": "array", "items": NUMBER, "x-kubernetes-validations": [
        {"rule": "self.all(a, self.all(b, self.all(c, self.all(d, a + b + c + d >= 0))))"}]}  # fmt: skip
    told = target.ask("POST", CRD, crd(name, of(l=numbers)))
    if not target.differs("it estimates costs when the CRD is written, without an object to look at"):
        assert (told.status, told.doc["reason"]) == (422, "Invalid")
        return
    assert told.status == 201
    try:
        path = f"/apis/{name}/v1/namespaces/{ns}/gates"
        obj = {"apiVersion": f"{name}/v1", "kind": "Gate", "metadata": {"name": "a"}, "spec": {"l": [1, 2, 3]}}
        assert target.ask("POST", path, obj, dryRun="All").status == 201
        told = target.ask("POST", path, {**obj, "spec": {"l": list(range(10_000))}}, dryRun="All")
        assert (told.status, told.causes) == (422, {("FieldValueInvalid", "spec.l")})
        assert "no further validation rules will be run due to call cost exceeds limit" in told.doc["message"]
    finally:
        target.ask("DELETE", f"{CRD}/gates.{name}")


# -- policies


def config(name: str, **data: str) -> Doc:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, **({"data": data} if data else {})}


@pytest.fixture
def policy(target: Any, ns: str) -> Iterator[Callable[..., str]]:
    """Makes a policy about ConfigMaps of the case's namespace, and a binding; gives its name. Both go after."""
    made: list[str] = []

    def make(*validations: Doc, actions: tuple[str, ...] = ("Deny",), reference: Doc | None = None, **spec: Any) -> str:
        name = f"p{secrets.token_hex(4)}.conformance.hotvirt.io"
        rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
                "resources": ["configmaps"]}  # fmt: skip
        match = {"resourceRules": [rule], "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": ns}}}
        body: Doc = {"metadata": {"name": name},
                     "spec": {"matchConstraints": match, "validations": list(validations), **spec}}  # fmt: skip
        told = target.ask("POST", f"{ADMISSION}/validatingadmissionpolicies", body)
        assert told.status == 201, told.doc
        made.append(f"{ADMISSION}/validatingadmissionpolicies/{name}")
        body["spec"] = {"policyName": name, "validationActions": list(actions)}
        if reference:
            body["spec"]["paramRef"] = reference
        told = target.ask("POST", f"{ADMISSION}/validatingadmissionpolicybindings", body)
        assert told.status == 201, told.doc
        made.insert(0, f"{ADMISSION}/validatingadmissionpolicybindings/{name}")
        return name

    yield make
    for path in made:
        target.ask("DELETE", path)


def test_a_policy_denies(client: Any, target: Any, ns: str, policy: Any, refused: type[Any]) -> None:
    rule = {"expression": "object.data.all(k, size(object.data[k]) <= variables.most)",
            "messageExpression": "'values have at most %d characters'.format([variables.most])"}  # fmt: skip
    name = policy(
        rule, variables=[{"name": "most", "expression": "object.metadata.name.startsWith('big') ? 10 : 3"}]
    )  # fmt: skip
    path = MAPS.format(ns=ns)
    target.until(lambda: target.ask("POST", path, config("x", a="long"), dryRun="All").status == 422)
    with pytest.raises(refused) as told:
        client.create(config("a", a="long"), ns)
    said = f"ValidatingAdmissionPolicy '{name}' with binding '{name}' denied request: values have at most 3 characters"
    assert told.value.reason == "Invalid"
    assert said in told.value.message
    assert 'configmaps "a" is ' in told.value.message  # forbidden; kubectl says invalid, by the reason
    client.create(config("a", a="ok"), ns)
    client.create(config("big", a="long"), ns)
    with pytest.raises(refused, match="at most 10"):
        client.patch("configmaps", "big", ns, {"data": {"b": "much too long"}})


def test_a_policy_with_params(target: Any, ns: str, policy: Any, widget: Callable[..., Doc]) -> None:
    """Of a custom kind: of built-in ones kube-apiserver finds none any more once a policy that used them is gone."""
    path, widgets = MAPS.format(ns=ns), f"/apis/conformance.hotvirt.io/v1/namespaces/{ns}/widgets"
    assert target.ask("POST", widgets, widget("limits", replicas=2)).status == 201
    expression = "size(object.data) <= params.spec.replicas"
    policy(
        {"expression": expression, "reason": "Forbidden"},
        paramKind={"apiVersion": "conformance.hotvirt.io/v1", "kind": "Widget"},
        reference={"name": "limits", "parameterNotFoundAction": "Deny"},
    )
    three = config("x", a="1", b="2", c="3")
    # Until a kube-apiserver has read the parameters it refuses with 422: there are none.
    told = target.until(lambda: (t := target.ask("POST", path, three, dryRun="All")).status == 403 and t)
    assert told.doc["reason"] == "Forbidden"
    assert f"failed expression: {expression}" in told.doc["message"]
    assert target.ask("POST", path, config("x", a="1", b="2"), dryRun="All").status == 201
    assert target.ask("PATCH", f"{widgets}/limits", {"spec": {"replicas": 3}}, kind=MERGE).status == 200
    target.until(lambda: target.ask("POST", path, three, dryRun="All").status == 201)


def test_a_policy_warns(target: Any, ns: str, policy: Any) -> None:
    name = policy({"expression": "has(object.data)", "message": "it is empty"}, actions=("Warn", "Audit"))
    path = MAPS.format(ns=ns)
    told = target.until(lambda: "Warning" in (t := target.ask("POST", path, config("x"), dryRun="All")).headers and t)
    said = f"Validation failed for ValidatingAdmissionPolicy '{name}' with binding '{name}': it is empty"
    assert (told.status, told.headers["Warning"]) == (201, f'299 - "{said}"')


def test_a_policy_with_conditions(target: Any, ns: str, policy: Any) -> None:
    conditions = [{"name": "not-free", "expression": "!object.metadata.name.startsWith('free')"},
                  {"name": "people", "expression": "!('system:nodes' in request.userInfo.groups)"}]  # fmt: skip
    policy({"expression": "object.data.missing == ''"}, matchConditions=conditions)
    path = MAPS.format(ns=ns)
    told = target.until(lambda: (t := target.ask("POST", path, config("x"), dryRun="All")).status != 201 and t)
    assert (told.status, told.doc["reason"]) == (422, "Invalid")
    assert "resulted in error: no such key: data" in told.doc["message"]
    assert target.ask("POST", path, config("free-x"), dryRun="All").status == 201


def test_policies_as_kubectl_shows_them(kubectl: Any, policy: Any) -> None:
    kubectl.needs(27, "explain of OpenAPI v3")
    name = policy({"expression": "true"}, {"expression": "true"}, paramKind={"apiVersion": "v1", "kind": "ConfigMap"},
                  reference={"name": "limits", "parameterNotFoundAction": "Allow"})  # fmt: skip
    head, row = kubectl("get", "validatingadmissionpolicies", name).splitlines()
    assert head.split() == ["NAME", "VALIDATIONS", "PARAMKIND", "AGE"]
    assert row.split()[:3] == [name, "2", "v1/ConfigMap"]
    head, row = kubectl("get", "validatingadmissionpolicybindings", name).splitlines()
    assert head.split() == ["NAME", "POLICYNAME", "PARAMREF", "AGE"]
    assert row.split()[1] == name
    assert "expression" in kubectl("explain", "validatingadmissionpolicy.spec.validations")
    names = kubectl("api-resources", "--api-group=admissionregistration.k8s.io", "-o", "name").split()
    assert "validatingadmissionpolicies.admissionregistration.k8s.io" in names


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"validations": [{"expression": "object.x =="}]}, "spec.validations[0].expression"),
        ({"validations": [{"expression": "nobody == 1"}]}, "spec.validations[0].expression"),
        ({"validations": [{"expression": "'text'"}]}, "spec.validations[0].expression"),
        ({"validations": [{"expression": "true", "messageExpression": "1"}]}, "spec.validations[0].messageExpression"),
        ({"validations": [{"expression": "true", "reason": "Because"}]}, "spec.validations[0].reason"),
        ({"variables": [{"name": "a", "expression": "variables.b"}]}, "spec.variables[0].expression"),
        ({"matchConditions": [{"name": "a", "expression": "1"}]}, "spec.matchConditions[0].expression"),
        ({"failurePolicy": "Maybe"}, "spec.failurePolicy"), ({"matchConstraints": None}, "spec.matchConstraints"),
    ],
    ids=str,
)  # fmt: skip
def test_policies_that_make_no_sense(target: Any, spec: Doc, field: str) -> None:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
    whole = {"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": "true"}], **spec}
    body = {"metadata": {"name": f"p{secrets.token_hex(4)}"}, "spec": whole}
    told = target.ask("POST", f"{ADMISSION}/validatingadmissionpolicies", body, dryRun="All")
    assert (told.status, told.doc["reason"]) == (422, "Invalid"), told.doc
    assert field in {where for _, where in told.causes}, told.causes


# -- conditions of webhooks


def test_a_webhook_is_asked_only_when_its_conditions_hold(target: Any, ns: str) -> None:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
    hook = {
        "name": "nobody.conformance.hotvirt.io", "clientConfig": {"url": "https://127.0.0.1:1/"}, "rules": [rule],
        "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 5,
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": ns}},
        "matchConditions": [{"name": "marked", "expression": "object.metadata.?labels.?asked.orValue('') == 'yes'"},
                            {"name": "creates", "expression": "request.operation == 'CREATE'"}],
    }  # fmt: skip
    body = {"metadata": {"name": f"conditional-{ns}"}, "webhooks": [hook]}
    hooks = f"{ADMISSION}/validatingwebhookconfigurations"
    told = target.ask("POST", hooks, body)
    assert told.status == 201, told.doc
    try:
        marked = config("x")
        marked["metadata"]["labels"] = {"asked": "yes"}
        path = MAPS.format(ns=ns)
        target.until(lambda: target.ask("POST", path, marked, dryRun="All").status == 500)  # nobody answers there
        assert target.ask("POST", path, config("x"), dryRun="All").status == 201
        hook["matchConditions"] = [{"name": "bad", "expression": "object.nowhere =="}]
        told = target.ask("POST", hooks, {**body, "metadata": {"name": f"bad-{ns}"}})
        assert told.status == 422
        assert "webhooks[0].matchConditions[0].expression" in {where for _, where in told.causes}
    finally:
        target.ask("DELETE", f"{hooks}/conditional-{ns}")


def test_clients_can_read_the_rules(target: Any, group: str, kubectl: Any) -> None:
    described = target.ask("GET", f"/openapi/v3/apis/{group}/v1").doc
    assert "minReplicas must not be more than maxReplicas" in json.dumps(described)
    kubectl.needs(27, "explain of a kind by its group")
    assert "className" in kubectl("explain", f"gates.{group}.spec")
