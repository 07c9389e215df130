"""Which parts a home is made of, and who they are towards the API.

Made before the API runs, as the API is told of its admission and groups when it is made; those reach the API, and the
guests, through what exists only later: a client from `start` on, guests while the node agent runs.
"""

import asyncio
import logging
import secrets
import socket
from collections.abc import Awaitable, Callable

from aiohttp import web

from hotvirt import __version__, controllers
from hotvirt.api import attachments, volumesnapshots
from hotvirt.api.crds import crds
from hotvirt.controllers.export import Address
from hotvirt.controllers.phasetimes import PhaseTimes
from hotvirt.home import keys, podlogs
from hotvirt.home.metrics import Metrics
from hotvirt.home.paths import Paths
from hotvirt.home.podstreams import HomePodStreams
from hotvirt.kube.admission import User
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import InternalError
from hotvirt.kube.informer import Informer
from hotvirt.kube.kubeconfig import Access
from hotvirt.kube.podstreams import PodStreams
from hotvirt.kube.resources import KUBEVIRTS, NODES, PODS, VMIS, Resource
from hotvirt.kube.times import utc_now
from hotvirt.node import bridge, cgroups, hostfacts
from hotvirt.node.places import Places
from hotvirt.node.run import Node
from hotvirt.node.uploads import Front
from hotvirt.server.app import ApiServer, ServerConfig
from hotvirt.server.pki import Pki
from hotvirt.webhooks import datavolumes
from hotvirt.webhooks.admission import admissions
from hotvirt.webhooks.evictions import Evictions
from hotvirt.webhooks.exports import ExportDoor, ExportFiles
from hotvirt.webhooks.guests import GuestAccess
from hotvirt.webhooks.subresources import HotvirtSubresources, KubeVirtSubresources
from hotvirt.webhooks.uploadtokens import UploadTokens

log = logging.getLogger("hotvirt.home")

NAMESPACE = "kubevirt"
NODE_PATIENCE = 10.0
VERSION = f"v{__version__}"
KUBEVIRT = "v1.9.0"
"""The KubeVirt whose API is spoken here."""
GROUPS = (
    "system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}", "system:masters", "system:authenticated",
)  # fmt: skip
STARTING = "the node agent is starting or has failed; try again, or see the home's log"
Part = Callable[[], Awaitable[None]]


class Home:
    """`port` 0 takes a free one."""

    def __init__(self, place: Paths, *, port: int) -> None:
        self._place = place
        self._places = Places(pods=place.pods, images=place.images, volumes=place.volumes)
        self._kubevirts: Informer | None = None
        self._guests: GuestAccess | None = None
        self._pods: PodStreams | None = None
        self._exported: ExportFiles | None = None
        self._phase_times = PhaseTimes()
        self._metrics: Metrics | None = None
        self._node_began = asyncio.Event()
        self._upload_key = secrets.token_bytes(32)
        self._server = ApiServer(
            ServerConfig(state_db=place.database, pki=place.pki, port=port),
            admissions=(
                *admissions(self._kubevirt, self._stored),
                Evictions(self._stored, lambda: self.client("api")),
                *datavolumes.admissions(lambda: self.client("api")),
            ),
            groups=(
                KubeVirtSubresources(lambda: self.client("api"), self._access, version=version_document()),
                HotvirtSubresources(lambda: self.client("api"), self._access),
                UploadTokens(lambda: self.client("api"), self._upload_key, clock=utc_now),
            ),
            crds=[*crds(), attachments.crd(), *volumesnapshots.crds()],
            pod_logs=self._pod_logs,
            metrics=self._metrics_text,
            pod_streams=HomePodStreams(lambda: self._pods, lambda: self._server.access),
            doors=(ExportDoor(lambda: self.client("api"), self._export_files),),
        )

    async def start(self) -> Access:
        """The API answers from now on; gives the administrator's access. OSError when the port is taken."""
        await self._server.start()
        self._kubevirts = Informer(self.client("home"), KUBEVIRTS)
        self._instances = Informer(self.client("home"), VMIS)
        self._instances.add_handler(self._phase_times.observe)
        return self._administrator()

    async def stop(self) -> None:
        await self._server.stop()

    async def settled(self) -> None:
        """Returns once the node is there: before, the first machines would be called unschedulable, and nobody could
        be asked about guests. Bounded, as a node that cannot come up must not hide the API that tells so."""
        try:
            async with asyncio.timeout(NODE_PATIENCE):
                await self._node_began.wait()
                await until_any(self.client("home"), NODES)
        except TimeoutError:
            log.warning("no node is registered yet, machines cannot start", extra={"seconds": NODE_PATIENCE})

    def client(self, part: str) -> Client:
        """In-process, as the part's service account."""
        return self._server.client(User(f"system:serviceaccount:{NAMESPACE}:hotvirt-{part}", GROUPS))

    def parts(self) -> dict[str, Part]:
        """What runs beside the API, by name. Each may be run again after it failed."""
        assert self._kubevirts is not None, "start comes first"
        return {
            "settings": self._kubevirts.run,
            "phase times": self._instances.run,
            "controllers": lambda: controllers.run(self.client("controller"), downloads=self._address),
            "node": self._node,
        }

    async def _node(self) -> None:
        network = await bridge.choose(self._place.run, is_default=self._place.is_default)
        if network.notice:
            log.warning("guests get user-mode networking: %s", network.notice)
        facts = await asyncio.to_thread(
            hostfacts.gather, socket.gethostname(), cache=self._place.state / "acceleration.json", network=network.kind,
            network_notice=network.notice,
        )  # fmt: skip
        shares = cgroups.find(bridge.names(self._place.run, is_default=self._place.is_default).table)
        pki = Pki(self._place.pki)
        node = Node(
            self.client("node"), facts=facts, places=self._places, network=network, cgroups=shares,
            front=Front(self._upload_key, pki.server_context(), pki.ca.read_text()),
        )  # fmt: skip
        self._guests, self._pods, self._exported = node.access, node.pods, node.export_files
        self._metrics = Metrics(self.client("home"), node.samples, node=facts.node_name, phases=self._phase_times)
        self._node_began.set()
        try:
            await node.run()
        finally:
            self._guests = self._pods = self._metrics = self._exported = None

    def _export_files(self) -> ExportFiles:
        if self._exported is None:
            raise InternalError(STARTING)
        return self._exported

    def _address(self) -> Address:
        return Address(f"https://127.0.0.1:{self._server.port}", Pki(self._place.pki).ca.read_text())

    def _access(self) -> GuestAccess:
        if self._guests is None:
            raise InternalError(STARTING)
        return self._guests

    async def _metrics_text(self) -> bytes:
        if self._metrics is None:
            raise InternalError(STARTING)
        return await self._metrics.text()

    async def _pod_logs(self, request: web.Request, namespace: str, name: str) -> web.StreamResponse:
        pod = await self.client("node").get(PODS, name, namespace)
        return await podlogs.serve(request, pod, self._places.pod(pod["metadata"]["uid"]))

    def _kubevirt(self) -> Document | None:
        return self._kubevirts.get("kubevirt", NAMESPACE) if self._kubevirts else None

    def _stored(self, resource: Resource, name: str, namespace: str) -> Document | None:
        return self._server.client().peek(resource, name, namespace)

    def _administrator(self) -> Access:
        pki = Pki(self._place.pki)
        pair = keys.administrator(pki)
        return Access(
            server=f"https://127.0.0.1:{self._server.port}",
            ca=pki.ca.read_text(),
            certificate=pair.certificate.read_text(),
            key=pair.key.read_text(),
        )


async def until_any(client: Client, resource: Resource) -> None:
    """Returns once there is an object of this kind."""
    listed = await client.list(resource)
    if not listed["items"]:
        async for _ in client.watch(resource, resource_version=listed["metadata"]["resourceVersion"]):
            return


def version_document() -> dict[str, str]:
    """As KubeVirt's GET version answers. With every error virtctl warns of a server whose first two numbers are not its
    own: so they are KubeVirt's, and ours come after."""
    return {"gitVersion": f"{KUBEVIRT}+hotvirt.{__version__}", "gitTreeState": "", "platform": "linux/amd64"}
