"""A guest's TPM 2.0: one swtpm process beside its QEMU, joined to it by a socket pair that nobody else can reach.

swtpm ends by itself when QEMU's end of the socket closes, however QEMU ended and whether or not a home is there; the
pod's cleaning up kills one that does not (it holds a log in the pod's directory, see `podprocess.holders`). It is
started as QEMU is, by a launch receiver, so that it has its own user, no rights to gain, and none of the home's
descriptors. Its state is a directory that it is handed opened, and needs no path to.

A new TPM gets its state from swtpm_setup, with registers for SHA-256 alone, as upstream's has. Boots take as long
as with all four kinds (measured without KVM: 12 s of CPU to the agent either way).
"""

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from hotvirt.images import tools
from hotvirt.images.errors import ToolMissing
from hotvirt.kube.client import Document
from hotvirt.node import helper
from hotvirt.node.places import PodPlace
from hotvirt.node.podprocess import end_holders
from hotvirt.qemu.launch import Descriptors, Request

PROGRAM, MAKER = "swtpm", "swtpm_setup"
STATE = "tpm2-00.permall"
"""The file that swtpm keeps all that lasts in."""
CONTROL_FD, STATE_FD = 10, 11
FIRST_USER, USERS = 65280, 240
"""What is left of systemd's numbers above those that guests run as: no TPM has its guest's user, or any guest's."""


class TpmMissing(Exception):
    """The text names what to install."""


class Wish(Struct, frozen=True):
    persistent: bool


def wish(spec: Document) -> Wish | None:
    """None: no TPM. Pure."""
    given = ((spec.get("domain") or {}).get("devices") or {}).get("tpm")
    if given is None or given.get("enabled") is False:
        return None
    return Wish(persistent=bool(given.get("persistent")))


def user_of(guest: int) -> int:
    """The user of a guest's TPM, by the guest's own. Pure."""
    return FIRST_USER + guest % USERS


async def start(
    keep: Path, place: PodPlace, *, guest_user: int | None, isolate: tuple[str, ...], descriptors: Descriptors,
    enter: Callable[[int], None], timeout: float,
) -> int:  # fmt: skip
    """Start swtpm with its state in `keep`, and return the descriptor that QEMU will have of it. Its process is
    put into the pod's group with `enter`. TpmMissing, and ToolFailed where a new one could not be made."""
    try:
        program = tools.require(PROGRAM)
        if not (keep / "tpm2" / STATE).exists():
            await _make(keep, timeout=timeout)
    except ToolMissing as error:
        raise TpmMissing(f"devices.tpm: {error} (or remove the tpm)") from error
    end_holders(place, of=(place.tpm_log,))  # of a start that failed: it would hold on to the state
    user = None if guest_user is None else user_of(guest_user)
    state = _own(keep / "tpm2", user)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    number = descriptors.add(ours.detach())
    request = Request(argv=argv(program), uid=user, gid=user, isolate=isolate)
    try:
        with theirs:
            await helper.start(
                request, {CONTROL_FD: theirs.fileno(), STATE_FD: state}, socket_path=place.directory / "tpm.sock",
                log=place.tpm_log, enter=enter, timeout=timeout,
            )  # fmt: skip
    finally:
        os.close(state)
    return number


async def _make(keep: Path, *, timeout: float) -> None:
    """Apart, then in its place as a whole: this may be cut short, and begun anew beside what it left."""
    work = keep / "tpm2.new"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(mode=0o700)
    await tools.run([MAKER, "--tpm2", "--tpmstate", str(work), "--pcr-banks", "sha256"], deadline=timeout)
    (keep / "tpm2").mkdir(mode=0o700, exist_ok=True)
    (work / STATE).rename(keep / "tpm2" / STATE)
    shutil.rmtree(work)


def argv(program: str) -> tuple[str, ...]:
    """Pure."""
    return (
        program, "socket", "--tpm2",
        "--ctrl", f"type=unixio,clientfd={CONTROL_FD}",
        "--tpmstate", f"dir=/proc/self/fd/{STATE_FD},mode=0600",
        "--terminate",
    )  # fmt: skip


def _own(directory: Path, user: int | None) -> int:
    """The directory, opened, with all in it the TPM's user's: a machine that is started anew may have got another."""
    directory.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    if user is not None:
        for name in os.listdir(descriptor):
            os.chown(name, user, user, dir_fd=descriptor, follow_symlinks=False)
        os.fchown(descriptor, user, user)
    return descriptor
