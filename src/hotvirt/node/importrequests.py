"""What a claim is to begin with, as its DataVolume, its annotations or its data source name it."""

from hotvirt.api import datavolumes
from hotvirt.api.datavolumes import Request
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import NotFound
from hotvirt.kube.informer import SharedInformers
from hotvirt.kube.resources import CLONE_SOURCES, DATA_SOURCES, DATA_VOLUMES, IMPORT_SOURCES


class NotYet(Exception):
    """It waits for something; the text says for what. `reason` is an event's word."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Requests:
    def __init__(self, client: Client, informers: SharedInformers) -> None:
        self._client = client
        self._volumes, self._sources = informers.of(DATA_VOLUMES), informers.of(DATA_SOURCES)
        self.needs = (self._sources,)

    async def of(self, claim: Document) -> Request | None:
        """None when there is nothing to be put in, or not by us. NotYet when what it names is not there."""
        namespace = claim["metadata"]["namespace"]
        checksum = datavolumes.annotations(claim).get(datavolumes.CHECKSUM) or ""
        if name := datavolumes.owner(claim):
            volume = self._volumes.get(name, namespace)
            owned = [r.get("uid") for r in claim["metadata"].get("ownerReferences") or ()]
            if volume is None or volume["metadata"]["uid"] not in owned:
                return None
            if source := volume["spec"].get("source"):
                return _elsewhere(datavolumes.request(source, checksum=checksum))
            return _elsewhere(self._of_data_source(volume["spec"].get("sourceRef") or {}, namespace))
        if datavolumes.UPLOAD in datavolumes.annotations(claim):
            return Request("upload", {})
        if (reference := datavolumes.reference(claim["spec"])) is None:
            return None
        if reference.get("namespace") not in (None, "", namespace):
            raise NotYet("ForeignSource", "spec.dataSourceRef.namespace: a claim alone takes from its own namespace")
        return await self._referred(reference, namespace)

    async def _referred(self, reference: Document, namespace: str) -> Request | None:
        kind, name = str(reference.get("kind")), str(reference.get("name"))
        if kind == "PersistentVolumeClaim" and not reference.get("apiGroup"):
            return Request("pvc", {"name": name, "namespace": namespace})
        if reference.get("apiGroup") != datavolumes.GROUP or kind not in datavolumes.POPULATORS:
            return None
        if kind == "VolumeUploadSource":
            return Request("upload", {})
        resource = IMPORT_SOURCES if kind == "VolumeImportSource" else CLONE_SOURCES
        try:
            source = (await self._client.get(resource, name, namespace))["spec"].get("source") or {}
        except NotFound:
            raise NotYet("SourceMissing", f"there is no {kind} {name!r}: create it") from None
        if kind == "VolumeImportSource":  # no claims: those of others could be meant, and nobody was asked
            return datavolumes.request({k: v for k, v in source.items() if k in ("blank", "http", "registry")})
        return Request("pvc", {"name": str(source.get("name")), "namespace": namespace})

    def _of_data_source(self, ref: Document, namespace: str, depth: int = 0) -> Request:
        where, name = str(ref.get("namespace") or namespace), str(ref.get("name"))
        found = self._sources.get(name, where)
        if found is None or depth > 4:
            raise NotYet("DataSourceMissing", f"there is no DataSource {name!r} in namespace {where}: create it")
        source, fault = datavolumes.stands_for(found["spec"].get("source") or {}, where)
        if source is None:
            raise NotYet("DataSourceMissing", f"DataSource {name!r} in namespace {where}: {fault}")
        if further := source.get("dataSource"):
            return self._of_data_source(further, where, depth + 1)
        request = datavolumes.request(source)
        assert request is not None
        return request


def _elsewhere(request: Request | None) -> Request | None:
    """Copies of VolumeSnapshots are the provisioner's."""
    return None if request is None or request.kind == "snapshot" else request
