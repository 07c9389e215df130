"""The process that unpacks a hostile gzip, xz or zstd stream: packed file on standard input, a blank file on output.

Started by `taking` only, under limits. Prints one JSON object on standard error: `{"size"}`, or `{"error"}`. The file
gets holes where the content is zeros, and never more bytes than the first argument says.
"""

import ctypes
import json
import lzma
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from hotvirt.images import copying

_READ = 1 << 20
_WRITE = 4 << 20


class TooLarge(Exception):
    pass


def main() -> None:
    limit = int(sys.argv[1])
    try:
        print(json.dumps({"size": unwrap(0, 1, limit=limit)}), file=sys.stderr)
    except TooLarge:
        print(json.dumps({"error": f"it unpacks to more than {limit >> 20} MiB"}), file=sys.stderr)
    except (zlib.error, lzma.LZMAError, EOFError, ValueError) as error:
        print(json.dumps({"error": f"its packing is damaged: {error}"}), file=sys.stderr)
    except OSError as error:
        print(json.dumps({"error": error.strerror or str(error)}), file=sys.stderr)


def unwrap(source: int, target: int, *, limit: int) -> int:
    head = os.pread(source, 6, 0)
    stream = next(make for magic, make in STREAMS.items() if head.startswith(magic))
    at, waiting = 0, bytearray()
    for chunk in stream(lambda: os.read(source, _READ)):
        waiting += chunk
        if at + len(waiting) > limit:
            raise TooLarge
        if len(waiting) >= _WRITE:
            copying.write_sparse(target, bytes(waiting), at)
            at += len(waiting)
            waiting.clear()
    copying.write_sparse(target, bytes(waiting), at)
    at += len(waiting)
    os.ftruncate(target, at)
    return at


def packing(head: bytes) -> str:
    """The name of what the first bytes of a file say it is packed with, "" for none."""
    return next((NAMES[magic] for magic in STREAMS if head.startswith(magic)), "")


Read = Callable[[], bytes]


def _gzip(read: Read) -> Iterator[bytes]:
    return _members(read, lambda: zlib.decompressobj(wbits=31))


def _xz(read: Read) -> Iterator[bytes]:
    return _members(read, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=512 << 20))


def _members(read: Read, make: Callable[[], Any]) -> Iterator[bytes]:
    """One stream after the other, each whole."""
    decompressor, data, begun = make(), read(), False
    while data or not decompressor.eof:
        if not data and not (data := read()):
            break
        begun = True
        yield from _some(decompressor, data)
        if decompressor.eof:
            data = (decompressor.unused_data or read()).lstrip(b"\0")
            if data:
                decompressor, begun = make(), False
        else:
            data = b""
    if begun and not decompressor.eof:
        raise EOFError("it is cut short")


def _some(decompressor: Any, data: bytes) -> Iterator[bytes]:
    """In pieces, so that a bomb is noticed before it is in memory."""
    yield decompressor.decompress(data, _WRITE)
    if isinstance(decompressor, lzma.LZMADecompressor):
        while not decompressor.eof and not decompressor.needs_input:
            yield decompressor.decompress(b"", _WRITE)
    else:
        while not decompressor.eof and decompressor.unconsumed_tail:
            yield decompressor.decompress(decompressor.unconsumed_tail, _WRITE)


class _Buffer(ctypes.Structure):
    _fields_ = [("pointer", ctypes.c_void_p), ("size", ctypes.c_size_t), ("position", ctypes.c_size_t)]


def _zstd(read: Read) -> Iterator[bytes]:
    library = ctypes.CDLL("libzstd.so.1")
    library.ZSTD_createDStream.restype = ctypes.c_void_p
    library.ZSTD_decompressStream.restype = ctypes.c_size_t
    library.ZSTD_decompressStream.argtypes = [ctypes.c_void_p, ctypes.POINTER(_Buffer), ctypes.POINTER(_Buffer)]
    library.ZSTD_isError.argtypes = [ctypes.c_size_t]
    stream, left = library.ZSTD_createDStream(), 0
    room = ctypes.create_string_buffer(_READ)
    while data := read():
        kept = ctypes.create_string_buffer(data, len(data))
        given = _Buffer(ctypes.addressof(kept), len(data), 0)
        while True:
            out = _Buffer(ctypes.addressof(room), len(room), 0)
            left = library.ZSTD_decompressStream(stream, ctypes.byref(out), ctypes.byref(given))
            if library.ZSTD_isError(left):
                raise ValueError("no valid Zstandard data")
            yield ctypes.string_at(room, out.position)
            if given.position == given.size and out.position < out.size:
                break
    if left:
        raise EOFError("it is cut short")


STREAMS: dict[bytes, Callable[[Read], Iterator[bytes]]] = {
    b"\x1f\x8b": _gzip, b"\xfd7zXZ\0": _xz, b"\x28\xb5\x2f\xfd": _zstd,
}  # fmt: skip
NAMES = {b"\x1f\x8b": "gz", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zst"}


if __name__ == "__main__":
    main()
