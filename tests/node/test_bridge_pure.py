"""What the bridge network is called, where it lies, and what it tells nft and dnsmasq."""

import shutil
import subprocess
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotvirt.node import bridge, dhcp, dnsnames
from hotvirt.node.dnsmasq import Dnsmasq
from hotvirt.node.network import NetworkError

LONGEST = 15  # of an interface's name: IFNAMSIZ less its end
UID = "0f8fad5b-d9cb-469f-a165-70867728950e"
SUBNET = IPv4Network("10.213.0.0/20")


def test_the_default_homes_names():
    assert bridge.names(Path("/run/hotvirt"), is_default=True) == bridge.BridgeNames("hotvirt0", "hotvirt", "hv0-")


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_names_are_short_enough_for_the_kernel_and_plain(path):
    found = bridge.names(Path(path), is_default=False)
    assert len(found.bridge) <= LONGEST
    assert all(len(bridge.tap_name(found, UID, number)) <= LONGEST for number in (0, 9, 10, 99))
    assert (found.bridge + found.table + found.tap_prefix).replace("_", "").replace("-", "").isalnum()


def test_taps_of_a_pod_and_of_pods_alike_differ():
    found = bridge.names(Path("/run/hotvirt"), is_default=True)
    assert [bridge.tap_name(found, UID, number) for number in (0, 1, 12)] == [
        "hv0-0f8fad5bd90", "hv0-0f8fad5bd91", "hv0-0f8fad5bd12",
    ]  # fmt: skip
    assert bridge.tap_name(found, UID, 0) != bridge.tap_name(found, "0f8fad5b-e9cb", 0)


def test_only_who_may_leaves_its_namespaces():
    assert bridge.may_isolate("Name:\tpython\nCapEff:\t000001ffffffffff\n")
    assert not bridge.may_isolate("CapEff:\t00000000a80435fb\n"), "an ordinary container's"
    assert not bridge.may_isolate("Name:\tpython\n")


def test_homes_beside_each_other_share_no_name():
    homes = [
        bridge.names(Path(p), is_default=p == "/run/hotvirt") for p in ("/run/hotvirt", "/tmp/a/run", "/tmp/b/run")
    ]
    for part in ("bridge", "table", "tap_prefix"):
        assert len({getattr(home, part) for home in homes}) == len(homes)


SUBNETS = {
    "nothing is used": ([], "10.213.0.0/20"),
    "the way to everywhere is no hindrance": (["0.0.0.0/0"], "10.213.0.0/20"),
    "a network elsewhere": (["192.168.0.0/16", "10.212.0.0/16"], "10.213.0.0/20"),
    "one of ours, by another home": (["10.213.0.0/20"], "10.213.16.0/20"),
    "a part of one": (["10.213.15.254/32"], "10.213.16.0/20"),
    "gaps are used": (["10.213.0.0/20", "10.213.32.0/20"], "10.213.16.0/20"),
}


@pytest.mark.parametrize(("used", "expected"), SUBNETS.values(), ids=SUBNETS)
def test_pick_subnet(used, expected):
    assert str(bridge.pick_subnet([IPv4Network(each) for each in used])) == expected


def test_no_subnet_left():
    with pytest.raises(NetworkError, match=r"every part of 10\.213\.0\.0/16 is routed elsewhere"):
        bridge.pick_subnet([IPv4Network("10.0.0.0/8")])


def test_a_namespaces_guests_are_told_where_to_look_up_names():
    argv = dhcp.argv("hotvirt0", SUBNET, Path("/run/hotvirt/network/dhcp-a"), taps="hv0-*", namespace="a")
    assert argv == [
        "dnsmasq", "--conf-file=/dev/null", "--port=0", "--bind-interfaces", "--except-interface=lo",
        "--listen-address=10.213.0.1", "--bridge-interface=hotvirt0,hv0-*",
        "--dhcp-range=10.213.0.0,static,255.255.240.0,infinite",
        "--dhcp-hostsfile=/run/hotvirt/network/dhcp-a/guests", "--dhcp-leasefile=/run/hotvirt/network/dhcp-a/leases",
        "--dhcp-authoritative", "--dhcp-ignore=tag:!known", "--quiet-dhcp", "--no-ping",
        "--dhcp-option=option:dns-server,10.213.0.1", "--dhcp-option=option:domain-name,a.svc.cluster.local",
        "--dhcp-option-force=option:domain-search,a.svc.cluster.local,svc.cluster.local,cluster.local,a.pod.cluster.local",
    ]  # fmt: skip


def test_names_are_served_to_guests_and_nobody_else():
    assert dnsnames.argv(SUBNET, Path("/run/hotvirt/network/dns/names")) == [
        "dnsmasq", "--conf-file=/dev/null", "--bind-interfaces", "--except-interface=lo",
        "--listen-address=10.213.0.1", "--no-hosts", "--addn-hosts=/run/hotvirt/network/dns/names",
        "--local=/cluster.local/",
    ]  # fmt: skip


@pytest.mark.skipif(shutil.which("dnsmasq") is None, reason="dnsmasq is not installed")
def test_dnsmasq_understands_its_arguments(tmp_path):
    (tmp_path / "guests").write_text("02:00:00:00:00:01,10.213.0.4,web,infinite #pod-1\n")
    (tmp_path / "names").write_text("10.96.0.1 web.a.svc.cluster.local\n")
    dhcp_argv = dhcp.argv("hotvirt0", SUBNET, tmp_path, taps="hv0-*", namespace="a")
    for argv in (dhcp_argv, dnsnames.argv(SUBNET, tmp_path / "names")):
        told = subprocess.run([*argv, "--test"], capture_output=True, text=True, timeout=20, check=False)
        assert told.returncode == 0, told.stderr


def test_another_process_with_the_number_in_the_pid_file_is_left_alone(tmp_path):
    import os

    (tmp_path / "dnsmasq.pid").write_text(str(os.getpid()))
    assert Dnsmasq(tmp_path, ["dnsmasq"], files=(), serves="DNS").find() is None
