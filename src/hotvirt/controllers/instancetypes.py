"""What a VM is with its instancetype and preference: the machine that its instance is made from, and compared with.

Belongs to the VirtualMachine controller and runs in its workers, one VM at a time. A VM keeps the state in which it
took an instancetype or preference, as a ControllerRevision of its own: what others change about that later reaches it
only when it takes the thing anew (by another name, or another `revisionName`). What has to be written, and what a
document says, are pure functions.
"""

from msgspec import Struct

from hotvirt.api import configuration
from hotvirt.api import instancetype as sizes
from hotvirt.api import instancetype_matchers as matchers
from hotvirt.api.instancetype_matchers import INSTANCETYPE, PREFERENCE, Matcher
from hotvirt.controllers.templatediff import merge_patch
from hotvirt.controllers.virtualmachine_status import Fault
from hotvirt.kube import owners
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import AlreadyExists, ApiError, Conflict, NotFound
from hotvirt.kube.informer import Key, SharedInformers, key_of
from hotvirt.kube.reconciler import Controller, Mapper
from hotvirt.kube.resources import (
    CLUSTER_INSTANCETYPES,
    CLUSTER_PREFERENCES,
    CONTROLLER_REVISIONS,
    INSTANCETYPES,
    KUBEVIRTS,
    PREFERENCES,
    VMS,
)

KINDS = {each.kind: each for each in (INSTANCETYPES, CLUSTER_INSTANCETYPES, PREFERENCES, CLUSTER_PREFERENCES)}
NOT_FOUND = {INSTANCETYPE: "FailedFindInstancetype", PREFERENCE: "FailedFindPreference"}
BY_SIZE = "size"
LABEL = "instancetype.kubevirt.io/object"


class Sized(Struct, frozen=True):
    """`machine` is the VM with all that it names in its template; the VM itself, where there is a `fault`. `refusal`:
    the fault is the API's, which may think otherwise later."""

    machine: Document
    fault: Fault | None = None
    refusal: ApiError | None = None


class Instancetypes:
    def __init__(self, client: Client, informers: SharedInformers) -> None:
        self._client = client
        self._vms, self._revisions = informers.of(VMS), informers.of(CONTROLLER_REVISIONS)
        self._kubevirts = informers.of(KUBEVIRTS)
        self._kinds = {kind: informers.of(resource) for kind, resource in KINDS.items()}
        self._vms.add_index(BY_SIZE, _names)

    def attach(self, controller: Controller) -> None:
        """VMs that wait for what they name are brought up when it appears."""
        for kind, informer in self._kinds.items():
            controller.watch(informer, self._waiting_for(kind))
        controller.needs(self._revisions, self._kubevirts)

    async def sized(self, vm: Document) -> Sized:
        """Writes what the VM's status has to tell first, and under policy expand the VM itself. Conflict when it was
        written meanwhile."""
        try:
            return await self._sized(vm)
        except ApiError as error:
            if isinstance(error, Conflict | NotFound):
                raise
            return Sized(vm, Fault("FailedCreate", error.message), error)

    async def _sized(self, vm: Document) -> Sized:
        asked = _asked(vm)
        if not asked:
            return Sized(await self._without(vm))
        objects: dict[str, Document] = {}
        for each in asked:
            found = await self._find(vm, each)
            if found is None:
                return Sized(vm, Fault(NOT_FOUND[each.what], _missing(each, matchers.revision_of(vm, each))))
            objects[each.what] = found
        size, taste = objects.get(INSTANCETYPE), objects.get(PREFERENCE)
        template, faults = sizes.apply(vm["spec"]["template"], size, taste)
        if faults:
            return Sized(vm, Fault("FailedCreate", str(sizes.ConflictError(faults))))
        if self._expands(vm, asked):
            return Sized(await self._without(await self._expand(vm, size, taste)))
        vm = await self._refer(vm, asked, objects)
        return Sized(with_template(vm, template, asked))

    # Reading

    async def _find(self, vm: Document, each: Matcher) -> Document | None:
        """From the caches, or from the API where they lag behind what a person just made."""
        namespace = vm["metadata"]["namespace"]
        resource, name = KINDS.get(each.kind), each.name
        if revision := matchers.revision_of(vm, each):
            resource, name = CONTROLLER_REVISIONS, revision
        if resource is None or not name:
            return None
        space = namespace if resource.namespaced else ""
        informer = self._revisions if resource is CONTROLLER_REVISIONS else self._kinds[each.kind]
        found = informer.get(name, space)
        if found is None:
            try:
                found = await self._client.get(resource, name, space or None)
            except NotFound:
                return None
        return found.get("data") if resource is CONTROLLER_REVISIONS else found

    def _expands(self, vm: Document, asked: list[Matcher]) -> bool:
        kubevirts = self._kubevirts.list()
        settings = configuration.of(kubevirts[0] if kubevirts else None).get("instancetype") or {}
        policy = settings.get("referencePolicy")
        return policy == "expandAll" or (
            policy == "expand" and not any(matchers.revision_of(vm, each) for each in asked)
        )

    # Writing

    async def _refer(self, vm: Document, asked: list[Matcher], objects: dict[str, Document]) -> Document:
        """The revisions first: a reference to one that is not there would be found to lead nowhere."""
        names = {}
        for each in asked:
            names[each.what] = matchers.revision_of(vm, each) or await self._keep(vm, objects[each.what])
        patch = references(vm, names)
        return await self._write(vm, {"status": patch}, subresource="status") if patch else vm

    async def _keep(self, vm: Document, obj: Document) -> str:
        wanted = revision(vm, obj)
        name, namespace = wanted["metadata"]["name"], vm["metadata"]["namespace"]
        try:
            self._revisions.observe(await self._client.create(CONTROLLER_REVISIONS, wanted, namespace))
        except AlreadyExists:
            # Made before the VM's status could tell: its name has the object's uid and generation.
            found = await self._client.get(CONTROLLER_REVISIONS, name, namespace)
            if (found.get("data") or {}).get("spec") != wanted["data"]["spec"]:
                mend = f"delete it (kubectl delete controllerrevision {name})"
                raise AlreadyExists(f"ControllerRevision {name} exists and says something else: {mend}") from None
            self._revisions.observe(found)
        return str(name)

    async def _expand(self, vm: Document, size: Document | None, taste: Document | None) -> Document:
        return await self._write(vm, {"spec": merge_patch(vm["spec"], sizes.expand(vm, size, taste)["spec"])})

    async def _without(self, vm: Document) -> Document:
        """The VM, no longer referring to what it does not name any more, and its copies of that gone."""
        known = {f"{what}Ref": (vm.get("status") or {}).get(f"{what}Ref") for what in matchers.BOTH}
        if not any(known.values()):
            return vm
        for reference in known.values():
            name = str(((reference or {}).get("controllerRevisionRef") or {}).get("name") or "")
            found = self._revisions.get(name, vm["metadata"]["namespace"]) if name else None
            if found is not None and _is_owned(found, vm):
                try:
                    await self._client.delete(CONTROLLER_REVISIONS, name, vm["metadata"]["namespace"])
                except NotFound:
                    continue
        return await self._write(vm, {"status": dict.fromkeys(known)}, subresource="status")

    async def _write(self, vm: Document, patch: Document, *, subresource: str = "") -> Document:
        metadata = vm["metadata"]
        guarded = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, **patch}
        new = await self._client.patch(VMS, metadata["name"], guarded, metadata["namespace"], subresource=subresource)
        self._vms.observe(new)
        return new

    def _waiting_for(self, kind: str) -> Mapper:
        def mapper(obj: Document) -> list[Key]:
            key = key_of(obj)
            named = self._vms.by_index(BY_SIZE, f"{kind} {key}")
            return [
                key_of(vm) for vm in named
                if any(each.kind == kind and not matchers.revision_of(vm, each) for each in _asked(vm))
            ]  # fmt: skip

        return mapper


# Pure


def with_template(vm: Document, template: Document, asked: list[Matcher]) -> Document:
    """The VM with the template, whose instances carry the names of what it came from."""
    metadata = dict(template.get("metadata") or {})
    metadata["annotations"] = {**(metadata.get("annotations") or {}), **dict(each.annotation() for each in asked)}
    return {**vm, "spec": {**vm["spec"], "template": {**template, "metadata": metadata}}}


def revision(vm: Document, obj: Document) -> Document:
    """The copy of an instancetype or preference that a VM keeps."""
    kept = {"name", "namespace", "uid", "generation", "creationTimestamp"}
    metadata = {key: value for key, value in obj["metadata"].items() if key in kept}
    group, _, version = str(obj["apiVersion"]).rpartition("/")
    generation = str(metadata.get("generation", 1))
    name = f"{vm['metadata']['name']}-{metadata['name']}-{version}-{metadata['uid']}-{generation}"
    return {
        "apiVersion": CONTROLLER_REVISIONS.api_version,
        "kind": CONTROLLER_REVISIONS.kind,
        "metadata": {
            "name": name,
            "namespace": vm["metadata"]["namespace"],
            "labels": {
                f"{LABEL}-generation": generation,
                f"{LABEL}-kind": obj["kind"],
                f"{LABEL}-name": metadata["name"],
                f"{LABEL}-uid": metadata["uid"],
                f"{LABEL}-version": version,
            },
            "ownerReferences": [owners.reference(VMS, vm)],
        },
        "data": {
            "apiVersion": f"{group}/{version}",
            "kind": obj["kind"],
            "metadata": metadata,
            "spec": obj.get("spec") or {},
        },
        "revision": 0,
    }  # fmt: skip


def references(vm: Document, names: dict[str, str]) -> Document:
    """The merge patch of a VM's status that refers to these revisions, by INSTANCETYPE and PREFERENCE."""
    patch: Document = {}
    for what in matchers.BOTH:
        known = (vm.get("status") or {}).get(f"{what}Ref")
        wanted = None
        if name := names.get(what):
            said = vm["spec"][what]
            fields = ("name", "kind", "inferFromVolume", "inferFromVolumeFailurePolicy")
            wanted = {field: said[field] for field in fields if said.get(field)}
            wanted["controllerRevisionRef"] = {"name": name}
        if known != wanted:
            patch[f"{what}Ref"] = {**dict.fromkeys(known or ()), **wanted} if wanted else None
    return patch


def _asked(vm: Document) -> list[Matcher]:
    return [found for what in matchers.BOTH if (found := matchers.matcher(vm, what)) is not None]


def _names(vm: Document) -> list[str]:
    """Index values: what a VM names."""
    namespace = vm["metadata"].get("namespace") or ""
    return [f"{each.kind} {Key('' if each.is_cluster else namespace, each.name)}" for each in _asked(vm)]


def _is_owned(obj: Document, vm: Document) -> bool:
    return bool((owners.controller_of(obj) or {}).get("uid") == vm["metadata"]["uid"])


def _missing(each: Matcher, revision_name: str) -> str:
    if revision_name:
        return (
            f"spec.{each.what}: its ControllerRevision {revision_name} is gone; "
            f"change spec.{each.what}.name, or remove revisionName"
        )
    return f"{each.field}: there is no {each.kind} {each.name}; make it, or name another (kubectl get {each.kind})"
