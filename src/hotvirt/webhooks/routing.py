"""Which verb answers a path of an aggregated group: the longest name that the path begins with.

`virtualmachineinstances/vnc` and `.../vnc/screenshot` are two verbs; what is left of `.../portforward/22/tcp` goes to
its verb as the context's `rest`. Pure, but for calling the verb.
"""

from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web
from msgspec import Struct, structs

from hotvirt.kube.aggregated import RequestContext, ServedResource
from hotvirt.kube.errors import MethodNotAllowed, NotFound

Verb = Callable[[web.Request, RequestContext], Awaitable[web.StreamResponse]]
_KINDS = {"virtualmachines": "VirtualMachine", "virtualmachineinstances": "VirtualMachineInstance"}


class Route(Struct, frozen=True):
    """`method` is PUT or GET. `rest`: whether more of the path may follow."""

    method: str
    verb: Verb
    rest: bool = False


Routes = Mapping[str, Route]
"""By name: `version`, `virtualmachines/start`, `virtualmachineinstances/vnc/screenshot`."""


def served(routes: Routes) -> tuple[ServedResource, ...]:
    """For discovery, and for the roles: each verb is a resource of its own."""
    return tuple(
        ServedResource(
            name,
            _KINDS.get(name.partition("/")[0], ""),
            namespaced="/" in name or name == "expand-vm-spec",
            verbs=("update",) if route.method == "PUT" else ("get",),
        )
        for name, route in routes.items()
    )


async def answer(routes: Routes, request: web.Request, context: RequestContext) -> web.StreamResponse:
    name, rest = split(routes, context)
    route = routes.get(name)
    if route is None or (rest and not route.rest):
        asked = "/".join(filter(None, (context.plural, context.subresource, context.rest)))
        raise NotFound(f"the server could not find the requested resource: no subresource {asked[:200]} here")
    if request.method != route.method and not (request.method == "HEAD" and route.method == "GET"):
        raise MethodNotAllowed(f"{name} answers {route.method}, not {request.method}")
    return await route.verb(request, structs.replace(context, subresource=name.partition("/")[2], rest=rest))


def split(routes: Routes, context: RequestContext) -> tuple[str, str]:
    """The name of the route and what follows it; the name is of no route when there is none."""
    parts = [context.plural, *filter(None, (context.subresource, *context.rest.split("/")))]
    if context.name and len(parts) == 1:
        return "", ""  # an object of its own, such as version/x or virtualmachines/web: nothing is stored here
    for length in range(len(parts), 0, -1):
        if (name := "/".join(parts[:length])) in routes:
            return name, "/".join(parts[length:])
    return "", ""
