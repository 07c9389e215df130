"""ssh and scp: the programs of this machine, whose connection goes through the API's port forwarding.

The guest is called `vm.NAME.NAMESPACE` (or `vmi.`) towards them, which is what their known_hosts and configuration
files then have; `plan_ssh` and `plan_scp` are the command lines, as pure functions.
"""

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click
from msgspec import Struct

from hotvirt.cli.api import Api
from hotvirt.cli.connection import connection_args
from hotvirt.cli.errors import CliError
from hotvirt.cli.targets import Named, Target, connected, parse
from hotvirt.cli.verbs import verb


class Options(Struct, frozen=True, kw_only=True):
    """What both commands take. `proxy` is the command that connects to the guest's SSH port."""

    proxy: str
    user: str = ""
    identity: str = ""
    known_hosts: str = ""
    extra: tuple[str, ...] = ()


def ssh_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "-t", "--local-ssh-opts", multiple=True, metavar="OPTION",
            help="An option for the local program, as in -t '-o StrictHostKeyChecking=no'; may be given repeatedly.",
        ),
        click.option("-p", "--port", type=click.IntRange(1, 65535), default=22, show_default=True, help="Its port."),
        click.option("--known-hosts", metavar="FILE", help="Host keys to compare with (default: the program's own)."),
        click.option("-i", "--identity-file", metavar="FILE", help="Private key to log in with."),
        click.option("-l", "--username", metavar="USER", help="Log in as USER (default: $USER)."),
        click.option("--local-ssh", is_flag=True, hidden=True),  # what older scripts ask for is what there is
    ):  # fmt: skip
        command = option(command)
    return command


@verb()
@click.argument("machine", type=Named(), metavar="[USER@][vm/]NAME[/NAMESPACE]")
@click.argument("words", nargs=-1, metavar="[COMMAND]...")
@click.option("-c", "--command", metavar="COMMAND", help="Run this in the guest instead of a shell.")
@ssh_options
@connected
def ssh(api: Api, machine: Target, *, words: tuple[str, ...], command: str | None, port: int, **given: Any) -> None:
    """Log in to a guest with this machine's ssh, through the API.

    \b
    Examples:
      hotvirt ssh root@vm/web
      hotvirt ssh vm/web/production -l jdoe -i ~/.ssh/id_ed25519
      hotvirt ssh root@web -c 'uname -r' -t '-o StrictHostKeyChecking=accept-new'
    """
    options = _options(api, machine, port, given)
    _become(plan_ssh(options, machine, api.namespace, ([command] if command else []) + list(words)))


@verb()
@click.argument("source", metavar="FROM")
@click.argument("destination", metavar="TO")
@click.option("-r", "--recursive", is_flag=True, help="Copy whole directories.")
@click.option("--preserve", is_flag=True, help="Keep times and modes.")
@ssh_options
@connected
def scp(
    api: Api, source: str, destination: str, *, recursive: bool, preserve: bool, port: int, **given: Any
) -> None:  # fmt: skip
    """Copy files to or from a guest with this machine's scp, through the API. One side is [USER@][vm/]NAME:PATH.

    \b
    Examples:
      hotvirt scp notes.txt root@vm/web:notes.txt
      hotvirt scp -r root@vm/web/production:/var/log ./log
    """
    machine, path, local, to_guest = parse_copy(source, destination)
    api.namespace = machine.namespace or api.namespace
    options = _options(api, machine, port, given)
    flags = [flag for flag, is_set in (("-r", recursive), ("-p", preserve)) if is_set]
    remote = f"{_host(options, machine, api.namespace)}:{path}"
    _become(plan_scp(options, flags, [local, remote] if to_guest else [remote, local]))


def plan_ssh(options: Options, machine: Target, namespace: str, command: Sequence[str]) -> list[str]:
    return ["ssh", *_common(options), _host(options, machine, namespace), *command]


def plan_scp(options: Options, flags: Sequence[str], places: Sequence[str]) -> list[str]:
    return ["scp", *_common(options), *flags, *places]


def parse_copy(source: str, destination: str) -> tuple[Target, str, str, bool]:
    """(guest, path in it, local path, whether the guest is where it goes)."""
    remote = [word for word in (source, destination) if ":" in word]
    if len(remote) != 1:
        raise click.UsageError(
            f"one of {source!r} and {destination!r} must be in a guest, and one on this machine; write vm/NAME:PATH"
        )
    name, _, path = remote[0].partition(":")
    try:
        machine = parse(name)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    to_guest = remote[0] == destination
    return machine, path, source if to_guest else destination, to_guest


def _options(api: Api, machine: Target, port: int, given: dict[str, Any]) -> Options:
    own = [sys.executable, "-m", "hotvirt", *connection_args()]
    target = f"{machine.short}/{machine.name}/{api.namespace}"
    # ssh hands this to a shell, after putting its own % sequences in.
    proxy = shlex.join([*own, "port-forward", "--stdio", "--wait", target, str(port)]).replace("%", "%%")
    return Options(
        proxy=proxy, user=machine.user or given["username"] or os.environ.get("USER", ""),
        identity=given["identity_file"] or "", known_hosts=given["known_hosts"] or "", extra=given["local_ssh_opts"],
    )  # fmt: skip


def _common(options: Options) -> list[str]:
    words = ["-o", f"ProxyCommand={options.proxy}"]
    if options.known_hosts:
        words += ["-o", f"UserKnownHostsFile={options.known_hosts}"]
    return [*words, *options.extra, *(["-i", options.identity] if options.identity else [])]


def _host(options: Options, machine: Target, namespace: str) -> str:
    host = f"{machine.short}.{machine.name}.{namespace}"
    return f"{options.user}@{host}" if options.user else host


def _become(words: list[str]) -> None:
    """This process is the program from here on: its exit code, its terminal, its signals."""
    if shutil.which(words[0]) is None:
        raise CliError(f"there is no {words[0]} on this machine; install an SSH client (Debian: openssh-client)")
    sys.stdout.flush()
    os.execvp(words[0], words)  # noqa: S606  # no shell
