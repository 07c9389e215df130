"""The process that reads hostile headers: image on standard input, one JSON object on standard output.

Started by `inspect.py` only. `{"format", "virtual_size"}` when all is well, `{"unsafe": why}` or `{"corrupt": why}`
when not, where the text ends in what to do about it. Imports oslo.utils, which no other module here may.
"""

import importlib.util
import json
import logging
import os
import struct
import sys
import types
from collections.abc import Iterable
from typing import Any, BinaryIO

_QEMU_NAMES = {"gpt": "raw", "iso": "raw", "luks": "raw", "raw": "raw", "vhd": "vpc",
               "qcow2": "qcow2", "vmdk": "vmdk", "vhdx": "vhdx", "vdi": "vdi"}  # fmt: skip

_UNSAFE = {
    "backing_file": "it names another file as its backing file, which could be any file of this machine; "
    "merge the two first with `qemu-img convert`",
    "data_file": "it keeps its data in another file, which could be any file of this machine; "
    "convert it first with `qemu-img convert`",
    "unknown_features": "it uses qcow2 features that are unknown here; convert it with `qemu-img convert -O qcow2`",
    "descriptor": "its VMDK descriptor refers to other files or is of an unsupported kind; "
    "export it as one monolithicSparse or streamOptimized file",
    "footer": "its VMDK footer contradicts its header; export it again",
}
_PLAIN = ("raw", "luks", "gpt")
_CHUNK = 1 << 16
_ENOUGH = 4 << 20
"""No format keeps what identifies it further in; a VMDK's footer is read by its own check."""


def main() -> None:
    logging.disable(logging.CRITICAL)
    _without_the_rest()
    with open(0, "rb", buffering=0, closefd=False) as source:
        print(json.dumps(examine(source)))


def _without_the_rest() -> None:
    """Importing the inspector imports its package's other modules, which compile hundreds of expressions for what is
    not asked here: two thirds of this process's time. So the package is taken to be empty but for its files. In this
    process only; should the library be laid out otherwise one day, the import fails, and with it the look."""
    library = importlib.util.find_spec("oslo_utils")
    assert library is not None
    package = types.ModuleType("oslo_utils.imageutils")
    package.__path__ = [os.path.join(each, "imageutils") for each in library.submodule_search_locations or ()]
    sys.modules[package.__name__] = package


def examine(source: BinaryIO) -> dict[str, Any]:
    """What the image is, or what is wrong with it."""
    from oslo_utils.imageutils import format_inspector as formats

    size = os.fstat(source.fileno()).st_size
    head = source.read(4096)
    source.seek(0)
    if not head.startswith(b"KDMV") and b"createtype=" in head.lower():  # a descriptor and nothing else
        return {"unsafe": _UNSAFE["descriptor"]}
    wrapper = formats.InspectWrapper(source)
    try:
        _feed(wrapper, size=size)
        matches = wrapper.formats or []
        wrong = _safety(matches, formats)
    except formats.ImageFormatError as error:
        return {"corrupt": str(error)}
    if wrong:
        return {"unsafe": wrong}
    return _conclude(matches, head, size=size)


def _feed(wrapper: Any, *, size: int) -> None:
    """Let the inspectors see as much as they want, no more than they can need."""
    while wrapper._source.tell() < _ENOUGH and wrapper.formats is None:  # noqa: SLF001
        if not wrapper.read(_CHUNK):
            break
    if (
        wrapper.formats is None
        and size > _ENOUGH
        and any(i.NAME == "vmdk" and i.format_match for i in _inspectors(wrapper))
    ):
        while wrapper.read(1 << 20):  # a streamOptimized VMDK ends in what counts
            pass
    wrapper._finish()  # noqa: SLF001 - not close(): standard input is not ours to close


def _inspectors(wrapper: Any) -> Iterable[Any]:
    return wrapper._inspectors  # type: ignore[no-any-return] # noqa: SLF001


def _safety(matches: list[Any], formats: Any) -> str | None:
    """The first reason not to use it. What is raw names no file of this machine, whatever its first sector says: a
    partition table of an old tool, of two kinds at once or without a partition is the guest's to read."""
    for match in matches:
        if match.NAME == "qed":
            return "QED is an abandoned format; convert it with `qemu-img convert -O qcow2`"
        if match.NAME in _PLAIN:
            continue
        try:
            match.safety_check()
        except formats.SafetyCheckFailed as error:
            name = next(iter(error.failures))
            return _UNSAFE.get(name, f"it failed the safety check `{name}`; convert it with `qemu-img convert`")
    return None


def _conclude(matches: list[Any], head: bytes, *, size: int) -> dict[str, Any]:
    names = {_QEMU_NAMES[match.NAME] for match in matches}
    if len(names) != 1:
        return {"unsafe": f"it can be read as {' or as '.join(sorted(names))}; make a clean copy in one format"}
    kind = names.pop()
    if kind == "raw":
        # Too short for an inspector to be sure, yet QEMU's own probing would believe it.
        if head.startswith((b"QFI\xfb", b"KDMV", b"COWD", b"vhdxfile", b"conectix", b"QED\0")):
            return {"corrupt": "it begins like a disk image and ends before its header does"}
        return {"format": "raw", "virtual_size": size}
    if kind == "qcow2" and (wrong := _qcow2_fault(head, size=size)):
        return wrong
    return {"format": kind, "virtual_size": matches[0].virtual_size}


def _qcow2_fault(head: bytes, *, size: int) -> dict[str, Any] | None:
    """What the general check leaves out: encryption, and tables that lie outside the file."""
    cluster_bits, _virtual, crypt, l1_entries, l1_offset, refcount_offset = struct.unpack_from(">IQIIQQ", head, 20)
    if not 9 <= cluster_bits <= 21:
        return {"corrupt": f"its qcow2 header names clusters of 2^{cluster_bits} bytes"}
    if crypt:
        return {"unsafe": "it is encrypted; decrypt it first with `qemu-img convert`"}
    if l1_offset + l1_entries * 8 > size or refcount_offset >= size:
        return {"corrupt": "it is cut short: its qcow2 tables lie beyond the end of the file"}
    return None


if __name__ == "__main__":
    main()
