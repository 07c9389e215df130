"""One fault of a document: KubeVirt's and Kubernetes' cause types, the field's path, a sentence with the mend."""

from msgspec import Struct


class Fault(Struct, frozen=True):
    """`reason` is a Kubernetes CauseType."""

    reason: str
    field: str
    message: str


def invalid(field: str, message: str) -> Fault:
    return Fault("FieldValueInvalid", field, message)


def required(field: str, message: str) -> Fault:
    return Fault("FieldValueRequired", field, message)


def not_supported(field: str, message: str) -> Fault:
    return Fault("FieldValueNotSupported", field, message)


def duplicate(field: str, message: str) -> Fault:
    return Fault("FieldValueDuplicate", field, message)
