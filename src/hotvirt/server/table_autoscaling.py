"""Columns of HorizontalPodAutoscalers: what they scale, and how far each metric is from its target. Pure."""

from typing import Any

from hotvirt.server.table_cells import NONE, Doc, at, column, columns, field
from hotvirt.server.tables import AGE, Columns

_UNKNOWN = "<unknown>"
_SHOWN = 2


def _reference(doc: Doc) -> str:
    to = at(doc, "spec", "scaleTargetRef") or {}
    return f"{to.get('kind', '')}/{to.get('name', '')}"


def _source(metric: Doc) -> tuple[str, Doc]:
    """Its kind, and what is under the field named after the kind."""
    kind = str(metric.get("type") or "")
    return kind, metric.get(kind[:1].lower() + kind[1:]) or {}


def _metric(wanted: Doc, seen: Doc) -> str:
    kind, source = _source(wanted)
    target, current = source.get("target") or {}, _source(seen)[1].get("current") or {}
    if kind in ("Resource", "ContainerResource"):
        if (average := target.get("averageValue")) is not None:
            return f"{source.get('name')}: {current.get('averageValue', _UNKNOWN)}/{average}"
        return f"{source.get('name')}: {_percent(current, _UNKNOWN)}/{_percent(target, '<auto>')}"
    if (average := target.get("averageValue")) is not None:
        suffix = "" if kind == "Pods" else " (avg)"
        return f"{current.get('averageValue', _UNKNOWN)}/{average}{suffix}"
    return f"{current.get('value', _UNKNOWN)}/{target.get('value')}" if source else "<unknown type>"


def _percent(value: Doc, empty: str) -> str:
    share: Any = value.get("averageUtilization")
    return empty if share is None else f"{share}%"


def _targets(doc: Doc) -> str:
    wanted, seen = at(doc, "spec", "metrics") or [], at(doc, "status", "currentMetrics") or []
    shown = [_metric(each, seen[i] if i < len(seen) else {}) for i, each in enumerate(wanted[:_SHOWN])]
    more = f" + {len(wanted) - _SHOWN} more..." if len(wanted) > _SHOWN else ""
    return ", ".join(shown) + more or NONE


COLUMNS: dict[tuple[str, str], Columns] = {
    ("autoscaling", "horizontalpodautoscalers"): columns(
        column("Reference", _reference, "What it scales."),
        column("Targets", _targets, "Each metric, and what it is to be."),
        field("MinPods", "spec", "minReplicas", empty="<unset>"),
        field("MaxPods", "spec", "maxReplicas", empty=0),
        field("Replicas", "status", "currentReplicas", empty=0),
        AGE,
    )
}
