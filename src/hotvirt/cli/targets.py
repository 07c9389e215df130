"""How a machine is named on the command line, and the API that commands are called with.

How a machine is named: `web`, `vm/web`, `vmi/web`, `vm/web/production`, or in two words: `vm web`.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from msgspec import Struct

from hotvirt.cli.connection import connection_options, open_api, taken
from hotvirt.cli.errors import CliError
from hotvirt.kube.resources import VMIS, VMS, Resource

if TYPE_CHECKING:  # what only an API's answer needs; `--help` and completion go without
    from click.shell_completion import CompletionItem

    from hotvirt.cli.api import Api

KINDS = {
    "vm": VMS, "vms": VMS, "virtualmachine": VMS, "virtualmachines": VMS,
    "vmi": VMIS, "vmis": VMIS, "virtualmachineinstance": VMIS, "virtualmachineinstances": VMIS,
}  # fmt: skip


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


def connected(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that choose an API, and calls the command with `api` first."""

    @connection_options
    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        api = open_api(taken(kwargs))
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
