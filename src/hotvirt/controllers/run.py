"""All controllers over one client, sharing their caches."""

import asyncio
from collections.abc import Callable
from typing import NoReturn, Protocol

from hotvirt.controllers.autoscaling import AutoscalingController
from hotvirt.controllers.claims import Binder, Protection
from hotvirt.controllers.clone import CloneController
from hotvirt.controllers.datavolume import DataVolumeController
from hotvirt.controllers.datavolumetemplates import DataVolumeTemplates
from hotvirt.controllers.disruption import DisruptionController
from hotvirt.controllers.endpoints import EndpointsController
from hotvirt.controllers.export import Address, ExportController
from hotvirt.controllers.instance import InstanceController
from hotvirt.controllers.pool import PoolController
from hotvirt.controllers.replicaset import ReplicaSetController
from hotvirt.controllers.restore import RestoreController
from hotvirt.controllers.scheduler import Scheduler
from hotvirt.controllers.snapshot import SnapshotController
from hotvirt.controllers.storageprofiles import DataSources, StorageProfiles
from hotvirt.controllers.virtualmachine import VirtualMachineController
from hotvirt.kube.client import Client
from hotvirt.kube.events import Recorder
from hotvirt.kube.informer import SharedInformers
from hotvirt.kube.reconciler import Controller
from hotvirt.kube.times import Clock, utc_now


class _Controlled(Protocol):
    controller: Controller


async def run(
    client: Client,
    *,
    clock: Clock = utc_now,
    scheduler: bool = True,
    downloads: Callable[[], Address | None] = lambda: None,
) -> NoReturn:
    """Until cancelled. `scheduler` False where the cluster has its own, and kubelets that guard their nodes' room.
    `downloads`: where exports can be had from; None for nowhere."""
    informers = SharedInformers(client)
    said_by = {
        name: Recorder(client, name, clock=clock)
        for name in (
            "virtualmachine-controller", "instance-controller", "replicaset-controller", "pool-controller",
            "hotvirt-scheduler", "horizontal-pod-autoscaler", "snapshot-controller", "restore-controller",
            "clone-controller", "export-controller", "datavolume-controller",
        )
    }  # fmt: skip
    machines, instances, sets, pools, pods, scalers, *storage = said_by.values()
    snapshots, restores, clones, exports, filling = storage
    controlled: list[_Controlled] = [
        VirtualMachineController(client, informers, recorder=machines, clock=clock, guard_room=scheduler),
        InstanceController(client, informers, recorder=instances, clock=clock),
        ReplicaSetController(client, informers, recorder=sets, clock=clock),
        PoolController(client, informers, recorder=pools, clock=clock),
        DataVolumeTemplates(client, informers, recorder=machines),
        RestoreController(client, informers, recorder=restores, clock=clock),
        CloneController(client, informers, recorder=clones, clock=clock),
        ExportController(client, informers, recorder=exports, clock=clock, address=downloads),
    ]
    taking = SnapshotController(client, informers, recorder=snapshots, clock=clock)
    controlled.append(taking)
    if scheduler:
        controlled.append(Scheduler(client, informers, recorder=pods, clock=clock))
        controlled += [EndpointsController(client, informers), DisruptionController(client, informers, clock=clock)]
        controlled.append(AutoscalingController(client, informers, recorder=scalers, clock=clock))
        controlled += [Binder(client, informers), Protection(client, informers), StorageProfiles(client, informers)]
        controlled.append(DataVolumeController(client, informers, recorder=filling, clock=clock))
        controlled.append(DataSources(client, informers, clock=clock))
    async with asyncio.TaskGroup() as group:
        group.create_task(informers.run(), name="informers")
        for recorder in said_by.values():
            group.create_task(recorder.run(), name="events")
        group.create_task(taking.statuses.run(), name=taking.statuses.name)
        for each in controlled:
            group.create_task(each.controller.run(), name=each.controller.name)
    raise AssertionError("controllers never return")
