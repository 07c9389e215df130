"""What commands have in common: which API they talk to, and how a machine is named on the command line.

Which API, first that applies: --kubeconfig; the home of --home or $HOTVIRT_HOME; $KUBECONFIG or ~/.kube/config; the
home in the default place. Each of these options may stand before the command or after it.

How a machine is named: `web`, `vm/web`, `vmi/web`, `vm/web/production`, or in two words: `vm web`.
"""

import functools
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click
from msgspec import Struct

from hotvirt.cli.errors import CliError
from hotvirt.kube.resources import VMIS, VMS, Resource

if TYPE_CHECKING:  # what only an API's answer needs; `--help` and completion go without
    from pathlib import Path

    from click.shell_completion import CompletionItem

    from hotvirt.cli.api import Api

KINDS = {
    "vm": VMS, "vms": VMS, "virtualmachine": VMS, "virtualmachines": VMS,
    "vmi": VMIS, "vmis": VMIS, "virtualmachineinstance": VMIS, "virtualmachineinstances": VMIS,
}  # fmt: skip
CONNECTION = ("kubeconfig", "context", "home", "namespace")


class Target(Struct, frozen=True):
    """A machine as it was named. `resource` None: by its name alone; `namespace` "": the context's."""

    resource: Resource | None
    name: str
    namespace: str = ""
    user: str = ""

    @property
    def short(self) -> str:
        """`vm` or `vmi`; a name alone is a VM's."""
        return "vmi" if self.resource is VMIS else "vm"


def connection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("-n", "--namespace", help="Namespace of the VM (default: the context's)."),
        click.option("--home", metavar="DIR", help="Use the home in DIR.  [env: HOTVIRT_HOME]"),
        click.option("--context", metavar="NAME", help="Which of its contexts."),
        click.option("--kubeconfig", metavar="FILE", help="Which kubeconfig to use."),
    ):
        command = option(command)
    return command


def connected(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that choose an API, and calls the command with `api` first."""

    @connection_options
    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        given = {name: kwargs.pop(name) or from_root(name) for name in CONNECTION}
        api = open_api(given)
        for value in kwargs.values():
            if isinstance(value, Target) and value.namespace:
                api.namespace = value.namespace
        try:
            return command(api, *args, **kwargs)
        finally:
            api.close()

    return wrapped


def _or_root(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    return value or ctx.find_root().params.get(param.name or "")


home_option = click.option(
    "--home", metavar="DIR", callback=_or_root, help="Which home (default: the default place).  [env: HOTVIRT_HOME]"
)
"""For commands that need a home's files rather than its API."""


def open_api(given: dict[str, str | None]) -> "Api":
    """The API that the options choose."""
    from hotvirt.cli.api import Api
    from hotvirt.kube.kubeconfig import Access, load

    brought = click.get_current_context().obj  # whoever calls the command from Python may bring an access
    if isinstance(brought, Access):
        api = Api(brought)
    else:
        api = Api(load(find_kubeconfig(given["kubeconfig"], given["home"]), given["context"]))
    api.namespace = given["namespace"] or api.namespace
    return api


def from_root(name: str) -> str | None:
    """An option that was given before the command's name."""
    value = click.get_current_context().find_root().params.get(name)
    return str(value) if value else None


def connection_args() -> list[str]:
    """The options that make another call of this program talk to the same API; the namespace left out."""
    params = click.get_current_context().params
    given = {name: params.get(name) or from_root(name) for name in CONNECTION[:3]}
    return [f"--{name}={value}" for name, value in given.items() if value]


def find_kubeconfig(kubeconfig: str | None, home: str | None) -> "Sequence[Path]":
    """The files to read; see the module's text."""
    from pathlib import Path

    from hotvirt.home import paths
    from hotvirt.kube.kubeconfig import search_path

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
    """One word that names a machine."""

    name = "[vm/]NAME[/NAMESPACE]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Target:
        if isinstance(value, Target):
            return value
        try:
            return parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
        del param
        from hotvirt.cli.completion import machine_names

        return machine_names(ctx, incomplete)


def parse(text: str) -> Target:
    """`[user@][vm/]name[/namespace]`; ValueError says what is wrong and how it is written."""
    user, at, rest = text.rpartition("@")
    if at and not user:
        raise ValueError(f"{text!r} names no user before the @; write USER@vm/NAME, or leave out the @")
    kind, slash, name = rest.partition("/")
    if not slash:
        kind, name = "", rest
    name, slash, namespace = name.partition("/")
    if kind and kind.lower() not in KINDS:
        raise ValueError(f"{text!r}: {kind!r} is not a kind of machine; write vm/{name} or vmi/{name}")
    if not name or "/" in namespace or (slash and not namespace):
        raise ValueError(f"{text!r} names no machine; write NAME, vm/NAME or vm/NAME/NAMESPACE")
    return Target(KINDS[kind.lower()] if kind else None, name, namespace, user)


def _one(ctx: click.Context, _param: click.Parameter, words: tuple[Target, ...]) -> Target:
    """`vm web` is `vm/web`."""
    if len(words) == 2 and words[0] == Target(None, words[0].name) and words[0].name.lower() in KINDS:
        return Target(KINDS[words[0].name.lower()], words[1].name, words[1].namespace)
    if len(words) != 1:
        raise click.UsageError(f"name one machine, as vm/NAME; there are {len(words)} words", ctx)
    return words[0]


machine = click.argument(
    "machine", type=Named(), nargs=-1, required=True, callback=_one, metavar="[vm/]NAME[/NAMESPACE]"
)
one_machine = click.argument("machine", type=Named(), metavar="[vm/]NAME[/NAMESPACE]")
"""For commands with further arguments, where a machine is one word."""


def subresource(api: "Api", plural: str, name: str, verb: str, *, group: str = "subresources.kubevirt.io/v1") -> str:
    return f"/apis/{group}/namespaces/{api.namespace}/{plural}/{name}/{verb}"


def only_vm(machine: Target, verb: str) -> str:
    """The name, for verbs that an instance does not have."""
    if machine.resource is VMIS:
        raise CliError(f"an instance cannot {verb}; name its VM: vm/{machine.name}")
    return machine.name
