"""A machine's `dataVolumeTemplates` -> DataVolumes that it owns, made with it whether it runs or not.

One that is gone is made again, unless its claim is still there: then the data is, and nothing is to be put into it.
"""

from hotvirt.controllers import spec as specs
from hotvirt.kube import owners
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import AlreadyExists, ApiError, Conflict
from hotvirt.kube.events import Recorder
from hotvirt.kube.informer import Key, SharedInformers
from hotvirt.kube.reconciler import DONE, Controller, Result, owner
from hotvirt.kube.resources import CLAIMS, DATA_VOLUMES, VMS


class DataVolumeTemplates:
    def __init__(self, client: Client, informers: SharedInformers, *, recorder: Recorder) -> None:
        self._client, self._recorder = client, recorder
        self._vms, self._volumes, self._claims = informers.of(VMS), informers.of(DATA_VOLUMES), informers.of(CLAIMS)
        self.controller = Controller("datavolume-templates", self.reconcile, workers=2)
        self.controller.watch(self._vms)
        self.controller.watch(self._volumes, owner("VirtualMachine"))
        self.controller.needs(self._claims)

    async def reconcile(self, key: Key) -> Result:
        vm = self._vms.get(key.name, key.namespace)
        if vm is None or specs.is_deleting(vm):
            return DONE
        for template in vm["spec"].get("dataVolumeTemplates") or ():
            name = template["metadata"]["name"]
            if self._volumes.get(name, key.namespace) is None and self._claims.get(name, key.namespace) is None:
                await self._create(vm, render(vm, template))
        return DONE

    async def _create(self, vm: Document, volume: Document) -> None:
        name = volume["metadata"]["name"]
        try:
            self._volumes.observe(await self._client.create(DATA_VOLUMES, volume, volume["metadata"]["namespace"]))
        except AlreadyExists:
            return
        except ApiError as error:
            if not isinstance(error, Conflict):
                message = f"DataVolume {name} could not be made: {error.message}"
                self._recorder.event(vm, "Warning", "FailedDataVolumeCreate", message)
            raise
        self._recorder.event(vm, "Normal", "SuccessfulDataVolumeCreate", f"Created DataVolume {name}")


def render(vm: Document, template: Document) -> Document:
    """Pure."""
    given = template["metadata"]
    labels = {**(given.get("labels") or {}), "kubevirt.io/created-by": vm["metadata"]["uid"]}
    return {
        "apiVersion": DATA_VOLUMES.api_version,
        "kind": DATA_VOLUMES.kind,
        "metadata": {
            "name": given["name"],
            "namespace": vm["metadata"]["namespace"],
            "labels": labels,
            "annotations": dict(given.get("annotations") or {}),
            "ownerReferences": [owners.reference(VMS, vm)],
        },
        "spec": template["spec"],
    }
