"""start, stop, restart, pause, unpause, soft-reboot, reset: a PUT of KubeVirt's subresource, told in virtctl's words,
and the wait for its effect when asked."""

from typing import Any

import click

from hotvirt.cli.api import Api
from hotvirt.cli.errors import CliError
from hotvirt.cli.targets import Target, connected, machine, only_vm, subresource
from hotvirt.cli.verbs import verb
from hotvirt.cli.waiting import wait_for_vm
from hotvirt.kube.errors import NotFound
from hotvirt.kube.resources import VMIS, VMS

wait_option = click.option("--wait", is_flag=True, help="Return when it has happened.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Check only; change nothing.")


@verb()
@machine
@click.option("--paused", is_flag=True, help="Start with the CPUs frozen.")
@wait_option
@dry_run_option
@connected
def start(api: Api, machine: Target, *, paused: bool, wait: bool, dry_run: bool) -> None:
    """Start a VM.

    \b
    Examples:
      hotvirt start web
      hotvirt start web --paused       with its CPUs frozen, until: hotvirt unpause web
      hotvirt start vm/web --wait      return when its guest runs
    """
    name = only_vm(machine, "start")
    ask(api, "virtualmachines", name, "start", {"paused": paused} if paused else {}, dry_run=dry_run)
    _scheduled("VM", name, "start")
    if wait and not dry_run:
        wait_for_vm(api, name, ("Running", "Paused") if paused else ("Running",))
        click.echo(f"VM {name} is started")


@verb()
@machine
@click.option("--grace-period", type=click.IntRange(min=-1), metavar="SECONDS", help="How long the guest may take.")
@click.option("--force", is_flag=True, help="Allow a grace period of 0: power off at once.")
@wait_option
@dry_run_option
@connected
def stop(api: Api, machine: Target, *, grace_period: int | None, force: bool, wait: bool, dry_run: bool) -> None:
    """Stop a VM: its guest is asked to shut down, and powered off when its grace period is over.

    \b
    Examples:
      hotvirt stop web
      hotvirt stop web --force --grace-period=0      power off at once
    """
    name = only_vm(machine, "stop")
    grace = _grace(grace_period, force=force)
    ask(api, "virtualmachines", name, "stop", {} if grace is None else {"gracePeriod": grace}, dry_run=dry_run)
    _scheduled("VM", name, "stop")
    if wait and not dry_run:
        wait_for_vm(api, name, ("Stopped",))
        click.echo(f"VM {name} is stopped")


@verb()
@machine
@click.option(
    "--grace-period",
    type=click.IntRange(min=-1),
    metavar="SECONDS",
    help="With --force: 0, which --force means anyway.",
)
@click.option("--force", is_flag=True, help="Power off at once rather than ask the guest to shut down.")
@dry_run_option
@connected
def restart(api: Api, machine: Target, *, grace_period: int | None, force: bool, dry_run: bool) -> None:
    """Stop a VM and start it again; what is pending until a restart then holds.

    \b
    Examples:
      hotvirt restart web
      hotvirt restart web --force      do not wait for the guest
    """
    name = only_vm(machine, "restart")
    grace = _grace(0 if force and grace_period is None else grace_period, force=force)
    ask(
        api, "virtualmachines", name, "restart", {} if grace is None else {"gracePeriodSeconds": grace}, dry_run=dry_run
    )
    _scheduled("VM", name, "restart")


@verb()
@machine
@dry_run_option
@connected
def pause(api: Api, machine: Target, *, dry_run: bool) -> None:
    """Freeze a running VM's CPUs. Its memory stays as it is.

    \b
    Examples:
      hotvirt pause vm/web
      hotvirt pause vm web
    """
    _instance(api, machine, "pause", dry_run=dry_run)


@verb()
@machine
@dry_run_option
@connected
def unpause(api: Api, machine: Target, *, dry_run: bool) -> None:
    """Let a paused VM go on.

    \b
    Examples:
      hotvirt unpause vm/web
      hotvirt unpause vm web
    """
    _instance(api, machine, "unpause", dry_run=dry_run)


@verb("soft-reboot")
@machine
@connected
def soft_reboot(api: Api, machine: Target) -> None:
    """Ask a guest to reboot itself, through its agent or the power button. Its QEMU goes on.

    \b
    Example:
      hotvirt soft-reboot web
    """
    _instance(api, machine, "soft-reboot")


@verb()
@machine
@connected
def reset(api: Api, machine: Target) -> None:
    """Press a running guest's reset button: it boots anew at once, unsaved data is lost. Its QEMU goes on.

    \b
    Example:
      hotvirt reset web
    """
    _instance(api, machine, "reset")


def ask(api: Api, plural: str, name: str, verb: str, options: dict[str, Any], *, dry_run: bool = False) -> None:
    """One PUT of a verb."""
    if dry_run:
        click.echo("Dry Run execution")
        options = {**options, "dryRun": ["All"]}
    api.request("PUT", subresource(api, plural, name, verb), body=options)


def _instance(api: Api, machine: Target, verb: str, *, dry_run: bool = False) -> None:
    """A verb of the running instance; of a VM that has none, the mend is told."""
    try:
        ask(api, "virtualmachineinstances", machine.name, verb.replace("-", ""), {}, dry_run=dry_run)
    except NotFound:
        explain_if_off(api, machine)
        raise
    _scheduled("VMI", machine.name, verb)


def explain_if_off(api: Api, machine: Target) -> None:
    """Raises what to do when the instance is missing only because its VM is not running."""
    if machine.resource is VMIS or api.find(VMS, machine.name, api.namespace) is None:
        return
    raise CliError(f"VM {machine.name} is not running; start it with: hotvirt start {machine.name}")


def _grace(seconds: int | None, *, force: bool) -> int | None:
    if seconds == -1:
        seconds = None  # virtctl's way to write none
    if force and seconds is None:
        raise click.UsageError("--force needs the time too: --force --grace-period=0")
    if seconds == 0 and not force:
        raise click.UsageError("--grace-period=0 powers the guest off and may lose its data; confirm with --force")
    return seconds


def _scheduled(kind: str, name: str, verb: str) -> None:
    click.echo(f"{kind} {name} was scheduled to {verb}")
