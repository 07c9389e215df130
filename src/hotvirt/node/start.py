"""Start one guest: files and network made ready, opened, and handed to the pod's receiver, which becomes QEMU."""

import logging
import zlib
from collections.abc import Callable
from datetime import datetime
from functools import partial
from ipaddress import IPv4Address
from zoneinfo import ZoneInfoNotFoundError

from hotvirt.images.errors import ToolFailed
from hotvirt.kube.client import Document
from hotvirt.node import cards, filesystems, firmware, keptmemory, machinestate, render, restoredstate, tpm
from hotvirt.node.cards import Attachment
from hotvirt.node.cgroups import Cgroups
from hotvirt.node.hostfacts import FIRST_USER, USERS, HostFacts
from hotvirt.node.network import Network, NetworkError
from hotvirt.node.places import Places, PodPlace
from hotvirt.node.volumes import Lookup, Volumes
from hotvirt.qemu import argv, binary, launch
from hotvirt.qemu.errors import QemuMissing
from hotvirt.qemu.launch import Descriptors, Request
from hotvirt.qemu.machine import Uefi

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
    vmi: Document, place: PodPlace, *, uid: str, address: str, facts: HostFacts, network: Network,
    attachment: Attachment, volumes: Volumes, lookup: Lookup, now: datetime, cgroups: Cgroups,
    smbios: Document | None = None, console_log: Callable[[PodPlace], int] | None = None,
) -> str:  # fmt: skip
    """Returns once the pod's process is QEMU. Idempotent until then: may be called again after a failure or a crash.
    Gives why the guest does not go on from memory where some was kept for it, else "".

    Raises VolumeError and StartError for what a person can mend, QemuError for what QEMU or its launch did.
    """
    try:
        qemu = binary.find()
    except QemuMissing as error:
        raise StartError("QemuMissing", str(error)) from error
    if why := await restoredstate.refusal(vmi, lookup):
        raise StartError("Pending", why)
    with Descriptors() as descriptors:
        disks, kernel = await volumes.prepare(vmi, place, descriptors, lookup)
        try:
            joined = await cards.bridges(vmi, attachment)
            nics = await network.nics(vmi, address=address, uid=uid, descriptors=descriptors, joined=joined)
        except NetworkError as error:
            raise StartError("FailedNetwork", str(error)) from error
        user = user_of(address) if facts.gives_users else None
        uefi = _firmware(vmi, place, volumes.places, descriptors)
        tpm_fd = None
        if (tpm_wish := tpm.wish(vmi["spec"])) is not None:
            keep = machinestate.directory(vmi, volumes.places) if tpm_wish.persistent else place.directory
            try:
                tpm_fd = await tpm.start(
                    keep, place, guest_user=user, isolate=network.isolation, descriptors=descriptors,
                    enter=partial(cgroups.enter, uid), timeout=LAUNCH_PATIENCE,
                )  # fmt: skip
            except tpm.TpmMissing as error:
                raise StartError("TpmMissing", str(error)) from error
            except ToolFailed as error:
                raise StartError("FailedStart", f"devices.tpm: it could not be made: {error}") from error
        try:
            file_systems = await filesystems.start(
                vmi, place, volumes, lookup, confine=facts.gives_users, isolate=network.isolation,
                descriptors=descriptors, enter=partial(cgroups.enter, uid), timeout=LAUNCH_PATIENCE,
            )  # fmt: skip
        except (filesystems.ServerMissing, filesystems.ServerFailed) as error:
            raise StartError("VirtiofsMissing", str(error)) from error
        try:
            machine = render.machine(
                vmi, accelerator=facts.acceleration.kind, disks=disks, nics=nics, kernel=kernel, firmware=uefi,
                file_systems=file_systems,
                channels=render.Channels(
                    qmp=descriptors.listen(place.qmp), agent=descriptors.listen(place.agent),
                    serial=descriptors.listen(place.serial), tpm=tpm_fd,
                    serial_log=descriptors.add(console_log(place)) if console_log else None,
                ),
                cluster_smbios=smbios, now=now,
            )  # fmt: skip
        except ZoneInfoNotFoundError as error:
            problem = f"domain.clock.timezone: {error}: is the package tzdata installed on this machine?"
            raise StartError("FailedStart", problem) from error
        try:
            line = argv.argv(machine, qemu=qemu)
        except ValueError as error:
            raise StartError("FailedStart", f"the machine cannot be made: {error}") from error
        line, said = await keptmemory.prepare(vmi, place, volumes.places, line, uid=uid, lookup=lookup)
        request = Request(argv=tuple(line), uid=user, gid=user, groups=facts.groups, isolate=network.isolation)
        await launch.send_launch(place.launch, request, descriptors=descriptors.mapping, timeout=LAUNCH_PATIENCE)
    # From here on a socket that is still there would mean that the receiver waits.
    place.launch.unlink(missing_ok=True)
    log.info("started %s/%s", vmi["metadata"]["namespace"], vmi["metadata"]["name"])
    return said


def _firmware(vmi: Document, place: PodPlace, places: Places, descriptors: Descriptors) -> Uefi | None:
    wanted = firmware.wish(vmi["spec"])
    if wanted is None:
        return None
    keep = machinestate.directory(vmi, places) if wanted.persistent else place.directory
    try:
        return firmware.prepare(wanted, keep=keep, descriptors=descriptors)
    except firmware.FirmwareMissing as error:
        raise StartError("FirmwareMissing", str(error)) from error
