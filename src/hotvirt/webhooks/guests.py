"""How the subresources reach a running guest: the contract between the API's front and whoever holds the guest.

At home the node agent implements it in the same process; in a cluster it is a connection to the node's agent. Every
call names a VMI and acts on the guest at that moment, never on a cached answer. All raise `hotvirt.kube.errors`:
`NotFound` when no such guest runs here, `Conflict` when the guest's state does not allow it (paused, no agent),
`InternalError` when QEMU or the agent failed; each with a sentence fit for a person. Calls may run concurrently.
"""

from typing import Any, Literal, Protocol

from hotvirt.qemu.streams import GuestStream

__all__ = ("GuestAccess", "GuestStream")


class GuestAccess(Protocol):
    async def facts(self, namespace: str, name: str) -> dict[str, Any]:
        """What the guest itself reports now, through its agent: memTotalBytes, onlineCPUs, blockDevices
        [{name, sizeBytes, serial}], uptimeSeconds, bootID, kernel, hostname."""
        ...

    async def guest_os_info(self, namespace: str, name: str) -> dict[str, Any]:
        """KubeVirt's VirtualMachineInstanceGuestAgentInfo without its kind and apiVersion: guestAgentVersion,
        hostname, os{name, kernelRelease, ...}, timezone, userList, fsInfo{disks}, supportedCommands as known."""
        ...

    async def places(self, namespace: str, name: str) -> dict[str, Any]:
        """Where a device could still be plugged in: `ports` (PCI Express) and `scsi` (targets of its controller); and
        what its node has of networks: `network` (bridge, or user), `bridges` {name: whether it keeps VLANs apart}."""
        ...

    async def users(self, namespace: str, name: str) -> list[dict[str, Any]]:
        """Who is logged in: [{userName, domain, loginTime}]."""
        ...

    async def filesystems(self, namespace: str, name: str) -> list[dict[str, Any]]:
        """What is mounted: [{diskName, mountPoint, fileSystemType, usedBytes, totalBytes, disk}]."""
        ...

    async def console(self, namespace: str, name: str, *, preserve: bool = False) -> GuestStream:
        """The first serial console. Who has it loses it, unless it is to be preserved: then Conflict."""
        ...

    async def vnc(self, namespace: str, name: str, *, preserve: bool = False) -> GuestStream:
        """The RFB stream of the guest's display. As for the console."""
        ...

    async def screenshot(self, namespace: str, name: str, *, move_cursor: bool = False) -> bytes:
        """The display as PNG."""
        ...

    async def port_forward(
        self, namespace: str, name: str, *, port: int, protocol: Literal["tcp", "udp"], interface: str
    ) -> GuestStream:
        """A connection to a port of the guest, by the named interface of the pod network."""
        ...

    async def pause(self, namespace: str, name: str) -> None: ...

    async def unpause(self, namespace: str, name: str) -> None: ...

    async def reset(self, namespace: str, name: str) -> None:
        """As by its reset button; a paused guest stays paused."""
        ...

    async def soft_reboot(self, namespace: str, name: str) -> None:
        """Asks the guest to reboot: through its agent, else by ACPI."""
        ...

    async def freeze(self, namespace: str, name: str, *, seconds: float) -> None:
        """Its filesystems stand still until `unfreeze`, or so many seconds (0: for ever) whatever becomes of us."""
        ...

    async def unfreeze(self, namespace: str, name: str) -> None: ...
