"""memory-dump: a running guest's memory, written to a claim; fetched from its file, or by an export."""

import gzip
import io
import math
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import urlsplit

import click

from hotvirt.api.quantity import format_bytes, parse_bytes
from hotvirt.cli.api import Api
from hotvirt.cli.errors import CliError
from hotvirt.cli.lifecycle import ask
from hotvirt.cli.progress import Line
from hotvirt.cli.targets import Target, connected, machine, only_vm
from hotvirt.cli.verbs import Verbs
from hotvirt.cli.waiting import observe
from hotvirt.kube.client import Document
from hotvirt.kube.errors import AlreadyExists, NotFound
from hotvirt.kube.resources import CLAIMS, VMIS, VMS, VOLUMES

OVERHEAD = 100 << 20
"""Bytes a dump may have beside the guest's memory."""
FILESYSTEM_SHARE = 0.055
"""What a file system may keep for itself, as KubeVirt counts."""
PATIENCE = 600.0


@click.group("memory-dump", cls=Verbs)
def memory_dump() -> None:
    """Write a running guest's memory to a claim, fetch it, or part with the claim.

    \b
    Examples:
      hotvirt memory-dump get web --claim-name=dump --create-claim
      hotvirt memory-dump download web --output=web.dump.gz
      hotvirt memory-dump remove web
    """


def download_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--local-port", hidden=True, help="Taken as virtctl takes it: no port is needed."),
        click.option(
            "--port-forward", is_flag=True, hidden=True,
            help="Where the claim's files are elsewhere: download by the address that the API is reached at.",
        ),
        click.option(
            "--format", "form", type=click.Choice(["gzip", "raw"]), default="gzip", show_default=True,
            help="Of that file.",
        ),
        click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="File for the dump."),
    ):  # fmt: skip
        command = option(command)
    return command


@memory_dump.command()
@machine
@click.option("--claim-name", metavar="CLAIM", help="Where to (default: as last time).")
@click.option("--create-claim", is_flag=True, help="Make the claim, large enough for this guest.")
@click.option("--storage-class", metavar="NAME", help="With --create-claim: which class.")
@click.option(
    "--access-mode", type=click.Choice(["ReadWriteOnce", "ReadWriteMany"]), default="ReadWriteOnce", show_default=True,
    help="With --create-claim.",
)  # fmt: skip
@download_options
@connected
def get(
    api: Api, machine: Target, *, claim_name: str | None, create_claim: bool, storage_class: str | None,
    access_mode: str, output: Path | None, form: str, port_forward: bool, local_port: str | None,
) -> None:  # fmt: skip
    """Write a running guest's memory to a claim.

    \b
    Examples:
      hotvirt memory-dump get web --claim-name=dump --create-claim
      hotvirt memory-dump get web                                     again, to the same claim
    """
    del local_port
    name = only_vm(machine, "be dumped by this command")
    if create_claim:
        _create_claim(api, name, claim_name, storage_class, access_mode)
    ask(api, "virtualmachines", name, "memorydump", {"claimName": claim_name or ""})
    click.echo(f"Successfully submitted memory dump request of VM {name}")
    if output:
        _download(api, name, output, form, port_forward=port_forward)


@memory_dump.command()
@machine
@download_options
@connected
def download(
    api: Api, machine: Target, *, output: Path | None, form: str, port_forward: bool, local_port: str | None
) -> None:  # fmt: skip
    """Fetch the last dump of a VM, once it is complete.

    \b
    Example:
      hotvirt memory-dump download web --output=web.dump.gz
    """
    del local_port
    if output is None:
        raise click.UsageError("name the file to write: --output=FILE")
    _download(api, only_vm(machine, "be dumped"), output, form, port_forward=port_forward)


@memory_dump.command()
@machine
@connected
def remove(api: Api, machine: Target) -> None:
    """Part a VM from its dump's claim. The claim and what is in it stay.

    \b
    Example:
      hotvirt memory-dump remove web
    """
    name = only_vm(machine, "have a dump")
    ask(api, "virtualmachines", name, "removememorydump", {})
    click.echo(f"Successfully submitted remove memory dump association of VM {name}")


def claim_size(vmi: Document) -> int:
    """Bytes that a claim for the instance's dump needs."""
    domain = vmi["spec"]["domain"]
    requests = (domain.get("resources") or {}).get("requests") or {}
    memory = (domain.get("memory") or {}).get("guest") or requests.get("memory") or "0"
    return math.ceil((parse_bytes(memory) + OVERHEAD) / (1 - FILESYSTEM_SHARE) / (1 << 20)) << 20


def _create_claim(api: Api, name: str, claim: str | None, storage_class: str | None, access_mode: str) -> None:
    if not claim:
        raise click.UsageError("--create-claim needs the claim's name: --claim-name=NAME")
    if (api.get(VMS, name, api.namespace).get("status") or {}).get("memoryDumpRequest"):
        raise CliError(f"{name} has a dump's claim already; part with it first: hotvirt memory-dump remove {name}")
    size = format_bytes(claim_size(api.get(VMIS, name, api.namespace)))
    spec: Document = {"accessModes": [access_mode], "resources": {"requests": {"storage": size}}}
    if storage_class:
        spec["storageClassName"] = storage_class
    try:
        api.request(
            "POST", CLAIMS.path(api.namespace),
            body={"apiVersion": "v1", "kind": CLAIMS.kind, "metadata": {"name": claim}, "spec": spec},
        )  # fmt: skip
    except AlreadyExists:
        raise CliError(f"claim {claim} exists already; leave out --create-claim to write to it") from None
    click.echo(f"PVC {api.namespace}/{claim} created")


def _download(api: Api, name: str, output: Path, form: str, *, port_forward: bool) -> None:
    request = _completed(api, name)
    claim = api.get(CLAIMS, request["claimName"], api.namespace)
    volume = api.get(VOLUMES, str(claim["spec"].get("volumeName")))
    where = (volume["spec"].get("local") or volume["spec"].get("hostPath") or {}).get("path")
    source = Path(where or "") / str(request.get("fileName") or "memory.dump")
    try:
        if where and source.is_file():
            with source.open("rb") as dump, _opened(output, form) as out:
                shutil.copyfileobj(dump, out, 1 << 20)
        else:
            service = urlsplit(api.access.server).netloc if port_forward else ""
            _fetch(
                api, request["claimName"], output, form, where=where or volume["metadata"]["name"], service=service
            )  # fmt: skip
    except OSError as error:
        raise CliError(f"cannot copy {source} to {output}: {error.strerror}; try as root, or another file") from error
    click.echo(f"Memory dump of {name} is in {output}")


def _fetch(api: Api, claim: str, output: Path, form: str, *, where: str, service: str) -> None:
    """By an export, where the claim's files are not here."""
    from hotvirt.cli import downloads

    export = f"memory-dump-{claim}"[:63]
    try:
        made = downloads.create(api, export, downloads.source("pvc", claim))
    except NotFound:
        raise CliError(
            f"the dump is in claim {claim}, whose files are not on this machine, and there are no exports here; "
            f"mount the claim in a pod, or run this where it is: {where}"
        ) from None
    try:
        offered = downloads.ready(api, export)
        url = next(iter(downloads.volumes(offered).values())).get("tar.gz")
        if url is None:
            raise CliError(f"claim {claim} is offered as a disk, and not with a dump in it: make another dump")
        archive = _Parts(downloads.unzipped(downloads.fetch(api, offered, url, service=service)))
        with tarfile.open(fileobj=archive, mode="r|") as tar, _opened(output, form) as out:
            for member in tar:
                dump = tar.extractfile(member)
                if dump is not None:
                    shutil.copyfileobj(dump, out, 1 << 20)
    finally:
        if made:
            downloads.delete(api, export)


class _Parts(io.RawIOBase):
    """What comes in parts, as a file that is read once."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts, self._left = parts, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            if (part := next(self._parts, None)) is None:
                return 0
            self._left = part
        size = min(len(buffer), len(self._left))
        buffer[:size], self._left = self._left[:size], self._left[size:]
        return size


def _opened(output: Path, form: str) -> IO[bytes]:
    return output.open("wb") if form == "raw" else cast("IO[bytes]", gzip.open(output, "wb", compresslevel=1))


def _completed(api: Api, name: str) -> Document:
    """What the VM says of its dump once that is complete; CliError when it fails, or takes too long."""
    with Line() as line:
        for vm in observe(api, VMS, name, timeout=PATIENCE):
            request: Document | None = (vm.get("status") or {}).get("memoryDumpRequest")
            if not request:
                raise CliError(
                    f"{name} has no memory dump; make one: hotvirt memory-dump get {name} --claim-name=CLAIM"
                )
            phase = request.get("phase") or "Associating"
            if phase in ("Completed", "Unmounting") and request.get("fileName"):
                return request
            if phase == "Failed":
                raise CliError(f"the memory dump of {name} failed: {request.get('message') or 'no reason is given'}")
            line.say(f"memory dump: {phase}")
    raise CliError(f"the memory dump of {name} is not complete after {PATIENCE:g} s; see: kubectl describe vm {name}")
