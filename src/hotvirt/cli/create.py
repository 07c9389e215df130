"""create: manifests of VMs, instancetypes, preferences and clones, printed for kubectl. Asks no API."""

from typing import Any

import click

from hotvirt.cli.connection import connection_options, from_root
from hotvirt.cli.createvm import vm
from hotvirt.cli.params import (
    LABEL,
    Params,
    check_quantity,
    print_manifest,
    random_suffix,
)
from hotvirt.cli.verbs import Verbs

TOPOLOGIES = ("sockets", "cores", "threads", "spread", "any")
VM_WORDS = ("vm", "virtualmachine")
SNAPSHOT_WORDS = ("snapshot", "vmsnapshot", "virtualmachinesnapshot")


@click.group(cls=Verbs)
def create() -> None:
    """Print the manifest of a VM, an instancetype, a preference or a clone.

    \b
    Examples:
      hotvirt create vm --name=web --memory=1Gi --volume-containerdisk=src:hotvirt/debian:12 | kubectl apply -f -
      hotvirt create instancetype --name=small --cpu=1 --memory=1Gi | kubectl apply -f -
    """


create.add_command(vm)


@create.command()
@click.option("--name", metavar="NAME", help="Default: a generated one.")
@click.option("--cpu", required=True, type=click.IntRange(min=1), help="vCPUs.")
@click.option("--memory", required=True, metavar="SIZE", help="Memory of the guest, as in 1Gi.")
@click.option("--gpu", multiple=True, metavar="name:NAME,devicename:DEVICE", help="A GPU; may be given repeatedly.")
@click.option("--hostdevice", multiple=True, metavar="name:NAME,devicename:DEVICE", help="A device; repeatable.")
@click.option("--iothreadspolicy", type=click.Choice(["auto", "shared"]), help="Who shares I/O threads.")
@click.option("--namespaced", is_flag=True, help="For one namespace rather than the whole cluster.")
@connection_options
def instancetype(
    *, name: str | None, cpu: int, memory: str, gpu: tuple[str, ...], hostdevice: tuple[str, ...],
    iothreadspolicy: str | None, namespaced: bool, **connection: Any,
) -> None:  # fmt: skip
    """Print the manifest of an instancetype: the CPUs and the memory that VMs of it have.

    \b
    Examples:
      hotvirt create instancetype --name=small --cpu=1 --memory=1Gi
      hotvirt create instancetype --namespaced --cpu=2 --memory=4Gi | kubectl create -f -
    """
    spec: dict[str, Any] = {"cpu": {"guest": cpu}, "memory": {"guest": check_quantity("memory", memory)}}
    if gpu:
        spec["gpus"] = [_device("gpu", each) for each in gpu]
    if hostdevice:
        spec["hostDevices"] = [_device("hostdevice", each) for each in hostdevice]
    if iothreadspolicy:
        spec["ioThreadsPolicy"] = iothreadspolicy
    _print_kind("Instancetype", name, spec, namespaced=namespaced, connection=connection)


@create.command()
@click.option("--name", metavar="NAME", help="Default: a generated one.")
@click.option("--cpu-topology", type=click.Choice(TOPOLOGIES), help="What a guest's vCPUs are preferably shown as.")
@click.option("--machine-type", metavar="TYPE", help="The preferred machine type, as in q35.")
@click.option("--volume-storage-class", metavar="CLASS", help="The preferred storage class.")
@click.option("--namespaced", is_flag=True, help="For one namespace rather than the whole cluster.")
@connection_options
def preference(
    *, name: str | None, cpu_topology: str | None, machine_type: str | None, volume_storage_class: str | None,
    namespaced: bool, **connection: Any,
) -> None:  # fmt: skip
    """Print the manifest of a preference: what a VM has where it does not say.

    \b
    Examples:
      hotvirt create preference --name=linux --cpu-topology=cores
      hotvirt create preference --namespaced --machine-type=q35 | kubectl create -f -
    """
    spec: dict[str, Any] = {}
    if cpu_topology:
        spec["cpu"] = {"preferredCPUTopology": cpu_topology}
    if machine_type:
        spec["machine"] = {"preferredMachineType": machine_type}
    if volume_storage_class:
        spec["volumes"] = {"preferredStorageClassName": volume_storage_class}
    _print_kind("Preference", name, spec, namespaced=namespaced, connection=connection)


@create.command()
@click.option("--name", metavar="NAME", help="Of the clone object (default: a generated one).")
@click.option("--source-name", required=True, metavar="NAME", help="What is cloned.")
@click.option("--source-type", default="vm", show_default=True, metavar="TYPE", help="vm or snapshot.")
@click.option("--target-name", metavar="NAME", help="The new VM (default: a generated name).")
@click.option("--target-type", default="vm", show_default=True, metavar="TYPE", help="vm.")
@click.option("--label-filter", multiple=True, metavar="PATTERN", help="Labels to keep; !PATTERN leaves out.")
@click.option("--annotation-filter", multiple=True, metavar="PATTERN", help="Annotations to keep.")
@click.option("--template-label-filter", multiple=True, metavar="PATTERN", help="Labels of the template to keep.")
@click.option("--template-annotation-filter", multiple=True, metavar="PATTERN", help="Annotations of the template.")
@click.option("--new-mac-address", multiple=True, metavar="INTERFACE:MAC", help="A new address for an interface.")
@click.option("--new-smbios-serial", metavar="SERIAL", help="The new VM's serial number.")
@connection_options
def clone(
    *, name: str | None, source_name: str, source_type: str, target_name: str | None, target_type: str,
    new_mac_address: tuple[str, ...], new_smbios_serial: str | None, label_filter: tuple[str, ...],
    annotation_filter: tuple[str, ...], template_label_filter: tuple[str, ...],
    template_annotation_filter: tuple[str, ...], **connection: Any,
) -> None:  # fmt: skip
    """Print the manifest of a clone: the wish for a new VM like another, or like a snapshot.

    \b
    Examples:
      hotvirt create clone --source-name=web --target-name=web-2 | kubectl create -f -
      hotvirt create clone --source-name=monday --source-type=snapshot --target-name=web-3
    """
    spec: dict[str, Any] = {
        "source": _reference("source-type", source_type, source_name, snapshots=True),
        "target": _reference("target-type", target_type, target_name or "", snapshots=False),
    }
    filters = {"labelFilters": template_label_filter, "annotationFilters": template_annotation_filter}
    for key, patterns in {"labelFilters": label_filter, "annotationFilters": annotation_filter}.items():
        if patterns:
            spec[key] = list(patterns)
    if template := {key: list(patterns) for key, patterns in filters.items() if patterns}:
        spec["template"] = template
    if new_mac_address:
        spec["newMacAddresses"] = dict(_mac(each) for each in new_mac_address)
    if new_smbios_serial:
        spec["newSMBiosSerial"] = new_smbios_serial
    metadata = {"name": name or f"clone-{random_suffix()}", **_namespace(connection)}
    head = {"apiVersion": "clone.kubevirt.io/v1beta1", "kind": "VirtualMachineClone"}
    print_manifest({**head, "metadata": metadata, "spec": spec})


def _print_kind(
    kind: str, name: str | None, spec: dict[str, Any], *, namespaced: bool, connection: dict[str, Any]
) -> None:
    """Naming a namespace makes it a kind of that namespace."""
    namespace = _namespace(connection)
    namespaced = namespaced or bool(namespace)
    prefix = kind.lower() if namespaced else f"cluster{kind.lower()}"
    print_manifest(
        {
            "apiVersion": "instancetype.kubevirt.io/v1beta1",
            "kind": f"VirtualMachine{'' if namespaced else 'Cluster'}{kind}",
            "metadata": {"name": name or f"{prefix}-{random_suffix()}", **namespace},
            "spec": spec,
        }
    )


def _namespace(connection: dict[str, Any]) -> dict[str, str]:
    given = connection["namespace"] or from_root("namespace")
    return {"namespace": given} if given else {}


def _device(option: str, text: str) -> dict[str, str]:
    params = Params(option, text, ("name", "devicename"))
    return {"name": params.need("name"), "deviceName": params.need("devicename")}


def _reference(option: str, word: str, name: str, *, snapshots: bool) -> dict[str, str]:
    if word.lower() in VM_WORDS:
        kind, group = "VirtualMachine", "kubevirt.io"
    elif snapshots and word.lower() in SNAPSHOT_WORDS:
        kind, group = "VirtualMachineSnapshot", "snapshot.kubevirt.io"
    else:
        may_be = "vm or snapshot" if snapshots else "vm"
        raise click.BadParameter(f"{word!r} is not {may_be}", param_hint=f"--{option}")
    return {"apiGroup": group, "kind": kind, **({"name": name} if name else {})}


def _mac(text: str) -> tuple[str, str]:
    interface, _, address = text.partition(":")
    if not LABEL.fullmatch(interface) or not address:
        raise click.BadParameter(
            f"{text!r} is not INTERFACE:MAC, as in default:02-00-00-00-00-01", param_hint="--new-mac-address"
        )
    return interface, address
