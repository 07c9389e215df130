"""The verbs of a running instance: what they ask of its state, and how they reach its guest.

Nothing is kept here: each request reads the VMI anew and goes to the guest through `GuestAccess`. Verbs that change
something answer 200 as KubeVirt's do; a dry run stops before the guest.
"""

from collections.abc import Callable
from typing import Any, Literal, get_args

from aiohttp import web
from msgspec import json

from hotvirt.kube.aggregated import RequestContext
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import BadRequest, Forbidden, NotFound
from hotvirt.kube.resources import VMIS, VMS
from hotvirt.webhooks import durations, options, states, streams
from hotvirt.webhooks.guests import GuestAccess, GuestStream
from hotvirt.webhooks.routing import Route, Routes

Protocol = Literal["tcp", "udp"]
_TIMINGS = ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold")
_API = "kubevirt.io/v1"


class InstanceVerbs:
    """`client` gives, once the API runs, a client that reads VMs and VMIs; `guests` the way to this moment's guests."""

    def __init__(self, client: Callable[[], Client], guests: Callable[[], GuestAccess]) -> None:
        self._client, self._guests = client, guests

    def routes(self) -> Routes:
        of_vmi = {
            "pause": Route("PUT", self._pause),
            "unpause": Route("PUT", self._unpause),
            "freeze": Route("PUT", self._freeze),
            "unfreeze": Route("PUT", self._unfreeze),
            "reset": Route("PUT", self._reset),
            "softreboot": Route("PUT", self._soft_reboot),
            "console": Route("GET", self._console),
            "vnc": Route("GET", self._vnc),
            "vnc/screenshot": Route("GET", self._screenshot),
            "portforward": Route("GET", self._port_forward, rest=True),
            "guestosinfo": Route("GET", self._guest_os_info),
            "userlist": Route("GET", self._user_list),
            "filesystemlist": Route("GET", self._filesystem_list),
        }
        return {
            **{f"virtualmachineinstances/{name}": route for name, route in of_vmi.items()},
            "virtualmachines/portforward": Route("GET", self._port_forward, rest=True),
        }

    # Deeds

    async def _pause(self, request: web.Request, context: RequestContext) -> web.StreamResponse:
        asked = await options.read(request, options.DRY_RUN)
        vmi = await states.running(self._client(), context)
        if _is_probed(vmi):
            raise Forbidden(
                f'virtualmachineinstances.kubevirt.io "{context.name}" is forbidden: pausing VMIs with LivenessProbe '
                "is not supported, as the probe would end it; remove spec.template.spec.livenessProbe first"
            )
        if states.has(vmi, "Paused"):
            raise states.refusal(vmi, "VMI is already paused")
        if not options.is_dry_run(asked):
            await self._guests().pause(context.namespace, context.name)
        return web.Response()

    async def _unpause(self, request: web.Request, context: RequestContext) -> web.StreamResponse:
        asked = await options.read(request, options.DRY_RUN)
        vmi = await states.running(self._client(), context)
        await self._refuse_while_snapshot(context)
        if not states.has(vmi, "Paused"):
            raise states.refusal(vmi, "VMI is not paused")
        if not options.is_dry_run(asked):
            await self._guests().unpause(context.namespace, context.name)
        return web.Response()

    async def _freeze(self, request: web.Request, context: RequestContext) -> web.StreamResponse:
        asked = await options.read(request, options.FREEZE)
        if "unfreezeTimeout" not in asked:
            raise BadRequest("Unfreeze timeout in freeze request is not set: such as {unfreezeTimeout: 5m0s}")
        try:
            seconds = durations.seconds(asked["unfreezeTimeout"])
        except ValueError as error:
            raise BadRequest(f"unfreezeTimeout: {error}") from error
        await states.answering(self._client(), context)
        if not options.is_dry_run(asked):
            await self._guests().freeze(context.namespace, context.name, seconds=seconds)
        return web.Response()

    async def _unfreeze(self, request: web.Request, context: RequestContext) -> web.StreamResponse:
        asked = await options.read(request, options.FREEZE)
        await states.answering(self._client(), context)
        if not options.is_dry_run(asked):
            await self._guests().unfreeze(context.namespace, context.name)
        return web.Response()

    async def _reset(self, request: web.Request, context: RequestContext) -> web.StreamResponse:
        asked = await options.read(request, options.DRY_RUN)
        await states.running(self._client(), context)
        if not options.is_dry_run(asked):
            await self._guests().reset(context.namespace, context.name)
        return web.Response()

    async def _soft_reboot(self, request: web.Request, context: RequestContext) -> web.StreamResponse:
        asked = await options.read(request, options.DRY_RUN)
        vmi = await states.running(self._client(), context)
        if states.has(vmi, "Paused"):
            raise states.refusal(vmi, "VMI is paused")
        if not states.has(vmi, "AgentConnected") and not states.has_acpi(vmi):
            raise states.refusal(
                vmi, "VMI neither have the agent connected nor the ACPI feature enabled: use restart, or reset"
            )
        if not options.is_dry_run(asked):
            await self._guests().soft_reboot(context.namespace, context.name)
        return web.Response()

    async def _refuse_while_snapshot(self, context: RequestContext) -> None:
        """The VM of this name may be in the midst of a snapshot, which wants its guest to stand still."""
        try:
            vm = await self._client().get(VMS, context.name, context.namespace)
        except NotFound:
            return
        if name := (vm.get("status") or {}).get("snapshotInProgress"):
            raise states.refusal(vm, f"VM snapshot {name!r} is in progress: wait for its end", kind="virtualmachine")

    # Streams and the screen

    async def _console(self, request: web.Request, context: RequestContext) -> web.StreamResponse:
        preserve = options.flag(request, "preserveSession")
        vmi = await self._client().get(VMIS, context.name, context.namespace)
        if not states.device(vmi, "autoattachSerialConsole"):
            raise BadRequest("No serial consoles are present: domain.devices.autoattachSerialConsole is false")
        states.require_running_soon(vmi)
        guests = self._guests()

        async def dial() -> GuestStream:
            return await guests.console(context.namespace, context.name, preserve=preserve)

        return await streams.serve(request, dial, displaces=not preserve)

    async def _vnc(self, request: web.Request, context: RequestContext) -> web.StreamResponse:
        preserve = options.flag(request, "preserveSession")
        await self._with_display(context)
        guests = self._guests()

        async def dial() -> GuestStream:
            return await guests.vnc(context.namespace, context.name, preserve=preserve)

        return await streams.serve(request, dial, displaces=not preserve)

    async def _screenshot(self, request: web.Request, context: RequestContext) -> web.StreamResponse:
        move = options.flag(request, "moveCursor")
        await self._with_display(context)
        picture = await self._guests().screenshot(context.namespace, context.name, move_cursor=move)
        return web.Response(body=picture, content_type="image/png", headers={"Cache-Control": "no-store"})

    async def _with_display(self, context: RequestContext) -> None:
        vmi = await self._client().get(VMIS, context.name, context.namespace)
        if not states.device(vmi, "autoattachGraphicsDevice"):
            raise BadRequest("No graphics devices are present: domain.devices.autoattachGraphicsDevice is false")
        states.require_started(vmi)

    async def _port_forward(self, request: web.Request, context: RequestContext) -> web.StreamResponse:
        """Of a VM: to its instance."""
        port, protocol = _port(context.rest)
        if context.plural == VMS.plural:
            await self._client().get(VMS, context.name, context.namespace)
        vmi = await states.running(self._client(), context)
        if states.has(vmi, "Paused"):
            raise states.refusal(vmi, "VMI is paused")
        if not (interface := _pod_interface(vmi["spec"])):
            raise states.refusal(
                vmi, "no network interfaces are present on the pod network, which ports are reached by"
            )
        guests = self._guests()

        async def dial() -> GuestStream:
            return await guests.port_forward(
                context.namespace, context.name, port=port, protocol=protocol, interface=interface
            )

        return await streams.serve(request, dial, displaces=False)

    # What the guest says

    async def _guest_os_info(self, _request: web.Request, context: RequestContext) -> web.StreamResponse:
        await states.answering(self._client(), context)
        info = await self._guests().guest_os_info(context.namespace, context.name)
        return answer({"kind": "VirtualMachineInstanceGuestAgentInfo", "apiVersion": _API, **info})

    async def _user_list(self, _request: web.Request, context: RequestContext) -> web.StreamResponse:
        await states.telling(self._client(), context)
        items = await self._guests().users(context.namespace, context.name)
        kind = "VirtualMachineInstanceGuestOSUserList"
        return answer({"kind": kind, "apiVersion": _API, "metadata": {}, "items": items})

    async def _filesystem_list(self, _request: web.Request, context: RequestContext) -> web.StreamResponse:
        await states.telling(self._client(), context)
        items = await self._guests().filesystems(context.namespace, context.name)
        kind = "VirtualMachineInstanceFileSystemList"
        return answer({"kind": kind, "apiVersion": _API, "metadata": {}, "items": items})


def answer(document: Any, *, status: int = 200) -> web.Response:
    return web.Response(body=json.encode(document), content_type="application/json", status=status)


def _is_probed(vmi: Document) -> bool:
    """By something that a paused guest does not answer and that ends it then; a ping of its agent is none such."""
    return bool((vmi["spec"].get("livenessProbe") or {}).keys() - {"guestAgentPing", *_TIMINGS})


def _port(rest: str) -> tuple[int, Protocol]:
    """Of `22/tcp` or `22`."""
    number, _, protocol = rest.partition("/")
    protocol = protocol.lower() or "tcp"
    if not number.isascii() or not number.isdigit() or not 0 < int(number[:6]) < 65536 or len(number) > 5:
        raise BadRequest(f"{number[:20]!r} is no port: portforward/<1 to 65535>[/tcp|udp]")
    if protocol not in get_args(Protocol):
        raise BadRequest(f"protocol {protocol[:20]!r} cannot be forwarded: tcp or udp")
    return int(number), protocol  # type: ignore[return-value]


def _pod_interface(spec: Document) -> str:
    """The first interface whose network is the pod's."""
    of_pod = {network.get("name") for network in spec.get("networks") or () if network.get("pod") is not None}
    interfaces = ((spec.get("domain") or {}).get("devices") or {}).get("interfaces") or ()
    return next((str(each["name"]) for each in interfaces if each.get("name") in of_pod), "")
