import asyncio
import importlib.util
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hotvirt.api.defaults import ClusterSettings, instance
from hotvirt.controllers.instance import InstanceController
from hotvirt.controllers.scheduler import Scheduler
from hotvirt.controllers.virtualmachine import VirtualMachineController
from hotvirt.kube import conditions
from hotvirt.kube.events import Recorder
from hotvirt.kube.informer import SharedInformers
from hotvirt.kube.resources import NODES, PODS, VMIS
from hotvirt.kube.times import stamp

path = Path(__file__).parents[1] / "kube" / "memory_api.py"
spec = importlib.util.spec_from_file_location("memory_api", path)
memory_api = importlib.util.module_from_spec(spec)
spec.loader.exec_module(memory_api)


class Clock:
    """Stands still until told; loop time is looptime's."""

    def __init__(self):
        self.began = None

    def __call__(self):
        loop = asyncio.get_running_loop()
        if self.began is None:
            self.began = loop.time()
        return datetime.fromtimestamp(1_767_225_600 + loop.time() - self.began, UTC)


@pytest.fixture
async def api():
    return memory_api.MemoryApi()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def controlled(api, clock):
    """`async with controlled(InstanceController, ...) as made:` runs them over `api`."""

    @asynccontextmanager
    async def run(*kinds, client=api):
        informers, recorder = SharedInformers(client), Recorder(api, "test", clock=clock)
        made = [kind(client, informers, recorder=recorder, clock=clock) for kind in kinds]
        tasks = [asyncio.create_task(coroutine) for coroutine in (
            informers.run(), recorder.run(), *(each.controller.run() for each in made))]  # fmt: skip
        try:
            await asyncio.sleep(0.1)
            yield made
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    return run


def make_node(name="one", *, cpu="4", memory="8Gi", labels=None, **spec):
    return {
        "metadata": {"name": name, "labels": {"kubevirt.io/schedulable": "true", **(labels or {})}},
        "spec": spec,
        "status": {
            "allocatable": {"cpu": cpu, "memory": memory},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def make_vmi(name="web", *, uid="u-1", owner=None, volumes=(), status=None, domain=None, **spec):
    """A defaulted instance; `owner`: the VM's document."""
    metadata = {"name": name, "namespace": "default", "uid": uid, "resourceVersion": "5",
                "finalizers": ["kubevirt.io/foregroundDeleteVirtualMachine"]}  # fmt: skip
    if owner:
        metadata["ownerReferences"] = [
            {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "name": owner["metadata"]["name"],
             "uid": owner["metadata"]["uid"], "controller": True}
        ]  # fmt: skip
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": metadata,
        "spec": {
            "domain": domain or {"memory": {"guest": "1Gi", "maxGuest": "4Gi"},
                                 "cpu": {"sockets": 1, "cores": 1, "threads": 1, "maxSockets": 4}},
            "volumes": list(volumes),
            **spec,
        },
        **({"status": status} if status else {}),
    }  # fmt: skip


def make_vm(name="web", *, strategy="Always", volumes=(), domain=None, template=None, status=None, **spec):
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": name, "namespace": "default", "uid": f"vm-{name}", "generation": 1,
                     "resourceVersion": "3"},
        "spec": {
            **({"runStrategy": strategy} if strategy else {}),
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "domain": domain or {"memory": {"guest": "1Gi", "maxGuest": "4Gi"},
                                         "cpu": {"sockets": 1, "maxSockets": 4}, "devices": {}},
                    "volumes": list(volumes),
                    **(template or {}),
                },
            },
            **spec,
        },
        **({"status": status} if status else {}),
    }  # fmt: skip


@pytest.fixture
def make():
    """Makers of documents."""

    class Make:
        node, vmi, vm = staticmethod(make_node), staticmethod(make_vmi), staticmethod(make_vm)

    return Make


class Guests:
    """Plays pods, node and guests at once: an instance runs as soon as it is there, and goes when it is told to.
    Those named in `broken` fail instead; nothing moves while not `runs`."""

    def __init__(self, api, clock):
        self.api, self.clock, self.broken, self.runs = api, clock, set(), True

    async def run(self):
        while True:
            changed = self.api._changed
            for vmi in self.api.all(VMIS) if self.runs else ():
                await self.play(vmi)
            await changed.wait()

    async def play(self, vmi):
        name, phase = vmi["metadata"]["name"], vmi.get("status", {}).get("phase")
        if vmi["metadata"].get("deletionTimestamp"):
            await self.api.patch(VMIS, name, {"metadata": {"finalizers": None}})
        elif not phase:
            end = "Failed" if name in self.broken else "Running"
            await self.become(vmi, end)

    async def become(self, vmi, phase):
        ready = {"type": "Ready", "status": str(phase == "Running"), "lastTransitionTime": stamp(self.clock())}
        topology = {"sockets": 1, "cores": 1, "threads": 1}
        await self.api.patch(
            VMIS, vmi["metadata"]["name"],
            {"status": {"phase": phase, "conditions": [ready, {"type": "AgentConnected", "status": "True"}],
                        "nodeName": "one", "currentCPUTopology": topology,
                        "phaseTransitionTimestamps": [
                            {"phase": phase, "phaseTransitionTimestamp": stamp(self.clock())}]}},
        )  # fmt: skip


@pytest.fixture
async def guests(api, clock):
    """See `Guests`; creating an instance applies KubeVirt's defaults."""
    create = api.create

    async def create_with_defaults(resource, obj, namespace=None, **kwargs):
        if resource is VMIS:
            obj = instance(obj, ClusterSettings())
        return await create(resource, obj, namespace, **kwargs)

    api.create = create_with_defaults
    played = Guests(api, clock)
    task = asyncio.create_task(played.run())
    yield played
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class Node:
    """Runs what is bound to it: pods at once, guests with them. `broken` guests fail before they run; those with the
    `stuck` hostname cannot be started."""

    def __init__(self, api, clock):
        self.api, self.clock, self.broken, self.runs, self.stuck = api, clock, False, True, ""

    async def run(self):
        while True:
            changed = self.api._changed
            if self.runs:
                for pod in self.api.all(PODS):
                    await self.pod(pod)
                for vmi in self.api.all(VMIS):
                    await self.vmi(vmi)
            await changed.wait()

    async def pod(self, pod):
        if pod["spec"].get("nodeName") and pod.get("status", {}).get("phase") != "Running":
            gates = [each["conditionType"] for each in pod["spec"]["readinessGates"]]
            ready = [{"type": kind, "status": "True"} for kind in (*gates, "Ready")]
            status = {"phase": "Running", "podIP": "10.0.0.2", "qosClass": "Burstable",
                      "conditions": [*pod["status"]["conditions"], *ready],
                      "containerStatuses": [{"name": "compute", "ready": True}]}  # fmt: skip
            await self.api.patch(PODS, pod["metadata"]["name"], {"status": status}, subresource="status")

    async def vmi(self, vmi):
        phase = vmi.get("status", {}).get("phase")
        if phase == "Scheduled" and self.stuck and self.stuck == vmi["spec"].get("hostname"):
            found = vmi["status"]["conditions"]
            if conditions.get(found, "Synchronized") is None:
                stuck = {"type": "Synchronized", "status": "False", "reason": "SyncFailed", "message": "corrupt"}
                await self.api.patch(VMIS, vmi["metadata"]["name"], {"status": {"conditions": [*found, stuck]}})
        elif phase == "Scheduled" and self.broken:
            await self.end(vmi, "Failed")
        elif phase == "Scheduled":
            await self.end(vmi, "Running")
        elif phase == "Running" and vmi["metadata"].get("deletionTimestamp"):
            await self.end(vmi, "Succeeded")

    async def end(self, vmi, phase):
        status = {"phase": phase}
        if phase == "Failed":
            why = {"type": "Synchronized", "status": "False", "reason": "Failed", "message": "no bootable disk"}
            status["conditions"] = [*vmi["status"]["conditions"], why]
        if phase == "Running":
            now = self.clock()
            entry = {"phase": phase, "phaseTransitionTimestamp": now.isoformat()}
            status["phaseTransitionTimestamps"] = [*vmi["status"]["phaseTransitionTimestamps"], entry]
            status["conditions"] = conditions.put(vmi["status"]["conditions"], "Ready", True, now=now)
        await self.api.patch(VMIS, vmi["metadata"]["name"], {"status": status})


@pytest.fixture
def home(api, clock, controlled, caplog):
    """`async with home() as node:` everything that runs in a home; creating a VMI applies KubeVirt's defaults."""
    create = api.create

    async def create_with_defaults(resource, obj, namespace=None, **kwargs):
        if resource is VMIS:
            obj = instance(obj, ClusterSettings())
        return await create(resource, obj, namespace, **kwargs)

    api.create = create_with_defaults

    @asynccontextmanager
    async def run(memory="16Gi", client=api):
        node = Node(api, clock)
        if not api.all(NODES):
            await api.create(NODES, {"metadata": {"name": "one", "labels": {"kubevirt.io/schedulable": "true"}}})
        await api.patch(NODES, "one", {"status": {"allocatable": {"cpu": "8", "memory": memory}}}, subresource="status")
        task = asyncio.create_task(node.run())
        try:
            async with controlled(VirtualMachineController, InstanceController, Scheduler, client=client):
                api.writes.clear()
                yield node
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert not [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]

    return run
