"""Addresses and names for guests on the bridge: one dnsmasq a home, each lease fixed by the guest's MAC.

dnsmasq is a daemon of its own, neither child nor fate of the home: it is started once, known again by the pid file that
only ours is given, and started anew when it ends (`keep`). It gives up root before it listens to guests, so what it
reads must be readable by anybody, and lie where anybody may pass.
"""

import asyncio
import logging
import os
import shutil
import signal
import socket
import struct
from ipaddress import IPv4Network
from pathlib import Path
from typing import NoReturn

from hotvirt.node.network import NetworkError
from hotvirt.qemu.process import Process, identify

log = logging.getLogger(__name__)

FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0


def argv(bridge: str, subnet: IPv4Network, directory: Path) -> list[str]:
    """Pure."""
    first = subnet.network_address + 1
    return [
        "dnsmasq", "--conf-file=/dev/null", "--bind-interfaces", f"--interface={bridge}", "--except-interface=lo",
        f"--listen-address={first}", f"--dhcp-range={subnet.network_address},static,{subnet.netmask},infinite",
        f"--dhcp-hostsdir={directory / 'hosts'}", f"--dhcp-leasefile={directory / 'leases'}",
        "--dhcp-authoritative", "--quiet-dhcp", "--no-hosts", "--no-ping", pid_option(directory),
    ]  # fmt: skip


def pid_option(directory: Path) -> str:
    return f"--pid-file={directory / 'dnsmasq.pid'}"


def release_message(mac: str, address: str, *, server: str) -> bytes:
    """DHCPRELEASE (RFC 2131). Pure."""
    client, hardware = socket.inet_aton(address), bytes.fromhex(mac.replace(":", ""))
    head = struct.pack("!BBBB8x4s12x16s192x", 1, 1, len(hardware), 0, client, hardware)
    return head + b"\x63\x82\x53\x63" + b"\x35\x01\x07" + b"\x36\x04" + socket.inet_aton(server) + b"\xff"


class Dhcp:
    """What `directory` holds is ours alone."""

    def __init__(self, directory: Path, bridge: str) -> None:
        self._directory, self._bridge = directory, bridge
        self._hosts = directory / "hosts"
        self._server: str | None = None

    async def start(self, subnet: IPv4Network) -> None:
        """Answers guests from now on. Idempotent; NetworkError when it cannot."""
        try:
            self._hosts.mkdir(parents=True, exist_ok=True)
            # Whatever the umask: see above.
            self._directory.parent.chmod(self._directory.parent.stat().st_mode | 0o011)
            self._directory.chmod(0o755)
            self._hosts.chmod(0o755)
        except OSError as error:
            raise NetworkError(f"{error.filename} cannot be made for dnsmasq: {error.strerror}") from error
        self._server = str(subnet.network_address + 1)
        if (running := self._find()) is not None:
            running.close()
            return
        # As it becomes a daemon it returns when it serves, or says why it cannot.
        process = await asyncio.create_subprocess_exec(
            *argv(self._bridge, subnet, self._directory), stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, said = await process.communicate()
        if process.returncode:
            why = said.decode("utf-8", "replace").strip().removeprefix("dnsmasq: ")
            raise NetworkError(f"dnsmasq does not start on {self._bridge}: {why}")

    async def keep(self, subnet: IPv4Network) -> NoReturn:
        """Starts it anew whenever it ends."""
        delay = FIRST_DELAY
        while True:
            if (process := self._find()) is not None:
                with process:
                    await process.wait()
                log.warning("dnsmasq ended, so guests have no DHCP and DNS: starting it again")
                delay = FIRST_DELAY
            try:
                await self.start(subnet)
            except NetworkError as error:
                log.error("%s; trying again in %g s", error, delay)
            # Also after success: what ends at once each time must not become a storm.
            await asyncio.sleep(delay)
            delay = min(delay * 2, LONGEST_DELAY)

    async def stop(self) -> None:
        """Leaves nothing behind."""
        if (process := self._find()) is not None:
            with process:
                await process.stop(grace=2)
        shutil.rmtree(self._directory, ignore_errors=True)

    def lease(self, uid: str, mac: str, address: str, hostname: str) -> None:
        """Fixes the address of a MAC. dnsmasq reads new files by itself, and forgets old ones when told."""
        for owner, leased in self._leases():
            if leased == address and owner != mac:
                self._give_back(owner, address)
        for other in self._hosts.iterdir():
            if other.name != uid and other.read_text().startswith(f"{mac},"):
                other.unlink()
        temporary = self._directory / f".{uid}"
        temporary.write_text(f"{mac},{address},{hostname},infinite\n")
        temporary.chmod(0o644)
        temporary.rename(self._hosts / uid)
        if (process := self._find()) is not None:
            with process:
                process.send(signal.SIGHUP)

    def release(self, uid: str) -> None:
        """Gives a pod's address back: dnsmasq would not offer it to another guest as long as this one has it."""
        file = self._hosts / uid
        try:
            mac, address = file.read_text().split(",")[:2]
        except FileNotFoundError:
            return
        self._give_back(mac, address)
        file.unlink()

    def _leases(self) -> list[tuple[str, str]]:
        """(MAC, address) of every lease."""
        try:
            lines = (self._directory / "leases").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [(fields[1], fields[2]) for fields in map(str.split, lines) if len(fields) > 2]

    def _give_back(self, mac: str, address: str) -> None:
        """In the guest's name, as it may be gone without a word. Nothing answers a DHCPRELEASE."""
        if self._server is None:
            return
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                # So that dnsmasq sees it come by the bridge.
                sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._bridge.encode())
                sender.sendto(release_message(mac, address, server=self._server), (self._server, 67))
        except OSError as error:
            log.warning("the lease of %s stays with %s: %s", address, mac, error)

    def _find(self) -> Process | None:
        """Ours, by whichever home started it: no other process was given our pid file."""
        try:
            number = int((self._directory / "dnsmasq.pid").read_text())
            arguments = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        if os.fsencode(pid_option(self._directory)) not in arguments:
            return None
        identity = identify(number)
        return Process.open(identity) if identity else None
