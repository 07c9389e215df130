"""Replica sets and pools at the API's door."""

from typing import Any

from hotvirt.api import reservedlabels, validation_sets
from hotvirt.kube.admission import AdmissionRequest, OnlyJudges, Verdict
from hotvirt.kube.resources import POOLS, REPLICA_SETS, Resource
from hotvirt.webhooks.callers import is_ours
from hotvirt.webhooks.causes import causes
from hotvirt.webhooks.instancetypes import Sizes

Document = dict[str, Any]


class Sets(OnlyJudges):
    """A spec that did not change is not judged again, as with VMs."""

    resources: tuple[Resource, ...] = (REPLICA_SETS, POOLS)

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes

    async def validate(self, request: AdmissionRequest) -> Verdict:
        obj, old = request.obj, request.old
        if obj is None or request.subresource == "status" or (obj.get("metadata") or {}).get("deletionTimestamp"):
            return Verdict()
        if old is not None and obj.get("spec") == old.get("spec"):
            return Verdict()
        if request.resource.plural == REPLICA_SETS.plural:
            checked = validation_sets.replica_set(obj)
        else:
            checked = validation_sets.pool(obj, old, lambda vm: self._sizes.check(vm, None))
        faults = list(checked.faults)
        if not is_ours(request.user):
            faults += reservedlabels.of_template(request.resource.kind, obj, old)
        return Verdict(causes=causes(faults), warnings=checked.warnings)
