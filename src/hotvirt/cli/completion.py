"""Shell completion, printed for the shell to read."""

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a script that completes hotvirt's commands and options.

    \b
    Examples:
      hotvirt completion bash > /etc/bash_completion.d/hotvirt
      source <(hotvirt completion zsh)
      hotvirt completion fish > ~/.config/fish/completions/hotvirt.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None, "the choice allows only shells that click knows"
    click.echo(kind(ctx.find_root().command, {}, "hotvirt", "_HOTVIRT_COMPLETE").source())
