"""The bridge network for real, in a network namespace of the test's own: bridge, taps, DHCP, NAT, and nothing left.

Needs root. What a guest would do, a packet socket does here; real guests are in tests/guest.
"""

import asyncio
import ctypes
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys

import pytest

from hotvirt.node import bridge
from hotvirt.node.network import NetworkError
from hotvirt.qemu.launch import Descriptors
from hotvirt.qemu.process import identify

pytestmark = pytest.mark.server

NEW_NETWORK = 0x40000000
MAC = "02:00:00:00:00:01"
VMI = {
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {"domain": {"devices": {"interfaces": [{"name": "default", "macAddress": MAC, "masquerade": {}}]}}},
}
UID = "0f8fad5b-d9cb-469f-a165-70867728950e"

pytestmark = pytest.mark.skipif(
    bool(bridge.missing()) or not shutil.which("ip"), reason=f"no bridge network here: {bridge.missing()}"
)


def told(*argv):
    return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True).stdout


@pytest.fixture
def own_network():
    """This thread, and so its subprocesses and the threads it starts, in a network namespace of its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    if libc.unshare(NEW_NETWORK):
        os.close(before)
        pytest.skip("no network namespace can be made here")
    told("ip", "link", "set", "lo", "up")
    bridge.FORWARD.write_text("0")  # this namespace's
    yield
    assert libc.setns(before, NEW_NETWORK) == 0
    os.close(before)


@pytest.fixture
async def network(own_network, tmp_path):
    """In a home below what only root may pass, started under the strictest umask."""
    tmp_path.chmod(0o700)
    mask = os.umask(0o077)
    made = bridge.BridgeNetwork(tmp_path / "run", is_default=False)
    try:
        await made.start()
        yield made
    finally:
        await made.stop(remove=True)
        os.umask(mask)


def links(**of):
    return [link["ifname"] for link in json.loads(told("ip", "-j", "-d", "link")) if of.items() <= link.items()]


def dnsmasq(network):
    """Its number; 0 when none runs."""
    with network._dhcp._find() or open(os.devnull) as process:
        return getattr(getattr(process, "identity", None), "pid", 0)


def checksum(header):
    total = sum(struct.unpack(f"!{len(header) // 2}H", header))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def message(mac, kind, *options):
    """A DHCP message that asks for the answer to be broadcast, from the Ethernet header on."""
    hardware = bytes.fromhex(mac.replace(":", ""))
    tail = b"\x63\x82\x53\x63" + bytes([53, 1, kind]) + b"".join(options) + b"\x37\x03\x01\x03\x0c" + b"\xff"
    boot = struct.pack("!BBBBIHH16x16s64x128x", 1, 1, 6, 0, 7, 0, 0x8000, hardware.ljust(16, b"\0")) + tail
    udp = struct.pack("!HHHH", 68, 67, 8 + len(boot), 0) + boot
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, b"\0" * 4, b"\xff" * 4)
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    return b"\xff" * 6 + hardware + b"\x08\x00" + head + udp


async def answered(interface, asked):
    """What the DHCP server says, from the Ethernet header on; asked again until it does."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)) as wire:
        wire.bind((interface, 0))
        wire.setblocking(False)
        async with asyncio.timeout(10):
            while True:
                await loop.sock_sendall(wire, asked)
                try:
                    async with asyncio.timeout(1):
                        while True:
                            frame = await loop.sock_recv(wire, 2048)
                            if frame[23] == 17 and frame[34:38] == b"\0\x43\0\x44":
                                return frame
                except TimeoutError:
                    continue


async def offered(interface, mac):
    """The address that DHCP offers to a guest of this MAC."""
    frame = await answered(interface, message(mac, 1))
    return socket.inet_ntoa(frame[58:62]), frame


async def leased(interface, mac):
    """The address that a guest of this MAC now has."""
    address, frame = await offered(interface, mac)
    server = frame[frame.index(b"\x36\x04") :][:6]
    frame = await answered(interface, message(mac, 3, b"\x32\x04" + socket.inet_aton(address), server))
    assert b"\x35\x01\x05" in frame, "no DHCPACK"
    return socket.inet_ntoa(frame[58:62])


def plug(network):
    """A cable into the bridge; returns its other end."""
    told("ip", "link", "add", "cable0", "type", "veth", "peer", "name", "cable1")
    told("ip", "link", "set", "cable0", "master", network._names.bridge, "up")
    told("ip", "link", "set", "cable1", "up")
    return "cable1"


async def test_a_guest_is_offered_its_pods_address_and_name(network):
    address = network.address(())
    with Descriptors() as descriptors:
        (nic,) = await network.nics(VMI, address=address, uid=UID, descriptors=descriptors)
        assert nic.mac == MAC
        assert links(master=network._names.bridge) == [bridge.tap_name(network._names, UID, 0)]
        found, frame = await offered(plug(network), MAC)
    assert found == address
    assert b"\x0c\x03web" in frame
    assert bridge.tap_name(network._names, UID, 0) not in links(), "a tap goes with its last holder"


async def test_an_address_given_back_is_the_next_guests(network):
    interface, address = plug(network), network.address(())
    other = "02:00:00:00:00:02"
    with Descriptors() as descriptors:
        await network.nics(VMI, address=address, uid=UID, descriptors=descriptors)
        assert await leased(interface, MAC) == address
        await network.release(UID)
        network._dhcp.lease("pod-2", other, address, "db")
        assert await leased(interface, other) == address


async def test_a_guest_whose_address_changed_gets_the_new_one(network):
    """A machine started anew: same MAC, another pod."""
    interface, first, second = plug(network), network.address(()), network.address({network.address(())})
    network._dhcp.lease("pod-1", MAC, first, "web")
    assert await leased(interface, MAC) == first
    network._dhcp.lease("pod-2", MAC, second, "web")
    await network.release("pod-1")
    assert await leased(interface, MAC) == second
    network._dhcp.lease("pod-3", "02:00:00:00:00:03", first, "db")
    assert await leased(interface, "02:00:00:00:00:03") == first


async def test_dnsmasq_that_dies_is_started_again_and_leases_are_as_before(network):
    address = network.address(())
    with Descriptors() as descriptors:
        await network.nics(VMI, address=address, uid=UID, descriptors=descriptors)
    keeper = asyncio.create_task(network.run())
    try:
        first = dnsmasq(network)
        os.kill(first, signal.SIGKILL)
        assert (await offered(plug(network), MAC))[0] == address
        assert dnsmasq(network) not in (0, first)
    finally:
        keeper.cancel()
        await asyncio.wait([keeper])


async def test_a_home_that_starts_again_takes_over_what_is_there(network, tmp_path):
    again = bridge.BridgeNetwork(tmp_path / "run", is_default=False)
    before = dnsmasq(network)
    await again.start()
    assert dnsmasq(again) == before != 0
    assert again._subnet == network._subnet
    assert len(links()) == 2  # lo and the bridge


async def test_taken_away_nothing_is_left(network):
    number, directory = dnsmasq(network), network._directory
    assert network._names.table in told("nft", "list", "tables")
    await network.stop(remove=True)
    assert links() == ["lo"]
    assert told("nft", "list", "tables") == ""
    assert not directory.exists()
    assert identify(number) is None
    await network.stop(remove=True)  # as `hotvirt down` does for a home that is down already


async def test_a_name_server_of_the_hosts_in_the_way_is_said_and_nothing_is_left(own_network, tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as other:
        other.bind(("0.0.0.0", 53))
        other.listen()
        made = bridge.BridgeNetwork(tmp_path / "run", is_default=False)
        with pytest.raises(NetworkError, match=rf"dnsmasq does not start on {made._names.bridge}: .*in use"):
            await made.start()
    assert links() == ["lo"]
    assert not made._directory.exists()


SHORT_OF = {
    "the right to make a bridge": (
        ["setpriv", "--bounding-set=-net_admin"],
        "cannot be made: Operation not permitted: give it the capability NET_ADMIN",
    ),
    "a writable /proc/sys, as in containers": (
        [
            "unshare", "--mount", "sh", "-c",
            'mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys && exec "$@"', "sh",
        ],
        "/proc/sys/net/ipv4/ip_forward cannot be set: Read-only file system",
    ),
}  # fmt: skip


@pytest.mark.skipif(not (shutil.which("setpriv") and shutil.which("unshare")), reason="util-linux is not installed")
@pytest.mark.parametrize(("without", "notice"), SHORT_OF.values(), ids=SHORT_OF)
def test_root_that_cannot_have_a_bridge_gets_user_networking_and_is_told_why(own_network, tmp_path, without, notice):
    program = (
        "import asyncio, pathlib, sys; from hotvirt.node import bridge\n"
        "async def choose():\n"
        "    found = await bridge.choose(pathlib.Path(sys.argv[1]), is_default=False)\n"
        "    print(found.kind, found.notice)\n"
        "    await found.stop(remove=True)\n"
        "asyncio.run(choose())"
    )
    if subprocess.run([*without, "true"], check=False).returncode:
        pytest.skip("no such process can be made here, as in a chroot whose root is no mount point")
    said = told(*without, sys.executable, "-c", program, str(tmp_path))
    assert said.startswith("user ")
    assert notice in said
    assert links() == ["lo"]
