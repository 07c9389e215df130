"""For tests of a node's network: a network namespace of the test's own."""

import ctypes
import os
import subprocess

import pytest

from hotvirt.node import bridge

NEW_NETWORK = 0x40000000


@pytest.fixture
def own_network():
    """This thread, and so its subprocesses and the threads it starts, in a network namespace of its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    if libc.unshare(NEW_NETWORK):
        os.close(before)
        pytest.skip("no network namespace can be made here")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    bridge.FORWARD.write_text("0")  # this namespace's
    yield
    assert libc.setns(before, NEW_NETWORK) == 0
    os.close(before)
