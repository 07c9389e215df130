"""The Kubernetes API for commands: blocking, over the standard library's HTTP client.

`hotvirt.kube.remote` is the client of everything long-lived; its HTTP library takes longer to import than most
commands run. One `Api` is one thread's: requests share a connection, one at a time; each `watch` has its own.
"""

import http.client
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode, urlsplit

from msgspec import DecodeError, json

from hotvirt.kube.client import Document
from hotvirt.kube.errors import NotFound, Unreachable, from_status
from hotvirt.kube.kubeconfig import Access
from hotvirt.kube.resources import Resource
from hotvirt.kube.tls import client_context

TIMEOUT = 30.0
PART = 256 * 1024
Headers = list[tuple[str, str]]
CONTENT_TYPES = {"merge": "application/merge-patch+json", "json": "application/json-patch+json"}


class Api:
    def __init__(self, access: Access) -> None:
        self.access = access
        self.namespace = access.namespace
        self.patience: float | None = TIMEOUT
        self._tls = client_context(access) if access.server.startswith("https:") else None
        self._connection: http.client.HTTPConnection | None = None

    def get(self, resource: Resource, name: str, namespace: str | None = None) -> Document:
        return self.request("GET", resource.path(namespace, name))

    def find(self, resource: Resource, name: str, namespace: str | None = None) -> Document | None:
        """None when it is not there."""
        try:
            return self.get(resource, name, namespace)
        except NotFound:
            return None

    def list(self, resource: Resource, namespace: str | None = None, **query: str) -> list[Document]:
        items: list[Document] = self.request("GET", resource.path(namespace), query=query).get("items") or []
        return items

    def patch(
        self, resource: Resource, name: str, patch: Any, namespace: str | None = None, *, kind: str = "merge"
    ) -> Document:
        return self.request("PATCH", resource.path(namespace, name), body=patch, content_type=CONTENT_TYPES[kind])

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        content_type: str = "application/json",
        query: dict[str, str] | None = None,
    ) -> Document:
        """The answer's document ({} for an empty one). Raises ApiError for a refusal, Unreachable without answer."""
        response = self._send(method, path, body=body, content_type=content_type, query=query)
        data = response.read()
        if response.status >= 400:
            raise from_status(_status(data, response), response.status)
        return json.decode(data) if data.strip() else {}

    def download(self, path: str, write: Callable[[bytes], object]) -> int:
        """Hands the answer's bytes to `write` as they come; how many there were. Unreachable when it breaks off."""
        response = self._send("GET", path, body=None, content_type="", query=None)
        if response.status >= 400:
            raise from_status(_status(response.read(), response), response.status)
        wanted, got = response.length, 0
        try:
            while part := response.read(PART):
                write(part)
                got += len(part)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Unreachable(f"{self.access.server} ended the answer: {_reason(error)}") from error
        if wanted is not None and got != wanted:
            raise Unreachable(f"{self.access.server} ended the answer after {got} of {wanted} bytes")
        return got

    def watch(
        self, resource: Resource, namespace: str | None, *, name: str = "", version: str = "", timeout: float
    ) -> Iterator[Document]:
        """Objects as they change, after `version`, until `timeout` seconds from now. Ends early when the server ends
        the stream; deletions are given as the last state with `deleted` set to True."""
        deadline = time.monotonic() + timeout
        query = {"watch": "true", "resourceVersion": version, "timeoutSeconds": str(max(1, int(timeout) + 1))}
        if name:
            query["fieldSelector"] = f"metadata.name={name}"
        connection = self._connect(timeout)
        try:
            response = _ask(connection, "GET", f"{resource.path(namespace)}?{urlencode(query)}", None, self._headers())
            if response.status >= 400:
                raise from_status(_status(response.read(), response), response.status)
            while (left := deadline - time.monotonic()) > 0:
                if connection.sock is not None:
                    connection.sock.settimeout(left)
                if not (line := response.readline().strip()):
                    return
                event = json.decode(line)
                if event["type"] == "ERROR":
                    raise from_status(event["object"], 500)
                if event["type"] != "BOOKMARK":
                    yield {**event["object"], "deleted": True} if event["type"] == "DELETED" else event["object"]
        except TimeoutError:
            return
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{self.access.server} ended the watch: {error}") from error
        finally:
            connection.close()

    def stream(self, path: str, *, query: dict[str, str]) -> Iterator[bytes]:
        """An answer that is no document, as it comes; it may go on for as long as the server has something to say."""
        connection = self._connect(self.patience)
        try:
            response = _ask(connection, "GET", f"{path}?{urlencode(query)}", None, self._headers(Accept="*/*"))
            if response.status >= 400:
                raise from_status(_status(response.read(), response), response.status)
            if connection.sock is not None:
                connection.sock.settimeout(None)
            while data := response.read1(1 << 16):
                yield data
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{self.access.server} ended the answer: {_reason(error)}") from error
        finally:
            connection.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _send(
        self, method: str, path: str, *, body: Any, content_type: str, query: dict[str, str] | None
    ) -> http.client.HTTPResponse:
        if query:
            path = f"{path}?{urlencode(query)}"
        data = json.encode(body) if body is not None else None
        headers = self._headers(**{"Content-Type": content_type} if data is not None else {})
        try:
            if self._connection is None:
                self._connection = self._connect(self.patience)
            return _ask(self._connection, method, path, data, headers)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Unreachable(f"no answer from {self.access.server}: {_reason(error)}") from error

    def _connect(self, timeout: float | None) -> http.client.HTTPConnection:
        at = urlsplit(self.access.server)
        if self._tls is None:
            return http.client.HTTPConnection(at.hostname or "", at.port or 80, timeout=timeout)
        return http.client.HTTPSConnection(at.hostname or "", at.port or 443, timeout=timeout, context=self._tls)

    def _headers(self, **more: str) -> Headers:
        named = {"Accept": "application/json", "User-Agent": "hotvirt", **more}
        return [*named.items(), *self.access.headers()]


def _ask(
    connection: http.client.HTTPConnection, method: str, path: str, data: bytes | None, headers: Headers
) -> http.client.HTTPResponse:
    connection.putrequest(method, path)
    for name, value in headers:  # of which groups to act in are several of one name
        connection.putheader(name, value)
    if data is not None or method in ("POST", "PUT", "PATCH"):
        connection.putheader("Content-Length", str(len(data or b"")))
    connection.endheaders(data)
    return connection.getresponse()


def _status(data: bytes, response: http.client.HTTPResponse) -> Document:
    """The answer's Status; a proxy's own page is not one."""
    try:
        status = json.decode(data)
    except DecodeError:
        return {"message": f"HTTP {response.status} {response.reason}"}
    return status if isinstance(status, dict) else {}


def _reason(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not the one the kubeconfig names ({error.verify_message})"
    return str(error) or type(error).__name__
