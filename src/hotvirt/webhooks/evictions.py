"""Evictions of launcher pods, as an instance's eviction strategy has it. KubeVirt's pod eviction webhook.

    strategy                no second node to move to (a home has one)
    none, None              the pod goes; the guest is shut down, and started again as its run strategy says
    LiveMigrate             refused: the guest would have to be moved, and cannot be
    LiveMigrateIfPossible   the pod goes, as it is not possible
    External                refused, and the instance marked: somebody else sees to it that it moves or stops

An instance that can migrate is marked and kept, too: its migration takes the pod away. The mark is
`status.evacuationNodeName`; it is the one thing written here, and not for a dry run. Requests run concurrently.
"""

from collections.abc import Callable
from typing import Any

from hotvirt.kube import conditions
from hotvirt.kube.admission import AdmissionRequest, OnlyJudges, Read, Verdict
from hotvirt.kube.client import Client
from hotvirt.kube.errors import NotFound
from hotvirt.kube.resources import PODS, VMIS, Resource

Document = dict[str, Any]
FINAL = ("Succeeded", "Failed")


class Evictions(OnlyJudges):
    """`client` gives, once the API runs, a client that may write instances. For an eviction, `obj` is the Eviction and
    `old` the pod."""

    resources: tuple[Resource, ...] = (PODS,)

    def __init__(self, read: Read, client: Callable[[], Client]) -> None:
        self._read, self._client = read, client

    async def validate(self, request: AdmissionRequest) -> Verdict:
        pod = request.old
        if request.subresource != "eviction" or pod is None or not _is_launcher(pod):
            return Verdict()
        vmi = self._instance_of(pod)
        if vmi is None or not holds_back(vmi, pod):
            return Verdict()
        if not is_marked(vmi):
            return Verdict(busy=f"{_cannot_move(vmi)}: stop its VM, or set its evictionStrategy to None")
        node = pod["spec"].get("nodeName")
        if not request.dry_run and (vmi.get("status") or {}).get("evacuationNodeName") != node:
            await self._mark(vmi, node)
        metadata = vmi["metadata"]
        return Verdict(busy=f'Eviction triggered evacuation of VMI "{metadata["namespace"]}/{metadata["name"]}"')

    def _instance_of(self, pod: Document) -> Document | None:
        metadata = pod["metadata"]
        owner = next((o for o in metadata.get("ownerReferences") or () if o.get("kind") == VMIS.kind), None)
        found = self._read(VMIS, owner["name"], metadata["namespace"]) if owner else None
        return found if found is not None and owner and found["metadata"]["uid"] == owner["uid"] else None

    async def _mark(self, vmi: Document, node: str) -> None:
        metadata = vmi["metadata"]
        try:
            patch = {"metadata": {"uid": metadata["uid"]}, "status": {"evacuationNodeName": node}}
            await self._client().patch(VMIS, metadata["name"], patch, metadata["namespace"])
        except NotFound:
            return  # it has ended meanwhile


def holds_back(vmi: Document, pod: Document) -> bool:
    """Whether the pod has to stay for now. Pure."""
    strategy, going = vmi["spec"].get("evictionStrategy"), pod["metadata"].get("deletionTimestamp")
    if going or vmi["metadata"].get("deletionTimestamp") or (vmi.get("status") or {}).get("phase") in FINAL:
        return False
    return strategy in ("External", "LiveMigrate") or (strategy == "LiveMigrateIfPossible" and can_migrate(vmi))


def is_marked(vmi: Document) -> bool:
    """Whether somebody will act on the mark of an instance that is held back. Pure."""
    return vmi["spec"].get("evictionStrategy") == "External" or can_migrate(vmi)


def can_migrate(vmi: Document) -> bool:
    return conditions.is_true((vmi.get("status") or {}).get("conditions"), "LiveMigratable")


def _is_launcher(pod: Document) -> bool:
    return (pod["metadata"].get("labels") or {}).get("kubevirt.io") == "virt-launcher"


def _cannot_move(vmi: Document) -> str:
    return f"VMI {vmi['metadata']['name']} is configured with an eviction strategy but is not live-migratable"
