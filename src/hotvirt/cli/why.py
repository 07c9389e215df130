"""`hotvirt why`: what stands between a machine and a change, as a list in green and red.

The API is asked, where it is hotvirt's. Any other that serves kubevirt.io has no such answer: there the public objects
are read with the caller's rights, and judged by upstream's rules (`hotvirt.cli.upstream`).
"""

import sys
from typing import Any
from urllib.parse import urlencode

import click

from hotvirt.cli import tables
from hotvirt.cli.api import Api
from hotvirt.cli.guest import GROUP
from hotvirt.cli.targets import Target, connected, one_machine, only_vm, subresource
from hotvirt.cli.verbs import verb
from hotvirt.kube.client import Document
from hotvirt.kube.errors import Forbidden, NotFound

WOULD_NOT = 3
"""Exit code for "no", apart from 1 for an error and 2 for wrong usage."""
MARKS = {"pass": "✓", "fail": "✗", "unknown": "?"}
PLAIN = {"pass": "ok", "fail": "NO", "unknown": "?"}
COLOURS = {"pass": "green", "fail": "red", "unknown": "yellow"}
FORMS = ("memory=", "cpu=", "sockets=", "max-memory=", "max-sockets=", "disk=", "no-disk=", "nic=", "no-nic=")


class Asked(click.ParamType):  # type: ignore[type-arg]  # generic only for the type checker
    """A change as people write it; which it is, the API decides."""

    name = "CHANGE"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        del ctx, param
        from click.shell_completion import CompletionItem

        return [CompletionItem(form) for form in FORMS if form.startswith(incomplete)]


@verb()
@one_machine
@click.argument("changes", nargs=-1, type=Asked(), metavar="[CHANGE]...")
@click.option("-q", "--quiet", is_flag=True, help="Show only what does not hold.")
@tables.output_option
@connected
def why(api: Api, machine: Target, changes: tuple[str, ...], *, quiet: bool, output: str | None) -> None:
    """Show what a live change of a VM rests on, what of it does not hold, and what mends it.

    A CHANGE is memory=SIZE, cpu=COUNT, sockets=COUNT, disk=CLAIM[,bus=BUS], no-disk=NAME, nic=NETWORK, no-nic=NAME or
    nic=NAME,link=up|down. Without one: what could be changed now, and up to where.

    Exits with 0 when all of it would work, with 3 when something would not. Nothing is changed. On a cluster with
    upstream KubeVirt it explains that one's rules.

    \b
    Examples:
      hotvirt why vm/web
      hotvirt why vm/web memory=4Gi cpu=4
      hotvirt why vm/web disk=data,bus=virtio
      hotvirt why vm/web memory=8Gi --quiet
      hotvirt why vm/web memory=4Gi -o json | jq .possible
    """
    report = ask(api, only_vm(machine, "be changed"), changes)
    click.echo(tables.document(report, output) if output else show(report, colour=is_terminal(), quiet=quiet))
    if not report["possible"]:
        sys.exit(WOULD_NOT)


def ask(api: Api, name: str, changes: tuple[str, ...]) -> Document:
    """The report, from the API or, where it has none, from its public objects."""
    path = subresource(api, "virtualmachines", name, "preconditions", group=GROUP)
    query = urlencode([("change", change) for change in changes])
    try:
        return api.request("GET", f"{path}?{query}" if query else path)
    except (NotFound, Forbidden):
        if _is_served(api):
            raise
    from hotvirt.cli import upstream

    return upstream.report(api, name, changes)


def _is_served(api: Api) -> bool:
    """Whether this API is hotvirt's. One that does not know the group may refuse before it says so."""
    try:
        api.request("GET", f"/apis/{GROUP}")
    except NotFound:
        return False
    return True


def show(report: Document, *, colour: bool, quiet: bool = False) -> str:
    """The report for a person."""
    changes = [_change(change, colour=colour, quiet=quiet) for change in report["changes"]]
    return "\n\n".join([_head(report, colour=colour), *changes])


def _head(report: Document, *, colour: bool) -> str:
    name = f"vm/{report['metadata']['name']}"
    state = "running" if report["running"] else "stopped"
    rules = "changed in place by hotvirt" if report["rules"] == "hotvirt" else "by the rules of upstream KubeVirt"
    return f"{click.style(name, bold=True) if colour else name} is {state}; {rules}"


def _change(change: Document, *, colour: bool, quiet: bool) -> str:
    verdict = "pass" if change["possible"] else "fail"
    findings = change.get("findings") or []
    if verdict == "pass" and any(each["status"] == "unknown" for each in findings):
        verdict = "unknown"
    words = {"pass": "would work", "fail": "would not work", "unknown": "would work, as far as is known"}
    if change.get("most"):
        words = {"pass": "can be changed", "fail": "cannot be changed", "unknown": "can be changed, as far as is known"}
    title = f"{_clean(change['change'])}: {words[verdict]}"
    lines = [f"{_mark(verdict, colour=colour)} {click.style(title, bold=True) if colour else title}"]
    if change.get("most"):
        reach = f"{change['least']} to {change['most']}" if change.get("least") else change["most"]
        lines.append(f"    now {_clean(change.get('now'))}; {_clean(reach)}")
    shown = [each for each in findings if not quiet or each["status"] != "pass"]
    width = max((len(each["id"]) for each in shown), default=0)
    for each in shown:
        lines += _finding(each, width=width, colour=colour)
    return "\n".join(lines)


def _finding(each: Document, *, width: int, colour: bool) -> list[str]:
    """Its words; for what does not hold the values and the mend below them."""
    mark = _mark(each["status"], colour=colour)
    lines = [f"  {mark} {each['id']:<{width}}  {_clean(each['message'])}"]
    if each["status"] == "pass":
        return lines
    indent = " " * (width + (6 if colour else 7))
    has, needs = _clean(each.get("actual")), _clean(each.get("required"))
    if has or needs:
        lines.append(f"{indent}has: {has or '-'}; needs: {needs or '-'}")
    if mend := _clean(each.get("mend")):
        lines.append(f"{indent}mend: {click.style(mend, fg='cyan') if colour else mend}")
    return lines


def _mark(status: str, *, colour: bool) -> str:
    return click.style(MARKS[status], fg=COLOURS[status], bold=True) if colour else f"{PLAIN[status]:<2}"


def is_terminal() -> bool:
    import os

    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def _clean(value: object) -> str:
    """A guest's words are in some messages."""
    text = "" if value is None else str(value)[:500]
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
