"""A guest's memory between a snapshot and the start that goes on from it.

    snapshots/GROUP/machine/memory.qcow2, memory.json     as taken, never written again
    machines/VM/memory.qcow2, memory.json                 a copy, from a restore until its machine starts
    machines/VM/memory-POD.qcow2, memory-POD.json         taken by the start of that pod, and by no other

A machine goes on from it once or never: after it ran, its disks have nothing to do with it any more. So a start takes
it before QEMU is launched, and a pod that ends takes it along. It is taken up only by a QEMU of the same shape, on the
very claims that were restored with it; else the machine boots from its disks, and an event says why.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct, structs

from hotvirt.api import memorysnapshots, snapshots
from hotvirt.images import publish
from hotvirt.kube.client import Document
from hotvirt.node import machinestate
from hotvirt.node.guest import Guest
from hotvirt.node.places import Places, PodPlace
from hotvirt.node.volumes import Lookup
from hotvirt.qemu import memoryfile
from hotvirt.qemu.errors import QemuError

FILE, ABOUT, STARTED = "memory.qcow2", "memory.json", "started.json"


class Started(Struct, frozen=True):
    """What a guest was started as: `shape` of its QEMU, and the parts of its instance that can change as it runs."""

    shape: tuple[str, ...]
    spec: Document


class About(Struct, frozen=True, kw_only=True):
    """`paused`: a person had paused the guest. `claims`: by volume, the uid of the claim that it goes with."""

    shape: tuple[str, ...]
    paused: bool = False
    claims: dict[str, str] = {}


def note_start(vmi: Document, place: PodPlace, shape: tuple[str, ...]) -> None:
    """Before QEMU is launched."""
    (place.directory / STARTED).write_bytes(msgspec.json.encode(Started(shape, vmi["spec"])))


def started(place: PodPlace) -> Started | None:
    try:
        return msgspec.json.decode((place.directory / STARTED).read_bytes(), type=Started)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def refusal(vm: Document, vmi: Document, then: Started | None) -> str:
    """Why a guest's memory cannot be kept, and the mend; "" when it can. Pure."""
    name = vm["metadata"]["name"]
    if (words := next(memorysnapshots.blockers(vmi["spec"]), "")) != "":
        return words
    if then is None:
        return f"the guest of VM {name} was started by an earlier version: restart it with hotvirt restart {name}"
    if what := memorysnapshots.changed(then.spec, vmi["spec"]):
        return f"{what} was changed while the guest ran, which its memory cannot be kept after: hotvirt restart {name}"
    found = (vm.get("status") or {}).get("conditions") or ()
    if any(each.get("type") == "RestartRequired" and each.get("status") == "True" for each in found):
        return f"VM {name} has changes that wait for a restart (RestartRequired): hotvirt restart {name}"
    return ""


def note(directory: Path, about: About) -> None:
    path = directory / ABOUT
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(msgspec.json.encode(about))
    publish.sync_path(temporary)
    temporary.rename(path)


def read(path: Path) -> About | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=About)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


async def prepare(
    vmi: Document, place: PodPlace, places: Places, line: Sequence[str], *, uid: str, lookup: Lookup
) -> tuple[list[str], str]:  # fmt: skip
    """The command line of a QEMU that is about to start, so that it waits where it is to go on from memory; and why it
    does not where there is some."""
    shape = memoryfile.shape(line)
    note_start(vmi, place, shape)
    named = snapshots.claims({"spec": {"template": {"spec": vmi["spec"]}}})
    found = {volume: await lookup("claim", claim) for volume, claim in named.items()}
    claims = {volume: str(claim["metadata"]["uid"]) for volume, claim in found.items() if claim is not None}
    goes_on, why = take(places, vmi, pod=uid, shape=shape, claims=claims)
    return [*line, *(["-S"] if goes_on and "-S" not in line else [])], why


def with_claims(about: About, claims: dict[str, str]) -> About:
    return structs.replace(about, claims=claims)


def take(
    places: Places, vmi: Document, *, pod: str, shape: tuple[str, ...], claims: dict[str, str]
) -> tuple[bool, str]:
    """Whether the QEMU that is about to start is to go on from memory, else why not where there is some. What other
    pods had taken is removed. `claims`: by volume, the uid of the claim that it is started with."""
    place = places.machines / machinestate.identity(vmi)
    if not place.exists():
        return False, ""
    for path in place.glob("memory-*"):
        if path.name not in (_file(place, pod).name, _about(place, pod).name):
            path.unlink(missing_ok=True)
    if (about := read(place / ABOUT)) is not None and (place / FILE).exists():
        (place / ABOUT).replace(_about(place, pod))
        (place / FILE).replace(_file(place, pod))  # from here on nobody else takes it
    about = read(_about(place, pod))
    if about is None or not _file(place, pod).exists():
        return False, ""
    why = _misfit(about, shape, claims)
    if why:
        _forget(place, pod)
    return not why, why


def _misfit(about: About, shape: tuple[str, ...], claims: dict[str, str]) -> str:
    if what := memoryfile.difference(about.shape, shape):
        return f"the machine is another than when its memory was kept: {what}"
    moved = sorted(v for v in about.claims.keys() | claims.keys() if about.claims.get(v) != claims.get(v))
    return f"volume {moved[0]} is not on the claim that was restored with the memory" if moved else ""


async def resume(guest: Guest, places: Places, vmi: Document) -> str | None:
    """Has a QEMU that waits for it go on. None when there is nothing to go on from; "" once it goes on; else why it
    boots from its disks instead. May be called again after a crash at any point."""
    place = places.machines / machinestate.identity(vmi)
    about, file = read(_about(place, guest.uid)), _file(place, guest.uid)
    if about is None:
        return None
    said: str | None = None
    if (await guest.monitor.execute("query-status"))["status"] == "prelaunch":
        said = ""
        opened = os.open(file, os.O_RDWR | os.O_CLOEXEC)
        try:
            await memoryfile.load(guest.monitor, opened)
        except QemuError as error:
            said = str(error)
            await guest.monitor.execute("system_reset")  # what was loaded of it is half of a machine
        finally:
            os.close(opened)
        if not about.paused and vmi["spec"].get("startStrategy") != "Paused":
            await guest.monitor.execute("cont")
    _forget(place, guest.uid)
    return said


def _file(place: Path, pod: str) -> Path:
    return place / f"memory-{pod}.qcow2"


def _about(place: Path, pod: str) -> Path:
    return place / f"memory-{pod}.json"


def _forget(place: Path, pod: str) -> None:
    _about(place, pod).unlink(missing_ok=True)
    _file(place, pod).unlink(missing_ok=True)
