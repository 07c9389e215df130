"""pods/exec, pods/attach and pods/portforward: what a request asks for, whether it can be, and which transport.

Faults that are known before the connection is upgraded are ordinary Statuses. A GET (a WebSocket) needs `create` too,
as Kubernetes has it since 1.35: else whoever may `get` everything could run commands.
"""

from collections.abc import Sequence
from typing import Any

from aiohttp import web
from multidict import MultiMapping

from hotvirt.kube.errors import BadRequest, Conflict, NotFound
from hotvirt.kube.podstreams import Command, Dialled, PodStreams
from hotvirt.server import portforward, remotecommand, upgrade
from hotvirt.server.access import Access, Attributes
from hotvirt.server.calls import Call
from hotvirt.server.queries import flag
from hotvirt.server.spdy import Session
from hotvirt.server.verbs import Verbs

Document = dict[str, Any]
SUBRESOURCES = ("exec", "attach", "portforward")


class PodStreamHandler:
    """`runner` is who runs the pods; None where nobody does."""

    def __init__(self, access: Access, verbs: Verbs, runner: PodStreams | None) -> None:
        self._access, self._verbs, self._runner = access, verbs, runner

    async def serve(self, request: web.Request, call: Call, pod: Document) -> web.StreamResponse:
        if request.method == "GET":
            self._access.require(
                call.user,
                Attributes(
                    verb="create", group="", version="v1", resource="pods", subresource=call.subresource,
                    namespace=call.namespace, name=call.name,
                ),
            )  # fmt: skip
        if self._runner is None:
            raise NotFound(f"nobody runs pods here, {call.name} neither")
        if call.subresource == "portforward":
            return await self._forward(request, call, pod, self._runner)
        wish = command(request.query, pod, attach=call.subresource == "attach")
        if not (how := upgrade.wanted(request)):
            raise upgrade.must_upgrade()
        _check_versions(request, how, remotecommand.SOCKET_PROTOCOLS, remotecommand.SPDY_PROTOCOLS)
        await self._verbs.connect(call, options(wish, call.subresource))
        start = self._runner.attach if call.subresource == "attach" else self._runner.exec
        program = await start(pod, wish, call.user)
        try:
            if how == "websocket":
                async with upgrade.websocket(request, remotecommand.SOCKET_PROTOCOLS) as (socket, protocol):
                    await remotecommand.over_socket(socket, protocol, program, wish)
                    return socket
            async with upgrade.spdy(request, remotecommand.SPDY_PROTOCOLS) as (pipe, protocol):
                await remotecommand.over_spdy(Session(pipe), protocol, program, wish)
                return upgrade.Taken()
        finally:
            await program.close()

    async def _forward(self, request: web.Request, call: Call, pod: Document, runner: PodStreams) -> web.StreamResponse:
        if not (how := upgrade.wanted(request)):
            raise upgrade.must_upgrade()
        _check_running(pod)
        await self._verbs.connect(call, {"apiVersion": "v1", "kind": "PodPortForwardOptions"})

        async def dial(port: int) -> Dialled:
            return await runner.dial(pod, port, call.user)

        if how == "spdy":
            async with upgrade.spdy(request, (portforward.PROTOCOL,)) as (pipe, _):
                await portforward.over_spdy(Session(pipe), dial)
            return upgrade.Taken()
        tunnel = portforward.TUNNEL in upgrade.subprotocols(request)
        named = [] if tunnel else ports(request.query)
        protocols = (portforward.TUNNEL,) if tunnel else portforward.CHANNELS
        async with upgrade.websocket(request, protocols) as (socket, _):
            if tunnel:
                await portforward.over_spdy(Session(upgrade.SocketPipe(socket)), dial)
            else:
                await portforward.over_channels(socket, named, dial)
            return socket


def _check_versions(request: web.Request, how: str, sockets: Sequence[str], spdy: Sequence[str]) -> None:
    """Before anything is started: a client that speaks none of ours is told so."""
    offered = upgrade.subprotocols(request) if how == "websocket" else upgrade.stream_versions(request)
    offered = [each for each in offered if not each.startswith("base64url.bearer.")]
    known = sockets if how == "websocket" else spdy
    if offered and not set(offered) & set(known):
        raise BadRequest(f"none of the protocols {', '.join(offered)} is spoken: use {', '.join(known)}")


def _check_running(pod: Document) -> None:
    phase = (pod.get("status") or {}).get("phase")
    if phase != "Running":
        raise Conflict(f"pod {pod['metadata']['name']} is not running: its phase is {phase or 'Pending'}")


def command(query: MultiMapping[str], pod: Document, *, attach: bool) -> Command:
    """What the query asks for. BadRequest for what cannot be had, Conflict for a pod that does not run. Pure."""
    name, containers = pod["metadata"]["name"], [each["name"] for each in pod["spec"]["containers"]]
    container = query.get("container") or containers[0]
    if container not in containers:
        raise BadRequest(f"container {container} is not valid for pod {name}: it has {', '.join(containers)}")
    argv = tuple(query.getall("command", []))
    if not attach and not argv:
        raise BadRequest("you must specify at least 1 command for the container: kubectl exec POD -- COMMAND")
    wish = Command(
        container=container, argv=() if attach else argv, stdin=flag(query, "stdin"), stdout=flag(query, "stdout"),
        stderr=flag(query, "stderr"), tty=flag(query, "tty"),
    )  # fmt: skip
    if not (wish.stdin or wish.stdout or wish.stderr):
        raise BadRequest("you must specify at least one of stdin, stdout, stderr")
    _check_running(pod)
    return wish


def options(wish: Command, subresource: str) -> Document:
    """What admission is asked about. Pure."""
    flags = {name: True for name in ("stdin", "stdout", "stderr", "tty") if getattr(wish, name)}
    found = {"apiVersion": "v1", "kind": "PodAttachOptions", **flags, "container": wish.container}
    return found if subresource == "attach" else {**found, "kind": "PodExecOptions", "command": list(wish.argv)}


def ports(query: MultiMapping[str]) -> list[int]:
    """`ports=80,443` or `ports=80&ports=443`. Pure."""
    texts = [text for line in query.getall("ports", []) for text in line.split(",")]
    if not texts:
        raise BadRequest("you must specify at least one port: ?ports=80")
    if len(texts) > portforward.MOST_PORTS:
        raise BadRequest(f"at most {portforward.MOST_PORTS} ports can be forwarded over one connection")
    for text in texts:
        if not text.isdecimal() or not 0 < int(text) < 65536:
            raise BadRequest(f"ports: {text!r} is not a port: use 1 to 65535")
    return [int(text) for text in texts]
