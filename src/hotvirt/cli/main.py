"""The `hotvirt` command: which subcommands there are, and how an error is shown.

A subcommand's module is imported when it is called, so that each starts as fast as what it needs; the texts in the
list of commands are therefore here. `main` shows what went wrong as one line and exits with 1 (2 for wrong usage).
"""

import importlib
import os
import sys
from typing import TYPE_CHECKING

import click

from hotvirt.cli.connection import connection_options
from hotvirt.cli.verbs import without_values

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# section -> name -> (module below hotvirt.cli, attribute, one line for the list)
SECTIONS: dict[str, dict[str, tuple[str, str, str]]] = {
    "The home": {
        "up": ("up", "up", "Start the home: API, controllers and node on this machine."),
        "down": ("up", "down", "Stop the guests and the home."),
        "status": ("status", "status", "Show the home, what runs in it, and what each VM asked for and has."),
        "images": ("images", "images", "List, build and import disk images."),
        "backup": ("backup", "backup", "Save what the API holds to a file, while the home runs."),
        "restore": ("backup", "restore", "Make a home's API hold what a backup file does."),
    },
    "A VM's life": {
        "create": ("create", "create", "Print the manifest of a VM, an instancetype, a preference or a clone."),
        "start": ("lifecycle", "start", "Start a VM."),
        "stop": ("lifecycle", "stop", "Stop a VM."),
        "restart": ("lifecycle", "restart", "Restart a VM."),
        "pause": ("lifecycle", "pause", "Freeze a running VM's CPUs."),
        "unpause": ("lifecycle", "unpause", "Let a paused VM go on."),
        "soft-reboot": ("lifecycle", "soft_reboot", "Ask a guest to reboot itself."),
        "reset": ("lifecycle", "reset", "Press a guest's reset button."),
        "migrate": ("migration", "migrate", "Move a running VM to another node."),
        "migrate-cancel": ("migration", "migrate_cancel", "Call off a migration."),
        "evacuate-cancel": ("migration", "evacuate_cancel", "Let a VM stay that was to leave its node."),
    },
    "Changing a running VM": {
        "why": ("why", "why", "Show what a live change of a VM rests on, and what mends what does not hold."),
        "set": ("resize", "set_", "Change a running VM's memory or CPUs, and watch it happen."),
        "addvolume": ("volumes", "addvolume", "Attach a volume to a VM while it runs."),
        "removevolume": ("volumes", "removevolume", "Detach a volume from a VM while it runs."),
        "credentials": ("credentials", "credentials", "Give a VM's guest SSH keys and passwords."),
    },
    "Reaching a guest": {
        "console": ("streams", "console", "Use a VM's serial console. Ctrl+] leaves."),
        "vnc": ("streams", "vnc", "Open a viewer on a VM's display, offer it on a port, or save a picture of it."),
        "ssh": ("ssh", "ssh", "Log in to a guest with this machine's ssh."),
        "scp": ("ssh", "scp", "Copy files to or from a guest with this machine's scp."),
        "port-forward": ("portforward", "port_forward", "Offer a guest's ports on this machine."),
        "expose": ("expose", "expose", "Make a Service that leads to a VM."),
    },
    "Looking inside": {
        "guest": ("guest", "guest", "Ask a guest what it has: memory, CPUs, disks, uptime."),
        "guestosinfo": ("guestdata", "guestosinfo", "Show what a guest's agent tells of its system."),
        "userlist": ("guestdata", "userlist", "Show who is logged in to a guest."),
        "fslist": ("guestdata", "fslist", "Show a guest's mounted file systems."),
        "logs": ("logs", "logs", "Show what a VM's QEMU printed."),
        "expand": ("guestdata", "expand", "Show a VM with its instancetype and preference written out."),
        "objectgraph": ("guestdata", "objectgraph", "Show what a VM depends on."),
        "permitted-devices": ("guestdata", "permitted_devices", "Show which host devices VMs may have."),
    },
    "Data in and out": {
        "image-upload": ("imageupload", "image_upload", "Upload a disk image into a DataVolume or claim."),
        "vmexport": ("vmexport", "vmexport", "Download the disks of a stopped VM, a snapshot or a claim."),
        "export": ("export", "export", "Write a VM with its disks into an OVA, for other programs to import."),
        "memory-dump": ("memorydump", "memory_dump", "Write a guest's memory to a claim, fetch it, part with it."),
    },
    "This command": {
        "options": ("options", "options", "Show the options that every command has."),
        "version": ("version", "version", "Show the versions of this command and of the API it talks to."),
        "completion": ("completion", "completion", "Print shell completion for bash, zsh or fish."),
    },
}
COMMANDS = {name: found for section in SECTIONS.values() for name, found in section.items()}

NOT_HERE = {
    "guestfs": "stop the VM, then use guestfish on the file in its claim's volume; see: kubectl get pv -o yaml",
    "usbredir": "USB devices are not passed to guests yet; a disk's content goes in with: hotvirt addvolume",
    "adm": "the home's log level is chosen when it starts: hotvirt up --verbose",
    "template": "a manifest with a few settings changed comes from: hotvirt create vm",
}
"""What virtctl has beside these, and what there is instead."""

_SEE = "kubectl get vm; or, with what each asked for and has: hotvirt status"
_REMOVE = "kubectl delete vm NAME"
TYPED: dict[str, str] = {
    **dict.fromkeys(("get", "list", "ls", "ps", "vms"), _SEE),
    **dict.fromkeys(("delete", "remove", "rm", "destroy"), _REMOVE),
    **dict.fromkeys(("run", "launch"), "hotvirt create vm --name=NAME ... | kubectl apply -f -"),
    **dict.fromkeys(("shell", "login", "exec"), "hotvirt ssh USER@vm/NAME, or hotvirt console vm/NAME"),
    **dict.fromkeys(("shutdown", "poweroff"), "hotvirt stop NAME"),
    "apply": "kubectl apply -f FILE",
    "describe": "kubectl describe vm NAME",
    "edit": "kubectl edit vm NAME; memory and CPUs also by: hotvirt set vm/NAME memory=2Gi cpu=2",
    "patch": "kubectl patch vm NAME; memory and CPUs also by: hotvirt set vm/NAME memory=2Gi cpu=2",
    "resize": "hotvirt set vm/NAME memory=2Gi cpu=2",
    "scale": "kubectl scale vmpool NAME --replicas=3; one VM's size by: hotvirt set vm/NAME memory=2Gi cpu=2",
    "snapshot": "kubectl apply of a VirtualMachineSnapshot; see docs/how-to/storage.md",
    "clone": "hotvirt create clone --source-name=NAME --target-name=NEW | kubectl create -f -",
    "import": "hotvirt images import FILE --name NAME, or hotvirt image-upload",
    "reboot": "hotvirt soft-reboot NAME, or with a new QEMU: hotvirt restart NAME",
    "suspend": "hotvirt pause NAME",
    "resume": "hotvirt unpause NAME",
    "init": "hotvirt up --detach",
    "install": "hotvirt up --detach makes a home on this machine; a cluster is not served yet",
    "uninstall": "hotvirt down; what is left then is told in docs/how-to/home.md",
}
"""What those type who come from kubectl, docker or vSphere, and what does it."""


class LazyGroup(click.Group):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(without_values(self.params, args, ctx)))

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"hotvirt.cli.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        width = max(map(len, COMMANDS))
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), line) for name, (_, _, line) in commands.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] == "help":
            args = [*args[1:2], "--help"] if args[1:2] else ["--help"]
            if args == ["--help"]:
                click.echo(ctx.get_help())
                ctx.exit()
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(_unknown(args[0]), ctx)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        """click would import every command for its help."""
        from click.shell_completion import CompletionItem

        if incomplete.startswith("-"):
            return super(click.Group, self).shell_complete(ctx, incomplete)
        return [
            CompletionItem(name, help=line) for name, (_, _, line) in COMMANDS.items() if name.startswith(incomplete)
        ]


def _unknown(word: str) -> str:
    if instead := NOT_HERE.get(word):
        return f"there is no {word!r} here: {instead}"
    if does := TYPED.get(word):
        return f"there is no command {word!r}; use: {does}"
    # click would compare with imported commands: with ours that would be all of them.
    import difflib

    near = difflib.get_close_matches(word, COMMANDS)
    return f"there is no command {word!r}" + (
        f"; {' or '.join(near)}?" if near else f"; there are: {', '.join(COMMANDS)}"
    )


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(None, "--version", package_name="hotvirt", message="hotvirt %(version)s")
@connection_options
def hotvirt(**_: object) -> None:
    """Virtual machines as Kubernetes objects, resized while they run.

    hotvirt speaks KubeVirt's API: kubectl works on what it serves, and these commands work on any cluster
    that serves it. They take virtctl's flags, and print what it prints.

    \b
    Examples:
      hotvirt up --detach                start a home on this machine
      kubectl apply -f examples/vm.yaml  make a VM
      hotvirt set vm/web memory=2Gi      grow its memory while it runs
      hotvirt console vm/web             log in
      hotvirt ssh root@vm/web            ... over the network
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
