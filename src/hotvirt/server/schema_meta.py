"""The schema of `metadata`, which every object has and no CRD describes. Read only."""

from typing import Any

_TEXT: dict[str, Any] = {"type": "string"}
_TEXTS: dict[str, Any] = {"type": "object", "additionalProperties": _TEXT}
_TIME: dict[str, Any] = {"type": "string", "format": "date-time"}


def _text(description: str) -> dict[str, Any]:
    return {"type": "string", "description": description}


OBJECT_META: dict[str, Any] = {
    "type": "object",
    "description": "Name, labels and bookkeeping that every object carries.",
    "properties": {
        "name": _text("Unique for its kind in a namespace; fixed at creation."),
        "generateName": _text("Beginning of a name that the server completes."),
        "namespace": _text("Namespace the object lives in; fixed at creation."),
        "selfLink": _text("No longer filled in."),
        "uid": _text("Set by the server, never used twice."),
        "resourceVersion": _text("Changes with every write; send it back to refuse a lost update."),
        "generation": {"type": "integer", "format": "int64", "description": "Counts changes of the desired state."},
        "creationTimestamp": {**_TIME, "description": "When the object was created."},
        "deletionTimestamp": {**_TIME, "description": "When deletion was asked for; finalizers may still hold it."},
        "deletionGracePeriodSeconds": {
            "type": "integer", "format": "int64", "description": "Seconds allowed for an orderly end.",
        },
        "labels": {**_TEXTS, "description": "Short key-value pairs that selectors match."},
        "annotations": {**_TEXTS, "description": "Key-value pairs that selectors do not match."},
        "ownerReferences": {
            "type": "array",
            "description": "Objects this one belongs to; it goes when they are gone.",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["uid"],
            "x-kubernetes-patch-strategy": "merge",
            "x-kubernetes-patch-merge-key": "uid",
            "items": {
                "type": "object",
                "required": ["apiVersion", "kind", "name", "uid"],
                "x-kubernetes-map-type": "atomic",
                "properties": {
                    "apiVersion": _text("API version of the owner."),
                    "kind": _text("Kind of the owner."),
                    "name": _text("Name of the owner."),
                    "uid": _text("UID of the owner."),
                    "controller": {"type": "boolean", "description": "Whether this owner manages the object."},
                    "blockOwnerDeletion": {
                        "type": "boolean", "description": "Whether a foreground deletion of the owner waits for this.",
                    },
                },
            },
        },
        "finalizers": {
            "type": "array",
            "description": "Names that must be removed before the object goes.",
            "items": _TEXT,
            "x-kubernetes-list-type": "set",
            "x-kubernetes-patch-strategy": "merge",
        },
        "managedFields": {
            "type": "array",
            "description": "Which manager set which fields.",
            "x-kubernetes-list-type": "atomic",
            "items": {
                "type": "object",
                "properties": {
                    "manager": _text("Who."),
                    "operation": _text("Apply or Update."),
                    "apiVersion": _text("Version the fields are named in."),
                    "time": {**_TIME, "description": "When last."},
                    "fieldsType": _text("FieldsV1."),
                    "fieldsV1": {
                        "type": "object",
                        "description": "The fields.",
                        "x-kubernetes-preserve-unknown-fields": True,
                    },
                    "subresource": _text("Subresource it was written through, if any."),
                },
            },
        },
    },
}  # fmt: skip
