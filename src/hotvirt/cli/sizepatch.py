"""The edit that gives a VM another size. Pure.

It is made in the fields that size the guest now: one that is written beside them would size it from then on, and later
edits of those would have no effect on the guest.
"""

from hotvirt.api import defaults
from hotvirt.api.quantity import format_bytes, parse_bytes, parse_cpu
from hotvirt.kube.client import Document


def patch_for(vm: Document, memory: int | None, sockets: int | None) -> Document:
    """A merge patch of the VM; `memory` in bytes."""
    domain = (((vm.get("spec") or {}).get("template") or {}).get("spec") or {}).get("domain") or {}
    edit: Document = {}
    amounts: Document = {}
    if memory is not None:
        edit |= _memory(domain, memory, amounts)
    if sockets is not None:
        edit |= _cpu(domain, sockets, amounts)
    return {"spec": {"template": {"spec": {"domain": {**edit, **({"resources": amounts} if amounts else {})}}}}}


def says(document: Document, patch: Document) -> bool:
    """Whether a merge patch, which takes nothing out, would change nothing."""
    return all(
        says(document.get(key) or {}, value) if isinstance(value, dict) else document.get(key) == value
        for key, value in patch.items()
    )


def _memory(domain: Document, size: int, amounts: Document) -> Document:
    """`memory.guest`, where it is not requests or, without these, limits that size the guest. No limit is left below
    the size, which the API would refuse; guaranteed memory stays so. `amounts` takes requests and limits."""
    text, by_guest = format_bytes(size), (domain.get("memory") or {}).get("guest") is not None
    asked, limit = (None if value is None else parse_bytes(value) for value in _said(domain, "memory"))
    if not by_guest and asked is limit is None:
        by_guest = True
    if not by_guest and asked is not None:
        _put(amounts, "requests", "memory", text)
    if limit is not None and (limit < size or (not by_guest and asked in (None, limit))):
        _put(amounts, "limits", "memory", text)
        if asked == limit:
            _put(amounts, "requests", "memory", text)
    return {"memory": {"guest": text}} if by_guest else {}


def _cpu(domain: Document, sockets: int, amounts: Document) -> Document:
    """`cpu.sockets`, where it is not limits or, without these, requests that say how many there are."""
    topology = any((domain.get("cpu") or {}).get(field) for field in ("sockets", "cores", "threads"))
    asked, limit = (None if value is None else parse_cpu(value) for value in _said(domain, "cpu"))
    if topology or asked is limit is None:
        return {"cpu": {"sockets": sockets}}
    if defaults.sockets(domain) == sockets:
        return {}
    if limit is not None:
        _put(amounts, "limits", "cpu", str(sockets))
    if asked is not None and (limit in (None, asked) or asked > sockets * 1000):
        _put(amounts, "requests", "cpu", str(sockets))
    return {}


def _said(domain: Document, resource: str) -> tuple[object, object]:
    """The request and the limit."""
    resources = domain.get("resources") or {}
    asked, limit = ((resources.get(kind) or {}).get(resource) for kind in ("requests", "limits"))
    return asked, limit


def _put(amounts: Document, kind: str, resource: str, text: str) -> None:
    amounts.setdefault(kind, {})[resource] = text
