"""guestosinfo, userlist, fslist, expand, objectgraph, permitted-devices: documents of the API, printed as they are.

Guests' own words are in them, so they are printed as JSON or YAML, which leave no control character to the terminal.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from hotvirt.api import configuration
from hotvirt.cli import tables
from hotvirt.cli.api import Api
from hotvirt.cli.errors import CliError
from hotvirt.cli.lifecycle import explain_if_off
from hotvirt.cli.migration import pairs
from hotvirt.cli.targets import Target, connected, machine, subresource
from hotvirt.cli.verbs import verb
from hotvirt.kube.client import Document
from hotvirt.kube.errors import NotFound
from hotvirt.kube.resources import KUBEVIRTS, VMIS, VMS


def form_option(default: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option("-o", "--output", type=click.Choice(["json", "yaml"]), default=default, show_default=True)


@verb()
@machine
@form_option("json")
@connected
def guestosinfo(api: Api, machine: Target, *, output: str) -> None:
    """Show what a guest's agent tells of its system: name, kernel, time zone, users, file systems.

    \b
    Example:
      hotvirt guestosinfo web
    """
    _show(api, machine, "guestosinfo", output)


@verb()
@machine
@form_option("json")
@connected
def userlist(api: Api, machine: Target, *, output: str) -> None:
    """Show who is logged in to a guest.

    \b
    Example:
      hotvirt userlist web
    """
    _show(api, machine, "userlist", output)


@verb()
@machine
@form_option("json")
@connected
def fslist(api: Api, machine: Target, *, output: str) -> None:
    """Show a guest's mounted file systems, and how full they are.

    \b
    Example:
      hotvirt fslist web
    """
    _show(api, machine, "filesystemlist", output)


@verb()
@click.option("--vm", "name", metavar="NAME", help="A VM of the API.")
@click.option("-f", "--file", metavar="FILE", help="A VM in a file; - is standard input.")
@form_option("yaml")
@connected
def expand(api: Api, *, name: str | None, file: str | None, output: str) -> None:
    """Show a VM with its instancetype and preference written out.

    \b
    Examples:
      hotvirt expand --vm web
      hotvirt expand --file web.yaml -o json
    """
    if (name is None) == (file is None):
        raise click.UsageError("name one VM: --vm NAME, or --file FILE")
    if name is not None:
        vm = api.request("GET", subresource(api, "virtualmachines", name, "expand-spec"))
    else:
        path = f"/apis/subresources.kubevirt.io/v1/namespaces/{api.namespace}/expand-vm-spec"
        vm = api.request("PUT", path, body=_read(file or "-"))
    click.echo(tables.document(vm, output))


@verb()
@machine
@click.option("--vmi", "of_instance", is_flag=True, help="Of the instance rather than the VM.")
@click.option("--exclude-optional", is_flag=True, help="Leave out what the VM can do without.")
@click.option("--selector", "selectors", multiple=True, metavar="KEY=VALUE[,...]", help="Only with these labels.")
@form_option("json")
@connected
def objectgraph(
    api: Api, machine: Target, *, of_instance: bool, exclude_optional: bool, selectors: tuple[str, ...], output: str
) -> None:
    """Show what a VM depends on: its instance, claims, secrets, config maps, and what these depend on.

    \b
    Examples:
      hotvirt objectgraph web
      hotvirt objectgraph web --exclude-optional -o yaml
    """
    resource = VMIS if of_instance or machine.resource is VMIS else VMS
    options: Document = {"includeOptionalNodes": not exclude_optional}
    if labels := pairs("--selector", selectors):
        options["labelSelector"] = {"matchLabels": labels}
    path = subresource(api, resource.plural, machine.name, "objectgraph")
    click.echo(tables.document(api.request("GET", path, body=options), output))


@verb("permitted-devices")
@connected
def permitted_devices(api: Api) -> None:
    """Show which of the host's devices VMs may have, as the KubeVirt object says.

    \b
    Example:
      hotvirt permitted-devices -n kubevirt
    """
    found = api.list(KUBEVIRTS, api.namespace) or api.list(KUBEVIRTS)
    if not found:
        raise CliError("there is no KubeVirt object, which lists the devices; see: kubectl get kubevirt -A")
    permitted = configuration.of(found[0]).get("permittedHostDevices") or {}
    host = ", ".join(each["resourceName"] for each in permitted.get("pciHostDevices") or ())
    gpus = ", ".join(each["resourceName"] for each in permitted.get("mediatedDevices") or ())
    click.echo(f"Permitted Devices: \nHost Devices: \n{host} \nGPU Devices: \n{gpus}")


def _show(api: Api, machine: Target, verb: str, output: str) -> None:
    try:
        found = api.request("GET", subresource(api, "virtualmachineinstances", machine.name, verb))
    except NotFound:
        explain_if_off(api, machine)
        raise
    click.echo(tables.document(found, output))


def _read(file: str) -> Document:
    import yaml

    try:
        found = yaml.safe_load(sys.stdin.read() if file == "-" else Path(file).read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CliError(f"cannot read a VM from {file}: {error}; give a file of YAML or JSON") from error
    if not isinstance(found, dict) or found.get("kind") != VMS.kind:
        raise CliError(
            f"{file} holds no VirtualMachine; give a file with one, as kubectl get vm NAME -o yaml prints it"
        )
    return found
