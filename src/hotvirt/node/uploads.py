"""The upload proxy: images over HTTPS into claims that wait for one, for who has a token (`images.uploadtokens`).

    POST, PUT /v1beta1/upload[-form]          answered when the disk is there, or with what is wrong with the image
    POST, PUT /v1beta1/upload[-form]-async    answered when all has arrived; the claim's annotations tell of the rest
    HEAD      the same paths                  whether the proxy is there and the token is good

An upload that ends early leaves nothing. One that has arrived is taken in by the next home when this one dies. Of one
claim there is one upload at a time.
"""

import asyncio
import errno
import logging
import os
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import BodyPartReader, web
from msgspec import Struct

from hotvirt.images import copying, publish, threads, uploadtokens
from hotvirt.images.uploadtokens import Target
from hotvirt.kube.client import Client
from hotvirt.kube.errors import NotFound
from hotvirt.kube.informer import Key
from hotvirt.kube.resources import CDI_CONFIGS
from hotvirt.kube.times import Clock
from hotvirt.node.filling import RECEIVED, most
from hotvirt.node.imports import Imports

log = logging.getLogger(__name__)

CONFIG = "config"
PATHS = ("upload", "upload-async", "upload-form", "upload-form-async")
_CHUNK = 4 << 20
_PATIENCE = 6 * 3600.0
STALL = 120.0
"""Seconds that a client may send nothing."""


class Front(Struct, frozen=True):
    """What the proxy is made of: the key of tokens, TLS (None for plain HTTP, in tests), and the authority (PEM) that
    its certificate comes from."""

    key: bytes
    context: ssl.SSLContext | None = None
    authority: str = ""


class Uploads:
    def __init__(
        self, imports: Imports, client: Client, front: Front, *, clock: Clock, stall: float = STALL
    ) -> None:  # fmt: skip
        self._imports, self._client, self._front, self._clock, self._stall = imports, client, front, clock, stall
        self._busy: set[str] = set()
        self._runner: web.AppRunner | None = None

    async def begin(self) -> None:
        """Serves, and tells clients where."""
        port = await self.start()
        scheme = "https" if self._front.context is not None else "http"
        status = {"uploadProxyURL": f"{scheme}://127.0.0.1:{port}", "uploadProxyCA": self._front.authority or None}
        try:
            await self._client.patch(CDI_CONFIGS, CONFIG, {"status": status}, subresource="status")
        except NotFound:
            log.warning("there is no CDIConfig %s: clients are to be told of %s", CONFIG, status["uploadProxyURL"])

    async def start(self, *, host: str = "127.0.0.1", port: int = 0) -> int:
        """The port."""
        app = web.Application(client_max_size=1 << 20)
        for path in PATHS:
            for method in ("POST", "PUT"):
                app.router.add_route(method, f"/v1beta1/{path}", self._upload)
            app.router.add_route("HEAD", f"/v1beta1/{path}", self._head)
        app.router.add_get("/healthz", _health)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, read_bufsize=_CHUNK)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, ssl_context=self._front.context)
        await site.start()
        found: int = self._runner.addresses[0][1]
        return found

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _target(self, request: web.Request) -> Target:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        target = (
            uploadtokens.verify(self._front.key, token, now=self._clock().timestamp()) if scheme == "Bearer" else None
        )
        if target is None:
            raise web.HTTPUnauthorized(text="the token is missing, too old or not of this home: ask for a new one\n")
        return target

    async def _head(self, request: web.Request) -> web.Response:
        self._target(request)
        return web.Response()

    async def _upload(self, request: web.Request) -> web.Response:
        target = self._target(request)
        key = Key(target.namespace, target.name)
        file = None if target.uid in self._busy else self._imports.upload(key, target.uid)
        if file is None:
            raise web.HTTPServiceUnavailable(text=f"claim {target.name} does not wait for an upload (any more)\n")
        self._busy.add(target.uid)
        try:
            await self._receive(request, file, limit=most(self._imports.size_of(key)))
            done = self._imports.received(key, target.uid)
        finally:
            self._busy.discard(target.uid)
        if "async" not in request.path:
            async with asyncio.timeout(_PATIENCE):
                await done.wait()
            if error := self._imports.outcome(target.uid):
                raise web.HTTPBadRequest(text=f"{error}\n")
        return web.Response()

    async def _receive(self, request: web.Request, file: Path, *, limit: int) -> None:
        file.unlink(missing_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            at, pieces = 0, copying.Pieces()
            async for chunk in self._body(request):
                is_enough = pieces.add(chunk)
                if at + pieces.size > limit:
                    raise web.HTTPRequestEntityTooLarge(
                        max_size=limit, actual_size=at + pieces.size, text="it is far larger than its claim\n"
                    )
                if is_enough:
                    at = await threads.to_its_end(copying.append, descriptor, pieces.taken(), at)
            at = await threads.to_its_end(copying.append, descriptor, pieces.taken(), at)
            if not at:
                raise web.HTTPBadRequest(text="nothing was sent: send the image as the body\n")
        except BaseException as error:
            file.unlink(missing_ok=True)
            if isinstance(error, TimeoutError):
                raise web.HTTPRequestTimeout(text=f"nothing came for {self._stall:g} s\n") from error
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise web.HTTPInsufficientStorage(text=f"{copying.told(error, file)}\n") from error
            raise
        finally:
            os.close(descriptor)
        file.rename(file.with_name(RECEIVED))
        await asyncio.to_thread(publish.sync_path, file.parent)

    async def _body(self, request: web.Request) -> AsyncIterator[bytes]:
        if "form" not in request.path:
            while True:
                async with asyncio.timeout(self._stall):
                    chunk, is_chunk_end = await request.content.readchunk()
                if chunk:
                    yield chunk
                elif not is_chunk_end:
                    return
        async for part in await request.multipart():
            if isinstance(part, BodyPartReader) and part.name == "file":
                while chunk := await part.read_chunk(1 << 20):
                    yield chunk
                return
        raise web.HTTPBadRequest(text="the form has no field named file\n")


async def _health(_request: web.Request) -> web.Response:
    return web.Response(text="OK")
