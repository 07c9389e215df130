"""export: a VM as a file that other virtualization programs import, so that nobody is locked in.

A VM that runs is exported from a snapshot that is taken for it. The disks come by a VirtualMachineExport, so it works
on any machine that reaches the API; they are converted here, by qemu-img.
"""

import secrets
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hotvirt.api.defaults import plain_address
from hotvirt.api.quantity import format_bytes, parse_bytes
from hotvirt.cli import downloads
from hotvirt.cli.api import Api
from hotvirt.cli.errors import CliError
from hotvirt.cli.progress import Line
from hotvirt.cli.targets import Target, connected, machine, only_vm
from hotvirt.cli.verbs import verb
from hotvirt.cli.waiting import wait_for
from hotvirt.kube.client import Document
from hotvirt.kube.errors import NotFound
from hotvirt.kube.resources import SNAPSHOT_CONTENTS, SNAPSHOTS, VMIS, VMS

if TYPE_CHECKING:
    from hotvirt.images import ova as images

PATIENCE = 3600.0


@verb()
@machine
@click.option("--ova", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Where to.")
@connected
def export(api: Api, machine: Target, *, ova: Path | None) -> None:
    """Write a VM with its disks into an OVA, for VMware, VirtualBox, virt-v2v and others.

    \b
    A VM that runs is exported as it is at this moment, by a snapshot that is deleted afterwards.
    What is on claims comes along; container disks and cloud-init stay behind.

    \b
    Example:
      hotvirt export vm/web --ova web.ova
    """
    name = only_vm(machine, "be exported")
    if ova is None:
        raise click.UsageError("name the file to write: --ova FILE")
    if not ova.absolute().parent.is_dir():
        raise CliError(f"there is no directory {ova.parent}: create it first")
    made = f"ova-{secrets.token_hex(4)}"
    with Line() as line:
        vm, of, is_running = _source(api, name, made, line)
        try:
            downloads.create(api, made, of)
            line.say("waiting for the export")
            offered = downloads.ready(api, made)
            _write(api, offered, vm, ova, line)
        finally:
            downloads.delete(api, made)
            if is_running:
                _drop(api, made)
    click.echo(f"VM {name} is in {ova}")


def _source(api: Api, name: str, made: str, line: Line) -> tuple[Document, Document, bool]:
    """The machine, what to export, and whether that is a snapshot taken for it."""
    vm = api.get(VMS, name, api.namespace)
    if api.find(VMIS, name, api.namespace) is None:
        return vm, downloads.source("vm", name), False
    line.say("taking a snapshot of the running guest")
    body = {
        "apiVersion": SNAPSHOTS.api_version, "kind": SNAPSHOTS.kind, "metadata": {"name": made},
        "spec": {"source": downloads.source("vm", name), "failureDeadline": "1h"},
    }  # fmt: skip
    api.request("POST", SNAPSHOTS.path(api.namespace), body=body)
    try:
        taken = wait_for(api, SNAPSHOTS, made, _is_over, what="ready", timeout=PATIENCE)
        if taken["status"]["phase"] == "Failed":
            why = (taken["status"].get("error") or {}).get("message")
            raise CliError(f"the snapshot failed: {why or 'it took too long'}")
        content = api.get(SNAPSHOT_CONTENTS, taken["status"]["virtualMachineSnapshotContentName"], api.namespace)
    except BaseException:
        _drop(api, made)
        raise
    return content["spec"]["source"]["virtualMachine"], downloads.source("snapshot", made), True


def _is_over(snapshot: Document) -> bool:
    status = snapshot.get("status") or {}
    return bool(status.get("readyToUse")) or status.get("phase") == "Failed"


def _drop(api: Api, name: str) -> None:
    try:
        api.request("DELETE", SNAPSHOTS.path(api.namespace, name))
    except NotFound:
        pass


def _write(api: Api, offered: Document, vm: Document, ova: Path, line: Line) -> None:
    from hotvirt.images import ova as images

    name = str(vm["metadata"]["name"])
    with tempfile.TemporaryDirectory(prefix=".hotvirt-ova-", dir=ova.absolute().parent) as made:
        directory, disks = Path(made), []
        for index, (volume, formats) in enumerate(downloads.volumes(offered).items()):
            raw = directory / "disk.img"

            def told(done: int, volume: str = volume) -> None:
                line.say(f"fetching {volume}: {format_bytes(done >> 28 << 28)}")

            parts = downloads.unzipped(downloads.fetch(api, offered, formats["gzip"]))
            capacity = downloads.write_sparse(parts, raw, told)
            line.say(f"packing {volume}")
            file = f"{name}-disk{index + 1}.vmdk"
            _convert(raw, directory / file)
            raw.unlink()
            disks.append(images.Disk(volume, file, (directory / file).stat().st_size, capacity))
        line.say(f"writing {ova}")
        try:
            images.pack(ova.absolute(), described(vm, disks), directory)
        except OSError as error:
            raise CliError(f"{ova} cannot be written: {error.strerror}") from error


def described(vm: Document, disks: "list[images.Disk]") -> "images.Machine":
    """The machine in OVF's terms. Pure."""
    from hotvirt.images import ova as images

    domain = vm["spec"]["template"]["spec"].get("domain") or {}
    cpu, devices = domain.get("cpu") or {}, domain.get("devices") or {}
    requests = (domain.get("resources") or {}).get("requests") or {}
    memory = parse_bytes((domain.get("memory") or {}).get("guest") or requests.get("memory") or "1Gi")
    cpus = 1
    for part in ("sockets", "cores", "threads"):
        cpus *= int(cpu.get(part) or 1)
    efi = ((domain.get("firmware") or {}).get("bootloader") or {}).get("efi")
    models = {"e1000": "E1000", "e1000e": "E1000e"}
    return images.Machine(
        name=str(vm["metadata"]["name"]), cpus=cpus, memory=memory, disks=disks,
        cards=[
            images.Card(
                each["name"], plain_address(each.get("macAddress") or ""),
                models.get(each.get("model") or "", "VmxNet3"),
            )
            for each in devices.get("interfaces") or ()
        ],
        efi=efi is not None, secure_boot=efi is not None and efi.get("secureBoot") is not False,
    )  # fmt: skip


def _convert(source: Path, target: Path) -> None:
    command = [
        "qemu-img", "convert", "-q", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", str(source),
        str(target),
    ]  # fmt: skip
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise CliError("qemu-img is not installed here: apt-get install qemu-utils, and try again") from None
    except subprocess.CalledProcessError as error:
        raise CliError(f"the disk could not be converted: {error.stderr.strip()[-300:]}") from error
