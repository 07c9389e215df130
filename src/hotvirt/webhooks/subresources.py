"""The aggregated groups `subresources.kubevirt.io` (KubeVirt's verbs) and `subresources.hotvirt.io` (ours).

A verb on a VM is a write of the VM, decided by `lifecycle` and `volumes`; a verb on a running instance goes to the
guest through `GuestAccess`. Stateless: requests run concurrently, and a write that lost a race is decided again on
what is stored then.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from msgspec import DecodeError, json

from hotvirt.kube.aggregated import RequestContext, ServedResource
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import BadRequest, Conflict, Forbidden, MethodNotAllowed, NotFound
from hotvirt.kube.resources import VMIS, VMS, Resource
from hotvirt.webhooks import lifecycle, streams, volumes
from hotvirt.webhooks.guests import GuestAccess
from hotvirt.webhooks.lifecycle import Write

ATTEMPTS = 5
Verb = Callable[[web.Request, RequestContext], Awaitable[web.StreamResponse]]


class KubeVirtSubresources:
    """`subresources.kubevirt.io`. `client` gives, once the API runs, a client that may write VMIs; `guests` the way to
    this moment's guests; `version` is what GET version answers."""

    name = "subresources.kubevirt.io"
    versions: tuple[str, ...] = ("v1", "v1alpha3")
    open_paths: tuple[str, ...] = ("version", "guestfs")

    def __init__(self, client: Callable[[], Client], guests: Callable[[], GuestAccess], *, version: Document) -> None:
        self._client, self._guests, self._version = client, guests, version
        vm, vmi = "virtualmachines", "virtualmachineinstances"
        self._verbs: dict[tuple[str, str], tuple[str, Verb]] = {
            (vm, "start"): ("PUT", self._lifecycle(lifecycle.start)),
            (vm, "stop"): ("PUT", self._lifecycle(lifecycle.stop)),
            (vm, "restart"): ("PUT", self._lifecycle(lifecycle.restart)),
            (vm, "addvolume"): ("PUT", self._vm_volumes(volumes.add)),
            (vm, "removevolume"): ("PUT", self._vm_volumes(volumes.remove)),
            (vmi, "addvolume"): ("PUT", self._vmi_volumes(volumes.add)),
            (vmi, "removevolume"): ("PUT", self._vmi_volumes(volumes.remove)),
            (vmi, "pause"): ("PUT", self._pause),
            (vmi, "unpause"): ("PUT", self._unpause),
            (vmi, "softreboot"): ("PUT", self._soft_reboot),
            (vmi, "console"): ("GET", self._console),
            (vmi, "vnc"): ("GET", self._vnc),
            (vmi, "guestosinfo"): ("GET", self._guest_os_info),
            ("version", ""): ("GET", self._get_version),
        }
        self.resources = tuple(
            ServedResource(
                f"{plural}/{verb}" if verb else plural,
                "VirtualMachine" if plural == vm else "VirtualMachineInstance" if plural == vmi else "",
                namespaced=bool(verb),
                verbs=("update",) if method == "PUT" else ("get",),
            )
            for (plural, verb), (method, _) in self._verbs.items()
        )

    async def handle(self, request: web.Request, context: RequestContext) -> web.StreamResponse:
        if context.plural == "guestfs":
            raise NotFound("there is no libguestfs image here; copy the disk with qemu-img and use guestfish on it")
        return await _dispatch(self._verbs, request, context)

    # VM verbs: writes of the VM

    def _lifecycle(self, decide: Callable[[Document, Document | None, Document], list[Write]]) -> Verb:
        async def verb(request: web.Request, context: RequestContext) -> web.StreamResponse:
            options = await _options(request)
            for attempt in range(ATTEMPTS):
                vm = await self._client().get(VMS, context.name, context.namespace)
                vmi = await self._instance(context)
                writes = decide(vm, vmi, options)
                try:
                    await self._carry_out(writes, context, dry_run=_is_dry_run(options))
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
            done = await self._client().patch(
                VMIS if write.target == "vmi" else VMS, context.name, patch, context.namespace,
                subresource="status" if write.target == "vm/status" else "", dry_run=dry_run,
            )  # fmt: skip
            if write.target != "vmi" and not dry_run:
                version = done["metadata"]["resourceVersion"]

    def _vm_volumes(self, decide: Callable[[Document, Document], Document]) -> Verb:
        async def verb(request: web.Request, context: RequestContext) -> web.StreamResponse:
            options = await _options(request)
            await self._rewrite(VMS, context, options, lambda vm: _in_template(decide(_template(vm), options)))
            return web.Response(status=202)

        return verb

    # VMI verbs

    def _vmi_volumes(self, decide: Callable[[Document, Document], Document]) -> Verb:
        async def verb(request: web.Request, context: RequestContext) -> web.StreamResponse:
            options = await _options(request)

            def change(vmi: Document) -> Document:
                _refuse_if_owned(vmi)
                if (vmi.get("status") or {}).get("phase") != "Running":
                    raise _state(context, "VMI is not running")
                return {"spec": decide(vmi["spec"], options)}

            await self._rewrite(VMIS, context, options, change)
            return web.Response(status=202)

        return verb

    async def _rewrite(
        self, resource: Resource, context: RequestContext, options: Document, change: Callable[[Document], Document]
    ) -> None:
        """Read, decide, patch under the version that was read; again when another writer came between."""
        for attempt in range(ATTEMPTS):
            obj = await self._client().get(resource, context.name, context.namespace)
            patch = {**change(obj), "metadata": {"resourceVersion": obj["metadata"]["resourceVersion"]}}
            try:
                await self._client().patch(
                    resource, context.name, patch, context.namespace, dry_run=_is_dry_run(options)
                )
                return
            except Conflict:
                if attempt == ATTEMPTS - 1:
                    raise

    async def _pause(self, request: web.Request, context: RequestContext) -> web.StreamResponse:
        options = await _options(request)
        vmi = await self._running(context)
        if (vmi["spec"].get("livenessProbe") or {}).keys() - {"guestAgentPing"} - _TIMINGS:
            raise Forbidden("a VMI with a livenessProbe cannot be paused: the probe would end it")
        if _condition(vmi, "Paused"):
            raise _state(context, "VMI is already paused")
        if not _is_dry_run(options):
            await self._guests().pause(context.namespace, context.name)
        return web.Response(status=202)

    async def _unpause(self, request: web.Request, context: RequestContext) -> web.StreamResponse:
        options = await _options(request)
        vmi = await self._running(context)
        if not _condition(vmi, "Paused"):
            raise _state(context, "VMI is not paused")
        if not _is_dry_run(options):
            await self._guests().unpause(context.namespace, context.name)
        return web.Response(status=202)

    async def _soft_reboot(self, _request: web.Request, context: RequestContext) -> web.StreamResponse:
        vmi = await self._running(context)
        if _condition(vmi, "Paused"):
            raise _state(context, "VMI is paused")
        if not _condition(vmi, "AgentConnected") and not _has_acpi(vmi):
            raise _state(context, "VMI neither have the agent connected nor the ACPI feature enabled")
        await self._guests().soft_reboot(context.namespace, context.name)
        return web.Response(status=202)

    async def _console(self, request: web.Request, context: RequestContext) -> web.StreamResponse:
        vmi = await self._running(context)
        if vmi["spec"]["domain"].get("devices", {}).get("autoattachSerialConsole") is False:
            raise BadRequest("the VMI has no serial console: domain.devices.autoattachSerialConsole is false")
        return await streams.serve(request, await self._guests().console(context.namespace, context.name))

    async def _vnc(self, request: web.Request, context: RequestContext) -> web.StreamResponse:
        vmi = await self._running(context)
        if vmi["spec"]["domain"].get("devices", {}).get("autoattachGraphicsDevice") is False:
            raise BadRequest("the VMI has no display: domain.devices.autoattachGraphicsDevice is false")
        return await streams.serve(request, await self._guests().vnc(context.namespace, context.name))

    async def _guest_os_info(self, _request: web.Request, context: RequestContext) -> web.StreamResponse:
        await _with_agent(self._client(), context)
        info = await self._guests().guest_os_info(context.namespace, context.name)
        return _json({"kind": "VirtualMachineInstanceGuestAgentInfo", "apiVersion": "kubevirt.io/v1", **info})

    async def _get_version(self, _request: web.Request, _context: RequestContext) -> web.StreamResponse:
        return _json(self._version)

    async def _instance(self, context: RequestContext) -> Document | None:
        try:
            return await self._client().get(VMIS, context.name, context.namespace)
        except NotFound:
            return None

    async def _running(self, context: RequestContext) -> Document:
        return await _running(self._client(), context)


class HotvirtSubresources:
    """`subresources.hotvirt.io/v1alpha1`: what KubeVirt has no word for."""

    name = "subresources.hotvirt.io"
    versions: tuple[str, ...] = ("v1alpha1",)
    open_paths: tuple[str, ...] = ()
    resources: tuple[ServedResource, ...] = (ServedResource("virtualmachineinstances/guestfacts", "GuestFacts"),)

    def __init__(self, client: Callable[[], Client], guests: Callable[[], GuestAccess]) -> None:
        self._client, self._guests = client, guests
        self._verbs: dict[tuple[str, str], tuple[str, Verb]] = {
            ("virtualmachineinstances", "guestfacts"): ("GET", self._facts)
        }

    async def handle(self, request: web.Request, context: RequestContext) -> web.StreamResponse:
        return await _dispatch(self._verbs, request, context)

    async def _facts(self, _request: web.Request, context: RequestContext) -> web.StreamResponse:
        await _with_agent(self._client(), context)
        facts = await self._guests().facts(context.namespace, context.name)
        return _json({"kind": "GuestFacts", "apiVersion": "subresources.hotvirt.io/v1alpha1", **facts})


_TIMINGS = {"initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"}


async def _dispatch(
    verbs: dict[tuple[str, str], tuple[str, Verb]], request: web.Request, context: RequestContext
) -> web.StreamResponse:
    method, verb = verbs.get((context.plural, context.subresource), ("", None))
    if verb is None or context.rest:
        asked = "/".join(filter(None, (context.plural, context.subresource, context.rest)))
        raise NotFound(f"the server could not find the requested resource: no subresource {asked} here")
    if request.method != method:
        raise MethodNotAllowed(f"{context.subresource or context.plural} answers {method}, not {request.method}")
    return await verb(request, context)


async def _running(client: Client, context: RequestContext) -> Document:
    vmi = await client.get(VMIS, context.name, context.namespace)
    if (vmi.get("status") or {}).get("phase") != "Running":
        phase = (vmi.get("status") or {}).get("phase") or "Pending"
        raise _state(context, f"VMI is not running (its phase is {phase})")
    return vmi


async def _with_agent(client: Client, context: RequestContext) -> None:
    vmi = await _running(client, context)
    if _condition(vmi, "Paused"):
        raise _state(
            context, f"VMI is paused, so its guest cannot answer; let it go on: hotvirt unpause {context.name}"
        )
    if not _condition(vmi, "AgentConnected"):
        raise _state(
            context, "VMI does not have guest agent connected; install qemu-guest-agent in the guest, or wait for "
            "its boot: kubectl wait vmi/" + context.name + " --for=condition=AgentConnected",
        )  # fmt: skip


def _condition(vmi: Document, kind: str) -> bool:
    conditions = (vmi.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == kind and c.get("status") == "True" for c in conditions)


def _has_acpi(vmi: Document) -> bool:
    acpi = ((vmi["spec"].get("domain") or {}).get("features") or {}).get("acpi")
    return acpi is not None and acpi.get("enabled") is not False


def _refuse_if_owned(vmi: Document) -> None:
    for owner in vmi["metadata"].get("ownerReferences") or ():
        if owner.get("kind") == "VirtualMachine" and owner.get("controller"):
            name = owner.get("name")
            raise BadRequest(f"VMI {vmi['metadata']['name']} is owned by a VM; ask virtualmachines/{name} instead")


def _template(vm: Document) -> Document:
    spec: Document = ((vm.get("spec") or {}).get("template") or {}).get("spec") or {}
    return spec


def _in_template(spec: Document) -> Document:
    return {"spec": {"template": {"spec": spec}}}


async def _options(request: web.Request) -> Document:
    body = await request.read()
    if not body.strip():
        return {}
    try:
        options: Any = json.decode(body)
    except DecodeError as error:
        raise BadRequest(f"Can not unmarshal Request body to struct: {error}") from error
    if not isinstance(options, dict):
        raise BadRequest("the request's body must be a JSON object with the verb's options")
    return options


def _is_dry_run(options: Document) -> bool:
    asked = options.get("dryRun") or []
    if asked not in ([], ["All"]):
        raise BadRequest(f"dryRun is {asked!r}: it may only be [All]")
    return bool(asked)


def _state(context: RequestContext, why: str) -> Conflict:
    return Conflict(
        f'Operation cannot be fulfilled on virtualmachineinstance.kubevirt.io "{context.name}": {why}',
        group="kubevirt.io", kind="virtualmachineinstance", name=context.name,
    )  # fmt: skip


def _json(document: Document) -> web.Response:
    return web.Response(body=json.encode(document), content_type="application/json")
