"""The rules of `metadata`: what a create sets, what an update may not touch, what names and labels look like.

Pure: time, uid and the random part of a generated name (asked for when it is needed) are arguments.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from hotvirt.kube.errors import Cause
from hotvirt.server.registry import Served

Document = dict[str, Any]
INVALID, REQUIRED, FORBIDDEN, TOO_LONG = (
    "FieldValueInvalid",
    "FieldValueRequired",
    "FieldValueForbidden",
    "FieldValueTooLong",
)
FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"
SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"  # no vowels: no words
LONGEST_GENERATED = 63 - 5
ANNOTATIONS_LIMIT = 256 * 1024

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?\Z")
_KEPT = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")


def timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def begin(
    served: Served, doc: Document, *, namespace: str, name: str, now: str, uid: str, suffix: Callable[[], str]
) -> Document:
    """`doc` as an object about to be created, with a metadata of its own. `name` is the path's, if it has one."""
    sent = doc.get("metadata")
    meta: Document = {k: v for k, v in (sent if isinstance(sent, dict) else {}).items() if v is not None}
    if not meta.get("name"):
        base = meta.get("generateName")
        meta["name"] = name or (f"{base[:LONGEST_GENERATED]}{suffix()}" if isinstance(base, str) and base else "")
    for key in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion", "generation"):
        meta.pop(key, None)
    if served.resource.namespaced:
        meta["namespace"] = namespace
    else:
        meta.pop("namespace", None)
    meta["uid"], meta["creationTimestamp"] = uid, now
    if served.has_generation or served.is_custom:
        meta["generation"] = 1
    created = {**doc, "metadata": meta}
    if served.has_status and served.resource.plural != "nodes":
        created.pop("status", None)
    return created


def carry(served: Served, new: Document, old: Document, *, subresource: str) -> Document:
    """`new` with what an update can't change taken from `old`, and only what the (sub)resource may write from `new`."""
    before: Document = old["metadata"]
    sent = new.get("metadata")
    meta: Document = {k: v for k, v in (sent if isinstance(sent, dict) else {}).items() if v is not None}
    if subresource and served.is_custom:
        managed = meta.get("managedFields")
        meta = dict(before) if managed is None else {**before, "managedFields": managed}
    meta["name"] = before["name"]
    if "namespace" in before:
        meta["namespace"] = before["namespace"]
    for key in _KEPT:
        if key in before:
            meta[key] = before[key]
        else:
            meta.pop(key, None)
    meta.pop("selfLink", None)
    meta["resourceVersion"] = before["resourceVersion"]
    if subresource == "status":
        written = {**old, "metadata": meta}
        written.pop("status", None)
        if "status" in new:
            written["status"] = new["status"]
    else:
        written = {**new, "metadata": meta}
        if served.has_status and not subresource:
            written.pop("status", None)
            if "status" in old:
                written["status"] = old["status"]
    if served.store == "/namespaces" and not subresource:
        held = (old.get("spec") or {}).get("finalizers") or []  # these go through namespaces/finalize
        written["spec"] = {**(written.get("spec") or {}), "finalizers": held}
    return count_generation(served, written, old, subresource=subresource)


def count_generation(served: Served, new: Document, old: Document, *, subresource: str) -> Document:
    """Sets new's metadata.generation, which the caller owns. Without a status subresource the status counts too."""
    meta: Document = new["metadata"]
    generation = old["metadata"].get("generation")
    if generation is None and not (served.has_generation or served.is_custom):
        meta.pop("generation", None)
        return new
    generation = int(generation or 0)
    if subresource != "status":
        apart = ("metadata", "status") if served.has_status else ("metadata",)
        if {k: v for k, v in new.items() if k not in apart} != {k: v for k, v in old.items() if k not in apart}:
            generation += 1
    meta["generation"] = generation
    return new


def same(new: Document, old: Document, *, managers: bool = False) -> bool:
    """Whether a write would change nothing that anybody could want to know of. Who manages a field counts with
    `managers`, and when the writer asks for it by emptying the list."""
    if {k: v for k, v in new.items() if k != "metadata"} != {k: v for k, v in old.items() if k != "metadata"}:
        return False
    after, before = new["metadata"], old["metadata"]
    apart = ("managedFields", "resourceVersion")
    if {k: v for k, v in after.items() if k not in apart} != {k: v for k, v in before.items() if k not in apart}:
        return False
    if managers:
        return _timeless(after.get("managedFields")) == _timeless(before.get("managedFields"))
    return after.get("managedFields") not in ([], [{}]) or not before.get("managedFields")


def _timeless(managed: Any) -> list[Document]:
    return [{k: v for k, v in entry.items() if k != "time"} for entry in managed or ()]


def is_finished(served: Served, doc: Document) -> bool:
    """Whether an object marked for deletion has nothing left that holds it."""
    meta = doc["metadata"]
    if not meta.get("deletionTimestamp") or meta.get("finalizers"):
        return False
    if served.store == "/pods" and meta.get("deletionGracePeriodSeconds"):
        return False
    return not (served.store == "/namespaces" and (doc.get("spec") or {}).get("finalizers"))


def check_create(served: Served, doc: Document) -> list[Cause]:
    meta: Document = doc["metadata"]
    name = meta["name"]
    if not isinstance(name, str) or not name:
        return [Cause(REQUIRED, "Required value: name or generateName is required", "metadata.name")]
    base = meta.get("generateName")
    causes = [] if not base else check_name(served.check_name, _as_name(str(base)), at="metadata.generateName")
    return [*causes, *check_name(served.check_name, name), *check_maps(meta)]


def _as_name(base: str) -> str:
    """What is checked of the beginning of a name: that it ends with a dash says nothing yet."""
    return base[:-1] + "a" if base.endswith("-") else base


def check_update(new: Document, old: Document) -> list[Cause]:
    after, before = new["metadata"], old["metadata"]
    causes = check_maps(after) if after != before else []
    if before.get("deletionTimestamp"):
        added = set(_texts(after.get("finalizers"))) - set(_texts(before.get("finalizers")))
        if added:
            message = (
                f"Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers "
                f"{sorted(added)}"
            )
            causes.append(Cause(FORBIDDEN, message, "metadata.finalizers"))
    return causes


def check_name(rule: str, name: str, *, at: str = "metadata.name") -> list[Cause]:
    if rule == "path":
        if name in (".", "..") or "/" in name or "%" in name:
            return [Cause(INVALID, f"Invalid value: {name!r}: may not be '.' or '..', nor contain '/' or '%'", at)]
        return []
    longest, pattern = (63, _LABEL) if rule == "label" else (253, _SUBDOMAIN)
    if len(name) > longest:
        return [Cause(INVALID, f'Invalid value: "{name[:80]}...": must be no more than {longest} characters', at)]
    if not pattern.match(name):
        kind = "RFC 1123 label" if rule == "label" else "RFC 1123 subdomain"
        dots = "" if rule == "label" else " or '.'"
        message = (
            f'Invalid value: "{name}": a lowercase {kind} must consist of lower case alphanumeric characters, '
            f"'-'{dots}, and must start and end with an alphanumeric character"
        )
        return [Cause(INVALID, message, at)]
    return []


def check_maps(meta: Document) -> list[Cause]:
    causes: list[Cause] = []
    labels, annotations = meta.get("labels"), meta.get("annotations")
    if isinstance(labels, Mapping):
        for key, value in labels.items():
            causes += _check_key(key, "metadata.labels")
            if not isinstance(value, str) or len(value) > 63 or (value and not _QUALIFIED.match(value)):
                message = (
                    f'Invalid value: "{value}": a label value has at most 63 characters: letters, digits, '
                    "'-', '_', '.', with a letter or digit at both ends"
                )
                causes.append(Cause(INVALID, message, "metadata.labels"))
    if isinstance(annotations, Mapping):
        total = 0
        for key, value in annotations.items():
            causes += _check_key(str(key).lower(), "metadata.annotations")
            if not isinstance(value, str):
                causes.append(Cause(INVALID, "Invalid value: must be a string", f"metadata.annotations.{key}"))
                continue
            total += len(key) + len(value)
        if total > ANNOTATIONS_LIMIT:
            message = f"Too long: may not be more than {ANNOTATIONS_LIMIT} bytes in all"
            causes.append(Cause(TOO_LONG, message, "metadata.annotations"))
    return [*causes, *_check_lists(meta)]


def _check_lists(meta: Document) -> list[Cause]:
    causes: list[Cause] = []
    for key, kind in (("labels", Mapping), ("annotations", Mapping), ("finalizers", list), ("ownerReferences", list)):
        if meta.get(key) is not None and not isinstance(meta[key], kind):
            what = "a map of strings" if kind is Mapping else "a list"
            causes.append(Cause("FieldValueTypeInvalid", f"Invalid value: must be {what}", f"metadata.{key}"))
    finalizers = meta.get("finalizers")
    for finalizer in finalizers if isinstance(finalizers, list) else ():
        causes += _check_key(finalizer, "metadata.finalizers")
    if len({FOREGROUND, ORPHAN} & set(_texts(finalizers))) == 2:
        message = f"Invalid value: {FOREGROUND} and {ORPHAN} cannot be both set"
        causes.append(Cause(INVALID, message, "metadata.finalizers"))
    owners = meta.get("ownerReferences")
    for owner in owners if isinstance(owners, list) else ():
        for key in ("apiVersion", "kind", "name", "uid"):
            if not isinstance(owner, dict) or not isinstance(owner.get(key), str) or not owner[key]:
                message = 'Invalid value: "": must not be empty'
                causes.append(Cause(INVALID, message, f"metadata.ownerReferences.{key}"))
    if (
        sum(
            1
            for o in (owners if isinstance(owners, list) else ())
            if isinstance(o, dict) and o.get("controller") is True
        )
        > 1
    ):
        causes.append(
            Cause(INVALID, "Invalid value: only one reference can be the controller", "metadata.ownerReferences")
        )
    return causes


def _check_key(key: Any, at: str) -> list[Cause]:
    text = key if isinstance(key, str) else ""
    prefix, slash, name = text.rpartition("/")
    good = bool(_QUALIFIED.match(name)) and len(name) <= 63
    if slash:
        good = good and bool(_SUBDOMAIN.match(prefix)) and len(prefix) <= 253
    if good:
        return []
    return [Cause(INVALID, f'Invalid value: "{key}": must be a qualified name: [prefix/]name, at most 63 long', at)]


def _texts(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
