"""Looks after the file systems of running guests: what is in those of ConfigMaps, Secrets and pods follows these, and a
server that died is told of, since QEMU would not.

An account's token is good for as long as the pod, so it is not renewed. What was deleted stays as it was last, as in a
pod. A guest's servers are with one worker at a time; a new home finds them by what is noted in the pod's directory.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable

from msgspec import DecodeError, json

from hotvirt.kube.client import Document
from hotvirt.kube.events import Recorder
from hotvirt.kube.informer import Change, Key, SharedInformers, key_of
from hotvirt.kube.reconciler import DONE, Controller, Result
from hotvirt.kube.resources import CONFIG_MAPS, PODS, SECRETS, VMIS
from hotvirt.node import contents, filesystems, servedfiles
from hotvirt.node.agent import NodeAgent
from hotvirt.node.places import Places
from hotvirt.qemu.process import Identity, Process

log = logging.getLogger(__name__)

BY_SOURCE = "node-file-system-source"
FOLLOWED = {"configMap": "name", "secret": "secretName", "downwardAPI": ""}
"""Kinds of volumes whose files follow their source, and the field that names it."""
ENDS_WITH_QEMU = 2.0
"""Seconds that a QEMU which is ending may outlive the servers of its file systems."""


class FileKeeper:
    def __init__(
        self, informers: SharedInformers, *, agent: NodeAgent, places: Places, recorder: Recorder, confine: bool,
    ) -> None:  # fmt: skip
        self._agent, self._places, self._recorder = agent, places, recorder
        self._owner = filesystems.FIRST_USER if confine else None
        self._vmis, self._pods = informers.of(VMIS), informers.of(PODS)
        self._sources = {"configMap": informers.of(CONFIG_MAPS), "secret": informers.of(SECRETS)}
        self._watched: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._lost: dict[tuple[str, str], float] = {}
        self._vmis.add_index(BY_SOURCE, source_keys)
        self.controller = Controller("file-systems", self.reconcile, workers=2)
        self.controller.watch(self._vmis, when=_has_file_systems)
        for kind, informer in self._sources.items():
            self.controller.watch(informer, self._users(kind))
        self.controller.watch(self._pods, self._users("downwardAPI"), when=_tells_anew)

    def _users(self, kind: str) -> Callable[[Document], Iterable[Key]]:
        def users(source: Document) -> list[Key]:
            return [key_of(vmi) for vmi in self._vmis.by_index(BY_SOURCE, _source(kind, source["metadata"]))]

        return users

    async def reconcile(self, key: Key) -> Result:
        vmi, guest = self._vmis.get(key.name, key.namespace), self._agent.guests.get(key)
        if vmi is None or guest is None or guest.is_gone or vmi["metadata"].get("deletionTimestamp"):
            return DONE  # with a start, all is as it is to be
        for name, volume in filesystems.wishes(vmi["spec"]).items():
            if any(volume.get(kind) for kind in FOLLOWED):
                await self._follow(vmi, guest.uid, name, volume)
        return self._watch(key, vmi, guest.uid)

    async def _follow(self, vmi: Document, uid: str, name: str, volume: Document) -> None:
        namespace = vmi["metadata"]["namespace"]

        async def lookup(kind: str, source: str) -> Document | None:
            if kind == "pod":
                return next((p for p in self._pods.list(namespace) if p["metadata"]["uid"] == uid), None)
            return self._sources[kind].get(source, namespace)

        try:
            content = await contents.of(volume, lookup)
        except contents.ContentError as error:
            log.info("file system %s of %s stays as it is: %s", name, key_of(vmi), error)
            return
        directory = self._places.pod(uid).served(name)
        if content is None or not directory.exists():
            return
        if await asyncio.to_thread(servedfiles.write, directory, content.files, owner=self._owner):
            log.info("file system %s of %s follows its source", name, key_of(vmi))

    def _watch(self, key: Key, vmi: Document, uid: str) -> Result:
        again = DONE
        for name in filesystems.wishes(vmi["spec"]):
            which = (uid, name)
            if which in self._watched and not self._watched[which].done():
                continue
            process = self._process(uid, name)
            if process is not None:
                self._watched[which] = asyncio.create_task(self._wait(key, which, process), name=f"virtiofsd {name}")
                continue
            now = asyncio.get_running_loop().time()
            since = self._lost.setdefault(which, now)
            if now - since < ENDS_WITH_QEMU:
                again = Result(requeue_after=ENDS_WITH_QEMU)
            elif since:
                self._lost[which] = 0.0  # told
                self._recorder.event(
                    vmi, "Warning", "FileSystemLost",
                    f"filesystems[{name}]: its server ended, and what the guest does there hangs: stop and start the "
                    f"machine (hotvirt stop, hotvirt start); the server's last words are in the home's log",
                )  # fmt: skip
                log.warning("virtiofsd of %s, %s, ended: %s", key, name, self._last_words(uid))
        return again

    def _last_words(self, uid: str) -> str:
        from hotvirt.qemu.launch import read_log

        return read_log(self._places.pod(uid).file_systems_log, limit=1024)

    def _process(self, uid: str, name: str) -> Process | None:
        try:
            identity = json.decode(self._places.pod(uid).server(name).read_bytes(), type=Identity)
        except (FileNotFoundError, DecodeError):
            return None
        return Process.open(identity, collect=False)

    async def _wait(self, key: Key, which: tuple[str, str], process: Process) -> None:
        try:
            with process:
                await process.ended()
        finally:
            self._watched.pop(which, None)
        self.controller.queue.add(key)

    def close(self) -> None:
        for task in list(self._watched.values()):
            task.cancel()


def source_keys(vmi: Document) -> list[str]:
    """What the file systems of an instance follow."""
    found = []
    for volume in filesystems.wishes(vmi.get("spec") or {}).values():
        for kind, field in FOLLOWED.items():
            if (given := volume.get(kind)) is not None:
                name = given.get(field) if field else vmi["metadata"]["name"]
                found.append(_source(kind, {"namespace": vmi["metadata"].get("namespace"), "name": name}))
    return found


def _source(kind: str, metadata: Document) -> str:
    name = metadata["name"]
    if kind == "downwardAPI":  # of a pod, whose instance's name is what is indexed
        name = next((o["name"] for o in metadata.get("ownerReferences") or () if o.get("controller")), name)
    return f"{kind}/{metadata.get('namespace') or ''}/{name}"


def _has_file_systems(change: Change) -> bool:
    return bool(filesystems.wishes((change.new or change.old or {}).get("spec") or {}))


def _tells_anew(change: Change) -> bool:
    """Whether a downward API volume may say something else of the pod."""
    if change.old is None or change.new is None or change.relisted:
        return change.new is not None
    return any(change.old["metadata"].get(f) != change.new["metadata"].get(f) for f in ("labels", "annotations"))
