"""How a clone differs from its source, as the patches of a restore. Pure."""

import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from hotvirt.kube import owners
from hotvirt.kube.client import Document
from hotvirt.kube.resources import CLONES, RESTORES, SNAPSHOTS

Operation = dict[str, Any]


def target_name(clone: Document) -> str:
    """As asked for, or made up: the same each time."""
    named = (clone["spec"].get("target") or {}).get("name")
    return str(named or f"clone-{clone['spec']['source']['name'][:50]}-{clone['metadata']['uid'][:5]}")


def snapshot(clone: Document) -> Document:
    """Of the source, for as long as the clone needs it."""
    return _owned(clone, SNAPSHOTS, f"tmp-snapshot-{clone['metadata']['uid']}", {"source": clone["spec"]["source"]})


def restore(clone: Document, of: str, patches: list[str]) -> Document:
    spec = {
        "target": {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": target_name(clone)},
        "virtualMachineSnapshotName": of, "patches": patches,
    }  # fmt: skip
    if policy := clone["spec"].get("volumeNamePolicy"):
        spec["volumeRestorePolicy"] = policy
    return _owned(clone, RESTORES, f"tmp-restore-{clone['metadata']['uid']}", spec)


def _owned(clone: Document, resource: Any, name: str, spec: Document) -> Document:
    metadata = {
        "name": name, "namespace": clone["metadata"]["namespace"],
        "ownerReferences": [owners.reference(CLONES, clone)],
    }  # fmt: skip
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, "spec": spec}


def patches(clone: Document, machine: Document) -> list[str]:
    """`machine`: as the snapshot's content has it."""
    spec = clone["spec"]
    operations = [
        *_filtered(machine.get("metadata") or {}, spec, "/metadata"),
        *_filtered(_template(machine).get("metadata") or {}, spec.get("template") or {}, "/spec/template/metadata"),
        *_addresses(machine, spec.get("newMacAddresses") or {}),
        *_firmware(machine, spec.get("newSMBiosSerial")),
    ]
    return [json.dumps(each) for each in operations] + list(spec.get("patches") or ())


def passes(key: str, filters: list[str]) -> bool:
    """Whether a label or annotation is copied: the last filter that fits decides. All are when there is no filter."""
    kept = not filters
    for each in filters:
        if fnmatchcase(key, each.removeprefix("!")):
            kept = not each.startswith("!")
    return kept


def _filtered(metadata: Document, filters: Document, path: str) -> Iterator[Operation]:
    for field, named in (("labels", "labelFilters"), ("annotations", "annotationFilters")):
        for key in metadata.get(field) or {}:
            if not passes(key, list(filters.get(named) or ())):
                yield {"op": "remove", "path": f"{path}/{field}/{_escaped(key)}"}


def _addresses(machine: Document, wanted: dict[str, str]) -> Iterator[Operation]:
    """Two machines must not share an address; one without is given one."""
    interfaces = (((_template(machine).get("spec") or {}).get("domain") or {}).get("devices") or {}).get("interfaces")
    for index, interface in enumerate(interfaces or ()):
        path = f"/spec/template/spec/domain/devices/interfaces/{index}/macAddress"
        if address := wanted.get(interface.get("name")):
            yield {"op": "add", "path": path, "value": address}
        elif interface.get("macAddress"):
            yield {"op": "remove", "path": path}


def _firmware(machine: Document, serial: str | None) -> Iterator[Operation]:
    domain = (_template(machine).get("spec") or {}).get("domain") or {}
    firmware = domain.get("firmware")
    path = "/spec/template/spec/domain/firmware"
    if firmware is None and serial:
        yield {"op": "add", "path": path, "value": {"serial": serial}}
        return
    if serial:
        yield {"op": "add", "path": f"{path}/serial", "value": serial}
    elif (firmware or {}).get("serial"):
        yield {"op": "remove", "path": f"{path}/serial"}
    if (firmware or {}).get("uuid"):
        yield {"op": "remove", "path": f"{path}/uuid"}


def _template(machine: Document) -> Document:
    found: Document = (machine.get("spec") or {}).get("template") or {}
    return found


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
