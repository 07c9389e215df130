"""The HTTP front: TLS, who asks and may they, and which part answers. Every failure leaves as a Status document.

One handler for all requests, on aiohttp's low-level server. A handler is cancelled when its client goes away; a write
that is under way is finished by the store all the same.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from aiohttp import web

from hotvirt.kube.aggregated import AggregatedGroup, RequestContext
from hotvirt.kube.errors import ApiError, BadRequest, InternalError, MethodNotAllowed, NotFound, TooLarge
from hotvirt.server import backups, paths
from hotvirt.server.access import Attributes
from hotvirt.server.authn import Authenticator
from hotvirt.server.describe import Describer
from hotvirt.server.paths import Target
from hotvirt.server.resourcehttp import ResourceHandler
from hotvirt.server.responses import compressed, status_response, text_response

if TYPE_CHECKING:
    from hotvirt.kube.admission import User
    from hotvirt.server.app import ApiServer

LARGEST_BODY = 3 * 1024 * 1024
IDLE_SECONDS = 180.0
FIRST_REQUEST_SECONDS = 30.0
_VERBS = {"GET": "get", "HEAD": "get", "PUT": "update", "POST": "create", "PATCH": "patch", "DELETE": "delete"}
METRICS = "/metrics"
BACKUP = "/backup"  # for whoever may `get` this path: of the roles that come with the server, cluster-admin alone
_HEALTH = ("/healthz", "/livez", "/readyz")
_log = logging.getLogger(__name__)


def _health_in_full(path: str) -> str:
    return f"[+]ping ok\n{path.split('/')[1]} check passed\n"


class HttpFront:
    def __init__(self, server: "ApiServer", groups: Sequence[AggregatedGroup], context: ssl.SSLContext) -> None:
        self._context = context
        self._groups = {group.name: group for group in groups}
        self._access, self._store, self._metrics = server.access, server.store, server.metrics
        self._doors = server.doors
        self._authenticator = Authenticator(server.tokens, server.access)
        self._describer = Describer(server.registry, groups, version=server.config.version)
        self._resources = ResourceHandler(server)
        self._runner: web.ServerRunner | None = None
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        handler = _Server(
            self._handle,  # type: ignore[arg-type]  # given web.Request by the factory
            request_factory=_make_request,
            handler_cancellation=True,
            keepalive_timeout=IDLE_SECONDS,
            access_log=None,
            max_line_size=16 * 1024,
            max_field_size=64 * 1024,
        )
        self._runner = web.ServerRunner(handler, shutdown_timeout=2.0)
        await self._runner.setup()
        listener = _listen(host, port)
        self.port = listener.getsockname()[1]
        await web.SockSite(self._runner, listener, ssl_context=self._context, backlog=1024).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        try:
            response = await self._answer(request)
            return await compressed(response, request) if isinstance(response, web.Response) else response
        except ApiError as error:
            return status_response(error)
        except web.HTTPRequestEntityTooLarge:
            return status_response(TooLarge(f"Request entity too large: limit is {LARGEST_BODY}"))
        except web.HTTPException as error:
            return status_response(BadRequest(error.text or error.reason))
        except asyncio.CancelledError:
            raise
        except ConnectionError:
            raise
        except Exception:  # noqa: BLE001  logged; a client never sees a traceback
            _log.exception("%s %s failed", request.method, request.path)
            return status_response(InternalError("Internal error occurred: the home's log has the details"))

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.rel_url.raw_path
        for door in self._doors:
            if path.startswith(door.prefix):
                return await door.handle(request)
        user = self._authenticator.user_of(request)
        target = paths.parse(path)
        if target is None or not target.plural:
            return await self._answer_path(request, path, target, user)
        verb = _VERBS.get(request.method)
        if verb is None:
            raise MethodNotAllowed(f"{request.method} is not a method of this API")
        if target.group in self._groups:
            return await self._answer_aggregated(request, self._groups[target.group], target, user, verb)
        return await self._resources.handle(request, target, user, verb)

    async def _answer_path(
        self, request: web.Request, path: str, target: Target | None, user: "User"
    ) -> web.StreamResponse:
        self._access.require(user, Attributes(verb=request.method.lower(), path=path))
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(f"{path} can only be read")
        if path.rstrip("/").removesuffix("/ping") in _HEALTH:
            return text_response(_health_in_full(path) if "verbose" in request.query else "ok")
        if path == METRICS and self._metrics is not None:
            return web.Response(body=await self._metrics(), headers={"Content-Type": "text/plain; version=0.0.4"})
        if path == BACKUP:
            return await backups.send(request, await self._store.snapshot())
        return await self._describer.answer(request, path, target)

    async def _answer_aggregated(
        self, request: web.Request, group: AggregatedGroup, target: Target, user: "User", verb: str
    ) -> web.StreamResponse:
        if target.version not in group.versions:
            raise NotFound("the server could not find the requested resource")
        if target.plural in group.open_paths:
            if user.name == "system:anonymous":
                self._access.require(user, Attributes(verb=verb, path=request.rel_url.raw_path))
        else:
            self._access.require(
                user,
                Attributes(
                    verb=verb, group=group.name, version=target.version, resource=target.plural,
                    subresource=_declared(group, target), namespace=target.namespace, name=target.name,
                ),
            )  # fmt: skip
        context = RequestContext(
            user, target.version, target.namespace, target.plural, target.name, target.subresource,
            "/".join(target.rest),
        )  # fmt: skip
        return await group.handle(request, context)


def _declared(group: AggregatedGroup, target: Target) -> str:
    """The subresource as the group and roles name it: `vnc/screenshot` is one of its own, `portforward/22` is not."""
    names = {each.name for each in group.resources}
    parts = (target.subresource, *target.rest)
    for length in range(len(parts), 1, -1):
        if f"{target.plural}/{'/'.join(parts[:length])}" in names:
            return "/".join(parts[:length])
    return target.subresource


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(web.RequestHandler):
    """Answers what is not HTTP with a Status too, and closes connections that never come to ask anything."""

    __slots__ = ("_patience",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._patience = asyncio.get_running_loop().call_later(FIRST_REQUEST_SECONDS, self._give_up)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._patience.cancel()
        super().connection_lost(exc)

    def _give_up(self) -> None:
        if not self._request_count and self.transport is not None:
            self.transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun already")
        error: ApiError = InternalError("Internal error occurred: the home's log has the details")
        if status < 500:
            error = BadRequest(f"this is not a request that can be read: {message or exc or status}"[:300])
        else:
            _log.error("a request failed", exc_info=exc)
        response = status_response(error)
        response.force_close()
        return response


def _make_request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.Request:
    return web.Request(
        message, payload, protocol, writer, task, asyncio.get_running_loop(), client_max_size=LARGEST_BODY
    )  # fmt: skip


def _listen(host: str, port: int) -> socket.socket:
    """Bound here, so that the port is known, and a taken one is said so at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
