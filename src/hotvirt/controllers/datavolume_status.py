"""A data volume's status, from its claim and what is said there by whoever fills it, in CDI's words. Pure."""

from datetime import datetime

from msgspec import Struct

from hotvirt.api import datavolumes
from hotvirt.kube import conditions
from hotvirt.kube.client import Document

_SCHEDULED = {"http": "Import", "registry": "Import", "blank": "Import", "pvc": "Clone", "snapshot": "Clone"}
EVENTS = {
    "ImportScheduled": "Import into {} scheduled",
    "ImportInProgress": "Import into {} in progress",
    "CloneScheduled": "Cloning into {} scheduled",
    "CloneInProgress": "Cloning into {} in progress",
    "UploadScheduled": "Upload into {} scheduled",
    "UploadReady": "Upload into {} ready",
    "WaitForFirstConsumer": "{} waits for its first consumer, or for the annotation " + datavolumes.BIND_NOW,
}
_DONE = {"Import": "Successfully imported into {}", "Clone": "Successfully cloned into {}"}


class Seen(Struct, frozen=True):
    """`kind`: of the source; "" while its DataSource says none. `fault`: why no claim is made."""

    volume: Document
    claim: Document | None = None
    storage_class: Document | None = None
    kind: str = ""
    fault: str = ""


def status(seen: Seen, *, now: datetime) -> Document | None:
    """The merge patch of the status; None when it says all this already."""
    old = seen.volume.get("status") or {}
    said = datavolumes.annotations(seen.claim) if seen.claim is not None else {}
    what = phase(seen)
    restarts = said.get(datavolumes.RESTARTS) or "0"
    new = {
        "phase": what,
        "claimName": seen.volume["metadata"]["name"],
        "progress": "100.0%" if what == "Succeeded" else said.get(datavolumes.PROGRESS) or "N/A",
        "restartCount": int(restarts) if restarts.isdigit() else 0,
        "conditions": shown(_conditions(seen, what, said, now)),
    }
    changed = {key: value for key, value in new.items() if old.get(key) != value}
    return changed or None


def shown(found: list[Document]) -> list[Document]:
    """CDI's conditions have no `lastProbeTime`."""
    return [{key: value for key, value in each.items() if value is not None} for each in found]


def phase(seen: Seen) -> str:
    claim = seen.claim
    if claim is None:
        return "Pending"
    said, bound = datavolumes.annotations(claim), (claim.get("status") or {}).get("phase")
    if bound == "Lost":
        return "Failed"
    if bound == "Bound":
        return "Succeeded"
    if not seen.kind:
        return "Pending"
    if datavolumes.waits_for_consumer(claim, seen.storage_class):
        return "WaitForFirstConsumer"
    verb = _SCHEDULED.get(seen.kind)
    pod = said.get(datavolumes.POD_PHASE) or ""
    if pod == "Failed":
        return "Failed"
    if verb is None:
        return "UploadReady" if pod in ("Running", "Succeeded") else "UploadScheduled"
    return f"{verb}InProgress" if pod in ("Running", "Succeeded") else f"{verb}Scheduled"


def event(seen: Seen, patch: Document) -> tuple[str, str] | None:
    """(reason, message) of the event that a new phase is worth."""
    what, name = str(patch.get("phase") or ""), seen.volume["metadata"]["name"]
    if what == "Succeeded":
        verb = _SCHEDULED.get(seen.kind, "Upload")
        return f"{verb}Succeeded", _DONE.get(verb, "Successfully uploaded into {}").format(name)
    return (what, EVENTS[what].format(name)) if what in EVENTS else None


def _conditions(seen: Seen, what: str, said: Document, now: datetime) -> list[Document]:
    name = seen.volume["metadata"]["name"]
    found = list((seen.volume.get("status") or {}).get("conditions") or ())
    bound = str(((seen.claim or {}).get("status") or {}).get("phase") or "")
    if seen.claim is None:
        found = conditions.put(
            found, "Bound", False, now=now, reason="NotFound", message=seen.fault or f"No PVC {name} found"
        )
    else:
        word = bound or "Pending"
        found = conditions.put(found, "Bound", bound == "Bound", now=now, reason=word, message=f"PVC {name} {word}")
    found = _running(found, seen, what, said, now)
    ready = what == "Succeeded"
    why = "" if ready else "TransferRunning" if said.get(datavolumes.RUNNING) == "true" else ""
    return conditions.put(found, "Ready", ready, now=now, reason=why)


def _running(found: list[Document], seen: Seen, what: str, said: Document, now: datetime) -> list[Document]:
    if what == "Succeeded":
        done = {"Import": "Import Complete", "Clone": "Clone Complete"}.get(
            _SCHEDULED.get(seen.kind, ""), "Upload Complete"
        )
        return conditions.put(found, "Running", False, now=now, reason="Completed", message=done)
    message = said.get(datavolumes.RUNNING_MESSAGE) or seen.fault
    runs = said.get(datavolumes.RUNNING) == "true"
    reason = said.get(datavolumes.RUNNING_REASON) or ("Error" if seen.fault else "")
    return conditions.put(found, "Running", runs, now=now, reason=reason, message="" if runs else message)
