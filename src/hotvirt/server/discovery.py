"""What clients learn of the API: versions, groups and their resources, in the old form and the aggregated one. Pure."""

from collections.abc import Sequence
from typing import Any

from hotvirt.kube.aggregated import AggregatedGroup
from hotvirt.server.crd import version_rank
from hotvirt.server.registry import Served

Document = dict[str, Any]
_WRITING = ("get", "patch", "update")


def api_versions(server: str) -> Document:
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server}],
    }


def group_list(served: Sequence[Served], aggregated: Sequence[AggregatedGroup]) -> Document:
    groups = [_group(name, versions) for name, versions in _groups(served, aggregated).items() if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def group(name: str, served: Sequence[Served], aggregated: Sequence[AggregatedGroup]) -> Document | None:
    versions = _groups(served, aggregated).get(name)
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, versions)} if versions else None


def resource_list(
    name: str, version: str, served: Sequence[Served], aggregated: Sequence[AggregatedGroup]
) -> Document | None:
    """/api/v1 or /apis/G/V."""
    rows: list[Document] = []
    for each in served:
        if (each.resource.group, each.resource.version) == (name, version):
            rows += _rows(each)
    for other in aggregated:
        if other.name == name and version in other.versions:
            rows += [
                {"name": r.name, "singularName": "", "namespaced": r.namespaced, "kind": r.kind, "verbs": list(r.verbs)}
                for r in other.resources
            ]
    if not rows:
        return None
    shown = f"{name}/{version}" if name else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": shown, "resources": rows}


def aggregated_list(served: Sequence[Served], aggregated: Sequence[AggregatedGroup], *, core: bool) -> Document:
    """The v2 document of /api (`core`) or /apis."""
    items = []
    for name, versions in _groups(served, aggregated).items():
        if (name == "") is not core:
            continue
        shown = [
            {
                "version": version,
                "resources": _v2_resources(name, version, served, aggregated),
                "freshness": "Current",
            }
            for version in versions
        ]
        items.append({"metadata": {"name": name, "creationTimestamp": None} if name else {}, "versions": shown})
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


def _groups(served: Sequence[Served], aggregated: Sequence[AggregatedGroup]) -> dict[str, list[str]]:
    """Names in the order that clients should look, each with its versions, the preferred one first."""
    found: dict[str, list[str]] = {}
    for each in served:
        versions = found.setdefault(each.resource.group, [])
        if each.resource.version not in versions:
            versions.append(each.resource.version)
    for other in aggregated:
        found.setdefault(other.name, []).extend(v for v in other.versions if v not in found.get(other.name, ()))
    return {name: sorted(versions, key=version_rank) for name, versions in found.items()}


def _group(name: str, versions: Sequence[str]) -> Document:
    shown = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": shown, "preferredVersion": shown[0]}


def _rows(served: Served) -> list[Document]:
    resource = served.resource
    main: Document = {
        "name": resource.plural,
        "singularName": served.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(served.verbs),
    }
    if served.short_names:
        main["shortNames"] = list(served.short_names)
    if served.categories:
        main["categories"] = list(served.categories)
    rows = [main]
    for sub in served.subresources:
        row: Document = {
            "name": f"{resource.plural}/{sub.name}",
            "singularName": "",
            "namespaced": resource.namespaced,
            "kind": sub.kind,
            "verbs": list(sub.verbs),
        }
        if sub.version:
            row |= {"group": sub.group, "version": sub.version}
        rows.append(row)
    return rows


def _v2_resources(
    name: str, version: str, served: Sequence[Served], aggregated: Sequence[AggregatedGroup]
) -> list[Document]:
    rows = [_v2_resource(each) for each in served if (each.resource.group, each.resource.version) == (name, version)]
    for other in aggregated:
        if other.name == name and version in other.versions:
            rows += _v2_of_aggregated(other, version)
    return rows


def _v2_resource(served: Served) -> Document:
    resource = served.resource
    row: Document = {
        "resource": resource.plural,
        "responseKind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": served.singular,
        "verbs": list(served.verbs),
    }
    if served.short_names:
        row["shortNames"] = list(served.short_names)
    if served.categories:
        row["categories"] = list(served.categories)
    if served.subresources:
        row["subresources"] = [
            {
                "subresource": sub.name,
                "responseKind": {
                    "group": sub.group if sub.version else resource.group,
                    "version": sub.version or resource.version,
                    "kind": sub.kind,
                },
                "verbs": list(sub.verbs),
            }
            for sub in served.subresources
        ]
    return row


def _v2_of_aggregated(group: AggregatedGroup, version: str) -> list[Document]:
    """Subresources hang below their resource, which such a group need not serve itself."""
    rows: dict[str, Document] = {}
    for each in group.resources:
        plural, _, sub = each.name.partition("/")
        kind = {"group": group.name, "version": version, "kind": each.kind}
        row = rows.setdefault(
            plural,
            {"resource": plural, "scope": "Namespaced" if each.namespaced else "Cluster", "singularResource": "",
             "verbs": [], "responseKind": {**kind, "kind": each.kind or "Status"}},
        )  # fmt: skip
        if sub:
            below = {"subresource": sub, "responseKind": kind, "verbs": list(each.verbs)}
            row.setdefault("subresources", []).append(below)
        else:
            row["verbs"] = list(each.verbs)
    return list(rows.values())
