"""Networking where root allows: a bridge of ours, a tap for each guest, addresses by DHCP, NAT to the outside.

Nothing of the host's own changes beyond one bridge, its taps, one nftables table and the sysctl `ip_forward`, and
`stop` with `remove=True` takes the first three away again. A tap lives as long as QEMU holds its descriptor, so a
restarted home finds guests connected. One dnsmasq a home serves the leases, each fixed by the guest's MAC.
"""

import asyncio
import fcntl
import hashlib
import json
import os
import shutil
import signal
import struct
from collections.abc import Iterable
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from hotvirt.kube.client import Document
from hotvirt.node.network import Network, NetworkError, UserNetwork, free_address, hostname, interfaces
from hotvirt.node.podrunner import read_identity
from hotvirt.qemu.launch import Descriptors
from hotvirt.qemu.machine import Nic, Tap
from hotvirt.qemu.process import Process, identify

SUBNETS = IPv4Network("10.213.0.0/16")
PREFIX = 20
TUNSETIFF, IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x400454CA, 0x0002, 0x1000, 0x4000
TOOLS = {"nft": "nftables", "dnsmasq": "dnsmasq-base", "ip": "iproute2"}


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


def dnsmasq_argv(found: BridgeNames, subnet: IPv4Network, directory: Path) -> list[str]:
    """Pure."""
    first = subnet.network_address + 1
    return [
        "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--bind-interfaces",
        f"--interface={found.bridge}", "--except-interface=lo", f"--listen-address={first}",
        f"--dhcp-range={subnet.network_address},static,{subnet.netmask},infinite",
        f"--dhcp-hostsdir={directory / 'hosts'}", f"--dhcp-leasefile={directory / 'leases'}",
        "--dhcp-authoritative", "--no-hosts", "--no-ping", f"--pid-file={directory / 'dnsmasq.pid'}",
    ]  # fmt: skip


class BridgeNetwork:
    kind = "bridge"
    notice = ""
    isolation: tuple[str, ...] = ("net", "ipc", "uts")

    def __init__(self, run: Path, *, is_default: bool) -> None:
        self._names = names(run, is_default=is_default)
        self._directory = run / "network"
        self._subnet: IPv4Network | None = None
        self._index = 0

    async def start(self) -> None:
        """Idempotent: what an earlier home left is taken over."""
        (self._directory / "hosts").mkdir(parents=True, exist_ok=True)
        try:
            subnet, self._index = await asyncio.to_thread(self._make_bridge)
        except OSError as error:
            raise NetworkError(f"the bridge {self._names.bridge} cannot be made: {error}") from error
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        await self._nft(ruleset(self._names, subnet))
        self._subnet = subnet
        await self._start_dnsmasq(subnet)

    def address(self, taken: Iterable[str]) -> str:
        assert self._subnet is not None, "start comes first"
        return free_address(self._subnet, taken)

    async def nics(self, vmi: Document, *, address: str, uid: str, descriptors: Descriptors) -> tuple[Nic, ...]:
        found = []
        for number, each in enumerate(interfaces(vmi)):
            tap = await asyncio.to_thread(self._open_tap, f"{self._names.tap_prefix}{uid[:5]}{number}")
            found.append(
                Nic(
                    name=each["name"], mac=each["macAddress"], model=each.get("model") or "virtio",
                    backend=Tap(descriptors.add(tap)), boot_index=each.get("bootOrder"),
                )
            )  # fmt: skip
        if found:
            self._lease(uid, found[0].mac, address, hostname(vmi))
        return tuple(found)

    async def release(self, uid: str) -> None:
        (self._directory / "hosts" / uid).unlink(missing_ok=True)

    async def stop(self, *, remove: bool = False) -> None:
        """Leaves all for the next home, unless `remove`: then nothing of ours is left on the host."""
        if not remove:
            return
        process = self._dnsmasq()
        if process is not None:
            with process:
                await process.stop(grace=2)
        await asyncio.to_thread(self._remove_bridge)
        table = {"family": "ip", "name": self._names.table}
        try:
            await self._nft({"nftables": [{"add": {"table": table}}, {"delete": {"table": table}}]})
        except NetworkError:
            pass  # without nft there is no table either
        shutil.rmtree(self._directory, ignore_errors=True)

    # The host's side

    def _make_bridge(self) -> tuple[IPv4Network, int]:
        from pyroute2 import IPRoute

        with IPRoute() as ip:
            known = ip.link_lookup(ifname=self._names.bridge)
            if known:
                for entry in ip.get_addr(index=known[0], family=2):
                    return IPv4Network(f"{entry.get_attr('IFA_ADDRESS')}/{entry['prefixlen']}", strict=False), known[0]
            subnet = pick_subnet(_routes(ip))
            if not known:
                ip.link("add", ifname=self._names.bridge, kind="bridge", br_forward_delay=0, br_stp_state=0)
                known = ip.link_lookup(ifname=self._names.bridge)
            ip.addr("add", index=known[0], address=str(subnet.network_address + 1), prefixlen=subnet.prefixlen)
            ip.link("set", index=known[0], state="up")
            return subnet, known[0]

    def _remove_bridge(self) -> None:
        from pyroute2 import IPRoute

        with IPRoute() as ip:
            for index in ip.link_lookup(ifname=self._names.bridge):
                ip.link("del", index=index)

    def _open_tap(self, name: str) -> int:
        """A tap on the bridge, by its descriptor: gone when the last holder closes it."""
        from pyroute2 import IPRoute

        try:
            descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                request = struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)
                fcntl.ioctl(descriptor, TUNSETIFF, request)
                with IPRoute() as ip:
                    index = ip.link_lookup(ifname=name)[0]
                    ip.link("set", index=index, master=self._index, state="up")
            except BaseException:
                os.close(descriptor)
                raise
        except OSError as error:
            raise NetworkError(f"the tap {name} cannot be made: {error}") from error
        return descriptor

    def _lease(self, uid: str, mac: str, address: str, hostname: str) -> None:
        """Fixes the address of a MAC. dnsmasq reads new files by itself, and forgets old ones when told."""
        hosts = self._directory / "hosts"
        line = f"{mac},{address},{hostname},infinite\n"
        for other in hosts.iterdir():
            if other.name != uid and other.read_text().startswith(f"{mac},"):
                other.unlink()
        temporary = self._directory / f".{uid}"
        temporary.write_text(line)
        temporary.rename(hosts / uid)
        if (process := self._dnsmasq()) is not None:
            with process:
                process.send(signal.SIGHUP)

    def _dnsmasq(self) -> Process | None:
        identity = read_identity(self._directory / "pid")
        return Process.open(identity) if identity else None

    async def _start_dnsmasq(self, subnet: IPv4Network) -> None:
        if (running := self._dnsmasq()) is not None:
            running.close()
            return
        log = os.open(self._directory / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            process = await asyncio.create_subprocess_exec(
                *dnsmasq_argv(self._names, subnet, self._directory),
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        finally:
            os.close(log)
        identity = identify(process.pid)
        if identity is None:
            raise NetworkError(f"dnsmasq ended at once: {(self._directory / 'log').read_text().strip()}")
        (self._directory / "pid").write_bytes(msgspec.json.encode(identity))

    async def _nft(self, rules: dict[str, Any]) -> None:
        # A file rather than a pipe: nft opens its input by name, which a loop's socket pair does not allow.
        file = self._directory / "rules.json"
        self._directory.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(rules))
        process = await asyncio.create_subprocess_exec(
            "nft", "-j", "-f", str(file), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, complaint = await process.communicate()
        if process.returncode:
            raise NetworkError(f"nft refused our table {self._names.table}: {complaint.decode().strip()}")


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
    return UserNetwork(notice)
