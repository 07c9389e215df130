"""RFC 6902 JSON patch, by the jsonpatch library on a fresh copy, under limits a hostile patch can't pass.

A malformed patch is a BadRequest; one that does not fit the object (a failed test, a path that is not there) is
Invalid, as the Kubernetes API server answers.
"""

from types import MappingProxyType
from typing import Any

import jsonpatch
import jsonpointer  # jsonpatch's own dependency

from hotvirt.kube import errors
from hotvirt.server.patches.copies import fresh, size

MAX_OPERATIONS = 10_000
MAX_COPIED = 3 * 1024 * 1024
"""Bytes that `copy` operations may add in all: each could otherwise double the document."""


class _Test(jsonpatch.TestOperation):  # type: ignore[misc]  # the library has no types
    """A member that is not there passes a test for null, as in Kubernetes' own library. Clients rely on it to add a
    list only where there is none: virtctl does."""

    def apply(self, obj: Any) -> Any:
        if "value" in self.operation and self.operation["value"] is None:
            parent, member = self.pointer.to_last(obj)
            if isinstance(parent, dict) and member is not None and member not in parent:
                return obj
        return super().apply(obj)


class _Patch(jsonpatch.JsonPatch):  # type: ignore[misc]
    operations = MappingProxyType({**jsonpatch.JsonPatch.operations, "test": _Test})


def json_patch(doc: Any, ops: Any) -> Any:
    """`doc` with the operations applied in order; either all or none."""
    if not isinstance(ops, list) or not all(isinstance(op, dict) for op in ops):
        raise errors.BadRequest("a JSON patch is a list of operations: [{op, path, value}, ...]")
    if len(ops) > MAX_OPERATIONS:
        raise errors.TooLarge(f"the patch has {len(ops)} operations, {MAX_OPERATIONS} are allowed: send it in parts")
    result = fresh(doc)
    # One patch for all operations, unless copies have to be weighed on the way.
    batches = [[op] for op in ops] if any(op.get("op") == "copy" for op in ops) else [ops]
    copied = 0
    for batch in batches:
        if batch and batch[0].get("op") == "copy":
            copied += _copied(result, batch[0])
            if copied > MAX_COPIED:
                raise errors.TooLarge(f"the patch copies more than {MAX_COPIED} bytes: send the values instead")
        result = _apply(result, fresh(batch))
    return result


def _apply(document: Any, ops: Any) -> Any:
    # jsonpatch answers a path that meets the wrong type of value with whatever Python raises there.
    try:
        return _Patch(ops).apply(document, in_place=True)
    except jsonpatch.JsonPatchTestFailed as error:
        raise errors.Invalid(f"the JSON patch's test failed: {_short(error)}") from error
    except jsonpatch.InvalidJsonPatch as error:
        raise errors.BadRequest(f"the JSON patch is malformed: {error}") from error
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException) as error:
        raise errors.Invalid(f"the JSON patch does not fit the object: {_short(error)}") from error
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise errors.Invalid(f"the JSON patch does not fit the object: {error!r}") from error


def _short(error: Exception) -> str:
    """Without the part of the object that the library shows after what it did not find."""
    return str(error).partition(" not found in {")[0][:300] + (" not found" if " not found in {" in str(error) else "")


def _copied(document: Any, op: dict[str, Any]) -> int:
    try:
        return size(jsonpointer.JsonPointer(str(op.get("from"))).resolve(document))
    except (jsonpointer.JsonPointerException, KeyError, IndexError, TypeError, ValueError, AttributeError):
        return 0  # the operation itself will say what is wrong
