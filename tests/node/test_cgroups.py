"""Shares by Kubernetes' rule, and groups in a directory that stands in for the kernel's."""

from pathlib import Path

import pytest

from hotvirt.node import cgroups
from hotvirt.node.cgroups import Cgroups


@pytest.mark.parametrize(
    ("millis", "shares", "weight"), [(0, 2, 1), (100, 102, 4), (1000, 1024, 39), (4000, 4096, 157)]
)
def test_shares_and_weight_are_the_kubelets(millis, shares, weight):
    assert cgroups.shares(millis) == shares
    assert cgroups.weight(shares) == weight


def test_a_pods_request_is_the_sum_of_its_containers():
    asked = [{"resources": {"requests": {"cpu": "100m"}}}, {"resources": {"requests": {"cpu": "1"}}}, {}]
    assert cgroups.requested({"spec": {"containers": asked}}) == 1100


def test_a_process_joins_its_pods_group_and_the_group_goes(tmp_path: Path):
    groups = Cgroups(tmp_path / "hotvirt")
    (tmp_path / "hotvirt").mkdir()
    groups.join("uid", 42, millis=250)
    assert (tmp_path / "hotvirt" / "uid" / "cpu.shares").read_text() == "256"
    assert (tmp_path / "hotvirt" / "uid" / "cgroup.procs").read_text() == "42"
    for file in (tmp_path / "hotvirt" / "uid").iterdir():
        file.unlink()  # in the kernel's own directory they are no obstacle to rmdir
    groups.remove("uid")
    groups.stop()
    assert list(tmp_path.iterdir()) == []


def test_without_groups_nothing_is_done_and_nothing_fails():
    groups = Cgroups(None)
    groups.join("uid", 42, millis=100)
    groups.remove("uid")
    groups.stop()
