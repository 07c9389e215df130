"""The aggregated groups `subresources.kubevirt.io` (KubeVirt's verbs) and `subresources.hotvirt.io` (ours).

Here is which verbs there are; what they do is in `machines` (writes of VMs) and `instances` (guests). Stateless, so
requests run concurrently.
"""

from collections.abc import Callable

from aiohttp import web

from hotvirt.kube.aggregated import RequestContext, ServedResource
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import Forbidden, NotImplementedHere
from hotvirt.kube.resources import VMIS, VMS
from hotvirt.webhooks import expand, objectgraph, options, preconditions, routing, states
from hotvirt.webhooks.guests import GuestAccess
from hotvirt.webhooks.instances import InstanceVerbs, answer
from hotvirt.webhooks.machines import MachineVerbs
from hotvirt.webhooks.routing import Route, Routes, Verb

PROFILER = ("start-cluster-profiler", "stop-cluster-profiler", "dump-cluster-profiler")
UNSUPPORTED = {
    "usbredir": ("GET", "USB redirection is not supported here; a disk image can be attached with addvolume"),
    "vsock": ("GET", "VSOCK is not supported here; reach the guest with portforward"),
    "backup": ("PUT", "incremental backup is not supported here; freeze the guest and copy its volume"),
    "redefine-checkpoint": ("PUT", "incremental backup is not supported here; freeze the guest and copy its volume"),
    "sev/fetchcertchain": ("GET", "SEV is not supported here; guests run without memory encryption"),
    "sev/querylaunchmeasurement": ("GET", "SEV is not supported here; guests run without memory encryption"),
    "sev/setupsession": ("PUT", "SEV is not supported here; guests run without memory encryption"),
    "sev/injectlaunchsecret": ("PUT", "SEV is not supported here; guests run without memory encryption"),
}
"""Of an instance: the method, and what is said."""


class KubeVirtSubresources:
    """`subresources.kubevirt.io`. `client` gives, once the API runs, a client that may write VMIs; `guests` the way to
    this moment's guests; `version` is what GET version answers."""

    name = "subresources.kubevirt.io"
    versions: tuple[str, ...] = ("v1", "v1alpha3")
    open_paths: tuple[str, ...] = ("version", "guestfs", "healthz", *PROFILER)

    def __init__(self, client: Callable[[], Client], guests: Callable[[], GuestAccess], *, version: Document) -> None:
        self._client, self._version = client, version
        self._routes: Routes = {
            **MachineVerbs(client).routes(),
            **InstanceVerbs(client, guests).routes(),
            "virtualmachines/expand-spec": Route("GET", self._expand_stored),
            "virtualmachines/objectgraph": Route("GET", self._graph),
            "virtualmachineinstances/objectgraph": Route("GET", self._graph),
            **{
                f"virtualmachineinstances/{name}": Route(method, self._unsupported(why))
                for name, (method, why) in UNSUPPORTED.items()
            },
            "expand-vm-spec": Route("PUT", self._expand_given),
            "version": Route("GET", self._get_version),
            "guestfs": Route("GET", _guestfs),
            "healthz": Route("GET", self._health),
            **{name: Route("GET", _profiler) for name in PROFILER},
        }
        self.resources: tuple[ServedResource, ...] = routing.served(self._routes)

    async def handle(self, request: web.Request, context: RequestContext) -> web.StreamResponse:
        return await routing.answer(self._routes, request, context)

    async def _expand_stored(self, _request: web.Request, context: RequestContext) -> web.StreamResponse:
        return answer(await expand.stored(self._client(), context))

    async def _expand_given(self, request: web.Request, context: RequestContext) -> web.StreamResponse:
        return answer(await expand.given(self._client(), request, context))

    async def _graph(self, request: web.Request, context: RequestContext) -> web.StreamResponse:
        asked = await options.read(request, options.OBJECT_GRAPH)
        client, is_vm = self._client(), context.plural == VMS.plural
        obj = await client.get(VMS if is_vm else VMIS, context.name, context.namespace)
        pod = await objectgraph.pod_of(client, context.name, context.namespace)
        graph = objectgraph.of_machine(obj, pod) if is_vm else objectgraph.of_instance(obj, pod)
        return answer(objectgraph.chosen(graph, asked))

    def _unsupported(self, why: str) -> Verb:
        async def verb(_request: web.Request, context: RequestContext) -> web.StreamResponse:
            await self._client().get(VMIS, context.name, context.namespace)
            raise NotImplementedHere(why)

        return verb

    async def _get_version(self, _request: web.Request, _context: RequestContext) -> web.StreamResponse:
        return answer(self._version)

    async def _health(self, _request: web.Request, _context: RequestContext) -> web.StreamResponse:
        """As KubeVirt's: whether the API that this one stands before is reached."""
        return answer({"apiserver": {"connectivity": "ok", "version": self._version}})


async def _guestfs(_request: web.Request, _context: RequestContext) -> web.StreamResponse:
    """Plain text, as virtctl shows nothing of a Status here."""
    said = "there is no libguestfs image here, as no containers are run: stop the VM, and use guestfish on its volume"
    return web.Response(status=NotImplementedHere.code, text=said)


async def _profiler(_request: web.Request, _context: RequestContext) -> web.StreamResponse:
    raise Forbidden('"ClusterProfiler" feature gate must be enabled, and is not supported here')


class HotvirtSubresources:
    """`subresources.hotvirt.io/v1alpha1`: what KubeVirt has no word for."""

    name = "subresources.hotvirt.io"
    versions: tuple[str, ...] = ("v1alpha1",)
    open_paths: tuple[str, ...] = ()
    resources: tuple[ServedResource, ...] = (
        ServedResource("virtualmachineinstances/guestfacts", "GuestFacts"),
        ServedResource("virtualmachines/preconditions", "PreconditionReport"),
    )

    def __init__(self, client: Callable[[], Client], guests: Callable[[], GuestAccess]) -> None:
        self._client, self._guests = client, guests
        self._routes: Routes = {
            "virtualmachineinstances/guestfacts": Route("GET", self._facts),
            "virtualmachines/preconditions": Route("GET", self._preconditions),
        }

    async def handle(self, request: web.Request, context: RequestContext) -> web.StreamResponse:
        return await routing.answer(self._routes, request, context)

    async def _facts(self, _request: web.Request, context: RequestContext) -> web.StreamResponse:
        await states.telling(self._client(), context)
        facts = await self._guests().facts(context.namespace, context.name)
        return answer({"kind": "GuestFacts", "apiVersion": "subresources.hotvirt.io/v1alpha1", **facts})

    async def _preconditions(self, request: web.Request, context: RequestContext) -> web.StreamResponse:
        changes = request.query.getall("change", [])
        return answer(await preconditions.report(self._client(), self._guests, context, changes))
