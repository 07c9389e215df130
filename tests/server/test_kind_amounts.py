"""Amounts and storage: what containers, quotas, limit ranges, claims, volumes and classes may not say."""

from typing import Any

import pytest

from hotvirt.server import amount_checks, storage_checks

Doc = dict[str, Any]


def fields(causes: list[Any]) -> set[str]:
    return {cause.field for cause in causes}


@pytest.mark.parametrize(
    ("resources", "wrong"),
    [
        ({"requests": {"cpu": "1"}, "limits": {"cpu": "1000m"}}, set()),
        ({"requests": {"cpu": "1100m"}, "limits": {"cpu": "1"}}, {"requests"}),
        ({"requests": {"cpu": "-1"}}, {"requests[cpu]"}),
        ({"limits": {"disk": "1"}}, {"limits[disk]"}),
        ({"limits": {"example.org/disk": "1", "hugepages-2Mi": "4Mi"}}, set()),
    ],
)
def test_resources_of_containers(resources: Doc, wrong: set[str]) -> None:
    spec = {"containers": [{"name": "a"}], "initContainers": [{"name": "b", "resources": resources}]}
    assert fields(amount_checks.of_containers(spec)) == {f"spec.initContainers[0].resources.{each}" for each in wrong}


def test_quotas() -> None:
    spec = {"hard": {"pods": "-1", "nonsense": "1", "count/x.y": "2", "requests.cpu": "1"},
            "scopes": ["BestEffort", "NotBestEffort", "Sometimes"]}  # fmt: skip
    found = amount_checks.quota({"spec": spec}, None)
    assert sorted(cause.field for cause in found) == ["spec.hard[nonsense]", "spec.hard[pods]"] + ["spec.scopes"] * 2


@pytest.mark.parametrize(
    ("item", "wrong"),
    [
        ({"type": "Container", "min": {"cpu": "1"}, "max": {"cpu": "2"}, "default": {"cpu": "2"}}, set()),
        ({"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}, {"min[cpu]"}),
        ({"type": "Container", "default": {"cpu": "2"}, "max": {"cpu": "1"}}, {"default[cpu]"}),
        ({"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "2"}}, {"defaultRequest[cpu]"}),
        ({"type": "Pod", "default": {"cpu": "1"}}, {"default"}),
        ({"type": "Container", "maxLimitRequestRatio": {"cpu": "0.5"}}, {"maxLimitRequestRatio[cpu]"}),
    ],
)
def test_limit_ranges(item: Doc, wrong: set[str]) -> None:
    found = amount_checks.limit_range({"spec": {"limits": [item]}}, None)
    assert fields(found) == {f"spec.limits[0].{each}" for each in wrong}


def test_what_a_limit_range_says_by_itself() -> None:
    items = [{"type": "Container", "max": {"cpu": "2", "memory": "1Gi"}, "default": {"cpu": "1"}, "min": {"disk": "1"}},
             {"type": "Pod", "max": {"cpu": "2"}}]  # fmt: skip
    found = amount_checks.with_usual_limits({"spec": {"limits": items}})["spec"]["limits"]
    usual = {"cpu": "1", "memory": "1Gi"}
    assert found == [{**items[0], "default": usual, "defaultRequest": {**usual, "disk": "1"}}, items[1]]


def test_one_item_a_type() -> None:
    found = amount_checks.limit_range({"spec": {"limits": [{"type": "Container"}, {"type": "Container"}]}}, None)
    assert fields(found) == {"spec.limits[1].type"}


def claim(size: str = "1Gi", *, phase: str = "Pending", **spec: Any) -> Doc:
    wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **spec}
    return {"spec": wanted, "status": {"phase": phase, "capacity": {"storage": "1Gi"}}}


@pytest.mark.parametrize(
    ("new", "wrong"),
    [
        (claim(), set()),
        (claim("0"), {"spec.resources[storage]"}),
        (claim(accessModes=["Some"], volumeMode="Round"), {"spec.accessModes", "spec.volumeMode"}),
        (claim(accessModes=["ReadWriteOnce", "ReadWriteOncePod"]), {"spec.accessModes"}),
        (claim(accessModes=[], resources={}), {"spec.accessModes", "spec.resources[storage]"}),
    ],
)
def test_claims(new: Doc, wrong: set[str]) -> None:
    assert fields(storage_checks.claim(new, None)) == wrong


@pytest.mark.parametrize(
    ("old", "new", "wrong"),
    [
        (claim(), claim(volumeName="pv"), set()),
        (claim(volumeName="pv"), claim(volumeName="other"), {"spec"}),
        (claim(), claim("2Gi"), {"spec"}),
        (claim(phase="Bound"), claim("2Gi", phase="Bound"), set()),
        (claim("2Gi", phase="Bound"), claim("1500Mi", phase="Bound"), set()),  # taking back a growth that failed
        (claim(phase="Bound"), claim("1Mi", phase="Bound"), {"spec.resources.requests.storage"}),
        (claim(phase="Bound"), claim(phase="Bound", storageClassName="x"), {"spec"}),
    ],
)
def test_what_may_change_of_a_claim(old: Doc, new: Doc, wrong: set[str]) -> None:
    assert fields(storage_checks.claim(new, old)) == wrong


def test_volumes_and_classes() -> None:
    found = storage_checks.volume({"spec": {"persistentVolumeReclaimPolicy": "Burn"}}, None)
    assert fields(found) == {"spec.accessModes", "spec.capacity[storage]", "spec.persistentVolumeReclaimPolicy"}
    found = storage_checks.storage_class({"reclaimPolicy": "Burn", "volumeBindingMode": "Later"}, None)
    assert fields(found) == {"provisioner", "reclaimPolicy", "volumeBindingMode"}
    one = {"provisioner": "a/b", "reclaimPolicy": "Delete", "parameters": {"a": "b"}}
    assert fields(storage_checks.storage_class({**one, "parameters": {}}, one)) == {"parameters"}
