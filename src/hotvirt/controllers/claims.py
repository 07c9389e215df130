"""Claims and volumes as Kubernetes' own controllers treat them; for a home, where there are none.

`Binder`: a claim that no provisioner makes a volume for gets one that a person made: the smallest that fits in class,
size, modes and labels. `Protection`: a claim that is deleted stays while a pod or an instance uses it, a volume while
it is bound. Both decide from caches, and a decision taken twice does the same.
"""

from hotvirt.api import disks
from hotvirt.api.quantity import parse_bytes
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import NotFound
from hotvirt.kube.informer import Key, SharedInformers, key_of
from hotvirt.kube.reconciler import DONE, Controller, Result
from hotvirt.kube.resources import CLAIMS, PODS, STORAGE_CLASSES, VMIS, VOLUMES, Resource

BY_HAND = "kubernetes.io/no-provisioner"
CLAIM_PROTECTION, VOLUME_PROTECTION = "kubernetes.io/pvc-protection", "kubernetes.io/pv-protection"
OWNED = "pv.kubernetes.io/provisioned-by"
FINAL = ("Succeeded", "Failed")


class Binder:
    def __init__(self, client: Client, informers: SharedInformers) -> None:
        self._client = client
        self._claims, self._volumes = informers.of(CLAIMS), informers.of(VOLUMES)
        self._classes = informers.of(STORAGE_CLASSES)
        self.controller = Controller("volume-binder", self.reconcile, workers=1)
        self.controller.watch(self._claims, _with_its_volume)
        self.controller.watch(self._volumes, self._waiting)
        self.controller.needs(self._classes)

    async def reconcile(self, key: Key) -> Result:
        if not key.namespace:
            await self._phase(self._volumes.get(key.name))
            return DONE
        claim = self._claims.get(key.name, key.namespace)
        if claim is None or claim["metadata"].get("deletionTimestamp") or _phase_of(claim) == "Bound":
            return DONE
        storage_class = next(
            (c for c in self._classes.list() if c["metadata"]["name"] == claim["spec"].get("storageClassName")), None
        )
        if not (claim["spec"].get("volumeName") or by_hand(claim, storage_class)):
            return DONE
        if (volume := choose(claim, self._volumes.list())) is not None:
            await self._bind(claim, volume)
        return DONE

    async def _bind(self, claim: Document, volume: Document) -> None:
        """The volume first: two claims cannot both write their name into it."""
        metadata, name = claim["metadata"], volume["metadata"]["name"]
        reference = {
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": metadata["namespace"],
            "name": metadata["name"], "uid": metadata["uid"],
        }  # fmt: skip
        if (volume["spec"].get("claimRef") or {}).get("uid") != metadata["uid"]:
            patch = {
                "metadata": {"resourceVersion": volume["metadata"]["resourceVersion"]},
                "spec": {"claimRef": reference},
            }
            self._volumes.observe(await self._client.patch(VOLUMES, name, patch))
        await self._status(VOLUMES, volume, {"phase": "Bound"})
        annotations = {"pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes"}
        patch = {"metadata": {"annotations": annotations}, "spec": {"volumeName": name}}
        await self._client.patch(CLAIMS, metadata["name"], patch, metadata["namespace"])
        modes = volume["spec"].get("accessModes")
        await self._status(
            CLAIMS, claim, {"phase": "Bound", "accessModes": modes, "capacity": volume["spec"]["capacity"]}
        )

    async def _phase(self, volume: Document | None) -> None:
        """Of one that a person made: Available, or Released when its claim is gone."""
        if volume is None:
            return
        reference = volume["spec"].get("claimRef") or {}
        if OWNED in (volume["metadata"].get("annotations") or {}):
            return
        if not reference.get("uid"):
            wanted = "Available" if not volume["metadata"].get("deletionTimestamp") else _phase_of(volume)
        else:
            claim = self._claims.get(str(reference.get("name")), str(reference.get("namespace")))
            here = claim is not None and claim["metadata"]["uid"] == reference["uid"]
            wanted = "Bound" if here else "Released"
        if wanted != "Bound" and _phase_of(volume) != wanted:
            await self._status(VOLUMES, volume, {"phase": wanted})

    async def _status(self, resource: Resource, obj: Document, status: Document) -> None:
        metadata = obj["metadata"]
        await self._client.patch(
            resource, metadata["name"], {"status": status}, metadata.get("namespace"), subresource="status"
        )

    def _waiting(self, volume: Document) -> list[Key]:
        waiting = [key_of(claim) for claim in self._claims.list() if _phase_of(claim) != "Bound"]
        return [key_of(volume), *waiting]


def _with_its_volume(claim: Document) -> list[Key]:
    volume = claim["spec"].get("volumeName")
    return [key_of(claim), *([Key("", volume)] if volume else [])]


def by_hand(claim: Document, storage_class: Document | None) -> bool:
    """Whether only volumes that a person made will do."""
    name = claim["spec"].get("storageClassName")
    if not name:
        return True
    return storage_class is None or storage_class.get("provisioner") == BY_HAND


def choose(claim: Document, volumes: list[Document]) -> Document | None:
    """The volume for a claim: the one that is there for it, else the smallest that fits."""
    fitting = [volume for volume in volumes if fits(claim, volume)]
    own = [volume for volume in fitting if volume["spec"].get("claimRef")]
    by_size = sorted(
        own or fitting, key=lambda v: (parse_bytes(v["spec"]["capacity"]["storage"]), v["metadata"]["name"])
    )
    return by_size[0] if by_size else None


def fits(claim: Document, volume: Document) -> bool:
    wanted, has, metadata = claim["spec"], volume["spec"], claim["metadata"]
    reference = has.get("claimRef") or {}
    if volume["metadata"].get("deletionTimestamp") or _phase_of(volume) in ("Released", "Failed"):
        return False
    if reference and (reference.get("namespace"), reference.get("name")) != (metadata["namespace"], metadata["name"]):
        return False
    if reference.get("uid") not in (None, "", metadata["uid"]):
        return False
    if wanted.get("volumeName") not in (None, "", volume["metadata"]["name"]):
        return False
    if (wanted.get("storageClassName") or "") != (has.get("storageClassName") or ""):
        return False
    if (wanted.get("volumeMode") or "Filesystem") != (has.get("volumeMode") or "Filesystem"):
        return False
    if not set(wanted.get("accessModes") or ()) <= set(has.get("accessModes") or ()):
        return False
    if not _selects(wanted.get("selector") or {}, volume["metadata"].get("labels") or {}):
        return False
    size = parse_bytes(((wanted.get("resources") or {}).get("requests") or {}).get("storage"))
    return parse_bytes(has["capacity"]["storage"]) >= size


def _selects(selector: Document, labels: Document) -> bool:
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for each in selector.get("matchExpressions") or ():
        key, values = each["key"], each.get("values") or ()
        holds = {
            "In": labels.get(key) in values, "NotIn": labels.get(key) not in values, "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }  # fmt: skip
        if not holds.get(each["operator"], False):
            return False
    return True


class Protection:
    def __init__(self, client: Client, informers: SharedInformers) -> None:
        self._client = client
        self._claims, self._volumes = informers.of(CLAIMS), informers.of(VOLUMES)
        self._pods, self._vmis = informers.of(PODS), informers.of(VMIS)
        self.controller = Controller("storage-protection", self.reconcile, workers=1)
        self.controller.watch(self._claims)
        self.controller.watch(self._volumes)
        self.controller.watch(self._pods, self._leaving)
        self.controller.watch(self._vmis, self._leaving)

    async def reconcile(self, key: Key) -> Result:
        if key.namespace:
            claim = self._claims.get(key.name, key.namespace)
            if claim is not None and not self._is_used(claim):
                await self._release(CLAIMS, claim, CLAIM_PROTECTION)
        else:
            volume = self._volumes.get(key.name)
            if volume is not None and _phase_of(volume) != "Bound":
                await self._release(VOLUMES, volume, VOLUME_PROTECTION)
        return DONE

    def _is_used(self, claim: Document) -> bool:
        name, namespace = claim["metadata"]["name"], claim["metadata"]["namespace"]
        for pod in self._pods.list(namespace):
            claims = [(v.get("persistentVolumeClaim") or {}).get("claimName") for v in pod["spec"].get("volumes") or ()]
            if name in claims and _phase_of(pod) not in FINAL:
                return True
        # An instance's hot-plugged volumes are no volumes of its pod; one without a node holds nothing yet.
        return any(
            name in map(disks.claim, vmi["spec"].get("volumes") or ())
            for vmi in self._vmis.list(namespace)
            if _phase_of(vmi) in ("Scheduling", "Scheduled", "Running")
        )

    async def _release(self, resource: Resource, obj: Document, name: str) -> None:
        metadata = obj["metadata"]
        finalizers = metadata.get("finalizers") or []
        if not metadata.get("deletionTimestamp") or name not in finalizers:
            return
        patch = {
            "metadata": {
                "resourceVersion": metadata["resourceVersion"], "finalizers": [f for f in finalizers if f != name]
            }
        }  # fmt: skip
        try:
            await self._client.patch(resource, metadata["name"], patch, metadata.get("namespace"))
        except NotFound:
            return

    def _leaving(self, user: Document) -> list[Key]:
        """Claims that are to go and are only waiting for this."""
        namespace = user["metadata"]["namespace"]
        return [key_of(claim) for claim in self._claims.list(namespace) if claim["metadata"].get("deletionTimestamp")]


def _phase_of(obj: Document) -> str:
    return str((obj.get("status") or {}).get("phase") or "")
