"""Run a loop of known length in a KVM guest of one page, against a deadline. The child process of `probe`.

Run as a file, `python3 -I -S kvmloop.py /dev/kvm`; standard library only. What hangs or crashes here hurts nobody else.
"""

import ctypes
import fcntl
import mmap
import os
import signal
import struct
import sys
import time

LOOPS = 2_000_000
DEADLINE = 0.25


def _late(*_: object) -> None:
    raise TimeoutError


def measure(device: str) -> str:
    """`ok RATE` or `slow RATE`, in million instructions a second."""

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
    signal.signal(signal.SIGALRM, _late)
    signal.setitimer(signal.ITIMER_REAL, DEADLINE)
    started = time.perf_counter()
    try:
        fcntl.ioctl(vcpu, run, 0)
    except (InterruptedError, TimeoutError):
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
    print(measure(sys.argv[1]))
