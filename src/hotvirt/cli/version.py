"""The versions of both sides. Without --client this needs an API; with it, next to nothing is loaded."""

import platform
from typing import Any

import click

import hotvirt
from hotvirt.cli.connection import connection_options, open_api, taken
from hotvirt.cli.verbs import verb

FIELDS = (
    ("gitVersion", "GitVersion"), ("gitCommit", "GitCommit"), ("gitTreeState", "GitTreeState"),
    ("buildDate", "BuildDate"), ("goVersion", "GoVersion"), ("compiler", "Compiler"), ("platform", "Platform"),
)  # fmt: skip


@verb()
@click.option("-c", "--client", is_flag=True, help="Only this command's own version; needs no API.")
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="Print the data instead of a line each.")
@connection_options
def version(*, client: bool, output: str | None, **connection: Any) -> None:
    """Show the version of this command, and of the API it talks to.

    \b
    Examples:
      hotvirt version
      hotvirt version --client
      hotvirt version -o json
    """
    ours = {"gitVersion": f"v{hotvirt.__version__}", "compiler": f"Python {platform.python_version()}"}
    if output:
        from hotvirt.cli import tables

        server = {} if client else {"server": _ask(connection)}
        click.echo(tables.document({"client": ours, **server}, output))
        return
    click.echo(f"Client Version: {line(ours)}")
    if not client:
        click.echo(f"Server Version: {line(_ask(connection))}")


def line(facts: object) -> str:
    """As virtctl prints a version, which scripts take apart."""
    assert isinstance(facts, dict)
    words = [f'{shown}:"{facts.get(key) or ""}"' for key, shown in FIELDS]
    return f"version.Info{{{', '.join(words)}}}"


def _ask(connection: dict[str, Any]) -> dict[str, object]:
    api = open_api(taken(connection))
    try:
        return api.request("GET", "/apis/subresources.kubevirt.io/v1/version")
    finally:
        api.close()
