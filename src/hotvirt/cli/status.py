"""`hotvirt status`: the home, its node, and what each VM (and guest without one) asked for beside what it has.

`gather` asks the API, `describe` is pure. Works on a cluster too, where there is no home to tell of.
"""

from typing import Any

import click

from hotvirt.cli import tables
from hotvirt.cli.api import Api
from hotvirt.cli.connection import from_root
from hotvirt.cli.targets import connected
from hotvirt.cli.verbs import verb
from hotvirt.kube import owners
from hotvirt.kube.client import Document
from hotvirt.kube.errors import Forbidden
from hotvirt.kube.resources import EVENTS, NODES, VMIS, VMS, Resource

NOTABLE = (
    "RestartRequired", "HotMemoryChange", "HotVCPUChange", "HotVolumeChange", "HotInterfaceChange", "Failure",
)  # fmt: skip


@verb()
@tables.output_option
@connected
def status(api: Api, *, output: str | None) -> None:
    """Show the home, its node, and for each VM what it asked for beside what it has.

    All VMs that you may see; with -n those of one namespace.

    \b
    Examples:
      hotvirt status
      hotvirt status -n shop
      hotvirt status -o json
    """
    found = gather(api, _given("namespace"))
    click.echo(tables.document(found, output) if output else describe(found))


def gather(api: Api, namespace: str | None = None) -> Document:
    """Of `namespace`, else of all, else (who may not list all) of that of the caller's context, which is then told."""
    try:
        vms = api.list(VMS, namespace)
    except Forbidden:
        if namespace:
            raise
        namespace = api.namespace
        vms = api.list(VMS, namespace)
    vmis = {_key(vmi): vmi for vmi in api.list(VMIS, namespace)}
    named = {_key(vm) for vm in vms}
    # Why one takes its time to start is in its events only, and those are many.
    news = latest(_allowed(api, EVENTS, namespace)) if any(_is_starting(vm) for vm in vms) else {}
    return {
        "home": _home(api),
        "namespace": namespace,
        "nodes": [node_facts(node) for node in _allowed(api, NODES)],
        "virtualMachines": [vm_facts(vm, vmis.get(_key(vm)), news) for vm in vms],
        "instances": [vmi_facts(vmi) for key, vmi in vmis.items() if key not in named],
    }


def _allowed(api: Api, resource: Resource, namespace: str | None = None) -> list[Document]:
    """None where the caller may not see them: VMs are told all the same."""
    try:
        return api.list(resource, namespace)
    except Forbidden:
        return []


def node_facts(node: Document) -> Document:
    """What a node tells of itself in its conditions and annotations."""
    conditions = {c["type"]: c for c in (node.get("status") or {}).get("conditions") or ()}
    ready: Document = conditions.get("Ready", {"message": "has not reported yet"})
    notes: dict[str, str] = node["metadata"].get("annotations") or {}
    facts = {key.partition("/")[2]: value for key, value in sorted(notes.items()) if key.startswith("hotvirt.io/")}
    if notice := facts.pop("network-notice", ""):
        facts["network"] = f"{facts.get('network', '')}: {notice}"
    if emulates := conditions.get("SoftwareEmulation"):
        kind = "software emulation" if emulates["status"] == "True" else "KVM"
        facts = {"acceleration": f"{kind}: {emulates.get('message', '')}", **facts}
    return {
        "name": node["metadata"]["name"],
        "ready": ready.get("status") == "True",
        "why": "" if ready.get("status") == "True" else ready.get("message", ""),
        "facts": facts,
    }


def latest(events: list[Document]) -> dict[str, str]:
    """What was last said of each object, by its uid."""
    ordered = sorted(events, key=_when)
    return {str((event.get("involvedObject") or {}).get("uid")): str(event.get("message", "")) for event in ordered}


def vm_facts(vm: Document, vmi: Document | None, news: dict[str, str] | None = None) -> Document:
    """`news`: what was last said of objects, by uid."""
    wants_news = _is_starting(vm) and not any(map(_is_held, _conditions(vm)))
    said = (news or {}).get(str((vmi or {}).get("metadata", {}).get("uid")), "") if wants_news else ""
    spec: Document = (vm["spec"].get("template") or {}).get("spec") or {}
    if vm["spec"].get("instancetype"):  # which says how large it is, and whose words only the instance has
        spec = (vmi or {}).get("spec") or {}
    return {
        "namespace": vm["metadata"]["namespace"],
        "name": vm["metadata"]["name"],
        "status": (vm.get("status") or {}).get("printableStatus") or "Unknown",
        **_sizes(spec, vmi),
        "notes": [*_notes(vm), *([said] if said else [])],
    }


def vmi_facts(vmi: Document) -> Document:
    """Of a guest that no VM owns."""
    owner = owners.controller_of(vmi) or {}
    return {
        "namespace": vmi["metadata"]["namespace"],
        "name": vmi["metadata"]["name"],
        "status": (vmi.get("status") or {}).get("phase") or "Pending",
        **_sizes(vmi.get("spec") or {}, vmi),
        "notes": [f"of {owner['kind']} {owner['name']}" if owner else "has no VM", *_notes(vmi)],
    }


def _sizes(spec: Document, vmi: Document | None) -> Document:
    domain = spec.get("domain") or {}
    now = (vmi or {}).get("status") or {}
    topology = now.get("currentCPUTopology") or {}
    interfaces = now.get("interfaces") or [{}]
    return {
        "memory": {
            "asked": (domain.get("memory") or {}).get("guest")
            or ((domain.get("resources") or {}).get("requests") or {}).get("memory"),
            "has": (now.get("memory") or {}).get("guestCurrent"),
        },
        "cpus": {
            "asked": _cpus(domain.get("cpu") or {}) if spec else None,
            "has": _cpus(topology) if topology else None,
        },
        "ip": interfaces[0].get("ipAddress"),
    }


def describe(found: Document) -> str:
    lines = []
    if found["home"]:
        home = found["home"]
        lines.append(f"Home     {home['url']} (process {home['pid']}, data in {home['state']})")
    for node in found["nodes"]:
        lines.append(f"Node     {node['name']}: {'ready' if node['ready'] else 'not ready: ' + node['why']}")
        lines += [f"         {key}: {value}" for key, value in node["facts"].items()]
    if found.get("namespace"):
        lines.append(f"VMs      of the namespace {found['namespace']}")
    machines: list[Document] = [*found["virtualMachines"], *found.get("instances", ())]
    if not machines:
        return "\n".join([*lines, "", "No VMs. Make one: kubectl apply -f examples/vm.yaml"])
    many = len({vm["namespace"] for vm in machines}) > 1
    header = ["NAMESPACE"] if many else []
    rows = [
        [
            *([vm["namespace"]] if many else []),
            vm["name"],
            vm["status"],
            _pair(vm["memory"]),
            _pair(vm["cpus"]),
            vm["ip"] or "-",
            "; ".join(vm["notes"]),
        ]
        for vm in machines
    ]
    header += ["NAME", "STATUS", "MEMORY ASKED/HAS", "CPUS ASKED/HAS", "IP", "NOTES"]
    return "\n".join([*lines, "", tables.render(header, rows)])


def _home(api: Api) -> Document | None:
    """The home on this machine, when it is the one that was asked."""
    from hotvirt.home import lock, paths

    place = paths.here(_given("home"))
    running = lock.holder(place.lock)
    if running is None or running.url != api.access.server:
        return None
    return {"url": running.url, "pid": running.pid, "state": str(place.state)}


def _given(option: str) -> str | None:
    """An option of this command, or of the same name before it."""
    given: Any = click.get_current_context().params.get(option)
    return str(given) if given else from_root(option)


def _is_starting(vm: Document) -> bool:
    return (vm.get("status") or {}).get("printableStatus") in ("Starting", "Provisioning", "WaitingForVolumeBinding")


def _when(event: Document) -> tuple[str, int]:
    """Times are in whole seconds, and much is said within one: there the store's count goes on."""
    version = str(event["metadata"].get("resourceVersion", ""))
    return str(event.get("lastTimestamp") or event.get("eventTime") or ""), int(version) if version.isdigit() else 0


def _conditions(obj: Document) -> list[Document]:
    return (obj.get("status") or {}).get("conditions") or []


def _notes(vm: Document) -> list[str]:
    return list(dict.fromkeys(str(c.get("message") or c["type"]) for c in _conditions(vm) if _is_notable(c)))


def _is_notable(condition: Document) -> bool:
    kind = str(condition.get("type", ""))
    return _is_held(condition) or (kind in NOTABLE and (condition.get("status") == "True" or kind.startswith("Hot")))


def _is_held(condition: Document) -> bool:
    """Says why what was asked for could not be brought about: an image cannot be pulled, say."""
    return condition.get("type") == "Synchronized" and condition.get("status") == "False"


def _cpus(cpu: Document) -> int:
    return int(cpu.get("sockets") or 1) * int(cpu.get("cores") or 1) * int(cpu.get("threads") or 1)


def _pair(of: Document) -> str:
    has = "-" if of["has"] is None else of["has"]
    return f"{of['asked'] or '-'} / {has}"


def _key(obj: Document) -> tuple[str, str]:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]
