"""The versions of both sides."""

import platform

import click

import hotvirt
from hotvirt.cli import tables
from hotvirt.cli.api import Api
from hotvirt.cli.targets import connected
from hotvirt.kube.errors import ApiError, Unreachable


@click.command()
@tables.output_option
@connected
def version(api: Api, *, output: str | None) -> None:
    """Show the version of this command, and of the API it talks to.

    \b
    Example:
      hotvirt version -o json
    """
    client = {"version": hotvirt.__version__, "python": platform.python_version()}
    try:
        server = api.request("GET", "/apis/subresources.kubevirt.io/v1/version")
    except (ApiError, Unreachable) as error:
        server = {"error": str(error)}
    if output:
        click.echo(tables.document({"client": client, "server": server}, output))
        return
    click.echo(
        tables.facts(
            [
                ("Client", f"hotvirt {client['version']} (Python {client['python']})"),
                ("Server", str(server.get("gitVersion") or server.get("error") or "unknown")),
            ]
        )
    )
