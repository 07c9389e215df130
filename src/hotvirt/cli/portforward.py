"""port-forward: ports of a guest on this machine, through the API, also where its network is out of reach."""

import contextlib
import ipaddress
import socket
import time
from datetime import datetime

import click
from msgspec import Struct

from hotvirt.cli.api import Api
from hotvirt.cli.errors import CliError
from hotvirt.cli.streams import until_running
from hotvirt.cli.targets import Target, connected, one_machine, subresource
from hotvirt.cli.verbs import verb
from hotvirt.kube.client import Document
from hotvirt.kube.errors import InternalError
from hotvirt.kube.resources import VMIS, VMS
from hotvirt.kube.times import parse, utc_now

PROTOCOLS = ("tcp", "udp")
LINGER = 2.0
BOOTING = 300.0
"""Seconds in which a guest that has begun to run may still be setting itself up."""
AGAIN = 1.0


class Ports(Struct, frozen=True):
    protocol: str
    local: int
    remote: int


class PortsWord(click.ParamType):  # type: ignore[type-arg]  # generic only for the type checker
    name = "[PROTOCOL/]LOCAL[:REMOTE]"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Ports:
        try:
            return parse_ports(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@verb("port-forward")
@one_machine
@click.argument("ports", type=PortsWord(), nargs=-1, required=True, metavar="[PROTOCOL/]LOCAL[:REMOTE]...")
@click.option("--stdio", is_flag=True, help="Connect one port to standard input and output instead.")
@click.option("--wait", is_flag=True, hidden=True)  # for a guest that boots: what ssh and scp use
@click.option("--address", default="127.0.0.1", show_default=True, help="Where the local ports listen.")
@connected
def port_forward(api: Api, machine: Target, *, ports: tuple[Ports, ...], stdio: bool, wait: bool, address: str) -> None:
    """Offer a guest's ports on this machine, through the API, until interrupted.

    PROTOCOL is tcp (the default) or udp; REMOTE is the guest's port (default: as LOCAL); LOCAL 0 is a free port.

    \b
    Examples:
      hotvirt port-forward vm/web 8080:80
      hotvirt port-forward vm/web/production 8080:80 udp/5353:53
      hotvirt port-forward vmi/web 5432 --address=0.0.0.0
      ssh -o ProxyCommand='hotvirt port-forward --stdio vm/web 22' root@web
    """
    plural = (machine.resource or VMS).plural
    paths = [subresource(api, plural, machine.name, f"portforward/{each.remote}/{each.protocol}") for each in ports]
    if stdio:
        if len(ports) != 1:
            raise click.UsageError(f"--stdio connects one port, and {len(ports)} are named; start one command for each")
        _connect(api, machine, paths[0], wait=wait)
        return
    from hotvirt.cli import proxy

    forwards = [
        proxy.Forward(path=path, port=each.local, protocol=each.protocol)
        for path, each in zip(paths, ports, strict=True)
    ]

    def ready(numbers: list[int]) -> None:
        for each, number in zip(ports, numbers, strict=True):
            click.echo(f"Forwarding {each.protocol} {address}:{number} -> {machine.name}:{each.remote}")

    # A TCP stream that is opened to try would be a connection to the guest's port: only its own user opens one.
    api.get((machine.resource or VMS), machine.name, api.namespace)
    proxy.run(api.access, forwards, address=resolve(address), ready=ready, probe=False)


def _connect(api: Api, machine: Target, path: str, *, wait: bool) -> None:
    """Standard input and output to the port. With `wait`, a guest that is still booting is asked until it answers."""
    from hotvirt.cli import terminal

    if wait:
        until_running(api, machine, timeout=BOOTING)
    told = False
    while True:
        try:
            terminal.run(api.access, path, linger=LINGER)
        except InternalError as error:
            if not wait or not is_booting(api.get(VMIS, machine.name, api.namespace), utc_now()):
                raise
            if not told:
                click.echo(f"Waiting for {machine.name}, which is still booting ({error.message}) ...", err=True)
            told = True
            time.sleep(AGAIN)
        else:
            return


def is_booting(vmi: Document, now: datetime) -> bool:
    """Whether it has begun to run so late that it may still be setting itself up. Pure."""
    entries = (vmi.get("status") or {}).get("phaseTransitionTimestamps") or ()
    began = [parse(each.get("phaseTransitionTimestamp")) for each in entries if each.get("phase") == "Running"]
    return bool(began) and began[-1] is not None and (now - began[-1]).total_seconds() < BOOTING


def parse_ports(text: str) -> Ports:
    """`tcp/8080:80`; ValueError says how it is written."""
    protocol, slash, rest = text.rpartition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in PROTOCOLS:
        raise ValueError(f"{text!r}: {protocol!r} is not a protocol; write tcp/{rest} or udp/{rest}")
    local, colon, remote = rest.partition(":")
    numbers = [int(each) for each in (local, remote if colon else local) if each.isascii() and each.isdigit()]
    if len(numbers) != 2 or max(numbers) > 65535 or numbers[1] == 0:
        raise ValueError(f"{text!r} names no ports from 1 to 65535; write LOCAL:REMOTE, as in 8080:80")
    return Ports(protocol, *numbers)


def resolve(address: str) -> str:
    """A name's address; one error here rather than one for each port."""
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(address))
    try:
        return str(socket.getaddrinfo(address, None)[0][4][0])
    except OSError as error:
        raise CliError(f"--address {address}: {error.strerror}; give an address of this machine") from error
