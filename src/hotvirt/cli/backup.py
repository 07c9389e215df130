"""backup and restore: what the API holds, as a file."""

import os
from pathlib import Path

import click

from hotvirt.cli.api import Api
from hotvirt.cli.errors import CliError
from hotvirt.cli.targets import connected, home_option
from hotvirt.cli.verbs import verb
from hotvirt.home import paths


@verb()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@connected
def backup(api: Api, file: Path) -> None:
    """Save what the API holds to FILE, while the home runs: every object, as it is between two writes.

    Not in it are disks of VMs, what their firmware and TPM remember, images, and the home's keys. Secrets are: FILE is
    made for its owner alone.

    \b
    Examples:
      hotvirt backup monday.db
      hotvirt backup --home /srv/vms monday.db
    """
    partial = file.with_name(f".{file.name}.partial")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            size = api.download("/backup", out.write)
            out.flush()
            os.fsync(out.fileno())
        _check(partial)
        partial.replace(file)
    except OSError as error:
        raise CliError(f"cannot write {error.filename or file}: {error.strerror}; name another file") from error
    finally:
        partial.unlink(missing_ok=True)
    click.echo(f"saved to {file} ({size / 1024 / 1024:.1f} MiB); to go back to it: hotvirt restore {file}")


@verb()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@home_option
def restore(*, file: Path, home: str | None) -> None:
    """Make a home's API hold what FILE, of 'hotvirt backup', does. A home that runs is stopped for a moment and started
    again in the background; its guests go on, except those of VMs that FILE knows nothing of. What was there before
    is kept beside it.

    \b
    Examples:
      hotvirt restore monday.db
      hotvirt restore --home /srv/vms monday.db
    """
    from hotvirt.home import restore as swapping

    place = paths.here(home)
    kept = swapping.restore(place, file, say=click.echo)
    if kept is not None:
        click.echo(f"what was there before is in {kept}; to undo: hotvirt restore {kept}")


def _check(file: Path) -> None:
    """That it can be restored is better known today than on the day it is needed."""
    from hotvirt.server.database import StateFileError, check_file

    try:
        check_file(file)
    except StateFileError as error:
        raise CliError(f"what the API sent is no backup: {error}") from error
