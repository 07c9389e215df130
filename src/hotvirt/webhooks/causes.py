"""Faults of a document as the causes of a refusal. Pure."""

from collections.abc import Iterable

from hotvirt.api.faults import Fault
from hotvirt.kube.errors import Cause


def causes(faults: Iterable[Fault]) -> tuple[Cause, ...]:
    return tuple(Cause(fault.reason, fault.message, fault.field) for fault in faults)
