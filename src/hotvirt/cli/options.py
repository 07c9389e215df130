"""options: what every command takes beside its own, which their help leaves out."""

import click

from hotvirt.cli.connection import all_options
from hotvirt.cli.verbs import verb


@verb()
@all_options
@click.pass_context
def options(ctx: click.Context, /, **_: object) -> None:
    """Show the options that every command has, before its name or after it.

    They choose the API and who to be there, as kubectl's do. Where a command has one of its own by the
    same name, the one of this list stands before the command.

    \b
    Examples:
      hotvirt start web --as=jane --as-group=developers
      hotvirt --server=https://10.0.0.1:6443 --token="$TOKEN" --certificate-authority=ca.pem console vm/web
    """
    click.echo(ctx.get_help())
