"""A StorageProfile for each storage class, and the status of DataSources: what clients of CDI read before they ask.

The profile's spec is a person's, its status what holds: the spec where it says something, else what is known of the
class. A DataSource is ready when what it stands for is.
"""

from hotvirt.api import datavolumes
from hotvirt.api.datavolumes import GROUP
from hotvirt.controllers import datavolume_status
from hotvirt.kube import conditions, statuses
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import AlreadyExists, NotFound
from hotvirt.kube.informer import Key, SharedInformers, key_of
from hotvirt.kube.reconciler import DONE, Controller, Result
from hotvirt.kube.resources import CLAIMS, DATA_SOURCES, STORAGE_CLASSES, STORAGE_PROFILES, VOLUME_SNAPSHOTS
from hotvirt.kube.times import Clock

DIRECTORY = "hotvirt.io/directory"
_SETS = [
    {"accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem"},
    {"accessModes": ["ReadWriteOnce"], "volumeMode": "Block"},
]


class StorageProfiles:
    def __init__(self, client: Client, informers: SharedInformers) -> None:
        self._client = client
        self._classes, self._profiles = informers.of(STORAGE_CLASSES), informers.of(STORAGE_PROFILES)
        self.controller = Controller("storage-profiles", self.reconcile, workers=1)
        self.controller.watch(self._classes)
        self.controller.watch(self._profiles)

    async def reconcile(self, key: Key) -> Result:
        storage_class, profile = self._classes.get(key.name), self._profiles.get(key.name)
        if storage_class is None:
            if profile is not None:
                try:
                    await self._client.delete(STORAGE_PROFILES, key.name)
                except NotFound:
                    pass
            return DONE
        if profile is None:
            made = {
                "apiVersion": f"{GROUP}/v1beta1", "kind": "StorageProfile", "metadata": {"name": key.name}, "spec": {}
            }  # fmt: skip
            try:
                profile = await self._client.create(STORAGE_PROFILES, made)
            except AlreadyExists:
                return Result(requeue_after=1)
            self._profiles.observe(profile)
        if (status := profile_status(profile, storage_class)) != profile.get("status"):
            status = {**dict.fromkeys(profile.get("status") or {}), **status}
            await statuses.write(self._client, self._profiles, profile, status, guarded=False)
        return DONE


def profile_status(profile: Document, storage_class: Document) -> Document:
    """Pure."""
    said = profile.get("spec") or {}
    known = storage_class.get("provisioner") == DIRECTORY
    status = {
        "storageClass": storage_class["metadata"]["name"],
        "provisioner": storage_class.get("provisioner"),
        "claimPropertySets": said.get("claimPropertySets") or (_SETS if known else None),
        "cloneStrategy": said.get("cloneStrategy") or ("snapshot" if known else "copy"),
        "snapshotClass": said.get("snapshotClass"),
    }
    return {key: value for key, value in status.items() if value}


class DataSources:
    def __init__(self, client: Client, informers: SharedInformers, *, clock: Clock) -> None:
        self._client, self._clock = client, clock
        self._sources, self._claims = informers.of(DATA_SOURCES), informers.of(CLAIMS)
        self._snapshots = informers.of(VOLUME_SNAPSHOTS)
        self.controller = Controller("data-sources", self.reconcile, workers=1)
        self.controller.watch(self._sources, lambda _: self._all())
        for informer in (self._claims, self._snapshots):
            self.controller.watch(informer, lambda _: self._all())

    async def reconcile(self, key: Key) -> Result:
        source = self._sources.get(key.name, key.namespace)
        if source is None:
            return DONE
        stands_for, ready, reason, message = self._resolved(source)
        old = source.get("status") or {}
        found = conditions.put(old.get("conditions"), "Ready", ready, now=self._clock(), reason=reason, message=message)
        status = {"source": stands_for, "conditions": datavolume_status.shown(found)}
        if status != {"source": old.get("source"), "conditions": old.get("conditions")}:
            await statuses.write(self._client, self._sources, source, status, guarded=False)
        return DONE

    def _resolved(self, source: Document, depth: int = 0) -> tuple[Document | None, bool, str, str]:
        namespace = source["metadata"]["namespace"]
        said, fault = datavolumes.stands_for((source.get("spec") or {}).get("source") or {}, namespace)
        if said is None:
            return None, False, "NoSource", fault
        if further := said.get("dataSource"):
            found = self._sources.get(further["name"], namespace)
            if found is None or depth > 4:
                return None, False, "NotFound", f"there is no DataSource {further['name']!r}"
            return self._resolved(found, depth + 1)
        ((kind, named),) = said.items()
        obj = (self._claims if kind == "pvc" else self._snapshots).get(named["name"], namespace)
        if obj is None:
            return said, False, "NotFound", f"{kind} {named['name']} is not there"
        status = obj.get("status") or {}
        ready = status.get("phase") == "Bound" if kind == "pvc" else bool(status.get("readyToUse"))
        words = "DataSource is ready to be consumed" if ready else f"{kind} {named['name']} is not ready"
        return said, ready, "Ready" if ready else "NotReady", words

    def _all(self) -> list[Key]:
        return [key_of(each) for each in self._sources.list()]
