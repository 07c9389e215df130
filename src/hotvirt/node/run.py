"""Puts the node agent together: what `home` runs on each machine. One event loop, no thread or process per guest."""

import asyncio
import logging
from typing import TYPE_CHECKING, NoReturn

from hotvirt.kube.client import Client
from hotvirt.kube.errors import AlreadyExists, ApiError, NotFound
from hotvirt.kube.events import Recorder
from hotvirt.kube.informer import Key, SharedInformers, key_of
from hotvirt.kube.resources import LEASES, NODES, PODS, VMIS, VMS
from hotvirt.kube.times import Clock, utc_now
from hotvirt.node import hostfacts
from hotvirt.node.access import LocalGuestAccess
from hotvirt.node.agent import NodeAgent
from hotvirt.node.cgroups import Cgroups
from hotvirt.node.credentials import Credentials
from hotvirt.node.dataplane import Dataplane
from hotvirt.node.dedicated import DedicatedCpus
from hotvirt.node.exportfiles import LocalExportFiles
from hotvirt.node.filekeeper import FileKeeper
from hotvirt.node.hostfacts import HostFacts
from hotvirt.node.imports import FIRST_USER as IMPORTING
from hotvirt.node.imports import Imports
from hotvirt.node.machinestate import Keeper
from hotvirt.node.memorydump import MemoryDumps
from hotvirt.node.network import Network
from hotvirt.node.places import Places
from hotvirt.node.podaccess import LocalPodStreams
from hotvirt.node.podrunner import PodRunner
from hotvirt.node.prober import Prober
from hotvirt.node.provisioner import Provisioner
from hotvirt.node.restoredstate import RestoredState
from hotvirt.node.room import Room
from hotvirt.node.snapshots import Snapshots
from hotvirt.node.uploads import Front, Uploads

if TYPE_CHECKING:
    from hotvirt.node.samples import GuestSample

log = logging.getLogger(__name__)

PAGES_INTERVAL = 5.0


class Node:
    """The parts of one node; `access` and `pods` are for the API's front, and find guests while `run` runs."""

    def __init__(
        self, client: Client, *, facts: HostFacts, places: Places, network: Network, cgroups: Cgroups,
        clock: Clock = utc_now, front: Front | None = None,
    ) -> None:  # fmt: skip
        self._client, self._facts, self._network, self._clock = client, facts, network, clock
        self._informers = informers = SharedInformers(client)
        self._pages: dict[str, int] = {}
        self._recorder = recorder = Recorder(client, "virt-handler", host=facts.node_name, clock=clock)
        self._pods, self._vmis = informers.of(PODS), informers.of(VMIS)
        self._runner = PodRunner(
            client, self._pods, node=facts.node_name, places=places, network=network, cgroups=cgroups, clock=clock
        )
        self._agent = NodeAgent(
            client, informers, facts=facts, places=places, network=network, recorder=recorder, clock=clock,
            cgroups=cgroups,
        )  # fmt: skip
        self._keeper = Keeper(informers.of(VMS), self._vmis, places=places)
        self._machines = informers.of(VMS)
        self._restored = RestoredState(client, informers, places=places, recorder=recorder)
        self._provisioner = Provisioner(
            client, informers, node=facts.node_name, places=places, recorder=recorder, clock=clock
        )
        self._imports = Imports(
            client, informers, places=places, recorder=recorder, user=IMPORTING if facts.gives_users else None
        )
        self._uploads = Uploads(self._imports, client, front, clock=clock) if front is not None else None
        self._room = Room(
            client, informers, agent=self._agent, node=facts.node_name, places=places, recorder=recorder
        )  # fmt: skip
        self._dumps = MemoryDumps(
            client, informers, agent=self._agent, node=facts.node_name, recorder=recorder, clock=clock
        )
        self._snapshots = Snapshots(
            client, informers, agent=self._agent, node=facts.node_name, places=places, recorder=recorder, clock=clock
        )
        self.export_files = LocalExportFiles(informers, places=places)
        self._credentials = Credentials(
            client, informers, agent=self._agent, node=facts.node_name, recorder=recorder, clock=clock
        )
        self._files = FileKeeper(
            informers, agent=self._agent, places=places, recorder=recorder, confine=facts.gives_users
        )
        self._dedicated = DedicatedCpus(
            informers, agent=self._agent, node=facts.node_name, places=places, recorder=recorder
        )
        self._prober = Prober(
            self._vmis, self._pods, agent=self._agent, node=facts.node_name, places=places, recorder=recorder,
            clock=clock,
        )  # fmt: skip
        self._runner.readiness = self._prober.readiness
        self._prober.changed = lambda pod: self._runner.controller.queue.add(key_of(pod))
        self._dataplane = Dataplane(informers, network, recorder=recorder)
        self.access = LocalGuestAccess(self._agent, clock=clock)
        self.pods = LocalPodStreams(client, self.access, node=facts.node_name, places=places, cgroups=cgroups)

    async def samples(self) -> "dict[Key, GuestSample]":
        """What each guest of this node uses now."""
        from hotvirt.node import samples  # for who asks

        found = {}
        for key, guest in self._agent.guests.items():
            vmi = self._vmis.get(key.name, key.namespace)
            found[key] = (guest, self._network.devices(vmi, uid=guest.uid) if vmi else {})
        return await samples.sample_all(found)

    async def run(self) -> NoReturn:
        """Until cancelled; guests go on."""
        await self._announce()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._informers.run())
                group.create_task(self._recorder.run())
                group.create_task(self._network.run())
                group.create_task(self._dataplane.run())
                await self._pods.synced()
                await self._runner.sweep()
                await self._machines.synced()
                await self._vmis.synced()
                self._keeper.sweep()
                await self._imports.begin()
                if self._uploads is not None:
                    await self._uploads.begin()
                self._snapshots.sweep()
                self.export_files.sweep()
                for each in (self._snapshots.controller, self._snapshots.contents):
                    group.create_task(each.run())
                group.create_task(self._runner.tend())
                group.create_task(self._follow_pages())
                group.create_task(self._room.run())
                group.create_task(self._prober.run())
                for part in (
                    self._runner, self._agent, self._provisioner, self._imports, self._dumps, self._credentials,
                    self._files, self._restored, self._dedicated,
                ):  # fmt: skip
                    group.create_task(part.controller.run())
        finally:
            self.access.close()
            self._files.close()
            await self._imports.close()
            if self._uploads is not None:
                await self._uploads.close()
            await self._agent.close()
        raise AssertionError("controllers never return")

    async def _follow_pages(self) -> NoReturn:
        """Somebody may set huge pages aside for a guest that waits for them: no event tells of it."""
        while True:
            await asyncio.sleep(PAGES_INTERVAL)
            try:
                if hostfacts.huge_pages() != self._pages:
                    await self._announce()
            except (ApiError, OSError) as error:
                log.warning("huge pages are not told of: %s", error)
                self._pages = {}

    async def _announce(self) -> None:
        """The Node object, written when the node starts; an idle node writes nothing."""
        try:
            known = await self._client.get(NODES, self._facts.node_name)
        except NotFound:
            known = None
        self._pages = hostfacts.huge_pages()
        node = hostfacts.node(self._facts, self._clock(), known=known, pages=self._pages)
        if known is None:
            await self._client.create(NODES, node)  # a node, unlike other objects, may come with its status
        else:
            await self._client.patch(NODES, self._facts.node_name, {"metadata": node["metadata"]})
            await self._client.patch(NODES, self._facts.node_name, {"status": node["status"]}, subresource="status")
        lease = hostfacts.lease(self._facts.node_name, self._clock())
        try:
            await self._client.create(LEASES, lease, hostfacts.LEASES_IN)
        except AlreadyExists:
            patch = {"spec": lease["spec"]}
            await self._client.patch(LEASES, self._facts.node_name, patch, hostfacts.LEASES_IN)
