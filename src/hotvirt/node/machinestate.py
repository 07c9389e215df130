"""What a machine keeps beside its disks while it is off: its UEFI variables and its TPM.

A directory a machine, named by the uid of the VirtualMachine, or of the instance where nobody owns it. Only what is
asked to be persistent is in it. `Keeper` removes the directory once its machine is deleted.
"""

import logging
import shutil
from pathlib import Path

from hotvirt.kube.client import Document
from hotvirt.kube.informer import Change, Informer
from hotvirt.node.places import Places

log = logging.getLogger(__name__)


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
