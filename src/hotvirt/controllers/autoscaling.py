"""HorizontalPodAutoscalers of replica sets and pools, in a home. A cluster has a controller of its own.

Keeps the number of replicas within minReplicas and maxReplicas. Nothing measures load by the metrics API in a home, so
metrics move nothing, and the autoscaler's condition ScalingActive says so. `decide` is pure.
"""

from datetime import datetime

from msgspec import Struct

from hotvirt.controllers import replicas
from hotvirt.controllers import spec as specs
from hotvirt.kube import conditions, statuses
from hotvirt.kube.client import Client, Document
from hotvirt.kube.events import Recorder
from hotvirt.kube.informer import Key, SharedInformers, key_of
from hotvirt.kube.reconciler import DONE, Controller, Mapper, Result
from hotvirt.kube.resources import AUTOSCALERS, POOLS, REPLICA_SETS, Resource
from hotvirt.kube.times import Clock, stamp

TARGETS = (REPLICA_SETS, POOLS)
BY_TARGET = "target"
UNMEASURED = "a home does not measure load for autoscalers yet: set replicas with kubectl scale, between the limits"


class Verdict(Struct, frozen=True):
    """`replicas`: what to scale the target to, None to leave it. `status` is the autoscaler's, whole."""

    status: Document
    replicas: int | None = None
    why: str = ""


def decide(scaler: Document, target: Document | None, now: datetime) -> Verdict:
    before = scaler.get("status") or {}
    kept = ("currentReplicas", "desiredReplicas", "lastScaleTime", "conditions")
    status: Document = {key: before[key] for key in kept if key in before}
    status["observedGeneration"] = scaler["metadata"].get("generation", 1)
    found = list(status.get("conditions") or ())
    if target is None:
        reference = scaler["spec"]["scaleTargetRef"]
        what = f"{reference.get('kind')} {reference.get('name')}"
        message = f"there is no {what} that a home scales: name a pool or a replica set"
        found = _put(found, "AbleToScale", False, now=now, reason="FailedGetScale", message=message)
        return Verdict({**status, "conditions": found})
    has = replicas.wanted(target)
    least, most = int(scaler["spec"].get("minReplicas") or 1), int(scaler["spec"]["maxReplicas"])
    if has == 0:
        message = "scaling is off while the target's replicas are 0: kubectl scale it to switch it on"
        wants, found = 0, _put(found, "ScalingActive", False, now=now, reason="ScalingDisabled", message=message)
        limits = ("DesiredWithinRange", "the target is left as it is")
    else:
        wants = min(max(has, least), most)
        found = _put(found, "ScalingActive", False, now=now, reason="FailedGetResourceMetric", message=UNMEASURED)
        limits = _limits(has, least, most)
    found = _put(found, "ScalingLimited", wants != has, now=now, reason=limits[0], message=limits[1])
    told = f"scaled to {wants}" if wants != has else "as many as there should be"
    reason = "SucceededRescale" if wants != has else "ReadyForNewScale"
    found = _put(found, "AbleToScale", True, now=now, reason=reason, message=told)
    current = int((target.get("status") or {}).get("replicas") or 0)
    status |= {"currentReplicas": current, "desiredReplicas": wants, "conditions": found}
    if wants == has:
        return Verdict(status)
    return Verdict({**status, "lastScaleTime": stamp(now)}, wants, limits[1])


def _limits(has: int, least: int, most: int) -> tuple[str, str]:
    if has < least:
        return "TooFewReplicas", f"{has} replicas are fewer than minReplicas, {least}"
    if has > most:
        return "TooManyReplicas", f"{has} replicas are more than maxReplicas, {most}"
    return "DesiredWithinRange", "replicas are between the limits"


def _put(found: list[Document], kind: str, status: bool, *, now: datetime, reason: str, message: str) -> list[Document]:
    """An autoscaler's conditions know no probes."""
    new = conditions.put(found, kind, status, now=now, reason=reason, message=message)
    return [{key: value for key, value in each.items() if key != "lastProbeTime"} for each in new]


class AutoscalingController:
    def __init__(self, client: Client, informers: SharedInformers, *, recorder: Recorder, clock: Clock) -> None:
        self._client, self._recorder, self._clock = client, recorder, clock
        self._scalers = informers.of(AUTOSCALERS)
        self._targets = {each.kind: informers.of(each) for each in TARGETS}
        self._scalers.add_index(BY_TARGET, _target_of)
        self.controller = Controller("autoscaling", self.reconcile)
        self.controller.watch(self._scalers)
        for resource in TARGETS:
            self.controller.watch(self._targets[resource.kind], self._scalers_of(resource))

    async def reconcile(self, key: Key) -> Result:
        scaler = self._scalers.get(key.name, key.namespace)
        if scaler is None or specs.is_deleting(scaler):
            return DONE
        target = self._target(scaler)
        verdict = decide(scaler, target, self._clock())
        if verdict.replicas is not None and target is not None:
            await self._scale(scaler, target, verdict)
        if verdict.status != (scaler.get("status") or {}):
            await statuses.write(self._client, self._scalers, scaler, verdict.status)
        return DONE

    def _target(self, scaler: Document) -> Document | None:
        reference = scaler["spec"]["scaleTargetRef"]
        resource = _resource(reference)
        if resource is None:
            return None
        return self._targets[resource.kind].get(reference["name"], scaler["metadata"]["namespace"])

    async def _scale(self, scaler: Document, target: Document, verdict: Verdict) -> None:
        reference = scaler["spec"]["scaleTargetRef"]
        resource = _resource(reference)
        assert resource is not None, "a target was found by it"
        patch = {"spec": {"replicas": verdict.replicas}}
        namespace = target["metadata"]["namespace"]
        await self._client.patch(resource, reference["name"], patch, namespace, subresource="scale")
        self._recorder.event(
            scaler, "Normal", "SuccessfulRescale", f"New size: {verdict.replicas}; reason: {verdict.why}"
        )

    def _scalers_of(self, resource: Resource) -> Mapper:
        def mapper(target: Document) -> list[Key]:
            return [key_of(each) for each in self._scalers.by_index(BY_TARGET, f"{resource.kind} {key_of(target)}")]

        return mapper


def _resource(reference: Document) -> Resource | None:
    """What a scaleTargetRef names, of whichever version of its group."""
    group = str(reference.get("apiVersion") or "").rpartition("/")[0]
    return next((each for each in TARGETS if (each.group, each.kind) == (group, reference.get("kind"))), None)


def _target_of(scaler: Document) -> list[str]:
    """Index values."""
    reference = scaler["spec"]["scaleTargetRef"]
    resource = _resource(reference)
    return [f"{resource.kind} {Key(scaler['metadata']['namespace'], reference['name'])}"] if resource else []
