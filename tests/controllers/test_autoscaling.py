"""Autoscalers keep replicas within their limits, and say that metrics move nothing."""

from datetime import UTC, datetime

import pytest

from hotvirt.controllers.autoscaling import decide
from hotvirt.kube import conditions

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def scaler(least=2, most=4, **status):
    reference = {"apiVersion": "pool.kubevirt.io/v1beta1", "kind": "VirtualMachinePool", "name": "web"}
    return {
        "metadata": {"name": "web", "generation": 3},
        "spec": {"scaleTargetRef": reference, "minReplicas": least, "maxReplicas": most},
        **({"status": status} if status else {}),
    }


def pool(count, current=None):
    return {"spec": {"replicas": count}, "status": {"replicas": count if current is None else current}}


CASES = {
    "too few": (1, 2, "TooFewReplicas", True),
    "too many": (9, 4, "TooManyReplicas", True),
    "between": (3, None, "DesiredWithinRange", False),
    "switched off": (0, None, "DesiredWithinRange", False),
}


@pytest.mark.parametrize(("count", "wanted", "reason", "limited"), CASES.values(), ids=CASES)
def test_limits(count, wanted, reason, limited):
    verdict = decide(scaler(), pool(count), NOW)
    assert verdict.replicas == wanted
    found = conditions.get(verdict.status["conditions"], "ScalingLimited")
    assert (found["reason"], found["status"]) == (reason, str(limited))
    assert (verdict.status["currentReplicas"], verdict.status["desiredReplicas"]) == (
        count, count if wanted is None else wanted)  # fmt: skip
    assert ("lastScaleTime" in verdict.status) is limited
    active = conditions.get(verdict.status["conditions"], "ScalingActive")
    assert active["reason"] == ("FailedGetResourceMetric" if count else "ScalingDisabled")
    assert "lastProbeTime" not in active


def test_no_least_is_one():
    assert decide(scaler(least=None), pool(1), NOW).replicas is None


def test_a_target_that_is_not_there():
    verdict = decide(scaler(), None, NOW)
    found = conditions.get(verdict.status["conditions"], "AbleToScale")
    assert (found["status"], found["reason"]) == ("False", "FailedGetScale")
    assert found["message"] == ("there is no VirtualMachinePool web that a home scales: name a pool or a replica set")


def test_what_did_not_change_compares_equal():
    status = decide(scaler(), pool(3), NOW).status
    assert decide(scaler(**status), pool(3), NOW.replace(year=2027)).status == status
