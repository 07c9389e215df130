"""What single built-in kinds may not say: every fault, by its field."""

from typing import Any

import pytest

from hotvirt.server import kind_checks, kinds, pods

Document = dict[str, Any]


def faults(store: str, doc: Document, *, classes: tuple[Document, ...] = ()) -> set[str]:
    rules = kinds.for_kind(store)
    doc = {"metadata": {"name": "x", "namespace": "default"}, **doc}
    if rules.complete:
        doc = rules.complete(doc, lambda _: classes)
    return {cause.field for cause in rules.check(doc, None)} if rules.check else set()


@pytest.mark.parametrize(
    ("store", "doc", "wanted"),
    [
        ("/services", {"spec": {"ports": [{"port": 80}]}}, set()),
        ("/services", {"spec": {"type": "Magic", "ports": [{"port": 0}]}}, {"spec.type", "spec.ports[0].port"}),
        ("/services", {"spec": {"ports": [{"port": 1, "name": "a"}, {"port": 2}]}}, {"spec.ports[1].name"}),
        ("/events", {"involvedObject": {"namespace": "default"}}, set()),
        ("/events", {"involvedObject": {"namespace": "other"}}, {"involvedObject.namespace"}),
        ("/events", {"involvedObject": {"kind": "Node"}}, set()),
        ("autoscaling/horizontalpodautoscalers", {"spec": {"maxReplicas": 1}}, set()),
        ("autoscaling/horizontalpodautoscalers", {"spec": {"maxReplicas": 0}}, {"spec.maxReplicas"}),
        ("autoscaling/horizontalpodautoscalers", {"spec": {"maxReplicas": 1, "minReplicas": 2}}, {"spec.maxReplicas"}),
        ("/secrets", {"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}, {"data[tls.key]"}),
        ("/configmaps", {"data": {"a": "x" * kind_checks.MOST_DATA}}, set()),
        ("/configmaps", {"data": {"a": "x" * kind_checks.MOST_DATA, "b": "y"}}, {"data"}),
        ("/pods", {"spec": {"containers": [{"name": "A_B"}]}}, {"spec.containers[0].name"}),
        ("/pods", {"spec": {"containers": [{"name": "a"}], "restartPolicy": "Maybe"}}, {"spec.restartPolicy"}),
        ("/pods", {"spec": {"containers": [{"name": "a"}], "priorityClassName": "x"}}, {"spec.priorityClassName"}),
    ],
    ids=lambda value: " ".join(sorted(value))[:60] if isinstance(value, set) else str(value)[:60],
)  # fmt: skip
def test_faults(store: str, doc: Document, wanted: set[str]) -> None:
    assert faults(store, doc) == wanted


def test_priorities() -> None:
    high = {"metadata": {"name": "high"}, "value": 1000}
    usual = {"metadata": {"name": "usual"}, "value": 5, "globalDefault": True}

    def given(*classes: Document, **spec: Any) -> Any:
        return pods.complete({"spec": {"containers": [{"name": "a"}], **spec}}, lambda _: classes)["spec"]["priority"]

    assert given(high, usual, priorityClassName="high") == 1000
    assert given(high, usual) == 5
    assert given(high) == 0
    assert given(usual, priority=0) == 0  # from before there was a usual class
    assert given(priorityClassName="system-node-critical") == 2_000_001_000


def test_a_class_that_comes_later_changes_no_pod() -> None:
    old = {"spec": {"containers": [{"name": "a"}], "restartPolicy": "Always"}}  # of before priorities were kept
    assert pods.check({"spec": {**old["spec"], "priority": 0}}, old) == []
