"""start, stop, restart, pause, unpause: a PUT of KubeVirt's subresource, and the wait for its effect when asked."""

from typing import Any

import click

from hotvirt.cli.api import Api
from hotvirt.cli.targets import connected, machine, only_vm, subresource
from hotvirt.cli.waiting import wait_for_vm
from hotvirt.kube.resources import Resource

wait_option = click.option("--wait", is_flag=True, help="Return when it has happened.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Check only; change nothing.")
Machine = tuple[Resource | None, str]


@click.command()
@machine
@click.option("--paused", is_flag=True, help="Start with the CPUs frozen.")
@wait_option
@dry_run_option
@connected
def start(api: Api, machine: Machine, *, paused: bool, wait: bool, dry_run: bool) -> None:
    """Start a VM.

    \b
    Examples:
      hotvirt start web
      hotvirt start vm/web --wait      return when its guest runs
    """
    name = only_vm(machine, "start")
    _put(api, "virtualmachines", name, "start", {"paused": paused} if paused else {}, dry_run=dry_run)
    if wait and not dry_run:
        wait_for_vm(api, name, ("Running", "Paused") if paused else ("Running",))
    click.echo(f"vm/{name} {'is' if wait else 'is to be'} started")


@click.command()
@machine
@click.option("--grace-period", type=click.IntRange(min=0), metavar="SECONDS", help="How long the guest may take.")
@click.option("--force", is_flag=True, help="Allow a grace period of 0: power off at once.")
@wait_option
@dry_run_option
@connected
def stop(api: Api, machine: Machine, *, grace_period: int | None, force: bool, wait: bool, dry_run: bool) -> None:
    """Stop a VM: its guest is asked to shut down, and powered off when its grace period is over.

    \b
    Examples:
      hotvirt stop web
      hotvirt stop web --force --grace-period=0      power off at once
    """
    name = only_vm(machine, "stop")
    if force and grace_period is None:
        raise click.UsageError("--force needs the time too: --force --grace-period=0")
    if grace_period == 0 and not force:
        raise click.UsageError("--grace-period=0 powers the guest off and may lose its data; confirm with --force")
    options = {} if grace_period is None else {"gracePeriod": grace_period}
    _put(api, "virtualmachines", name, "stop", options, dry_run=dry_run)
    if wait and not dry_run:
        wait_for_vm(api, name, ("Stopped",))
    click.echo(f"vm/{name} {'is' if wait else 'is to be'} stopped")


@click.command()
@machine
@click.option("--force", is_flag=True, help="Power off at once rather than ask the guest to shut down.")
@dry_run_option
@connected
def restart(api: Api, machine: Machine, *, force: bool, dry_run: bool) -> None:
    """Stop a VM and start it again; what is pending until a restart then holds.

    \b
    Examples:
      hotvirt restart web
      hotvirt restart web --force      do not wait for the guest
    """
    name = only_vm(machine, "restart")
    _put(api, "virtualmachines", name, "restart", {"gracePeriodSeconds": 0} if force else {}, dry_run=dry_run)
    click.echo(f"vm/{name} is to be restarted")


@click.command()
@machine
@dry_run_option
@connected
def pause(api: Api, machine: Machine, *, dry_run: bool) -> None:
    """Freeze a running VM's CPUs. Its memory stays as it is.

    \b
    Example:
      hotvirt pause vm/web
    """
    _put(api, "virtualmachineinstances", machine[1], "pause", {}, dry_run=dry_run)
    click.echo(f"vm/{machine[1]} is paused")


@click.command()
@machine
@dry_run_option
@connected
def unpause(api: Api, machine: Machine, *, dry_run: bool) -> None:
    """Let a paused VM go on.

    \b
    Example:
      hotvirt unpause vm/web
    """
    _put(api, "virtualmachineinstances", machine[1], "unpause", {}, dry_run=dry_run)
    click.echo(f"vm/{machine[1]} goes on")


def _put(api: Api, plural: str, name: str, verb: str, options: dict[str, Any], *, dry_run: bool) -> None:
    body = {**options, "dryRun": ["All"]} if dry_run else options
    api.request("PUT", subresource(api, plural, name, verb), body=body)
