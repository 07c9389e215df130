"""migrate, migrate-cancel, evacuate-cancel: moving a running VM to another node, or calling it off."""

import click

from hotvirt.cli.api import Api
from hotvirt.cli.errors import CliError
from hotvirt.cli.lifecycle import ask, dry_run_option
from hotvirt.cli.targets import Target, connected, machine, only_vm
from hotvirt.cli.verbs import verb
from hotvirt.kube.errors import NotFound
from hotvirt.kube.resources import MIGRATIONS, VMIS

OF_VMI = "kubevirt.io/vmi-name"
OVER = ("Succeeded", "Failed")


@verb()
@machine
@click.option(
    "--addedNodeSelector", "selectors", multiple=True, metavar="KEY=VALUE[,...]", help="Only to a node with this label."
)
@dry_run_option
@connected
def migrate(api: Api, machine: Target, *, selectors: tuple[str, ...], dry_run: bool) -> None:
    """Move a running VM to another node of a cluster. A home has one node: there the VM stays, and the answer says why.

    \b
    Examples:
      hotvirt migrate web
      hotvirt migrate web --addedNodeSelector=kubernetes.io/hostname=node-2
    """
    name = only_vm(machine, "be migrated by this command")
    labels = pairs("--addedNodeSelector", selectors)
    ask(api, "virtualmachines", name, "migrate", {"addedNodeSelector": labels} if labels else {}, dry_run=dry_run)
    click.echo(f"VM {name} was scheduled to migrate")


@verb("migrate-cancel")
@machine
@dry_run_option
@connected
def migrate_cancel(api: Api, machine: Target, *, dry_run: bool) -> None:
    """Call off a migration that is under way. The VM goes on where it is.

    \b
    Example:
      hotvirt migrate-cancel web
    """
    try:
        listed = api.list(MIGRATIONS, api.namespace, labelSelector=f"{OF_VMI}={machine.name}")
    except NotFound:
        listed = []  # an API that has no migrations at all
    active = [m["metadata"]["name"] for m in listed if (m.get("status") or {}).get("phase") not in OVER]
    if not active:
        raise CliError(f"{machine.name} is not being migrated, so there is nothing to cancel; see: kubectl get vmim")
    if dry_run:
        click.echo("Dry Run execution")
    query = {"dryRun": "All"} if dry_run else None
    api.request("DELETE", MIGRATIONS.path(api.namespace, active[0]), query=query)
    click.echo(f"VM {machine.name} was scheduled to migrate-cancel")


@verb("evacuate-cancel")
@machine
@dry_run_option
@connected
def evacuate_cancel(api: Api, machine: Target, *, dry_run: bool) -> None:
    """Let a VM stay that was to leave its node.

    \b
    Examples:
      hotvirt evacuate-cancel vm web
      hotvirt evacuate-cancel vmi web
    """
    vmi = api.get(VMIS, machine.name, api.namespace)
    node = (vmi.get("status") or {}).get("nodeName")
    if not node:
        raise CliError(
            f"{machine.name} is on no node yet, so it need not leave one; see: kubectl get vmi {machine.name}"
        )
    plural = "virtualmachineinstances" if machine.resource is VMIS else "virtualmachines"
    ask(api, plural, machine.name, "evacuate/cancel", {"evacuationNodeName": node}, dry_run=dry_run)
    click.echo(f"{machine.short.upper()} {api.namespace}/{machine.name} was canceled evacuation")


def pairs(option: str, words: tuple[str, ...]) -> dict[str, str]:
    """`a=1,b=2`, once or several times, as a map."""
    found = {}
    for word in ",".join(words).split(",") if words else ():
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise click.BadParameter(f"{word!r} is not a label; write KEY=VALUE", param_hint=option)
        found[key] = value
    return found
