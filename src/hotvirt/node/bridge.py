"""Networking where root allows: a bridge of ours, a tap for each guest, addresses by DHCP, NAT to the outside.

Nothing of the host's own changes beyond one bridge, its taps, one nftables table and the sysctl `ip_forward`, and
`stop` with `remove=True` takes the first three away again. A tap lives as long as QEMU holds its descriptor, so a
restarted home finds guests connected.
"""

import asyncio
import errno
import fcntl
import hashlib
import json
import os
import shutil
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from msgspec import Struct

from hotvirt.kube.client import Document
from hotvirt.node.dhcp import Dhcp
from hotvirt.node.network import Network, NetworkError, UserNetwork, free_address, hostname, interfaces, of_the_pod
from hotvirt.qemu.launch import Descriptors
from hotvirt.qemu.machine import Nic, Tap

SUBNETS = IPv4Network("10.213.0.0/16")
PREFIX = 20
TUNSETIFF, IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x400454CA, 0x0002, 0x1000, 0x4000
FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
NAME_LIMIT = 15
CAP_SYS_ADMIN = 21
TOOLS = {"nft": "nftables", "dnsmasq": "dnsmasq-base"}


class BridgeNames(Struct, frozen=True):
    """What one home calls its things; homes beside each other differ."""

    bridge: str
    table: str
    tap_prefix: str


def names(place: Path, *, is_default: bool) -> BridgeNames:
    """Pure. Interface names have at most 15 characters."""
    if is_default:
        return BridgeNames("hotvirt0", "hotvirt", "hv0-")
    mark = hashlib.sha256(os.fsencode(place)).hexdigest()[:5]
    return BridgeNames(f"hv{mark}", f"hotvirt_{mark}", f"hv{mark}-")


def missing() -> str:
    """What keeps this process from a bridge network, with the mend; "" when nothing does."""
    if os.geteuid() != 0:
        return "an ordinary user gets user-mode networking: run as root for guests with addresses of their own"
    for tool, package in TOOLS.items():
        if shutil.which(tool) is None:
            return f"{tool} is not installed: apt-get install {package}"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "/dev/net/tun cannot be opened: modprobe tun"
    return ""


def pick_subnet(used: Iterable[IPv4Network]) -> IPv4Network:
    """The first of ours that no route of the host overlaps. Pure."""
    taken = [network for network in used if network.prefixlen]
    for subnet in SUBNETS.subnets(new_prefix=PREFIX):
        if not any(subnet.overlaps(network) for network in taken):
            return subnet
    raise NetworkError(f"every part of {SUBNETS} is routed elsewhere on this machine already")


def ruleset(found: BridgeNames, subnet: IPv4Network) -> dict[str, Any]:
    """For `nft -j -f -`: our table anew, in one transaction. Pure."""
    table = {"family": "ip", "name": found.table}

    def match(field: str, op: str, value: Any) -> Document:
        return {"match": {"op": op, "left": {"payload": {"protocol": "ip", "field": field}}, "right": value}}

    prefix = {"prefix": {"addr": str(subnet.network_address), "len": subnet.prefixlen}}
    chain = {"family": "ip", "table": found.table, "name": "postrouting"}
    return {
        "nftables": [
            {"add": {"table": table}},
            {"delete": {"table": table}},
            {"add": {"table": table}},
            {"add": {"chain": {**chain, "type": "nat", "hook": "postrouting", "prio": 100, "policy": "accept"}}},
            {
                "add": {
                    "rule": {
                        "family": "ip", "table": found.table, "chain": "postrouting",
                        "expr": [match("saddr", "==", prefix), match("daddr", "!=", prefix), {"masquerade": None}],
                    }
                }
            },
        ]
    }  # fmt: skip


def tap_name(found: BridgeNames, uid: str, number: int) -> str:
    """As much of the pod's uid as an interface's name holds, so that two pods do not meet in one. Pure."""
    end = str(number)
    return f"{found.tap_prefix}{uid.replace('-', '')[: NAME_LIMIT - len(found.tap_prefix) - len(end)]}{end}"


def may_isolate(status: str) -> bool:
    """Whether a process may leave its namespaces, by its /proc/PID/status. Pure."""
    line = next((line for line in status.splitlines() if line.startswith("CapEff:")), "CapEff: 0")
    return bool(int(line.split()[1], 16) >> CAP_SYS_ADMIN & 1)


@contextmanager
def _said(what: str) -> Iterator[None]:
    """What the kernel refuses, as NetworkError."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except (OSError, NetlinkError) as error:
        code, why = (error.errno, error.strerror) if isinstance(error, OSError) else error.args[:2]
        mend = ": give it the capability NET_ADMIN" if code == errno.EPERM else ""
        raise NetworkError(f"{what}: {why}{mend}") from error


class BridgeNetwork:
    kind = "bridge"
    notice = ""

    def __init__(self, run: Path, *, is_default: bool, directory: Path | None = None) -> None:
        self._names = names(run, is_default=is_default)
        # A home may lie anywhere, also below what only root may pass; dnsmasq is not root.
        self._directory = directory or (run / "network" if is_default else Path("/run") / self._names.table)
        self._dhcp = Dhcp(self._directory, self._names.bridge)
        self._subnet: IPv4Network | None = None
        self._index = 0
        own = Path("/proc/self/status").read_text()
        self.isolation: tuple[str, ...] = ("net", "ipc", "uts") if may_isolate(own) else ()

    async def start(self) -> None:
        """Idempotent: what an earlier home left is taken over. What fails leaves nothing new behind."""
        subnet, self._index, is_new = await asyncio.to_thread(self._make_bridge)
        try:
            with _said(f"{FORWARD} cannot be set"):
                if FORWARD.read_text().strip() != "1":
                    FORWARD.write_text("1")
            await self._dhcp.start(subnet)
            await self._nft(ruleset(self._names, subnet))
        except BaseException:
            if is_new:
                await self.stop(remove=True)
            raise
        self._subnet = subnet

    async def run(self) -> None:
        """Sees to it that guests keep their DHCP and DNS."""
        assert self._subnet is not None, "start comes first"
        await self._dhcp.keep(self._subnet)

    def address(self, taken: Iterable[str]) -> str:
        assert self._subnet is not None, "start comes first"
        return free_address(self._subnet, taken)

    async def nics(self, vmi: Document, *, address: str, uid: str, descriptors: Descriptors) -> tuple[Nic, ...]:
        found = []
        for number, each in of_the_pod(vmi):
            tap = await asyncio.to_thread(self._open_tap, tap_name(self._names, uid, number), self._index)
            found.append(
                Nic(
                    name=each["name"], mac=each["macAddress"], model=each.get("model") or "virtio",
                    backend=Tap(descriptors.add(tap)), boot_index=each.get("bootOrder"),
                )
            )  # fmt: skip
        if found:
            self._dhcp.lease(uid, found[0].mac, address, hostname(vmi))
        return tuple(found)

    async def second(self, interface: Document, *, bridge: str, place: int, uid: str) -> tuple[Nic, int]:
        name = tap_name(self._names, uid, place)
        tap = await asyncio.to_thread(lambda: self._open_tap(name, _index_of(bridge)))
        nic = Nic(
            name=interface["name"], mac=interface["macAddress"], model=interface.get("model") or "virtio",
            backend=Tap(tap), link_up=interface.get("state") != "down",
        )  # fmt: skip
        return nic, tap

    def devices(self, vmi: Document, *, uid: str) -> dict[str, str]:
        return {each["name"]: tap_name(self._names, uid, number) for number, each in enumerate(interfaces(vmi))}

    async def release(self, uid: str) -> None:
        self._dhcp.release(uid)

    async def stop(self, *, remove: bool = False) -> None:
        """Leaves all for the next home, unless `remove`: then nothing of ours is left on the host."""
        if not remove:
            return
        await asyncio.to_thread(self._remove_bridge)
        table = {"family": "ip", "name": self._names.table}
        try:
            await self._nft({"nftables": [{"add": {"table": table}}, {"delete": {"table": table}}]})
        except NetworkError:
            pass  # without nft there is no table either
        await self._dhcp.stop()

    # The host's side

    def _make_bridge(self) -> tuple[IPv4Network, int, bool]:
        """Its subnet, its index, and whether it is new."""
        from pyroute2 import IPRoute

        name = self._names.bridge
        with _said(f"the bridge {name} cannot be made"), IPRoute() as ip:
            known = ip.link_lookup(ifname=name)
            if known:
                for entry in ip.get_addr(index=known[0], family=2):
                    ip.link("set", index=known[0], state="up")
                    address = f"{entry.get_attr('IFA_ADDRESS')}/{entry['prefixlen']}"
                    return IPv4Network(address, strict=False), known[0], False
            subnet = pick_subnet(_routes(ip))
            if not known:
                ip.link("add", ifname=name, kind="bridge", br_forward_delay=0, br_stp_state=0)
                known = ip.link_lookup(ifname=name)
            ip.addr("add", index=known[0], address=str(subnet.network_address + 1), prefixlen=subnet.prefixlen)
            ip.link("set", index=known[0], state="up")
            return subnet, known[0], True

    def _remove_bridge(self) -> None:
        from pyroute2 import IPRoute

        with _said(f"the bridge {self._names.bridge} cannot be removed"), IPRoute() as ip:
            for index in ip.link_lookup(ifname=self._names.bridge):
                ip.link("del", index=index)

    def _open_tap(self, name: str, bridge: int) -> int:
        """A tap on a bridge, by its descriptor: gone when the last holder closes it."""
        from pyroute2 import IPRoute

        with _said(f"the tap {name} cannot be made"):
            descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                request = struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)
                fcntl.ioctl(descriptor, TUNSETIFF, request)
                with IPRoute() as ip:
                    index = ip.link_lookup(ifname=name)[0]
                    ip.link("set", index=index, master=bridge, state="up")
            except BaseException:
                os.close(descriptor)
                raise
        return descriptor

    async def _nft(self, rules: dict[str, Any]) -> None:
        # A file rather than a pipe: nft opens its input by name, which a loop's socket pair does not allow.
        file = self._directory / "rules.json"
        with _said(f"{file} cannot be written"):
            self._directory.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(rules))
        process = await asyncio.create_subprocess_exec(
            "nft", "-j", "-f", str(file), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, complaint = await process.communicate()
        if process.returncode:
            raise NetworkError(f"nft refused our table {self._names.table}: {complaint.decode().strip()}")


def _index_of(bridge: str) -> int:
    """Of a bridge that is the node's own. It is not made here: it would be connected to nothing."""
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        for index in ip.link_lookup(ifname=bridge, kind="bridge"):
            return int(index)
    raise NetworkError(
        f"this node has no bridge {bridge}: make it (ip link add {bridge} type bridge && ip link set {bridge} up), or "
        f"name another in the NetworkAttachmentDefinition"
    )


def _routes(ip: Any) -> list[IPv4Network]:
    routes = [(route.get_attr("RTA_DST"), route["dst_len"]) for route in ip.get_routes(family=2)]
    return [IPv4Network(f"{destination}/{length}", strict=False) for destination, length in routes if destination]


async def choose(run: Path, *, is_default: bool) -> Network:
    """The best network this process can have, started; user mode with a notice when a bridge cannot be had."""
    notice = missing()
    if not notice:
        network = BridgeNetwork(run, is_default=is_default)
        try:
            await network.start()
            return network
        except NetworkError as error:
            notice = str(error)
    return UserNetwork(notice, place=run)
