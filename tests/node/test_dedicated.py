"""Which CPUs of the host a guest has for itself, and which thread runs where."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotvirt.node.dedicated import Wish, choose, plan, wish


@pytest.mark.parametrize(
    ("wanted", "host", "taken", "given_"),
    [
        (1, [0, 1], [], (1,)),
        (2, [0, 1], [], None),
        (1, [0, 1], [1], None),
        (2, [2, 3, 5, 7], [5], (3, 7)),
        (1, [4], [], None),
        (1, [1, 0, 2], [], (1,)),
    ],
)
def test_the_first_cpu_stays_for_all_and_none_is_given_twice(wanted, host, taken, given_):
    assert choose(wanted, host, taken) == given_


@settings(deadline=None)
@given(st.sets(st.integers(0, 31), min_size=1), st.lists(st.integers(1, 4), max_size=12))
def test_whatever_is_asked_for_cpus_have_one_owner_and_one_is_shared(host, wishes):
    taken: list[int] = []
    for wanted in wishes:
        cpus = choose(wanted, list(host), taken)
        if cpus is None:
            assert len(host) - 1 - len(taken) < wanted
        else:
            assert len(cpus) == wanted
            taken += cpus
    assert len(set(taken)) == len(taken)
    assert set(taken) < host


def test_each_vcpu_has_a_cpu_and_the_other_threads_share_or_have_theirs():
    threads = [10, 11, 12, 13]  # 11 and 12 are vCPUs, 13 one that is parked
    shared = plan(Wish(2), (4, 5), [11, 12, 13], threads)
    assert shared == {10: {4, 5}, 11: {4}, 12: {5}, 13: {4, 5}}
    isolated = plan(Wish(2, isolated=True), (4, 5, 6), [11, 12, 13], threads)
    assert isolated == {10: {6}, 11: {4}, 12: {5}, 13: {6}}


def test_only_who_asks_for_it_has_cpus_alone():
    assert wish({"domain": {"cpu": {"sockets": 4}}}) is None
    cpu = {"sockets": 2, "cores": 2, "dedicatedCpuPlacement": True, "isolateEmulatorThread": True}
    found = wish({"domain": {"cpu": cpu}})
    assert found == Wish(4, isolated=True)
    assert found.count == 5
