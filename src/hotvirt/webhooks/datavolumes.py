"""Data volumes, and the templates of them in machines, at the API's door: what they may say, and who may copy whose
claims. And what protects claims and volumes in use.

Copying from another namespace needs leave to create `datavolumes/source` there, as CDI has it: the API is asked about
whoever makes the data volume, or the machine that will.
"""

from collections.abc import Callable, Iterator
from typing import Any

from hotvirt.api import datavolumes, schemas
from hotvirt.api.faults import Fault, invalid, required
from hotvirt.kube.admission import Admission, AdmissionRequest, OnlyJudges, Verdict
from hotvirt.kube.client import Client
from hotvirt.kube.resources import CLAIMS, DATA_VOLUMES, POOLS, VMS, VOLUMES, Resource
from hotvirt.webhooks import callers
from hotvirt.webhooks.causes import causes

Document = dict[str, Any]
CLAIM_PROTECTION, VOLUME_PROTECTION = "kubernetes.io/pvc-protection", "kubernetes.io/pv-protection"


def admissions(client: Callable[[], Client]) -> tuple[Admission, ...]:
    """`client` gives, once the API runs, one that may ask about anybody."""
    return DataVolumes(client), Templates(client), Protection()


class DataVolumes(OnlyJudges):
    resources: tuple[Resource, ...] = (DATA_VOLUMES,)

    def __init__(self, client: Callable[[], Client]) -> None:
        self._client = client

    async def validate(self, request: AdmissionRequest) -> Verdict:
        obj, old = request.obj, request.old
        if obj is None or request.subresource or obj["metadata"].get("deletionTimestamp"):
            return Verdict()
        if not schemas.fits(obj.get("spec"), "DataVolumeSpec"):
            return Verdict()
        if old is not None:
            if old.get("spec") == obj.get("spec"):
                return Verdict()
            why = "Cannot update DataVolume Spec: delete it and make a new one; a claim grows by an edit of the claim"
            return Verdict(denied=why)
        spec = obj.get("spec") or {}
        faults = datavolumes.faults(spec)
        if faults:
            return Verdict(causes=causes(faults))
        return await _may_copy(self._client(), request, [spec])


class Templates(OnlyJudges):
    """`spec.dataVolumeTemplates` of machines, and of those that pools make."""

    resources: tuple[Resource, ...] = (VMS, POOLS)

    def __init__(self, client: Callable[[], Client]) -> None:
        self._client = client

    async def validate(self, request: AdmissionRequest) -> Verdict:
        obj, old = request.obj, request.old
        if obj is None or request.subresource or obj["metadata"].get("deletionTimestamp"):
            return Verdict()
        spec, path = _machine(obj)
        templates = spec.get("dataVolumeTemplates") or []
        if not templates or not schemas.fits(spec, "VirtualMachineSpec"):
            return Verdict()
        if old is not None and _machine(old)[0].get("dataVolumeTemplates") == templates:
            return Verdict()
        if found := list(_faults(spec, templates, str(obj["metadata"].get("namespace") or ""), path)):
            return Verdict(causes=causes(found))
        return await _may_copy(self._client(), request, [each["spec"] for each in templates])


def _machine(obj: Document) -> tuple[Document, str]:
    """The machine's spec, and where it is."""
    spec = obj.get("spec")
    if obj.get("kind") != POOLS.kind:
        return spec if isinstance(spec, dict) else {}, "spec"
    template = spec.get("virtualMachineTemplate") if isinstance(spec, dict) else None
    machine = template.get("spec") if isinstance(template, dict) else None
    return machine if isinstance(machine, dict) else {}, "spec.virtualMachineTemplate.spec"


def _faults(spec: Document, templates: list[Document], namespace: str, at: str) -> Iterator[Fault]:
    volumes = ((spec.get("template") or {}).get("spec") or {}).get("volumes") or ()
    named = {(v.get("dataVolume") or {}).get("name") for v in volumes}
    named |= {(v.get("persistentVolumeClaim") or {}).get("claimName") for v in volumes}
    seen: set[str] = set()
    for index, template in enumerate(templates):
        path = f"{at}.dataVolumeTemplates[{index}]"
        metadata = template.get("metadata") or {}
        name = str(metadata.get("name") or "")
        if not name:
            yield required(f"{path}.metadata.name", "'name' field must not be empty for DataVolumeTemplate entry")
        elif name in seen:
            yield invalid(f"{path}.metadata.name", f"{name!r} is there twice: rename one")
        elif name not in named:
            message = f"DataVolumeTemplate entry {name} must be referenced in the VMI template's 'volumes' list"
            yield required(path, message)
        if metadata.get("namespace") not in (None, "", namespace):
            yield invalid(f"{path}.metadata.namespace", "must be the machine's own namespace: leave it out")
        seen.add(name)
        yield from datavolumes.faults(template.get("spec") or {}, f"{path}.spec")


class Protection:
    """The finalizers that Kubernetes gives claims and volumes; `controllers.claims` takes them away."""

    resources: tuple[Resource, ...] = (CLAIMS, VOLUMES)

    def mutate(self, request: AdmissionRequest) -> Document | None:
        obj = request.obj
        if obj is None or request.operation != "CREATE" or request.subresource:
            return None
        name = CLAIM_PROTECTION if obj.get("kind") == CLAIMS.kind else VOLUME_PROTECTION
        metadata = obj.get("metadata") or {}
        known = metadata.get("finalizers") or []
        return None if name in known else {**obj, "metadata": {**metadata, "finalizers": [*known, name]}}

    async def validate(self, request: AdmissionRequest) -> Verdict:  # noqa: ARG002
        return Verdict()


async def _may_copy(client: Client, request: AdmissionRequest, specs: list[Document]) -> Verdict:
    obj = request.obj or {}
    namespace = str(obj["metadata"].get("namespace") or "")
    if callers.is_ours(request.user):  # who asked for it was asked before
        return Verdict()
    for where in sorted({each for spec in specs for each in datavolumes.foreign(spec, namespace)}):
        source = {"group": datavolumes.GROUP, "resource": "datavolumes", "subresource": "source", "namespace": where}
        if not await callers.may(client, request.user, {"verb": "create", **source}):
            return Verdict(
                denied=f"User {request.user.name} has insufficient permissions in clone source namespace {where}: "
                f"ask for leave to create datavolumes/source there"
            )
    return Verdict()
