"""Requests for resources: query and body to a `Call`, the verb, and the answer in the form that was asked for."""

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp import web

from hotvirt.kube.admission import User
from hotvirt.kube.errors import BadRequest, MethodNotAllowed, NotFound, UnsupportedMediaType
from hotvirt.server import bodies, negotiation, queries, responses
from hotvirt.server.access import Attributes
from hotvirt.server.calls import Call, DeleteOptions, option_fault
from hotvirt.server.escalation import Escalation
from hotvirt.server.forms import Renderer
from hotvirt.server.lists import Listing
from hotvirt.server.negotiation import Form
from hotvirt.server.objectmeta import FORBIDDEN
from hotvirt.server.paths import Target
from hotvirt.server.podstreams import SUBRESOURCES as STREAMS
from hotvirt.server.podstreams import PodStreamHandler
from hotvirt.server.registry import Served
from hotvirt.server.store import Entry
from hotvirt.server.watchstream import WatchStreams

if TYPE_CHECKING:
    from hotvirt.server.app import ApiServer

Document = dict[str, Any]
PLAIN_SUBRESOURCES = ("status", "resize", "ephemeralcontainers")  # the object itself, written by other rules
BODY_SECONDS = 60.0
_SHOWN_WHEN_GONE = (
    "/pods", "/persistentvolumeclaims", "/persistentvolumes", "/services", "/serviceaccounts", "/podtemplates",
    "/resourcequotas", "storage.k8s.io/storageclasses", "storage.k8s.io/csidrivers", "storage.k8s.io/csinodes",
    "storage.k8s.io/volumeattachments",
)  # fmt: skip
_OPTIONS = {
    "create": "CreateOptions", "update": "UpdateOptions", "patch": "PatchOptions", "delete": "DeleteOptions",
    "deletecollection": "DeleteOptions",
}  # fmt: skip


class ResourceHandler:
    def __init__(self, server: "ApiServer") -> None:
        self._server = server
        self._verbs, self._subresources = server.verbs, server.subresources
        self._access, self._registry = server.access, server.registry
        self._escalation = Escalation(server.access)
        self._streams = PodStreamHandler(server.access, server.verbs, server.pod_streams)
        self._renderer = Renderer(server.store, server.verbs.now)
        self._watches = WatchStreams(server.store, server.registry, self._renderer, server.bookmarks, server.closed)

    async def handle(self, request: web.Request, target: Target, user: User, verb: str) -> web.StreamResponse:
        query = request.query
        verb = _precise(verb, target, watch=queries.flag(query, "watch"))
        self._access.require(
            user,
            Attributes(
                verb=verb, group=target.group, version=target.version, resource=target.plural,
                subresource=target.subresource, namespace=target.namespace, name=target.name,
            ),
        )  # fmt: skip
        served = self._find(target, verb)
        options = _OPTIONS.get(verb, "CreateOptions")
        call = Call(
            served=served,
            user=user,
            namespace=target.namespace,
            name=target.name,
            subresource=target.subresource,
            dry_run=queries.dry_run(query, options=options),
            field_manager=queries.field_manager(query, request.headers.get("User-Agent", ""), options=options),
            field_validation=queries.field_validation(query, options=options),
        )
        if served.deprecated:
            call.warnings.append(served.deprecated)
        if target.subresource in STREAMS and served.store == "/pods":
            entry = await self._verbs.get(call)
            return await self._streams.serve(request, call, self._server.store.doc(entry))
        form = negotiation.accepted(request.headers.get("Accept"))
        match verb:
            case "get":
                return await self._get(request, call, form)
            case "list":
                return await self._list(request, call, form)
            case "watch":
                return await self._watches.serve(request, call, form)
            case "create":
                return await self._create(request, call, form)
            case "update":
                return await self._update(request, call, form)
            case "patch":
                return await self._patch(request, call, form)
            case "delete":
                return await self._delete(request, call)
        return await self._delete_collection(request, call, form)

    def _find(self, target: Target, verb: str) -> Served:
        served = self._registry.find(target.group, target.version, target.plural)
        if served is None or (target.namespace and not served.resource.namespaced):
            raise NotFound("the server could not find the requested resource")
        allowed = served.verbs
        if target.subresource:
            sub = served.subresource(target.subresource)
            if sub is None or target.rest:
                raise NotFound("the server could not find the requested resource")
            allowed = sub.verbs
        lone = target.name and verb == "create" and not target.subresource
        if verb not in allowed or lone or (verb in ("update", "patch") and not target.name):
            raise MethodNotAllowed(
                "the server does not allow this method on the requested resource", kind=target.plural
            )
        if (
            served.resource.namespaced
            and not target.namespace
            and verb not in ("list", "watch")
            and served.verbs != ("create",)
        ):
            raise MethodNotAllowed(f"{served.qualified} are in namespaces: name one in the path", kind=target.plural)
        return served

    # -- reading

    async def _get(self, request: web.Request, call: Call, form: Form) -> web.StreamResponse:
        if call.subresource and call.subresource not in PLAIN_SUBRESOURCES:
            if call.subresource == "log":
                return await self._server.pod_log(request, call)
            return responses.json_response(await self._subresources.read(call))
        return self._entry(request, call, form, await self._verbs.get(call))

    async def _list(self, request: web.Request, call: Call, form: Form) -> web.Response:
        listing = await self._verbs.list(call, queries.list_options(request.query))
        return self._listing(request, call, form, listing)

    def _listing(self, request: web.Request, call: Call, form: Form, listing: Listing) -> web.Response:
        pieces = self._renderer.listing(call.served, form, listing, include=queries.include_object(request.query))
        return responses.json_response(responses.Pieces(pieces), warnings=call.warnings)

    # -- writing

    async def _create(self, request: web.Request, call: Call, form: Form) -> web.Response:
        body = await self._body(request, call)
        if call.subresource:
            made = await self._subresources.write(call, "POST", body)
            return responses.json_response(made, status=201, warnings=call.warnings)
        if call.served.verbs == ("create",):
            return responses.json_response(await self._subresources.review(call, body), status=201)
        self._escalation.check(call, body)
        return self._entry(request, call, form, await self._verbs.create(call, body), status=201)

    async def _update(self, request: web.Request, call: Call, form: Form) -> web.Response:
        body = await self._body(request, call)
        if call.subresource and call.subresource not in PLAIN_SUBRESOURCES:
            return responses.json_response(await self._subresources.write(call, "PUT", body), warnings=call.warnings)
        self._escalation.check(call, body)
        return self._entry(request, call, form, await self._verbs.update(call, body))

    async def _patch(self, request: web.Request, call: Call, form: Form) -> web.Response:
        kind = negotiation.PATCHES.get(request.content_type)
        if kind is None:
            known = ", ".join(negotiation.PATCHES)
            raise UnsupportedMediaType(
                f"the body of the request was in an unknown format - accepted media types include: {known}"
            )
        patch = await self._body(request, call)
        if kind == "apply":
            call.field_manager = request.query.get("fieldManager", "")
        if call.subresource == "scale":
            return responses.json_response(await self._subresources.patch_scale(call, kind, patch))
        existed = self._server.store.get(call.key) is not None
        force = queries.flag(request.query, "force")
        if force and kind != "apply":
            message = "Forbidden: may not be specified for non-apply patch"
            raise option_fault("PatchOptions", "force", FORBIDDEN, message)
        entry = await self._verbs.patch(
            call, kind, patch, force=force, inspect=lambda new: self._escalation.check(call, new)
        )  # fmt: skip
        return self._entry(request, call, form, entry, status=200 if existed else 201)

    async def _delete(self, request: web.Request, call: Call) -> web.Response:
        options, dry = queries.delete_options(request.query, await self._options(request))
        call.dry_run = call.dry_run or dry
        entry, gone = await self._verbs.delete(call, options)
        doc = call.served.shown(self._server.store.doc(entry))
        if not gone or call.served.store in _SHOWN_WHEN_GONE:
            return responses.json_response(doc, warnings=call.warnings)
        done = responses.success(
            name=call.name, group=call.served.resource.group, kind=call.served.resource.plural,
            uid=doc["metadata"].get("uid", ""),
        )  # fmt: skip
        return responses.json_response(done, warnings=call.warnings)

    async def _delete_collection(self, request: web.Request, call: Call, form: Form) -> web.Response:
        options, dry = queries.delete_options(request.query, await self._options(request))
        call.dry_run = call.dry_run or dry
        each = DeleteOptions(grace=options.grace, propagation=options.propagation)
        chosen = queries.list_options(request.query)
        return self._listing(request, call, form, await self._verbs.delete_collection(call, each, chosen))

    # -- parts

    def _entry(self, request: web.Request, call: Call, form: Form, entry: Entry, *, status: int = 200) -> web.Response:
        body = self._renderer.entry(call.served, form, entry, include=queries.include_object(request.query))
        return responses.json_response(body, status=status, warnings=call.warnings)

    async def _body(self, request: web.Request, call: Call) -> Any:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                data = await request.read()
        except TimeoutError:
            raise BadRequest(f"the body did not arrive within {BODY_SECONDS:.0f} seconds") from None
        doc, duplicates = negotiation.decode(data, request.headers.get("Content-Type", ""))
        call.duplicate_fields = duplicates
        return doc

    async def _options(self, request: web.Request) -> Document:
        data = await request.read() if request.can_read_body else b""
        if not data.strip():
            return {}
        doc, _ = negotiation.decode(data, request.headers.get("Content-Type", ""))
        return bodies.check("DeleteOptions", doc)


def _precise(verb: str, target: Target, *, watch: bool) -> str:
    if verb == "get" and not target.name:
        return "watch" if watch else "list"
    if verb == "delete" and not target.name:
        return "deletecollection"
    return verb
