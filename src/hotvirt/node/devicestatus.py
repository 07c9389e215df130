"""What a VMI's status says of its network cards and volumes, each list whole. Pure."""

from typing import Any

from hotvirt.kube.client import Document
from hotvirt.node import addresses
from hotvirt.node.network import attachment_names
from hotvirt.node.seen import Seen
from hotvirt.node.shown import is_empty_drive, is_hotplugged


def interfaces(vmi: Document, seen: Seen) -> list[Document]:
    """As KubeVirt lists them. The first address is the pod's, known before the guest says anything."""
    status, devices = vmi.get("status") or {}, (vmi["spec"]["domain"].get("devices") or {})
    before = {each.get("name"): each for each in status.get("interfaces") or ()}
    told = {str(each.get("hardware-address", "")).lower(): each for each in (seen.view.interfaces if seen.view else ())}
    seconds = attachment_names(vmi)
    quiet = seen.unheard or (seen.view is not None and seen.view.frozen)  # its agent tells later, or when thawed
    found = []
    for interface in devices.get("interfaces") or ():
        is_second = interface["name"] in seconds
        if is_second and interface["name"] not in seen.observed.nics:
            continue  # it is to come, or went
        mac = str(interface.get("macAddress", "")).lower()
        entry: Document = {"name": interface["name"], "mac": mac, "queueCount": 1, "linkState": _link(interface, seen)}
        entry["infoSource"] = "domain"
        address = (before.get(interface["name"]) or {}).get("ipAddress")
        if said := told.get(mac):
            entry["interfaceName"] = str(said.get("name", ""))
            entry["infoSource"] = "domain, guest-agent"
        elif quiet:
            was = before.get(interface["name"]) or {}
            entry |= {key: was[key] for key in ("interfaceName", "infoSource") if key in was}
        if is_second and said:
            if has := addresses.of(said):
                entry |= {"ipAddress": has[0], "ipAddresses": has}
        elif address and not is_second:
            entry["ipAddress"] = address
            others = addresses.of(said) if said else (before.get(interface["name"]) or {}).get("ipAddresses") or ()
            entry["ipAddresses"] = list(dict.fromkeys((address, *(others if said or quiet else ()))))
        found.append(entry)
    if quiet:
        return [*found, *(each for each in status.get("interfaces") or () if not each.get("name"))]
    known = {each["mac"] for each in found}
    return [*found, *addresses.beside(seen.view.interfaces if seen.view else (), known)]


def _link(interface: Document, seen: Seen) -> str:
    is_up = seen.links.get(interface["name"], interface.get("state") != "down")
    return "up" if is_up else "down"


def volume_status(vmi: Document, seen: Seen) -> list[Document]:
    """A phase for each volume, and for those still on their way out."""
    spec = vmi["spec"]
    found, names = [], set()
    for volume in spec.get("volumes") or ():
        name = volume["name"]
        names.add(name)
        disk = seen.observed.disk(name)
        attached = disk is not None and disk.device and not is_empty_drive(disk)
        entry: Document = {"name": name, "target": _target(disk)}
        if disk is not None and disk.size:
            entry["size"] = disk.size
        if (claim := seen.claims.get(name)) is not None:
            entry["persistentVolumeClaimInfo"] = claim_info(claim)
        if is_hotplugged(volume):
            entry["hotplugVolume"] = {}
            job = seen.jobs.get(f"volume {name}")
            grows = job is not None and isinstance(job.target, tuple) and job.target[0] == "grow"
            if attached and (grows or not (job and job.is_running)):
                entry |= {"phase": "Ready", "reason": "VolumeReady", "message": "Successfully attached to the guest"}
            elif name in seen.volume_errors:
                reason, message = seen.volume_errors[name]
                entry |= {"phase": "Pending", "reason": reason, "message": message}
            elif job is not None and job.error is not None:
                entry |= {"phase": "Failed", "reason": job.error.reason, "message": str(job.error)}
            else:
                entry |= {"phase": "AttachedToNode", "reason": "SuccessfulCreate", "message": "being attached"}
        found.append(entry)
    for disk in seen.observed.disks:
        if disk.name not in names and f"volume {disk.name}" in seen.jobs:
            job = seen.jobs[f"volume {disk.name}"]
            message = str(job.error) if job.error else "waiting for the guest to let go"
            reason = job.error.reason if job.error else "Detaching"
            found.append({
                "name": disk.name, "target": "", "hotplugVolume": {}, "phase": "Detaching", "reason": reason,
                "message": message,
            })  # fmt: skip
    return found


def claim_info(claim: Document) -> Document:
    """As KubeVirt tells of the claim behind a volume."""
    spec, status = claim["spec"], claim.get("status") or {}
    return {
        "claimName": claim["metadata"]["name"], "accessModes": list(spec.get("accessModes") or ()),
        "volumeMode": spec.get("volumeMode") or "Filesystem", "capacity": status.get("capacity") or {},
        "requests": (spec.get("resources") or {}).get("requests") or {},
    }  # fmt: skip


def _target(disk: Any) -> str:
    return str(disk.driver) if disk is not None and disk.device else ""
