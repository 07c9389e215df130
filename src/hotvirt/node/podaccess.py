"""exec, attach and port-forward of launcher pods, by the node that runs them: `hotvirt.kube.podstreams.PodStreams`.

To attach is to read the guest's serial console, as that is what a virtual machine "says". QEMU's console has one reader
at a time, so one that is in use is not taken away, and a console opened later takes over.
"""

import asyncio

from hotvirt.kube import owners
from hotvirt.kube.admission import User
from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import BadRequest, Conflict, NotFound
from hotvirt.kube.podstreams import Command, Dialled, Output
from hotvirt.kube.resources import VMIS
from hotvirt.node import podexec
from hotvirt.node.access import LocalGuestAccess
from hotvirt.node.cgroups import Cgroups
from hotvirt.node.network import interfaces
from hotvirt.node.places import Places
from hotvirt.qemu.streams import GuestStream

CHUNK = 32 << 10


class LocalPodStreams:
    def __init__(
        self, client: Client, guests: LocalGuestAccess, *, node: str, places: Places, cgroups: Cgroups
    ) -> None:
        self._client, self._guests, self._node = client, guests, node
        self._places, self._cgroups = places, cgroups

    async def exec(self, pod: Document, command: Command, user: User) -> podexec.Program:  # noqa: ARG002
        self._check_is_here(pod)
        return await podexec.start(
            pod, self._places.pod(pod["metadata"]["uid"]), command, cgroups=self._cgroups
        )  # fmt: skip

    async def attach(self, pod: Document, command: Command, user: User) -> "Attached":  # noqa: ARG002
        self._check_is_here(pod)
        name, namespace = _instance_of(pod), pod["metadata"]["namespace"]
        if command.stdin:
            raise BadRequest(
                "attach only reads: to type at the guest's serial console use "
                f"`hotvirt console vmi/{name} -n {namespace}`"
            )
        if not command.stdout:
            raise BadRequest("a serial console has one output: ask for stdout")
        if self._guests.console_in_use(pod["metadata"]["uid"]):
            raise Conflict(
                f"the serial console of {name} is in use, and has one reader at a time: close it, or take it over with "
                f"`hotvirt console vmi/{name} -n {namespace}`"
            )
        return Attached(await self._guests.console(namespace, name))

    async def dial(self, pod: Document, port: int, user: User) -> Dialled:  # noqa: ARG002
        self._check_is_here(pod)
        name, namespace = _instance_of(pod), pod["metadata"]["namespace"]
        found = interfaces(await self._client.get(VMIS, name, namespace))
        if not found:
            raise Conflict(f"port {port}: {name} has no network interface")
        stream = await self._guests.port_forward(
            namespace, name, port=port, protocol="tcp", interface=str(found[0]["name"])
        )
        return Dialled(stream.reader, stream.writer)

    def _check_is_here(self, pod: Document) -> None:
        if pod["spec"].get("nodeName") != self._node:
            raise NotFound(f"pod {pod['metadata']['name']} does not run on node {self._node}")


def _instance_of(pod: Document) -> str:
    owner = owners.controller_of(pod)
    if owner is None or owner["kind"] != "VirtualMachineInstance":
        raise BadRequest(f"pod {pod['metadata']['name']} holds no virtual machine")
    return str(owner["name"])


class Attached:
    """The console as a program that only speaks, and that ends with its guest or when another takes the console."""

    def __init__(self, stream: GuestStream) -> None:
        self._stream = stream
        self._ended = asyncio.Event()

    async def read(self, stream: Output) -> bytes:
        if stream != "stdout":
            return b""
        try:
            data = await self._stream.reader.read(CHUNK)
        except OSError:
            data = b""
        if not data:
            self._ended.set()
        return data

    async def write(self, data: bytes) -> None:  # noqa: ARG002
        return

    async def end_input(self) -> None:
        return

    def resize(self, columns: int, rows: int) -> None:  # noqa: ARG002
        return

    async def wait(self) -> int:
        await self._ended.wait()
        return 0

    async def close(self) -> None:
        self._stream.writer.close()
