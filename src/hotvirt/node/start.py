"""Start one guest: files and network made ready, opened, and handed to the pod's receiver, which becomes QEMU."""

import logging
import zlib
from ipaddress import IPv4Address

from hotvirt.kube.client import Document
from hotvirt.node import render
from hotvirt.node.hostfacts import FIRST_USER, USERS, HostFacts
from hotvirt.node.network import Network, NetworkError
from hotvirt.node.places import PodPlace
from hotvirt.node.volumes import Lookup, Volumes
from hotvirt.qemu import argv, binary, launch
from hotvirt.qemu.errors import QemuMissing
from hotvirt.qemu.launch import Descriptors, Request

log = logging.getLogger(__name__)


LAUNCH_PATIENCE = 60.0
"""Seconds for the receiver to become QEMU. One that dies is noticed at once; one that only waits for its turn on a busy
machine must not be taken for dead."""


class StartError(Exception):
    """`reason` is a condition's word; the text names what is wrong and the mend."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def user_of(address: str) -> int:
    """QEMU's user for a pod, by its address: no two pods of a home have one at a time (its network is a /20). So a
    guest that takes over its QEMU finds no other to signal or trace. Homes beside each other rarely meet. Pure."""
    network, host = divmod(int(IPv4Address(address)), USERS)
    return FIRST_USER + (host + zlib.crc32(network.to_bytes(4, "big"))) % USERS


async def start(
    vmi: Document, place: PodPlace, *, uid: str, address: str, facts: HostFacts, network: Network, volumes: Volumes,
    lookup: Lookup,
) -> None:  # fmt: skip
    """Returns once the pod's process is QEMU. Idempotent until then: may be called again after a failure or a crash.

    Raises VolumeError and StartError for what a person can mend, QemuError for what QEMU or its launch did.
    """
    try:
        qemu = binary.find()
    except QemuMissing as error:
        raise StartError("QemuMissing", str(error)) from error
    with Descriptors() as descriptors:
        disks, kernel = await volumes.prepare(vmi, place, descriptors, lookup)
        try:
            nics = await network.nics(vmi, address=address, uid=uid, descriptors=descriptors)
        except NetworkError as error:
            raise StartError("FailedNetwork", str(error)) from error
        machine = render.machine(
            vmi, accelerator=facts.acceleration.kind, disks=disks, nics=nics, kernel=kernel,
            channels=render.Channels(
                qmp=descriptors.listen(place.qmp), agent=descriptors.listen(place.agent),
                serial=descriptors.listen(place.serial),
            ),
        )  # fmt: skip
        try:
            line = argv.argv(machine, qemu=qemu)
        except ValueError as error:
            raise StartError("FailedStart", f"the machine cannot be made: {error}") from error
        user = user_of(address) if facts.gives_users else None
        request = Request(argv=tuple(line), uid=user, gid=user, groups=facts.groups, isolate=network.isolation)
        await launch.send_launch(place.launch, request, descriptors=descriptors.mapping, timeout=LAUNCH_PATIENCE)
    # From here on a socket that is still there would mean that the receiver waits.
    place.launch.unlink(missing_ok=True)
    log.info("started %s/%s", vmi["metadata"]["namespace"], vmi["metadata"]["name"])
