"""Columns of the built-in kinds, as `kubectl get` shows them against any cluster. One row function a cell, pure."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from hotvirt.server import table_autoscaling, table_workloads
from hotvirt.server.table_cells import NONE, Doc, at, column, columns, count, field, pairs
from hotvirt.server.table_pods import POD_COLUMNS
from hotvirt.server.tables import AGE, CREATED_AT, NAME, Column, Columns, age_of

UNSET = "<unset>"


# --- nodes


def _node_status(doc: Doc) -> str:
    ready = [c.get("status") for c in at(doc, "status", "conditions") or () if c.get("type") == "Ready"]
    words = [{"True": "Ready"}.get(ready[0], "NotReady") if ready else "Unknown"]
    if at(doc, "spec", "unschedulable"):
        words.append("SchedulingDisabled")
    return ",".join(words)


def _node_roles(doc: Doc) -> str:
    prefix = "node-role.kubernetes.io/"
    labels = at(doc, "metadata", "labels") or {}
    roles = {key.removeprefix(prefix) for key in labels if key.startswith(prefix) and key != prefix}
    if role := labels.get("kubernetes.io/role"):
        roles.add(role)
    return ",".join(sorted(roles)) or NONE


def _node_address(kind: str) -> Callable[[Doc], str]:
    def read(doc: Doc) -> str:
        found = (a.get("address") for a in at(doc, "status", "addresses") or () if a.get("type") == kind)
        return next(found, None) or NONE

    return read


def _node_info(name: str, key: str, *, wide: bool = True, empty: str = "<unknown>") -> Column:
    return field(name, "status", "nodeInfo", key, empty=empty, wide=wide)


# --- services


def _external_ip(doc: Doc) -> str:
    kind = at(doc, "spec", "type") or "ClusterIP"
    extra = at(doc, "spec", "externalIPs") or []
    if kind == "ExternalName":
        return str(at(doc, "spec", "externalName") or NONE)
    if kind == "LoadBalancer":
        ingress = at(doc, "status", "loadBalancer", "ingress") or ()
        found = [entry.get("ip") or entry.get("hostname") or "" for entry in ingress]
        return ",".join(found + extra) or "<pending>"
    return ",".join(extra) or NONE


def _service_ports(doc: Doc) -> str:
    ports = at(doc, "spec", "ports") or ()
    shown = [
        f"{p.get('port')}{':' + str(p['nodePort']) if p.get('nodePort') else ''}/{p.get('protocol') or 'TCP'}"
        for p in ports
    ]
    return ",".join(shown) or NONE


# --- storage

_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def _modes(*path: str) -> Callable[[Doc], str]:
    def read(doc: Doc) -> str:
        given = set(at(doc, *path) or ())
        return ",".join(short for mode, short in _MODES.items() if mode in given)

    return read


def _volume_phase(doc: Doc) -> str:
    phase = at(doc, "status", "phase") or ""
    return "Terminating" if at(doc, "metadata", "deletionTimestamp") else phase


def _claim_of_volume(doc: Doc) -> str:
    claim = at(doc, "spec", "claimRef")
    return f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else ""


def _class_name(doc: Doc) -> str:
    name = str(at(doc, "metadata", "name") or "")
    default = at(doc, "metadata", "annotations", "storageclass.kubernetes.io/is-default-class")
    return f"{name} (default)" if default == "true" else name


# --- RBAC


def _role_ref(doc: Doc) -> str:
    return f"{at(doc, 'roleRef', 'kind') or ''}/{at(doc, 'roleRef', 'name') or ''}"


def _subjects(kind: str) -> Column:
    def read(doc: Doc) -> str:
        found = [s for s in doc.get("subjects") or () if s.get("kind") == kind]
        if kind == "ServiceAccount":
            return ", ".join(f"{s.get('namespace', '')}/{s.get('name', '')}" for s in found)
        return ", ".join(str(s.get("name", "")) for s in found)

    return column(f"{kind}s", read, f"Subjects of kind {kind}.", wide=True)


_BINDING = columns(column("Role", _role_ref), AGE, *(_subjects(kind) for kind in ("User", "Group", "ServiceAccount")))


# --- events


def _event_time(doc: Doc) -> Any:
    series = at(doc, "series", "lastObservedTime")
    return series or doc.get("lastTimestamp") or doc.get("eventTime") or at(doc, "metadata", "creationTimestamp")


def _last_seen(doc: Doc, now: datetime) -> str:
    return age_of(_event_time(doc), now)


def _first_seen(doc: Doc, now: datetime) -> str:
    return age_of(doc.get("firstTimestamp") or doc.get("eventTime") or _event_time(doc), now)


def _event_object(doc: Doc) -> str:
    about = doc.get("involvedObject") or doc.get("regarding") or {}
    return f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}"


def _event_source(doc: Doc) -> str:
    source = doc.get("source") or doc.get("deprecatedSource") or {}
    component = source.get("component") or doc.get("reportingComponent") or doc.get("reportingController") or ""
    return f"{component}, {source['host']}" if source.get("host") else component


def _event_count(doc: Doc) -> int:
    return int(at(doc, "series", "count") or doc.get("count") or doc.get("deprecatedCount") or 1)


def _event_message(doc: Doc) -> str:
    return str(doc.get("message") or doc.get("note") or "").strip()


_EVENTS = Columns(
    (
        Column("Last Seen", read_at=_last_seen, description="Time since it happened last."),
        field("Type", "type"),
        field("Reason", "reason"),
        column("Object", _event_object, "What it is about."),
        field("Subobject", "involvedObject", "fieldPath", wide=True),
        column("Source", _event_source, "Who reported it.", wide=True),
        column("Message", _event_message, "What happened."),
        Column("First Seen", read_at=_first_seen, description="Time since it happened first.", priority=1),
        column("Count", _event_count, "How often it happened.", wide=True, kind="integer"),
        Column("Name", NAME.read, format="name", description="The event's own name.", priority=1),
    )
)


# --- the rest


def _controller(doc: Doc) -> str:
    owner = next((o for o in at(doc, "metadata", "ownerReferences") or () if o.get("controller")), None)
    if owner is None:
        return NONE
    group = str(owner.get("apiVersion", "")).rpartition("/")[0]
    return f"{str(owner.get('kind', '')).lower()}{'.' + group if group else ''}/{owner.get('name', '')}"


def _endpoints(doc: Doc) -> str:
    found = [
        f"{address.get('ip')}:{port.get('port')}"
        for subset in doc.get("subsets") or ()
        for address in subset.get("addresses") or ()
        for port in subset.get("ports") or ()
    ]
    return _few(found)


def _few(found: list[str]) -> str:
    more = f" + {len(found) - 3} more..." if len(found) > 3 else ""
    return ",".join(found[:3]) + more if found else NONE


def _slice_ports(doc: Doc) -> str:
    return _few([str(p.get("port")) for p in doc.get("ports") or ()]) if doc.get("ports") else UNSET


def _slice_addresses(doc: Doc) -> str:
    return _few([address for e in doc.get("endpoints") or () for address in e.get("addresses") or ()])


def _quota(word: str) -> Callable[[Doc], str]:
    def read(doc: Doc) -> str:
        hard, used = at(doc, "status", "hard") or {}, at(doc, "status", "used") or {}
        limits = word == "limits"
        names = sorted(name for name in hard if name.startswith("limits.") is limits)
        return ", ".join(f"{name}: {used.get(name, '0')}/{hard[name]}" for name in names)

    return read


def _api_service(doc: Doc) -> str:
    service = at(doc, "spec", "service")
    return f"{service.get('namespace')}/{service.get('name')}" if service else "Local"


def _api_available(doc: Doc) -> str:
    state: Doc = next((c for c in at(doc, "status", "conditions") or () if c.get("type") == "Available"), {})
    status = str(state.get("status") or "Unknown")
    return status if status == "True" or not state.get("reason") else f"{status} ({state['reason']})"


def _stated(key: str) -> Callable[[Doc], str]:
    """Also when it is 0."""

    def read(doc: Doc) -> str:
        value = at(doc, "spec", key)
        return "N/A" if value is None else str(value)

    return read


_WEBHOOKS = columns(count("Webhooks", "webhooks"), AGE)
_CREATED = columns(CREATED_AT)


def _param_kind(doc: Doc) -> str:
    kind = at(doc, "spec", "paramKind")
    return f"{kind.get('apiVersion')}/{kind.get('kind')}" if isinstance(kind, dict) else UNSET


def _param_ref(doc: Doc) -> str:
    reference = at(doc, "spec", "paramRef")
    if not isinstance(reference, dict):
        return UNSET
    return str(reference.get("name") or ("*" if "selector" in reference else UNSET))


COLUMNS: dict[tuple[str, str], Columns] = {
    **table_workloads.COLUMNS,
    **table_autoscaling.COLUMNS,
    ("", "pods"): POD_COLUMNS,
    ("", "nodes"): columns(
        column("Status", _node_status, "Whether the node takes pods."),
        column("Roles", _node_roles, "Roles by label."),
        AGE,
        _node_info("Version", "kubeletVersion", wide=False, empty=""),
        column("Internal-IP", _node_address("InternalIP"), wide=True),
        column("External-IP", _node_address("ExternalIP"), wide=True),
        _node_info("OS-Image", "osImage"),
        _node_info("Kernel-Version", "kernelVersion"),
        _node_info("Container-Runtime", "containerRuntimeVersion"),
    ),
    ("", "namespaces"): columns(field("Status", "status", "phase"), AGE),
    ("", "services"): columns(
        field("Type", "spec", "type", empty="ClusterIP"),
        field("Cluster-IP", "spec", "clusterIP", empty=NONE),
        column("External-IP", _external_ip, "Addresses from outside."),
        column("Port(s)", _service_ports, "Ports and protocols."),
        AGE,
        column("Selector", pairs("spec", "selector"), "Labels of the pods behind it.", wide=True),
    ),
    ("", "persistentvolumeclaims"): columns(
        column("Status", _volume_phase, "Phase of the claim."),
        field("Volume", "spec", "volumeName"),
        field("Capacity", "status", "capacity", "storage"),
        column("Access Modes", _modes("status", "accessModes"), "How it may be mounted."),
        field("StorageClass", "spec", "storageClassName"),
        field("VolumeAttributesClass", "spec", "volumeAttributesClassName", empty=UNSET),
        AGE,
        field("VolumeMode", "spec", "volumeMode", empty=UNSET, wide=True),
    ),
    ("", "persistentvolumes"): columns(
        field("Capacity", "spec", "capacity", "storage"),
        column("Access Modes", _modes("spec", "accessModes"), "How it may be mounted."),
        field("Reclaim Policy", "spec", "persistentVolumeReclaimPolicy"),
        column("Status", _volume_phase, "Phase of the volume."),
        column("Claim", _claim_of_volume, "The claim it is bound to."),
        field("StorageClass", "spec", "storageClassName"),
        field("VolumeAttributesClass", "spec", "volumeAttributesClassName", empty=UNSET),
        field("Reason", "status", "reason"),
        AGE,
        field("VolumeMode", "spec", "volumeMode", empty=UNSET, wide=True),
    ),
    ("storage.k8s.io", "storageclasses"): Columns(
        (
            Column("Name", _class_name, format="name", description="Name of the class."),
            field("Provisioner", "provisioner"),
            field("ReclaimPolicy", "reclaimPolicy", empty="Delete"),
            field("VolumeBindingMode", "volumeBindingMode", empty="Immediate"),
            column("AllowVolumeExpansion", lambda doc: bool(doc.get("allowVolumeExpansion")), kind="boolean"),
            AGE,
        )
    ),
    ("", "secrets"): columns(field("Type", "type", empty="Opaque"), count("Data", "data"), AGE),
    ("", "configmaps"): columns(
        column("Data", lambda doc: len(doc.get("data") or ()) + len(doc.get("binaryData") or ()), kind="integer"), AGE
    ),
    ("", "serviceaccounts"): columns(AGE),
    ("", "events"): _EVENTS,
    ("events.k8s.io", "events"): _EVENTS,
    ("", "endpoints"): columns(column("Endpoints", _endpoints, "Addresses and ports."), AGE),
    ("discovery.k8s.io", "endpointslices"): columns(
        field("AddressType", "addressType"),
        column("Ports", _slice_ports, "Ports of all addresses."),
        column("Endpoints", _slice_addresses, "Addresses."),
        AGE,
    ),
    ("", "resourcequotas"): columns(
        column("Request", _quota("requests"), "Used and allowed requests."),
        column("Limit", _quota("limits"), "Used and allowed limits."),
        AGE,
    ),
    ("", "limitranges"): _CREATED,
    ("rbac.authorization.k8s.io", "roles"): _CREATED,
    ("rbac.authorization.k8s.io", "clusterroles"): _CREATED,
    ("rbac.authorization.k8s.io", "rolebindings"): _BINDING,
    ("rbac.authorization.k8s.io", "clusterrolebindings"): _BINDING,
    ("coordination.k8s.io", "leases"): columns(field("Holder", "spec", "holderIdentity"), AGE),
    ("apiextensions.k8s.io", "customresourcedefinitions"): _CREATED,
    ("apiregistration.k8s.io", "apiservices"): columns(
        column("Service", _api_service, "Who serves it."),
        column("Available", _api_available, "Whether it answers."),
        AGE,
    ),
    ("apps", "controllerrevisions"): columns(
        column("Controller", _controller, "The owner in charge."), field("Revision", "revision", kind="integer"), AGE
    ),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"): _WEBHOOKS,
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"): _WEBHOOKS,
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"): columns(
        count("Validations", "spec", "validations"), column("ParamKind", _param_kind, "Kind of its params."), AGE
    ),
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings"): columns(
        field("PolicyName", "spec", "policyName"), column("ParamRef", _param_ref, "Its params."), AGE
    ),
    ("scheduling.k8s.io", "priorityclasses"): columns(
        field("Value", "value", kind="integer", empty=0),
        column("Global-Default", lambda doc: bool(doc.get("globalDefault")), kind="boolean"),
        AGE,
        field("PreemptionPolicy", "preemptionPolicy", empty="PreemptLowerPriority"),
    ),
    ("policy", "poddisruptionbudgets"): columns(
        column("Min Available", _stated("minAvailable"), "Fewest that stay."),
        column("Max Unavailable", _stated("maxUnavailable"), "Most that may be away."),
        field("Allowed Disruptions", "status", "disruptionsAllowed", kind="integer", empty=0),
        AGE,
    ),
}  # fmt: skip
