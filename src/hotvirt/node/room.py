"""Room on the disk that claims are on: guests that ran out of it go on once there is some, and how much there is told.

A guest whose write found no room is paused by QEMU, which holds the write; nothing is lost. It is let go on when the
file system has room again, and with growing pauses, as it may fill that at once. Before that guests are held, see
`holding`. What is free is shown as Kubernetes has it, a CSIStorageCapacity of each class, and written only when it
differs much. One task, for all guests of a node.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from hotvirt.api.quantity import format_bytes, parse_bytes
from hotvirt.kube import conditions
from hotvirt.kube.backoff import Backoff
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import AlreadyExists, ApiError, NotFound
from hotvirt.kube.events import Recorder
from hotvirt.kube.informer import Key, SharedInformers, key_of
from hotvirt.kube.resources import CLAIMS, STORAGE_CLASSES, VMIS, VOLUMES, Resource
from hotvirt.node import holding, power
from hotvirt.node.agent import NodeAgent
from hotvirt.node.directoryclaims import KEEP_FREE
from hotvirt.node.guest import Guest
from hotvirt.node.holding import Space
from hotvirt.node.places import Places
from hotvirt.node.volumes import PROVISIONER
from hotvirt.qemu.errors import QemuError

log = logging.getLogger(__name__)

CAPACITIES = Resource("storage.k8s.io", "v1", "csistoragecapacities", "CSIStorageCapacity")
NAMESPACE = "kubevirt"
ENOUGH = 16 << 20
"""Bytes free with which a guest is let go on."""
DIFFERS = 0.05
PATIENCE = 5.0
"""Seconds that a QEMU may take to answer: the next look at all guests waits for it."""
AGAIN = Backoff(base=5, cap=120)


class Room:
    def __init__(
        self, client: Client, informers: SharedInformers, *, agent: NodeAgent, node: str, places: Places,
        recorder: Recorder, usage: Callable[[Path], tuple[int, int]] = holding.usage_of,
    ) -> None:  # fmt: skip
        self._client, self._agent, self._node, self._places = client, agent, node, places
        self._recorder, self._usage = recorder, usage
        self._vmis, self._classes = informers.of(VMIS), informers.of(STORAGE_CLASSES)
        self._claims, self._pvs = informers.of(CLAIMS), informers.of(VOLUMES)
        self._tries: dict[Key, tuple[int, float]] = {}
        self._taken: dict[str, dict[Path, int]] = {}
        """By guest, the room that its disks took when they were last looked at."""

    async def run(self) -> NoReturn:
        for informer in (self._vmis, self._classes, self._claims, self._pvs):
            await informer.synced()
        told = 0.0
        while True:
            try:
                if _now() >= told:
                    await self._tell()
                    told = _now() + holding.SELDOM
                await self._hold()
                await self._let_go_on()
            except (ApiError, QemuError, OSError) as error:
                log.warning("room for claims: %s", error)
            await asyncio.sleep(self._pause())

    def _pause(self) -> float:
        try:
            return holding.look_again(self._spaces())
        except OSError:
            return holding.SOON

    def _spaces(self) -> list[Space]:
        """Of volumes first; of pods too where that is another file system."""
        places = [each for each in (self._places.volumes, self._places.pods) if each.exists()]
        by_device = {each.stat().st_dev: each for each in reversed(places)}
        return [holding.space(each, self._usage) for each in by_device.values()]

    async def _hold(self) -> None:
        """Guests that take what little room is left stand still, and go on once there is more."""
        spaces = {each.where.stat().st_dev: each for each in self._spaces()}
        self._taken = {guest.uid: self._taken.get(guest.uid, {}) for guest in self._agent.guests.values()}
        # At once, and each by itself: one whose QEMU hangs must not have the others fill the disk meanwhile.
        await asyncio.gather(*(self._hold_if_short(*each, spaces) for each in list(self._agent.guests.items())))

    async def _hold_if_short(self, key: Key, guest: Guest, spaces: Mapping[int, Space]) -> None:
        vmi = self._vmis.get(key.name, key.namespace)
        if vmi is None or guest.is_gone:
            return
        try:
            disks = holding.thin_disks(vmi, guest.place, self._claims, self._pvs)
            before, self._taken[guest.uid] = self._taken[guest.uid], disks
            on = [space for each in disks if (space := spaces.get(_device(each))) is not None]
            if holding.held(guest.place):
                await self._look_at_held(vmi, guest, has_room=all(space.has_room for space in on))
                return
            short = [spaces[_device(each)] for each in holding.grown(before, disks) if _device(each) in spaces]
            if before and (space := next((each for each in short if each.is_short), None)) is not None:
                await self._hold_one(vmi, guest, space)
        except (QemuError, OSError) as error:
            log.warning("room for %s: %s", key, error)

    async def _hold_one(self, vmi: Document, guest: Guest, space: Space) -> None:
        if not (await guest.monitor.execute("query-status", timeout=PATIENCE))["running"]:
            return
        why = holding.words(space)
        holding.hold(guest.place, why)
        await guest.monitor.execute("stop")
        self._recorder.event(vmi, "Warning", "NoRoom", why)
        guest.poke()

    async def _look_at_held(self, vmi: Document, guest: Guest, *, has_room: bool) -> None:
        stands = (await guest.monitor.execute("query-status", timeout=PATIENCE))["status"] == "paused"
        if stands and not has_room:
            return
        if stands:
            await guest.monitor.execute("cont")
            self._recorder.event(vmi, "Normal", "Resumed", "there is room for its disks again: the guest goes on")
        holding.release(guest.place)  # one that a person let go on is held again once it writes
        guest.poke()

    async def _let_go_on(self) -> None:
        stopped = {key_of(vmi): vmi for vmi in self._vmis.list() if self._ran_out(vmi)}
        for key in set(self._tries) - stopped.keys():
            if self._tries[key][1] < _now():  # until then it may run out again in a moment
                del self._tries[key]
        for key, vmi in stopped.items():
            failures, not_before = self._tries.get(key, (0, 0.0))
            if _now() < not_before or not self._has_room():
                continue
            guest = await self._agent.guest_of(key)
            if guest is None:
                continue
            self._tries[key] = (failures + 1, _now() + AGAIN.delay(failures + 1))
            try:
                await power.unpause(guest)
            except ApiError as error:
                log.debug("guest %s does not go on: %s", key, error)
                continue
            self._recorder.event(vmi, "Normal", "Resumed", "there is room for its disks again: the guest goes on")
            guest.poke()

    def _ran_out(self, vmi: Document) -> bool:
        """Not one that a person paused, nor one with a broken disk: going on would lose the write."""
        paused = conditions.of(vmi, "Paused") or {}
        here = (vmi.get("status") or {}).get("nodeName") == self._node
        words = str(paused.get("message") or "")
        return here and paused.get("reason") == "PausedIOError" and "no room left" in words

    def _has_room(self) -> bool:
        return all(self._usage(path)[1] >= ENOUGH for path in (self._places.volumes, self._places.pods))

    async def _tell(self) -> None:
        free = max(0, self._usage(self._places.volumes)[1] - KEEP_FREE) >> 20 << 20
        for storage_class in self._classes.list():
            if storage_class.get("provisioner") == PROVISIONER:
                await self._capacity(storage_class["metadata"]["name"], free)

    async def _capacity(self, storage_class: str, free: int) -> None:
        name = f"{storage_class}-{self._node}".lower()
        wanted = format_bytes(free)
        try:
            known = await self._client.get(CAPACITIES, name, NAMESPACE)
        except NotFound:
            made = {
                "apiVersion": CAPACITIES.api_version, "kind": CAPACITIES.kind, "metadata": {"name": name},
                "storageClassName": storage_class, "capacity": wanted, "maximumVolumeSize": wanted,
                "nodeTopology": {"matchLabels": {"kubernetes.io/hostname": self._node}},
            }  # fmt: skip
            try:
                await self._client.create(CAPACITIES, made, NAMESPACE)
            except AlreadyExists:
                pass
            return
        if differs(parse_bytes(known.get("capacity") or "0"), free):
            patch = {"capacity": wanted, "maximumVolumeSize": wanted}
            await self._client.patch(CAPACITIES, name, patch, NAMESPACE)


def differs(known: int, free: int) -> bool:
    """Enough to be written. Pure."""
    return abs(known - free) > DIFFERS * max(known, free)


def _device(path: Path) -> int:
    return path.lstat().st_dev


def _now() -> float:
    return asyncio.get_running_loop().time()
