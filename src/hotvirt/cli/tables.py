"""Plain tables as kubectl prints them, and the other forms of the same rows. Pure."""

from collections.abc import Sequence
from typing import Any

import click

MIB, GIB = 1 << 20, 1 << 30


def render(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, three spaces between, nothing after the last."""
    lines = [list(header), *(list(map(str, row)) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Name and value, a line each."""
    width = max((len(name) for name, _ in pairs), default=0) + 1
    return "\n".join(f"{name + ':':<{width}}  {value}" for name, value in pairs)


def document(value: Any, form: str) -> str:
    """`value` as json or yaml."""
    if form == "json":
        import json

        return json.dumps(value, indent=2)
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False)).rstrip()


output_option = click.option(
    "-o", "--output", type=click.Choice(["json", "yaml"]), help="Print the data instead of a table."
)


def size(count: int | None) -> str:
    """Bytes for a person: 1.5 GiB, 512 MiB. `-` for what is not known."""
    if count is None:
        return "-"
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (1 << 10, "KiB")):
        if count >= unit:
            return f"{count / unit:.2f}".rstrip("0").rstrip(".") + f" {name}"
    return f"{count} B"


def duration(seconds: float) -> str:
    """As kubectl's AGE: 12s, 5m, 3h, 4d."""
    whole = int(seconds)
    for unit, name in ((86400, "d"), (3600, "h"), (60, "m")):
        if whole >= 2 * unit:
            return f"{whole // unit}{name}"
    return f"{whole}s"
