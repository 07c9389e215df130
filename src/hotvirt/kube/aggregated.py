"""API groups that are served beside the stored ones, as Kubernetes' aggregation layer does (`APIService`).

KubeVirt's `subresources.kubevirt.io` is one. `server/` authenticates and authorizes each request (resource
`virtualmachines/start`, verb by HTTP method, as the aggregator's front would), then hands it to the group.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import web
from msgspec import Struct

from hotvirt.kube.admission import User


class ServedResource(Struct, frozen=True):
    """One row of the group's discovery document, e.g. `virtualmachines/start`, verbs ("update",)."""

    name: str
    kind: str
    namespaced: bool = True
    verbs: tuple[str, ...] = ("get",)


class RequestContext(Struct, frozen=True):
    """Where and by whom: for `/apis/G/V/namespaces/NS/virtualmachines/NAME/portforward/22/tcp`, plural is
    `virtualmachines`, subresource `portforward`, rest `22/tcp`. For group-level paths (`/apis/G/V/version`) plural is
    `version` and name is empty."""

    user: User
    version: str
    namespace: str
    plural: str
    name: str
    subresource: str
    rest: str


Handler = Callable[[web.Request, RequestContext], Awaitable[web.StreamResponse]]


class AggregatedGroup(Protocol):
    """A group mounted at /apis/<name>. `handle` may raise ApiError; it may upgrade to a WebSocket. Paths whose plural
    is in `open_paths` are served to any authenticated caller without an RBAC check (KubeVirt: version, guestfs)."""

    name: str
    versions: tuple[str, ...]
    resources: tuple[ServedResource, ...]
    open_paths: tuple[str, ...]

    async def handle(self, request: web.Request, context: RequestContext) -> web.StreamResponse: ...
