"""SPDY/3.1 frames as bytes: what kubectl speaks on an upgraded connection for exec, attach and port-forward.

From the protocol's draft 3.1, as far as those clients use it: no settings, no flow control (they send no window
updates and heed none), no priorities. Pure but for the two compression streams, which a `Codec` keeps: every header
block of a connection goes through the same one, so blocks must be coded in the order they are sent.
"""

import struct
import zlib
from typing import Any

from msgspec import Struct

VERSION = 3
SYN_STREAM, SYN_REPLY, RST_STREAM, PING, GOAWAY, HEADERS = 1, 2, 3, 6, 7, 8
FIN = 1
REFUSED_STREAM, CANCEL = 3, 5
LONGEST_FRAME = 1 << 20
LONGEST_HEADERS = 64 << 10

# What both sides' compression knows before the first byte: names with their lengths before them, then plain text.
_NAMES = """
options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow
authorization cache-control connection content-base content-encoding content-language content-length content-location
content-md5 content-range content-type date etag expect expires from host if-match if-modified-since if-none-match
if-range if-unmodified-since last-modified location max-forwards pragma proxy-authenticate proxy-authorization range
referer retry-after server te trailer transfer-encoding upgrade user-agent vary via warning www-authenticate method get
status|200 OK version HTTP/1.1 url public set-cookie keep-alive origin
"""
_CODES = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
_REASONS = (
    "203 Non-Authoritative Information", "204 No Content", "301 Moved Permanently", "400 Bad Request",
    "401 Unauthorized", "403 Forbidden", "404 Not Found", "500 Internal Server Error", "501 Not Implemented",
    "503 Service Unavailable",
)  # fmt: skip
_VALUES = (
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,"
    "publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _dictionary() -> bytes:
    names = _NAMES.replace("|200 OK", " 200_OK").split()
    coded = b"".join(struct.pack("!I", len(name)) + name.replace("_", " ").encode() for name in names)
    return coded + (_CODES + "".join(_REASONS) + _VALUES).encode()


DICTIONARY = _dictionary()


class SpdyError(Exception):
    """The other side does not speak the protocol, or more of it than is allowed."""


class Frame(Struct, frozen=True):
    """`kind` 0 is data, `payload` its bytes. Of frames that open or answer a stream, `headers` are read."""

    kind: int
    stream: int
    fin: bool = False
    headers: dict[str, str] = {}
    payload: bytes = b""


class Codec:
    """One connection's frames: `feed` bytes and get those that are complete; the others make bytes to send."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def feed(self, data: bytes) -> list[Frame]:
        """Raises SpdyError for what can't be one."""
        self._buffer += data
        frames = []
        while len(self._buffer) >= 8:
            first, rest = struct.unpack_from("!II", self._buffer)
            length = rest & 0xFFFFFF
            if length > LONGEST_FRAME:
                raise SpdyError(f"a frame of {length} bytes is too long")
            if len(self._buffer) < 8 + length:
                break
            payload = bytes(self._buffer[8 : 8 + length])
            del self._buffer[: 8 + length]
            if (frame := self._read(first, rest >> 24, payload)) is not None:
                frames.append(frame)
        return frames

    def _read(self, first: int, flags: int, payload: bytes) -> Frame | None:
        fin = bool(flags & FIN)
        if not first >> 31:
            return Frame(0, first, fin, payload=payload)
        if first >> 16 & 0x7FFF != VERSION:
            raise SpdyError(f"version {first >> 16 & 0x7FFF} of SPDY is not spoken here")
        kind = first & 0xFFFF
        try:
            if kind == SYN_STREAM:
                return Frame(kind, _number(payload), fin, self._headers(payload[10:]))
            if kind in (SYN_REPLY, HEADERS):
                return Frame(kind, _number(payload), fin, self._headers(payload[4:]))
            if kind in (RST_STREAM, PING, GOAWAY):
                return Frame(kind, _number(payload), payload=payload)
        except (struct.error, zlib.error, UnicodeDecodeError) as error:
            raise SpdyError(f"a frame can't be read: {error}") from error
        return None  # settings and window updates mean nothing here

    def _headers(self, block: bytes) -> dict[str, str]:
        text = self._inflate.decompress(block, LONGEST_HEADERS)
        if self._inflate.unconsumed_tail:
            raise SpdyError("a block of headers is too long")
        (count,) = struct.unpack_from("!I", text)
        at, found = 4, {}
        for _ in range(count):
            name, at = _text(text, at)
            value, at = _text(text, at)
            found[name.lower()] = value
        return found

    def reply(self, stream: int, headers: dict[str, str]) -> bytes:
        block = struct.pack("!I", len(headers))
        for name, value in headers.items():
            block += struct.pack("!I", len(name)) + name.encode() + struct.pack("!I", len(value)) + value.encode()
        coded = self._deflate.compress(block) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        return _control(SYN_REPLY, struct.pack("!I", stream) + coded)


def data(stream: int, payload: bytes, *, fin: bool = False) -> bytes:
    return struct.pack("!II", stream, (FIN if fin else 0) << 24 | len(payload)) + payload


def reset(stream: int, status: int = CANCEL) -> bytes:
    return _control(RST_STREAM, struct.pack("!II", stream, status))


def ping(payload: bytes) -> bytes:
    return _control(PING, payload[:4])


def _control(kind: int, payload: bytes) -> bytes:
    return struct.pack("!II", 1 << 31 | VERSION << 16 | kind, len(payload)) + payload


def _number(payload: bytes) -> int:
    value: Any = struct.unpack_from("!I", payload)[0]
    return int(value) & 0x7FFFFFFF


def _text(block: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("!I", block, at)
    end = at + 4 + length
    if end > len(block):
        raise SpdyError("a block of headers ends early")
    return block[at + 4 : end].decode(), end
