"""Facts, out of the documents that an API gave. None in, None out: what nobody could read is not known. Pure."""

from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any

from msgspec import Struct, structs

from hotvirt.api import attachments, disks
from hotvirt.api.instancetype_matchers import INSTANCETYPE, matcher
from hotvirt.api.quantity import QuantityError, parse_bytes, parse_cpu
from hotvirt.preconditions import findings, owner
from hotvirt.preconditions.facts import MAKE_CLAIM, PATCH_VM, READ_CLAIM, Caller, Claim, Facts, Places, Quota
from hotvirt.preconditions.room import FINAL, Demand, free, used

Document = dict[str, Any]
Documents = Iterable[Document]
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
REVIEWS: Mapping[str, Document] = {
    PATCH_VM: {"verb": "patch", "group": "kubevirt.io", "resource": "virtualmachines"},
    READ_CLAIM: {"verb": "get", "group": "", "resource": "persistentvolumeclaims"},
    MAKE_CLAIM: {"verb": "create", "group": "", "resource": "persistentvolumeclaims"},
}
"""What is asked of the API about the caller, as attributes of an access review."""


class Read(Struct, frozen=True, kw_only=True):
    """What was read for one VM; each None where it could not be."""

    kubevirt: Document | None = None
    claims: Documents | None = None
    classes: Documents | None = None
    """Storage classes."""
    vmis: Documents | None = None
    attachments: Documents | None = None
    """Of all namespaces, or of the VM's alone if `knows_elsewhere` is false."""
    knows_elsewhere: bool = True
    node: Document | None = None
    pods: Documents | None = None
    quotas: Documents | None = None
    spare: int | None = None
    places: Places | None = None
    caller: Caller | None = None


def facts(read: Read, name: str, namespace: str = "") -> Facts:
    """Of the VM of this name, in this namespace."""
    lazy = lazy_classes(read.classes or ())
    return structs.replace(
        Facts.of_cluster(read.kubevirt),
        claims=None if read.claims is None else {_name(each): claim(each, lazy) for each in read.claims},
        claim_users=None if read.vmis is None else users(read.vmis, beside=name),
        joins={_full(each): joins(each, namespace) for each in read.attachments or ()},
        attachments=None if read.attachments is None else _called(read.attachments, namespace),
        knows_elsewhere=read.knows_elsewhere,
        room=None if read.pods is None or read.node is None else room(read.node, read.pods),
        quotas=None if read.quotas is None else tuple(line for each in read.quotas for line in quota(each)),
        spare=read.spare,
        places=read.places,
        caller=read.caller,
    )


def sized_by(vm: Document, expanded: Document) -> dict[str, str]:
    """Field -> the instancetype that sets it; `expanded` is the VM as one that says all this itself. Memory and CPUs
    are an instancetype's always, their maxima where it names them."""
    named = matcher(vm, INSTANCETYPE)
    if named is None:
        return {}
    limits = [field for field in (owner.MOST_MEMORY, owner.MOST_SOCKETS) if _said(expanded, field) != _said(vm, field)]
    return dict.fromkeys((owner.MEMORY, owner.SOCKETS, *limits), named.name)


def _said(vm: Document, field: str) -> Any:
    found: Any = vm["spec"]["template"].get("spec")
    for step in field.split("."):
        found = (found or {}).get(step)
    return found


def joins(definition: Document, namespace: str = "") -> attachments.Bridge | str:
    """The bridge that a NetworkAttachmentDefinition names, or what is wrong with it, in words for that namespace."""
    try:
        return attachments.bridge(definition, called=attachments.from_within(_full(definition), namespace))
    except attachments.AttachmentError as error:
        return str(error)


def _full(definition: Document) -> str:
    return f"{findings.namespace(definition)}/{_name(definition)}"


def lazy_classes(classes: Documents) -> frozenset[str]:
    """Names of those that bind a claim when somebody comes to use it; "" is among them if the default class is."""
    lazy = [each for each in classes if each.get("volumeBindingMode") == "WaitForFirstConsumer"]
    notes = ((each.get("metadata") or {}).get("annotations") or {} for each in lazy)
    is_default = any(each.get(DEFAULT_CLASS) == "true" for each in notes)
    return frozenset(map(_name, lazy)) | ({""} if is_default else set())


def claim(obj: Document, lazy: Container[str] = ()) -> Claim:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    asked = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    return Claim(
        phase=str(status.get("phase") or "Pending"),
        modes=tuple(map(str, status.get("accessModes") or spec.get("accessModes") or ())),
        size=str((status.get("capacity") or {}).get("storage") or asked or ""),
        storage_class=str(spec.get("storageClassName") or ""),
        waits=str(spec.get("storageClassName") or "") in lazy,
    )


def users(vmis: Documents, *, beside: str) -> dict[str, str]:
    """Claim -> the running machine that uses it."""
    found: dict[str, str] = {}
    for vmi in vmis:
        if _name(vmi) == beside or (vmi.get("status") or {}).get("phase") in FINAL:
            continue
        for volume in (vmi.get("spec") or {}).get("volumes") or ():
            if name := disks.claim(volume):
                found[name] = f"VM {_name(vmi)}"
    return found


def room(node: Document, pods: Documents) -> Demand:
    return free(node, used(pods).get(_name(node), Demand()))


def quota(obj: Document) -> Iterator[Quota]:
    """Its lines about what pods request. Limits are another matter: who sets none on his VM has none."""
    status = obj.get("status") or {}
    hard, taken = status.get("hard") or (obj.get("spec") or {}).get("hard") or {}, status.get("used") or {}
    for key, value in hard.items():
        resource = key.removeprefix("requests.")
        if resource not in ("memory", "cpu"):
            continue
        parse = parse_bytes if resource == "memory" else parse_cpu
        try:
            yield Quota(name=_name(obj), resource=resource, hard=parse(value), used=parse(taken.get(key) or 0))
        except QuantityError:
            continue


def _name(obj: Document) -> str:
    return str((obj.get("metadata") or {}).get("name") or "")


def _called(found: Documents, namespace: str) -> frozenset[str]:
    """As that namespace calls them."""
    homes = ((_name(each), (each.get("metadata") or {}).get("namespace") or namespace) for each in found)
    return frozenset(attachments.from_within(f"{home}/{name}", namespace) for name, home in homes)
