"""Words that parts have in common about snapshots, restores and clones: annotations, labels, defaults. Pure."""

from typing import Any

from hotvirt.api import disks

Document = dict[str, Any]

GROUP, MEMBERS = "snapshot.hotvirt.io/group", "snapshot.hotvirt.io/members"
"""On VolumeSnapshots that are of one instant: the instant's name, and the names of all of them."""
FREEZE = "snapshot.hotvirt.io/freeze"
"""On them: freeze the guest's filesystems for the instant, and thaw them after so many seconds in any case."""
INDICATIONS = "snapshot.hotvirt.io/indications"
"""On one that is ready: how it was taken, as KubeVirt's indications with commas between; empty where no guest had any
of the disks open."""
MACHINE = "snapshot.hotvirt.io/machine"
"""On them: keep with the disks what this VirtualMachine keeps beside them, its firmware's variables and its TPM."""
MEMORY = "snapshot.hotvirt.io/memory"
"""On a VirtualMachineSnapshot, "true": keep the guest's memory too, of the same instant; on its content and its
VolumeSnapshots likewise. On a VirtualMachineRestore, "false": the machine is to boot from the disks all the same."""
STATE_FROM = "restore.hotvirt.io/state-from"
"""On a VirtualMachine: the content whose state is to become the machine's, and "/memory" where its memory is, too. The
node takes it away when that is done, and starts no guest before."""
DEFAULT_CLASS = "snapshot.storage.kubernetes.io/is-default-class"

SOURCE_NAME, SOURCE_NAMESPACE = "snapshot.kubevirt.io/source-vm-name", "snapshot.kubevirt.io/source-vm-namespace"
SNAPSHOT_FINALIZER = "snapshot.kubevirt.io/vmsnapshot-protection"
RESTORE_FINALIZER = "snapshot.kubevirt.io/vmrestore-protection"
LAST_RESTORE, RESTORE_NAME = "restore.kubevirt.io/lastRestoreUID", "restore.kubevirt.io/name"
DEADLINE = 300.0
"""Seconds that a snapshot is tried, and that a restore waits for its machine to be stopped."""


def claims(vm: Document) -> dict[str, str]:
    """Volume -> claim, of what a machine writes to. Its container disks, and what is above an ephemeral volume, go
    with the guest."""
    volumes = ((vm.get("spec") or {}).get("template") or {}).get("spec", {}).get("volumes") or ()
    found = {v["name"]: disks.claim(v) for v in volumes if not v.get("ephemeral") and not v.get("memoryDump")}
    return {name: claim for name, claim in found.items() if claim}


def keeps_state(vm: Document) -> bool:
    """Whether the machine has anything beside its disks that outlives its guest."""
    domain = ((vm.get("spec") or {}).get("template") or {}).get("spec", {}).get("domain") or {}
    efi = ((domain.get("firmware") or {}).get("bootloader") or {}).get("efi") or {}
    tpm = (domain.get("devices") or {}).get("tpm") or {}
    return bool(efi.get("persistent")) or bool(tpm.get("persistent") and tpm.get("enabled") is not False)


def wants_memory(obj: Document) -> bool:
    return (obj["metadata"].get("annotations") or {}).get(MEMORY) == "true"


def refuses_memory(restore: Document) -> bool:
    return (restore["metadata"].get("annotations") or {}).get(MEMORY) == "false"


def state_from(vm: Document) -> tuple[str, bool]:
    """The content whose state is to become the machine's, "" for none, and whether the memory is to as well."""
    name, _, what = str((vm["metadata"].get("annotations") or {}).get(STATE_FROM) or "").partition("/")
    return name, what == "memory"


def restore_mark(restore: Document) -> str:
    """What a machine or claim that a restore has made carries as `LAST_RESTORE`."""
    return f"{restore['metadata']['name']}-{restore['metadata']['uid']}"


def is_restored(obj: Document, restore: Document) -> bool:
    return (obj["metadata"].get("annotations") or {}).get(LAST_RESTORE) == restore_mark(restore)


def class_of(driver: str, classes: list[Document]) -> str:
    """The VolumeSnapshotClass for a storage class of this provisioner; "" for none."""
    fitting = [each for each in classes if each.get("driver") == driver]
    default = [each for each in fitting if (each["metadata"].get("annotations") or {}).get(DEFAULT_CLASS) == "true"]
    chosen = default or fitting
    return str(chosen[0]["metadata"]["name"]) if chosen else ""
