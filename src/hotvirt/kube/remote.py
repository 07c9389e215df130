"""The `Client` for any cluster, over HTTPS: one connection pool, shared by all its callers on one event loop.

Calls are bounded by `timeout`; a watch is bounded only by silence: the server is asked to end it after a few minutes,
and one that is silent for much longer is taken for dead. Every way not to get an answer is `Unreachable`.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from random import random
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import msgspec

from hotvirt.kube.client import Document, JsonPatch, PatchKind, WatchEvent
from hotvirt.kube.errors import ApiError, InternalError, Unreachable, from_status
from hotvirt.kube.kubeconfig import Access
from hotvirt.kube.resources import Resource
from hotvirt.kube.tls import client_context

if TYPE_CHECKING:
    import aiohttp

PATCH_TYPES: dict[PatchKind, str] = {
    "json": "application/json-patch+json",
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}
WATCH_SECONDS = 300
LONGEST_LINE = 8 * 1024 * 1024
FIELD_MANAGER = "hotvirt"
_CHUNK = 64 * 1024


class RemoteClient:
    """`async with RemoteClient(kubeconfig.load()) as client: ...`; implements `hotvirt.kube.client.Client`."""

    def __init__(self, access: Access, *, timeout: float = 30.0, watch_seconds: int = WATCH_SECONDS) -> None:
        self.access = access
        self._timeout, self._watch_seconds = timeout, watch_seconds
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Document:
        return await self._call("GET", resource.path(namespace, name))

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 0,
        continue_token: str = "",
    ) -> Document:
        query = {
            "labelSelector": label_selector, "fieldSelector": field_selector,
            "limit": str(limit or ""), "continue": continue_token,
        }  # fmt: skip
        found = await self._call("GET", resource.path(namespace), query=query)
        # Items of a list come without their kind; everything that holds one document alone needs it.
        for item in found.get("items") or ():
            item.setdefault("apiVersion", resource.api_version)
            item.setdefault("kind", resource.kind)
        return found

    async def create(
        self, resource: Resource, obj: Document, namespace: str | None = None, *, dry_run: bool = False
    ) -> Document:
        where = namespace or obj["metadata"].get("namespace")
        return await self._call("POST", resource.path(where), body=obj, query=_writing(dry_run))

    async def update(self, resource: Resource, obj: Document, *, subresource: str = "") -> Document:
        metadata = obj["metadata"]
        path = resource.path(metadata.get("namespace"), metadata["name"], subresource)
        return await self._call("PUT", path, body=obj, query=_writing())

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Document | JsonPatch,
        namespace: str | None = None,
        *,
        kind: PatchKind = "merge",
        subresource: str = "",
        field_manager: str = "",
        force: bool = False,
        dry_run: bool = False,
    ) -> Document:
        query = _writing(dry_run, field_manager)
        if kind == "apply" and force:
            query["force"] = "true"
        path = resource.path(namespace, name, subresource)
        return await self._call("PATCH", path, body=patch, query=query, content_type=PATCH_TYPES[kind])

    async def post(
        self, resource: Resource, name: str, subresource: str, body: Document, namespace: str | None = None
    ) -> Document:
        return await self._call("POST", resource.path(namespace, name, subresource), body=body, query=_writing())

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        propagation: Literal["Background", "Foreground", "Orphan"] = "Background",
        uid: str = "",
        grace_period_seconds: int | None = None,
    ) -> Document:
        options: Document = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace_period_seconds is not None:
            options["gracePeriodSeconds"] = grace_period_seconds
        return await self._call("DELETE", resource.path(namespace, name), body=options)

    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncIterator[WatchEvent]:
        # Half as long again at random, so that watches begun together do not end together.
        seconds = int(self._watch_seconds * (1 + random() / 2))  # noqa: S311
        query = {
            "watch": "true", "allowWatchBookmarks": "true", "resourceVersion": resource_version,
            "timeoutSeconds": str(seconds), "labelSelector": label_selector, "fieldSelector": field_selector,
        }  # fmt: skip
        async for line in self._stream(resource.path(namespace), query, silence=seconds + 30.0):
            event = msgspec.json.decode(line)
            if event["type"] == "ERROR":
                raise from_status(event["object"], int(event["object"].get("code") or 500))
            yield WatchEvent(event["type"], event["object"])

    async def _call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: dict[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Document:
        session = self._connected()
        data = msgspec.json.encode(body) if body is not None else None
        headers = {"Content-Type": content_type} if data is not None else {}
        try:
            async with asyncio.timeout(self._timeout):
                async with session.request(
                    method, self.access.server + path, data=data, headers=headers, params=_given(query)
                ) as response:
                    answer = await response.read()
                    status = response.status
        except TimeoutError as error:
            raise Unreachable(f"{self.access.server} did not answer within {self._timeout:g} s") from error
        except _transport_errors() as error:
            raise self._unreachable(error) from error
        if status >= 400:
            raise _failure(answer, status)
        return _document(answer)

    async def _stream(self, path: str, query: dict[str, str], *, silence: float) -> AsyncIterator[bytes]:
        """The lines of an endless answer."""
        session = self._connected()
        import aiohttp

        limits = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout, sock_read=silence)
        try:
            async with session.get(self.access.server + path, params=_given(query), timeout=limits) as response:
                if response.status >= 400:
                    raise _failure(await response.read(), response.status)
                async for line in _lines(response.content.iter_chunked(_CHUNK)):
                    yield line
        except TimeoutError as error:
            raise Unreachable(f"{self.access.server} was silent for {silence:g} s on a watch") from error
        except _transport_errors() as error:
            raise self._unreachable(error) from error

    def _connected(self) -> "aiohttp.ClientSession":
        if self._session is None:
            import aiohttp

            headers = [("Accept", "application/json"), ("User-Agent", "hotvirt"), *self.access.headers()]
            tls: ssl.SSLContext | bool = (
                client_context(self.access) if self.access.server.startswith("https:") else True
            )
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=tls, limit=0),  # watches hold their connections for good
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=None),
            )
        return self._session

    def _unreachable(self, error: BaseException) -> Unreachable:
        return Unreachable(f"{self.access.server}: {_explained(error)}")


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Splits at newlines. The line under way is kept in pieces: appending 64 KiB at a time to a growing bytes object
    would cost the square of its length."""
    pieces: list[bytes] = []
    held = 0
    async for chunk in chunks:
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            full = b"".join((*pieces, line))
            pieces.clear()
            held = 0
            if full.strip():
                yield full
        if rest:
            pieces.append(rest)
            held += len(rest)
        if held > LONGEST_LINE:
            raise InternalError(f"a watch event is longer than {LONGEST_LINE} bytes: the answer is not a watch")


def _transport_errors() -> tuple[type[BaseException], ...]:
    import aiohttp

    return (aiohttp.ClientError, OSError, ssl.SSLError)


def _explained(error: BaseException) -> str:
    """The cause in a person's words, with the mend."""
    import aiohttp

    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return (
            f"its certificate is not signed by the CA that the kubeconfig names ({error.certificate_error}); "
            "write the kubeconfig anew"
        )
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"its name does not resolve ({error.os_error}); check the address in the kubeconfig"
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, ConnectionRefusedError):
        return "connection refused; is the home running? Start it with: hotvirt up --detach"
    return f"no answer ({str(error) or type(error).__name__}); check the network and the address in the kubeconfig"


def _failure(answer: bytes, code: int) -> ApiError:
    status = _document(answer, strict=False)
    if status.get("kind") != "Status":  # a proxy's own page
        status = {"message": f"HTTP {code}"}
    return from_status(status, code)


def _document(answer: bytes, *, strict: bool = True) -> Document:
    if not answer.strip():
        return {}
    try:
        document = msgspec.json.decode(answer)
    except msgspec.DecodeError as error:
        if strict:
            raise InternalError(
                f"the answer is not JSON ({error}): is the address that of a Kubernetes API?"
            ) from error
        return {}
    return document if isinstance(document, dict) else {}


def _writing(dry_run: bool = False, field_manager: str = "") -> dict[str, str]:
    return {"fieldManager": field_manager or FIELD_MANAGER, "dryRun": "All" if dry_run else ""}


def _given(query: dict[str, str] | None) -> dict[str, str]:
    return {key: value for key, value in (query or {}).items() if value}
