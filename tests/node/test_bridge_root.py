"""The bridge network for real, in a network namespace of the test's own: bridge, taps, DHCP, NAT, and nothing left.

Needs root. What a guest would do, a packet socket does here; real guests are in tests/guest.
"""

import asyncio
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from hotvirt.api.attachments import Bridge
from hotvirt.node import bridge, taps
from hotvirt.node.network import NetworkError
from hotvirt.node.rules import Place
from hotvirt.qemu.launch import Descriptors
from hotvirt.qemu.process import identify

MAC = "02:00:00:00:00:01"
VMI = {
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {"domain": {"devices": {"interfaces": [{"name": "default", "macAddress": MAC, "masquerade": {}}]}}},
}
UID = "0f8fad5b-d9cb-469f-a165-70867728950e"

MISSING = bridge.missing()
pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(bool(MISSING) or not shutil.which("ip"), reason=f"no bridge network here: {MISSING}"),
]


def told(*argv):
    return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True).stdout


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
    with network._dns.find() or open(os.devnull) as process:
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


async def plug(network, mac=MAC, address="10.213.0.2"):
    """A cable in place of a guest's tap; returns its other end, that is the guest's."""
    number = len(links()) // 2
    tap, end = f"{network._names.tap_prefix}{number}", f"cable{number}"
    told("ip", "link", "add", tap, "type", "veth", "peer", "name", end)
    told("ip", "link", "set", end, "address", mac, "up")
    await network.connect(tap, Place(mac, address))
    return end


async def test_a_guest_is_offered_its_pods_address_and_name(network):
    address = network.address(())
    with Descriptors() as descriptors:
        (nic,) = await network.nics(VMI, address=address, uid=UID, descriptors=descriptors)
        assert nic.mac == MAC
        tap = bridge.tap_name(network._names, UID, 0)
        assert links() == ["lo", network._names.bridge, tap]
        assert f"{address} dev {tap}" in told("ip", "route"), "the guest's address leads to its tap"
        assert await asyncio.to_thread(taps.found, network._names.tap_prefix) == {tap: Place(MAC, address)}
        found, frame = await offered(await plug(network), MAC)
    assert found == address
    assert b"\x0c\x03web" in frame
    assert bridge.tap_name(network._names, UID, 0) not in links(), "a tap goes with its last holder"


async def test_an_address_given_back_is_the_next_guests(network):
    interface, address = await plug(network), network.address(())
    other = "02:00:00:00:00:02"
    with Descriptors() as descriptors:
        await network.nics(VMI, address=address, uid=UID, descriptors=descriptors)
        assert await leased(interface, MAC) == address
        await network.release(UID)
        await network._dhcp.lease("pod-2", other, address, "db", namespace="default")
        assert await leased(await plug(network, other), other) == address


async def test_a_guest_whose_address_changed_gets_the_new_one(network):
    """A machine started anew: same MAC, another pod."""
    interface, first, second = await plug(network), network.address(()), network.address({network.address(())})
    await network._dhcp.lease("pod-1", MAC, first, "web", namespace="default")
    assert await leased(interface, MAC) == first
    await network._dhcp.lease("pod-2", MAC, second, "web", namespace="default")
    await network.release("pod-1")
    assert await leased(interface, MAC) == second
    other = "02:00:00:00:00:03"
    await network._dhcp.lease("pod-3", other, first, "db", namespace="default")
    assert await leased(await plug(network, other), other) == first


async def test_a_dnsmasq_that_dies_is_started_again_and_leases_are_as_before(network):
    address = network.address(())
    keeper = asyncio.create_task(network.run())
    with Descriptors() as descriptors:
        await network.nics(VMI, address=address, uid=UID, descriptors=descriptors)
    try:
        interface = await plug(network)
        for find in (network._dns.find, network._dhcp._servers["default"].find):
            with find() as process:
                first = process.identity.pid
            os.kill(first, signal.SIGKILL)
            async with asyncio.timeout(10):
                while (again := find()) is None or again.identity.pid == first:
                    await asyncio.sleep(0.05)
        assert (await offered(interface, MAC))[0] == address
    finally:
        keeper.cancel()
        await asyncio.wait([keeper])


async def test_a_lease_is_the_pods_and_moves_with_its_machine(network):
    """A machine started anew has the same MAC in another pod: the old pod's lease must not be found first."""
    lease, guests = network._dhcp.lease, lambda of: (network._directory / f"dhcp-{of}/guests").read_text().splitlines()
    await lease("pod-1", "02:00:00:00:00:01", "10.213.0.2", "web", namespace="a")
    await lease("pod-2", "02:00:00:00:00:02", "10.213.0.3", "db", namespace="a")
    await lease("pod-3", "02:00:00:00:00:01", "10.213.0.4", "web", namespace="b")
    assert guests("a") == ["02:00:00:00:00:02,10.213.0.3,db,infinite #pod-2"]
    assert guests("b") == ["02:00:00:00:00:01,10.213.0.4,web,infinite #pod-3"]
    await network.release("pod-2")
    await network.release("pod-2")
    assert not (network._directory / "dhcp-a").exists(), "a namespace without guests costs nothing"


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
    assert told("ip", "route") == ""
    assert bridge.FORWARD.read_text() == "0\n", "the host forwards no more than before"
    assert not directory.exists()
    assert identify(number) is None
    await network.stop(remove=True)  # as `hotvirt down` does for a home that is down already


async def test_a_name_server_of_the_hosts_in_the_way_is_said_and_nothing_is_left(own_network, tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as other:
        other.bind(("0.0.0.0", 53))
        other.listen()
        made = bridge.BridgeNetwork(tmp_path / "run", is_default=False)
        with pytest.raises(NetworkError, match=r"dnsmasq does not start, so guests have no DNS: .*in use"):
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


async def test_guests_that_start_at_once_share_one_server(network):
    await asyncio.gather(
        *(
            network._dhcp.lease(f"pod-{n}", f"02:00:00:00:01:0{n}", f"10.213.1.{n}", f"web-{n}", namespace="a")
            for n in range(1, 9)
        )
    )
    directory = network._directory / "dhcp-a"
    assert len((directory / "guests").read_text().splitlines()) == 8
    ours = [cmd for cmd in Path("/proc").glob("[0-9]*/cmdline") if f"--pid-file={directory}" in _words(cmd)]
    assert len(ours) == 1


def _words(cmdline):
    try:
        return cmdline.read_text().replace("\0", " ")
    except OSError:
        return ""


async def test_a_card_on_a_bridge_of_the_nodes(network):
    lan = {"name": "lan", "macAddress": "02:00:00:00:00:05", "bridge": {}}
    with pytest.raises(NetworkError, match="this node has no bridge br9: make it"):
        await network.second(lan, bridge=Bridge(name="br9"), place=1, uid=UID)
    told("ip", "link", "add", "br1", "type", "bridge")
    assert await network.bridges() == {network._names.bridge: False, "br1": False}
    nic, tap = await network.second(lan, bridge=Bridge(name="br1", mtu=1400), place=1, uid=UID)
    (link,) = json.loads(told("ip", "-j", "link", "show", "master", "br1"))
    assert (link["ifname"], link["mtu"], nic.mtu) == (bridge.tap_name(network._names, UID, 1), 1400, 1400)
    os.close(tap)
    with pytest.raises(NetworkError, match="bridge br1 keeps no VLANs apart: ip link set br1 type bridge vlan_filt"):
        await network.second(lan, bridge=Bridge(name="br1", vlan=12), place=1, uid=UID)
    assert links() == ["lo", network._names.bridge, "br1"], "what cannot be connected leaves nothing"
