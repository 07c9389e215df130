"""Can this machine run guests with KVM? Found by running instructions, not by looking for the device.

On some machines /dev/kvm opens and answers, and then every instruction of the guest is emulated: a kernel that boots in a
second takes minutes there, or dies. So a loop of known length runs in a guest of one page, against a deadline. That
happens in a child process (this file, run by path, standard library only): what hangs or crashes there hurts nobody.

The answer is kept in a file together with the boot id and the user, as it may differ after either changes.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

LOOPS = 2_000_000
DEADLINE = 0.25
_CHILD_LIMIT = 5.0

if TYPE_CHECKING or __name__ != "__main__":
    import msgspec
    from msgspec import Struct

    class Acceleration(Struct, frozen=True):
        """`reason` says why in one sentence; `mend` what to do for KVM, "" when it is used already."""

        kind: Literal["kvm", "tcg"]
        reason: str
        mend: str = ""

    class _Kept(Struct, frozen=True):
        boot_id: str
        uid: int
        answer: Acceleration


def probe(cache: Path | None = None, *, device: str = "/dev/kvm") -> "Acceleration":
    """Takes up to half a second when nothing is cached: call it off the loop."""
    boot_id, uid = Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.getuid()
    if kept := _read(cache):
        # Without KVM the reason may be gone by now (a group joined, a module loaded): only its cheap part is redone.
        if (
            kept.boot_id == boot_id
            and kept.uid == uid
            and (_unusable(device) is None) == ("/dev/" not in kept.answer.mend)
        ):
            return kept.answer
    answer = _unusable(device) or _run(device)
    if cache is not None:
        _write(cache, _Kept(boot_id, uid, answer))
    return answer


def _unusable(device: str) -> "Acceleration | None":
    """What can be said without running anything."""
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return Acceleration(
            "tcg", f"there is no {device}",
            f"enable virtualization in the firmware (or nested virtualization in the host) so that {device} appears, "
            "then: modprobe kvm_intel || modprobe kvm_amd",
        )  # fmt: skip
    except PermissionError:
        return Acceleration(
            "tcg", f"{device} may not be opened by this user",
            f"let this user open {device}: usermod -aG kvm $USER, then log in again",
        )  # fmt: skip
    except OSError as error:
        return Acceleration("tcg", f"{device} cannot be opened: {error.strerror}", f"see why {device} fails in dmesg")
    return None


def _run(device: str) -> "Acceleration":
    try:
        child = subprocess.run(
            [sys.executable, "-I", "-S", __file__, device],
            capture_output=True,
            text=True,
            timeout=_CHILD_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return interpret("hang", 0.0)
    word, _space, rest = child.stdout.strip().partition(" ")
    return interpret(word or f"died {child.returncode}", float(rest) if rest.replace(".", "", 1).isdigit() else 0.0)


def interpret(word: str, rate: float) -> "Acceleration":
    """The child's finding as an answer."""
    if word == "ok":
        return Acceleration("kvm", f"KVM runs {rate:.0f} million guest instructions a second")
    mend = "use a machine with hardware virtualization (or one that passes it on); until then guests run emulated"
    if word == "slow":
        return Acceleration("tcg", f"KVM is there but emulates: {rate:.1f} million guest instructions a second", mend)
    if word == "hang":
        return Acceleration("tcg", f"a KVM guest of one page did not end within {_CHILD_LIMIT:g} s", mend)
    return Acceleration("tcg", f"KVM cannot run a guest ({word})", mend)


def _read(cache: Path | None) -> "_Kept | None":
    try:
        return msgspec.json.decode(cache.read_bytes(), type=_Kept) if cache else None
    except (OSError, msgspec.DecodeError):
        return None


def _write(cache: Path, kept: "_Kept") -> None:
    temporary = cache.with_name(f"{cache.name}.{os.getpid()}")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(msgspec.json.encode(kept))
        temporary.replace(cache)
    except OSError:
        temporary.unlink(missing_ok=True)  # a cache that cannot be kept costs half a second at the next start


def child(device: str) -> str:
    """In the child: run the loop, and say `ok RATE` or `slow RATE` in million instructions a second."""
    import ctypes
    import fcntl
    import mmap
    import signal
    import struct
    import time

    create_vm, create_vcpu, run_size, user_memory = 0xAE01, 0xAE41, 0xAE04, 0x4020AE46
    run, get_regs, set_regs, get_sregs, set_sregs = 0xAE80, 0x8090AE81, 0x4090AE82, 0x8138AE83, 0x4138AE84
    kvm = os.open(device, os.O_RDWR)
    vm = fcntl.ioctl(kvm, create_vm, 0)
    page = mmap.mmap(-1, 4096)
    # mov ecx, LOOPS; dec ecx; jnz back; hlt: 16-bit code with 32-bit operands
    page.write(b"\x66\xb9" + struct.pack("<I", LOOPS) + b"\x66\x49\x75\xfc\xf4")
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    fcntl.ioctl(vm, user_memory, struct.pack("<IIQQQ", 0, 0, 0x1000, 4096, address))
    vcpu = fcntl.ioctl(vm, create_vcpu, 0)
    area = mmap.mmap(vcpu, fcntl.ioctl(kvm, run_size, 0))
    sregs = bytearray(312)
    fcntl.ioctl(vcpu, get_sregs, sregs)
    struct.pack_into("<Q", sregs, 0, 0)  # cs.base
    struct.pack_into("<H", sregs, 12, 0)  # cs.selector
    fcntl.ioctl(vcpu, set_sregs, bytes(sregs))
    # rax..r15 (16), rip, rflags
    fcntl.ioctl(vcpu, set_regs, struct.pack("<18Q", *([0] * 16), 0x1000, 2))
    signal.signal(signal.SIGALRM, lambda *_: None)
    # Python would restart an interrupted ioctl only if the handler returned normally from a retry loop it does not have.
    signal.setitimer(signal.ITIMER_REAL, DEADLINE)
    started = time.perf_counter()
    try:
        fcntl.ioctl(vcpu, run, 0)
    except InterruptedError:
        pass
    spent = time.perf_counter() - started
    signal.setitimer(signal.ITIMER_REAL, 0)
    reason = struct.unpack_from("<I", area, 8)[0]
    regs = bytearray(144)
    fcntl.ioctl(vcpu, get_regs, regs)
    left = struct.unpack_from("<Q", regs, 16)[0] & 0xFFFFFFFF  # rcx is the third
    done = LOOPS - min(left, LOOPS)
    halted = reason == 5 and done == LOOPS
    return f"{'ok' if halted and spent < DEADLINE else 'slow'} {done * 2 / max(spent, 1e-9) / 1e6:.2f}"


if __name__ == "__main__":
    print(child(sys.argv[1]))  # noqa: T201
