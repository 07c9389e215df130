"""What a machine keeps beside its disks while it is off: its UEFI variables, its TPM, and memory it is to go on from.

A directory a machine, named by the uid of the VirtualMachine, or of the instance where nobody owns it. Only what is
asked to be persistent is in it. `Keeper` removes the directory once its machine is deleted. Snapshots hold copies of
it (`copy`), and `restoredstate` puts those in its place.
"""

import logging
import os
import shutil
from pathlib import Path

from hotvirt.images import publish
from hotvirt.kube.client import Document
from hotvirt.kube.informer import Change, Informer
from hotvirt.node.places import Places

log = logging.getLogger(__name__)

MEMORY = "memory"
"""What the names of files begin with that hold a guest's memory, see `keptmemory`: these are nobody's to copy."""


def identity(vmi: Document) -> str:
    """The uid of who the state belongs to. Pure."""
    metadata = vmi["metadata"]
    owners = metadata.get("ownerReferences") or ()
    owner = next((each for each in owners if each.get("controller") and each.get("kind") == "VirtualMachine"), None)
    return str(owner["uid"] if owner else metadata["uid"])


def directory(vmi: Document, places: Places) -> Path:
    """Made when it is not there yet. Others of this machine may pass through it, and see nothing."""
    found = places.machines / identity(vmi)
    found.mkdir(mode=0o711, parents=True, exist_ok=True)
    return found


def copy(places: Places, uid: str, target: Path) -> None:
    """What a machine keeps, as it is now; nothing yet is kept too. Its guest may run: the firmware mends what was cut
    short of its variables, and the TPM replaces its file as a whole."""
    source = places.machines / uid
    target.mkdir(mode=0o700, exist_ok=True)
    for directory, _, names in os.walk(source):
        here = target / Path(directory).relative_to(source)
        here.mkdir(mode=0o700, exist_ok=True)
        for name in names:
            if not name.startswith((".", MEMORY)):
                shutil.copyfile(Path(directory) / name, here / name)
                os.chmod(here / name, 0o600)
    sync(target)


def sync(directory: Path) -> None:
    """All of it is on disk when this returns."""
    for here, _, names in os.walk(directory):
        for name in names:
            publish.sync_path(Path(here) / name)
        publish.sync_path(Path(here))


class Keeper:
    """Run on the loop; `sweep` once both caches are filled."""

    def __init__(self, machines: Informer, instances: Informer, *, places: Places) -> None:
        self._machines, self._instances, self._places = machines, instances, places
        for informer in (machines, instances):
            informer.add_handler(self._note)

    def sweep(self) -> None:
        """At start: what belonged to machines that were deleted while nobody looked."""
        known = {each["metadata"]["uid"] for each in (*self._machines.list(), *self._instances.list())}
        found = self._places.machines.iterdir() if self._places.machines.exists() else ()
        for each in [each for each in found if each.name not in known]:
            self._remove(each)

    def _note(self, change: Change) -> None:
        gone = change.old if change.new is None else None
        if change.old and change.new and change.old["metadata"]["uid"] != change.new["metadata"]["uid"]:
            gone = change.old
        if gone is not None and (found := self._places.machines / gone["metadata"]["uid"]).exists():
            self._remove(found)

    def _remove(self, found: Path) -> None:
        log.info("machine %s is gone: removing its firmware's and TPM's state", found.name)
        shutil.rmtree(found, ignore_errors=True)
