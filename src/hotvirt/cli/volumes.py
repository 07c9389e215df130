"""addvolume and removevolume, with virtctl's options."""

from typing import Any

import click

from hotvirt.cli.api import Api
from hotvirt.cli.errors import CliError
from hotvirt.cli.lifecycle import ask, dry_run_option
from hotvirt.cli.targets import Target, connected, machine, subresource
from hotvirt.cli.verbs import verb
from hotvirt.kube.errors import NotFound
from hotvirt.kube.resources import CLAIMS, DATA_VOLUMES, VMIS, VMS


@verb()
@machine
@click.option("--volume-name", required=True, metavar="CLAIM", help="PersistentVolumeClaim (or DataVolume) to attach.")
@click.option("--disk-name", metavar="NAME", help="Its name in the VM, when not the claim's.")
@click.option("--serial", help="Serial number the guest sees (default: the name in the VM).")
@click.option("--bus", type=click.Choice(["scsi", "virtio"]), default="scsi", show_default=True)
@click.option("--disk-type", type=click.Choice(["disk", "lun"]), default="disk", show_default=True)
@click.option("--cache", type=click.Choice(["none", "writethrough", "writeback"]), help="Host cache mode.")
@click.option("--persist", is_flag=True, help="Accepted for virtctl's sake: a VM's volume always outlives a restart.")
@dry_run_option
@connected
def addvolume(
    api: Api, machine: Target, *, volume_name: str, disk_name: str | None, serial: str | None, bus: str, disk_type: str,
    cache: str | None, persist: bool, dry_run: bool,
) -> None:  # fmt: skip
    """Attach a claim to a VM as a disk; a running guest sees it at once.

    \b
    Examples:
      hotvirt addvolume web --volume-name=data
      hotvirt addvolume web --volume-name=data --bus=virtio --serial=DATA1
    """
    del persist
    name = disk_name or volume_name
    if len(name) > 63:
        raise CliError(f"{name!r} is longer than 63 characters; give the disk a shorter name with --disk-name")
    if disk_type == "lun" and bus != "scsi":
        raise CliError(f"a LUN cannot be on the {bus} bus; leave out --bus={bus}, or attach it with --disk-type=disk")
    disk: dict[str, Any] = {"name": name, "serial": serial or name, disk_type: {"bus": bus}}
    if cache:
        disk["cache"] = cache
    body: dict[str, Any] = {"name": name, "disk": disk, "volumeSource": _source(api, volume_name)}
    _change(api, machine, "addvolume", body, dry_run=dry_run)
    click.echo(f"Successfully submitted add volume request to VM {machine.name} for volume {volume_name}")


@verb()
@machine
@click.option("--volume-name", required=True, metavar="NAME", help="Volume to detach.")
@click.option("--persist", is_flag=True, hidden=True)
@dry_run_option
@connected
def removevolume(api: Api, machine: Target, *, volume_name: str, persist: bool, dry_run: bool) -> None:
    """Detach a volume that was attached while the VM ran. Its data stays in the claim.

    \b
    Example:
      hotvirt removevolume web --volume-name=data
    """
    del persist
    _change(api, machine, "removevolume", {"name": volume_name}, dry_run=dry_run)
    click.echo(f"Successfully submitted remove volume request to VM {machine.name} for volume {volume_name}")


def _change(api: Api, machine: Target, verb: str, body: dict[str, Any], *, dry_run: bool) -> None:
    """Of the VM; of an instance where that is named, or where no VM has the name."""
    plural = (machine.resource or VMS).plural
    try:
        ask(api, plural, machine.name, verb, body, dry_run=dry_run)
    except NotFound:
        if machine.resource is not None or api.find(VMIS, machine.name, api.namespace) is None:
            raise
        dry = {"dryRun": ["All"]} if dry_run else {}
        api.request("PUT", subresource(api, VMIS.plural, machine.name, verb), body={**body, **dry})


def _source(api: Api, name: str) -> dict[str, Any]:
    """A DataVolume when there is one of that name, else the claim, which must exist: a typing error is told now."""
    if api.find(DATA_VOLUMES, name, api.namespace) is not None:
        return {"dataVolume": {"name": name}}
    if api.find(CLAIMS, name, api.namespace) is not None:
        return {"persistentVolumeClaim": {"claimName": name}}
    raise CliError(f"there is no PersistentVolumeClaim {name} in namespace {api.namespace}; see: kubectl get pvc")
