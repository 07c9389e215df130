"""What commands have in common: which API they talk to, and how a VM is named on the command line.

Which API, first that applies: --kubeconfig; the home of --home or $HOTVIRT_HOME; $KUBECONFIG or ~/.kube/config; the
home in the default place.
"""

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from hotvirt.cli.api import Api
from hotvirt.cli.errors import CliError
from hotvirt.home import paths
from hotvirt.kube.kubeconfig import Access, load, search_path
from hotvirt.kube.resources import VMIS, VMS, Resource

KINDS = {
    "vm": VMS, "vms": VMS, "virtualmachine": VMS, "virtualmachines": VMS,
    "vmi": VMIS, "vmis": VMIS, "virtualmachineinstance": VMIS, "virtualmachineinstances": VMIS,
}  # fmt: skip


def connected(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that choose an API, and calls the command with `api` first."""

    @click.option("--kubeconfig", metavar="FILE", help="Which kubeconfig to use.")
    @click.option("--context", metavar="NAME", help="Which of its contexts.")
    @click.option("--home", metavar="DIR", help="Use the home in DIR.  [env: HOTVIRT_HOME]")
    @click.option("-n", "--namespace", help="Namespace of the VM (default: the context's).")
    @functools.wraps(command)
    def wrapped(
        *args: Any, kubeconfig: str | None, context: str | None, home: str | None, namespace: str | None, **kwargs: Any
    ) -> Any:
        given = click.get_current_context().obj  # whoever calls the command from Python may bring an access
        files = () if isinstance(given, Access) else find_kubeconfig(kubeconfig, home)
        api = Api(given if isinstance(given, Access) else load(files, context))
        api.namespace = namespace or api.namespace
        try:
            return command(api, *args, **kwargs)
        finally:
            api.close()

    return wrapped


def find_kubeconfig(kubeconfig: str | None, home: str | None) -> Sequence[Path]:
    """The files to read; see the module's text."""
    if kubeconfig:
        return [Path(kubeconfig)]
    own = paths.here(home)
    if not own.is_default:
        if not own.kubeconfig.exists():
            raise CliError(f"no home has been started in {own.state}; start it with: hotvirt up --home {own.state}")
        return [own.kubeconfig]
    found = [path for path in (*search_path(), own.kubeconfig) if os.access(path, os.R_OK)]
    if not found:
        raise CliError("no kubeconfig found, so no API to talk to; start a home with: hotvirt up --detach")
    return found


class Named(click.ParamType):  # type: ignore[type-arg]  # generic only for the type checker
    """`web`, `vm/web` or `vmi/web`: (resource or None, name)."""

    name = "[vm/]NAME"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Resource | None, str]:
        kind, slash, name = str(value).rpartition("/")
        if not slash:
            return None, name
        if kind.lower() not in KINDS:
            self.fail(f"{value!r}: {kind!r} is not a kind of machine; write vm/{name} or vmi/{name}", param, ctx)
        return KINDS[kind.lower()], name


machine = click.argument("machine", type=Named())


def subresource(api: Api, plural: str, name: str, verb: str, *, group: str = "subresources.kubevirt.io/v1") -> str:
    return f"/apis/{group}/namespaces/{api.namespace}/{plural}/{name}/{verb}"


def only_vm(machine: tuple[Resource | None, str], verb: str) -> str:
    """The name, for verbs that an instance does not have."""
    resource, name = machine
    if resource is VMIS:
        raise CliError(f"an instance cannot {verb}; name its VM: vm/{name}")
    return name
