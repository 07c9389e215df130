"""DataVolume -> claim, and what becomes of it -> status. What fills the claim is the node's (`node.imports`).

A data volume that reaches its end stays as the record of it. Deleting one deletes its claim, which it owns.
"""

from hotvirt.api import datavolumes
from hotvirt.api.quantity import format_bytes, parse_bytes
from hotvirt.controllers import datavolume_status
from hotvirt.controllers.datavolume_status import Seen
from hotvirt.kube import statuses
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import AlreadyExists, ApiError, Conflict, NotFound
from hotvirt.kube.events import Recorder
from hotvirt.kube.informer import Key, SharedInformers, key_of
from hotvirt.kube.reconciler import DONE, Controller, Result, owner
from hotvirt.kube.resources import (
    CLAIMS,
    DATA_SOURCES,
    DATA_VOLUMES,
    STORAGE_CLASSES,
    STORAGE_PROFILES,
    VOLUME_SNAPSHOTS,
)
from hotvirt.kube.times import Clock

DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
VIRT_DEFAULT_CLASS = "storageclass.kubevirt.io/is-default-virt-class"
SNAPSHOTS = "snapshot.storage.k8s.io"


class _Waits(Exception):
    """No claim can be made yet; the text says why."""


class DataVolumeController:
    def __init__(self, client: Client, informers: SharedInformers, *, recorder: Recorder, clock: Clock) -> None:
        self._client, self._recorder, self._clock = client, recorder, clock
        self._volumes, self._claims = informers.of(DATA_VOLUMES), informers.of(CLAIMS)
        self._classes, self._sources = informers.of(STORAGE_CLASSES), informers.of(DATA_SOURCES)
        self._profiles, self._snapshots = informers.of(STORAGE_PROFILES), informers.of(VOLUME_SNAPSHOTS)
        self.controller = Controller("datavolume", self.reconcile)
        self.controller.watch(self._volumes)
        self.controller.watch(self._claims, owner("DataVolume", datavolumes.GROUP))
        self.controller.watch(self._claims, _populated_for)
        for informer in (self._sources, self._classes, self._snapshots):
            self.controller.watch(informer, lambda _: self._unfinished())
        self.controller.needs(self._profiles)

    async def reconcile(self, key: Key) -> Result:
        volume = self._volumes.get(key.name, key.namespace)
        if volume is None or volume["metadata"].get("deletionTimestamp"):
            return DONE
        claim = self._claims.get(key.name, key.namespace)
        source, fault = self._source(volume)
        if claim is not None and is_to_adopt(volume, claim):
            claim = await self._adopt(volume, claim)
        is_owner = claim is not None and datavolumes.owner(claim) == key.name
        if not is_owner and datavolumes.PREPOPULATED in datavolumes.annotations(volume):
            return DONE  # whoever restores it makes the claim; until then all stays as it was said
        if claim is not None and datavolumes.owner(claim) != key.name:
            fault, claim = (
                f"a claim named {key.name} exists and is not this data volume's: delete it or rename this",
                None,
            )
        elif claim is None and not fault and not _is_over(volume):
            try:
                claim = await self._create(volume, source or {})
            except _Waits as waits:
                fault = str(waits)
            except ApiError as error:
                if isinstance(error, Conflict | AlreadyExists):
                    raise
                fault = f"the claim could not be made: {error.message}"
                self._recorder.event(volume, "Warning", "ErrClaimNotValid", fault)
        await self._report(volume, claim, source, fault)
        return Result(requeue_after=5) if fault else DONE

    async def _adopt(self, volume: Document, claim: Document) -> Document:
        metadata = claim["metadata"]
        patch = {
            "metadata": {
                "resourceVersion": metadata["resourceVersion"], "ownerReferences": [datavolumes.owned_by(volume)],
            }
        }  # fmt: skip
        written = await self._client.patch(CLAIMS, metadata["name"], patch, metadata["namespace"])
        self._claims.observe(written)
        return written

    def _source(self, volume: Document) -> tuple[Document | None, str]:
        """What is to be in it, or why that is not known."""
        spec, namespace = volume["spec"], volume["metadata"]["namespace"]
        if spec.get("source"):
            return spec["source"], ""
        ref = spec.get("sourceRef") or {}
        where, name = str(ref.get("namespace") or namespace), str(ref.get("name"))
        for _ in range(5):
            found = self._sources.get(name, where)
            if found is None:
                return None, f"there is no DataSource {name!r} in namespace {where}: create it"
            source, fault = datavolumes.stands_for(found["spec"].get("source") or {}, where)
            if source is None:
                return None, f"DataSource {name!r} in namespace {where}: {fault}"
            if "dataSource" not in source:
                return source, ""
            name = str(source["dataSource"]["name"])
        return None, f"DataSource {name!r} in namespace {where} leads to too many others"

    async def _create(self, volume: Document, source: Document) -> Document:
        namespace = volume["metadata"]["namespace"]
        given = volume["spec"].get("pvc") or volume["spec"].get("storage") or {}
        profile = self._profiles.get(str(given.get("storageClassName") or self._default_class()))
        size = self._size(source) if datavolumes.has_size(volume["spec"]) else ""
        claim = datavolumes.claim(volume, size=size, profile=(profile or {}).get("status"))
        if snapshot := source.get("snapshot"):
            if snapshot.get("namespace") not in (None, namespace):
                raise _Waits("source.snapshot.namespace: snapshots are restored in their own namespace: use that")
            reference = {"apiGroup": SNAPSHOTS, "kind": "VolumeSnapshot", "name": snapshot["name"]}
            claim["spec"] |= {"dataSource": reference, "dataSourceRef": reference}
        try:
            made = await self._client.create(CLAIMS, claim, namespace)
        except AlreadyExists:
            made = await self._client.get(CLAIMS, volume["metadata"]["name"], namespace)
        self._claims.observe(made)
        return made

    def _size(self, source: Document) -> str:
        """What a copy must be able to hold."""
        if pvc := source.get("pvc"):
            found = self._claims.get(str(pvc["name"]), str(pvc.get("namespace")))
            size = ((((found or {}).get("status") or {}).get("capacity")) or {}).get("storage")
            if not size:
                raise _Waits(f"claim {pvc['name']!r} in namespace {pvc.get('namespace')} is not there or not bound yet")
            return str(size)
        if snapshot := source.get("snapshot"):
            found = self._snapshots.get(str(snapshot["name"]), str(snapshot.get("namespace")))
            size = ((found or {}).get("status") or {}).get("restoreSize")
            if not size:
                raise _Waits(f"VolumeSnapshot {snapshot['name']!r} is not there or not ready yet")
            return format_bytes(parse_bytes(size))
        return ""

    def _default_class(self) -> str:
        for mark in (VIRT_DEFAULT_CLASS, DEFAULT_CLASS):
            for each in self._classes.list():
                if (each["metadata"].get("annotations") or {}).get(mark) == "true":
                    return str(each["metadata"]["name"])
        return ""

    async def _report(self, volume: Document, claim: Document | None, source: Document | None, fault: str) -> None:
        name = str(((claim or {}).get("spec") or {}).get("storageClassName") or "")
        request = datavolumes.request(source or {})
        seen = Seen(
            volume, claim, self._classes.get(name) if name else None, request.kind if request is not None else "", fault
        )
        patch = datavolume_status.status(seen, now=self._clock())
        if patch is None:
            return
        try:
            await statuses.write(self._client, self._volumes, volume, patch)
        except NotFound:
            return
        if (told := datavolume_status.event(seen, patch)) is not None:
            self._recorder.event(volume, "Normal", *told)

    def _unfinished(self) -> list[Key]:
        return [key_of(volume) for volume in self._volumes.list() if not _is_over(volume)]


def _populated_for(claim: Document) -> list[Key]:
    if claim["metadata"].get("ownerReferences"):
        return []
    name = datavolumes.annotations(claim).get(datavolumes.POPULATED_FOR)
    return [Key(claim["metadata"]["namespace"], str(name))] if name else []


def is_to_adopt(volume: Document, claim: Document) -> bool:
    """Whether a claim that nobody owns was made and filled for this data volume. Not before it is bound: what a data
    volume owns and is not bound is filled from its source."""
    said = datavolumes.annotations(claim).get(datavolumes.POPULATED_FOR)
    bound = (claim.get("status") or {}).get("phase") == "Bound"
    return bound and not claim["metadata"].get("ownerReferences") and said == volume["metadata"]["name"]


def _is_over(volume: Document) -> bool:
    """A claim that is deleted after the end does not come back."""
    return (volume.get("status") or {}).get("phase") == "Succeeded"
