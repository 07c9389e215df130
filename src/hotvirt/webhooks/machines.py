"""The verbs of a VM: writes of the VM, and of its instance, decided by `lifecycle`, `volumes` and `memorydump`.

Stateless: requests run concurrently, and a write that lost a race is decided again on what is stored then. The
controllers act on the changed objects; nothing here waits for them.
"""

from collections.abc import Callable

from aiohttp import web

from hotvirt.api import gates
from hotvirt.kube import conditions
from hotvirt.kube.aggregated import RequestContext
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import Conflict, NotFound
from hotvirt.kube.resources import CLAIMS, KUBEVIRTS, MIGRATIONS, VMIS, VMS, Resource
from hotvirt.webhooks import lifecycle, memorydump, options, states, volumes
from hotvirt.webhooks.lifecycle import Write
from hotvirt.webhooks.options import Fields
from hotvirt.webhooks.routing import Route, Routes, Verb

ATTEMPTS = 5
Change = Callable[[Document], Document]


class MachineVerbs:
    """`client` gives, once the API runs, a client that may write VMs and VMIs."""

    def __init__(self, client: Callable[[], Client]) -> None:
        self._client = client

    def routes(self) -> Routes:
        return {
            "virtualmachines/start": Route("PUT", self._lifecycle(lifecycle.start, options.START)),
            "virtualmachines/stop": Route("PUT", self._lifecycle(lifecycle.stop, options.STOP)),
            "virtualmachines/restart": Route("PUT", self._lifecycle(lifecycle.restart, options.RESTART)),
            "virtualmachines/migrate": Route("PUT", self._migrate),
            "virtualmachines/addvolume": Route("PUT", self._vm_volumes(volumes.add, options.ADD_VOLUME)),
            "virtualmachines/removevolume": Route("PUT", self._vm_volumes(volumes.remove, options.REMOVE_VOLUME)),
            "virtualmachines/memorydump": Route("PUT", self._memory_dump),
            "virtualmachines/removememorydump": Route("PUT", self._remove_memory_dump),
            "virtualmachines/evacuate/cancel": Route("PUT", self._evacuate_cancel),
            "virtualmachineinstances/addvolume": Route("PUT", self._vmi_volumes(volumes.add, options.ADD_VOLUME)),
            "virtualmachineinstances/removevolume": Route(
                "PUT", self._vmi_volumes(volumes.remove, options.REMOVE_VOLUME)
            ),
            "virtualmachineinstances/evacuate/cancel": Route("PUT", self._evacuate_cancel),
        }

    # Start, stop, restart

    def _lifecycle(self, decide: Callable[[Document, Document | None, Document], list[Write]], fields: Fields) -> Verb:
        async def verb(request: web.Request, context: RequestContext) -> web.StreamResponse:
            asked = await options.read(request, fields)
            for attempt in range(ATTEMPTS):
                vm = await self._client().get(VMS, context.name, context.namespace)
                writes = decide(vm, await states.instance(self._client(), context), asked)
                try:
                    await self._carry_out(writes, context, dry_run=options.is_dry_run(asked))
                    break
                except Conflict:
                    if attempt == ATTEMPTS - 1:
                        raise
            return web.Response(status=202)

        return verb

    async def _carry_out(self, writes: list[Write], context: RequestContext, *, dry_run: bool) -> None:
        """In order. A later write of the same VM must not carry the version that the first one has moved on."""
        version = ""
        for write in writes:
            patch = write.patch
            if write.target != "vmi" and version:
                patch = {**patch, "metadata": {"resourceVersion": version}}
            try:
                done = await self._client().patch(
                    VMIS if write.target == "vmi" else VMS, context.name, patch, context.namespace,
                    subresource="status" if write.target == "vm/status" else "", dry_run=dry_run,
                )  # fmt: skip
            except NotFound:
                if write.target == "vmi" and write is not writes[0]:
                    return  # it was quicker: the write before asked it to stop
                raise
            if write.target != "vmi" and not dry_run:
                version = done["metadata"]["resourceVersion"]

    # Volumes

    def _vm_volumes(self, decide: Callable[[Document, Document], Document], fields: Fields) -> Verb:
        async def verb(request: web.Request, context: RequestContext) -> web.StreamResponse:
            asked = await options.read(request, fields)

            def change(vm: Document) -> Document:
                spec: Document = ((vm.get("spec") or {}).get("template") or {}).get("spec") or {}
                return {"spec": {"template": {"spec": decide(spec, asked)}}}

            await self._rewrite(VMS, context, change, dry_run=options.is_dry_run(asked))
            return web.Response(status=202)

        return verb

    def _vmi_volumes(self, decide: Callable[[Document, Document], Document], fields: Fields) -> Verb:
        async def verb(request: web.Request, context: RequestContext) -> web.StreamResponse:
            asked = await options.read(request, fields)

            may_own = await self._has_temporary_volumes()

            def change(vmi: Document) -> Document:
                if states.is_owned(vmi):
                    patch = volumes.temporary(vmi, decide, asked, allowed=may_own)
                    states.require_running(vmi)
                    return patch
                states.require_running(vmi)
                return {"spec": decide(vmi["spec"], asked)}

            await self._rewrite(VMIS, context, change, dry_run=options.is_dry_run(asked))
            return web.Response(status=202)

        return verb

    async def _has_temporary_volumes(self) -> bool:
        """KubeVirt's way of old, which takes its old gate, listed by name."""
        try:
            found = (await self._client().list(KUBEVIRTS))["items"]
        except NotFound:
            return False
        return any(gates.TEMPORARY_VOLUMES in gates.listed(kubevirt) for kubevirt in found)

    async def _rewrite(
        self, resource: Resource, context: RequestContext, change: Change, *, dry_run: bool, subresource: str = ""
    ) -> None:
        """Read, decide, patch under the version that was read; again when another writer came between."""
        for attempt in range(ATTEMPTS):
            obj = await self._client().get(resource, context.name, context.namespace)
            patch = change(obj)
            version = {"resourceVersion": obj["metadata"]["resourceVersion"]}
            patch["metadata"] = {**(patch.get("metadata") or {}), **version}
            try:
                await self._client().patch(
                    resource, context.name, patch, context.namespace, subresource=subresource, dry_run=dry_run
                )
                return
            except Conflict:
                if attempt == ATTEMPTS - 1:
                    raise

    # Memory dumps

    async def _memory_dump(self, request: web.Request, context: RequestContext) -> web.StreamResponse:
        asked = await options.read(request, options.MEMORY_DUMP)
        vm = await self._client().get(VMS, context.name, context.namespace)
        claim_name = memorydump.claim_of(vm, asked)
        vmi = await states.running(self._client(), context)
        try:
            claim = await self._client().get(CLAIMS, claim_name, context.namespace)
        except NotFound as error:
            raise NotFound(f'persistentvolumeclaims "{claim_name}" not found: create it first') from error
        memorydump.check_claim(claim, vmi)
        await self._rewrite(
            VMS, context, lambda now: memorydump.request(now, claim_name), subresource="status",
            dry_run=options.is_dry_run(asked),
        )  # fmt: skip
        return web.Response(status=202)

    async def _remove_memory_dump(self, request: web.Request, context: RequestContext) -> web.StreamResponse:
        asked = await options.read(request, options.MEMORY_DUMP)
        await self._rewrite(VMS, context, memorydump.remove, subresource="status", dry_run=options.is_dry_run(asked))
        return web.Response(status=202)

    # Migration and evacuation

    async def _migrate(self, request: web.Request, context: RequestContext) -> web.StreamResponse:
        """A migration object, where the instance can migrate at all; else the reason why it cannot."""
        asked = await options.read(request, options.MIGRATE)
        await self._client().get(VMS, context.name, context.namespace)
        vmi = await states.running(self._client(), context)
        if not states.has(vmi, "LiveMigratable"):
            raise states.refusal(vmi, _why_not_migratable(vmi))
        spec = {"vmiName": context.name}
        if selector := asked.get("addedNodeSelector"):
            spec["addedNodeSelector"] = selector
        wanted = {
            "apiVersion": MIGRATIONS.api_version, "kind": MIGRATIONS.kind,
            "metadata": {"generateName": "kubevirt-migrate-vm-", "namespace": context.namespace}, "spec": spec,
        }  # fmt: skip
        await self._client().create(MIGRATIONS, wanted, context.namespace, dry_run=options.is_dry_run(asked))
        return web.Response(status=202)

    async def _evacuate_cancel(self, request: web.Request, context: RequestContext) -> web.StreamResponse:
        asked = await options.read(request, options.EVACUATE_CANCEL)
        if context.plural == VMS.plural:
            await self._client().get(VMS, context.name, context.namespace)
        vmi = await self._client().get(VMIS, context.name, context.namespace)
        node = (vmi.get("status") or {}).get("evacuationNodeName")
        if not node:
            return web.Response(status=200)
        if (said := asked.get("evacuationNodeName")) != node:
            raise states.refusal(vmi, f"it is to leave node {node!r}, and evacuationNodeName says {said!r}")
        patch = {
            "metadata": {"resourceVersion": vmi["metadata"]["resourceVersion"]},
            "status": {"evacuationNodeName": None},
        }
        await self._client().patch(VMIS, context.name, patch, context.namespace, dry_run=options.is_dry_run(asked))
        return web.Response(status=200)


def _why_not_migratable(vmi: Document) -> str:
    known = conditions.of(vmi, "LiveMigratable") or {}
    reason = known.get("reason") or "Unknown"
    return (
        f"Cannot migrate VMI, Reason: {reason}, Message: {known.get('message') or 'it is not known to be migratable'}"
    )
