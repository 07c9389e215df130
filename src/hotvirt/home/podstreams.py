"""exec, attach and port-forward of pods, from the API's front to the node agent: which exists only while it runs.

Attaching shows a guest's console, so it takes the permission that the console itself takes.
"""

from collections.abc import Callable

from hotvirt.kube import owners
from hotvirt.kube.admission import User
from hotvirt.kube.client import Document
from hotvirt.kube.errors import InternalError
from hotvirt.kube.podstreams import Command, Dialled, PodStreams, Running
from hotvirt.server.access import Access, Attributes


class HomePodStreams:
    """`node` is None while there is no node agent."""

    def __init__(self, node: Callable[[], PodStreams | None], access: Callable[[], Access]) -> None:
        self._node, self._access = node, access

    async def exec(self, pod: Document, command: Command, user: User) -> Running:
        return await self._there().exec(pod, command, user)

    async def attach(self, pod: Document, command: Command, user: User) -> Running:
        owner = owners.controller_of(pod) or {}
        self._access().require(
            user,
            Attributes(
                verb="get", group="subresources.kubevirt.io", version="v1", resource="virtualmachineinstances",
                subresource="console", namespace=pod["metadata"]["namespace"], name=str(owner.get("name") or ""),
            ),
        )  # fmt: skip
        return await self._there().attach(pod, command, user)

    async def dial(self, pod: Document, port: int, user: User) -> Dialled:
        return await self._there().dial(pod, port, user)

    def _there(self) -> PodStreams:
        if (node := self._node()) is None:
            raise InternalError("the node agent is starting or has failed; try again, or see the home's log")
        return node
