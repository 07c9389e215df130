"""`src:my-image,bootorder:1`: options that hold several named values, as virtctl's `create` takes them. Pure."""

import re
import secrets
import string
from collections.abc import Collection, Sequence
from typing import Any

import click

from hotvirt.api.quantity import QuantityError, parse

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LETTERS = "".join(c for c in string.ascii_lowercase + string.digits if c not in "aeiou013")


class Params:
    """The named values of one use of an option. Whatever is wrong is a usage error that names the option."""

    def __init__(self, option: str, text: str, known: Sequence[str]) -> None:
        self.option, self._values = option, dict[str, str]()
        for part in text.split(",") if text else ():
            name, colon, value = part.partition(":")
            if not colon:
                raise self.wrong(f"{part!r} has no colon; write NAME:VALUE[,NAME:VALUE...], with {', '.join(known)}")
            if name not in known:
                mend = f"; if that is an image, write src:{part}" if "/" in name and "src" in known else ""
                raise self.wrong(f"{name!r} is none of its parameters; it takes {', '.join(known)}{mend}")
            self._values[name] = value
        if not self._values:
            raise self.wrong(f"needs parameters; write NAME:VALUE[,NAME:VALUE...], with {', '.join(known)}")

    def wrong(self, why: str) -> click.UsageError:
        return click.BadParameter(why, param_hint=f"--{self.option}")

    def get(self, name: str) -> str:
        """Empty when it is not there."""
        return self._values.get(name, "")

    def need(self, name: str) -> str:
        if not self.get(name):
            raise self.wrong(f"needs {name}; add {name}:VALUE")
        return self.get(name)

    def choice(self, name: str, words: Collection[str], *, default: str) -> str:
        value = self.get(name).lower() or default
        if value not in words:
            raise self.wrong(f"{name}:{value} is not one of {', '.join(words)}")
        return value

    def boot_order(self) -> int | None:
        text = self.get("bootorder")
        if text and not (text.isascii() and text.isdigit() and int(text) > 0):
            raise self.wrong(f"bootorder:{text} is not a number from 1 up")
        return int(text) if text else None

    def size(self) -> str:
        """A quantity, as it was written; empty when it is not there."""
        if text := self.get("size"):
            check_quantity(self.option, text)
        return self.get("size")

    def label(self, name: str) -> str:
        """`name` as the name of a volume."""
        if not LABEL.fullmatch(name):
            raise self.wrong(f"{name!r} cannot name a volume; use at most 63 of a-z, 0-9 and -, as in name:data")
        return name

    def own(self, what: str) -> str:
        """`src`, which must be in the VM's own namespace."""
        namespace, name = self.prefixed("src")
        if namespace:
            raise self.wrong(f"a {what} is always of the VM's own namespace; write src:{name}")
        return name

    def prefixed(self, name: str) -> tuple[str, str]:
        """`prefix/name`."""
        return split_prefix(self.option, self.need(name))


def split_prefix(option: str, text: str) -> tuple[str, str]:
    prefix, slash, name = text.partition("/")
    if not slash:
        prefix, name = "", text
    if not name or "/" in name:
        raise click.BadParameter(f"{text!r} is not NAME or PREFIX/NAME", param_hint=f"--{option}")
    return prefix, name


def check_quantity(option: str, text: str) -> str:
    try:
        parse(text)
    except QuantityError as error:
        raise click.BadParameter(str(error), param_hint=f"--{option}") from error
    return text


def random_suffix() -> str:
    """Five characters that make up no word, as Kubernetes' generated names have."""
    return "".join(secrets.choice(_LETTERS) for _ in range(5))


def exclusive(ctx: click.Context, *options: str) -> None:
    """Usage error when more than one of the options was given."""
    given = [each for each in options if was_given(ctx, each)]
    if len(given) > 1:
        raise click.UsageError(f"--{given[0]} and --{given[1]} exclude each other; give one of them", ctx)


def was_given(ctx: click.Context, option: str) -> bool:
    source = ctx.get_parameter_source(option.replace("-", "_"))
    return source is click.core.ParameterSource.COMMANDLINE


def print_manifest(document: dict[str, Any]) -> None:
    """As YAML, texts of several lines as such."""
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    click.echo(yaml.dump(document, Dumper=Dumper, default_flow_style=False), nl=False)
