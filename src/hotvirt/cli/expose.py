"""expose: a Service for a VM, an instance or a replica set. `service` is the object, as a pure function."""

import hashlib
from typing import Any

import click
from msgspec import Struct

from hotvirt.cli.api import Api
from hotvirt.cli.errors import CliError
from hotvirt.cli.targets import connected
from hotvirt.cli.verbs import verb
from hotvirt.kube import owners
from hotvirt.kube.client import Document
from hotvirt.kube.resources import REPLICA_SETS, SERVICES, VMIS, VMS, Resource

KINDS = {
    "vm": VMS, "vms": VMS, "virtualmachine": VMS, "virtualmachines": VMS,
    "vmi": VMIS, "vmis": VMIS, "virtualmachineinstance": VMIS, "virtualmachineinstances": VMIS,
    "vmirs": REPLICA_SETS, "vmirss": REPLICA_SETS,
    "virtualmachineinstancereplicaset": REPLICA_SETS, "virtualmachineinstancereplicasets": REPLICA_SETS,
}  # fmt: skip
LABEL_LIMIT = 63


class Choice(click.Choice):  # type: ignore[type-arg]  # generic only for the type checker
    """One of some words in any case."""

    def __init__(self, *words: str) -> None:
        super().__init__(words, case_sensitive=False)


class Wanted(Struct, frozen=True, kw_only=True):
    """What the options say. Empty: not said."""

    name: str
    port: int = 0
    protocol: str = "TCP"
    target_port: str = ""
    port_name: str = ""
    type: str = "ClusterIP"
    cluster_ip: str = ""
    external_ip: str = ""
    ip_family: str = ""
    ip_family_policy: str = ""


@verb()
@click.argument("what", nargs=-1, required=True, metavar="TYPE/NAME")
@click.option("--name", required=True, metavar="NAME", help="Name of the service.")
@click.option("--port", type=click.IntRange(1, 65535), default=None, help="Port of the service.")
@click.option("--target-port", default="", metavar="PORT", help="Port in the guest (default: as --port).")
@click.option("--protocol", type=Choice("TCP", "UDP"), default="TCP", show_default=True)
@click.option("--port-name", default="", metavar="NAME", help="Name of the port.")
@click.option("--type", type=Choice("ClusterIP", "NodePort", "LoadBalancer"), default="ClusterIP", show_default=True)
@click.option("--cluster-ip", default="", metavar="IP", help="The service's own address; None makes it headless.")
@click.option("--external-ip", default="", metavar="IP", help="A further address that leads to the service.")
@click.option("--ip-family", type=Choice("IPv4", "IPv6", "IPv4,IPv6", "IPv6,IPv4"))
@click.option("--ip-family-policy", type=Choice("SingleStack", "PreferDualStack", "RequireDualStack"))  # fmt: skip
@connected
def expose(api: Api, what: tuple[str, ...], *, port: int | None, **options: Any) -> None:
    """Make a Service that leads to a VM (vm), an instance (vmi) or a replica set (vmirs).

    Without --port, it has the ports that the machine's interface on the pod network declares.

    \b
    Examples:
      hotvirt expose vm web --name=web --port=80 --target-port=8080
      hotvirt expose vm/web --name=web-ssh --port=22 --type=NodePort
      hotvirt expose vmirs farm --name=farm
    """
    kind, name = _target(what)
    wanted = Wanted(port=port or 0, **{key: value or "" for key, value in options.items()})
    resource = KINDS[kind]
    made = service(resource, api.get(resource, name, api.namespace), wanted)
    api.request("POST", SERVICES.path(api.namespace), body=made)
    click.echo(f"Service {wanted.name} successfully created for {kind} {name}")


def service(resource: Resource, obj: Document, wanted: Wanted) -> Document:
    """Owned by `obj`, so that it goes when that goes. CliError when there is no port or nothing to select by."""
    name = obj["metadata"]["name"]
    ports = [_port(wanted)] if wanted.port else declared_ports(_machine_spec(resource, obj))
    if not ports:
        raise CliError(f"{name} declares no ports on the pod network; name one: --port=80")
    owner = owners.reference(resource, obj, blocks=False)
    spec: Document = {"type": wanted.type, "selector": _selector(resource, obj), "ports": ports}
    if wanted.cluster_ip:
        spec["clusterIP"] = wanted.cluster_ip
    if wanted.external_ip:
        spec["externalIPs"] = [wanted.external_ip]
    if wanted.ip_family:
        spec["ipFamilies"] = wanted.ip_family.split(",")
    if policy := wanted.ip_family_policy or ("PreferDualStack" if "," in wanted.ip_family else ""):
        spec["ipFamilyPolicy"] = policy
    metadata = {"name": wanted.name, "namespace": obj["metadata"]["namespace"], "ownerReferences": [owner]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def declared_ports(spec: Document) -> list[Document]:
    """Those of the interface on the pod network."""
    network = next((n["name"] for n in spec.get("networks") or () if "pod" in n), None)
    interfaces = ((spec.get("domain") or {}).get("devices") or {}).get("interfaces") or ()
    found = next((i.get("ports") or [] for i in interfaces if i["name"] == network), [])
    return [
        {"name": f"port-{number}", "protocol": port.get("protocol") or "TCP", "port": port["port"]}
        for number, port in enumerate(found, 1)
    ]


def instance_id(name: str) -> str:
    """The value of the label by which services find an instance's pod: its name, cut to what a label can hold."""
    if len(name) <= LABEL_LIMIT:
        return name
    digest = hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()[:8]
    return f"{name[: LABEL_LIMIT - 9]}-{digest}"


def _target(what: tuple[str, ...]) -> tuple[str, str]:
    words = what[0].split("/") if len(what) == 1 else list(what)
    if len(words) != 2 or words[0].lower() not in KINDS or not words[1]:
        raise click.UsageError(f"{' '.join(what)!r} is not a kind and a name; write vm/NAME, vmi/NAME or vmirs/NAME")
    return words[0].lower(), words[1]


def _port(wanted: Wanted) -> Document:
    port: Document = {"protocol": wanted.protocol, "port": wanted.port}
    if wanted.port_name:
        port["name"] = wanted.port_name
    if wanted.target_port:
        port["targetPort"] = int(wanted.target_port) if wanted.target_port.isdigit() else wanted.target_port
    return port


def _machine_spec(resource: Resource, obj: Document) -> Document:
    spec: Document = obj["spec"] if resource is VMIS else ((obj["spec"].get("template") or {}).get("spec") or {})
    return spec


def _selector(resource: Resource, obj: Document) -> dict[str, str]:
    name = obj["metadata"]["name"]
    if resource is not REPLICA_SETS:
        return {"vmi.kubevirt.io/id": instance_id(name)}
    selector = obj["spec"].get("selector") or {}
    if selector.get("matchExpressions"):
        raise CliError(f"vmirs/{name} selects by matchExpressions, which a service cannot; give it matchLabels only")
    if not selector.get("matchLabels"):
        raise CliError(f"vmirs/{name} has no spec.selector.matchLabels, by which a service could find its machines")
    labels: dict[str, str] = selector["matchLabels"]
    return labels
