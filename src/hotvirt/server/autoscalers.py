"""The two versions of a HorizontalPodAutoscaler: `autoscaling/v2` (as kept) and `autoscaling/v1`, which knows the share
of the CPU alone and keeps the rest of v2 in annotations. Pure; a result has a top level of its own."""

import json
from typing import Any

Document = dict[str, Any]
_PREFIX = "autoscaling.alpha.kubernetes.io/"
_KEPT = (("spec", "metrics", "metrics"), ("spec", "behavior", "behavior"), ("status", "currentMetrics",
         "current-metrics"), ("status", "conditions", "conditions"))  # fmt: skip
USUAL_SHARE = 80


def with_defaults(doc: Document) -> Document:
    """At least one pod, at 80 % of the CPU that it requests."""
    if doc.get("apiVersion") == "autoscaling/v1":
        return to_v1(with_defaults(to_v2(doc)))
    spec = doc.get("spec") or {}
    usual = {"minReplicas": 1, "metrics": [_metric(USUAL_SHARE)]}
    return {**doc, "spec": {**spec, **{key: value for key, value in usual.items() if not spec.get(key)}}}


def to_v2(doc: Document) -> Document:
    spec, status = dict(doc.get("spec") or {}), dict(doc.get("status") or {})
    halves = {"spec": spec, "status": status}
    metadata = dict(doc.get("metadata") or {})
    annotations = dict(metadata.get("annotations") or {})
    for half, field, name in _KEPT:
        if (kept := _read(annotations.pop(_PREFIX + name, None))) is not None:
            halves[half][field] = kept
    if (share := spec.pop("targetCPUUtilizationPercentage", None)) is not None:
        spec["metrics"] = [_metric(share), *(spec.get("metrics") or [])]
    if (share := status.pop("currentCPUUtilizationPercentage", None)) is not None:
        current = {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": share}}}
        status["currentMetrics"] = [current, *(status.get("currentMetrics") or [])]
    return _whole(doc, "autoscaling/v2", metadata, annotations, halves)


def to_v1(doc: Document) -> Document:
    spec, status = dict(doc.get("spec") or {}), dict(doc.get("status") or {})
    halves = {"spec": spec, "status": status}
    metadata = dict(doc.get("metadata") or {})
    annotations = dict(metadata.get("annotations") or {})
    share, left = _cpu(spec.get("metrics"), "target")
    if share is not None:
        spec |= {"targetCPUUtilizationPercentage": share, "metrics": left}
    share, left = _cpu(status.get("currentMetrics"), "current")
    if share is not None:
        status |= {"currentCPUUtilizationPercentage": share, "currentMetrics": left}
    for half, field, name in _KEPT:
        if rest := halves[half].pop(field, None):
            annotations[_PREFIX + name] = json.dumps(rest, separators=(",", ":"))
    return _whole(doc, "autoscaling/v1", metadata, annotations, halves)


def _metric(share: Any) -> Document:
    target = {"type": "Utilization", "averageUtilization": share}
    return {"type": "Resource", "resource": {"name": "cpu", "target": target}}


def _cpu(metrics: Any, side: str) -> tuple[Any, list[Any]]:
    """The share of the CPU, and the other metrics."""
    metrics = metrics if isinstance(metrics, list) else []
    for index, each in enumerate(metrics):
        resource = each.get("resource") if isinstance(each, dict) else None
        if isinstance(resource, dict) and resource.get("name") == "cpu":
            share = (resource.get(side) or {}).get("averageUtilization")
            if share is not None:
                return share, metrics[:index] + metrics[index + 1 :]
    return None, metrics


def _read(text: Any) -> Any:
    try:
        return json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _whole(
    doc: Document, api_version: str, metadata: Document, annotations: Document, halves: dict[str, Document]
) -> Document:
    metadata.pop("annotations", None)
    if annotations:
        metadata["annotations"] = annotations
    made = {**doc, "apiVersion": api_version, "metadata": metadata}
    return {**made, **{name: half for name, half in halves.items() if half or name in doc}}
