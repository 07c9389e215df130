"""What is around an instance in the API, as its guest needs it: pod, claims and their volumes, networks, settings.

And the other way round: which instances a claim, a volume or a pod concerns. All is of caches but what a guest's start
alone asks for (secrets, config maps, tokens, networks), which nothing here watches.
"""

from collections.abc import Callable

from hotvirt.api import attachments, disks
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import NotFound
from hotvirt.kube.informer import Key, SharedInformers, key_of
from hotvirt.kube.resources import ATTACHMENTS, CLAIMS, KUBEVIRTS, PODS, SERVICE_ACCOUNTS, VMIS, VOLUMES
from hotvirt.node import contents
from hotvirt.node.cards import Attachment
from hotvirt.node.volumes import Lookup

BY_CLAIM, BY_UID = "node-claim", "uid"
"""Indexes of instances by the claims they name, and of pods by their uid."""


class Surroundings:
    """`has_guest`: whether the node has one of this instance."""

    def __init__(self, client: Client, informers: SharedInformers, *, has_guest: Callable[[Key], bool]) -> None:
        self._client, self._has_guest = client, has_guest
        self.vmis, self.pods = informers.of(VMIS), informers.of(PODS)
        self.claims, self.volumes = informers.of(CLAIMS), informers.of(VOLUMES)
        self._kubevirts = informers.of(KUBEVIRTS)
        self.vmis.add_index(BY_CLAIM, _claim_keys)
        self.pods.add_index(BY_UID, lambda pod: [pod["metadata"]["uid"]])

    def kubevirt(self) -> Document | None:
        return next(iter(self._kubevirts.list()), None)

    def pod(self, namespace: str, uid: str) -> Document | None:
        found = self.pods.by_index(BY_UID, uid)
        return found[0] if found and found[0]["metadata"]["namespace"] == namespace else None

    def address(self, namespace: str, uid: str) -> str:
        """Of the pod, "" when it has none (any more)."""
        return str(((self.pod(namespace, uid) or {}).get("status") or {}).get("podIP") or "")

    def claims_of(self, vmi: Document) -> dict[str, Document]:
        """Volume name -> its claim, of those there are."""
        namespace = vmi["metadata"]["namespace"]
        named = {v["name"]: disks.claim(v) for v in vmi["spec"].get("volumes") or ()}
        found = {name: self.claims.get(claim, namespace) for name, claim in named.items() if claim}
        return {name: claim for name, claim in found.items() if claim is not None}

    def lookup(self, key: Key, uid: str) -> Lookup:
        """What the volumes of this instance, whose pod has this uid, ask for."""
        namespace = key.namespace

        async def look(kind: str, name: str) -> Document | None:
            if kind == "user":
                return next((vmi for vmi in self._users(namespace, name) if key_of(vmi) != key), None)
            if kind == "claim":
                return self.claims.get(name, namespace)
            if kind == "volume":
                return self.volumes.get(name)
            if kind == "kubevirt":
                return self.kubevirt()
            pod = self.pod(namespace, uid)
            if kind == "pod":
                return pod
            try:
                if kind == "token":
                    request = contents.token_request(pod)
                    made = await self._client.post(SERVICE_ACCOUNTS, name, "token", request, namespace)
                    return dict(made["status"])
                return await self._client.get(contents.OBJECTS[kind], name, namespace)
            except NotFound:
                return None

        return look

    def attachment(self, vmi: Document) -> Attachment:
        async def look(said: str) -> Document | None:
            namespace, name = attachments.reference(said, vmi["metadata"]["namespace"])
            try:
                return await self._client.get(ATTACHMENTS, name, namespace)
            except NotFound:
                return None

        return look

    # Whom it concerns

    def users_of_volume(self, volume: Document) -> list[Key]:
        """Instances with the claim that a PersistentVolume is for."""
        reference = volume["spec"].get("claimRef") or {}
        claim = Key(reference.get("namespace") or "", reference.get("name") or "")
        return [key_of(vmi) for vmi in self.vmis.by_index(BY_CLAIM, str(claim))]

    def users_of_its_claims(self, pod: Document) -> set[Key]:
        """Instances that name a claim of a pod."""
        claims = [(v.get("persistentVolumeClaim") or {}).get("claimName") for v in pod["spec"].get("volumes") or ()]
        namespace = pod["metadata"]["namespace"]
        return {key_of(vmi) for claim in claims if claim for vmi in self._users(namespace, claim)}

    def _users(self, namespace: str, claim: str) -> list[Document]:
        """Instances that name a claim, those with a guest first."""
        found = self.vmis.by_index(BY_CLAIM, str(Key(namespace, claim)))
        return sorted(found, key=lambda vmi: not self._has_guest(key_of(vmi)))


def _claim_keys(vmi: Document) -> list[str]:
    namespace = vmi["metadata"].get("namespace") or ""
    names = [disks.claim(volume) for volume in vmi["spec"].get("volumes") or ()]
    return [str(Key(namespace, name)) for name in names if name]
