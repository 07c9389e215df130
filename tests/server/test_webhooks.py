"""Webhooks that others run: a real one over HTTPS is asked about writes, changes them, refuses them, and fails."""

import base64
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from hotvirt.kube.admission import User
from hotvirt.kube.errors import ApiError, Forbidden, InternalError, Invalid, NotFound
from hotvirt.kube.resources import CONFIG_MAPS, NAMESPACES, Resource
from hotvirt.server.app import ApiServer
from hotvirt.server.calls import Call
from hotvirt.server.inprocess import LocalClient
from hotvirt.server.pki import Pki

pytestmark = pytest.mark.server

GROUP = "admissionregistration.k8s.io"
MUTATING = Resource(GROUP, "v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", namespaced=False)
VALIDATING = Resource(
    GROUP, "v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", namespaced=False
)
WIDGETS = Resource("example.com", "v1", "widgets", "Widget")
OLD_WIDGETS = Resource("example.com", "v1alpha1", "widgets", "Widget")
SERVICES = Resource("", "v1", "services", "Service")
ENDPOINTS = Resource("", "v1", "endpoints", "Endpoints")
ON_WIDGETS = {"operations": ["*"], "apiGroups": ["example.com"], "apiVersions": ["v1"], "resources": ["widgets"]}
Answer = dict[str, Any]
Decide = Callable[[dict[str, Any]], Answer]


def patched(*operations: dict[str, Any]) -> Answer:
    return {
        "allowed": True,
        "patchType": "JSONPatch",
        "patch": base64.b64encode(json.dumps(operations).encode()).decode(),
    }


def setting(path: str, value: Any) -> Answer:
    return patched({"op": "add", "path": path, "value": value})


class Hooks:
    """An HTTPS server with a webhook at each path of `decide`; `asked` has each request, and the path it came to."""

    def __init__(self, ca: str) -> None:
        self.ca, self.port = base64.b64encode(ca.encode()).decode(), 0
        self.decide: dict[str, Decide] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def handle(self, request: web.Request) -> web.Response:
        review = await request.json()
        assert (review["apiVersion"], review["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
        asked = review["request"]
        self.asked.append((request.path, asked))
        response = {"uid": asked["uid"], **self.decide[request.path](asked)}
        if "raw" in response:
            return web.Response(**response["raw"])
        return web.json_response({**review, "request": None, "response": response})

    def config(self, resource: Resource, *paths: str, name: str = "", **more: Any) -> dict[str, Any]:
        url = f"https://localhost:{self.port}"
        hooks = [
            {
                "name": f"{path[1:]}.hooks.example.com",
                "clientConfig": {"url": url + path, "caBundle": self.ca},
                "rules": [ON_WIDGETS],
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
                **more,
            }
            for path in paths
        ]
        meta = {"name": name or paths[0][1:]}
        return {"apiVersion": f"{GROUP}/v1", "kind": resource.kind, "metadata": meta, "webhooks": hooks}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ssl.SSLContext]:
    pki = Pki(tmp_path_factory.mktemp("hooks"))
    return pki.ca.read_text(), pki.server_context(("localhost", "hook.default.svc"))


@pytest.fixture
async def hooks(keys: tuple[str, ssl.SSLContext]) -> AsyncIterator[Hooks]:
    ca, context = keys
    made = Hooks(ca)
    application = web.Application()
    application.router.add_post("/{name}", made.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


def widget(name: str = "a", *, labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    meta = {"name": name, "labels": labels or {}}
    return {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": meta, "spec": spec}


# -- what a webhook is told, and what its answer does


async def test_a_mutating_webhook_changes_what_is_stored(client: LocalClient, hooks: Hooks) -> None:
    hooks.decide["/paint"] = lambda _: setting("/spec/color", "red")
    await client.create(MUTATING, hooks.config(MUTATING, "/paint"))
    made = await client.create(WIDGETS, widget(), "default")
    assert made["spec"] == {"color": "red", "replicas": 1}
    assert (await client.get(WIDGETS, "a", "default"))["spec"]["color"] == "red"
    path, asked = hooks.asked[0]
    assert path == "/paint"
    assert (asked["operation"], asked["namespace"], asked["name"]) == ("CREATE", "default", "a")
    assert asked["kind"] == asked["requestKind"] == {"group": "example.com", "version": "v1", "kind": "Widget"}
    assert asked["resource"] == {"group": "example.com", "version": "v1", "resource": "widgets"}
    assert asked["object"]["spec"] == {"replicas": 1}
    assert (asked["oldObject"], asked["dryRun"]) == (None, False)
    assert asked["userInfo"]["username"] == "system:apiserver"
    assert asked["options"] == {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"}


async def test_updates_and_deletions_are_asked_about_with_the_old_object(client: LocalClient, hooks: Hooks) -> None:
    hooks.decide["/see"] = lambda _: {"allowed": True}
    await client.create(WIDGETS, widget(), "default")
    await client.create(VALIDATING, hooks.config(VALIDATING, "/see"))
    await client.patch(WIDGETS, "a", {"spec": {"color": "red"}}, "default")
    await client.delete(WIDGETS, "a", "default")
    update, deletion = (asked for _, asked in hooks.asked)
    assert (update["operation"], deletion["operation"]) == ("UPDATE", "DELETE")
    assert (update["oldObject"]["spec"], update["object"]["spec"]) == ({"replicas": 1}, {"replicas": 1, "color": "red"})
    assert (deletion["object"], deletion["oldObject"]["spec"]["color"]) == (None, "red")


async def test_a_refusal_is_passed_on_and_nothing_is_stored(client: LocalClient, hooks: Hooks) -> None:
    hooks.decide["/no"] = lambda _: {
        "allowed": False,
        "status": {"code": 403, "reason": "Forbidden", "message": "ugly"},
    }
    await client.create(VALIDATING, hooks.config(VALIDATING, "/no"))
    with pytest.raises(Forbidden) as refusal:
        await client.create(WIDGETS, widget(), "default")
    assert refusal.value.message == 'admission webhook "no.hooks.example.com" denied the request: ugly'
    assert (await client.list(WIDGETS, "default"))["items"] == []
    await client.delete(VALIDATING, "no")  # is asked nobody about
    await client.create(WIDGETS, widget(), "default")


async def test_a_deletion_can_be_refused_by_either_kind(client: LocalClient, hooks: Hooks) -> None:
    await client.create(WIDGETS, widget(), "default")
    hooks.decide["/no"] = lambda _: {"allowed": False}
    for kind in (VALIDATING, MUTATING):
        await client.create(kind, hooks.config(kind, "/no"))
        with pytest.raises(Exception, match="denied the request without explanation") as refusal:
            await client.delete(WIDGETS, "a", "default")
        assert refusal.value.code == 400  # type: ignore[attr-defined]
        await client.delete(kind, "no")
    hooks.decide["/no"] = lambda _: setting("/spec/color", "red")
    await client.create(MUTATING, hooks.config(MUTATING, "/no"))
    with pytest.raises(InternalError, match="attempted to modify the object"):
        await client.delete(WIDGETS, "a", "default")


async def test_validating_webhooks_see_what_mutating_ones_left_and_warn(client: LocalClient, hooks: Hooks) -> None:
    hooks.decide["/paint"] = lambda _: setting("/spec/color", "red")
    hooks.decide["/see"] = lambda asked: {"allowed": True, "warnings": [f"{asked['object']['spec']['color']} is loud"]}
    await client.create(MUTATING, hooks.config(MUTATING, "/paint"))
    await client.create(VALIDATING, hooks.config(VALIDATING, "/see"))
    call = client._call("create", WIDGETS, "default")
    await client._verbs.create(call, widget())
    assert call.warnings == ["red is loud"]


async def test_what_a_webhook_makes_of_an_object_is_checked_like_any(client: LocalClient, hooks: Hooks) -> None:
    await client.create(MUTATING, hooks.config(MUTATING, "/bad"))
    hooks.decide["/bad"] = lambda _: setting("/spec/replicas", -1)
    with pytest.raises(Invalid, match=r"spec\.replicas"):
        await client.create(WIDGETS, widget(), "default")
    hooks.decide["/bad"] = lambda _: setting("/spec", "text")
    with pytest.raises(Invalid, match="spec"):
        await client.create(WIDGETS, widget(), "default")
    hooks.decide["/bad"] = lambda _: setting("/metadata/name", "b")
    with pytest.raises(InternalError, match=r"metadata\.name can't be changed"):
        await client.create(WIDGETS, widget(), "default")
    hooks.decide["/bad"] = lambda _: setting("/nowhere/at/all", 1)
    with pytest.raises(InternalError, match=r"bad\.hooks\.example\.com"):
        await client.create(WIDGETS, widget(), "default")
    hooks.decide["/bad"] = lambda _: setting("/spec/unknown", 1)
    assert "unknown" not in (await client.create(WIDGETS, widget(), "default"))["spec"]


async def test_a_status_write_changes_the_status_alone_whatever_a_webhook_does(
    client: LocalClient, hooks: Hooks
) -> None:
    made = await client.create(WIDGETS, widget(), "default")
    hooks.decide["/paint"] = lambda _: patched(
        {"op": "add", "path": "/spec/color", "value": "red"}, {"op": "add", "path": "/status/seen", "value": True}
    )
    rule = {**ON_WIDGETS, "resources": ["widgets/status"]}
    await client.create(MUTATING, hooks.config(MUTATING, "/paint", rules=[rule]))
    written = await client.update(WIDGETS, {**made, "status": {"phase": "Up"}}, subresource="status")
    assert (written["spec"], written["status"]) == ({"replicas": 1}, {"phase": "Up", "seen": True})
    assert [asked["subResource"] for _, asked in hooks.asked] == ["status"]
    await client.patch(WIDGETS, "a", {"spec": {"replicas": 2}}, "default")
    assert len(hooks.asked) == 1


async def test_who_wants_to_is_asked_again_after_others_changed_something(client: LocalClient, hooks: Hooks) -> None:
    hooks.decide["/count"] = lambda asked: setting("/spec/replicas", 7 if asked["object"]["spec"].get("color") else 2)
    hooks.decide["/paint"] = lambda _: setting("/spec/color", "red")
    await client.create(MUTATING, hooks.config(MUTATING, "/count", name="a", reinvocationPolicy="IfNeeded"))
    await client.create(MUTATING, hooks.config(MUTATING, "/paint", name="b"))
    made = await client.create(WIDGETS, widget(), "default")
    assert [path for path, _ in hooks.asked] == ["/count", "/paint", "/count"]
    assert made["spec"] == {"replicas": 7, "color": "red"}


async def test_a_dry_run_is_asked_about_as_one(client: LocalClient, hooks: Hooks) -> None:
    hooks.decide["/paint"] = lambda _: setting("/spec/color", "red")
    await client.create(MUTATING, hooks.config(MUTATING, "/paint"))
    shown = await client.create(WIDGETS, widget(), "default", dry_run=True)
    assert shown["spec"]["color"] == "red"
    assert hooks.asked[0][1]["dryRun"] is True
    assert hooks.asked[0][1]["options"]["dryRun"] == ["All"]
    with pytest.raises(NotFound):
        await client.get(WIDGETS, "a", "default")


# -- which writes


async def test_selectors_choose_namespaces_and_objects(client: LocalClient, hooks: Hooks) -> None:
    hooks.decide["/no"] = lambda _: {"allowed": False}
    labels = {"env": "prod"}
    await client.create(
        NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "p", "labels": labels}}
    )
    await client.create(
        VALIDATING,
        hooks.config(
            VALIDATING, "/no", namespaceSelector={"matchLabels": labels},
            objectSelector={"matchExpressions": [{"key": "strict", "operator": "Exists"}]},
        ),
    )  # fmt: skip
    await client.create(WIDGETS, widget(labels={"strict": ""}), "default")
    await client.create(WIDGETS, widget("b"), "p")
    with pytest.raises(Exception, match="denied"):
        await client.create(WIDGETS, widget("c", labels={"strict": ""}), "p")
    with pytest.raises(Exception, match="denied"):
        await client.patch(WIDGETS, "b", {"metadata": {"labels": {"strict": "1"}}}, "p")


async def test_another_version_of_the_same_kind_is_shown_in_the_one_the_rule_names(
    client: LocalClient, hooks: Hooks
) -> None:
    hooks.decide["/paint"] = lambda asked: setting("/spec/color", asked["object"]["apiVersion"].rpartition("/")[2])
    old = {**widget(), "apiVersion": "example.com/v1alpha1"}
    await client.create(MUTATING, hooks.config(MUTATING, "/paint"))
    made = await client.create(OLD_WIDGETS, old, "default")
    assert (made["apiVersion"], made["spec"]["color"]) == ("example.com/v1alpha1", "v1")
    asked = hooks.asked[0][1]
    assert (asked["kind"]["version"], asked["requestKind"]["version"]) == ("v1", "v1alpha1")
    await client.delete(MUTATING, "paint")
    await client.create(MUTATING, hooks.config(MUTATING, "/paint", matchPolicy="Exact"))
    await client.create(OLD_WIDGETS, {**old, "metadata": {"name": "b"}}, "default")
    assert len(hooks.asked) == 1


async def test_scope_and_wildcards(client: LocalClient, hooks: Hooks) -> None:
    hooks.decide["/see"] = lambda _: {"allowed": True}
    rule = {"operations": ["CREATE"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"], "scope": "Cluster"}
    await client.create(VALIDATING, hooks.config(VALIDATING, "/see", rules=[rule]))
    await client.create(CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}, "default")
    await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}})
    seen = [(asked["kind"]["kind"], asked["namespace"]) for _, asked in hooks.asked]
    assert seen == [("Namespace", "n")]


# -- where it is, and what happens when it fails


async def test_a_webhook_behind_a_service_is_found_by_its_endpoints(client: LocalClient, hooks: Hooks) -> None:
    hooks.decide["/paint"] = lambda _: setting("/spec/color", "red")
    config = hooks.config(MUTATING, "/paint")
    service = {"namespace": "default", "name": "hook", "path": "/paint"}
    config["webhooks"][0]["clientConfig"] = {"service": service, "caBundle": hooks.ca}
    made = await client.create(MUTATING, config)
    assert made["webhooks"][0]["clientConfig"]["service"]["port"] == 443
    with pytest.raises(InternalError, match='service "hook" not found'):
        await client.create(WIDGETS, widget(), "default")
    head = {"metadata": {"name": "hook"}}
    await client.create(
        SERVICES, {"apiVersion": "v1", "kind": "Service", **head, "spec": {"ports": [{"port": 443}]}}, "default"
    )
    with pytest.raises(InternalError, match='no endpoints available for service "hook"'):
        await client.create(WIDGETS, widget(), "default")
    subset = {"addresses": [{"ip": "127.0.0.1"}], "ports": [{"port": hooks.port}]}
    await client.create(ENDPOINTS, {"apiVersion": "v1", "kind": "Endpoints", **head, "subsets": [subset]}, "default")
    assert (await client.create(WIDGETS, widget(), "default"))["spec"]["color"] == "red"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"raw": {"status": 500}}, "the server answered 500"),
        ({"raw": {"text": "yes"}}, "the answer is not JSON"),
        ({"raw": {"text": "{}", "content_type": "application/json"}}, "must be an AdmissionReview"),
        ({"allowed": True, "uid": "other"}, r"expected response\.uid"),
        ({"allowed": True, "patch": "W10=", "patchType": "Merge"}, "patchType must be JSONPatch"),
        ({"allowed": True, "patch": "?", "patchType": "JSONPatch"}, "must be JSON, coded in base64"),
    ],
)
async def test_an_answer_that_is_none_fails_the_write_or_is_ignored(
    client: LocalClient, hooks: Hooks, answer: Answer, words: str
) -> None:
    hooks.decide["/odd"] = lambda _: answer
    await client.create(MUTATING, hooks.config(MUTATING, "/odd"))
    with pytest.raises(InternalError, match=words) as failure:
        await client.create(WIDGETS, widget(), "default")
    assert 'failed calling webhook "odd.hooks.example.com"' in failure.value.message
    await client.delete(MUTATING, "odd")
    await client.create(MUTATING, hooks.config(MUTATING, "/odd", failurePolicy="Ignore"))
    await client.create(WIDGETS, widget(), "default")


async def test_a_webhook_that_is_not_there_or_not_trusted_or_slow_fails(
    client: LocalClient, hooks: Hooks, pki: Path, server: ApiServer
) -> None:
    del server
    config = hooks.config(VALIDATING, "/see", timeoutSeconds=1)
    config["webhooks"][0]["clientConfig"]["url"] = "https://localhost:1/see"
    await client.create(VALIDATING, config)
    with pytest.raises(InternalError, match="Cannot connect"):
        await client.create(WIDGETS, widget(), "default")
    stranger = base64.b64encode(Pki(pki).ca.read_bytes()).decode()
    client_config = {"url": f"https://localhost:{hooks.port}/see", "caBundle": stranger}
    change = [{"op": "replace", "path": "/webhooks/0/clientConfig", "value": client_config}]
    await client.patch(VALIDATING, "see", change, kind="json")
    with pytest.raises(InternalError, match=r"(?i)certificate"):
        await client.create(WIDGETS, widget(), "default")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
        client_config["url"] = f"https://127.0.0.1:{silent.getsockname()[1]}/see"
        await client.patch(VALIDATING, "see", change, kind="json")
        with pytest.raises(InternalError, match="no answer within 1 s"):
            await client.create(WIDGETS, widget(), "default")


# -- configurations themselves


async def test_a_configuration_is_completed_and_its_faults_are_all_named(client: LocalClient, hooks: Hooks) -> None:
    made = (await client.create(MUTATING, hooks.config(MUTATING, "/paint")))["webhooks"][0]
    assert made["rules"][0]["scope"] == "*"
    defaults = {"failurePolicy": "Fail", "matchPolicy": "Equivalent", "timeoutSeconds": 10, "namespaceSelector": {},
                "objectSelector": {}, "reinvocationPolicy": "Never"}  # fmt: skip
    assert {key: made[key] for key in defaults} == defaults
    wrong = hooks.config(
        VALIDATING, "/see", name="wrong", sideEffects="Some", timeoutSeconds=60, failurePolicy="Maybe",
        admissionReviewVersions=["v1beta1"], matchConditions=[{"name": "x", "expression": "obj == 1"}],
        clientConfig={"url": "http://me@there/?x"},
        rules=[{**ON_WIDGETS, "operations": ["*", "READ"], "apiGroups": []}],
        objectSelector={"matchExpressions": [{"key": "x", "operator": "Like"}]},
    )  # fmt: skip
    wrong["webhooks"].append({**wrong["webhooks"][0], "clientConfig": {}})
    with pytest.raises(Invalid) as refusal:
        await client.create(VALIDATING, wrong)
    fields = {cause.field.removeprefix("webhooks[0].") for cause in refusal.value.causes}
    assert fields >= {
        "sideEffects", "timeoutSeconds", "failurePolicy", "admissionReviewVersions",
        "matchConditions[0].expression",
        "clientConfig.url", "rules[0].operations", "rules[0].operations[1]", "rules[0].apiGroups", "objectSelector",
        "webhooks[1].name", "webhooks[1].clientConfig",
    }  # fmt: skip


# -- matchConditions


def only(*expressions: str) -> dict[str, Any]:
    return {"matchConditions": [{"name": f"c{i}", "expression": text} for i, text in enumerate(expressions)]}


async def test_a_webhook_is_asked_only_when_its_conditions_hold(client: LocalClient, hooks: Hooks) -> None:
    hooks.decide["/see"] = lambda _: {"allowed": True}
    conditions = only(
        "request.operation in ['CREATE', 'UPDATE'] && request.resource.resource == 'widgets'",
        "!request.userInfo.username.startsWith('system:node:')",
        "object.spec.?color.orValue('') != 'red' && (oldObject == null || has(oldObject.spec))",
    )
    await client.create(VALIDATING, hooks.config(VALIDATING, "/see", **conditions))
    await client.create(WIDGETS, widget("red", color="red"), "default")
    await client.create(WIDGETS, widget("blue", color="blue"), "default")
    await client.patch(WIDGETS, "red", {"spec": {"color": "green"}}, "default")
    await client.delete(WIDGETS, "blue", "default")
    assert [(asked["operation"], asked["name"]) for _, asked in hooks.asked] == [("CREATE", "blue"), ("UPDATE", "red")]


async def test_conditions_that_can_not_be_judged_follow_the_failure_policy(client: LocalClient, hooks: Hooks) -> None:
    hooks.decide["/see"] = lambda _: {"allowed": True}
    await client.create(VALIDATING, hooks.config(VALIDATING, "/see", **only("object.spec.size > 1")))
    with pytest.raises(Forbidden) as told:
        await client.create(WIDGETS, widget(), "default")
    assert told.value.message == (
        "widgets.example.com \"a\" is forbidden: expression 'object.spec.size > 1' resulted in error: no such key: size"
    )
    await client.delete(VALIDATING, "see")
    one_is_false = only("object.spec.size > 1", "false")
    await client.create(VALIDATING, hooks.config(VALIDATING, "/see", **one_is_false))
    await client.create(WIDGETS, widget(), "default")
    await client.delete(VALIDATING, "see")
    ignored = hooks.config(VALIDATING, "/see", failurePolicy="Ignore", **only("object.spec.size > 1"))
    await client.create(VALIDATING, ignored)
    await client.create(WIDGETS, widget("b"), "default")
    assert hooks.asked == []


@pytest.mark.parametrize(
    ("conditions", "field", "words"),
    [([{"name": "a", "expression": "true"}, {"name": "a", "expression": "true"}], "[1].name", "Duplicate"),
     ([{"name": "not a name", "expression": "true"}], "[0].name", "name part must consist"),
     ([{"name": "a", "expression": "object.x"}, {"name": "b", "expression": " "}], "[1].expression", "not specified"),
     ([{"name": "a", "expression": "request.who == 'me'"}], "[0].expression", "undefined field 'who'"),
     ([{"name": "a", "expression": "params.x == 1"}], "[0].expression", "undeclared reference to 'params"),
     ([{"name": "a", "expression": "'text'"}], "[0].expression", "must evaluate to bool"),
     ([{"name": f"n{i}", "expression": "true"} for i in range(65)], "", "must have at most 64 items")],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
async def test_conditions_that_are_refused(
    client: LocalClient, hooks: Hooks, conditions: list[Any], field: str, words: str
) -> None:
    with pytest.raises(Invalid) as told:
        await client.create(VALIDATING, hooks.config(VALIDATING, "/see", matchConditions=conditions))
    found = [c.message for c in told.value.causes if c.field == f"webhooks[0].matchConditions{field}"]
    assert [words in message for message in found] == [True], told.value.causes


async def test_streams_into_pods_are_asked_about(client: LocalClient, server: ApiServer, hooks: Hooks) -> None:
    rule = {"operations": ["CONNECT"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/exec"]}
    hooks.decide["/look"] = lambda asked: {"allowed": asked["object"]["command"] == ["ls"]}
    await client.create(VALIDATING, hooks.config(VALIDATING, "/look", rules=[rule]))
    served = server.registry.find("", "v1", "pods")
    assert served is not None
    call = Call(served=served, user=User("eve", ()), namespace="default", name="p", subresource="exec")
    options = {"apiVersion": "v1", "kind": "PodExecOptions", "container": "c", "command": ["ls"]}
    await server.verbs.connect(call, options)
    _, asked = hooks.asked[-1]
    assert (asked["name"], asked["namespace"], asked["subResource"]) == ("p", "default", "exec")
    assert (asked["operation"], asked["kind"]["kind"], asked["resource"]["resource"]) == (
        "CONNECT", "PodExecOptions", "pods",
    )  # fmt: skip
    assert (asked["object"], asked["userInfo"]["username"]) == (options, "eve")
    with pytest.raises(ApiError, match="denied the request"):
        await server.verbs.connect(call, {**options, "command": ["rm"]})
    hooks.decide["/turn"] = lambda _: setting("/container", "other")
    await client.create(MUTATING, hooks.config(MUTATING, "/turn", rules=[rule]))
    with pytest.raises(InternalError, match="not supported for this operation"):
        await server.verbs.connect(call, options)
