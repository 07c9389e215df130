"""CustomResourceDefinitions: is one acceptable, and what does it make the server serve.

Pure: documents in, causes or frozen rows out. The server stores the CRD, keeps the rows and writes the status that
`status_of` returns.
"""

import re
from typing import Any

from msgspec import Struct

from hotvirt.kube.errors import Cause
from hotvirt.kube.resources import Resource
from hotvirt.server import cel_rule_checks, jsonpaths
from hotvirt.server.crd_shape import CRD_SCHEMA
from hotvirt.server.crd_structural import check_structural
from hotvirt.server.schema import compile_schema
from hotvirt.server.schema_checks import DUPLICATE, INVALID, NOT_SUPPORTED, REQUIRED, shown

_SHAPE = compile_schema(CRD_SCHEMA)
_DOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?\Z")
_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
_VERSION = re.compile(r"v([1-9][0-9]*)(?:(alpha|beta)([1-9][0-9]*))?\Z")
_PLAIN_FIELD = re.compile(r"(\.[A-Za-z_][A-Za-z0-9_-]*)+\Z")


class ServedVersion(Struct, frozen=True):
    """One served version of a CRD, everything the server needs to serve it."""

    resource: Resource
    storage: bool
    schema: dict[str, Any]
    singular: str
    list_kind: str
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    columns: tuple[dict[str, Any], ...] = ()
    status: bool = False
    scale: dict[str, Any] | None = None
    selectable_fields: tuple[str, ...] = ()
    deprecated: bool = False
    deprecation_warning: str = ""

    @property
    def name(self) -> str:
        return self.resource.version


def default(crd: dict[str, Any]) -> dict[str, Any]:
    """The CRD with the names and the conversion that may be left out."""
    spec = crd.get("spec")
    if not isinstance(spec, dict) or not isinstance(spec.get("names"), dict):
        return crd
    names = dict(spec["names"])
    kind = str(names.get("kind") or "")
    names.setdefault("singular", kind.lower())
    names.setdefault("listKind", f"{kind}List" if kind else "")
    return {**crd, "spec": {**spec, "names": names, "conversion": spec.get("conversion") or {"strategy": "None"}}}


def check(crd: dict[str, Any]) -> list[Cause]:
    """Every fault of the CRD. A document of the wrong shape gets only the faults of its shape."""
    causes = _SHAPE.validate(crd)
    if causes:
        return causes
    spec = crd["spec"]
    return [*_check_names(crd, spec), *_check_versions(spec["versions"]), *_check_rest(spec)]


def _check_names(crd: dict[str, Any], spec: dict[str, Any]) -> list[Cause]:
    causes: list[Cause] = []
    group, names = spec["group"], spec["names"]
    name = (crd.get("metadata") or {}).get("name", "")
    if name != f"{names['plural']}.{group}":
        message = f'Invalid value: {shown(name)}: must be spec.names.plural+"."+spec.group'
        causes.append(Cause(INVALID, message, "metadata.name"))
    if not group:
        causes.append(Cause(REQUIRED, "Required value", "spec.group"))
    elif not _DOMAIN.match(group) or "." not in group:
        message = f"Invalid value: {shown(group)}: should be a domain with at least one dot"
        causes.append(Cause(INVALID, message, "spec.group"))
    labels = [("plural", names["plural"]), ("kind", names["kind"].lower())]
    labels += [(key, str(names[key]).lower()) for key in ("singular", "listKind") if names.get(key)]
    labels += [(f"shortNames[{i}]", value) for i, value in enumerate(names.get("shortNames") or ())]
    labels += [(f"categories[{i}]", value) for i, value in enumerate(names.get("categories") or ())]
    for key, value in labels:
        if not value:
            causes.append(Cause(REQUIRED, "Required value", f"spec.names.{key}"))
        elif not _LABEL.match(value) or len(value) > 63:
            message = f"Invalid value: {shown(value)}: must be a DNS label (letters, digits, '-', at most 63)"
            causes.append(Cause(INVALID, message, f"spec.names.{key}"))
    if names.get("listKind") and names["listKind"] == names["kind"]:
        message = f"Invalid value: {shown(names['listKind'])}: kind and listKind may not be the same"
        causes.append(Cause(INVALID, message, "spec.names.listKind"))
    return causes


def _check_versions(versions: list[dict[str, Any]]) -> list[Cause]:
    causes: list[Cause] = []
    seen: set[str] = set()
    sound: list[Any] = []  # versions are often alike, and a large schema takes its time
    for index, version in enumerate(versions):
        at = f"spec.versions[{index}]"
        if not _LABEL.match(version["name"]) or len(version["name"]) > 63:
            message = f"Invalid value: {shown(version['name'])}: must be a DNS label such as v1"
            causes.append(Cause(INVALID, message, f"{at}.name"))
        if version["name"] in seen:
            causes.append(Cause(DUPLICATE, f"Duplicate value: {shown(version['name'])}", f"{at}.name"))
        seen.add(version["name"])
        openapi = (version.get("schema") or {}).get("openAPIV3Schema")
        if openapi not in sound:
            faults = _check_schema(openapi, f"{at}.schema.openAPIV3Schema")
            causes += faults
            sound += [] if faults else [openapi]
        causes += _check_columns(version, at)
        causes += _check_subresources(version, at)
        if version.get("deprecationWarning") and not version.get("deprecated"):
            message = f"Invalid value: {shown(version['deprecationWarning'])}: can only be set for deprecated versions"
            causes.append(Cause(INVALID, message, f"{at}.deprecationWarning"))
    if sum(version["storage"] for version in versions) != 1:
        names = shown([version["name"] for version in versions])
        message = f"Invalid value: {names}: must have exactly one version marked as storage version"
        causes.append(Cause(INVALID, message, "spec.versions"))
    return causes


def _check_schema(openapi: Any, at: str) -> list[Cause]:
    return check_structural(openapi, at) or cel_rule_checks.check(openapi, at)


def _check_columns(version: dict[str, Any], at: str) -> list[Cause]:
    causes: list[Cause] = []
    for index, column in enumerate(version.get("additionalPrinterColumns") or ()):
        here = f"{at}.additionalPrinterColumns[{index}]"
        causes += [
            Cause(REQUIRED, "Required value", f"{here}.{key}") for key in ("name", "jsonPath") if not column[key]
        ]
        if column["type"] not in _COLUMN_TYPES:
            names = ", ".join(f'"{name}"' for name in _COLUMN_TYPES)
            message = f"Unsupported value: {shown(column['type'])}: supported values: {names}"
            causes.append(Cause(NOT_SUPPORTED, message, f"{here}.type"))
        try:
            jsonpaths.parse(column["jsonPath"])
        except ValueError as error:
            causes.append(Cause(INVALID, f"Invalid value: {shown(column['jsonPath'])}: {error}", f"{here}.jsonPath"))
    for index, field in enumerate(version.get("selectableFields") or ()):
        if not _PLAIN_FIELD.match(field["jsonPath"]):
            message = f"Invalid value: {shown(field['jsonPath'])}: must be a plain path such as .spec.colour"
            causes.append(Cause(INVALID, message, f"{at}.selectableFields[{index}].jsonPath"))
    return causes


def _check_subresources(version: dict[str, Any], at: str) -> list[Cause]:
    scale = (version.get("subresources") or {}).get("scale")
    if not scale:
        return []
    causes: list[Cause] = []
    roots = {
        "specReplicasPath": (".spec.",),
        "statusReplicasPath": (".status.",),
        "labelSelectorPath": (".status.", ".spec."),
    }
    for key, allowed in roots.items():
        path = scale.get(key)
        if path is None:
            continue
        if not path.startswith(allowed) or not _PLAIN_FIELD.match(path):
            message = f"Invalid value: {shown(path)}: should be a json path under {' or '.join(allowed).rstrip('.')}"
            causes.append(Cause(INVALID, message, f"{at}.subresources.scale.{key}"))
    return causes


def _check_rest(spec: dict[str, Any]) -> list[Cause]:
    causes: list[Cause] = []
    strategy = (spec.get("conversion") or {}).get("strategy", "None")
    if strategy != "None":
        message = f'Unsupported value: {shown(strategy)}: supported values: "None" (versions must share one shape)'
        causes.append(Cause(NOT_SUPPORTED, message, "spec.conversion.strategy"))
    if spec.get("preserveUnknownFields"):
        message = "Invalid value: true: must be false: use x-kubernetes-preserve-unknown-fields in the schema"
        causes.append(Cause(INVALID, message, "spec.preserveUnknownFields"))
    return causes


def served(crd: dict[str, Any]) -> list[ServedVersion]:
    """The served versions of a CRD that passed `check`, the one to prefer first."""
    spec = default(crd)["spec"]
    versions = [_served(spec, version) for version in spec["versions"] if version["served"]]
    return sorted(versions, key=lambda version: version_rank(version.name))


def storage_version(crd: dict[str, Any]) -> str:
    """The version that objects are stored in."""
    return next(str(version["name"]) for version in crd["spec"]["versions"] if version["storage"])


def _served(spec: dict[str, Any], version: dict[str, Any]) -> ServedVersion:
    names = spec["names"]
    subresources = version.get("subresources") or {}
    warning = ""
    if version.get("deprecated"):
        usual = f"{spec['group']}/{version['name']} {names['kind']} is deprecated"
        warning = version.get("deprecationWarning") or usual
    return ServedVersion(
        resource=Resource(
            spec["group"], version["name"], names["plural"], names["kind"], namespaced=spec["scope"] == "Namespaced"
        ),
        storage=version["storage"],
        schema=version["schema"]["openAPIV3Schema"],
        singular=names["singular"],
        list_kind=names["listKind"],
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        columns=tuple(version.get("additionalPrinterColumns") or ()),
        status="status" in subresources,
        scale=subresources.get("scale"),
        selectable_fields=tuple(f["jsonPath"].removeprefix(".") for f in version.get("selectableFields") or ()),
        deprecated=bool(version.get("deprecated")),
        deprecation_warning=warning,
    )


def version_rank(name: str) -> tuple[int, int, int, str]:
    """Sorts versions as Kubernetes prefers them: v2, v1, v2beta1, v1beta2, v1alpha1, then other names by alphabet."""
    match = _VERSION.match(name)
    if match is None:
        return (3, 0, 0, name)
    major, stage, minor = match.groups()
    return ({None: 0, "beta": 1, "alpha": 2}[stage], -int(major), -int(minor or 0), name)


def status_of(crd: dict[str, Any], now: str, *, conflict: str = "") -> dict[str, Any]:
    """The status to write: names accepted and established, or with `conflict` (a sentence) neither. `now` is RFC 3339;
    a condition that stays keeps its time, and a version once stored in is remembered."""
    before = crd.get("status") or {}
    accepted = "False" if conflict else "True"
    wanted = [
        ("NamesAccepted", accepted, "NameConflict" if conflict else "NoConflicts", conflict or "no conflicts found"),
        ("Established", accepted, "NotAccepted" if conflict else "InitialNamesAccepted",
         "not all names are accepted" if conflict else "the initial names have been accepted"),
    ]  # fmt: skip
    old = {c.get("type"): c for c in before.get("conditions") or ()}
    conditions = [old[kind] for kind in old if kind not in ("NamesAccepted", "Established")]
    for kind, state, reason, message in wanted:
        kept = old.get(kind) or {}
        since = kept.get("lastTransitionTime") if kept.get("status") == state else None
        conditions.append(
            {"type": kind, "status": state, "lastTransitionTime": since or now, "reason": reason, "message": message}
        )
    stored = list(before.get("storedVersions") or ())
    if storage_version(crd) not in stored:
        stored.append(storage_version(crd))
    names = {key: value for key, value in default(crd)["spec"]["names"].items() if value}
    accepted_names = before.get("acceptedNames") or {"plural": "", "kind": ""} if conflict else names
    return {"conditions": conditions, "acceptedNames": accepted_names, "storedVersions": stored}
