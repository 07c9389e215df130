"""The pod network kept as services, their endpoints, policies, pods and namespaces say.

One task: any change of these marks the state as new, and what there is then is published as a whole, changes that come
together at once. Nothing is remembered: a lost or repeated change alters nothing. Where the network routes nothing (no
root), who makes a service or a policy is told by an event, once for each. So is who has a policy that cannot be read,
which is enforced as one that allows nothing.
"""

import asyncio
import logging
from functools import partial
from typing import NoReturn

from hotvirt.kube.client import Document
from hotvirt.kube.events import Recorder
from hotvirt.kube.informer import Change, Informer, SharedInformers, key_of
from hotvirt.kube.resources import ENDPOINT_SLICES, NAMESPACES, NETWORK_POLICIES, PODS, SERVICES, VMIS
from hotvirt.node import policyrules
from hotvirt.node.network import Network, NetworkError
from hotvirt.node.world import World, is_headless

log = logging.getLogger(__name__)

GATHER = 0.05
PAUSE = 4.0
"""Times what the last one took, before the next: where many machines start, it would else be done for each of them."""
RETRY = 5.0
NOT_ROUTED = "NotRouted"
NOT_ENFORCED = "NotEnforced"
INVALID_POLICY = "InvalidPolicy"


class Dataplane:
    def __init__(self, informers: SharedInformers, network: Network, *, recorder: Recorder) -> None:
        self._network, self._recorder = network, recorder
        self._services, self._slices = informers.of(SERVICES), informers.of(ENDPOINT_SLICES)
        self._policies, self._pods = informers.of(NETWORK_POLICIES), informers.of(PODS)
        self._namespaces, self._instances = informers.of(NAMESPACES), informers.of(VMIS)
        self._changed = asyncio.Event()
        for informer in self._all():
            informer.add_handler(partial(self._note, informer.resource.kind))
        if network.kind == "user":
            self._services.add_handler(self._say_of_service)
            self._policies.add_handler(self._say_of_policy)
        else:
            self._policies.add_handler(self._say_of_unreadable)

    async def run(self) -> NoReturn:
        """Until cancelled; what is published stays."""
        for informer in self._all():
            await informer.synced()
        last: World | None = None
        self._changed.set()
        while True:
            await self._changed.wait()
            await asyncio.sleep(GATHER)
            self._changed.clear()
            world = self._world()
            if world == last:
                continue
            began = asyncio.get_running_loop().time()
            try:
                await self._network.publish(world)
                last = world
                await asyncio.sleep(PAUSE * (asyncio.get_running_loop().time() - began))
            except (NetworkError, OSError) as error:
                log.error("services and policies stay as they were: %s; trying again in %g s", error, RETRY)
                await asyncio.sleep(RETRY)
                self._changed.set()
            except Exception:
                # Of an object that nobody thought of. What was published stays, and the next change is tried.
                log.exception("services and policies stay as they were")

    def _all(self) -> tuple[Informer, ...]:
        return self._services, self._slices, self._policies, self._pods, self._namespaces, self._instances

    def _note(self, kind: str, change: Change) -> None:
        if change.old is None or change.new is None or matters(kind, change.old) != matters(kind, change.new):
            self._changed.set()

    def _world(self) -> World:
        services, slices, stored, pods, namespaces, instances = (_in_order(each) for each in self._all())
        policies = tuple(policyrules.enforced(each)[0] for each in stored)
        return World(
            services=services, slices=slices, policies=policies, pods=pods, namespaces=namespaces, instances=instances
        )  # fmt: skip

    def _say_of_service(self, change: Change) -> None:
        service = change.new
        if service is None or not (service.get("spec") or {}).get("selector") or is_headless(service):
            return
        self._recorder.event(
            service, "Warning", NOT_ROUTED,
            "this home runs without root, so nothing leads to the service's address or node port: reach a guest with "
            "'hotvirt port-forward', or run the home as root",
        )  # fmt: skip

    def _say_of_policy(self, change: Change) -> None:
        if change.new is None:
            return
        self._recorder.event(
            change.new, "Warning", NOT_ENFORCED,
            "this home runs without root, where a guest is reached by its forwarded ports alone, and what it may reach "
            "is not limited: run the home as root",
        )  # fmt: skip

    def _say_of_unreadable(self, change: Change) -> None:
        new, old = change.new, change.old
        if new is None or (old is not None and old.get("spec") == new.get("spec")):
            return
        policy, fault = policyrules.enforced(new)
        if fault is not None:
            ways = " and ".join(policyrules.types(policy))
            pods = "the pods that it selects" if policy["spec"]["podSelector"] else "all pods of its namespace"
            self._recorder.event(
                new, "Warning", INVALID_POLICY,
                f"{fault.field}: {fault.message}; until it is changed or deleted, the policy allows nothing to {pods} "
                f"({ways})",
            )  # fmt: skip


def _in_order(informer: Informer) -> tuple[Document, ...]:
    return tuple(matters(informer.resource.kind, each) for each in sorted(informer.list(), key=key_of))


def matters(kind: str, obj: Document) -> Document:
    """What rules and names are made of: so that the rest, which changes all the time, changes nothing. Pure."""
    metadata, status = obj["metadata"], obj.get("status") or {}
    found = {
        "metadata": {key: metadata.get(key) for key in ("name", "namespace", "uid", "labels")},
        "status": {key: status.get(key) for key in ("podIP", "phase")} if "podIP" in status else {},
    }
    if kind == "VirtualMachineInstance":
        spec = obj.get("spec") or {}
        devices = (spec.get("domain") or {}).get("devices") or {}
        return {**found, "spec": {"networks": spec.get("networks"), "domain": {"devices": {
            "interfaces": devices.get("interfaces")}}}}  # fmt: skip
    if kind == "Namespace":
        return found
    if kind == "Pod":  # not what it may use of the machine: rules written anew would slow each resize of its guest
        spec = obj.get("spec") or {}
        ports = [{"ports": each["ports"]} for each in spec.get("containers") or () if each.get("ports")]
        return {**found, "spec": {"hostname": spec.get("hostname"), "containers": ports}}
    return {**found, **{key: obj.get(key) for key in ("spec", "endpoints", "ports", "addressType") if key in obj}}
