"""The API as its clients see it: one server for all cases, and the same cases through each client that is found.

`--server URL --kubeconfig FILE` point the suite at another server; the kubeconfig's user must be a cluster-admin. Where
a case cannot hold on both, it asks `target.differs(why)`, which is True of ours alone.

A case may run beside others: it keeps to its own namespace (`ns`) and to names that hold it.
"""

import contextlib
import itertools
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest
import urllib3
import yaml

Doc = dict[str, Any]
GROUP = "conformance.hotvirt.io"
CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
SERVER = """
import asyncio, sys
from pathlib import Path
import uvloop
from hotvirt.api.crds import crds
from hotvirt.server.app import ApiServer, ServerConfig

async def main():
    home = Path(sys.argv[1])
    server = ApiServer(ServerConfig(state_db=home / "state.db", pki=home / "pki"), crds=crds())
    await server.start()
    print(server.port, flush=True)
    await asyncio.Event().wait()

uvloop.run(main())
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.server)


# -- the server


class Answer(NamedTuple):
    status: int
    doc: Any  # the document, or the text when it is not JSON
    headers: Any

    @property
    def causes(self) -> set[tuple[str, str]]:
        return {(cause["reason"], cause["field"]) for cause in self.doc["details"]["causes"]}


class Target:
    """A server, asked without any client's help."""

    def __init__(self, kubeconfig: Path, url: str = "") -> None:
        self.kubeconfig = kubeconfig
        config = yaml.safe_load(kubeconfig.read_text())
        context = next(each["context"] for each in config["contexts"] if each["name"] == config["current-context"])
        cluster = next(each["cluster"] for each in config["clusters"] if each["name"] == context["cluster"])
        user = next(each["user"] for each in config["users"] if each["name"] == context["user"])
        self.url = url or cluster["server"]
        self.ca = self._file(cluster, "certificate-authority")
        self._token = user.get("token", "")
        pair = {"cert_file": self._file(user, "client-certificate"), "key_file": self._file(user, "client-key")}
        self._admin = urllib3.PoolManager(maxsize=8, ca_certs=self.ca, retries=False, timeout=30, **pair)
        self._nobody = urllib3.PoolManager(maxsize=8, ca_certs=self.ca, retries=False, timeout=30)
        self.ours = "hotvirt" in self.ask("GET", "/version").doc["gitVersion"]

    def _file(self, entry: dict[str, str], name: str) -> str | None:
        if f"{name}-data" in entry:
            import base64

            path = self.kubeconfig.with_name(f"{self.kubeconfig.name}.{name}")
            path.write_bytes(base64.b64decode(entry[f"{name}-data"]))
            return str(path)
        return entry.get(name)

    def differs(self, why: str) -> bool:
        """Whether the server is ours, which differs here from a kube-apiserver, and `why`."""
        assert why
        return self.ours

    def raw(self, method: str, path: str, *, token: str = "", nobody: bool = False, **options: Any) -> Any:
        """urllib3's response. As the administrator, or with a token instead of a certificate, or with neither."""
        headers = options.pop("headers", {})
        if token or (self._token and not nobody):
            headers = {"Authorization": f"Bearer {token or self._token}", **headers}
        pool = self._nobody if token or nobody else self._admin
        return pool.request(method, self.url + path, headers=headers, redirect=False, **options)

    def ask(self, method: str, path: str, body: Any = None, *, kind: str = "application/json",
            headers: Doc | None = None, token: str = "", nobody: bool = False, **query: Any) -> Answer:  # fmt: skip
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        if query:
            path += "?" + urlencode(query)
        sent = {"Content-Type": kind, "Accept": "application/json", **(headers or {})}
        answer = self.raw(method, path, body=data, headers=sent, token=token, nobody=nobody)
        doc = json.loads(answer.data) if "json" in answer.headers.get("Content-Type", "") else answer.data.decode()
        return Answer(answer.status, doc, answer.headers)

    def watch(self, path: str, **query: Any) -> Iterator[Doc]:
        """Events until the server ends the stream: timeoutSeconds bounds it."""
        query = {"watch": "1", "timeoutSeconds": "10", **query}
        answer = self.raw("GET", f"{path}?{urlencode(query)}", preload_content=False)
        buffered = b""
        try:
            if answer.status != 200:
                yield {"type": "HTTP", "object": json.loads(answer.read())}
                return
            for chunk in answer.stream(65536):
                *lines, buffered = (buffered + chunk).split(b"\n")
                yield from map(json.loads, lines)
        finally:
            answer.close()

    def until(self, condition: Callable[[], Any], *, seconds: float = 15) -> Any:
        """What `condition` gives once it is true: for what controllers do in their own time."""
        end = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < end, "it never came true"
            time.sleep(0.02)
        return found


@contextlib.contextmanager
def _own_server(directory: Path) -> Iterator[Path]:
    """Gives its kubeconfig."""
    from hotvirt.server.pki import Pki

    process = subprocess.Popen([sys.executable, "-c", SERVER, str(directory)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "the server did not start: see its words above"
        pki = Pki(directory / "pki")
        admin = pki.client("admin", ("system:masters",))
        cluster = {"server": f"https://127.0.0.1:{int(line)}", "certificate-authority": str(pki.ca)}
        user = {"client-certificate": str(admin.certificate), "client-key": str(admin.key)}
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "home",
            "contexts": [{"name": "home", "context": {"cluster": "home", "user": "admin"}}],
            "clusters": [{"name": "home", "cluster": cluster}], "users": [{"name": "admin", "user": user}],
        }  # fmt: skip
        (directory / "kubeconfig").write_text(json.dumps(config))
        yield directory / "kubeconfig"
        assert process.poll() is None, "the server died during the cases"
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.fixture(scope="session")
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    given, url = request.config.getoption("kubeconfig"), request.config.getoption("server")
    with contextlib.ExitStack() as stack:
        if given:
            kubeconfig = tmp_path_factory.mktemp("other") / "kubeconfig"
            shutil.copy(given, kubeconfig)
            if url:
                config = yaml.safe_load(kubeconfig.read_text())
                for cluster in config["clusters"]:
                    cluster["cluster"]["server"] = url
                kubeconfig.write_text(yaml.safe_dump(config))
        else:
            if url:
                pytest.fail("--server needs --kubeconfig FILE too: it says who asks")
            kubeconfig = stack.enter_context(_own_server(tmp_path_factory.mktemp("server")))
        found = Target(kubeconfig)
        made = _definitions(found)
        yield found
        if given and "PYTEST_XDIST_WORKER" not in os.environ:
            for name in made:
                found.ask("DELETE", f"{CRD}/{name}")


@pytest.fixture(scope="session")
def spare_target(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Any]:
    """Makes a server of ours to take apart, whatever --server says."""

    @contextlib.contextmanager
    def start() -> Iterator[Target]:
        with _own_server(tmp_path_factory.mktemp("spare")) as kubeconfig:
            found = Target(kubeconfig)
            _definitions(found)
            yield found

    return start


def _definitions(target: Target) -> list[str]:
    """Makes the sample kind, and hotvirt's own where they are missing."""
    from hotvirt.api.crds import crds

    made = []
    wanted = [definition(), *(crd for crd in crds() if not target.ours)]
    for crd in wanted:
        answer = target.ask("POST", CRD, crd)
        assert answer.status in (201, 409), answer.doc
        if answer.status == 201:
            made.append(crd["metadata"]["name"])
    for crd in wanted:
        name = crd["metadata"]["name"]
        target.until(lambda name=name: _established(target.ask("GET", f"{CRD}/{name}").doc))
    target.until(lambda: target.ask("GET", f"/apis/{GROUP}/v1/widgets").status == 200)
    return made


def _established(crd: Doc) -> bool:
    conditions = crd.get("status", {}).get("conditions", ())
    return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)


def definition() -> Doc:
    """Of the sample kind: what CRDs can say, in one."""
    port = {"type": "object", "required": ["name"], "properties": {
        "name": {"type": "string"}, "number": {"type": "integer", "minimum": 1, "maximum": 65535}}}  # fmt: skip
    spec = {
        "type": "object",
        "description": "What the widget is to be.",
        "properties": {
            "replicas": {"type": "integer", "format": "int32", "default": 1, "minimum": 0, "description": "How many."},
            "color": {"type": "string", "maxLength": 20, "enum": ["red", "green", "blue"]},
            "size": {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "ports": {"type": "array", "items": port, "x-kubernetes-list-type": "map",
                      "x-kubernetes-list-map-keys": ["name"]},
            "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
            "order": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "atomic"},
            "anything": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "nested": {"type": "object", "default": {}, "properties": {
                "mode": {"type": "string", "default": "plain"}, "level": {"type": "integer", "nullable": True}}},
        },
    }  # fmt: skip
    status = {"type": "object", "properties": {
        "replicas": {"type": "integer"}, "selector": {"type": "string"}, "phase": {"type": "string"},
        "conditions": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
                       "items": {"type": "object", "required": ["type", "status"], "properties": {
                           "type": {"type": "string"}, "status": {"type": "string"}}}}}}  # fmt: skip
    scale = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
             "labelSelectorPath": ".status.selector"}  # fmt: skip
    columns = [
        {"name": "Color", "type": "string", "jsonPath": ".spec.color"},
        {"name": "Size", "type": "string", "jsonPath": ".spec.size", "priority": 1},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]
    versions = [
        {
            "name": name, "served": True, "storage": name == "v1", "additionalPrinterColumns": columns,
            "subresources": {"status": {}, "scale": scale},
            "selectableFields": [{"jsonPath": ".spec.color"}],
            "schema": {"openAPIV3Schema": {
                "type": "object", "description": "A thing to try clients with.",
                "properties": {"spec": spec, "status": status}}},
        }
        for name in ("v1", "v1alpha1")
    ]  # fmt: skip
    versions[1] |= {"deprecated": True, "deprecationWarning": f"{GROUP}/v1alpha1 Widget is old; use v1"}
    names = {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList",
             "shortNames": ["wdg"], "categories": ["gadgets"]}  # fmt: skip
    return {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": f"widgets.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": versions},
    }  # fmt: skip


@pytest.fixture
def ns(target: Target) -> Iterator[str]:
    """A namespace of the case's own."""
    name = f"case-{secrets.token_hex(4)}"
    answer = target.ask("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    assert answer.status == 201, answer.doc
    yield name
    target.ask("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture(scope="session")
def widget() -> Callable[..., Doc]:
    def make(name: str, *, labels: Doc | None = None, **spec: Any) -> Doc:
        meta: Doc = {"name": name, **({"labels": labels} if labels else {})}
        return {"apiVersion": f"{GROUP}/v1", "kind": "Widget", "metadata": meta, "spec": spec}

    return make


# -- the clients


class Refused(Exception):
    """What a client was told. `reason` is the Status', as far as the client shows it."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason, self.message = reason, message


KINDS = {
    "widgets": f"widgets.{GROUP}", "widgets.v1alpha1": f"widgets.v1alpha1.{GROUP}", "configmaps": "configmaps",
    "pods": "pods", "namespaces": "namespaces", "serviceaccounts": "serviceaccounts", "secrets": "secrets",
    "services": "services", "deployments": "deployments.apps", "events": "events", "nodes": "nodes",
}  # fmt: skip


PYTHON_KINDS = {
    "widgets": "Widget", "configmaps": "ConfigMap", "pods": "Pod", "namespaces": "Namespace", "secrets": "Secret",
    "serviceaccounts": "ServiceAccount", "services": "Service", "deployments": "Deployment", "events": "Event",
    "nodes": "Node",
}  # fmt: skip


class Kubectl:
    """A kubectl, with a home of its own for what it caches."""

    def __init__(self, binary: str, target: Target, home: Path, user: str = "") -> None:
        self.binary, self._target, self._home, self._user = binary, target, home, user

    @cached_property
    def minor(self) -> int:
        """36 of v1.36.2."""
        version = json.loads(self("version", "--client", "-o", "json"))["clientVersion"]
        return int(version["minor"].rstrip("+"))

    def needs(self, minor: int, what: str) -> None:
        """Skips the case where this kubectl is from before 1.`minor`, and cannot say `what`."""
        if self.minor < minor:
            pytest.skip(f"kubectl 1.{self.minor} has no {what}, which came with 1.{minor}")

    def as_user(self, user: str) -> "Kubectl":
        return Kubectl(self.binary, self._target, self._home, user)

    def start(self, *args: str, **options: Any) -> subprocess.Popen[str]:
        env = {"KUBECONFIG": str(self._target.kubeconfig), "HOME": str(self._home), "PATH": os.environ["PATH"],
               **options.pop("env", {})}  # fmt: skip
        acting = ("--as", self._user) if self._user else ()
        return subprocess.Popen(
            [self.binary, *args, *acting], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=options.pop("stderr", subprocess.PIPE), text=True,
        )  # fmt: skip

    def tried(self, *args: str, text: Any = None, **env: str) -> tuple[int, str, str]:
        """Exit code, what it printed, what it complained."""
        with self.start(*args, env=env) as process:
            sent = text if isinstance(text, str) or text is None else json.dumps(text)
            out, complaints = process.communicate(sent, timeout=60)
            return process.returncode, out, complaints

    def __call__(self, *args: str, text: Any = None, **env: str) -> str:
        code, out, complaints = self.tried(*args, text=text, **env)
        if code:
            raise self._refusal(complaints or out)
        return out

    @staticmethod
    def _refusal(text: str) -> Refused:
        import re

        if found := re.search(r"Error from server \((\w+)\): (.*)", text, re.DOTALL):
            return Refused(found[1], found[2])
        if found := re.search(r"The \S+ \".*\" is invalid:? ?(.*)|The request is invalid.*", text, re.DOTALL):
            return Refused("Invalid", found[0])
        if found := re.search(r"error: Apply failed with \d+ conflicts?: (.*)", text, re.DOTALL):
            return Refused("Conflict", found[0])
        return Refused("", text)

    def create(self, obj: Doc, ns: str, *, dry_run: bool = False, validate: str = "strict") -> Any:
        dry = ("--dry-run=server",) if dry_run else ()
        if self.minor < 25:  # it judges by itself, and fails where the server would warn
            validate = {"strict": "true", "ignore": "false"}.get(validate) or self.needs(25, "--validate=warn") or ""
        return json.loads(self("create", "-n", ns, f"--validate={validate}", "-f", "-", "-o", "json", *dry, text=obj))

    def get(self, kind: str, name: str, ns: str) -> Any:
        return json.loads(self("get", KINDS[kind], name, "-n", ns, "-o", "json"))

    def names(self, kind: str, ns: str, *, labels: str = "", fields: str = "", page: int = 0) -> list[str]:
        chosen = [*(("-l", labels) if labels else ()), *(("--field-selector", fields) if fields else ())]
        chosen += [f"--chunk-size={page}"] if page else []
        return self("get", KINDS[kind], "-n", ns, *chosen, "-o", "jsonpath={.items[*].metadata.name}").split()

    def replace(self, obj: Doc, ns: str) -> Any:
        return json.loads(self("replace", "-n", ns, "-f", "-", "-o", "json", text=obj))

    def patch(self, kind: str, name: str, ns: str, patch: Any, *, form: str = "merge", subresource: str = "",
              dry_run: bool = False) -> Any:  # fmt: skip
        if subresource:
            self.needs(24, "--subresource")
        more = [*((f"--subresource={subresource}",) if subresource else ()), *(("--dry-run=server",) * dry_run)]
        return json.loads(self("patch", KINDS[kind], name, "-n", ns, f"--type={form}", "-p", json.dumps(patch), "-o",
                               "json", *more))  # fmt: skip

    def apply(self, obj: Doc, ns: str, *, manager: str, force: bool = False, dry_run: bool = False) -> Any:
        more = ["--force-conflicts"] * force + ["--dry-run=server"] * dry_run
        return json.loads(self("apply", "--server-side", "-n", ns, f"--field-manager={manager}", "-f", "-", "-o",
                               "json", *more, text=obj))  # fmt: skip

    def delete(self, kind: str, name: str, ns: str, *, cascade: str = "background", dry_run: bool = False) -> None:
        more = ["--dry-run=server"] * dry_run
        self("delete", KINDS[kind], name, "-n", ns, f"--cascade={cascade}", "--wait=false", *more)

    def delete_all(self, kind: str, ns: str, *, labels: str) -> None:
        self("delete", KINDS[kind], "-n", ns, "-l", labels)

    def scale(self, kind: str, name: str, ns: str, replicas: int) -> None:
        self("scale", KINDS[kind], name, "-n", ns, f"--replicas={replicas}")

    def watch(self, kind: str, ns: str, act: Callable[[], object], *, count: int, labels: str = "") -> list[Any]:
        """The next `count` (type, object) after those that were there, while `act` is done."""
        there = len(self.names(kind, ns, labels=labels))
        assert there, "that the watch is on shows with the first object: have one there"
        chosen = ("-l", labels) if labels else ()
        with self.start("get", KINDS[kind], "-n", ns, "-w", "--output-watch-events", "-o", "json", *chosen) as process:
            try:
                events = self._events(process)
                for _ in range(there):
                    next(events)
                act()
                return list(itertools.islice(events, count))
            finally:
                process.kill()

    @staticmethod
    def _events(process: subprocess.Popen[str]) -> Iterator[Any]:
        assert process.stdout is not None
        text, decoder = "", json.JSONDecoder()
        for line in process.stdout:
            text += line
            if line.endswith("}\n"):
                with contextlib.suppress(json.JSONDecodeError):
                    event, _ = decoder.raw_decode(text)
                    text = ""
                    yield event["type"], event["object"]

    def token(self, account: str, ns: str) -> str:
        self.needs(24, "create token")
        return self("create", "token", account, "-n", ns).strip()

    def may(self, verb: str, resource: str, ns: str) -> bool:
        code, out, complaints = self.tried("auth", "can-i", verb, resource, "-n", ns)
        assert out.startswith(("yes", "no")), complaints
        return code == 0


class Python:
    """The official Python client."""

    def __init__(self, target: Target, cache: Path, user: str = "") -> None:
        import kubernetes

        self._target = target
        configuration = kubernetes.client.Configuration()
        configuration.retries = False
        loader = kubernetes.config
        loader.load_kube_config(str(target.kubeconfig), client_configuration=configuration)
        self.api = kubernetes.client.ApiClient(configuration)
        if user:
            self.api.set_default_header("Impersonate-User", user)
        self._cache = cache
        self.dynamic = kubernetes.dynamic.DynamicClient(self.api, cache_file=str(cache))

    def as_user(self, user: str) -> "Python":
        return Python(self._target, self._cache, user)

    def _kind(self, kind: str) -> Any:
        plural, _, version = kind.partition(".")
        group = {"widgets": f"{GROUP}/", "deployments": "apps/"}.get(plural, "")
        return self.dynamic.resources.get(api_version=group + (version or "v1"), kind=PYTHON_KINDS[plural])

    def _of(self, obj: Doc) -> Any:
        return self.dynamic.resources.get(api_version=obj["apiVersion"], kind=obj["kind"])

    def _done(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        from kubernetes.client import ApiException

        try:
            answer = call(*args, **{k: v for k, v in options.items() if v not in ("", 0, False, None)})
        except ApiException as error:
            status = json.loads(error.body)
            raise Refused(status.get("reason", ""), status["message"]) from error
        return answer.to_dict()

    def create(self, obj: Doc, ns: str, *, dry_run: bool = False, validate: str = "Strict") -> Any:
        # The dynamic client knows no fieldValidation: the general call does.
        resource = self._of(obj)
        query = [("fieldValidation", validate.title()), *([("dryRun", "All")] if dry_run else [])]
        path = resource.path(namespace=ns)
        return self._general("POST", path, obj, query)

    def _general(self, method: str, path: str, body: Any, query: list[tuple[str, str]], kind: str = "") -> Any:
        from kubernetes.client import ApiException

        serialized = self.api.param_serialize(
            method, path, query_params=query, body=body, auth_settings=["BearerToken"],
            header_params={"Accept": "application/json", "Content-Type": kind or "application/json"},
        )  # fmt: skip
        answer = self.api.call_api(*serialized)
        answer.read()
        try:
            self.api.response_deserialize(answer, {str(answer.status): "object", "2XX": "object"})
        except ApiException as error:
            status = json.loads(error.body)
            raise Refused(status.get("reason", ""), status["message"]) from error
        return json.loads(answer.data)

    def get(self, kind: str, name: str, ns: str) -> Any:
        return self._done(self._kind(kind).get, name=name, namespace=ns)

    def names(self, kind: str, ns: str, *, labels: str = "", fields: str = "", page: int = 0) -> list[str]:
        found: list[str] = []
        more = ""
        while True:
            listed = self._done(self._kind(kind).get, namespace=ns, label_selector=labels, field_selector=fields,
                                limit=page, _continue=more)  # fmt: skip
            found += [item["metadata"]["name"] for item in listed["items"]]
            if not (more := listed["metadata"].get("continue", "")):
                return found

    def replace(self, obj: Doc, ns: str) -> Any:
        return self._done(self._of(obj).replace, body=obj, namespace=ns)

    def patch(self, kind: str, name: str, ns: str, patch: Any, *, form: str = "merge", subresource: str = "",
              dry_run: bool = False) -> Any:  # fmt: skip
        forms = {"merge": "merge-patch+json", "json": "json-patch+json", "strategic": "strategic-merge-patch+json"}
        path = self._kind(kind).path(name=name, namespace=ns) + (f"/{subresource}" if subresource else "")
        query = [("dryRun", "All")] if dry_run else []
        return self._general("PATCH", path, patch, query, f"application/{forms[form]}")

    def apply(self, obj: Doc, ns: str, *, manager: str, force: bool = False, dry_run: bool = False) -> Any:
        return self._done(self._of(obj).server_side_apply, body=obj, namespace=ns, field_manager=manager,
                          force_conflicts=force, dry_run="All" if dry_run else "")  # fmt: skip

    def delete(self, kind: str, name: str, ns: str, *, cascade: str = "background", dry_run: bool = False) -> None:
        self._done(self._kind(kind).delete, name=name, namespace=ns, propagation_policy=cascade.title(),
                   dry_run="All" if dry_run else "")  # fmt: skip

    def delete_all(self, kind: str, ns: str, *, labels: str) -> None:
        self._done(self._kind(kind).delete, namespace=ns, label_selector=labels)

    def scale(self, kind: str, name: str, ns: str, replicas: int) -> None:
        self.patch(kind, name, ns, {"spec": {"replicas": replicas}}, subresource="scale")

    def watch(self, kind: str, ns: str, act: Callable[[], object], *, count: int, labels: str = "") -> list[Any]:
        resource = self._kind(kind)
        since = resource.get(namespace=ns).metadata.resourceVersion
        act()
        events = resource.watch(namespace=ns, resource_version=since, label_selector=labels or None, timeout=20)
        return [(event["type"], event["raw_object"]) for event in itertools.islice(events, count)]

    def token(self, account: str, ns: str) -> str:
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}}
        path = f"/api/v1/namespaces/{ns}/serviceaccounts/{account}/token"
        return str(self._general("POST", path, body, [])["status"]["token"])

    def may(self, verb: str, resource: str, ns: str) -> bool:
        plural, _, group = resource.partition(".")
        attributes = {"verb": verb, "resource": plural, "group": group, "namespace": ns}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": attributes}}  # fmt: skip
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        return bool(self._general("POST", path, body, [])["status"]["allowed"])


def _kubectls() -> dict[str, str]:
    """By a short name, of one that is found: the one beside this Python, and the system's own."""
    beside = shutil.which("kubectl", path=str(Path(sys.executable).parent))
    system = next(filter(None, (shutil.which("kubectl", path=p) for p in ("/usr/bin", "/usr/local/bin"))), None)
    found = {"kubectl": beside, "system-kubectl": system}
    return {name: path for name, path in found.items() if path}


KUBECTLS = _kubectls()


@pytest.fixture(scope="session")
def _clients(target: Target, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    made: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in made:
            home = tmp_path_factory.mktemp(name)
            made[name] = (
                Python(target, home / "discovery") if name == "python" else Kubectl(KUBECTLS[name], target, home)
            )
        return made[name]

    return get


@pytest.fixture(params=[*KUBECTLS, "python"])
def client(request: pytest.FixtureRequest, _clients: Callable[[str], Any]) -> Any:
    """Each client in turn, with the same methods."""
    return _clients(request.param)


@pytest.fixture(params=[*KUBECTLS] or [pytest.param("", marks=pytest.mark.skip("kubectl is not installed"))])
def kubectl(request: pytest.FixtureRequest, _clients: Callable[[str], Any]) -> Kubectl:
    """For what only kubectl does."""
    found: Kubectl = _clients(request.param)
    return found


@pytest.fixture(scope="session")
def refused() -> type[Refused]:
    return Refused
