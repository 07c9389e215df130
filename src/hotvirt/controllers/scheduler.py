"""Pods without a node -> a node: the scheduler of a home (a cluster has its own).

One worker, so that two pods never get the same room. A pod that fits nowhere says so in its `PodScheduled` condition
and waits until room appears: a pod went, ended or shrank, or a node changed. Nothing is tried again without a cause.
"""

from hotvirt.controllers.placement import FINAL, Demand, Unfit, frees_room, node_changed, place, used
from hotvirt.kube import conditions, statuses
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import Conflict, NotFound
from hotvirt.kube.events import Recorder
from hotvirt.kube.informer import Change, Key, SharedInformers, key_of
from hotvirt.kube.reconciler import DONE, Controller, Result
from hotvirt.kube.resources import NODES, PODS
from hotvirt.kube.times import Clock

NAME = "default-scheduler"


class Scheduler:
    def __init__(self, client: Client, informers: SharedInformers, *, recorder: Recorder, clock: Clock) -> None:
        self._client, self._recorder, self._clock = client, recorder, clock
        self._pods, self._nodes = informers.of(PODS), informers.of(NODES)
        self._waiting: set[Key] = set()
        self._bound: dict[Key, tuple[str, str]] = {}
        self.controller = Controller("scheduler", self.reconcile, workers=1)
        self.controller.watch(self._pods, _unassigned)
        self.controller.watch(self._nodes, lambda _: tuple(self._waiting), when=node_changed)
        self._pods.add_handler(self._follow)

    async def reconcile(self, key: Key) -> Result:
        pod = self._pods.get(key.name, key.namespace)
        if pod is None or not list(_unassigned(pod)) or self._is_bound(key, pod):
            self._waiting.discard(key)
            return DONE
        choice = place(pod, self._nodes.list(), self._used())
        if isinstance(choice, Unfit):
            self._waiting.add(key)
            await self._refuse(pod, choice)
        else:
            await self._bind(key, pod, choice)
            self._waiting.discard(key)
        return DONE

    def _used(self) -> dict[str, Demand]:
        """With the pods whose binding the cache has not shown yet."""
        return used(self._pods.list(), dict(self._bound.values()))

    def _is_bound(self, key: Key, pod: Document) -> bool:
        bound = self._bound.get(key)
        return bound is not None and bound[0] == pod["metadata"]["uid"]

    async def _bind(self, key: Key, pod: Document, node: str) -> None:
        metadata = pod["metadata"]
        self._bound[key] = (metadata["uid"], node)
        binding = {
            "apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": key.name, "namespace": key.namespace, "uid": metadata["uid"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }  # fmt: skip
        try:
            await self._client.post(PODS, key.name, "binding", binding, key.namespace)
        except (NotFound, Conflict):
            # Gone, or bound by somebody else: the watch tells, and room that this held is free again.
            self._bound.pop(key, None)
        except BaseException:
            self._bound.pop(key, None)
            raise

    async def _refuse(self, pod: Document, unfit: Unfit) -> None:
        found = (pod.get("status") or {}).get("conditions") or []
        new = conditions.put(
            found, "PodScheduled", False, now=self._clock(), reason="Unschedulable", message=unfit.message
        )
        if new == found:
            return
        try:
            await statuses.write(self._client, self._pods, pod, {"conditions": new})
        except NotFound:
            return
        self._recorder.event(pod, "Warning", "FailedScheduling", unfit.message)

    def _follow(self, change: Change) -> None:
        """Forgets bindings that the cache shows by now, and brings up those who wait when a pod frees room."""
        pod = change.object
        if change.new is None or pod["spec"].get("nodeName"):
            self._bound.pop(key_of(pod), None)
        if frees_room(change):
            for key in self._waiting:
                self.controller.queue.add(key)


def _unassigned(pod: Document) -> list[Key]:
    spec = pod["spec"]
    ours = (
        spec.get("schedulerName") in (None, "", NAME) and not spec.get("nodeName") and not spec.get("schedulingGates")
    )
    over = pod["metadata"].get("deletionTimestamp") or (pod.get("status") or {}).get("phase") in FINAL
    return [key_of(pod)] if ours and not over else []
