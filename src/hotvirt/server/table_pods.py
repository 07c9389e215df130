"""The columns of pods. The status word follows kubectl's: the most telling of phase, init progress and containers."""

from datetime import datetime
from typing import Any

from hotvirt.server.tables import AGE, NAME, Column, Columns, age_of

Doc = dict[str, Any]
NONE = "<none>"


def _status(doc: Doc) -> dict[str, Any]:
    return doc.get("status") or {}


def _containers(doc: Doc) -> list[dict[str, Any]]:
    return _status(doc).get("containerStatuses") or []


def _is_sidecar(doc: Doc, name: str) -> bool:
    specs = (doc.get("spec") or {}).get("initContainers") or ()
    return any(c.get("name") == name and c.get("restartPolicy") == "Always" for c in specs)


def _sidecars(doc: Doc) -> list[dict[str, Any]]:
    return [c for c in _status(doc).get("initContainerStatuses") or () if _is_sidecar(doc, c.get("name", ""))]


def _ready(doc: Doc) -> str:
    spec = doc.get("spec") or {}
    sidecars = _sidecars(doc)
    total = len(spec.get("containers") or ()) + len(sidecars)
    up = sum(1 for c in _containers(doc) if c.get("ready") and (c.get("state") or {}).get("running") is not None)
    return f"{up + sum(1 for c in sidecars if c.get('ready'))}/{total}"


def _ended(terminated: dict[str, Any], prefix: str = "") -> str:
    if terminated.get("reason"):
        return f"{prefix}{terminated['reason']}"
    if terminated.get("signal"):
        return f"{prefix}Signal:{terminated['signal']}"
    return f"{prefix}ExitCode:{terminated.get('exitCode', 0)}"


def _init_word(doc: Doc) -> str | None:
    """What the init containers hold the pod up with; None when they are done."""
    statuses = _status(doc).get("initContainerStatuses") or []
    for index, container in enumerate(statuses):
        state = container.get("state") or {}
        ended, waiting = state.get("terminated"), state.get("waiting") or {}
        if (ended is not None and ended.get("exitCode", 0) == 0) or (
            _is_sidecar(doc, container.get("name", "")) and container.get("started")
        ):
            continue
        if ended is not None:
            return _ended(ended, "Init:")
        if waiting.get("reason") and waiting["reason"] != "PodInitializing":
            return f"Init:{waiting['reason']}"
        return f"Init:{index}/{len((doc.get('spec') or {}).get('initContainers') or statuses)}"
    return None


def _container_word(doc: Doc, word: str) -> str:
    running = False
    for container in reversed(_containers(doc)):
        state = container.get("state") or {}
        waiting, ended = state.get("waiting") or {}, state.get("terminated")
        if waiting.get("reason"):
            word = waiting["reason"]
        elif ended is not None:
            word = _ended(ended)
        elif container.get("ready") and state.get("running") is not None:
            running = True
    if word == "Completed" and running:
        ready = any(
            c.get("type") == "Ready" and c.get("status") == "True" for c in _status(doc).get("conditions") or ()
        )
        return "Running" if ready else "NotReady"
    return word


def _word(doc: Doc) -> str:
    status = _status(doc)
    word = str(status.get("reason") or status.get("phase") or "Unknown")
    gated = any(
        c.get("type") == "PodScheduled" and c.get("reason") == "SchedulingGated" for c in status.get("conditions") or ()
    )
    word = "SchedulingGated" if gated else word
    word = _init_word(doc) or _container_word(doc, word)
    if (doc.get("metadata") or {}).get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            return "Unknown"
        return word if status.get("phase") in ("Succeeded", "Failed") else "Terminating"
    return word


def _restarts(doc: Doc, now: datetime) -> str:
    counted = _containers(doc) + _sidecars(doc)
    total = sum(int(c.get("restartCount") or 0) for c in counted)
    ends = [((c.get("lastState") or {}).get("terminated") or {}).get("finishedAt") for c in counted]
    last = max((end for end in ends if end), default=None)
    return f"{total} ({age_of(last, now)} ago)" if total and last else str(total)


def _ip(doc: Doc) -> str:
    status = _status(doc)
    ips = status.get("podIPs") or ()
    return str((ips[0].get("ip") if ips else None) or status.get("podIP") or NONE)


def _node(doc: Doc) -> str:
    return str((doc.get("spec") or {}).get("nodeName") or NONE)


def _nominated(doc: Doc) -> str:
    return str(_status(doc).get("nominatedNodeName") or NONE)


def _gates(doc: Doc) -> str:
    gates = (doc.get("spec") or {}).get("readinessGates") or ()
    if not gates:
        return NONE
    true = {c.get("type") for c in _status(doc).get("conditions") or () if c.get("status") == "True"}
    return f"{sum(1 for gate in gates if gate.get('conditionType') in true)}/{len(gates)}"


POD_COLUMNS = Columns(
    (
        NAME,
        Column("Ready", _ready, description="Containers that are ready, of all."),
        Column("Status", _word, description="What the pod is doing."),
        Column("Restarts", read_at=_restarts, description="How often its containers were started again."),
        AGE,
        Column("IP", _ip, description="Address of the pod.", priority=1),
        Column("Node", _node, description="Node it runs on.", priority=1),
        Column("Nominated Node", _nominated, description="Node that is being cleared for it.", priority=1),
        Column("Readiness Gates", _gates, description="Gates that hold, of all.", priority=1),
    )
)
