"""A guest's file systems (virtiofs): one virtiofsd for each, which works in the guest's memory by a socket of QEMU's.

A server is handed nothing but its socket and one directory. It is root in a user namespace of its own, where it has no
right to anything of the host; in its mount, process and network namespaces it finds that directory alone, which is
mounted read-only there when the guest may only read. The guest's users 0 to 65535 are as many users outside, from
FIRST_USER: the same ones for all guests, as a claim's files go from guest to guest. A home without root has one user to
give, so there the guest's root is that one, and others of the guest may only read.

A server outlives the home as QEMU does, and ends with QEMU. One that dies before cannot be replaced while the guest
runs, since what it knew of the guest's open files is lost: `servedfiles` tells of it.
"""

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct, json

from hotvirt.api import disks as api_disks
from hotvirt.kube.client import Document
from hotvirt.node import contents, helper, servedfiles
from hotvirt.node.places import PodPlace
from hotvirt.node.podprocess import end_holders
from hotvirt.node.volumes import IN_USE, OWNED, PROVISIONER, Lookup, VolumeError, Volumes
from hotvirt.qemu import launch, receiver
from hotvirt.qemu.errors import LaunchError
from hotvirt.qemu.launch import Descriptors, Request, Share
from hotvirt.qemu.machine import FileSystem

SOCKET_FD = 10
FIRST_USER, USERS = 0x70000000, 65536
"""Of the numbers that systemd leaves to others, and which no list of users gives away."""
CLAIM_DIRECTORY = "files"
"""Of a claim's own directory, what guests see. Not its disk, which is opened by name where a machine has it as one."""
OPEN_FILES = 1 << 20
"""As many as the host lets one have: a server holds every file open that the guest has looked at."""
_OF_QEMU = Path("/usr/lib/qemu/virtiofsd")
_PLACES = (_OF_QEMU, Path("/usr/libexec/virtiofsd"), Path("/usr/lib/virtiofsd"))
"""QEMU's own up to 7.2, and the Rust one that took its place."""


class ServerMissing(Exception):
    """The text names what to install."""


class ServerFailed(Exception):
    """What it said."""


class Served(Struct, frozen=True):
    name: str
    share: Share


def wishes(spec: Document) -> dict[str, Document]:
    """Name of a file system -> the volume in it. Pure."""
    named = ((spec.get("domain") or {}).get("devices") or {}).get("filesystems") or ()
    volumes = api_disks.by_name(spec.get("volumes"))
    return {each["name"]: volumes[each["name"]] for each in named if each["name"] in volumes}


async def start(
    vmi: Document, place: PodPlace, store: Volumes, lookup: Lookup, *, confine: bool, isolate: tuple[str, ...],
    descriptors: Descriptors, enter: Callable[[int], None], timeout: float,
) -> tuple[FileSystem, ...]:  # fmt: skip
    """Servers of all file systems of a guest that is about to start. `confine`: there are users to give them."""
    wanted = wishes(vmi["spec"])
    if not wanted:
        return ()
    program = find()
    end_holders(place, of=(place.file_systems_log,))  # of a start that failed
    users = (FIRST_USER, USERS) if confine else None
    found = []
    for name, volume in wanted.items():
        share = await _share(volume, place, store, lookup, owner=users[0] if users else None)
        request = Request(
            argv=argv(program), share=share, users=users, isolate=isolate, rlimits={"nofile": OPEN_FILES},
        )  # fmt: skip
        found.append(FileSystem(tag=name, fd=await _serve(name, request, place, descriptors, enter, timeout)))
    return tuple(found)


async def _serve(
    name: str, request: Request, place: PodPlace, descriptors: Descriptors, enter: Callable[[int], None],
    timeout: float,
) -> int:  # fmt: skip
    """The descriptor that QEMU has of it: connected before the server is there, which takes the one connection."""
    path = place.directory / "virtiofs.sock"
    with launch.listening_socket(path) as listener:
        ours = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        ours.connect(str(path))
        number = descriptors.add(ours.detach())
        path.unlink()
        try:
            identity = await helper.start(
                request, {SOCKET_FD: listener.fileno()}, socket_path=place.directory / "virtiofs-launch.sock",
                log=place.file_systems_log, enter=enter, timeout=timeout,
            )  # fmt: skip
        except LaunchError as error:
            raise ServerFailed(
                f"filesystems[{name}]: its server could not be started: {error}: does this machine allow user "
                f"namespaces? (or show the volume as a disk)"
            ) from error
    place.server(name).write_bytes(json.encode(identity))
    return number


def find() -> Path:
    """The server that this machine has."""
    places = [*_PLACES, *(Path(each) for each in [shutil.which("virtiofsd")] if each)]
    found = next((each for each in places if os.access(each, os.X_OK)), None)
    if found is None:
        raise ServerMissing(
            "devices.filesystems: virtiofsd is not installed on this machine; run: apt-get install virtiofsd "
            "(on Debian 12: qemu-system-common), or show the volumes as disks"
        )
    return found


def argv(program: Path) -> tuple[str, ...]:
    """Pure."""
    if program == _OF_QEMU:
        options = ("sandbox=namespace", "cache=auto", "log_level=err", f"source={receiver.SHARED}")
        said = [part for option in options for part in ("-o", option)]
    else:
        said = ["--sandbox=namespace", "--cache=auto", "--log-level=error", f"--shared-dir={receiver.SHARED}"]
    return (str(program), f"--fd={SOCKET_FD}", "--rlimit-nofile=0", *said)


async def _share(
    volume: Document, place: PodPlace, store: Volumes, lookup: Lookup, *, owner: int | None
) -> Share:  # fmt: skip
    name = volume["name"]
    try:
        if claim := api_disks.claim(volume):
            source = {**(volume.get("persistentVolumeClaim") or {}), "claimName": claim}
            return await _of_claim(name, source, store, lookup, owner=owner)
        try:
            content = await contents.of(volume, lookup)
        except contents.ContentError as error:
            raise VolumeError("FailedVolume", f"volume {name!r}: {error}") from error
        if content is None:
            problem = "a file system is of a configMap, secret, serviceAccount, downwardAPI or persistentVolumeClaim"
            raise VolumeError("FailedVolume", f"volume {name!r}: {problem}: show it as a disk")
        # The secrets in there are for the guest, and for nobody else of the host.
        place.served(name).parent.mkdir(mode=0o700, exist_ok=True)
        servedfiles.write(place.served(name), content.files, owner=owner)
        return Share(str(place.served(name)), read_only=True)
    except OSError as error:
        raise VolumeError("FailedVolume", f"volume {name!r}: {error.filename}: {error.strerror}") from error


async def _of_claim(name: str, source: Document, store: Volumes, lookup: Lookup, *, owner: int | None) -> Share:
    claim, volume, path = await store.claim_directory(name, source, lookup)
    modes = claim["spec"].get("accessModes") or ()
    if not path.is_dir() or claim["spec"].get("volumeMode") == "Block":
        problem = f"claim {source['claimName']!r} is a block device: a file system needs volumeMode Filesystem"
        raise VolumeError("FailedVolume", f"volume {name!r}: {problem}")
    user = await lookup("user", source["claimName"]) if "ReadWriteOncePod" in modes else None
    if user is not None and (user.get("status") or {}).get("phase") == "Running":
        problem = f"claim {source['claimName']!r} is in use by VM {user['metadata']['name']!r}: stop that"
        raise VolumeError(IN_USE, f"volume {name!r}: {problem}, or use another claim")
    if (volume["metadata"].get("annotations") or {}).get(OWNED) == PROVISIONER:
        path = path / CLAIM_DIRECTORY
        if not path.exists():
            path.mkdir(mode=0o755)
            if owner is not None:
                os.chown(path, owner, owner)
    return Share(str(path), read_only=bool(source.get("readOnly")) or set(modes) == {"ReadOnlyMany"})
