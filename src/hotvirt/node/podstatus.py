"""The status of a launcher pod, of its process and of what its probe says, in the words of a kubelet. Pure."""

from datetime import datetime

from hotvirt.kube import conditions
from hotvirt.kube.client import Document
from hotvirt.kube.times import stamp

COMPUTE = "compute"
UNPAUSED = "kubevirt.io/virtual-machine-unpaused"


def is_ready(pod: Document, probed: bool | None) -> bool:
    """Whether the pod's container is, by what its readiness probe says: without one it is, and before it said anything
    it is as it was told to be."""
    if probed is not None or "readinessProbe" not in pod["spec"]["containers"][0]:
        return probed is not False
    return any(
        each.get("name") == COMPUTE and each.get("ready")
        for each in (pod.get("status") or {}).get("containerStatuses") or ()
    )


def running(pod: Document, address: str, now: datetime, *, ready: bool = True) -> Document:
    """Status of a pod whose process waits or runs. Pure."""
    found = (pod.get("status") or {}).get("conditions")
    for kind in ("PodScheduled", "Initialized", *gates(pod)):
        found = conditions.put(found, kind, True, now=now)
    for kind in ("ContainersReady", "Ready"):
        found = conditions.put(found, kind, ready, now=now, **_unready(ready))
    return {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "hostIP": "127.0.0.1",
        "startTime": stamp(now),
        "conditions": found,
        "containerStatuses": [{**_container(pod), **_started(now), "ready": ready}],
        **_beside(pod, _started(now)),
    }


def _started(now: datetime) -> Document:
    return {"ready": True, "started": True, "state": {"running": {"startedAt": stamp(now)}}}


def _beside(pod: Document, state: Document) -> Document:
    """Statuses of what runs beside the first container: nothing of its own, the home does its work."""
    found = pod["spec"].get("initContainers") or ()
    return {"initContainerStatuses": [{**_status_of(each), **state} for each in found]} if found else {}


def gates(pod: Document) -> list[str]:
    """Readiness gates that are open until a guest is paused. Others are for those who set them."""
    found = [each.get("conditionType") for each in pod["spec"].get("readinessGates") or ()]
    return [each for each in found if each == UNPAUSED]


def readiness(pod: Document, now: datetime, *, ready: bool = True) -> Document | None:
    """The status of a running pod with its container ready or not, and `Ready` as that and its readiness gates have it;
    None when it is so. Pure."""
    status = pod.get("status") or {}
    found = list(status.get("conditions") or ())
    asked = [str(each.get("conditionType")) for each in pod["spec"].get("readinessGates") or ()]
    closed = [each for each in asked if not conditions.is_true(found, each)]
    why = _unready(ready)
    new = conditions.put(found, "ContainersReady", ready, now=now, **why)
    if ready and closed:
        words = f"these readiness gates are not True: {', '.join(closed)}"
        why = {"reason": "ReadinessGatesNotReady", "message": words}
    if conditions.is_true(found, "Ready") is not (ready and not closed) or not ready:
        new = conditions.put(new, "Ready", ready and not closed, now=now, **why)
    if new == found:
        return None
    old = status.get("containerStatuses") or ()
    said = [{**each, "ready": ready} if each.get("name") == COMPUTE else each for each in old]
    return {"conditions": new, **({"containerStatuses": said} if said != list(old) else {})}


def _unready(ready: bool) -> dict[str, str]:
    """Why a pod is not ready by its container, as a kubelet words it."""
    if ready:
        return {}
    return {"reason": "ContainersNotReady", "message": f"containers with unready status: [{COMPUTE}]"}


def ended(
    pod: Document, *, outcome: str, code: int | None, log_tail: str, now: datetime, ran_out_of_memory: bool = False
) -> Document:
    """Status of a pod whose process is gone. What the node agent noted counts, else the exit status. Pure."""
    phase = outcome or ("Succeeded" if code == 0 else "Failed")
    found = (pod.get("status") or {}).get("conditions")
    for kind in ("ContainersReady", "Ready"):
        found = conditions.put(
            found, kind, False, now=now, reason="PodCompleted" if phase == "Succeeded" else "PodFailed"
        )
    # As a kubelet has it: 137 for what ended while nobody looked.
    exit_code = 137 if code is None and not outcome else code or 0
    finished = {
        "exitCode": 0 if phase == "Succeeded" else exit_code if exit_code >= 0 else 128 - exit_code,
        "reason": "Completed" if phase == "Succeeded" else "OOMKilled" if ran_out_of_memory else "Error",
        "message": log_tail[-1024:],
        "finishedAt": stamp(now),
    }
    if code is not None and code < 0:
        finished["signal"] = -code
    return {
        "phase": phase,
        "conditions": found,
        "containerStatuses": [{**_container(pod), "ready": False, "started": False, "state": {"terminated": finished}}],
        **_beside(pod, {"ready": False, "started": False, "state": {"terminated": {
            "exitCode": 0, "reason": "Completed", "finishedAt": finished["finishedAt"]}}}),
    }  # fmt: skip


def _container(pod: Document) -> Document:
    return _status_of(pod["spec"]["containers"][0])


def _status_of(container: Document) -> Document:
    return {"name": container["name"], "image": container.get("image", ""), "imageID": "", "restartCount": 0}
