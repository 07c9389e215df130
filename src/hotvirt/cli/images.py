"""images: what guests can be made from on this machine. Works on the home's files, so only where the home is."""

import asyncio
from pathlib import Path
from typing import Any

import click

from hotvirt.cli import tables
from hotvirt.cli.progress import Line
from hotvirt.cli.targets import home_option
from hotvirt.cli.verbs import Verbs
from hotvirt.home import paths

JUST_PULLED = 5.0
"""Seconds after a pull, or another use, in which a guest may be about to open an image."""


@click.group(cls=Verbs)
def images() -> None:
    """List, build and import disk images.

    \b
    Examples:
      hotvirt images list
      hotvirt images build hotvirt/debian:12
      hotvirt images import disk.vmdk --name web      then use local/web in a VM
      hotvirt images prune
    """


@images.command("list")
@tables.output_option
@home_option
def list_(*, output: str | None, home: str | None) -> None:
    """Show every image that a VM can name, and which field of the VM takes it.

    \b
    Example:
      hotvirt images list -o json
    """
    from msgspec import to_builtins

    from hotvirt.images import catalog

    entries = catalog.list_images(paths.here(home).images)
    if output:
        click.echo(tables.document(to_builtins(entries, enc_hook=str), output))
        return
    rows = [
        [
            entry.name,
            "yes" if entry.ready else "built when first used",
            tables.size(entry.virtual_size or None),
            tables.size(entry.size_on_disk or None),
            entry.use.split(" ")[0],
        ]
        for entry in entries
    ]
    click.echo(tables.render(["NAME", "HERE", "SIZE", "ON DISK", "USE IN A VM AS"], rows))


@images.command()
@click.argument("name")
@click.option("--refresh", is_flag=True, help="Build again from the newest packages.")
@home_option
def build(name: str, *, refresh: bool, home: str | None) -> None:
    """Build a built-in image now rather than when it is first used.

    \b
    Examples:
      hotvirt images build hotvirt/tiny
      hotvirt images build hotvirt/debian:12 --refresh
    """
    from hotvirt.images import catalog

    def work(line: Line) -> Any:
        return catalog.ensure(name, paths.here(home).images, line.say, refresh=refresh)

    files = _run(work)
    click.echo(f"{files.name} is in {(files.disk or files.kernel).parent}")


@images.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", metavar="NAME", help="Name it local/NAME (default: the file's name).")
@home_option
def import_(file: Path, *, name: str | None, home: str | None) -> None:
    """Take a disk image in: inspected, then converted if need be. A VM names it local/NAME.

    \b
    Examples:
      hotvirt images import fedora.qcow2
      hotvirt images import old-server.vmdk --name server
    """
    from hotvirt.images import catalog

    def work(line: Line) -> Any:
        return catalog.import_local(file, name or file.stem.lower(), paths.here(home).images, line.say)

    files = _run(work)
    click.echo(f"imported as {files.name} ({tables.size(files.virtual_size)})")


@images.command()
@tables.output_option
@home_option
def prune(*, output: str | None, home: str | None) -> None:
    """Remove pulled images that no guest has open. A VM that names one pulls it again.

    \b
    Example:
      hotvirt images prune
    """
    from msgspec import to_builtins

    from hotvirt.images import pulled

    removed = pulled.prune(paths.here(home).images, fresh=JUST_PULLED)
    if output:
        click.echo(tables.document(to_builtins(removed, enc_hook=str), output))
        return
    for image in removed:
        click.echo(f"removed {image.name} ({image.digest[:19]})")
    freed = sum(image.size_on_disk for image in removed)
    click.echo(f"{len(removed)} images removed, {tables.size(freed) if freed else '0'} freed")


def _run(work: Any) -> Any:
    from hotvirt.cli.errors import CliError
    from hotvirt.images.errors import ImageError

    async def run() -> Any:
        with Line() as line:
            return await work(line)

    try:
        return asyncio.run(run())
    except ImageError as error:
        raise CliError(str(error)) from error
