"""`hotvirt set`: asks for a VM's new size, and shows how the guest comes to have it.

Its stages, each with the seconds until then: `checked` (nothing stands in the way), `asked` (the VM says so), `QEMU`
(the machine was told), `guest` (it has it), `verified` (it says so itself). `goal` and `progress` decide, from the
objects alone; the command patches, watches and prints.
"""

import sys
import time
from collections.abc import Iterator

import click
from msgspec import Struct

from hotvirt.api.defaults import whole_blocks
from hotvirt.api.quantity import parse_bytes
from hotvirt.cli import guest, tables, why
from hotvirt.cli.api import CONTENT_TYPES, Api
from hotvirt.cli.errors import CliError
from hotvirt.cli.sizepatch import patch_for, says
from hotvirt.cli.targets import Target, connected, one_machine, only_vm
from hotvirt.cli.verbs import verb
from hotvirt.kube.client import Document
from hotvirt.kube.errors import ApiError
from hotvirt.kube.resources import VMIS, VMS

GLANCE = 1.0  # how often the VM is looked at beside the watch of its instance, for a refusal that only it carries


class Goal(Struct, frozen=True, kw_only=True):
    """What is asked for; None is not asked."""

    memory: int | None = None
    sockets: int | None = None


class Progress(Struct, frozen=True):
    """`failed` is why it will not come about by itself; empty while it may."""

    text: str
    done: bool = False
    failed: str = ""
    stage: str = "asked"


@verb("set")
@one_machine
@click.argument("changes", nargs=-1, required=True, metavar="memory=SIZE|cpu=COUNT...")
@click.option("--timeout", type=click.FloatRange(min=0), default=120.0, show_default=True, metavar="SECONDS")
@click.option("--no-wait", is_flag=True, help="Return when the change is asked for.")
@click.option("--explain", is_flag=True, help="Only show what the change rests on, as `hotvirt why` does.")
@click.option("--dry-run", is_flag=True, help="Check, and let the API check; change nothing.")
@click.option("--anyway", is_flag=True, help="Ask for it even where it would not work now: it may at the next start.")
@connected
def set_(
    api: Api, machine: Target, changes: tuple[str, ...], *, timeout: float, no_wait: bool, explain: bool, dry_run: bool,
    anyway: bool,
) -> None:  # fmt: skip
    """Change a VM's memory or CPUs. A running guest gets them without a restart where it can.

    cpu counts what the guest sees: sockets x cores x threads. What the change rests on is checked first; where
    something stands in the way it is shown, nothing is changed, and the exit code is 3.

    \b
    Examples:
      hotvirt set vm/web memory=2Gi
      hotvirt set vm/web memory=1Gi cpu=2
      hotvirt set vm/web memory=8Gi --explain
    """
    name = only_vm(machine, "be set")
    vm = api.get(VMS, name, api.namespace)
    wanted = goal(vm, changes)
    began = time.monotonic()

    def say(stage: str, text: str) -> None:
        click.echo(f"{time.monotonic() - began:6.1f} s  {stage:<8}  {text}")

    report = why.ask(api, name, changes)
    if explain or not (report["possible"] or anyway):
        _explain(report, quiet=not explain)
    findings = [each for change in report["changes"] for each in change["findings"]]
    say("checked", f"{len(findings)} facts{'' if report['possible'] else ', not all of which hold'}")
    path = VMS.path(api.namespace, name)
    before = told_before(vm, api.find(VMIS, name, api.namespace), wanted)
    api.request(
        "PATCH",
        f"{path}?dryRun=All" if dry_run else path,
        body=patch_for(vm, wanted.memory, wanted.sockets),
        content_type=CONTENT_TYPES["merge"],
    )
    if dry_run or no_wait:
        say("asked", f"vm/{name} {'would be' if dry_run else 'is'} asked for {' '.join(changes)}")
        return
    last = Progress("")
    for now in _follow(api, name, wanted, before, timeout=timeout):
        say(now.stage, now.text)
        last = now
    if last.failed:
        raise CliError(last.failed)
    if not last.done:
        raise CliError(f"not complete after {timeout:g} s: {last.text}; it goes on; see: kubectl describe vmi {name}")
    if said := _guests_word(api, name):
        say("verified", said)


def _explain(report: Document, *, quiet: bool) -> None:
    """Ends the command."""
    click.echo(why.show(report, colour=why.is_terminal(), quiet=quiet))
    if report["possible"]:
        sys.exit(0)
    if quiet:
        click.echo("\nnothing was changed; to ask for it all the same: --anyway")
    sys.exit(why.WOULD_NOT)


def goal(vm: Document, changes: tuple[str, ...]) -> Goal:
    """Reads `memory=2Gi cpu=2`; CliError names what cannot be meant."""
    memory = sockets = None
    for change in changes:
        key, _, value = change.partition("=")
        if key == "memory":
            memory = _memory(value)
        elif key in ("cpu", "cpus"):
            sockets = _sockets(vm, value)
        else:
            raise CliError(f"cannot set {change!r}; write memory=SIZE (such as memory=2Gi) or cpu=COUNT")
    return Goal(memory=memory, sockets=sockets)


def told_before(vm: Document, vmi: Document | None, wanted: Goal) -> frozenset[str]:
    """What conditions say of edits before this one. They go on saying so for a moment, or for as long as such an edit
    waits. Who asks for the same again hears of it."""
    if says(vm, patch_for(vm, wanted.memory, wanted.sockets)):
        return frozenset()
    found = [_condition(vm, "RestartRequired", "True")]
    found += [_condition(vmi, kind, "False") for kind in ("HotMemoryChange", "HotVCPUChange") if vmi is not None]
    return frozenset(filter(None, found))


def progress(vm: Document, vmi: Document | None, wanted: Goal, before: frozenset[str] = frozenset()) -> Progress:
    """How far it is. `before`: what was told of earlier edits."""
    if vmi is None or (vmi.get("status") or {}).get("phase") != "Running":
        return Progress("the VM does not run: the new size holds from its next start", done=True)
    if (why := _condition(vm, "RestartRequired", "True")) and why not in before:
        return Progress("needs a restart", failed=f"{why}; to do so: hotvirt restart vm/{vm['metadata']['name']}")
    asked = {"HotMemoryChange": wanted.memory, "HotVCPUChange": wanted.sockets}
    for kind in (kind for kind, size in asked.items() if size is not None):
        if (why := _condition(vmi, kind, "False")) and why not in before:
            return Progress("the guest did not follow", failed=why)
    status, pending, texts = vmi["status"], False, []
    if wanted.memory is not None:
        memory = status.get("memory") or {}
        has = parse_bytes(memory["guestCurrent"]) if memory.get("guestCurrent") else None
        shrinks = has is not None and has > wanted.memory
        texts.append(f"memory {tables.size(has)} {'to become' if shrinks else 'of'} {tables.size(wanted.memory)}")
        pending |= has != wanted.memory or _present(vmi, "HotMemoryChange")
    if wanted.sockets is not None:
        has = (status.get("currentCPUTopology") or {}).get("sockets")
        shrinks = has is not None and has > wanted.sockets
        texts.append(f"CPU sockets {has or '-'} {'to become' if shrinks else 'of'} {wanted.sockets}")
        pending |= has != wanted.sockets or _present(vmi, "HotVCPUChange")
    return Progress(", ".join(texts), done=not pending, stage=_stage(vmi, wanted, pending=pending))


def _stage(vmi: Document, wanted: Goal, *, pending: bool) -> str:
    """Whether the machine was told yet, or has it. Of CPUs it is told by the condition of their change alone."""
    if not pending:
        return "guest"
    status = vmi["status"]
    requested = (status.get("memory") or {}).get("guestRequested")
    memory = wanted.memory is None or (requested is not None and parse_bytes(requested) == wanted.memory)
    told = _present(vmi, "HotMemoryChange") or _present(vmi, "HotVCPUChange")
    return "QEMU" if memory and (told or wanted.memory is not None) else "asked"


def _follow(api: Api, name: str, wanted: Goal, before: frozenset[str], *, timeout: float) -> Iterator[Progress]:
    """Each progress that differs from the one before, until it is done, failed, or `timeout` seconds are over."""
    last: Progress | None = None
    deadline = time.monotonic() + timeout
    while True:
        vm = api.get(VMS, name, api.namespace)
        vmi = api.find(VMIS, name, api.namespace)
        now = progress(vm, vmi, wanted, before)
        if now != last:
            yield now
            last = now
        left = deadline - time.monotonic()
        if now.done or now.failed or left <= 0:
            return
        # Until the instance changes, or a glance at the VM is due.
        version = (vmi or vm)["metadata"]["resourceVersion"]
        next(api.watch(VMIS, api.namespace, name=name, version=version, timeout=min(left, GLANCE)), None)


def _guests_word(api: Api, name: str) -> str:
    """ "" without an agent: then there is nobody to ask; what QEMU gave has been shown."""
    try:
        facts = guest.ask(api, name)
    except ApiError:
        return ""
    cpus = facts["onlineCPUs"]
    many = "CPU" if cpus == 1 else "CPUs"
    return f"the guest reports {tables.size(facts['memTotalBytes'])} of memory, {cpus} {many} online"


def _memory(value: str) -> int:
    """In whole blocks, as the guest gets it: nothing else would ever be reached."""
    try:
        asked = parse_bytes(value)
    except ValueError:
        raise CliError(f"memory={value!r} is not a size; write it as in memory=2Gi or memory=1536Mi") from None
    if asked > 0 and not whole_blocks(asked):
        raise CliError(f"memory={value} is less than one block of 2Mi; did you mean memory={value.rstrip('iB')}Gi?")
    return whole_blocks(asked)


def _sockets(vm: Document, value: str) -> int:
    cpu = vm["spec"]["template"]["spec"].get("domain", {}).get("cpu") or {}
    per_socket = int(cpu.get("cores") or 1) * int(cpu.get("threads") or 1)
    if not value.isdigit() or int(value) < 1:
        raise CliError(f"cpu={value!r} is not a number of CPUs from 1 up")
    if int(value) % per_socket:
        raise CliError(f"cpu={value} does not fill sockets of {per_socket}; ask for a multiple of {per_socket}")
    return int(value) // per_socket


def _condition(obj: Document, kind: str, status: str) -> str:
    for condition in (obj.get("status") or {}).get("conditions") or ():
        if condition.get("type") == kind and condition.get("status") == status:
            return str(condition.get("message") or condition.get("reason") or kind)
    return ""


def _present(obj: Document, kind: str) -> bool:
    return any(c.get("type") == kind for c in (obj.get("status") or {}).get("conditions") or ())
