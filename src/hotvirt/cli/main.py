"""The `hotvirt` command: which subcommands there are, and how an error is shown.

A subcommand's module is imported when it is called, so that each starts as fast as what it needs; the texts in the
list of commands are therefore here. `main` shows what went wrong as one line and exits with 1 (2 for wrong usage).
"""

import importlib
import os
import sys

import click

# name -> (module below hotvirt.cli, attribute, one line for the list)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "up": ("up", "up", "Start the home: API, controllers and node on this machine."),
    "down": ("up", "down", "Stop the guests and the home."),
    "status": ("status", "status", "Show the home, what runs in it, and what each VM asked for and has."),
    "console": ("streams", "console", "Use a VM's serial console. Ctrl+] leaves."),
    "logs": ("logs", "logs", "Show what a VM's QEMU printed."),
    "vnc": ("streams", "vnc", "Offer a VM's display on a local port."),
    "start": ("lifecycle", "start", "Start a VM."),
    "stop": ("lifecycle", "stop", "Stop a VM."),
    "restart": ("lifecycle", "restart", "Restart a VM."),
    "pause": ("lifecycle", "pause", "Freeze a running VM's CPUs."),
    "unpause": ("lifecycle", "unpause", "Let a paused VM go on."),
    "set": ("resize", "set_", "Change a running VM's memory or CPUs, and watch it happen."),
    "addvolume": ("volumes", "addvolume", "Attach a volume to a VM while it runs."),
    "removevolume": ("volumes", "removevolume", "Detach a volume from a VM while it runs."),
    "guest": ("guest", "guest", "Ask a guest what it has: memory, CPUs, disks, uptime."),
    "backup": ("backup", "backup", "Save what the API holds to a file, while the home runs."),
    "restore": ("backup", "restore", "Make a home's API hold what a backup file does."),
    "images": ("images", "images", "List, build and import disk images."),
    "version": ("version", "version", "Show the versions of this command and of the API it talks to."),
    "completion": ("completion", "completion", "Print shell completion for bash, zsh or fish."),
}


class LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"hotvirt.cli.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            # click would compare with imported commands: with ours that would be all of them.
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS)
            raise click.UsageError(
                f"there is no command {args[0]!r}" + (f"; {' or '.join(near)}?" if near else ""), ctx
            )
        return super().resolve_command(ctx, args)


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(None, "--version", package_name="hotvirt", message="hotvirt %(version)s")
def hotvirt() -> None:
    """Virtual machines as Kubernetes objects, resized while they run.

    hotvirt speaks KubeVirt's API: kubectl works on what it serves, and these commands work on any cluster
    that serves it.

    \b
    Examples:
      hotvirt up --detach                start a home on this machine
      kubectl apply -f examples/vm.yaml  make a VM
      hotvirt set vm/web memory=2Gi      grow its memory while it runs
      hotvirt console vm/web             log in
      hotvirt down                       stop everything
    """


def main() -> None:
    """Entry point of `hotvirt` and, as `kubectl virt`, of the kubectl plugin."""
    name = "kubectl virt" if os.path.basename(sys.argv[0]) == "kubectl-virt" else "hotvirt"
    try:
        hotvirt.main(prog_name=name, standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # Whoever read our output has enough (`| head`). Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        from hotvirt.cli.errors import explain

        if (text := explain(error)) is None:
            raise
        click.echo(f"error: {text}", err=True)
        sys.exit(1)
