"""What should never have been sent: a Status with the right code, no traceback, and a server that goes on."""

import json
import socket
import ssl
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

Doc = dict[str, Any]
MAPS = "/api/v1/namespaces/{ns}/configmaps"
WIDGETS = "/apis/conformance.hotvirt.io/v1/namespaces/{ns}/widgets"
HEAD = b'"apiVersion":"conformance.hotvirt.io/v1","kind":"Widget","metadata":{"name":"a"}'


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", "application/json", (400,)),
        (b"{" * 10, "application/json", (400,)),
        (b"[1]", "application/json", (400,)),
        (b'"text"', "application/json", (400,)),
        (b"null", "application/json", (400, 422)),
        (b"\xff\xfe{}", "application/json", (400,)),
        (b'{"metadata":{"name":"a\xff"}}', "application/json", (400, 422)),
        (b'{"a":' * 20_000 + b"1" + b"}" * 20_000, "application/json", (400,)),
        (b'{"metadata":{"name":"a"},"data":{"x":"' + b"y" * (3 * 1024 * 1024) + b'"}}', "application/json", (413,)),
        (b'{"metadata":{"name":"a"},"data":{"x":"' + b"y" * (2 * 1024 * 1024) + b'"}}', "application/json", (422,)),
        (b"<xml/>", "application/xml", (415,)),
        (b"k8s\x00\xff\xff\xff", "application/vnd.kubernetes.protobuf", (400,)),
        (b"a: &a [x, x]\nb: [*a, *a]", "application/yaml", (400, 422)),
        (b'{"metadata":5}', "application/json", (400,)),
        (b'{"metadata":{"name":5}}', "application/json", (400,)),
        (b'{"metadata":{"name":"a","labels":{"x":5}}}', "application/json", (400, 422)),
        (b'{"metadata":{"name":"a"},"data":{"x":5}}', "application/json", (400, 422)),
        (b'{"metadata":{"name":"a"},"data":[]}', "application/json", (400, 422)),
        (b'{"metadata":{"name":"a\\u0000"}}', "application/json", (422,)),
        (b'{"metadata":{"name":"' + b"a" * 254 + b'"}}', "application/json", (422,)),
        (b'{"metadata":{"name":"a","finalizers":["bad finalizer"]}}', "application/json", (422,)),
        (b'{"metadata":{}}', "application/json", (422,)),
    ],
    ids=["empty", "cut off", "list", "text", "null", "not UTF-8", "not UTF-8 inside", "deep", "huge", "large", "xml",
         "protobuf", "alias", "metadata number", "name number", "label number", "data number",
         "data list", "NUL", "long name", "finalizer", "no name"],
)  # fmt: skip
def test_bodies(target: Any, ns: str, body: bytes, kind: str, status: tuple[int, ...]) -> None:
    # A wrong type in a built-in kind is 400 of the decoder there; ours names the field in a 422, as CRDs have it.
    told = target.ask("POST", MAPS.format(ns=ns), body, kind=kind)
    assert told.status in status, told.doc
    _is_a_status(told)


def test_a_second_document_is_not_passed_over(target: Any, ns: str) -> None:
    told = target.ask(
        "POST", MAPS.format(ns=ns), b"metadata: {name: a}\n---\nmetadata: {name: b}\n", kind="application/yaml"
    )
    if target.differs("a body of two documents is refused, there the second is lost without a word"):
        assert told.status == 400, told.doc
    else:
        assert (told.status, told.doc["metadata"]["name"]) == (201, "a")


def _is_a_status(told: Any) -> None:
    assert (told.doc["kind"], told.doc["code"], told.doc["status"]) == ("Status", told.status, "Failure")
    assert told.doc["message"]
    assert len(json.dumps(told.doc)) < 20_000, "an answer is not to be as long as what was wrong"
    assert "Traceback" not in told.doc["message"]


@pytest.mark.parametrize(
    ("number", "statuses"),
    [(b"1e400", (400, 422)), (b"9" * 400, (400, 422)), (b"-0", (201,)), (b"1.0", (201, 422)), (b"NaN", (400,)),
     (b"1E3", (201, 422)), (b"9007199254740993", (422,)), (b"0x10", (400,))],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_numbers(target: Any, ns: str, number: bytes, statuses: tuple[int, ...]) -> None:
    told = target.ask("POST", WIDGETS.format(ns=ns), b'{%s,"spec":{"replicas":%s}}' % (HEAD, number))
    assert told.status in statuses, told.doc


def test_large_numbers_where_all_is_kept_come_back_as_they_were(target: Any, ns: str) -> None:
    body = b'{%s,"spec":{"anything":{"whole":9007199254740993,"part":0.1}}}' % HEAD
    told = target.ask("POST", WIDGETS.format(ns=ns), body)
    assert (told.status, told.doc["spec"]["anything"]) == (201, {"whole": 9007199254740993, "part": 0.1})


@pytest.mark.parametrize(
    ("method", "path", "statuses"),
    [
        ("GET", "/nowhere", (404,)),
        ("GET", "/apis/conformance.hotvirt.io/v1/gadgets", (404,)),
        ("GET", "/apis/conformance.hotvirt.io/v9/widgets", (404,)),
        ("GET", "/api/v1/namespaces/default/pods/a/nothing", (404,)),
        ("GET", "/api/v1/namespaces/default/configmaps/%2e%2e", (301, 400, 404)),
        ("GET", "/api/v1/namespaces/default/configmaps/a%2Fb", (400, 404)),
        ("GET", "/api/v1/namespaces/default/configmaps/%ff", (400, 404)),
        ("GET", "/api/v1/namespaces/default/configmaps/a%00b", (400, 404)),
        ("GET", "/api/v1//namespaces", (301, 400, 404)),
        ("POST", "/version", (405, 403, 404, 415)),
        ("PUT", "/api/v1/namespaces/default/configmaps", (405,)),
        ("POST", "/api/v1/configmaps", (405,)),
        ("POST", "/api/v1/namespaces/default/configmaps/a", (405,)),
        ("DELETE", "/api/v1/configmaps", (405,)),
        ("PATCH", "/api/v1/namespaces/default/configmaps/a", (415,)),
        ("BREW", "/api/v1/namespaces", (400, 405, 501)),
        ("DELETE", "/api/v1/namespaces/default/configmaps/a?propagationPolicy=Sideways", (400, 404, 422)),
        ("GET", "/api/v1/namespaces/default/configmaps?limit=-1", (200, 400)),
    ],
)  # fmt: skip
def test_requests(target: Any, method: str, path: str, statuses: tuple[int, ...]) -> None:
    answer = target.raw(method, path)
    assert answer.status in statuses, answer.data
    if target.ours and answer.status >= 400:
        told = json.loads(answer.data)
        assert (told["kind"], told["code"]) == ("Status", answer.status)


@pytest.mark.parametrize(
    ("kind", "patch", "statuses"),
    [
        ("json-patch", b"{}", (400,)), ("json-patch", b'[{"op":"fly"}]', (400, 422)),
        ("json-patch", b'[{"op":"remove","path":"/data/none"}]', (422,)),
        ("json-patch", b'[{"op":"add","path":"/data/x/y/z","value":1}]', (422, 400)),
        ("json-patch", b'[{"op":"copy","from":"/data","path":"/data/a"}]' , (400, 422)),
        ("json-patch", b'[{"op":"replace","path":"","value":[]}]', (400, 422)),
        ("merge-patch", b"[]", (400,)), ("merge-patch", b'{"data":5}', (400, 422)),
        ("merge-patch", b'{"metadata":{"name":"b"}}', (400, 422)), ("merge-patch", b'{"kind":"Pod"}', (400, 422)),
        ("merge-patch", b'{"metadata":null}', (200, 400, 422)),
        ("merge-patch", b'{"metadata":{"creationTimestamp":"yesterday"}}', (200, 400, 422)),
        ("strategic-merge-patch", b'{"$patch":"fly"}', (400, 422, 500)),
        ("strategic-merge-patch", b'{"metadata":{"ownerReferences":[{"$patch":5}]}}', (200, 400, 422, 500)),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_patches(target: Any, ns: str, kind: str, patch: bytes, statuses: tuple[int, ...]) -> None:
    path = MAPS.format(ns=ns)
    target.ask("POST", path, {"metadata": {"name": "a"}, "data": {"k": "v"}})
    told = target.ask("PATCH", f"{path}/a", patch, kind=f"application/{kind}+json")
    assert told.status in statuses, told.doc
    if target.ours:
        assert told.status < 500, "ours calls what is a client's fault a client's fault"


def test_a_json_patch_of_too_many_steps(target: Any, ns: str) -> None:
    path = MAPS.format(ns=ns)
    target.ask("POST", path, {"metadata": {"name": "a"}})
    steps = [{"op": "add", "path": "/data", "value": {}}] * 10_001
    told = target.ask("PATCH", f"{path}/a", steps, kind="application/json-patch+json")
    assert (told.status, told.doc["reason"]) == (413, "RequestEntityTooLarge")


# -- connections


def _connect(target: Any, *, admin: bool = False) -> ssl.SSLSocket:
    at = urlsplit(target.url)
    context = ssl.create_default_context(cafile=target.ca)
    raw = socket.create_connection((at.hostname, at.port), timeout=10)
    return context.wrap_socket(raw, server_hostname=at.hostname)


@pytest.mark.parametrize(
    "sent",
    [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * (2 * 1024 * 1024) + b"\r\n\r\n",
     b"POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
     b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n"],
    ids=["no HTTP", "endless header", "negative length", "two lengths", "NUL"],
)  # fmt: skip
def test_what_is_not_http(target: Any, sent: bytes) -> None:
    with _connect(target) as connection:
        try:
            connection.sendall(sent)
            answer = connection.recv(4096)
        except OSError:  # cut off while sending too much
            answer = b""
    assert answer == b"" or answer.split()[1][:1] == b"4"
    assert target.ask("GET", "/readyz").doc == "ok"


def test_many_idle_connections(target: Any) -> None:
    idle = [_connect(target) for _ in range(150)]
    try:
        assert target.ask("GET", "/readyz").doc == "ok"
        assert target.ask("GET", "/api/v1/namespaces").status == 200
    finally:
        for connection in idle:
            connection.close()


def test_half_a_body_holds_nobody_up(target: Any, ns: str) -> None:
    with _connect(target) as connection:
        connection.sendall(b"POST /api/v1/namespaces/x/configmaps HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
        assert target.ask("POST", MAPS.format(ns=ns), {"metadata": {"name": "a"}}).status == 201


def test_names_are_not_paths(target: Any, ns: str, widget: Callable[..., Doc]) -> None:
    for name in ("..", ".", "a/b", "a%2fb", "-a", "a_b", "a b"):
        told = target.ask("POST", WIDGETS.format(ns=ns), widget(name))
        assert (told.status, told.doc["reason"]) == (422, "Invalid"), name
