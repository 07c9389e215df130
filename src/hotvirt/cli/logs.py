"""What a VM's QEMU printed: the log of its launcher pod, which `kubectl logs` shows too."""

import codecs
import sys

import click

from hotvirt.cli.api import Api
from hotvirt.cli.errors import CliError
from hotvirt.cli.targets import Target, connected, machine
from hotvirt.cli.verbs import verb
from hotvirt.kube.client import Document
from hotvirt.kube.resources import PODS


@verb()
@machine
@click.option("-f", "--follow", is_flag=True, help="Go on with what is printed later, until the guest's end.")
@click.option("--tail", type=click.IntRange(min=0), metavar="LINES", help="Only the last lines.")
@connected
def logs(api: Api, machine: Target, *, follow: bool, tail: int | None) -> None:
    """Show what a VM's QEMU printed: warnings, and why it ended. What the guest itself prints is on its console.

    \b
    Examples:
      hotvirt logs vm/web
      hotvirt logs vm/web --follow --tail 10
    """
    pod = launcher(api, machine.name)
    query = {**({"follow": "true"} if follow else {}), **({} if tail is None else {"tailLines": str(tail)})}
    decoder, said = codecs.getincrementaldecoder("utf-8")("replace"), False
    for data in api.stream(f"{PODS.path(api.namespace, pod)}/log", query=query):
        said = True
        sys.stdout.write(harmless(decoder.decode(data)))
        sys.stdout.flush()
    if not said and tail != 0:
        click.echo(f"QEMU of {machine.name} has printed nothing.", err=True)


def harmless(text: str) -> str:
    """QEMU may repeat what a guest made up: control characters are shown, not sent to the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)


def launcher(api: Api, name: str) -> str:
    """The pod that runs a VM now, else the one that ran it last."""
    pods = api.list(PODS, api.namespace, labelSelector=f"kubevirt.io=virt-launcher,vm.kubevirt.io/name={name}")
    if not pods:
        raise CliError(f"{name} has no launcher pod, which holds the log; see: kubectl describe vm {name}")
    return str(max(pods, key=_made)["metadata"]["name"])


def _made(pod: Document) -> str:
    return str(pod["metadata"].get("creationTimestamp"))
