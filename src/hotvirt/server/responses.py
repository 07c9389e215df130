"""HTTP answers: JSON bytes, Status documents, Warning headers, compression."""

import asyncio
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from hotvirt.kube.errors import ApiError

COMPRESS_FROM = 128 * 1024
SLICE = 64 * 1024
_encode = msgspec.json.Encoder().encode


class Pieces(Payload):
    """A long body, joined a slice at a time as the client takes it. Joined and encrypted as a whole, a list of 26 MB
    took 150 MB more memory and twice the time, most of it the kernel's for clearing pages."""

    def __init__(self, pieces: list[bytes]) -> None:
        super().__init__(pieces, content_type="application/json")
        self._size = sum(map(len, pieces))

    async def write(self, writer: AbstractStreamWriter) -> None:
        for part in self.slices():
            await writer.write(part)  # returns when the client has taken most of it

    def slices(self) -> Iterator[bytes]:
        part: list[bytes] = []
        size = 0
        for piece in self._value:
            part.append(piece)
            size += len(piece)
            if size >= SLICE:
                yield b"".join(part)
                part, size = [], 0
        yield b"".join(part)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return b"".join(self._value).decode(encoding, errors)


def json_response(
    body: bytes | Pieces | Mapping[str, Any],
    *,
    status: int = 200,
    warnings: Iterable[str] = (),
    content_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    data = body if isinstance(body, bytes | Pieces) else _encode(body)
    response = web.Response(body=data, status=status, headers={"Content-Type": content_type, **(headers or {})})
    response.headers["Cache-Control"] = "no-cache, private"
    for text in warnings:
        response.headers.add("Warning", warning(text))
    return response


def warning(text: str) -> str:
    """The value of a Warning header."""
    return f'299 - "{_quoted(text)}"'


def text_response(text: str, *, status: int = 200) -> web.Response:
    return web.Response(text=text, status=status, headers={"X-Content-Type-Options": "nosniff"})


def status_response(error: ApiError) -> web.Response:
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after else None
    return json_response(error.to_status(), status=error.code, headers=headers)


def success(*, name: str, group: str, kind: str, uid: str = "") -> dict[str, Any]:
    """What a delete answers when nothing is left to show."""
    details = {key: value for key, value in (("name", name), ("group", group), ("kind", kind), ("uid", uid)) if value}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


async def compressed(response: web.Response, request: web.BaseRequest) -> web.Response:
    """Large answers, gzipped for those who accept it. Not for this machine's own clients: they would wait longer."""
    body = response.body
    if isinstance(body, bytes):
        size, slices = len(body), iter((body,))
    elif isinstance(body, Pieces):
        size, slices = body.size or 0, body.slices()
    else:
        return response
    accepted = "gzip" in request.headers.get("Accept-Encoding", "") and not _is_local(request.remote)
    if size < COMPRESS_FROM or not accepted:
        return response
    response.body = await asyncio.to_thread(_gzip, slices)
    response.headers["Content-Encoding"] = "gzip"
    return response


def _is_local(remote: str | None) -> bool:
    return remote is not None and (remote.startswith("127.") or remote == "::1")


def _gzip(slices: Iterable[bytes]) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return b"".join(map(packer.compress, slices)) + packer.flush()


def _quoted(text: str) -> str:
    """A quoted-string of one line, of characters a header can hold."""
    plain = "".join(c if c.isprintable() else " " for c in text).encode("ascii", "backslashreplace").decode()
    return plain[:900].replace("\\", "\\\\").replace('"', '\\"')
