"""The way into a guest for the API's front (`hotvirt.webhooks.guests.GuestAccess`), at home in the same process.

Each call acts on the guest at that moment. A second console or screen displaces the first, by closing its stream.
"""

import asyncio
from typing import Any

from hotvirt.kube.errors import Conflict, InternalError, NotFound
from hotvirt.kube.informer import Key
from hotvirt.node.agent import NodeAgent
from hotvirt.node.guest import Guest
from hotvirt.qemu import facts as guest_facts
from hotvirt.qemu import vnc
from hotvirt.qemu.errors import AgentError, AgentRefused, HotplugError, QemuError
from hotvirt.qemu.streams import GuestStream


class LocalGuestAccess:
    def __init__(self, agent: NodeAgent) -> None:
        self._agent = agent
        self._consoles: dict[str, asyncio.StreamWriter] = {}
        self._screens: dict[str, asyncio.StreamWriter] = {}

    async def facts(self, namespace: str, name: str) -> dict[str, Any]:
        agent = await self._answering(namespace, name)
        guest = await self._guest(namespace, name)
        before = guest.vcpus
        try:
            found = await guest_facts.facts(agent)
        except AgentError as error:
            raise InternalError(f"the guest of {name}: {error}") from error
        if found.online_cpus is not None:
            guest.counted(found.online_cpus, before=before)
        return {
            "memTotalBytes": found.mem_total_bytes,
            "memAvailableBytes": found.mem_available_bytes,
            "onlineCPUs": found.online_cpus,
            "blockDevices": [
                {"name": d.name, "sizeBytes": d.size_bytes, "serial": d.serial} for d in found.block_devices
            ],
            "uptimeSeconds": found.uptime_seconds,
            "bootID": found.boot_id,
            "kernel": found.kernel,
            "hostname": found.hostname,
        }

    async def console(self, namespace: str, name: str) -> GuestStream:
        guest = await self._guest(namespace, name)
        self._displace(self._consoles, guest)
        try:
            reader, writer = await asyncio.open_unix_connection(str(guest.place.serial))
        except OSError as error:
            raise InternalError(f"the console of {name} cannot be opened: {error}") from error
        self._keep(self._consoles, guest, writer)
        return GuestStream(reader, writer)

    async def vnc(self, namespace: str, name: str) -> GuestStream:
        guest = await self._guest(namespace, name)
        self._displace(self._screens, guest)
        try:
            sock = await vnc.open_viewer(guest.monitor)
        except HotplugError as error:
            raise Conflict(f"{name}: {error}") from error
        except QemuError as error:
            raise InternalError(f"{name}: {error}") from error
        reader, writer = await asyncio.open_unix_connection(sock=sock)
        self._keep(self._screens, guest, writer)
        return GuestStream(reader, writer)

    async def pause(self, namespace: str, name: str) -> None:
        await self._tell(namespace, name, "stop", unless="paused", sentence="VMI is already paused")

    async def unpause(self, namespace: str, name: str) -> None:
        await self._tell(namespace, name, "cont", unless="running", sentence="VMI is not paused")

    async def soft_reboot(self, namespace: str, name: str) -> None:
        guest = await self._guest(namespace, name)
        if guest.answering is None:
            raise Conflict(f"the guest agent of {name} does not answer, so it cannot be asked to reboot: use restart")
        try:
            await guest.answering.shutdown(mode="reboot")
        except AgentError as error:
            raise InternalError(f"{name}: {error}") from error

    async def guest_os_info(self, namespace: str, name: str) -> dict[str, Any]:
        guest = await self._guest(namespace, name)
        agent = await self._answering(namespace, name)
        assert guest.view is not None
        view = guest.view
        return {
            "guestAgentVersion": view.info.version,
            "supportedCommands": [{"name": each, "enabled": True} for each in sorted(view.info.commands)],
            "hostname": view.hostname,
            "os": {_camel(key): value for key, value in view.os.items()},
            "timezone": await _optional(agent.timezone()) or "",
            "userList": await _optional(agent.users()) or [],
            "fsInfo": {"disks": await _optional(agent.fsinfo()) or []},
        }

    async def _tell(self, namespace: str, name: str, command: str, *, unless: str, sentence: str) -> None:
        guest = await self._guest(namespace, name)
        try:
            if (await guest.observe()).status == unless:
                raise Conflict(sentence)
            await guest.monitor.execute(command)
        except QemuError as error:
            raise InternalError(f"{name}: {error}") from error

    async def _guest(self, namespace: str, name: str) -> Guest:
        guest = await self._agent.guest_of(Key(namespace, name))
        if guest is None or guest.is_gone:
            raise NotFound(f"no guest of {name} runs in namespace {namespace}: start the VM first", name=name)
        return guest

    async def _answering(self, namespace: str, name: str) -> Any:
        guest = await self._agent.guest_of(Key(namespace, name), answering=True) or await self._guest(namespace, name)
        if guest.answering is None:
            raise Conflict(
                f"the guest agent of {name} does not answer (yet): wait for the condition AgentConnected, "
                "or install qemu-guest-agent in the guest"
            )
        return guest.answering

    @staticmethod
    def _displace(streams: dict[str, asyncio.StreamWriter], guest: Guest) -> None:
        """At once, as what the first still has to say may never be read, and QEMU talks to one at a time."""
        if (first := streams.pop(guest.uid, None)) is not None:
            first.transport.abort()

    def _keep(self, streams: dict[str, asyncio.StreamWriter], guest: Guest, writer: asyncio.StreamWriter) -> None:
        self._displace(streams, guest)  # one that came while this one was being opened
        for uid in [uid for uid, each in streams.items() if each.is_closing()]:
            del streams[uid]
        streams[guest.uid] = writer


async def _optional(call: Any) -> Any:
    try:
        return await call
    except AgentRefused:
        return None
    except AgentError as error:
        raise InternalError(f"the guest's agent failed: {error}") from error


def _camel(name: str) -> str:
    first, *rest = name.split("-")
    return first + "".join(word.title() for word in rest)
