"""The way into a guest for the API's front (`hotvirt.webhooks.guests.GuestAccess`), at home in the same process.

Each call acts on the guest at that moment. It finds the guest and words what fails; the deeds are `power`, `freezing`,
`consoles`, `forwarding` and `asked`. Calls run concurrently.
"""

from typing import Any
from weakref import WeakSet

from hotvirt.kube.errors import Conflict, InternalError, NotFound
from hotvirt.kube.informer import Key
from hotvirt.kube.times import Clock, utc_now
from hotvirt.node import asked, forwarding, freezing, power
from hotvirt.node.agent import NodeAgent
from hotvirt.node.consoles import Sessions
from hotvirt.node.guest import Guest
from hotvirt.node.network import NetworkError
from hotvirt.qemu import screenshot
from hotvirt.qemu.errors import HotplugError, QemuError
from hotvirt.qemu.guestagent import GuestAgent
from hotvirt.qemu.hostports import Protocol
from hotvirt.qemu.streams import GuestStream, Writer


class LocalGuestAccess:
    def __init__(self, agent: NodeAgent, *, clock: Clock = utc_now) -> None:
        self._agent, self._clock = agent, clock
        self._sessions = Sessions()
        self._ports: WeakSet[Writer] = WeakSet()

    def close(self) -> None:
        """End all streams, for whoever stops must not wait for those who look on."""
        self._sessions.close()
        for writer in list(self._ports):
            writer.transport.abort()

    # What it says of itself

    async def facts(self, namespace: str, name: str) -> dict[str, Any]:
        agent = await self._answering(namespace, name)
        return await asked.facts(await self._guest(namespace, name), agent)

    async def guest_os_info(self, namespace: str, name: str) -> dict[str, Any]:
        agent = await self._answering(namespace, name)
        return await asked.os_information(await self._guest(namespace, name), agent)

    async def places(self, namespace: str, name: str) -> dict[str, Any]:
        guest = await self._guest(namespace, name)
        network = self._agent.network
        try:
            found = asked.places(await guest.observe())
            return {**found, "network": network.kind, "bridges": await network.bridges()}
        except (QemuError, NetworkError) as error:
            raise InternalError(f"{name}: {error}") from error

    async def users(self, namespace: str, name: str) -> list[dict[str, Any]]:
        return await asked.users(await self._answering(namespace, name))

    async def filesystems(self, namespace: str, name: str) -> list[dict[str, Any]]:
        return await asked.filesystems(await self._answering(namespace, name))

    # Streams and the screen

    async def console(self, namespace: str, name: str, *, preserve: bool = False) -> GuestStream:
        return await self._sessions.console(await self._guest(namespace, name), preserve=preserve)

    def console_in_use(self, uid: str) -> bool:
        """Whether somebody holds the serial console of the pod of this uid."""
        return self._sessions.in_use("console", uid)

    async def vnc(self, namespace: str, name: str, *, preserve: bool = False) -> GuestStream:
        return await self._sessions.screen(await self._guest(namespace, name), preserve=preserve)

    async def screenshot(self, namespace: str, name: str, *, move_cursor: bool = False) -> bytes:
        guest = await self._guest(namespace, name)
        try:
            return await screenshot.png(guest.monitor, move_cursor=move_cursor)
        except HotplugError as error:
            raise Conflict(f"{name}: {error}") from error
        except QemuError as error:
            raise InternalError(f"{name}: {error}") from error

    async def port_forward(
        self, namespace: str, name: str, *, port: int, protocol: Protocol, interface: str
    ) -> GuestStream:
        guest = await self._guest(namespace, name)
        if self._agent.network.kind == "user":
            stream = await forwarding.dial_by_qemu(guest, interface, port, protocol)
        elif address := self._agent.address_of(guest, namespace):
            stream = await forwarding.dial(address, port, protocol)
        else:
            raise Conflict(f"{name} has no address yet: wait until its pod runs")
        self._ports.add(stream.writer)
        return stream

    # Deeds

    async def pause(self, namespace: str, name: str) -> None:
        await power.pause(await self._guest(namespace, name))

    async def unpause(self, namespace: str, name: str) -> None:
        await power.unpause(await self._guest(namespace, name))

    async def reset(self, namespace: str, name: str) -> None:
        await power.reset(await self._guest(namespace, name))

    async def soft_reboot(self, namespace: str, name: str) -> None:
        await power.soft_reboot(await self._guest(namespace, name), now=self._clock())

    async def freeze(self, namespace: str, name: str, *, seconds: float) -> None:
        await self._answering(namespace, name)
        await freezing.freeze(await self._guest(namespace, name), seconds=seconds, now=self._clock())

    async def unfreeze(self, namespace: str, name: str) -> None:
        await self._answering(namespace, name)
        await freezing.thaw(await self._guest(namespace, name))

    async def _guest(self, namespace: str, name: str) -> Guest:
        guest = await self._agent.guest_of(Key(namespace, name))
        if guest is None or guest.is_gone:
            raise NotFound(f"no guest of {name} runs in namespace {namespace}: start the VM first", name=name)
        return guest

    async def _answering(self, namespace: str, name: str) -> GuestAgent:
        guest = await self._agent.guest_of(Key(namespace, name), answering=True) or await self._guest(namespace, name)
        if guest.answering is None:
            raise Conflict(
                f"the guest agent of {name} does not answer (yet): wait for the condition AgentConnected, "
                "or install qemu-guest-agent in the guest"
            )
        return guest.answering
