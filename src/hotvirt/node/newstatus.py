"""What a new status of a running guest is worth telling of, as events of its instance. Pure.

A guest that stands still or goes on, and volumes that came to a new phase, grew or went, in KubeVirt's words.
"""

from collections.abc import Iterator

from hotvirt.api import quantity
from hotvirt.kube import conditions
from hotvirt.kube.client import Document
from hotvirt.kube.events import EventKind

Event = tuple[EventKind, str, str]
"""(kind, reason, message)."""


def events(vmi: Document, patch: Document) -> Iterator[Event]:
    """Of the merge patch that is about to be made."""
    was, new = vmi.get("status") or {}, patch["status"]
    if new.get("phase") == "Running":
        yield "Normal", "Created", "VirtualMachineInstance defined."
        yield "Normal", "Started", "VirtualMachineInstance started."
    found = new.get("conditions")
    if found is not None and (still := conditions.is_true(found, "Paused")) != conditions.is_true(
        was.get("conditions"), "Paused"
    ):
        yield ("Normal", "Paused", "the guest stands still") if still else ("Normal", "Resumed", "the guest goes on")
    if "volumeStatus" in new:
        yield from _volumes({v["name"]: v for v in was.get("volumeStatus") or ()}, new["volumeStatus"])


def _volumes(old: dict[str, Document], new: list[Document]) -> Iterator[Event]:
    for entry in new:
        name, phase, reason = entry["name"], entry.get("phase"), entry.get("reason")
        before = old.get(name) or {}
        if phase and (phase, reason) != (before.get("phase"), before.get("reason")):
            refused = phase == "Failed" or (phase == "Detaching" and reason != "Detaching")
            yield "Warning" if refused else "Normal", reason or phase, f"volume {name}: {entry.get('message', phase)}"
        if 0 < (had := before.get("size") or 0) < (has := entry.get("size") or 0):
            words = f"volume {name} grew from {quantity.format_bytes(had)} to {quantity.format_bytes(has)}"
            yield "Normal", "VolumeGrown", words
    left = {entry["name"] for entry in new}
    for name, before in old.items():
        if name not in left and before.get("phase") is not None:
            yield "Normal", "VolumeUnplugged", f"volume {name} was taken from the guest"
