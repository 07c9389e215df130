"""Addresses, and the way to a guest's ports without root."""

import os
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotvirt.node.network import LOOPBACKS, NetworkError, UserNetwork, forwards, free_address, part_of, queues
from hotvirt.qemu.launch import Descriptors
from hotvirt.qemu.machine import Forward, Nic, UserNet

SMALL = IPv4Network("10.0.0.0/29")


def test_addresses_begin_after_the_networks_own_and_the_hosts():
    assert free_address(SMALL, ()) == "10.0.0.2"


def test_queues_are_asked_for_and_one_a_vcpu():
    card = {"name": "default"}
    domain = {"cpu": {"sockets": 2, "cores": 2}, "devices": {"networkInterfaceMultiqueue": True}}
    assert queues({"spec": {"domain": domain}}, card) == 4
    assert queues({"spec": {"domain": domain}}, {**card, "model": "e1000e"}) == 1
    assert queues({"spec": {"domain": {**domain, "devices": {}}}}, card) == 1


def test_the_lowest_free_one():
    assert free_address(SMALL, {"10.0.0.2", "10.0.0.4"}) == "10.0.0.3"
    assert free_address(SMALL, {"10.0.0.2", "", "nonsense", "192.0.2.1"}) == "10.0.0.3"


def test_none_left_says_so_and_what_to_do():
    everything = {str(address) for address in SMALL} - {"10.0.0.7"}
    with pytest.raises(NetworkError, match=r"all addresses of 10\.0\.0\.0/29 are in use: remove guests"):
        free_address(SMALL, everything)


@settings(max_examples=50, deadline=None)
@given(st.sets(st.integers(0, 15)))
def test_what_is_given_is_of_the_network_and_free(numbers):
    network = IPv4Network("10.0.0.0/28")
    taken = {str(network[number]) for number in numbers}
    try:
        found = free_address(network, taken)
    except NetworkError:
        assert {str(network[n]) for n in range(2, 15)} <= taken
        return
    assert found not in taken
    assert IPv4Address(found) in network
    assert found not in {"10.0.0.0", "10.0.0.1", "10.0.0.15"}


PORTS = {
    "none": (None, ()),
    "ssh, where an ordinary user may listen": ([{"port": 22}], ((10022, 22, "tcp"),)),
    "the first that anybody may": ([{"port": 1024}], ((1024, 1024, "tcp"),)),
    "the last that nobody may": ([{"port": 1023}], ((11023, 1023, "tcp"),)),
    "UDP": ([{"port": 53, "protocol": "UDP"}], ((10053, 53, "udp"),)),
    "in small letters": ([{"port": 8080, "protocol": "udp"}], ((8080, 8080, "udp"),)),
    "several": ([{"port": 80}, {"port": 8080, "protocol": "TCP"}], ((10080, 80, "tcp"), (8080, 8080, "tcp"))),
}


@pytest.mark.parametrize(("ports", "expected"), PORTS.values(), ids=PORTS)
def test_forwards(ports, expected):
    found = forwards({"name": "default", "ports": ports}, "127.64.0.2")
    assert found == tuple(Forward(host, guest, "127.64.0.2", protocol) for host, guest, protocol in expected)


def vmi(interfaces, **spec):
    devices = {"interfaces": interfaces} if interfaces is not None else {}
    return {"metadata": {"name": "web"}, "spec": {"domain": {"devices": devices}, **spec}}


async def nics(document):
    with Descriptors() as descriptors:
        return await UserNetwork().nics(document, address="127.64.0.2", uid="u", descriptors=descriptors)


async def test_cards_of_a_guest():
    found = await nics(
        vmi(
            [
                {"name": "a", "macAddress": "02:00:00:00:00:01", "masquerade": {}, "ports": [{"port": 22}]},
                {"name": "b", "macAddress": "02:00:00:00:00:02", "model": "e1000e", "bootOrder": 2},
            ]
        )
    )
    assert found == (
        Nic(
            name="a", mac="02:00:00:00:00:01", model="virtio",
            backend=UserNet(forwards=(Forward(10022, 22, "127.64.0.2"),), hostname="web"),
        ),
        Nic(name="b", mac="02:00:00:00:00:02", model="e1000e", backend=UserNet(hostname="web"), boot_index=2),
    )  # fmt: skip


async def test_a_guest_without_interfaces_has_no_cards():
    assert await nics(vmi(None)) == ()


async def test_the_guest_hears_its_own_host_name():
    found = await nics(vmi([{"name": "a", "macAddress": "02:00:00:00:00:01"}], hostname="shop"))
    assert found[0].backend.hostname == "shop"
    dotted = {**vmi([{"name": "a", "macAddress": "02:00:00:00:00:01"}]), "metadata": {"name": "web.prod"}}
    assert (await nics(dotted))[0].backend.hostname == "web"


def test_guests_of_a_home_without_root_are_told_apart_on_loopback():
    network = UserNetwork("run as root for more")
    first = network.address(())
    second = network.address({first})
    assert first != second
    assert all(IPv4Address(each) in LOOPBACKS and IPv4Address(each).is_loopback for each in (first, second))
    assert network.notice == "run as root for more"


def test_homes_beside_each_other_have_loopback_addresses_of_their_own():
    """What one home's guest listens on must not keep another home's guest from starting."""
    first, again, other = (UserNetwork(place=Path(each)).address(()) for each in ("/a/run", "/a/run", "/b/run"))
    assert first == again != other


@settings(max_examples=50, deadline=None)
@given(st.binary(min_size=1).filter(lambda name: b"\0" not in name))
def test_a_homes_part_lies_within(name):
    part = part_of(LOOPBACKS, Path(os.fsdecode(name)))
    assert part.subnet_of(LOOPBACKS)
    assert part.prefixlen == 20
