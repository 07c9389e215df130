"""What every command has: flags as Go programs write them, and nothing loaded before it is needed. Pure."""

from collections.abc import Callable, Iterator
from typing import Any

import click

TRUE = ("1", "t", "T", "true", "TRUE", "True")
FALSE = ("0", "f", "F", "false", "FALSE", "False")


class SharedOption(click.Option):
    """One that every command has. Where a command has its own of that name, such as `create vm --user`, that one is
    meant: the shared one stands before the command's name then."""


class Verb(click.Command):
    """A command whose flags may also be written with a value, as scripts for virtctl do: --force=true."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        own = {word for param in self.params if not isinstance(param, SharedOption) for word in param.opts}
        self.params = [p for p in self.params if not (isinstance(p, SharedOption) and own.intersection(p.opts))]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(without_values(self.params, args, ctx)))


def without_values(params: list[click.Parameter], args: list[str], ctx: click.Context) -> Iterator[str]:
    """The arguments, with flags as click has them."""
    flags = {o: p for p in params if isinstance(p, click.Option) and p.is_flag for o in p.opts}
    rest = iter(args)
    for arg in rest:
        if arg == "--":
            yield arg
            yield from rest
            return
        name, equals, value = arg.partition("=")
        if not equals or name not in flags:
            yield arg
        elif value in TRUE:
            yield name
        elif value in FALSE:
            yield from flags[name].secondary_opts[:1]
        else:
            raise click.BadOptionUsage(name, f"{name} takes true or false, not {value!r}", ctx)


class Verbs(click.Group):
    """A command with commands of its own, such as `create`."""

    command_class = Verb


def verb(name: str | None = None, **settings: Any) -> Callable[[Callable[..., Any]], Verb]:
    return click.command(name, cls=Verb, **settings)
