"""console and vnc: a guest's bytes over a WebSocket, to this terminal or to a local port."""

import json
import shutil
import subprocess
import sys

import click

from hotvirt.cli.api import Api
from hotvirt.cli.errors import CliError
from hotvirt.cli.lifecycle import Machine
from hotvirt.cli.targets import connected, machine, subresource

VIEWERS = {
    "remote-viewer": "vnc://127.0.0.1:{port}",
    "vncviewer": "127.0.0.1::{port}",
    "gvncviewer": "127.0.0.1::{port}",
}


@click.command()
@machine
@click.option(
    "--linger", type=click.FloatRange(min=0), default=2.0, show_default=True, metavar="SECONDS",
    help="With piped input: how long the guest must be silent after its end.",
)  # fmt: skip
@connected
def console(api: Api, machine: Machine, *, linger: float) -> None:
    """Use a VM's serial console. Ctrl+] leaves; the guest does not notice.

    \b
    Examples:
      hotvirt console vm/web
      echo uptime | hotvirt console vm/web      send a line, show what comes back
    """
    from hotvirt.cli import terminal

    name = machine[1]
    if sys.stdin.isatty():
        click.echo(f"Connected to {name}: Enter shows the prompt, Ctrl+] leaves.", err=True)
    terminal.run(api.access, subresource(api, "virtualmachineinstances", name, "console"), linger=linger)


@click.command()
@machine
@click.option("--proxy-only", is_flag=True, help="Only offer the port (printed as JSON), for a viewer of your own.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Local port (default: a free one).")
@connected
def vnc(api: Api, machine: Machine, *, proxy_only: bool, port: int) -> None:
    """Offer a VM's display on 127.0.0.1, and open a viewer on it.

    \b
    Examples:
      hotvirt vnc vm/web
      hotvirt vnc vm/web --proxy-only --port=5901
    """
    from hotvirt.cli import proxy

    viewer = next((name for name in VIEWERS if shutil.which(name)), None)
    if not proxy_only and viewer is None:
        raise CliError(f"no VNC viewer found ({', '.join(VIEWERS)}); use --proxy-only and point yours at the port")

    def ready(number: int) -> None:
        if proxy_only or viewer is None:
            click.echo(json.dumps({"port": number}))
        else:
            subprocess.Popen([viewer, VIEWERS[viewer].format(port=number)], start_new_session=True)

    path = subresource(api, "virtualmachineinstances", machine[1], "vnc")
    proxy.run(api.access, path, port=port, ready=ready)
