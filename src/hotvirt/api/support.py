"""What hotvirt does with each field of KubeVirt's object model: acts on it, takes it without effect, or refuses it.

Nothing is silently ignored: `refused` finds every field of a spec that would promise what is not there, and admission
answers with its path. Fields with words in `api.explain` are acted on; the few that may be set without effect are
listed here with the reason; every other field of a spec is refused until it is built.
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from msgspec import Struct

from hotvirt.api import explain, explain_storage, explain_volumes, schemas, support_settings

Document = dict[str, Any]


class Support(StrEnum):
    ACTED_ON = "acted on"
    NO_EFFECT = "no effect"
    REFUSED = "refused"


class Entry(Struct, frozen=True):
    """What becomes of a field, and why (for what has no effect)."""

    support: Support
    reason: str = ""


_PLACEMENT = "passed on to the launcher pod; the embedded home has one node"
_POD_NAMES = "passed on to the launcher pod; guests are told the home's own name server and search domains"
_ALWAYS = "always so"
_QEMU_DEFAULT = "QEMU's default is used, which guests work with"

NO_EFFECT: dict[str, str] = {
    **support_settings.NO_EFFECT,
    **explain_storage.NO_EFFECT,
    **explain_volumes.NO_EFFECT,
    "VirtualMachineInstanceSpec.priorityClassName": _PLACEMENT,
    "VirtualMachineInstanceSpec.dnsConfig": _POD_NAMES,
    "VirtualMachineInstanceSpec.dnsPolicy": _POD_NAMES,
    "VirtualMachineSpec.updateVolumesStrategy": "volumes are replaced by stop and start (Replacement)",
    "Features.smm": "secure boot switches it on, and nothing else needs it",
    "FeatureAPIC.enabled": _ALWAYS,
    "TLBFlush.direct": "QEMU of Debian 12 does not know it",
    "TLBFlush.extended": "QEMU of Debian 12 does not know it",
    "HPETTimer.tickPolicy": _QEMU_DEFAULT,
    "PITTimer.tickPolicy": _QEMU_DEFAULT,
    "Devices.autoattachSerialConsole": _ALWAYS,
    "Devices.useVirtioTransitional": "virtio 1.0 devices, which guests since 2014 know",
    "ResourceRequirements.overcommitGuestOverhead": "counted in the pod's request by the controllers",
    "PodNetwork.vmNetworkCIDR": "the guest has its pod's address",
    "PodNetwork.vmIPv6NetworkCIDR": "the guest has its pod's address",
}

_PASSED_WHOLE = frozenset(
    (
        "core.Affinity", "core.Toleration", "core.TopologySpreadConstraint", "core.PersistentVolumeClaimSpec",
        "cdi.StorageSpec",
    )
)  # fmt: skip
"""Types that whoever acts on the field reads whole."""

_OPEN = frozenset[str]()
"""Types that have no effect as a whole, and fields that a guest would rely on: those are refused."""

_NO_HOST_DEVICES = "no device of the host is handed to guests here: remove it, or use a cluster with upstream KubeVirt"
_MEND = {
    "gpus": _NO_HOST_DEVICES,
    "hostDevices": _NO_HOST_DEVICES,
    "sriov": f"{_NO_HOST_DEVICES} (bridge connects a card to a network of the host)",
    "useSerial": "have the guest's boot loader use its port",
    "default": "the pod network stays the default one: leave default out",
    "host": "leave host out: the guest itself is asked, at its own address",
}


def of(type_name: str, field: str) -> Entry:
    """What becomes of one field of the table."""
    key = f"{type_name}.{field}"
    if reason := NO_EFFECT.get(key):
        return Entry(Support.NO_EFFECT, reason)
    if key in explain.WORDS:
        return Entry(Support.ACTED_ON)
    return Entry(Support.REFUSED)


def sentence(type_name: str, field: str) -> str:
    """For `kubectl explain`: a field's own words, or what becomes of it."""
    entry = of(type_name, field)
    match entry.support:
        case Support.ACTED_ON:
            return explain.WORDS[f"{type_name}.{field}"]
        case Support.NO_EFFECT:
            return f"Accepted without effect: {entry.reason}."
        case Support.REFUSED:
            return f"Not supported by hotvirt yet: {mend(field)}."


def decides(kind: schemas.Kind, entry: Entry) -> bool:
    """Whether a field's treatment is that of everything below it."""
    if kind.is_scalar or kind.item in _PASSED_WHOLE or entry.support is Support.REFUSED:
        return True
    return entry.support is Support.NO_EFFECT and kind.item not in _OPEN


def mend(field: str) -> str:
    """What to do instead of setting a refused field."""
    return _MEND.get(field, f"remove {field}")


def refused(document: Document, type_name: str, path: str) -> Iterator[tuple[str, str]]:
    """(path, sentence) of each field of `document` that hotvirt does not support. Only what is set counts: null,
    false, and empty lists and objects promise nothing, except where an empty object is the promise (`efi: {}`)."""
    for here, name, entry in _decided(document, type_name, path):
        if entry.support is Support.REFUSED:
            yield here, f"{name} is not supported by hotvirt yet: {mend(name)}"


def idle(document: Document, type_name: str, path: str) -> Iterator[tuple[str, str]]:
    """(path, reason) of each field of `document` that is set and has no effect."""
    for here, _, entry in _decided(document, type_name, path):
        if entry.support is Support.NO_EFFECT:
            yield here, entry.reason


def _decided(document: Document, type_name: str, path: str) -> Iterator[tuple[str, str, Entry]]:
    """(path, field, entry) of each field that is set and whose entry holds for all below it."""
    fields = schemas.fields(type_name)
    for name, value in document.items():
        kind = fields.get(name)
        if kind is None or value is None or value is False or value == []:
            continue
        here = f"{path}.{name}"
        entry = of(type_name, name)
        if decides(kind, entry):
            yield here, name, entry
        else:
            yield from _below(value, kind, here)


def _below(value: Any, kind: schemas.Kind, path: str) -> Iterator[tuple[str, str, Entry]]:
    if kind.shape == "list":
        for index, item in enumerate(value):
            yield from _decided(item, kind.item, f"{path}[{index}]")
    elif kind.shape == "one" and isinstance(value, dict):
        yield from _decided(value, kind.item, path)
