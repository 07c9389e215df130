"""Services -> Endpoints and EndpointSlices, for a home; a cluster has its own controllers for it.

Services without a selector are their makers' to fill. What is written is compared with what is there first: a pod that
changes without its address or readiness changing writes nothing.
"""

from typing import Any

from hotvirt.controllers import endpoints_of as of
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import AlreadyExists, Conflict, NotFound
from hotvirt.kube.informer import Key, SharedInformers, key_of
from hotvirt.kube.reconciler import DONE, Controller, Result
from hotvirt.kube.resources import ENDPOINT_SLICES, ENDPOINTS, PODS, SERVICES, Resource

BY_SERVICE, BY_NAMESPACE = "service", "namespace"


class EndpointsController:
    def __init__(self, client: Client, informers: SharedInformers, **_: Any) -> None:
        self._client = client
        self._services, self._pods = informers.of(SERVICES), informers.of(PODS)
        self._endpoints, self._slices = informers.of(ENDPOINTS), informers.of(ENDPOINT_SLICES)
        self._services.add_index(BY_NAMESPACE, _namespace)
        self._pods.add_index(BY_NAMESPACE, _namespace)
        self._slices.add_index(BY_SERVICE, _service_of)
        self.controller = Controller("endpoints", self.reconcile)
        self.controller.watch(self._services)
        self.controller.watch(self._pods, self._behind)
        self.controller.watch(self._endpoints, _managed)
        self.controller.watch(self._slices, lambda each: [_key(text) for text in _service_of(each)])

    async def reconcile(self, key: Key) -> Result:
        service = self._services.get(key.name, key.namespace)
        if service is None or service["metadata"].get("deletionTimestamp"):
            if (left := self._endpoints.get(key.name, key.namespace)) is not None and _managed(left):
                await self._delete(ENDPOINTS, left)
            return DONE  # slices go with their owner
        if not service["spec"].get("selector") or service["spec"].get("type") == "ExternalName":
            for each in self._slices_of(key):
                await self._delete(ENDPOINT_SLICES, each)
            return DONE
        found = of.members(service, self._pods.by_index(BY_NAMESPACE, key.namespace))
        await self._bring(ENDPOINTS, self._endpoints, of.endpoints(service, found), ("subsets",))
        wanted = of.slices(service, found)
        for each in wanted:
            await self._bring(ENDPOINT_SLICES, self._slices, each, ("endpoints", "ports"))
        names = {each["metadata"]["name"] for each in wanted}
        for each in self._slices_of(key):
            if each["metadata"]["name"] not in names:
                await self._delete(ENDPOINT_SLICES, each)
        return DONE

    def _slices_of(self, key: Key) -> list[Document]:
        return list(self._slices.by_index(BY_SERVICE, str(key)))

    async def _bring(self, resource: Resource, cache: Any, wanted: Document, parts: tuple[str, ...]) -> None:
        metadata = wanted["metadata"]
        name, namespace = metadata["name"], metadata["namespace"]
        known = cache.get(name, namespace)
        if known is None:
            try:
                cache.observe(await self._client.create(resource, wanted, namespace))
            except AlreadyExists as error:
                # The cache lags: what is there comes soon, and with it this key.
                raise Conflict(f"{resource.plural} {name} is there already") from error
            except NotFound:
                return  # the namespace is gone
            return
        labels = known["metadata"].get("labels") or {}
        same = all((known.get(part) or []) == (wanted.get(part) or []) for part in parts)
        if same and labels == metadata["labels"]:
            return
        dropped = {key: None for key in labels if key not in metadata["labels"]}
        patch: Document = {part: wanted.get(part) for part in parts}
        patch["metadata"] = {
            "resourceVersion": known["metadata"]["resourceVersion"], "labels": {**dropped, **metadata["labels"]},
            "annotations": {of.OVER_CAPACITY: None, **metadata.get("annotations", {})},
        }  # fmt: skip
        try:
            cache.observe(await self._client.patch(resource, name, patch, namespace))
        except NotFound:
            return

    async def _delete(self, resource: Resource, obj: Document) -> None:
        metadata = obj["metadata"]
        try:
            await self._client.delete(resource, metadata["name"], metadata["namespace"], uid=metadata["uid"])
        except NotFound:
            return

    def _behind(self, pod: Document) -> list[Key]:
        services = self._services.by_index(BY_NAMESPACE, pod["metadata"].get("namespace") or "")
        return [key_of(each) for each in services if of.selects(each, pod)]


def _namespace(obj: Document) -> list[str]:
    return [obj["metadata"].get("namespace") or ""]


def _managed(endpoints: Document) -> list[Key]:
    ours = (endpoints["metadata"].get("labels") or {}).get(of.MANAGED_ENDPOINTS) == of.ENDPOINTS_BY
    return [key_of(endpoints)] if ours else []


def _service_of(each: Document) -> list[str]:
    labels = each["metadata"].get("labels") or {}
    name = labels.get(of.SERVICE_NAME)
    return (
        [str(Key(each["metadata"]["namespace"], name))] if name and labels.get(of.MANAGED_SLICE) == of.SLICES_BY else []
    )


def _key(text: str) -> Key:
    namespace, _, name = text.rpartition("/")
    return Key(namespace, name)
