"""What a guest itself reports: the proof of a resize. Its words are untrusted, so control characters are shown, not
sent to the terminal."""

import click

from hotvirt.cli import tables
from hotvirt.cli.api import Api
from hotvirt.cli.targets import Target, connected, machine, subresource
from hotvirt.cli.verbs import verb
from hotvirt.kube.client import Document

GROUP = "subresources.hotvirt.io/v1alpha1"


@verb()
@machine
@tables.output_option
@connected
def guest(api: Api, machine: Target, *, output: str | None) -> None:
    """Ask a guest, through its agent, what it has at this moment.

    \b
    Examples:
      hotvirt guest vm/web
      hotvirt guest vm/web -o json | jq .memTotalBytes
    """
    facts = ask(api, machine.name)
    click.echo(tables.document(facts, output) if output else describe(facts))


def ask(api: Api, name: str) -> Document:
    facts = api.request("GET", subresource(api, "virtualmachineinstances", name, "guestfacts", group=GROUP))
    return {key: value for key, value in facts.items() if key not in ("kind", "apiVersion")}


def describe(facts: Document) -> str:
    rows = [
        ("Hostname", _clean(facts.get("hostname"))),
        ("Kernel", _clean(facts.get("kernel"))),
        ("Memory", tables.size(facts.get("memTotalBytes"))),
        ("CPUs online", _clean(facts.get("onlineCPUs"))),
        ("Up for", tables.duration(float(facts.get("uptimeSeconds") or 0))),
        ("Boot", _clean(facts.get("bootID"))),
    ]
    text = tables.facts(rows)
    disks = facts.get("blockDevices") or []
    if not disks:
        return f"{text}\nDisks:        none"
    table = tables.render(
        ["DISK", "SIZE", "SERIAL"],
        [[_clean(d.get("name")), tables.size(d.get("sizeBytes")), _clean(d.get("serial")) or "-"] for d in disks],
    )
    return f"{text}\n\n{table}"


def _clean(value: object) -> str:
    text = "" if value is None else str(value)[:200]
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
