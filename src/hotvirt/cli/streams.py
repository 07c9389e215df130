"""console and vnc: a guest's bytes over a WebSocket, to this terminal or to a local port."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import click

from hotvirt.api.defaults import run_strategy
from hotvirt.cli.api import Api
from hotvirt.cli.errors import CliError
from hotvirt.cli.lifecycle import explain_if_off
from hotvirt.cli.targets import Target, connected, machine, subresource
from hotvirt.cli.verbs import Verb, verb
from hotvirt.cli.waiting import observe
from hotvirt.kube.client import Document
from hotvirt.kube.resources import VMIS, VMS

ADDRESS = ("127.0.0.1::{port}",)
VIEWERS = {"remote-viewer": ("vnc://127.0.0.1:{port}",), "vncviewer": ADDRESS, "gvncviewer": ADDRESS}
"""What is looked for when no type is named, and the words after it."""
TYPES = {
    "tiger": ("vncviewer", VIEWERS["vncviewer"]),
    "chicken": ("/Applications/Chicken.app/Contents/MacOS/Chicken", ("127.0.0.1:{port}",)),
    "real": ("vncviewer", ("127.0.0.1:{port}", "-WarnUnencrypted=0", "-Shared=0", "-ShareFiles=0")),
    "remote-viewer": ("remote-viewer", VIEWERS["remote-viewer"]),
}
"""virtctl's names. Real's program is called as Tiger's is, and would warn of a connection that leaves no machine."""
OVER = ("Succeeded", "Failed")


@verb()
@machine
@click.option(
    "--timeout", type=click.FloatRange(min=0), default=5.0, show_default=True, metavar="MINUTES",
    help="How long to wait for a VM that is starting.",
)  # fmt: skip
@click.option(
    "--linger", type=click.FloatRange(min=0), default=2.0, show_default=True, metavar="SECONDS",
    help="With piped input: how long the guest must be silent after its end.",
)  # fmt: skip
@connected
def console(api: Api, machine: Target, *, timeout: float, linger: float) -> None:
    """Use a VM's serial console. Ctrl+] leaves; the guest does not notice.

    \b
    Examples:
      hotvirt console vm/web
      hotvirt console web --timeout=1
      echo uptime | hotvirt console vm/web      send a line, show what comes back
    """
    from hotvirt.cli import terminal

    name = machine.name
    until_running(api, machine, timeout=timeout * 60)
    hint = " Press Ctrl+] or Ctrl+5 to exit console." if sys.stdin.isatty() else ""
    terminal.run(
        api.access, subresource(api, "virtualmachineinstances", name, "console"), linger=linger,
        connected=lambda: click.echo(f"Successfully connected to {name} console.{hint}", err=True),
    )  # fmt: skip


def until_running(api: Api, machine: Target, *, timeout: float) -> None:
    """Returns once the instance runs; says what is waited for. At once for what will not run by itself."""
    told = False
    for vmi in observe(api, VMIS, machine.name, timeout=timeout):
        if not vmi:
            _will_start(api, machine)
        phase = (vmi.get("status") or {}).get("phase") or "Pending"
        if phase == "Running":
            return
        if phase in OVER and not _starts_again(api, machine):
            raise CliError(f"{machine.name} is not running: its last run has {phase.lower()}; start it again")
        if not told:
            click.echo(f"Waiting for {machine.name} to run ({phase}) ...", err=True)
            told = True
    raise CliError(
        f"{machine.name} does not run after {timeout / 60:g} min; see why: kubectl describe vmi {machine.name}"
    )


def _will_start(api: Api, machine: Target) -> None:
    """Raises for a machine that has no instance and is not about to get one."""
    vm = api.find(VMS, machine.name, api.namespace) if machine.resource is not VMIS else None
    if vm is None:
        api.get(VMIS, machine.name, api.namespace)  # raises the server's own sentence
    elif not _is_to_run(vm):
        explain_if_off(api, machine)


def _starts_again(api: Api, machine: Target) -> bool:
    vm = api.find(VMS, machine.name, api.namespace)
    return vm is not None and _is_to_run(vm)


def _is_to_run(vm: Document) -> bool:
    if (vm.get("status") or {}).get("stateChangeRequests"):
        return True
    return run_strategy(vm) not in ("Halted", "Manual") and (vm.get("status") or {}).get("printableStatus") != "Stopped"


class Vnc(Verb):
    """`vnc NAME`, and `vnc screenshot NAME`."""

    @property
    def commands(self) -> dict[str, click.Command]:
        return {"screenshot": screenshot}

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: object
    ) -> click.Context:
        if "screenshot" in args:
            args.remove("screenshot")
            return screenshot.make_context("vnc screenshot", args, parent=parent, **extra)
        return super().make_context(info_name, args, parent=parent, **extra)


@click.command(cls=Vnc)
@machine
@click.option("--proxy-only", is_flag=True, help="Only offer the port (printed as JSON), for a viewer of your own.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Local port (default: a free one).")
@click.option("--address", default="127.0.0.1", show_default=True, help="With --proxy-only: where to listen.")
@click.option("--preserve-session", is_flag=True, help="Leave the display to whoever looks at it already.")
@click.option("--vnc-type", type=click.Choice(list(TYPES)), help="Which viewer (default: the first that is here).")
@click.option("--vnc-path", type=click.Path(path_type=Path), help="The viewer's program.")
@connected
def vnc(
    api: Api, machine: Target, *, proxy_only: bool, port: int, address: str, preserve_session: bool,
    vnc_type: str | None, vnc_path: Path | None,
) -> None:  # fmt: skip
    """Open a viewer on a VM's display, or offer the display on a local port.

    `hotvirt vnc screenshot NAME --file=FILE` saves what it shows.

    \b
    Examples:
      hotvirt vnc vm/web
      hotvirt vnc vm/web --proxy-only --port=5901
      hotvirt vnc screenshot vm/web --file=web.png
    """
    from hotvirt.cli import proxy

    viewer = [] if proxy_only else find_viewer(vnc_type, vnc_path)
    path = subresource(api, "virtualmachineinstances", machine.name, "vnc")
    if preserve_session:
        path += "?preserveSession=true"
    opened: list[subprocess.Popen[bytes]] = []

    def ready(ports: list[int]) -> None:
        if proxy_only:
            click.echo(json.dumps({"port": ports[0]}))
        else:
            opened.append(subprocess.Popen([word.format(port=ports[0]) for word in viewer]))

    proxy.run(
        api.access, [proxy.Forward(path=path, port=port)], address=address if proxy_only else "127.0.0.1",
        ready=ready, probe=not preserve_session, until=None if proxy_only else lambda: _viewed(opened[0]),
    )  # fmt: skip


def find_viewer(kind: str | None, program: Path | None) -> list[str]:
    """The command that opens a viewer; `{port}` stands for the local port."""
    if program is not None:
        if not program.exists():
            raise CliError(f"there is no viewer {program}; give the path of a VNC viewer, or use --proxy-only")
        return [str(program), *(TYPES[kind][1] if kind else VIEWERS.get(program.name, ADDRESS))]
    wanted = dict([TYPES[kind]]) if kind else VIEWERS
    for name, words in wanted.items():
        if shutil.which(name):
            return [name, *words]
    raise CliError(f"no VNC viewer found ({', '.join(wanted)}); use --proxy-only and point yours at the port")


def _viewed(viewer: "subprocess.Popen[bytes]") -> None:
    if code := viewer.wait():
        raise CliError(f"the viewer ended with {code}; try another viewer, or --proxy-only")


@verb()
@machine
@click.option("-f", "--file", required=True, metavar="FILE", help="Where to write the PNG; - is standard output.")
@click.option("-m", "--move-cursor", is_flag=True, help="Move the cursor first, which wakes a dark screen.")
@connected
def screenshot(api: Api, machine: Target, *, file: str, move_cursor: bool) -> None:
    """Save what a VM's display shows, as PNG.

    \b
    Examples:
      hotvirt vnc screenshot vm/web --file=web.png
      hotvirt vnc screenshot vm/web --file=- | display
    """
    path = subresource(api, "virtualmachineinstances", machine.name, "vnc/screenshot")
    parts: list[bytes] = []
    api.download(path + ("?moveCursor=true" if move_cursor else ""), parts.append)
    if file == "-":
        sys.stdout.buffer.write(b"".join(parts))
        return
    try:
        Path(file).write_bytes(b"".join(parts))
    except OSError as error:
        raise CliError(f"cannot write {file}: {error.strerror}; name another file") from error
