"""The schema of CustomResourceDefinition itself. What lies below openAPIV3Schema is checked by `crd_structural`."""

from typing import Any

_TEXT: dict[str, Any] = {"type": "string"}


def _text(description: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, **more}


def _object(about: str, required: list[str] | None = None, /, **properties: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "object", "description": about, "properties": properties}
    return {**made, "required": required} if required else made


def _list(description: str, items: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "array", "description": description, "items": items, **more}


def _keyed(description: str, key: str, items: dict[str, Any]) -> dict[str, Any]:
    return _list(
        description, items, **{"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}
    )  # fmt: skip


_NAMES = _object(
    "Names of the kind in paths, manifests and the command line.",
    ["plural", "kind"],
    plural=_text("Name in paths: lower case, plural."),
    singular=_text("Name for one object; the kind in lower case when absent."),
    kind=_text("Name in manifests."),
    listKind=_text("Kind of lists; the kind followed by List when absent."),
    shortNames=_list("Short forms for the command line.", _TEXT, **{"x-kubernetes-list-type": "atomic"}),
    categories=_list("Groups of kinds that it belongs to, such as all.", _TEXT, **{"x-kubernetes-list-type": "atomic"}),
)

_VERSION = _object(
    "One version of the kind.",
    ["name", "served", "storage"],
    name=_text("Name, such as v1 or v1beta1."),
    served={"type": "boolean", "description": "Whether clients may use it."},
    storage={"type": "boolean", "description": "Whether objects are stored in it; true for exactly one version."},
    deprecated={"type": "boolean", "description": "Whether its use is warned about."},
    deprecationWarning=_text("The warning, in place of the usual one."),
    schema=_object(
        "What objects look like.",
        openAPIV3Schema={
            "type": "object",
            "description": "A structural OpenAPI v3 schema.",
            "x-kubernetes-preserve-unknown-fields": True,
        },
    ),
    subresources=_object(
        "Parts with paths of their own.",
        status={
            "type": "object",
            "description": "Serve /status.",
            "x-kubernetes-preserve-unknown-fields": True,
        },
        scale=_object(
            "Serve /scale.",
            ["specReplicasPath", "statusReplicasPath"],
            specReplicasPath=_text("Path of the wanted number, below .spec."),
            statusReplicasPath=_text("Path of the present number, below .status."),
            labelSelectorPath=_text("Path of the selector as text, below .status or .spec."),
        ),
    ),
    additionalPrinterColumns=_list(
        "Columns of kubectl get.",
        _object(
            "One column.",
            ["name", "type", "jsonPath"],
            name=_text("Heading."),
            type=_text("integer, number, string, boolean or date."),
            format=_text("Format of the type."),
            description=_text("What the column shows."),
            priority={"type": "integer", "format": "int32", "description": "Above 0: with -o wide only."},
            jsonPath=_text("Where the value is."),
        ),
        **{"x-kubernetes-list-type": "atomic"},
    ),
    selectableFields=_list(
        "Fields that field selectors may use.",
        _object("One field.", ["jsonPath"], jsonPath=_text("Path of a plain field.")),
        **{"x-kubernetes-list-type": "atomic"},
    ),
)

_CONDITION = _object(
    "One state of the definition.",
    ["type", "status"],
    type=_text("NamesAccepted, Established or Terminating."),
    status=_text("True, False or Unknown."),
    lastTransitionTime=_text("When the status changed.", format="date-time"),
    observedGeneration={"type": "integer", "format": "int64", "description": "Generation it speaks of."},
    reason=_text("One word why."),
    message=_text("One sentence why."),
)

CRD_SCHEMA: dict[str, Any] = _object(
    "Defines a kind of object that the API serves.",
    ["spec"],
    apiVersion=_text("apiextensions.k8s.io/v1."),
    kind=_text("CustomResourceDefinition."),
    metadata={"type": "object", "description": "Its name is <plural>.<group>."},
    spec=_object(
        "The definition.",
        ["group", "names", "scope", "versions"],
        group=_text("API group, a domain name."),
        names=_NAMES,
        scope=_text("Namespaced or Cluster.", enum=["Cluster", "Namespaced"]),
        versions=_list("All versions.", _VERSION, **{"x-kubernetes-list-type": "atomic"}),
        conversion=_object(
            "How objects get from one version to another.",
            ["strategy"],
            strategy=_text("None: only apiVersion changes."),
            webhook={
                "type": "object",
                "description": "A converter outside the server.",
                "x-kubernetes-preserve-unknown-fields": True,
            },
        ),
        preserveUnknownFields={"type": "boolean", "description": "Must be false."},
    ),
    status=_object(
        "What the server made of it.",
        conditions=_keyed("States.", "type", _CONDITION),
        acceptedNames=_NAMES,
        storedVersions=_list("Versions that stored objects may have.", _TEXT, **{"x-kubernetes-list-type": "atomic"}),
        observedGeneration={"type": "integer", "format": "int64", "description": "Generation last looked at."},
    ),
)
