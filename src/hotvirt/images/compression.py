"""Unpacks what distributions compress kernels and modules with. Pure functions over bytes.

gzip, xz, lzma and bzip2 are the standard library's. LZ4 and Zstandard are not in Python 3.11's, so they go through
liblz4 and libzstd, which apt and dpkg themselves link to: they are on every Debian and Ubuntu.
"""

import bz2
import ctypes
import lzma
import struct
import zlib

LIMIT = 512 << 20
"""No kernel or module unpacks to more; a size field that says so is damage."""

_LZ4_BLOCK = 8 << 20


class Unsupported(ValueError):
    """The data is packed in a way that can't be unpacked here, or is damaged; the text says which."""


def unpack(data: bytes) -> bytes:
    """The content of a compressed stream, told apart by its first bytes. Trailing bytes are ignored."""
    if data[:2] == b"\x1f\x8b":
        return _bounded(zlib.decompressobj(wbits=31), data)
    if data[:6] == b"\xfd7zXZ\0":
        return _bounded(lzma.LZMADecompressor(lzma.FORMAT_XZ), data)
    if data[:3] == b"\x5d\0\0":
        return _bounded(lzma.LZMADecompressor(lzma.FORMAT_ALONE), data)
    if data[:3] == b"BZh":
        return _bounded(bz2.BZ2Decompressor(), data)
    if data[:4] == b"\x02\x21\x4c\x18":
        return _lz4_legacy(data)
    if data[:4] == b"\x28\xb5\x2f\xfd":
        return _zstd(data)
    raise Unsupported(f"unknown compression (first bytes {data[:4].hex() or 'missing'})")


def unpack_named(name: str, data: bytes) -> bytes:
    """A module file's content, whether or not its name says it is compressed."""
    return unpack(data) if name.endswith((".xz", ".zst", ".gz")) else data


def _bounded(decompressor: object, data: bytes) -> bytes:
    try:
        out: bytes = decompressor.decompress(data, LIMIT)  # type: ignore[attr-defined]
    except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:
        raise Unsupported(f"damaged compressed data: {error}") from error
    if not decompressor.eof:  # type: ignore[attr-defined]
        raise Unsupported("compressed data is cut short, or unpacks to more than any kernel")
    return out


def _lz4_legacy(data: bytes) -> bytes:
    """The frame the kernel's build writes: a magic, then (length, block) pairs; the kernel appends its size."""
    library = _library("liblz4.so.1")
    decompress = library.LZ4_decompress_safe
    buffer = ctypes.create_string_buffer(_LZ4_BLOCK)
    out = bytearray()
    at = 4
    while at + 4 <= len(data):
        (length,) = struct.unpack_from("<I", data, at)
        block = data[at + 4 : at + 4 + length]
        if length == 0 or len(block) < length:
            break  # what follows the last block is the kernel's size field, not a block
        size = decompress(block, buffer, length, _LZ4_BLOCK)
        if size < 0:
            raise Unsupported("damaged LZ4 data")
        out += ctypes.string_at(buffer, size)
        at += 4 + length
        if size < _LZ4_BLOCK:
            break  # only the last block is short
    if not out:
        raise Unsupported("LZ4 data is cut short")
    return bytes(out)


class _Buffer(ctypes.Structure):
    _fields_ = [("pointer", ctypes.c_void_p), ("size", ctypes.c_size_t), ("position", ctypes.c_size_t)]


def _zstd(data: bytes) -> bytes:
    """One Zstandard frame, streamed: the kernel's own frame does not say its size up front."""
    library = _library("libzstd.so.1")
    library.ZSTD_createDStream.restype = ctypes.c_void_p
    library.ZSTD_decompressStream.restype = ctypes.c_size_t
    library.ZSTD_decompressStream.argtypes = [ctypes.c_void_p, ctypes.POINTER(_Buffer), ctypes.POINTER(_Buffer)]
    library.ZSTD_freeDStream.argtypes = [ctypes.c_void_p]
    library.ZSTD_isError.argtypes = [ctypes.c_size_t]
    stream = library.ZSTD_createDStream()
    source = ctypes.create_string_buffer(data, len(data))
    source_buffer = _Buffer(ctypes.addressof(source), len(data), 0)
    chunk = ctypes.create_string_buffer(1 << 20)
    out = bytearray()
    try:
        while True:
            target = _Buffer(ctypes.addressof(chunk), len(chunk), 0)
            left = library.ZSTD_decompressStream(stream, ctypes.byref(target), ctypes.byref(source_buffer))
            if library.ZSTD_isError(left):
                raise Unsupported("damaged Zstandard data")
            out += ctypes.string_at(chunk, target.position)
            if left == 0:
                return bytes(out)
            if len(out) > LIMIT or (source_buffer.position == len(data) and target.position < len(chunk)):
                raise Unsupported("Zstandard data is cut short, or unpacks to more than any kernel")
    finally:
        library.ZSTD_freeDStream(stream)


def _library(name: str) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        raise Unsupported(f"{name} is not on this machine: {error}") from error
