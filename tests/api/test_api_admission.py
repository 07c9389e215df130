"""Admission by others: a webhook of the test's own is asked about writes, changes them, and refuses them."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

Doc = dict[str, Any]
HOOKS = "/apis/admissionregistration.k8s.io/v1"
MAPS = "/api/v1/namespaces/{ns}/configmaps"


class Hook:
    """Answers what `verdict` says of each request; `asked` keeps them."""

    def __init__(self, directory: Path) -> None:
        from hotvirt.server.pki import Pki

        self.asked: list[Doc] = []
        self.verdict: Callable[[Doc], Doc] = lambda _: {"allowed": True}
        pki = Pki(directory)
        self.ca = base64.b64encode(pki.ca.read_bytes()).decode()
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                hook.asked.append(review["request"])
                response = {"uid": review["request"]["uid"], **hook.verdict(review["request"])}
                body = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
                data = json.dumps(body).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.socket = pki.server_context(()).wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.server.server_address[1]}/"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})

    def configured(self, ns: str, **more: Any) -> Doc:
        """Asked about ConfigMaps of one namespace alone."""
        rule = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["*"]}
        return {
            "name": "hook.conformance.hotvirt.io", "clientConfig": {"url": self.url, "caBundle": self.ca},
            "rules": [rule], "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 5,
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": ns}}, **more,
        }  # fmt: skip


@pytest.fixture
def hook(tmp_path: Path) -> Iterator[Hook]:
    found = Hook(tmp_path / "pki")
    found.thread.start()
    yield found
    found.server.shutdown()
    found.thread.join()
    found.server.server_close()


@pytest.fixture
def install(target: Any, ns: str) -> Iterator[Callable[..., None]]:
    """Installs a configuration, and waits until it is heard of; takes it away after."""
    made: list[str] = []

    def make(plural: str, kind: str, hook: Hook, **more: Any) -> None:
        body = {"metadata": {"name": f"{kind.lower()}-{ns}"}, "webhooks": [hook.configured(ns, **more)]}
        told = target.ask("POST", f"{HOOKS}/{plural}", body)
        assert told.status == 201, told.doc
        made.append(f"{HOOKS}/{plural}/{body['metadata']['name']}")
        if not more.get("failurePolicy"):
            probe = {"metadata": {"name": "probe"}}
            target.until(lambda: target.ask("POST", MAPS.format(ns=ns), probe, dryRun="All") and hook.asked)
            hook.asked.clear()

    yield make
    for path in made:
        target.ask("DELETE", path)


VALIDATING = ("validatingwebhookconfigurations", "Validating")
MUTATING = ("mutatingwebhookconfigurations", "Mutating")


def config(name: str, **data: str) -> Doc:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def test_what_a_webhook_is_told(target: Any, client: Any, ns: str, hook: Hook, install: Any) -> None:
    install(*VALIDATING, hook)
    client.create(config("a", x="1"), ns)
    client.patch("configmaps", "a", ns, {"data": {"x": "2"}})
    client.delete("configmaps", "a", ns)
    asked = [each for each in hook.asked if each["name"] == "a"]
    assert [each["operation"] for each in asked] == ["CREATE", "UPDATE", "DELETE"]
    create, update, delete = asked
    assert create["resource"] == {"group": "", "version": "v1", "resource": "configmaps"}
    assert create["kind"] == {"group": "", "version": "v1", "kind": "ConfigMap"}
    assert (create["namespace"], create["dryRun"], create["oldObject"]) == (ns, False, None)
    assert create["userInfo"]["username"]
    assert (update["object"]["data"], update["oldObject"]["data"]) == ({"x": "2"}, {"x": "1"})
    assert (delete["object"], delete["oldObject"]["data"]) == (None, {"x": "2"})


def test_a_webhook_refuses(client: Any, ns: str, hook: Hook, install: Any, refused: type[Any]) -> None:
    install(*VALIDATING, hook)
    hook.verdict = lambda asked: {"allowed": asked["object"]["metadata"]["name"] != "bad",
                                  "status": {"message": "not that one", "code": 403}}  # fmt: skip
    with pytest.raises(refused) as told:
        client.create(config("bad"), ns)
    assert 'admission webhook "hook.conformance.hotvirt.io" denied the request: not that one' in told.value.message
    client.create(config("good"), ns)


def test_a_webhook_warns(target: Any, ns: str, hook: Hook, install: Any) -> None:
    install(*VALIDATING, hook)
    hook.verdict = lambda _: {"allowed": True, "warnings": ["think again"]}
    told = target.ask("POST", MAPS.format(ns=ns), config("a"))
    assert (told.status, told.headers["Warning"]) == (201, '299 - "think again"')


def test_a_webhook_changes(client: Any, ns: str, hook: Hook, install: Any) -> None:
    install(*MUTATING, hook)
    patch = [{"op": "add", "path": "/metadata/labels", "value": {"by": "hook"}}]
    coded = base64.b64encode(json.dumps(patch).encode()).decode()
    hook.verdict = lambda asked: {"allowed": True, **({"patchType": "JSONPatch", "patch": coded}
                                                      if asked["operation"] == "CREATE" else {})}  # fmt: skip
    assert client.create(config("a"), ns)["metadata"]["labels"] == {"by": "hook"}
    assert client.create(config("b"), ns, dry_run=True)["metadata"]["labels"] == {"by": "hook"}
    assert hook.asked[-1]["dryRun"] is True


@pytest.mark.parametrize("policy", ["Fail", "Ignore"])
def test_a_webhook_that_does_not_answer(target: Any, ns: str, hook: Hook, install: Any, policy: str) -> None:
    hook.url = "https://127.0.0.1:1/"
    install(*VALIDATING, hook, failurePolicy=policy)
    path = MAPS.format(ns=ns)
    if policy == "Ignore":
        assert target.ask("POST", path, config("a")).status == 201
        return
    told = target.until(lambda: (a := target.ask("POST", path, config("a"), dryRun="All")).status != 201 and a)
    assert (told.status, told.doc["reason"]) == (500, "InternalError")
    assert 'failed calling webhook "hook.conformance.hotvirt.io"' in told.doc["message"]


def test_a_webhook_with_side_effects_stops_a_dry_run(target: Any, ns: str, hook: Hook) -> None:
    body = {"metadata": {"name": f"odd-{ns}"}, "webhooks": [hook.configured(ns, sideEffects="Some")]}
    told = target.ask("POST", f"{HOOKS}/validatingwebhookconfigurations", body)
    assert (told.status, told.doc["reason"]) == (422, "Invalid")  # v1 takes None and NoneOnDryRun alone
    assert any(field.endswith("sideEffects") for _, field in told.causes)


@pytest.mark.parametrize(
    ("change", "field"),
    [({"clientConfig": {}}, "clientConfig"), ({"name": "plain"}, "name"), ({"failurePolicy": "Maybe"}, "failurePolicy"),
     ({"timeoutSeconds": 99}, "timeoutSeconds"), ({"admissionReviewVersions": []}, "admissionReviewVersions")],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_configurations_that_make_no_sense(target: Any, ns: str, hook: Hook, change: Doc, field: str) -> None:
    body = {"metadata": {"name": f"odd-{ns}"}, "webhooks": [hook.configured(ns, **change)]}
    told = target.ask("POST", f"{HOOKS}/validatingwebhookconfigurations", body)
    assert (told.status, told.doc["reason"]) == (422, "Invalid"), told.doc
    assert any(f"webhooks[0].{field}" in each for _, each in told.causes), told.causes
