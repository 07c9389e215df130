"""vmexport: disks of claims, stopped machines and snapshots, downloaded. virtctl's flags."""

import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from hotvirt.api.quantity import format_bytes
from hotvirt.cli import downloads
from hotvirt.cli.api import Api
from hotvirt.cli.connection import Timeout
from hotvirt.cli.errors import CliError
from hotvirt.cli.progress import Line
from hotvirt.cli.targets import connected
from hotvirt.cli.verbs import Verbs
from hotvirt.kube.client import Document

SOURCES = ("vm", "snapshot", "pvc")


@click.group(cls=Verbs)
def vmexport() -> None:
    """Offer the disks of a stopped VM, a snapshot or a claim for download, and download them.

    \b
    Examples:
      hotvirt vmexport create web-export --vm=web
      hotvirt vmexport download web-export --volume=disk --output=disk.img.gz
      hotvirt vmexport download web-export --vm=web --output=disk.img --format=raw
      hotvirt vmexport delete web-export
    """


def source_options(command: Any) -> Any:
    for option in (
        click.option("--annotations", multiple=True, metavar="KEY=VALUE", help="Annotations of the export."),
        click.option("--labels", multiple=True, metavar="KEY=VALUE", help="Labels of the export."),
        click.option("--ttl", default="", metavar="DURATION", help="How long the export lives (default: 2h)."),
        click.option("--pvc", metavar="NAME", help="Export this PersistentVolumeClaim."),
        click.option("--snapshot", metavar="NAME", help="Export this VirtualMachineSnapshot."),
        click.option("--vm", metavar="NAME", help="Export this VM, which must be stopped."),
    ):
        command = option(command)
    return command


@vmexport.command()
@click.argument("name")
@source_options
@connected
def create(
    api: Api, *, name: str, ttl: str, labels: tuple[str, ...], annotations: tuple[str, ...], **sources: str | None
) -> None:  # fmt: skip
    """Offer disks for download.

    \b
    Examples:
      hotvirt vmexport create web-export --vm=web
      hotvirt vmexport create snap-export --snapshot=before-upgrade
      hotvirt vmexport create data-export --pvc=data --ttl=30m
    """
    of = _source(sources)
    if of is None:
        raise click.UsageError("name what to export: --vm, --snapshot or --pvc")
    if not downloads.create(api, name, of, ttl=ttl, labels=_pairs(labels), annotations=_pairs(annotations)):
        raise CliError(f"VirtualMachineExport '{api.namespace}/{name}' already exists")
    click.echo(f"VirtualMachineExport '{api.namespace}/{name}' created successfully")


@vmexport.command()
@click.argument("name")
@connected
def delete(api: Api, *, name: str) -> None:
    """Stop offering them. The disks stay.

    \b
    Example:
      hotvirt vmexport delete web-export
    """
    found = downloads.delete(api, name)
    said = "deleted successfully" if found else "does not exist"
    click.echo(f"VirtualMachineExport '{api.namespace}/{name}' {said}")


@vmexport.command()
@click.argument("name")
@source_options
@click.option("--volume", metavar="NAME", help="Which disk; not needed when there is one.")
@click.option("--output", metavar="FILE", help="Where to; - is standard output.")
@click.option(
    "--format", "form", type=click.Choice(["gzip", "raw"]), default="gzip", show_default=True, help="Of the file."
)
@click.option("--keep-vme", is_flag=True, help="Keep an export that this command made.")
@click.option("--delete-vme", is_flag=True, help="Delete the export when the download is done, whoever made it.")
@click.option("--insecure", is_flag=True, help="Do not check the server's certificate.")
@click.option("--manifest", is_flag=True, help="Print the VM's manifest instead of a disk.")
@click.option("--include-secret", is_flag=True, help="With --manifest: with the Secret that its downloads need.")
@click.option(
    "--manifest-output-format",
    type=click.Choice(["yaml", "json"]),
    default="yaml",
    show_default=True,
    help="With --manifest.",
)
@click.option("--service-url", default="", metavar="HOST:PORT", help="Download from there, not from the link's host.")
@click.option("--port-forward", is_flag=True, help="Download by the address that the API is reached at.")
@click.option("--local-port", hidden=True, help="Taken as virtctl takes it, and without a use: no port is needed.")
@click.option("--retry", type=int, default=0, metavar="N", help="Try so many times more when it breaks off.")
@click.option("--readiness-timeout", type=Timeout(), default="2m", help="How long to wait for the export.")
@connected
def download(
    api: Api, *, name: str, ttl: str, labels: tuple[str, ...], annotations: tuple[str, ...], volume: str | None,
    output: str | None, form: str, keep_vme: bool, delete_vme: bool, insecure: bool, manifest: bool,
    include_secret: bool, manifest_output_format: str, service_url: str, port_forward: bool, local_port: str | None,
    retry: int, readiness_timeout: float, **sources: str | None,
) -> None:  # fmt: skip
    """Download a disk, or print the VM's manifest. With a source named, makes the export first.

    \b
    Examples:
      hotvirt vmexport download web-export --volume=disk --output=disk.img.gz
      hotvirt vmexport download web-export --vm=web --output=disk.img --format=raw
      hotvirt vmexport download web-export --vm=web --manifest --include-secret
    """
    if not manifest and not output:
        raise click.UsageError("name the file to write: --output=FILE")
    if keep_vme and delete_vme:
        raise click.UsageError("--keep-vme and --delete-vme exclude each other")
    del local_port
    service_url = service_url or (urlsplit(api.access.server).netloc if port_forward else "")
    of, made = _source(sources), False
    if of is not None:
        made = downloads.create(api, name, of, ttl=ttl, labels=_pairs(labels), annotations=_pairs(annotations))
    goes = not manifest and (delete_vme or (made and not keep_vme))
    try:
        export = downloads.ready(api, name, timeout=readiness_timeout or downloads.READY)
        if manifest:
            _print_manifest(
                api, export, form=manifest_output_format, with_secret=include_secret, insecure=insecure,
                service=service_url,
            )  # fmt: skip
            return
        for left in range(retry, -1, -1):
            try:
                _download(api, export, volume, str(output), form=form, insecure=insecure, service=service_url)
                break
            except CliError as error:
                if not left:
                    raise
                click.echo(f"{error}; retrying", err=True)
    finally:
        if goes:
            downloads.delete(api, name)


def _download(
    api: Api, export: Document, volume: str | None, output: str, *, form: str, insecure: bool, service: str
) -> None:  # fmt: skip
    formats = _chosen(export, volume)
    zipped = formats.get("gzip") or formats.get("tar.gz")
    url = zipped or formats["raw"]
    parts = downloads.fetch(api, export, url, insecure=insecure, service=service)
    is_plain = form == "raw" and formats.get("gzip") is not None
    if is_plain:
        parts = downloads.unzipped(parts)
    with Line() as line:

        def told(done: int) -> None:
            line.say(f"downloading {format_bytes(done >> 28 << 28)}")

        if output == "-":
            downloads.write(parts, sys.stdout.buffer, told)
        elif is_plain or zipped is None:
            downloads.write_sparse(parts, Path(output), told)
        else:
            with Path(output).open("wb") as out:
                downloads.write(parts, out, told)
    click.echo("Download finished successfully", err=output == "-")


def _chosen(export: Document, volume: str | None) -> dict[str, str]:
    found = downloads.volumes(export)
    name = export["metadata"]["name"]
    if not found:
        raise CliError(f"export {name} has no disks")
    if volume is None and len(found) > 1:
        raise CliError(f"export {name} has several disks: name one with --volume: {', '.join(sorted(found))}")
    chosen = volume if volume is not None else next(iter(found))
    if chosen not in found:
        if len(found) == 1:  # as virtctl does
            return next(iter(found.values()))
        raise CliError(f"export {name} has no volume {chosen!r}; it has {', '.join(sorted(found))}")
    return found[chosen]


def _print_manifest(
    api: Api, export: Document, *, form: str, with_secret: bool, insecure: bool, service: str
) -> None:  # fmt: skip
    urls = downloads.manifest_urls(export)
    if not urls:
        raise CliError(f"export {export['metadata']['name']} is of a claim, which has no manifest: export its VM")
    for kind in ("all", *(["auth-header-secret"] if with_secret else [])):
        parts = downloads.fetch(
            api, export, urls[kind], accept=f"application/{form}", insecure=insecure, service=service
        )
        click.echo(b"".join(parts).decode().rstrip("\n"))


def _source(sources: dict[str, str | None]) -> Document | None:
    named = [(kind, sources[kind]) for kind in SOURCES if sources.get(kind)]
    if len(named) > 1:
        raise click.UsageError(f"name one source only, not {' and '.join(f'--{kind}' for kind, _ in named)}")
    return downloads.source(named[0][0], str(named[0][1])) if named else None


def _pairs(given: tuple[str, ...]) -> dict[str, str]:
    """`--labels a=b,c=d --labels e=f`."""
    found = {}
    for text in (part for each in given for part in each.split(",")):
        key, equals, value = text.partition("=")
        if not equals:
            raise click.UsageError(f"{text!r} is not KEY=VALUE")
        found[key] = value
    return found
