"""Can this machine run guests with KVM? Found by running instructions, not by looking for the device.

On some machines /dev/kvm opens and answers, and then every instruction of the guest is emulated: a kernel that boots in
a second takes minutes there, or dies. So a loop of known length runs in a guest of one page, against a deadline, in a
child process (`kvmloop`) that can be killed.

What the child found is kept in a file together with the boot id and the user. What is seen without it (no device, no
right to it) is looked at anew each time, so that mending it takes effect at the next start.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from hotvirt.qemu import kvmloop

_CHILD_LIMIT = 5.0
_NO_HARDWARE = "use a machine with hardware virtualization (or one that passes it on); until then guests run emulated"


class Acceleration(Struct, frozen=True):
    """`reason` says why in one sentence; `mend` what to do to get KVM, "" when it is used already."""

    kind: Literal["kvm", "tcg"]
    reason: str
    mend: str = ""


class _Kept(Struct, frozen=True):
    boot_id: str
    uid: int
    answer: Acceleration


def probe(cache: Path | None = None, *, device: str = "/dev/kvm") -> Acceleration:
    """Takes up to half a second when nothing is cached: call it off the loop."""
    if unusable := _unusable(device):
        return unusable
    boot_id, uid = Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.getuid()
    kept = _read(cache)
    if kept and (kept.boot_id, kept.uid) == (boot_id, uid):
        return kept.answer
    answer = _run(device)
    if cache is not None:
        _write(cache, _Kept(boot_id, uid, answer))
    return answer


def interpret(word: str, rate: float) -> Acceleration:
    """The child's finding as an answer."""
    if word == "ok":
        return Acceleration("kvm", f"KVM runs {rate:.0f} million guest instructions a second")
    if word == "slow":
        reason = f"KVM is there but emulates: {rate:.1f} million guest instructions a second"
        return Acceleration("tcg", reason, _NO_HARDWARE)
    if word == "hang":
        reason = f"a KVM guest of one page did not end within {_CHILD_LIMIT:g} s"
        return Acceleration("tcg", reason, _NO_HARDWARE)
    return Acceleration("tcg", f"KVM cannot run a guest ({word})", _NO_HARDWARE)


def _unusable(device: str) -> Acceleration | None:
    """What can be said without running anything."""
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        mend = (
            f"enable virtualization in the firmware (or nested virtualization in the host), then: "
            f"modprobe kvm_intel || modprobe kvm_amd; {device} must appear"
        )
        return Acceleration("tcg", f"there is no {device}", mend)
    except PermissionError:
        mend = f"let this user open {device}: usermod -aG kvm $USER, then log in again"
        return Acceleration("tcg", f"{device} may not be opened by this user", mend)
    except OSError as error:
        return Acceleration("tcg", f"{device} cannot be opened: {error.strerror}", f"see dmesg for why {device} fails")
    return None


def _run(device: str) -> Acceleration:
    argv = [sys.executable, "-I", "-S", kvmloop.__file__, device]
    try:
        child = subprocess.run(argv, capture_output=True, text=True, timeout=_CHILD_LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return interpret("hang", 0.0)
    word, _space, rate = child.stdout.strip().partition(" ")
    if word not in ("ok", "slow"):
        return interpret(child.stderr.strip().rpartition("\n")[2] or f"it ended with {child.returncode}", 0.0)
    return interpret(word, float(rate))


def _read(cache: Path | None) -> _Kept | None:
    try:
        return msgspec.json.decode(cache.read_bytes(), type=_Kept) if cache else None
    except (OSError, msgspec.DecodeError):
        return None


def _write(cache: Path, kept: _Kept) -> None:
    temporary = cache.with_name(f"{cache.name}.{os.getpid()}")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(msgspec.json.encode(kept))
        temporary.replace(cache)
    except OSError:
        temporary.unlink(missing_ok=True)  # a cache that cannot be kept costs half a second at the next start
