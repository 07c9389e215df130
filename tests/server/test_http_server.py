"""The API over TLS, as clients other than ours see it: forms of answers, watches, errors, identities, discovery."""

import asyncio
import io
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from hotvirt.kube.aggregated import RequestContext, ServedResource
from hotvirt.server.app import ApiServer, ServerConfig
from hotvirt.server.pki import Pki

pytestmark = pytest.mark.server
WIDGETS = "/apis/example.com/v1/namespaces/default/widgets"
MERGE = {"Content-Type": "application/merge-patch+json"}
TABLE = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}


def widget(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec}


class Doors:
    """A group beside the stored ones: opens doors, tells its version to anybody."""

    name = "doors.example.com"
    versions: tuple[str, ...] = ("v1",)
    resources: tuple[ServedResource, ...] = (ServedResource("widgets/open", "Widget", verbs=("update",)),)
    open_paths: tuple[str, ...] = ("version",)

    async def handle(self, request: web.Request, context: RequestContext) -> web.StreamResponse:
        if request.headers.get("Upgrade") == "websocket":
            socket = web.WebSocketResponse(protocols=("plain.example.com",))
            await socket.prepare(request)
            async for message in socket:
                await socket.send_str(f"{context.name}:{message.data}")
            return socket
        return web.json_response({"by": context.user.name, "name": context.name, "rest": context.rest})


class Api:
    """The server, and a session for each identity."""

    def __init__(self, server: ApiServer, pki: Pki) -> None:
        self.server, self._pki = server, pki
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    def session(self, user: str = "admin", *groups: str) -> aiohttp.ClientSession:
        """ "" is nobody."""
        if user not in self._sessions:
            context = ssl.create_default_context(cafile=str(self._pki.ca))
            if user:
                pair = self._pki.client(user, groups or (("system:masters",) if user == "admin" else ()))
                context.load_cert_chain(pair.certificate, pair.key)
            self._sessions[user] = aiohttp.ClientSession(
                f"https://127.0.0.1:{self.server.port}", connector=aiohttp.TCPConnector(ssl=context)
            )
        return self._sessions[user]

    async def ask(self, method: str, path: str, body: Any = None, *, user: str = "admin", **options: Any) -> Any:
        """(status, document)."""
        data = io.BytesIO(body) if isinstance(body, bytes) else json.dumps(body) if body is not None else None
        headers = {"Content-Type": "application/json", **options.pop("headers", {})}
        async with self.session(user).request(method, path, data=data, headers=headers, **options) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if answer.content_type == "application/json" else text

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pki")


@pytest.fixture
async def api(tmp_path: Path, keys: Path, definition: dict[str, Any]) -> AsyncIterator[Api]:
    config = ServerConfig(state_db=tmp_path / "state.db", pki=keys)
    server = ApiServer(config, groups=[Doors()], crds=[definition])
    await server.start()
    asking = Api(server, Pki(keys))
    yield asking
    await asking.close()
    await server.stop()


# -- verbs over HTTP


async def test_create_read_patch_delete(api: Api) -> None:
    status, made = await api.ask("POST", WIDGETS, widget("a"))
    assert (status, made["spec"]) == (201, {"replicas": 1})
    assert await api.ask("GET", f"{WIDGETS}/a") == (200, made)
    status, after = await api.ask("PATCH", f"{WIDGETS}/a", {"spec": {"color": "red"}}, headers=MERGE)
    assert (status, after["spec"]["color"]) == (200, "red")
    status, listed = await api.ask("GET", WIDGETS)
    assert (listed["kind"], listed["items"]) == ("WidgetList", [after])
    status, done = await api.ask("DELETE", f"{WIDGETS}/a")
    assert (status, done["status"], done["details"]["name"]) == (200, "Success", "a")
    status, refusal = await api.ask("GET", f"{WIDGETS}/a")
    assert (status, refusal["reason"], refusal["kind"]) == (404, "NotFound", "Status")


async def test_the_head_of_a_built_in_kind_may_be_left_out(api: Api) -> None:
    status, made = await api.ask("POST", "/api/v1/namespaces/default/configmaps", {"metadata": {"name": "c"}})
    assert (status, made["apiVersion"], made["kind"]) == (201, "v1", "ConfigMap")
    status, refusal = await api.ask("POST", WIDGETS, {"metadata": {"name": "c"}})
    assert (status, refusal["reason"]) == (400, "BadRequest")


async def test_a_collection_is_deleted_by_selector(api: Api) -> None:
    for name, on in (("a", "1"), ("b", "2")):
        obj = widget(name)
        obj["metadata"]["labels"] = {"on": on}
        await api.ask("POST", WIDGETS, obj)
    await api.ask("DELETE", WIDGETS, params={"labelSelector": "on=1"})
    _, listed = await api.ask("GET", WIDGETS)
    assert [item["metadata"]["name"] for item in listed["items"]] == ["b"]


async def test_apply_creates_with_yaml(api: Api) -> None:
    body = b"apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: a}\nspec: {color: red}\n"
    apply = {"Content-Type": "application/apply-patch+yaml"}
    status, made = await api.ask("PATCH", f"{WIDGETS}/a", body, headers=apply, params={"fieldManager": "me"})
    assert (status, made["spec"]["color"]) == (201, "red")
    status, refusal = await api.ask("PATCH", f"{WIDGETS}/a", body, headers=apply)
    assert (status, "fieldManager" in refusal["message"]) == (422, True)


async def test_unknown_fields_are_refused_warned_of_or_ignored(api: Api) -> None:
    odd = widget("a", colour="red")
    status, refusal = await api.ask("POST", WIDGETS, odd, params={"fieldValidation": "Strict"})
    assert (status, refusal["message"].endswith('strict decoding error: unknown field "spec.colour"')) == (400, True)
    async with api.session().post(WIDGETS, json=odd) as answer:
        assert answer.status == 201
        assert answer.headers["Warning"] == '299 - "unknown field \\"spec.colour\\""'
    twice = b'{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"b"},"spec":{"color":"a","color":"b"}}'
    status, refusal = await api.ask("POST", WIDGETS, twice, params={"fieldValidation": "Strict"})
    assert (status, 'duplicate field "spec.color"' in refusal["message"]) == (400, True)


# -- forms


async def test_tables_and_metadata_alone(api: Api) -> None:
    await api.ask("POST", WIDGETS, widget("a", color="red"))
    _, table = await api.ask("GET", WIDGETS, headers=TABLE)
    assert (table["kind"], [c["name"] for c in table["columnDefinitions"]]) == ("Table", ["Name", "Color"])
    assert table["rows"][0]["cells"] == ["a", "red"]
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    wanted = {"Accept": "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"}
    _, partial = await api.ask("GET", f"{WIDGETS}/a", headers=wanted)
    assert (partial["kind"], partial["metadata"]["name"], "spec" in partial) == ("PartialObjectMetadata", "a", False)
    status, refusal = await api.ask("GET", WIDGETS, headers={"Accept": "image/png"})
    assert (status, refusal["reason"]) == (406, "NotAcceptable")


async def test_pages(api: Api) -> None:
    for i in range(3):
        await api.ask("POST", WIDGETS, widget(f"w{i}"))
    _, first = await api.ask("GET", WIDGETS, params={"limit": "2"})
    assert (len(first["items"]), first["metadata"]["remainingItemCount"]) == (2, 1)
    _, rest = await api.ask("GET", WIDGETS, params={"limit": "2", "continue": first["metadata"]["continue"]})
    assert [item["metadata"]["name"] for item in rest["items"]] == ["w2"]
    status, _ = await api.ask("GET", WIDGETS, params={"continue": "nonsense"})
    assert status == 400


async def test_a_long_list_is_sent_as_the_client_takes_it(api: Api) -> None:
    text = "x" * 100_000
    for i in range(12):
        await api.ask("POST", "/api/v1/namespaces/default/configmaps", {"metadata": {"name": f"c{i:02}"},
                                                                        "data": {"text": text}})  # fmt: skip
    path = "/api/v1/namespaces/default/configmaps?fieldSelector=metadata.name!=kube-root-ca.crt"
    async with api.session().get(path, read_bufsize=1024) as answer:
        await asyncio.sleep(0)  # the server waits meanwhile
        length = int(answer.headers["Content-Length"])
        body = await answer.read()
    assert len(body) == length > 1_200_000
    listed = json.loads(body)
    assert [item["metadata"]["name"] for item in listed["items"]] == [f"c{i:02}" for i in range(12)]
    assert all(item["data"] == {"text": text} for item in listed["items"])
    async with api.session().head(path) as answer:
        assert (answer.headers["Content-Length"], await answer.read()) == (str(length), b"")
    async with api.session().get(path) as answer:  # gone halfway
        await answer.content.readexactly(1000)
    assert (await api.ask("GET", "/api/v1/namespaces/default/configmaps/c00"))[0] == 200


# -- watch


async def _lines(answer: aiohttp.ClientResponse, count: int) -> list[dict[str, Any]]:
    return [json.loads(await answer.content.readline()) for _ in range(count)]


async def test_a_watch_streams_what_happens(api: Api) -> None:
    _, made = await api.ask("POST", WIDGETS, widget("a"))
    since = {"watch": "true", "resourceVersion": made["metadata"]["resourceVersion"]}
    async with api.session().get(WIDGETS, params=since) as answer:
        await api.ask("PATCH", f"{WIDGETS}/a", {"spec": {"color": "red"}}, headers=MERGE)
        await api.ask("DELETE", f"{WIDGETS}/a")
        events = await _lines(answer, 2)
    assert [(e["type"], e["object"]["spec"]["color"]) for e in events] == [("MODIFIED", "red"), ("DELETED", "red")]


async def test_a_watch_may_begin_with_all_there_is(api: Api) -> None:
    await api.ask("POST", WIDGETS, widget("a"))
    wanted = {"watch": "1", "sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan",
              "allowWatchBookmarks": "true", "timeoutSeconds": "1"}  # fmt: skip
    async with api.session().get(WIDGETS, params=wanted) as answer:
        added, bookmark, last = await _lines(answer, 3)
        assert await answer.content.read() == b""  # ended by its own timeout, with a bookmark to go on from
    assert (added["type"], added["object"]["metadata"]["name"]) == ("ADDED", "a")
    assert bookmark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert last["type"] == "BOOKMARK"


async def test_table_watches_name_their_columns_once(api: Api) -> None:
    await api.ask("POST", WIDGETS, widget("a"))
    async with api.session().get(WIDGETS, params={"watch": "1"}, headers=TABLE) as answer:
        await api.ask("PATCH", f"{WIDGETS}/a", {"spec": {"color": "red"}}, headers=MERGE)
        first, second = await _lines(answer, 2)
    assert (len(first["object"]["columnDefinitions"]), second["object"]["columnDefinitions"]) == (2, [])
    assert second["object"]["rows"][0]["cells"] == ["a", "red"]


async def test_a_watch_of_much_is_sent_as_it_is_read(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hotvirt.server.watchstream.MOST_WAITING", 600 * 1024)
    for i in range(20):
        await api.ask("POST", WIDGETS, widget(f"w{i:02}", color="x" * 100_000))
    async with api.session().get(WIDGETS, params={"watch": "1"}, read_bufsize=4096) as answer:
        await asyncio.sleep(0.05)  # reading later than it is offered
        await api.ask("DELETE", f"{WIDGETS}/w00")
        lines = [json.loads(await answer.content.readline(max_line_length=200_000)) for _ in range(21)]
    assert [line["object"]["metadata"]["name"] for line in lines] == [*(f"w{i:02}" for i in range(20)), "w00"]
    assert lines[-1]["type"] == "DELETED"


async def test_a_watch_from_the_forgotten_past_is_gone(api: Api) -> None:
    for color in ("red", "blue"):
        await api.ask("POST", WIDGETS, widget(color, color=color))
    await api.server.store.compact(api.server.store.revision)
    status, refusal = await api.ask("GET", WIDGETS, params={"watch": "1", "resourceVersion": "2"})
    assert (status, refusal["reason"]) == (410, "Expired")


async def test_a_watcher_that_does_not_read_is_cut_off(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hotvirt.server.watchstream.MOST_WAITING", 64 * 1024)
    await api.ask("POST", WIDGETS, widget("a"))
    async with api.session().get(WIDGETS, params={"watch": "1", "resourceVersion": "1"}, read_bufsize=1024) as answer:
        client = api.server.client()
        from hotvirt.kube.resources import Resource

        resource = Resource("example.com", "v1", "widgets", "Widget")
        for i in range(200):
            await client.patch(resource, "a", {"spec": {"color": str(i) + "x" * 100_000}}, "default")
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await answer.content.read()


async def test_stopping_ends_watches_at_once(api: Api) -> None:
    async with api.session().get(WIDGETS, params={"watch": "1"}) as answer:
        async with asyncio.timeout(2):
            await api.server.stop()
        assert await answer.content.read() == b""


async def test_a_watch_ends_with_its_kind(api: Api) -> None:
    await api.ask("POST", WIDGETS, widget("a"))
    async with api.session().get(WIDGETS, params={"watch": "1"}) as answer:
        await api.ask("DELETE", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.com")
        lines = (await answer.content.read()).splitlines()
    assert [json.loads(line)["type"] for line in lines] == ["ADDED", "DELETED"]


# -- identities and permission


async def test_nobody_reaches_health_and_version_alone(api: Api) -> None:
    for path in ("/healthz", "/livez", "/readyz"):
        assert await api.ask("GET", path, user="") == (200, "ok")
    status, version = await api.ask("GET", "/version", user="")
    assert (status, version["major"], version["minor"]) == (200, "1", "36")
    for path in (WIDGETS, "/api", "/apis", "/openapi/v2", "/apis/doors.example.com/v1/version"):
        status, refusal = await api.ask("GET", path, user="")
        assert (status, refusal["reason"]) == (403, "Forbidden"), path


async def test_certificates_name_users_and_groups(api: Api) -> None:
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    api.session("jane", "staff", "ops")
    status, who = await api.ask("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", review, user="jane")
    assert status == 201
    assert who["status"]["userInfo"] == {"username": "jane", "groups": ["staff", "ops", "system:authenticated"]}
    status, refusal = await api.ask("GET", WIDGETS, user="jane")
    assert status == 403
    assert refusal["message"] == (
        'widgets.example.com is forbidden: User "jane" cannot list resource "widgets" in API group "example.com" '
        'in the namespace "default"'
    )


async def _token(api: Api, name: str = "default") -> str:
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}}
    async with asyncio.timeout(5):
        while True:  # the account is made by a controller of the server
            status, made = await api.ask("POST", f"/api/v1/namespaces/default/serviceaccounts/{name}/token", request)
            if status == 201:
                return str(made["status"]["token"])


async def test_tokens_live_as_long_as_their_account(api: Api) -> None:
    token = await _token(api)
    bearer = {"Authorization": f"Bearer {token}"}
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    _, told = await api.ask("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review)
    assert told["status"]["user"]["username"] == "system:serviceaccount:default:default"
    status, _ = await api.ask("GET", "/apis", user="", headers=bearer)
    assert status == 200
    broken = {"Authorization": f"Bearer {token[:-2]}xx"}
    assert (await api.ask("GET", "/apis", user="", headers=broken))[0] == 401
    await api.ask("DELETE", "/api/v1/namespaces/default/serviceaccounts/default")
    assert (await api.ask("GET", "/apis", user="", headers=bearer))[0] == 401


async def test_impersonation_needs_permission(api: Api) -> None:
    acting = {"Impersonate-User": "jane", "Impersonate-Group": "staff"}
    status, refusal = await api.ask("GET", WIDGETS, headers=acting)
    assert (status, 'User "jane"' in refusal["message"]) == (403, True)
    status, refusal = await api.ask("GET", WIDGETS, user="joe", headers=acting)
    assert (status, 'cannot impersonate resource "users"' in refusal["message"]) == (403, True)


async def test_roles_take_effect_at_once_and_cannot_be_escalated(api: Api) -> None:
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    kind = {"apiVersion": "rbac.authorization.k8s.io/v1"}
    rules = [
        {"apiGroups": ["example.com"], "resources": ["widgets"], "verbs": ["get", "list"]},
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"], "verbs": ["create"]},
    ]
    role = {**kind, "kind": "Role", "metadata": {"name": "reader"}, "rules": rules}
    binding = {
        **kind, "kind": "RoleBinding", "metadata": {"name": "jane"},
        "roleRef": {"kind": "Role", "name": "reader"}, "subjects": [{"kind": "User", "name": "jane"}],
    }  # fmt: skip
    assert (await api.ask("POST", f"{rbac}/namespaces/default/roles", role))[0] == 201
    assert (await api.ask("POST", f"{rbac}/namespaces/default/rolebindings", binding))[0] == 201
    assert (await api.ask("GET", WIDGETS, user="jane"))[0] == 200
    assert (await api.ask("GET", "/apis/example.com/v1/widgets", user="jane"))[0] == 403
    assert (await api.ask("POST", WIDGETS, widget("a"), user="jane"))[0] == 403

    more = {**role, "metadata": {"name": "writer"}}
    more["rules"] = [{"apiGroups": ["example.com"], "resources": ["widgets"], "verbs": ["delete"]}]
    status, refusal = await api.ask("POST", f"{rbac}/namespaces/default/roles", more, user="jane")
    assert (status, "attempting to grant RBAC permissions not currently held" in refusal["message"]) == (403, True)
    grab = {**binding, "metadata": {"name": "grab"}, "roleRef": {"kind": "ClusterRole", "name": "cluster-admin"}}
    assert (await api.ask("POST", f"{rbac}/namespaces/default/rolebindings", grab, user="jane"))[0] == 403
    same = {**role, "metadata": {"name": "same"}}
    assert (await api.ask("POST", f"{rbac}/namespaces/default/roles", same, user="jane"))[0] == 201


async def test_access_reviews(api: Api) -> None:
    for user, allowed in (("admin", True), ("jane", False)):
        spec = {"resourceAttributes": {"verb": "list", "group": "example.com", "resource": "widgets"}}
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec}
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        _, told = await api.ask("POST", path, review, user=user)
        assert told["status"]["allowed"] is allowed


# -- groups beside the stored ones


async def test_an_aggregated_group_is_checked_and_served(api: Api) -> None:
    path = "/apis/doors.example.com/v1/namespaces/default/widgets/a/open/wide/now"
    status, told = await api.ask("PUT", path)
    assert (status, told) == (200, {"by": "admin", "name": "a", "rest": "wide/now"})
    status, refusal = await api.ask("PUT", path, user="jane")
    assert (status, 'cannot update resource "widgets/open"' in refusal["message"]) == (403, True)
    assert (await api.ask("GET", "/apis/doors.example.com/v1/version", user="jane"))[0] == 200
    async with api.session().ws_connect(path, protocols=("plain.example.com",)) as socket:
        assert socket.protocol == "plain.example.com"
        await socket.send_str("knock")
        assert (await socket.receive_str()) == "a:knock"


async def test_discovery_names_everything(api: Api) -> None:
    _, groups = await api.ask("GET", "/apis")
    assert {"example.com", "doors.example.com", "apps"} <= {group["name"] for group in groups["groups"]}
    _, listed = await api.ask("GET", "/apis/example.com/v1")
    rows = {row["name"]: row for row in listed["resources"]}
    assert set(rows) == {"widgets", "widgets/status", "widgets/scale"}
    assert (rows["widgets"]["shortNames"], rows["widgets/scale"]["group"]) == (["wd"], "autoscaling")
    wanted = {"Accept": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"}
    _, told = await api.ask("GET", "/apis", headers=wanted)
    items = {item["metadata"]["name"]: item for item in told["items"]}
    assert [v["version"] for v in items["example.com"]["versions"]] == ["v1", "v1alpha1"]
    doors = items["doors.example.com"]["versions"][0]["resources"][0]
    assert doors["subresources"][0]["subresource"] == "open"
    _, core = await api.ask("GET", "/api", headers=wanted)
    assert core["items"][0]["versions"][0]["version"] == "v1"


async def test_openapi_follows_what_is_served(api: Api, definition: dict[str, Any]) -> None:
    _, index = await api.ask("GET", "/openapi/v3")
    assert "apis/example.com/v1" in index["paths"]
    _, doc = await api.ask("GET", "/openapi/v3/apis/example.com/v1")
    assert any(name.endswith("Widget") for name in doc["components"]["schemas"])
    async with api.session().get("/openapi/v2") as answer:
        tag = answer.headers["ETag"]
        await answer.read()
    async with api.session().get("/openapi/v2", headers={"If-None-Match": tag}) as answer:
        assert answer.status == 304
    old = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"  # all that kubectl 1.20 takes
    async with api.session().get("/openapi/v2", headers={"Accept": old}) as answer:
        assert (answer.status, answer.content_type) == (200, old.replace("@", "."))
        body = await answer.read()
    assert body.startswith(b"\x0a\x032.0")
    assert b"Widget" in body
    assert (await api.ask("GET", "/openapi/v2", headers={"Accept": "text/html"}))[0] == 406


# -- bad input


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{" * 10, {}, 400),
        (b"[1]", {}, 400),
        (b'"text"', {}, 400),
        (b"", {}, 400),
        (b"\xff\xfe", {}, 400),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, {}, 400),
        (b"x" * (3 * 1024 * 1024 + 1), {}, 413),
        (b"<xml/>", {"Content-Type": "application/xml"}, 415),
        (b"k8s\x00\xff\xff\xff", {"Content-Type": "application/vnd.kubernetes.protobuf"}, 400),
        (b"a: &a [x, x]\nb: *a", {"Content-Type": "application/yaml"}, 400),
    ],
    ids=["cut off", "list", "text", "empty", "not UTF-8", "deep", "large", "xml", "protobuf", "alias"],
)
async def test_bad_bodies_are_answered_with_a_status(api: Api, body: bytes, headers: Any, status: int) -> None:
    got, refusal = await api.ask("POST", WIDGETS, body, headers=headers)
    assert (got, refusal["kind"], refusal["code"]) == (status, "Status", status)
    assert "Traceback" not in refusal["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/apis/example.com/v1/gadgets", 404),
        ("GET", "/apis/example.com/v9/widgets", 404),
        ("GET", "/apis/example.com/v1/namespaces/default/widgets/a/nothing", 404),
        ("GET", "/api/v1/namespaces/default/pods/%2e%2e/log", 400),
        ("GET", "/api/v1/namespaces/default/pods/%ff", 400),
        ("POST", "/version", 405),
        ("POST", "/apis/example.com/v1/widgets", 405),
        ("OPTIONS", WIDGETS, 405),
        ("GET", f"{WIDGETS}?limit=minus", 400),
        ("GET", f"{WIDGETS}?labelSelector=%21%21", 400),
        ("GET", f"{WIDGETS}?watch=1&resourceVersion=abc", 400),
        ("DELETE", f"{WIDGETS}/a?propagationPolicy=Sideways", 422),
        ("PATCH", f"{WIDGETS}/a", 415),
    ],
)
async def test_bad_requests_are_answered_with_a_status(api: Api, method: str, path: str, status: int) -> None:
    from yarl import URL

    target = URL(f"https://127.0.0.1:{api.server.port}{path}", encoded=True)
    async with api.session().request(method, target, data=None) as answer:
        refusal = await answer.json()
    assert (answer.status, refusal["kind"], refusal["code"]) == (status, "Status", status)


async def _raw(api: Api, sent: bytes) -> bytes:
    """What comes back over TLS until the server closes."""
    context = ssl.create_default_context(cafile=str(api.server.config.pki / "ca.crt"))
    reader, writer = await asyncio.open_connection("127.0.0.1", api.server.port, ssl=context)
    writer.write(sent)
    async with asyncio.timeout(5):
        got = await reader.read()
    writer.close()
    return got


@pytest.mark.parametrize(
    "sent",
    [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 70_000 + b"\r\n\r\n"],
    ids=["no HTTP", "endless header"],
)
async def test_what_is_not_http_is_told_so_with_a_status(api: Api, sent: bytes) -> None:
    head, _, body = (await _raw(api, sent)).partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400"))
    assert json.loads(body)["reason"] == "BadRequest"


async def test_a_connection_that_asks_nothing_is_closed(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hotvirt.server.http.FIRST_REQUEST_SECONDS", 0.05)
    assert await _raw(api, b"GET / HT") == b""


async def test_a_plug_in_that_breaks_shows_no_traceback(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(api.server.verbs, "get", broken)
    status, refusal = await api.ask("GET", f"{WIDGETS}/a")
    assert (status, refusal["reason"]) == (500, "InternalError")
    assert "secret" not in json.dumps(refusal)


async def test_a_taken_port_is_said_so(api: Api, tmp_path: Path, keys: Path) -> None:
    config = ServerConfig(state_db=tmp_path / "other.db", pki=keys, port=api.server.port)
    second = ApiServer(config)
    with pytest.raises(OSError, match="in use"):
        await second.start()
