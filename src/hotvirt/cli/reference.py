"""Writes docs/reference/cli.md from the commands themselves: `python -m hotvirt.cli.reference`. A test keeps it
current."""

from pathlib import Path

import click

from hotvirt.cli.main import LazyGroup, hotvirt

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "cli.md"
WIDTH = 100


def render() -> str:
    """The page. The same on every machine: no terminal's width, no home directory goes into it."""
    head = "# Commands\n\nGenerated from the commands; do not edit. Each answers `--help` with the same text.\n"
    settings = {**hotvirt.context_settings, "max_content_width": WIDTH, "terminal_width": WIDTH}
    root = click.Context(hotvirt, info_name="hotvirt", **settings)
    sections = [_section(root)]
    for name in hotvirt.list_commands(root):
        sections += _sections_below(root, name)
    return "\n".join([head, *sections])


def _sections_below(parent: click.Context, name: str) -> list[str]:
    command = (
        _below(parent)[name] if not isinstance(parent.command, LazyGroup) else parent.command.get_command(parent, name)
    )
    assert command is not None
    context = click.Context(command, info_name=name, parent=parent, max_content_width=WIDTH, terminal_width=WIDTH)
    found = [_section(context)]
    for below in sorted(_below(context)):
        found += _sections_below(context, below)
    return found


def _below(context: click.Context) -> dict[str, click.Command]:
    """A command's own commands; `vnc` has one without being a group."""
    return getattr(context.command, "commands", {})


def _section(context: click.Context) -> str:
    return f"## {context.command_path}\n\n```text\n{context.get_help()}\n```\n"


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(render())
