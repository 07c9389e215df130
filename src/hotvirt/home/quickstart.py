"""The main job, shown on a real guest: made, grown and shrunk while it runs, with what the guest itself reports.

Does nothing that a person could not type: every step is a `kubectl` or a `hotvirt` command, printed as it is run, in
order. Run again, it begins with a fresh VM. The home and the VM are left running.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from hotvirt.home import kubectl, paths
from hotvirt.home.errors import HomeError
from hotvirt.home.paths import Paths
from hotvirt.home.quickstart_table import GuestFacts, Row, render

EXAMPLES = Path(__file__).parents[3] / "examples"
VM, CLAIM = "web", "data"
BOOT, CHANGE = 180, 120  # seconds a step may take on a slow machine without KVM


class StepFailed(Exception):
    """A command of the quickstart did not do what it should. The text is for a person."""


class Commands(Struct, frozen=True):
    """Where the two commands are, and the environment in which both reach this home."""

    kubectl: Path
    hotvirt: Path
    environment: dict[str, str]
    place: Paths

    def run(self, program: Path, *arguments: str, quiet: bool = False, check: bool = True) -> str:
        """Its output. Prints the command; StepFailed with its complaint when it fails."""
        if not quiet:
            print(f"  $ {program.name} {shlex.join(arguments)}", flush=True)
        done = subprocess.run(
            [str(program), *arguments], env=self.environment, capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if check and done.returncode:
            complaint = (done.stderr or done.stdout).strip()
            raise StepFailed(f"{program.name} {shlex.join(arguments)}\n{complaint}")
        return done.stdout

    def show(self, program: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        """Like `run`, but what it prints goes to the person as it comes."""
        print(f"  $ {program.name} {shlex.join(arguments)}", flush=True)
        if subprocess.run([str(program), *arguments], env=environment or self.environment, check=False).returncode:
            raise StepFailed(f"{program.name} {shlex.join(arguments)} failed, see above")

    def patch(self, domain: dict[str, Any]) -> None:
        change = json.dumps({"spec": {"template": {"spec": {"domain": domain}}}})
        self.run(self.kubectl, "patch", "vm", VM, "--type=merge", "-p", change)

    def wait(self, target: str, condition: str, *, seconds: int) -> None:
        self.run(self.kubectl, "wait", target, f"--for={condition}", f"--timeout={seconds}s", quiet=True)

    def facts(self) -> GuestFacts:
        asked = json.loads(self.run(self.hotvirt, "guest", f"vm/{VM}", "-o", "json", quiet=True))
        return GuestFacts(
            memory=asked["memTotalBytes"], cpus=asked["onlineCPUs"], boot=asked["bootID"],
            disks=tuple((disk["name"], disk["sizeBytes"]) for disk in asked["blockDevices"]),
        )  # fmt: skip


def main() -> int:
    place = paths.here()
    try:
        commands = find_commands(place)
        rows, facts = show(commands)
    except HomeError as error:
        print(f"quickstart: {error}", file=sys.stderr)
        return 1
    except StepFailed as error:
        print(f"\nquickstart: this step failed: {error}", file=sys.stderr)
        explain(commands)
        return 1
    print(f"\n{render(rows)}\n")
    print(f"The guest was never restarted: it is still in boot {facts.boot}.\n")
    print(next_commands(commands, searched=os.environ.get("PATH", "")))
    return 0


def find_commands(place: Paths) -> Commands:
    environment = {**os.environ, "KUBECONFIG": str(place.kubeconfig)}
    if not place.is_default:
        environment["HOTVIRT_HOME"] = str(place.state)
    return Commands(kubectl.find(), Path(sys.executable).parent / "hotvirt", environment, place)


def show(commands: Commands) -> tuple[list[Row], GuestFacts]:
    """Runs the whole way; the rows of the closing table and the guest's last word."""
    say("Starting the home")
    # In the person's own environment: it adds a context to the kubeconfig that their kubectl reads.
    commands.show(commands.hotvirt, "up", "--detach", environment=os.environ)
    say("Building the small test guest, unless it is here already")
    commands.show(commands.hotvirt, "images", "build", "hotvirt/tiny")
    remove_earlier(commands)
    rows: list[Row] = []

    def reached(step: str, began: float, *, before: GuestFacts | None = None, after: GuestFacts | None = None) -> None:
        rows.append(Row(step, time.monotonic() - began, before, after))
        print(f"    {rows[-1].seconds:5.2f} s  {step}", flush=True)

    say("Making a VM")
    began = time.monotonic()
    commands.run(commands.kubectl, "apply", "-f", str(EXAMPLES / "vm.yaml"))
    reached("VM created", began)
    commands.wait(f"vm/{VM}", "jsonpath={.status.printableStatus}=Running", seconds=BOOT)
    reached("running", began)
    commands.wait(f"vm/{VM}", "condition=AgentConnected", seconds=BOOT)
    first = last = commands.facts()
    reached("guest agent answered", began, after=first)

    def change(what: str, do: Callable[[], None], *conditions: str) -> None:
        nonlocal last
        say(what)
        began = time.monotonic()
        do()
        for condition in conditions:
            commands.wait(f"vmi/{VM}", condition, seconds=CHANGE)
        now = commands.facts()
        reached(what, began, before=last, after=now)
        last = now

    memory, sockets = "jsonpath={.status.memory.guestCurrent}=", "jsonpath={.status.currentCPUTopology.sockets}="
    change("memory 1Gi to 2Gi", lambda: commands.patch({"memory": {"guest": "2Gi"}}), memory + "2Gi")
    change("CPUs 1 to 2", lambda: commands.patch({"cpu": {"sockets": 2}}), sockets + "2")
    ready = f'jsonpath={{.status.volumeStatus[?(@.name=="{CLAIM}")].phase}}=Ready'
    change("disk added", lambda: add_disk(commands), ready)
    change("memory back to 1Gi", lambda: commands.patch({"memory": {"guest": "1Gi"}}), memory + "1Gi")
    change("CPUs back to 1", lambda: commands.patch({"cpu": {"sockets": 1}}), sockets + "1")
    if last.boot != first.boot:
        raise StepFailed(f"the guest was restarted meanwhile: boot {first.boot} became {last.boot}")
    return rows, last


def remove_earlier(commands: Commands) -> None:
    """What an earlier run left, so that this one begins with a new VM."""
    for kind, name in (("vm", VM), ("pvc", CLAIM)):
        if commands.run(commands.kubectl, "get", kind, name, "--ignore-not-found", "-o", "name", quiet=True):
            say(f"Removing {kind} {name} of an earlier run")
            commands.run(commands.kubectl, "delete", kind, name, "--timeout=90s")


def add_disk(commands: Commands) -> None:
    commands.run(commands.kubectl, "apply", "-f", str(EXAMPLES / "claim.yaml"))
    commands.run(commands.hotvirt, "addvolume", VM, f"--volume-name={CLAIM}", "--persist")


def explain(commands: Commands) -> None:
    """What the objects say about a failed step."""
    said = commands.run(commands.kubectl, "get", "vm,vmi,pods,events", quiet=True, check=False)
    if said:
        print(f"\n{said}", file=sys.stderr)
    print(f"The home's log: {commands.place.log}", file=sys.stderr)


def next_commands(commands: Commands, *, searched: str) -> str:
    """The three commands a newcomer would type next, as they work at this prompt."""

    def written(program: Path) -> str:
        if str(program.parent) in searched.split(os.pathsep):
            return program.name
        return os.path.relpath(program) if program.is_relative_to(Path.cwd()) else str(program)

    place = commands.place
    export = [] if place.is_default else [("", f"export HOTVIRT_HOME={place.state} KUBECONFIG={place.kubeconfig}")]
    hotvirt, lines = written(commands.hotvirt), ["The home is running. Next:"]
    offers: Sequence[tuple[str, str]] = [
        *export,
        ("see the VMs", f"{written(commands.kubectl)} get vm"),
        ("log in (Ctrl+] leaves)", f"{hotvirt} console vm/{VM}"),
        ("stop everything", f"{hotvirt} down"),
    ]
    width = max(len(command) for _, command in offers)
    return "\n".join(
        lines + [f"  {command:<{width}}   {f'# {what}' if what else ''}".rstrip() for what, command in offers]
    )


def say(text: str) -> None:
    print(f"\n{text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
