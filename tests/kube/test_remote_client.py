"""What goes over the wire and what comes back, against a server on loopback."""

import json
import socket

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from hotvirt.kube.errors import ApiError, Conflict, Gone, InternalError, NotFound, Unreachable
from hotvirt.kube.kubeconfig import Access
from hotvirt.kube.remote import RemoteClient
from hotvirt.kube.resources import CONFIG_MAPS, NODES, VMS


@pytest.fixture
async def served():
    """`answers` maps "METHOD path" to a response maker; `asked` records what came."""
    answers, asked = {}, []

    async def handle(request):
        asked.append((request.method, request.path, dict(request.query), dict(request.headers), await request.read()))
        return await answers[f"{request.method} {request.path}"](request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    server = TestServer(app)
    await server.start_server()
    async with RemoteClient(Access(server=str(server.make_url("")).rstrip("/"), token="t0"), timeout=2) as client:
        yield client, answers, asked
    await server.close()


def answering(document, status=200):
    async def answer(request):
        return web.json_response(document, status=status)

    return answer


def streaming(*pieces):
    async def answer(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
        await response.write_eof()
        return response

    return answer


def event(kind, name, version="1"):
    return json.dumps({"type": kind, "object": {"metadata": {"name": name, "resourceVersion": version}}}).encode()


async def test_verbs_paths_and_bodies(served):
    client, answers, asked = served
    vm = "/apis/kubevirt.io/v1/namespaces/ns/virtualmachines"
    for key in (f"GET {vm}/web", f"POST {vm}", f"PATCH {vm}/web/status", f"PUT {vm}/web", f"DELETE {vm}/web",
                "GET /api/v1/nodes", f"POST {vm}/web/start"):  # fmt: skip
        answers[key] = answering({"metadata": {"name": "web"}, "items": [{"metadata": {"name": "n"}}]})
    await client.get(VMS, "web", "ns")
    await client.create(VMS, {"metadata": {"name": "web"}}, "ns", dry_run=True)
    await client.patch(VMS, "web", [{"op": "remove", "path": "/x"}], "ns", kind="json", subresource="status")
    await client.update(VMS, {"metadata": {"name": "web", "namespace": "ns"}})
    await client.delete(VMS, "web", "ns", propagation="Orphan", uid="u", grace_period_seconds=0)
    nodes = await client.list(NODES, label_selector="a=b", limit=5)
    await client.post(VMS, "web", "start", {"x": 1}, "ns")
    assert [(a[0], a[1]) for a in asked] == [tuple(key.split(" ")) for key in answers]
    assert asked[1][2] == {"fieldManager": "hotvirt", "dryRun": "All"}
    assert asked[2][3]["Content-Type"] == "application/json-patch+json"
    assert json.loads(asked[4][4]) == {
        "kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Orphan", "preconditions": {"uid": "u"},
        "gracePeriodSeconds": 0,
    }  # fmt: skip
    assert asked[5][2] == {"labelSelector": "a=b", "limit": "5"}
    assert all(a[3]["Authorization"] == "Bearer t0" for a in asked)
    assert nodes["items"][0]["kind"] == "Node"


@pytest.mark.parametrize(
    ("status", "document", "kind", "text"),
    [
        (404, {"kind": "Status", "reason": "NotFound", "message": "no such vm", "code": 404}, NotFound, "no such vm"),
        (409, {"kind": "Status", "reason": "Conflict", "message": "changed", "code": 409}, Conflict, "changed"),
        (502, {"error": "a proxy's own"}, ApiError, "HTTP 502"),
    ],
)
async def test_failures_become_errors(served, status, document, kind, text):
    client, answers, _ = served
    answers["GET /api/v1/nodes/n"] = answering(document, status)
    with pytest.raises(kind, match=text):
        await client.get(NODES, "n")


async def test_a_watch_is_decoded_line_by_line_however_it_is_cut(served):
    client, answers, asked = served
    whole = event("ADDED", "a") + b"\n" + event("MODIFIED", "b" * 200_000) + b"\n\n" + event("BOOKMARK", "c") + b"\n"
    answers["GET /api/v1/configmaps"] = streaming(whole[:10], whole[10:90_000], whole[90_000:])
    events = [e async for e in client.watch(CONFIG_MAPS, resource_version="5")]
    assert [(e.type, len(e.object["metadata"]["name"])) for e in events] == [
        ("ADDED", 1), ("MODIFIED", 200_000), ("BOOKMARK", 1),
    ]  # fmt: skip
    assert asked[0][2]["resourceVersion"] == "5"
    assert asked[0][2]["allowWatchBookmarks"] == "true"
    assert 300 <= int(asked[0][2]["timeoutSeconds"]) <= 450


async def test_an_error_event_and_an_error_answer_are_gone(served):
    client, answers, _ = served
    gone = {"kind": "Status", "reason": "Expired", "code": 410, "message": "too old"}
    answers["GET /api/v1/configmaps"] = streaming(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
    with pytest.raises(Gone):
        [e async for e in client.watch(CONFIG_MAPS, resource_version="5")]
    answers["GET /api/v1/configmaps"] = answering(gone, 410)
    with pytest.raises(Gone):
        [e async for e in client.watch(CONFIG_MAPS, resource_version="5")]


async def test_no_answer_is_unreachable_and_says_where_and_what_to_do():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with RemoteClient(Access(server=f"http://127.0.0.1:{port}")) as client:
        with pytest.raises(Unreachable, match=rf"127.0.0.1:{port}: connection refused.*hotvirt up"):
            await client.get(NODES, "n")
        with pytest.raises(Unreachable):
            [e async for e in client.watch(NODES, resource_version="1")]


async def test_what_is_no_api_says_so(served):
    client, answers, _ = served

    async def page(request):
        return web.Response(text="<html>")

    answers["GET /api/v1/nodes/n"] = page
    with pytest.raises(InternalError, match="is the address that of a Kubernetes API"):
        await client.get(NODES, "n")
