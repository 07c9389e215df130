"""Shell completion: the script for the shell, and the names of machines that it asks for at each Tab."""

import sys
from contextlib import closing
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class

from hotvirt.cli.verbs import verb

if TYPE_CHECKING:
    from hotvirt.kube.resources import Resource

PATIENCE = 2.0
"""Seconds: a Tab that takes longer than this is worse than one without names."""


@verb()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a script that completes hotvirt's commands, options and the names of VMs.

    \b
    Examples:
      hotvirt completion bash > /etc/bash_completion.d/hotvirt
      source <(hotvirt completion zsh)
      hotvirt completion fish > ~/.config/fish/completions/hotvirt.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None, "the choice allows only shells that click knows"
    click.echo(kind(ctx.find_root().command, {}, "hotvirt", "_HOTVIRT_COMPLETE").source())


def complete_for_kubectl() -> None:
    """Entry point of `kubectl_complete-virt`, which kubectl runs at a Tab behind `kubectl virt`: a candidate a line,
    then the directive by which files are no candidates."""
    from hotvirt.cli.main import hotvirt

    *args, incomplete = sys.argv[1:] or [""]
    for item in ShellComplete(hotvirt, {}, "hotvirt", "_HOTVIRT_COMPLETE").get_completions(args, incomplete):
        click.echo(f"{item.value}\t{item.help}" if item.help else item.value)
    click.echo(":4")


def machine_names(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """VMs and instances that what is typed may become. Nothing when the API can't be asked: a Tab is no place for an
    error."""
    from hotvirt.cli.targets import KINDS
    from hotvirt.kube.resources import VMS

    user, at, rest = incomplete.rpartition("@")
    kind = rest.partition("/")[0] if "/" in rest else ""
    if kind and kind.lower() not in KINDS:
        return []
    prefix = f"{user}{at}{kind}{'/' if kind else ''}"
    return _items(prefix, _names(ctx, KINDS[kind.lower()] if kind else VMS), incomplete)


def size_names(ctx: click.Context, what: str, incomplete: str) -> list[CompletionItem]:
    """Instancetypes or preferences (`what`): of the cluster by their names alone, as `create vm` takes them, and of a
    namespace behind their kind."""
    from hotvirt.kube import resources

    kinds = {
        "instancetype": (resources.CLUSTER_INSTANCETYPES, resources.INSTANCETYPES),
        "preference": (resources.CLUSTER_PREFERENCES, resources.PREFERENCES),
    }
    cluster, namespaced = kinds[what]
    kind, slash, _ = incomplete.rpartition("/")
    wanted = {"": cluster, cluster.kind.lower(): cluster, namespaced.kind.lower(): namespaced}.get(kind.lower())
    return _items(kind + slash, _names(ctx, wanted) if wanted else [], incomplete)


def _items(prefix: str, names: list[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(word) for word in sorted(prefix + name for name in names) if word.startswith(incomplete)]


def _names(ctx: click.Context, resource: "Resource") -> list[str]:
    from hotvirt.cli.connection import NAMES, open_api
    from hotvirt.cli.errors import explain

    params = {name: ctx.params.get(name) or ctx.find_root().params.get(name) for name in NAMES}
    try:
        with ctx.scope(cleanup=False):
            api = open_api(params)
        api.patience = PATIENCE
        with closing(api):
            return [obj["metadata"]["name"] for obj in api.list(resource, api.namespace)]
    except click.ClickException:  # of options that do not go together, or not yet
        return []
    except Exception as error:
        if explain(error) is None:
            raise
        return []
