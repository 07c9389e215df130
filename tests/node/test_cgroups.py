"""Shares by Kubernetes' rule, and groups in a directory that stands in for the kernel's."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hotvirt.node import cgroups, oom
from hotvirt.node.cgroups import Cgroups, Limits


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


def test_a_pod_has_so_many_processes_and_is_counted_as_one(tmp_path: Path):
    bases = [tmp_path / each for each in ("cpu", "memory", "pids", "blkio")]
    for base in bases:
        (base / "uid").mkdir(parents=True)
    (bases[2] / "uid" / "pids.max").write_text("max")
    groups = Cgroups(bases[0], False, bases[1], tuple(bases[2:]))
    groups.join("uid", 42, millis=250)
    assert {(base / "uid" / "cgroup.procs").read_text() for base in bases} == {"42"}
    assert (bases[2] / "uid" / "pids.max").read_text() == str(cgroups.PROCESSES)


@pytest.mark.parametrize(("quality", "requested", "score"), [
    ("Guaranteed", 1 << 30, -997), ("BestEffort", 0, 1000), ("Burstable", 4 << 30, 750), ("Burstable", 1, 999),
    ("Burstable", 17 << 30, 3), ("Burstable", 0, 1000),
])  # fmt: skip
def test_who_goes_first_when_memory_runs_out_is_the_kubelets(quality, requested, score):
    assert oom.score(quality, requested, 16 << 30) == score


def test_the_kernel_is_told_of_a_process():
    with subprocess.Popen(["sleep", "60"]) as process:
        oom.hold(process.pid, 900)
        told = Path(f"/proc/{process.pid}/oom_score_adj").read_text()
        process.kill()
    assert told == "900\n"
    oom.hold(process.pid, 3)  # it is gone: nobody's fault


def test_without_groups_nothing_is_done_and_nothing_fails():
    groups = Cgroups(None)
    groups.join("uid", 42, millis=100)
    groups.remove("uid")
    groups.stop()


LIMITS = {
    "none": ([{}], Limits()),
    "both": ([{"cpu": "1500m", "memory": "1Gi"}], Limits(1 << 30, 1500)),
    "several containers": ([{"memory": "1Mi", "cpu": "1"}, {"memory": "2Mi", "cpu": "1"}], Limits(3 << 20, 2000)),
    "one without": ([{"memory": "1Mi"}, {"cpu": "1"}], Limits()),
}


@pytest.mark.parametrize(("given", "expected"), LIMITS.values(), ids=LIMITS)
def test_a_pods_limits(given, expected):
    containers = [{"resources": {"limits": each}} for each in given]
    assert cgroups.limits({"spec": {"containers": containers}}) == expected


def made(tmp_path, *, unified):
    base, memory = tmp_path / "cpu", tmp_path / ("cpu" if unified else "memory")
    for each in {base, memory}:
        (each / "uid").mkdir(parents=True)
    return Cgroups(base, unified, memory), base / "uid", memory / "uid"


@pytest.mark.parametrize("unified", [False, True])
def test_a_pod_is_held_to_its_limits_and_let_go(tmp_path, unified):
    groups, cpu, memory = made(tmp_path, unified=unified)
    cpu_file, memory_file = ("cpu.max", "memory.max") if unified else ("cpu.cfs_quota_us", "memory.limit_in_bytes")
    groups.confine("uid", 42, Limits(1 << 30, 1500))
    assert (cpu / cpu_file).read_text() == ("150000 100000" if unified else "150000")
    assert (memory / memory_file).read_text() == "1073741824"
    assert (memory / "cgroup.procs").read_text() == "42"
    groups.confine("uid", 42, Limits(1 << 20), may_lower=False)
    assert (memory / memory_file).read_text() == "1073741824"
    groups.confine("uid", 42, Limits(1 << 31), may_lower=False)
    assert (memory / memory_file).read_text() == "2147483648"
    groups.confine("uid", 42, Limits(1 << 20))
    assert (memory / memory_file).read_text() == "1048576"
    groups.confine("uid", 42, Limits())
    assert (cpu / cpu_file).read_text() == ("max 100000" if unified else "-1")
    assert (memory / memory_file).read_text() == ("max" if unified else "-1")


def test_without_a_limit_a_pod_needs_no_group_for_its_memory(tmp_path):
    groups, _, memory = made(tmp_path, unified=False)
    groups.confine("uid", 42, Limits())
    assert list(memory.iterdir()) == []


@pytest.mark.parametrize("unified", [False, True])
def test_a_pod_that_was_killed_for_its_limit_is_known(tmp_path, unified):
    groups, _, memory = made(tmp_path, unified=unified)
    assert not groups.ran_out_of_memory("uid")
    told = memory / ("memory.events" if unified else "memory.oom_control")
    told.write_text("oom 3\noom_kill 0\n" if unified else "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n")
    assert not groups.ran_out_of_memory("uid")
    told.write_text(told.read_text().replace("oom_kill 0", "oom_kill 1"))
    assert groups.killed_for("uid") == ("limit" if unified else "host")
    (memory / "memory.failcnt").write_text("17\n")
    told.write_text(told.read_text().replace("oom 3", "oom 0"))
    assert groups.killed_for("uid") == ("host" if unified else "limit")


HUNGRY = "import sys; sys.stdin.readline(); held = bytearray(b'x' * (256 << 20)); print('alive')"


def test_the_kernel_keeps_a_process_within():
    groups = cgroups.find(f"hotvirt_test_{os.getpid()}")
    if groups.memory is None:
        groups.stop()
        pytest.skip("no memory cgroups here")
    with subprocess.Popen([sys.executable, "-c", HUNGRY], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            groups.join("uid", process.pid, millis=100)
            groups.confine("uid", process.pid, Limits(64 << 20, 1000))
            assert process.communicate(b"go\n", timeout=30)[0] == b""
            assert process.returncode == -signal.SIGKILL
            assert groups.killed_for("uid") == "limit"
        finally:
            process.kill()
    groups.remove("uid")
    groups.stop()
    assert not any(base.exists() for base in (groups.base, groups.memory, *groups.others))


def test_a_group_that_a_process_on_its_way_out_had_kept_goes_later(tmp_path: Path):
    base = tmp_path / "hotvirt"
    for name in ("gone", "busy", "known"):
        (base / name).mkdir(parents=True)
    (base / "busy" / "process").touch()  # as the kernel refuses to remove one that has a process
    Cgroups(base).sweep({"known"})
    assert sorted(each.name for each in base.iterdir()) == ["busy", "known"]
    Cgroups(None).sweep(set())
