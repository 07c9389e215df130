"""Networking where root allows: a tap for each guest, addresses by DHCP, services, policies, NAT to the outside.

The host's own address towards guests is on a bridge of ours that nothing else is on: guests are not bridged but routed,
see `taps`. Nothing of the host's own changes beyond that bridge, the taps, routes that lead to them, nftables tables of
our name and the sysctl `ip_forward`, and `stop` with `remove=True` takes all of it away again. A tap lives as long as
QEMU holds its descriptor, so a restarted home finds guests connected. Rules that an earlier home left stay until this
one knows what there is: guests are never without their policies.
"""

import asyncio
import hashlib
import logging
import os
import shutil
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, NoReturn

from msgspec import Struct, structs

from hotvirt.api import defaults
from hotvirt.api.attachments import Bridge
from hotvirt.kube.client import Document
from hotvirt.node import dnsnames, nftables, rules, taps
from hotvirt.node.dhcp import Dhcp
from hotvirt.node.dnsmasq import Dnsmasq, write
from hotvirt.node.network import (
    EMPTY,
    Network,
    NetworkError,
    UserNetwork,
    free_address,
    interfaces,
    of_the_pod,
    queues,
)
from hotvirt.node.nftables import Nftables
from hotvirt.node.rules import Place
from hotvirt.node.taps import NAME_LIMIT, said
from hotvirt.node.world import SERVICE_NETWORK, World
from hotvirt.qemu.launch import Descriptors
from hotvirt.qemu.machine import Nic, Tap

log = logging.getLogger(__name__)

SUBNETS = IPv4Network("10.213.0.0/16")
PREFIX = 20
LOOK_AFTER_RULES = 20.0
FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
CAP_SYS_ADMIN = 21


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
    if why := nftables.missing():
        return why
    if shutil.which("dnsmasq") is None:
        return "dnsmasq is not installed: apt-get install dnsmasq-base"
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


def tap_name(found: BridgeNames, uid: str, number: int) -> str:
    """As much of the pod's uid as an interface's name holds, so that two pods do not meet in one. Pure."""
    end = str(number)
    return f"{found.tap_prefix}{uid.replace('-', '')[: NAME_LIMIT - len(found.tap_prefix) - len(end)]}{end}"


def may_isolate(status: str) -> bool:
    """Whether a process may leave its namespaces, by its /proc/PID/status. Pure."""
    line = next((line for line in status.splitlines() if line.startswith("CapEff:")), "CapEff: 0")
    return bool(int(line.split()[1], 16) >> CAP_SYS_ADMIN & 1)


class BridgeNetwork:
    kind = "bridge"
    notice = ""

    def __init__(self, run: Path, *, is_default: bool, directory: Path | None = None) -> None:
        self._names = names(run, is_default=is_default)
        # A home may lie anywhere, also below what only root may pass; dnsmasq is not root.
        self._directory = directory or (run / "network" if is_default else Path("/run") / self._names.table)
        self._dhcp = Dhcp(self._directory, self._names.bridge, taps=f"{self._names.tap_prefix}*")
        self._names_file = self._directory / "dns" / "names"
        self._dns: Dnsmasq | None = None
        self._subnet: IPv4Network | None = None
        self._lock = asyncio.Lock()
        """Held from reading what taps there are to rules that say so."""
        self._nft = Nftables()
        self._taps: dict[str, Place | None] = {}
        """Those that were there at the last look, and have come since: None for one that is not on the pod network."""
        self._world: World | None = None
        own = Path("/proc/self/status").read_text()
        self.isolation: tuple[str, ...] = ("net", "ipc", "uts") if may_isolate(own) else ()

    async def start(self) -> None:
        """Idempotent: what an earlier home left is taken over. What fails leaves nothing new behind."""
        subnet, is_new = await asyncio.to_thread(self._make_bridge)
        try:
            self._dns = self._dns_of(subnet)
            await self._dns.start()
            await self._dhcp.start(subnet)
            await asyncio.to_thread(self._allow_forwarding)
            self._subnet = subnet
            if not await self._has_rules():
                await self._write_rules(World())
        except BaseException:
            if is_new:
                await self.stop(remove=True)
            raise

    async def run(self) -> None:
        """Sees to it that guests keep their DHCP and DNS, and the rules: another's firewall may throw all away."""
        assert self._dns is not None, "start comes first"
        async with asyncio.TaskGroup() as group:
            group.create_task(self._dns.keep())
            group.create_task(self._dhcp.keep())
            group.create_task(self._keep_rules())

    async def publish(self, world: World) -> None:
        """Services, policies and names are as `world` says from now on. Connections that are established stay."""
        assert self._dns is not None, "start comes first"
        if self._names_file.read_text() != (hosts := dnsnames.hosts(world)):
            write(self._names_file, hosts)
            self._dns.tell()
        await self._write_rules(world)
        self._world = world

    def address(self, taken: Iterable[str]) -> str:
        assert self._subnet is not None, "start comes first"
        return free_address(self._subnet, taken)

    async def nics(
        self, vmi: Document, *, address: str, uid: str, descriptors: Descriptors, joined: Mapping[str, Bridge] = EMPTY
    ) -> tuple[Nic, ...]:
        first, made = of_the_pod(vmi), []
        for number, each in enumerate(interfaces(vmi)):
            if (number, each) in first:
                made.append(
                    await self._first(each, tap_name(self._names, uid, number), address, descriptors, queues(vmi, each))
                )
            elif each["name"] in joined and each.get("state") != "absent":
                try:
                    nic, tap = await self.second(each, bridge=joined[each["name"]], place=number, uid=uid)
                except NetworkError:
                    continue  # it is told of, and tried again, while the guest runs
                made.append(structs.replace(nic, backend=Tap(descriptors.add(tap))))
        if first:
            namespace = str(vmi["metadata"].get("namespace") or "default")
            await self._dhcp.lease(uid, first[0][1]["macAddress"], address, defaults.hostname(vmi), namespace=namespace)
        return tuple(made)

    async def _first(self, interface: Document, name: str, address: str, descriptors: Descriptors, count: int) -> Nic:
        is_virtio = (interface.get("model") or "virtio") == "virtio"
        with said(f"the tap {name} cannot be made"):
            tap, *others = (
                self._queue(name, count, is_virtio=is_virtio, descriptors=descriptors) for _ in range(count)
            )
        await self.connect(name, Place(interface["macAddress"], address))
        return Nic(
            name=interface["name"], mac=interface["macAddress"], model=interface.get("model") or "virtio",
            backend=structs.replace(tap, others=tuple(others)),
            boot_index=interface.get("bootOrder"), acpi_index=interface.get("acpiIndex") or 0,
        )  # fmt: skip

    @staticmethod
    def _queue(name: str, count: int, *, is_virtio: bool, descriptors: Descriptors) -> Tap:
        tap = descriptors.add(taps.open_tap(name, one_of_many=count > 1))
        vhost = taps.open_vhost() if is_virtio else None
        return Tap(tap, None if vhost is None else descriptors.add(vhost))

    async def connect(self, device: str, place: Place) -> None:
        """A device of ours with the guest at its other end."""
        async with self._lock:
            await asyncio.to_thread(self._admit, device, place)

    def _admit(self, device: str, place: Place) -> None:
        taps.route(device, place)
        self._nft.run(rules.admission(self._names.table, device, place))
        self._taps[device] = place

    async def second(self, interface: Document, *, bridge: Bridge, place: int, uid: str) -> tuple[Nic, int]:
        name = tap_name(self._names, uid, place)
        with said(f"the tap {name} cannot be made"):
            tap = taps.open_tap(name)
        try:
            await asyncio.to_thread(taps.join, name, bridge)
        except BaseException:
            os.close(tap)
            raise
        nic = Nic(
            name=interface["name"], mac=interface["macAddress"], model=interface.get("model") or "virtio",
            backend=Tap(tap), link_up=interface.get("state") != "down", mtu=bridge.mtu,
            boot_index=interface.get("bootOrder"), acpi_index=interface.get("acpiIndex") or 0,
        )  # fmt: skip
        return nic, tap

    async def bridges(self) -> dict[str, bool]:
        return await asyncio.to_thread(taps.bridges)

    def devices(self, vmi: Document, *, uid: str) -> dict[str, str]:
        return {each["name"]: tap_name(self._names, uid, number) for number, each in enumerate(interfaces(vmi))}

    async def release(self, uid: str) -> None:
        await self._dhcp.release(uid)

    async def stop(self, *, remove: bool = False) -> None:
        """Leaves all for the next home, unless `remove`: then nothing of ours is left on the host."""
        if not remove:
            return
        await asyncio.to_thread(self._remove_bridge)
        try:
            await asyncio.to_thread(self._nft.run, rules.removal(self._names.table))
        except NetworkError:
            pass  # without nftables there is no table either
        await asyncio.to_thread(self._restore_forwarding)
        await self._dhcp.stop()
        await self._dns_of(SUBNETS).retire()
        shutil.rmtree(self._directory, ignore_errors=True)

    # The host's side

    def _dns_of(self, subnet: IPv4Network) -> Dnsmasq:
        wanted = dnsnames.argv(subnet, self._names_file)
        return Dnsmasq(self._names_file.parent, wanted, files=(self._names_file,), serves="DNS")

    def _make_bridge(self) -> tuple[IPv4Network, bool]:
        """Its subnet, and whether it is new. Services' addresses are routed to it, so that what the host itself sends
        there has a source; no packet ever arrives, as the rules lead it elsewhere before."""
        from pyroute2 import IPRoute

        name = self._names.bridge
        with said(f"the bridge {name} cannot be made"), IPRoute() as ip:
            known = ip.link_lookup(ifname=name)
            subnet = self._subnet_of(ip, known[0]) if known else None
            is_new = subnet is None
            if not known:
                subnet = pick_subnet(_routes(ip))
                ip.link("add", ifname=name, kind="bridge", br_forward_delay=0, br_stp_state=0)
                known = ip.link_lookup(ifname=name)
            elif subnet is None:
                subnet = pick_subnet(_routes(ip))
            assert subnet is not None
            if is_new:
                ip.addr("add", index=known[0], address=str(subnet.network_address + 1), prefixlen=subnet.prefixlen)
            ip.link("set", index=known[0], state="up")
            # Homes beside each other have the same services' network: each has a route of its own.
            ip.route("replace", dst=str(SERVICE_NETWORK), oif=known[0], scope=taps.LINK_SCOPE, priority=known[0])
            return subnet, is_new

    @staticmethod
    def _subnet_of(ip: Any, index: int) -> IPv4Network | None:
        for entry in ip.get_addr(index=index, family=2):
            return IPv4Network(f"{entry.get_attr('IFA_ADDRESS')}/{entry['prefixlen']}", strict=False)
        return None

    def _remove_bridge(self) -> None:
        from pyroute2 import IPRoute

        with said(f"the bridge {self._names.bridge} cannot be removed"), IPRoute() as ip:
            for index in ip.link_lookup(ifname=self._names.bridge):
                ip.link("del", index=index)

    @property
    def _forwarding_was_off(self) -> Path:
        return self._directory / "forwarding-was-off"

    def _allow_forwarding(self) -> None:
        with said(f"{FORWARD} cannot be set"):
            taps.set_up(self._names.bridge)  # fails where no tap could be set up either
            if FORWARD.read_text().strip() != "1":
                self._forwarding_was_off.touch()
                FORWARD.write_text("1")

    def _restore_forwarding(self) -> None:
        if self._forwarding_was_off.exists() and not _other_homes():
            FORWARD.write_text("0")

    async def _has_rules(self) -> bool:
        return await asyncio.to_thread(self._nft.has_chain, "inet", self._names.table, rules.GUARD)

    async def _keep_rules(self) -> NoReturn:
        while True:
            await asyncio.sleep(LOOK_AFTER_RULES)
            try:
                if not await self._has_rules():
                    log.warning("our rules are gone from nftables, as after 'nft flush ruleset': writing them again")
                    await self._write_rules(self._world or World())
            except (NetworkError, OSError) as error:
                log.error("%s", error)

    async def _write_rules(self, world: World) -> None:
        assert self._subnet is not None, "start comes first"
        async with self._lock:
            await asyncio.to_thread(self._rewrite, world, self._subnet)

    def _rewrite(self, world: World, subnet: IPv4Network) -> None:
        self._taps = taps.found(self._names.tap_prefix, known=self._taps)
        found = {name: place for name, place in self._taps.items() if place}
        self._nft.run(rules.ruleset(self._names.table, self._names.tap_prefix, subnet, taps=found, world=world))


def _routes(ip: Any) -> list[IPv4Network]:
    routes = [(route.get_attr("RTA_DST"), route["dst_len"]) for route in ip.get_routes(family=2)]
    return [IPv4Network(f"{destination}/{length}", strict=False) for destination, length in routes if destination]


def _other_homes() -> bool:
    """Whether guests of another home still need what the host forwards. Ours has no bridge any more."""
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        return any(
            network.subnet_of(SUBNETS) for entry in ip.get_addr(family=2)
            if (network := IPv4Network(f"{entry.get_attr('IFA_ADDRESS')}/{entry['prefixlen']}", strict=False))
        )  # fmt: skip


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
