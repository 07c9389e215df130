"""The kernel's nftables, by the library that `nft` itself is made of (libnftables, of the package `nftables`).

In this process rather than by the program: what lets a guest in takes half a millisecond then, where a start of `nft`
takes 17, four of them of a CPU. Blocking, and for any thread: one call at a time.
"""

import ctypes
import json
import socket
import threading
import weakref

from hotvirt.kube.client import Document
from hotvirt.node.network import NetworkError

LIBRARY = "libnftables.so.1"
NETFILTER = 12
JSON = 1 << 4
"""NFT_CTX_OUTPUT_JSON: documents in and out, as with `nft -j` (libnftables-json(5))."""
_CONTEXT, _TEXT = ctypes.c_void_p, ctypes.c_char_p
_CALLS = {
    "nft_ctx_new": (_CONTEXT, [ctypes.c_uint32]),
    "nft_ctx_free": (None, [_CONTEXT]),
    "nft_ctx_buffer_output": (ctypes.c_int, [_CONTEXT]),
    "nft_ctx_buffer_error": (ctypes.c_int, [_CONTEXT]),
    "nft_ctx_output_set_flags": (None, [_CONTEXT, ctypes.c_uint]),
    "nft_run_cmd_from_buffer": (ctypes.c_int, [_CONTEXT, _TEXT]),
    "nft_ctx_get_output_buffer": (_TEXT, [_CONTEXT]),
    "nft_ctx_get_error_buffer": (_TEXT, [_CONTEXT]),
}
"""Of libnftables(3): what each gives and takes."""


def missing() -> str:
    """What keeps this process from nftables, with the mend; "" when nothing does."""
    try:
        # The library ends the process where it cannot open one.
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER).close()
    except OSError as error:
        return f"this kernel has no nftables ({error.strerror}): modprobe nf_tables"
    try:
        ctypes.CDLL(LIBRARY)
    except OSError as error:
        return f"{error}: apt-get install nftables"
    return ""


class Nftables:
    """Of the network namespace that it is first used in. It knows the tables from one call to the next, unless
    somebody else changed them meanwhile."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened: tuple[ctypes.CDLL, int] | None = None

    def run(self, wanted: Document) -> None:
        """A document of commands, all of them or none. Raises NetworkError with what is wrong."""
        refused, said = self._run(wanted)
        if refused:
            raise NetworkError(f"nftables refused our rules: {said.strip()}")

    def has_chain(self, family: str, table: str, chain: str) -> bool:
        refused, _ = self._run({"nftables": [{"list": {"chain": {"family": family, "table": table, "name": chain}}}]})
        return not refused

    def _run(self, wanted: Document) -> tuple[bool, str]:
        text = json.dumps(wanted).encode()
        with self._lock:
            library, context = self._opened = self._opened or self._open()
            refused = library.nft_run_cmd_from_buffer(context, text) != 0
            library.nft_ctx_get_output_buffer(context)  # which empties it
            return refused, library.nft_ctx_get_error_buffer(context).decode("utf-8", "replace")

    def _open(self) -> tuple[ctypes.CDLL, int]:
        if why := missing():
            raise NetworkError(why)
        library = ctypes.CDLL(LIBRARY)
        for name, (gives, takes) in _CALLS.items():
            call = getattr(library, name)
            call.restype, call.argtypes = gives, takes
        context = library.nft_ctx_new(0)
        weakref.finalize(self, library.nft_ctx_free, context)
        library.nft_ctx_buffer_output(context)
        library.nft_ctx_buffer_error(context)
        library.nft_ctx_output_set_flags(context, JSON)
        return library, context
