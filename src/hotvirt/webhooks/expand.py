"""expand-spec: a VM as one that says itself all that its instancetype and preference say. Nothing is written."""

from aiohttp import web

from hotvirt.api import instancetype as sizes
from hotvirt.api import instancetype_matchers as matchers
from hotvirt.api import schemas
from hotvirt.api.instancetype_matchers import Matcher
from hotvirt.kube.aggregated import RequestContext
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import ApiError, BadRequest, Cause, NotFound
from hotvirt.kube.resources import CONTROLLER_REVISIONS, VMS, Resource
from hotvirt.webhooks import options
from hotvirt.webhooks.causes import causes

LARGEST = 3 << 20
_META = ("name", "generateName", "namespace", "labels", "annotations", "uid", "resourceVersion", "generation",
         "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "finalizers", "ownerReferences",
         "managedFields", "selfLink")  # fmt: skip


async def stored(client: Client, context: RequestContext) -> Document:
    """The VM that is there, expanded."""
    return await expanded(client, await client.get(VMS, context.name, context.namespace))


async def given(client: Client, request: web.Request, context: RequestContext) -> Document:
    """The VM in the request's body, expanded in the request's namespace."""
    vm = await options.document(request, largest=LARGEST)
    if not vm:
        raise BadRequest("empty request body: send the VirtualMachine to expand")
    check(vm, context.namespace)
    return await expanded(client, {**vm, "metadata": {**vm.get("metadata", {}), "namespace": context.namespace}})


def check(vm: Document, namespace: str) -> None:
    """Whether it is a VirtualMachine of this namespace, every fault at once. Pure."""
    found: list[Cause] = []
    if vm.get("kind", "VirtualMachine") != "VirtualMachine":
        found.append(Cause("FieldValueInvalid", f"kind is {str(vm['kind'])[:60]!r}, not VirtualMachine", "kind"))
    fields = {"apiVersion": "string", "kind": "string", "metadata": "object", "spec": "VirtualMachineSpec",
              "status": "object"}  # fmt: skip
    found += options.faults(vm, fields, "")
    if not isinstance(vm.get("spec"), dict) or not isinstance(vm["spec"].get("template"), dict):
        found.append(Cause("FieldValueRequired", "spec.template is required", "spec.template"))
    metadata = vm.get("metadata") or {}
    if isinstance(metadata, dict):
        found += [
            Cause("FieldValueNotSupported", f"unknown field {f'metadata.{key[:60]}'!r}", f"metadata.{key[:60]}")
            for key in metadata
            if key not in _META
        ]
    if found:
        said = "; ".join(each.message for each in found)
        raise BadRequest(f"Object is not a valid VirtualMachine: {said}", causes=found)
    if (metadata.get("namespace") or namespace) != namespace:
        raise BadRequest(f"VM namespace must be empty or {namespace}")
    if not schemas.fits(vm["spec"], "VirtualMachineSpec"):
        raise BadRequest("Object is not a valid VirtualMachine: a field has the wrong type")


async def expanded(client: Client, vm: Document) -> Document:
    size, taste = [await _named(client, vm, what) for what in matchers.BOTH]
    if size is None and taste is None:
        return vm
    try:
        return sizes.expand(vm, size, taste)
    except sizes.ConflictError as error:
        raise BadRequest(f"cannot expand instancetype to VM: {error}", causes=causes(error.faults)) from error


async def _named(client: Client, vm: Document, what: str) -> Document | None:
    """The instancetype or preference that a VM names: of its revision where it has one."""
    found = matchers.matcher(vm, what)
    if found is None:
        return None
    if not found.kind or not found.name:
        raise BadRequest(f"spec.{what} names no {what}: set its name and kind")
    namespace = vm["metadata"]["namespace"]
    try:
        if revision := matchers.revision_of(vm, found):
            kept = await client.get(CONTROLLER_REVISIONS, revision, namespace)
            data: Document = kept.get("data") or {}
            return data
        return await client.get(_resource(found), found.name, None if found.is_cluster else namespace)
    except NotFound as error:
        raise _missing(found) from error


def _resource(found: Matcher) -> Resource:
    plural = f"{found.kind.lower()}s"
    return Resource("instancetype.kubevirt.io", "v1beta1", plural, found.kind, namespaced=not found.is_cluster)


def _missing(found: Matcher) -> ApiError:
    return BadRequest(
        f"spec.{found.what}: there is no {found.kind} {found.revision or found.name}; "
        f"make it, or name another (kubectl get {found.kind})"
    )
