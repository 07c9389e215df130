"""addvolume and removevolume, with virtctl's options."""

from typing import Any

import click

from hotvirt.cli.api import Api
from hotvirt.cli.errors import CliError
from hotvirt.cli.lifecycle import Machine, dry_run_option
from hotvirt.cli.targets import connected, machine, subresource
from hotvirt.kube.errors import NotFound
from hotvirt.kube.resources import CLAIMS, VMS, Resource

DATA_VOLUMES = Resource("cdi.kubevirt.io", "v1beta1", "datavolumes", "DataVolume")


@click.command()
@machine
@click.option("--volume-name", required=True, metavar="CLAIM", help="PersistentVolumeClaim (or DataVolume) to attach.")
@click.option("--persist", is_flag=True, help="Accepted for virtctl's sake: a VM's volume always outlives a restart.")
@click.option("--bus", type=click.Choice(["scsi", "virtio"]), default="scsi", show_default=True)
@click.option("--serial", help="Serial number the guest sees (default: the claim's name).")
@click.option("--disk-type", type=click.Choice(["disk", "lun"]), default="disk", show_default=True)
@click.option("--cache", type=click.Choice(["none", "writethrough", "writeback"]), help="Host cache mode.")
@dry_run_option
@connected
def addvolume(
    api: Api, machine: Machine, *, volume_name: str, persist: bool, bus: str, serial: str | None, disk_type: str,
    cache: str | None, dry_run: bool,
) -> None:  # fmt: skip
    """Attach a claim to a VM as a disk; a running guest sees it at once.

    \b
    Examples:
      hotvirt addvolume web --volume-name=data
      hotvirt addvolume web --volume-name=data --bus=virtio --serial=DATA1
    """
    del persist
    if len(volume_name) > 63:
        raise CliError(f"--volume-name {volume_name!r} is longer than 63 characters; use a claim with a shorter name")
    name = machine[1]
    disk: dict[str, Any] = {"name": volume_name, "serial": serial or volume_name, disk_type: {"bus": bus}}
    if cache:
        disk["cache"] = cache
    body: dict[str, Any] = {"name": volume_name, "disk": disk, "volumeSource": _source(api, volume_name)}
    _change(api, machine, "addvolume", body, dry_run=dry_run)
    click.echo(f"volume {volume_name} is to be attached to {name}; watch: kubectl get vmi {name} -o yaml")


@click.command()
@machine
@click.option("--volume-name", required=True, metavar="NAME", help="Volume to detach.")
@click.option("--persist", is_flag=True, hidden=True)
@dry_run_option
@connected
def removevolume(api: Api, machine: Machine, *, volume_name: str, persist: bool, dry_run: bool) -> None:
    """Detach a volume that was attached while the VM ran. Its data stays in the claim.

    \b
    Example:
      hotvirt removevolume web --volume-name=data
    """
    del persist
    _change(api, machine, "removevolume", {"name": volume_name}, dry_run=dry_run)
    click.echo(f"volume {volume_name} is to be detached from {machine[1]}")


def _change(api: Api, machine: Machine, verb: str, body: dict[str, Any], *, dry_run: bool) -> None:
    resource, name = machine
    plural = (resource or VMS).plural
    if dry_run:
        body = {**body, "dryRun": ["All"]}
    api.request("PUT", subresource(api, plural, name, verb), body=body)


def _source(api: Api, name: str) -> dict[str, Any]:
    """A DataVolume when there is one of that name, else the claim, which must exist: a typing error is told now."""
    try:
        api.get(DATA_VOLUMES, name, api.namespace)
    except NotFound:
        pass
    else:
        return {"dataVolume": {"name": name}}
    try:
        api.get(CLAIMS, name, api.namespace)
    except NotFound:
        raise CliError(
            f"there is no PersistentVolumeClaim {name} in namespace {api.namespace}; see: kubectl get pvc"
        ) from None
    return {"persistentVolumeClaim": {"claimName": name}}
