"""Memory that came while no agent answered is looked at again when one does: the guest may have left it offline."""

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from hotvirt.node import changes
from hotvirt.qemu.state import MemoryState, Observed, VirtioMem

MIB = 1 << 20
NOW = datetime(2026, 1, 1, tzinfo=UTC)
VMI = {"metadata": {"name": "web"}, "spec": {"domain": {"memory": {"guest": "512Mi"}}}}


class Guest(SimpleNamespace):
    """Asked for 512 MiB, which QEMU gave it."""

    def __init__(self, *, view, seen):
        super().__init__(settled=512 * MIB, view=view, is_settled_seen=seen, kernel=None, jobs={}, wanted=[])

    def want(self, kind, target, run, *, until):
        self.wanted.append(kind)

    def drop(self, kind):
        pass


def observed(*, boot):
    device = VirtioMem(
        size=512 * MIB - boot, requested=512 * MIB - boot, capacity=1024 * MIB, step=2 * MIB, address=4096 * MIB
    )
    memory = MemoryState(boot=boot, device=device)
    return Observed(status="running", running=True, version=(7, 2, 0), memory=memory)


@pytest.mark.parametrize(
    ("view", "seen", "boot", "is_looked_at"),
    [
        ("there", False, 256 * MIB, True),
        ("there", True, 256 * MIB, False),
        (None, False, 256 * MIB, False),
        ("there", False, 512 * MIB, False),
    ],
    ids=["its agent came", "its agent said so", "nobody to ask", "nothing was added"],
)
def test_what_the_guest_was_not_asked_about_is_asked_once_it_can_be(view, seen, boot, is_looked_at):
    guest = Guest(view=view, seen=seen)
    changes.memory(VMI, guest, observed(boot=boot), now=NOW)
    assert guest.wanted == (["memory"] if is_looked_at else [])
