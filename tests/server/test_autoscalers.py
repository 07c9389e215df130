"""A HorizontalPodAutoscaler in both of its versions."""

from typing import Any

from hotvirt.server import autoscalers

Doc = dict[str, Any]
BEHAVIOR = {"scaleDown": {"stabilizationWindowSeconds": 5}}


def metric(share: int) -> Doc:
    target = {"type": "Utilization", "averageUtilization": share}
    return {"type": "Resource", "resource": {"name": "cpu", "target": target}}


def autoscaler(version: str, **spec: Any) -> Doc:
    return {"apiVersion": f"autoscaling/{version}", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
            "spec": {"maxReplicas": 3, **spec}}  # fmt: skip


def test_the_share_of_the_cpu_is_a_metric() -> None:
    v1, v2 = autoscaler("v1", targetCPUUtilizationPercentage=50), autoscaler("v2", metrics=[metric(50)])
    assert autoscalers.to_v2(v1) == v2
    assert autoscalers.to_v1(v2) == v1


def test_what_v1_does_not_know_is_kept() -> None:
    pods = {"type": "Pods", "pods": {"metric": {"name": "hits"}, "target": {"averageValue": "10"}}}
    condition = {"type": "AbleToScale", "status": "True"}
    current = {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 7}}}
    v2 = {**autoscaler("v2", metrics=[pods, metric(50)], behavior=BEHAVIOR),
          "status": {"currentReplicas": 2, "currentMetrics": [current], "conditions": [condition]}}  # fmt: skip
    v1 = autoscalers.to_v1(v2)
    assert v1["spec"] == {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50}
    assert v1["status"] == {"currentReplicas": 2, "currentCPUUtilizationPercentage": 7}
    back = autoscalers.to_v2(v1)
    assert back == {**v2, "spec": {**v2["spec"], "metrics": [metric(50), pods]}}


def test_defaults_in_both() -> None:
    assert autoscalers.with_defaults(autoscaler("v2"))["spec"]["metrics"] == [metric(80)]
    spec = autoscalers.with_defaults(autoscaler("v1"))["spec"]
    assert spec == {"maxReplicas": 3, "minReplicas": 1, "targetCPUUtilizationPercentage": 80}
    given = autoscaler("v1", minReplicas=2, targetCPUUtilizationPercentage=50)
    assert autoscalers.with_defaults(given) == given


def test_an_annotation_that_cannot_be_read_is_let_go() -> None:
    v1 = autoscaler("v1")
    v1["metadata"]["annotations"] = {"autoscaling.alpha.kubernetes.io/metrics": "{", "mine": "1"}
    assert autoscalers.to_v2(v1)["metadata"]["annotations"] == {"mine": "1"}
