"""up and down: the home's life. Thin; `hotvirt.home` does the work."""

import time
from collections.abc import Mapping
from pathlib import Path

import click

from hotvirt.cli.errors import CliError
from hotvirt.cli.targets import home_option
from hotvirt.cli.verbs import verb
from hotvirt.home import paths
from hotvirt.kube.kubeconfig import load


@verb()
@click.option("-d", "--detach", is_flag=True, help="Return when the API answers; the home goes on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=None, help="API's port (default: as last time, or a free one)."
)
@home_option
@click.option("-v", "--verbose", is_flag=True, help="Log what is done, not only what happened.")
@click.option("--log-file", type=click.Path(path_type=Path), hidden=True)
@click.option("--notify-fd", type=int, hidden=True)
def up(
    *, detach: bool, port: int | None, home: str | None, verbose: bool, log_file: Path | None, notify_fd: int | None
) -> None:
    """Start the home: API, controllers and node on this machine. Guests that an earlier home left are taken over.

    \b
    Examples:
      hotvirt up                         in this terminal; Ctrl+C stops it, guests go on
      hotvirt up --detach                in the background
      hotvirt up --home /srv/vms -d      with its data elsewhere
    """
    place = paths.here(home)
    if not detach:
        from hotvirt.home import embedded

        embedded.run(place, port=port, log_file=log_file, notify_fd=notify_fd, verbose=verbose)
        return
    from hotvirt.home import detach as background
    from hotvirt.home import lock

    running = lock.holder(place.lock)
    if running is not None and running.url:
        click.echo(f"A home runs already: {running.url} (process {running.pid})")
        from hotvirt.home import contexts

        contexts.write_kubeconfigs(place, load(place.kubeconfig, contexts.NAME))  # a person may have chosen another
    else:
        began = time.monotonic()
        options = [*(["--port", str(port)] if port is not None else []), *(["--verbose"] if verbose else [])]
        url = background.start(place, options, say=lambda step: _step(began, step))
        click.echo(f"{time.monotonic() - began:6.1f} s  API answers at {url}")
    _tell_context(place)


@verb()
@click.option(
    "--keep-guests", is_flag=True, help="Stop only the home; guests run on, and the next 'up' takes them over."
)
@click.option(
    "--grace", type=click.FloatRange(min=0), metavar="SECONDS",
    help="How long each guest may take to shut down before it is powered off; 0: at once. (default: 60, or what its "
    "VM's terminationGracePeriodSeconds gives it if that is more).",
)  # fmt: skip
@home_option
def down(*, keep_guests: bool, grace: float | None, home: str | None) -> None:
    """Stop the home, then shut its guests down, by power button and guest agent. Their VMs stay defined, and start
    again with the next 'up' as their run strategies say. Also cleans up after a home that died.

    \b
    Examples:
      hotvirt down
      hotvirt down --grace=0          guests are switched off
      hotvirt down --keep-guests      for an upgrade
    """
    from hotvirt.cli.progress import Line
    from hotvirt.home import down as stopping

    place = paths.here(home)
    began = time.monotonic()
    with Line() as line:

        def say(step: str) -> None:
            line.clear()
            _step(began, step)

        def waits(until: Mapping[str, float]) -> None:
            line.say(waiting({name: deadline - began for name, deadline in until.items()}))

        try:
            is_down = stopping.down(place, keep_guests=keep_guests, grace=grace, say=say, waits=waits)
        except KeyboardInterrupt:
            say(INTERRUPTED)
            raise click.Abort from None
    if not is_down:
        raise CliError("something is still running, see above; run it again, or look with: ps -ef | grep qemu")
    if keep_guests:
        return  # for a moment
    from hotvirt.home import contexts

    if said := contexts.leave_context(place):
        _step(began, said)


INTERRUPTED = (
    "no longer waiting; guests that were asked go on shutting down. "
    "To wait for them again: hotvirt down; to switch them off now: hotvirt down --grace=0"
)
NAMED = 4


def waiting(until: Mapping[str, float]) -> str:
    """Who is waited for, and until when, on the clock that starts each line. The same words while nothing changes."""
    names = sorted(until)
    named = names if len(names) <= NAMED + 1 else [*names[:NAMED], f"{len(names) - NAMED} others"]
    return f"waiting for {', '.join(named)}, until {max(until.values()):.0f} s at most (Ctrl+C stops waiting)"


def _step(began: float, text: str) -> None:
    click.echo(f"{time.monotonic() - began:6.1f} s  {text}")


def _tell_context(place: paths.Paths) -> None:
    if place.is_default:
        click.echo("kubectl's context is hotvirt; try: kubectl get vm")
    else:
        click.echo(f"for kubectl: export KUBECONFIG={place.kubeconfig}")
