"""What every command has: flags as Go programs write them, and nothing loaded before it is needed. Pure."""

from collections.abc import Callable, Iterator
from typing import Any

import click

TRUE = ("1", "t", "T", "true", "TRUE", "True")
FALSE = ("0", "f", "F", "false", "FALSE", "False")


class Verb(click.Command):
    """A command whose flags may also be written with a value, as scripts for virtctl do: --force=true."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(self._without_values(args, ctx)))

    def _without_values(self, args: list[str], ctx: click.Context) -> Iterator[str]:
        flags = {o: p for p in self.params if isinstance(p, click.Option) and p.is_flag for o in p.opts}
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
