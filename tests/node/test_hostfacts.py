"""The Node object a machine makes of itself, and the user each guest's QEMU runs as."""

import os
from datetime import UTC, datetime
from ipaddress import IPv4Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotvirt.node import hostfacts, start
from hotvirt.node.hostfacts import HostFacts
from hotvirt.qemu.probe import Acceleration

GIB = 1 << 30
NOW, LATER = datetime(2026, 11, 28, 12, tzinfo=UTC), datetime(2026, 11, 28, 13, tzinfo=UTC)
KVM = Acceleration("kvm", "KVM runs instructions")
TCG = Acceleration("tcg", "/dev/kvm hangs", "use another machine")


def node(acceleration=KVM, *, now=NOW, known=None, memory=8 * GIB, fault=""):
    facts = HostFacts(
        node_name="here", cpus=4, memory=memory, is_root=True, acceleration=acceleration, qemu="7.2.0",
        kernel="6.1.0", fault=fault, network="bridge",
    )  # fmt: skip
    return hostfacts.node(facts, now, known=known)


def conditions(made):
    return {each["type"]: each for each in made["status"]["conditions"]}


def test_what_a_node_has_and_what_it_gives():
    status = node()["status"]
    assert status["capacity"] == {
        "cpu": "4", "memory": "8Gi", "pods": "250", "devices.kubevirt.io/kvm": "1000",
        "devices.kubevirt.io/tun": "1000",
    }  # fmt: skip
    assert status["allocatable"] == {**status["capacity"], "memory": "7680Mi"}
    assert status["nodeInfo"]["containerRuntimeVersion"] == "qemu://7.2.0"


def test_a_node_smaller_than_the_reserve_gives_nothing():
    assert node(memory=256 << 20)["status"]["allocatable"]["memory"] == "0"


def test_labels_that_schedulers_and_kubectl_look_for():
    metadata = node()["metadata"]
    assert metadata["labels"]["kubernetes.io/hostname"] == "here"
    assert metadata["labels"]["kubevirt.io/schedulable"] == "true"
    assert metadata["annotations"]["hotvirt.io/network"] == "bridge"


def test_emulation_is_a_condition_and_takes_kvm_off_the_list():
    made = node(TCG)
    assert made["status"]["capacity"]["devices.kubevirt.io/kvm"] == "0"
    found = conditions(made)["SoftwareEmulation"]
    assert (found["status"], found["reason"]) == ("True", "KvmUnusable")
    assert found["message"] == "/dev/kvm hangs; use another machine"
    assert conditions(node())["SoftwareEmulation"]["status"] == "False"


def test_without_qemu_the_node_is_not_ready_and_says_what_to_install():
    found = conditions(node(fault="no QEMU: apt-get install qemu-system-x86"))["Ready"]
    assert (found["status"], found["reason"]) == ("False", "QemuMissing")
    assert found["message"] == "no QEMU: apt-get install qemu-system-x86"


def test_a_node_that_starts_again_keeps_its_times():
    again = node(now=LATER, known=node())
    beat = {"lastHeartbeatTime": "2026-11-28T13:00:00Z"}
    assert conditions(again) == {kind: {**found, **beat} for kind, found in conditions(node()).items()}
    mended = node(now=LATER, known=node(fault="no QEMU"))
    assert conditions(mended)["Ready"]["lastTransitionTime"] == "2026-11-28T13:00:00Z"


@settings(max_examples=50, deadline=None)
@given(st.ip_addresses(v=4))
def test_each_guest_has_a_user_of_systemds_free_range(address):
    user = start.user_of(str(address))
    assert 61184 <= user <= 65519
    assert user == start.user_of(str(address))


def test_no_two_guests_of_a_home_share_a_user():
    network = IPv4Network("10.213.16.0/20")
    assert len({start.user_of(str(address)) for address in network}) == network.num_addresses


def test_guests_of_homes_beside_each_other_do_not_meet_as_a_rule():
    assert start.user_of("10.213.0.2") != start.user_of("10.213.16.2") != start.user_of("127.64.0.2")


MAPS = {
    "a machine's own": ("         0          0 4294967295\n", True),
    "a container of an ordinary user": ("0 1000 1\n1 100000 65536\n", True),
    "only root": ("         0       1000          1\n", False),
    "too few": ("0 100000 65000\n", False),
    "nobody": ("", False),
}


@pytest.mark.parametrize(("map_", "expected"), MAPS.values(), ids=MAPS)
def test_guests_run_as_users_of_their_own_where_there_are_any(map_, expected):
    assert hostfacts.maps_all(map_) is expected


WORKS = Acceleration("kvm", "KVM runs 900 million guest instructions a second")
DEVICES = {
    "everybody's": (0o666, 0, "kvm", ()),
    "a group's, as on Debian": (0o660, 108, "kvm", (108,)),
    "root's alone": (0o600, 0, "tcg", ()),
    "the group of root's": (0o660, 0, "tcg", ()),
    "a group's to read": (0o640, 108, "tcg", ()),
}


@pytest.mark.parametrize(("mode", "group", "kind", "groups"), DEVICES.values(), ids=DEVICES)
def test_guests_that_are_not_root_are_let_to_kvm_or_it_is_said_what_keeps_them(mode, group, kind, groups):
    device = os.stat_result((0o020000 | mode, 0, 0, 1, 0, group, 0, 0, 0, 0))
    found, needed = hostfacts.for_others(WORKS, device)
    assert (found.kind, needed) == (kind, groups)
    if kind == "tcg":
        assert "/dev/kvm belongs to root alone" in found.reason
        assert "chgrp kvm /dev/kvm; chmod 660 /dev/kvm" in found.mend


def test_huge_pages_of_each_size_are_counted(tmp_path):
    (tmp_path / "hugepages-2048kB").mkdir()
    (tmp_path / "hugepages-2048kB/nr_hugepages").write_text("512\n")
    assert hostfacts.huge_pages(tmp_path) == {"hugepages-2Mi": 1 << 30, "hugepages-1Gi": 0}
