"""Addresses for guests on the pod network, each lease fixed by the guest's MAC: one dnsmasq a namespace.

A namespace's guests are told its search domains. One dnsmasq alone could tell each guest its own by tags, but 2.90 ends
when it reads hosts with tags anew after it answered one of them. All listen on the same port and hear every question,
which is a broadcast; each answers for the guests that it was told of, and ignores the others.
"""

import asyncio
import logging
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path
from typing import NoReturn

from hotvirt.node.dnsmasq import Dnsmasq, write
from hotvirt.node.dnsnames import searched

log = logging.getLogger(__name__)

PREFIX = "dhcp-"
GUESTS, LEASES = "guests", "leases"


def argv(bridge: str, subnet: IPv4Network, directory: Path, *, taps: str, namespace: str) -> list[str]:
    """`taps`: their names, as a pattern; a guest's question counts as if it had come by the bridge. Pure.

    The search domains are told also to who does not ask for them, as busybox does not, and takes them all the same."""
    first, domains = subnet.network_address + 1, searched(namespace)
    return [
        "dnsmasq", "--conf-file=/dev/null", "--port=0", "--bind-interfaces", "--except-interface=lo",
        f"--listen-address={first}", f"--bridge-interface={bridge},{taps}",
        f"--dhcp-range={subnet.network_address},static,{subnet.netmask},infinite",
        f"--dhcp-hostsfile={directory / GUESTS}", f"--dhcp-leasefile={directory / LEASES}", "--dhcp-authoritative",
        "--dhcp-ignore=tag:!known", "--quiet-dhcp", "--no-ping", f"--dhcp-option=option:dns-server,{first}",
        f"--dhcp-option=option:domain-name,{domains[0]}",
        f"--dhcp-option-force=option:domain-search,{','.join(domains)}",
    ]  # fmt: skip


def release_message(mac: str, address: str, *, server: str) -> bytes:
    """DHCPRELEASE (RFC 2131). Pure."""
    client, hardware = socket.inet_aton(address), bytes.fromhex(mac.replace(":", ""))
    head = struct.pack("!BBBB8x4s12x16s192x", 1, 1, len(hardware), 0, client, hardware)
    return head + b"\x63\x82\x53\x63" + b"\x35\x01\x07" + b"\x36\x04" + socket.inet_aton(server) + b"\xff"


class Dhcp:
    """All namespaces' together; each has a directory of its own below `directory`."""

    def __init__(self, directory: Path, bridge: str, *, taps: str) -> None:
        self._directory, self._bridge, self._taps = directory, bridge, taps
        self._subnet: IPv4Network | None = None
        self._servers: dict[str, Dnsmasq] = {}
        self._more = asyncio.Event()
        self._lock = asyncio.Lock()
        """Guests that start at once must not start a dnsmasq each, nor write the same file."""

    async def start(self, subnet: IPv4Network) -> None:
        """Takes over those that run for guests of an earlier home."""
        self._subnet = subnet
        for directory in sorted(self._directory.glob(f"{PREFIX}*")):
            await self._server(directory.name.removeprefix(PREFIX))

    async def keep(self) -> NoReturn:
        """Starts each anew whenever it ends."""
        kept: set[Dnsmasq] = set()
        async with asyncio.TaskGroup() as group:
            while True:
                self._more.clear()
                known = set(self._servers.values())
                new, kept = known - kept, known
                for server in new:
                    group.create_task(server.keep())
                await self._more.wait()

    async def stop(self) -> None:
        """Leaves nothing behind, also of an earlier home."""
        for directory in sorted(self._directory.glob(f"{PREFIX}*")):
            namespace = directory.name.removeprefix(PREFIX)
            await self._servers.get(namespace, Dnsmasq(directory, [], files=(), serves="")).retire()
        self._servers.clear()

    async def lease(self, uid: str, mac: str, address: str, hostname: str, *, namespace: str) -> None:
        """Fixes the address of a MAC."""
        async with self._lock:
            await self._lease(uid, mac, address, hostname, namespace=namespace)

    async def _lease(self, uid: str, mac: str, address: str, hostname: str, *, namespace: str) -> None:
        for each in list(self._servers.values()):
            for owner, leased in _leases(each.directory):
                if leased == address and owner != mac:
                    self._give_back(owner, address)
            self._drop(each, lambda line: line.startswith(f"{mac},") or _is_of(line, uid))
        server = await self._server(namespace)
        known = (server.directory / GUESTS).read_text()
        write(server.directory / GUESTS, f"{known}{mac},{address},{hostname},infinite #{uid}\n")
        server.tell()

    async def release(self, uid: str) -> None:
        """Gives a pod's address back: dnsmasq would not offer it to another guest as long as this one has it."""
        async with self._lock:
            await self._release(uid)

    async def _release(self, uid: str) -> None:
        for namespace, server in list(self._servers.items()):
            for line in self._drop(server, lambda line: _is_of(line, uid)):
                mac, address = line.split(",")[:2]
                self._give_back(mac, address)
                # It need not be told: nobody else asks with that MAC.
            if not (server.directory / GUESTS).read_text():
                del self._servers[namespace]
                await server.retire()

    async def _server(self, namespace: str) -> Dnsmasq:
        assert self._subnet is not None, "start comes first"
        if namespace not in self._servers:
            directory = self._directory / f"{PREFIX}{namespace}"
            wanted = argv(self._bridge, self._subnet, directory, taps=self._taps, namespace=namespace)
            server = Dnsmasq(directory, wanted, files=(directory / GUESTS,), serves=f"DHCP in namespace {namespace}")
            await server.start()
            self._servers.setdefault(namespace, server)
            self._more.set()
        return self._servers[namespace]

    @staticmethod
    def _drop(server: Dnsmasq, is_meant: Callable[[str], bool]) -> list[str]:
        file = server.directory / GUESTS
        lines = file.read_text().splitlines()
        gone = [line for line in lines if is_meant(line)]
        if gone:
            write(file, "".join(f"{line}\n" for line in lines if line not in gone))
        return gone

    def _give_back(self, mac: str, address: str) -> None:
        """In the guest's name, as it may be gone without a word. Nothing answers a DHCPRELEASE."""
        if self._subnet is None:
            return
        server = str(self._subnet.network_address + 1)
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                # By the bridge, and to all that listen there.
                sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._bridge.encode())
                sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                sender.sendto(release_message(mac, address, server=server), ("255.255.255.255", 67))
        except OSError as error:
            log.warning("the lease of %s stays with %s: %s", address, mac, error)


def _is_of(line: str, uid: str) -> bool:
    return line.endswith(f"#{uid}")


def _leases(directory: Path) -> list[tuple[str, str]]:
    """(MAC, address) of every lease."""
    try:
        lines = (directory / LEASES).read_text().splitlines()
    except FileNotFoundError:
        return []
    return [(fields[1], fields[2]) for fields in map(str.split, lines) if len(fields) > 2]
