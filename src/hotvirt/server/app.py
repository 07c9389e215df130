"""The API server as one thing: what it is made of, in which order it starts and stops.

`ApiServer` runs on the caller's event loop. After `start` it serves, and `client` gives in-process clients; `stop` ends
every watch and connection, and returns when all that was acknowledged is on disk.
"""

import asyncio
import gc
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from hotvirt.kube.admission import Admission, User
from hotvirt.kube.aggregated import AggregatedGroup
from hotvirt.kube.errors import AlreadyExists, NotFound
from hotvirt.kube.podstreams import PodStreams
from hotvirt.kube.resources import CRDS
from hotvirt.server import apiservices, bookkeeping_checks, builtin, roles
from hotvirt.server.access import MASTERS, Access
from hotvirt.server.apiservicekeeper import ApiServiceKeeper
from hotvirt.server.calls import Call
from hotvirt.server.customresources import DefinitionWatcher
from hotvirt.server.expiry import EventExpiry
from hotvirt.server.gc import GarbageCollector
from hotvirt.server.inprocess import LocalClient
from hotvirt.server.namespaces import NamespaceKeeper
from hotvirt.server.pki import Pki
from hotvirt.server.policies import Policies
from hotvirt.server.quotas import QuotaKeeper
from hotvirt.server.registry import Registry
from hotvirt.server.rolekeeper import RoleKeeper
from hotvirt.server.serviceaddresses import complete_older
from hotvirt.server.services import Ranges
from hotvirt.server.store import Store
from hotvirt.server.subresources import Subresources
from hotvirt.server.tokens import Tokens
from hotvirt.server.tokensecrets import TokenSecretKeeper
from hotvirt.server.verbs import Verbs
from hotvirt.server.watch import Bookmarks
from hotvirt.server.webhooks import Webhooks

if TYPE_CHECKING:
    from aiohttp import web

    from hotvirt.kube.doors import Door
    from hotvirt.server.http import HttpFront

Document = dict[str, Any]
SERVER_USER = User("system:apiserver", (MASTERS, "system:authenticated"))
VERSION = "v1.36.0-hotvirt"
# Documents are large and hold no cycles. At Python's own threshold (700 more containers than before) the collector
# looks through them several times a request all the same: a seventh of the time of a write.
GC_THRESHOLD = 10_000
PodLogs = Callable[["web.Request", str, str], Awaitable["web.StreamResponse"]]  # request, namespace, name

MetricsText = Callable[[], Awaitable[bytes]]


class ServerConfig(Struct, frozen=True, kw_only=True):
    """`port` 0 takes a free one. `names` are further names or addresses the certificate is to hold. `listen` False
    serves in-process clients alone. `service_ranges` is what services get their addresses and node ports from."""

    state_db: Path
    pki: Path
    host: str = "127.0.0.1"
    port: int = 0
    names: tuple[str, ...] = ()
    listen: bool = True
    version: str = VERSION
    service_ranges: Ranges = Ranges()


class ApiServer:
    """`crds` are applied at the start through the ordinary path (a changed one is updated); `bootstrap` objects are
    created if they are missing. `pod_logs` answers `kubectl logs`, `pod_streams` exec and its like, `metrics` GET
    /metrics, `doors` what is below their prefixes, to anybody. `now` is what things are stamped with."""

    def __init__(
        self,
        config: ServerConfig,
        *,
        admissions: Sequence[Admission] = (),
        groups: Sequence[AggregatedGroup] = (),
        crds: Sequence[Document] = (),
        bootstrap: Sequence[Document] = (),
        pod_logs: PodLogs | None = None,
        pod_streams: PodStreams | None = None,
        metrics: MetricsText | None = None,
        doors: "Sequence[Door]" = (),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.config = config
        self._admissions, self._groups, self._crds, self._bootstrap = admissions, groups, crds, bootstrap
        self._now, self._pod_logs, self.pod_streams, self.metrics = now, pod_logs, pod_streams, metrics
        self.doors = doors
        self._closed = asyncio.Event()
        self._stopped = False
        self._front: HttpFront | None = None

    async def start(self) -> None:
        """Raises StateFileError, or OSError when the port is taken."""
        config = self.config
        pki = Pki(config.pki)
        self.store = await Store.open(config.state_db)
        try:
            await self._start(pki)
        except BaseException:
            await self.stop()
            raise

    async def _start(self, pki: Pki) -> None:
        store = self.store
        self.registry = Registry(builtin.kinds())
        definitions = DefinitionWatcher(store, self.registry)
        self.access = Access(store)
        self.webhooks = Webhooks(store, self.registry, self.access.may)
        self.policies = Policies(store, self.registry, self.access.may)
        self.verbs = Verbs(
            store, self.registry, self._admissions, now=self._now, webhooks=self.webhooks,
            policies=self.policies,
            complete_status=lambda kind, doc, now: apiservices.complete_status(
                kind, definitions.complete_status(kind, doc, now), now
            ),
            service_ranges=self.config.service_ranges,
        )  # fmt: skip
        self.tokens = Tokens(store, pki.token_secret(), self._now)
        self.subresources = Subresources(self.verbs, self.access, self.tokens)
        self.bookmarks = Bookmarks(store)
        self._keepers = (
            GarbageCollector(self.verbs, SERVER_USER),
            NamespaceKeeper(self.verbs, SERVER_USER, ca=pki.ca.read_text()),
            RoleKeeper(self.verbs, SERVER_USER),
            QuotaKeeper(self.verbs, SERVER_USER),
            EventExpiry(self.verbs, SERVER_USER),
            TokenSecretKeeper(self.verbs, self.tokens, SERVER_USER, ca=pki.ca.read_text()),
            ApiServiceKeeper(self.verbs, SERVER_USER, self._groups),
        )
        for keeper in self._keepers:
            keeper.start()
        await self._bootstrap_objects()
        await complete_older(self.verbs, SERVER_USER)
        self.webhooks.start()
        self.policies.start()
        gc.set_threshold(GC_THRESHOLD)
        if self.config.listen:
            from hotvirt.server.http import HttpFront  # aiohttp: not for those who only serve in process

            self._front = HttpFront(self, self._groups, pki.server_context(self.config.names))
            await self._front.start(self.config.host, self.config.port)

    async def stop(self) -> None:
        """Can be called again, and after a start that failed."""
        if self._stopped:
            return
        self._stopped = True
        self._closed.set()
        if self._front is not None:
            await self._front.stop()
        for keeper in getattr(self, "_keepers", ()):
            await keeper.stop()
        if hasattr(self, "bookmarks"):
            self.bookmarks.stop()
            await self.webhooks.stop()
        await self.store.close()

    @property
    def port(self) -> int:
        """The port that is listened on; 0 when none is."""
        return self._front.port if self._front else 0

    @property
    def closed(self) -> asyncio.Event:
        """Set when the server begins to stop."""
        return self._closed

    def client(self, user: User = SERVER_USER) -> LocalClient:
        """A client that acts as `user`, with that user's permissions."""
        return LocalClient(self.verbs, self.subresources, self.access, self.bookmarks, user, self._closed)

    async def backup(self, target: Path) -> None:
        """A complete copy of the state, taken while everything goes on."""
        await self.store.backup(target)

    async def pod_log(self, request: "web.Request", call: Call) -> "web.StreamResponse":
        """GET pods/log: by whoever runs the pods here."""
        if self._pod_logs is None:
            raise NotFound(f"nobody keeps logs of pods here, {call.name}'s neither")
        await self.verbs.get(call)
        return await self._pod_logs(request, call.namespace, call.name)

    async def _bootstrap_objects(self) -> None:
        client = self.client()
        wanted = [*_namespaces(), *bookkeeping_checks.priority_classes(), *roles.bootstrap(), *self._bootstrap]
        async with asyncio.TaskGroup() as group:  # one commit, not one for each
            for namespace in [each for each in wanted if each["kind"] == "Namespace"]:
                group.create_task(self._ensure(client, namespace))
        async with asyncio.TaskGroup() as group:
            for definition in self._crds:
                group.create_task(self._apply_crd(client, definition))
        async with asyncio.TaskGroup() as group:
            for obj in wanted:
                if obj["kind"] != "Namespace":
                    group.create_task(self._ensure(client, obj))

    async def _ensure(self, client: LocalClient, obj: Document) -> None:
        served = self.registry.by_kind(obj["apiVersion"], obj["kind"])
        if served is None:
            raise ValueError(f"bootstrap object {obj['kind']} {obj['apiVersion']} is not a served kind")
        try:
            await client.create(served.resource, obj)
        except AlreadyExists:
            return

    async def _apply_crd(self, client: LocalClient, definition: Document) -> None:
        try:
            await client.create(CRDS, definition)
        except AlreadyExists:
            name = definition["metadata"]["name"]
            patch = {"spec": definition["spec"], "metadata": _labels_of(definition)}
            current = await client.get(CRDS, name)
            metadata = {**current["metadata"], **patch["metadata"]}
            if {**current["spec"], **patch["spec"]} == current["spec"] and metadata == current["metadata"]:
                return  # as at the last start, and checked then
            await client.update(CRDS, {**current, "spec": patch["spec"], "metadata": metadata})


def _labels_of(definition: Document) -> Document:
    meta = definition["metadata"]
    return {key: meta[key] for key in ("labels", "annotations") if key in meta}


def _namespaces() -> list[Document]:
    names = ("default", "kube-system", "kube-public", "kube-node-lease")
    return [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in names]
