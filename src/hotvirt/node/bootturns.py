"""Guests that boot at once, on a host that emulates them, take turns with its CPUs.

Each would else take many times as long as alone, as all of them handle their clocks' ticks meanwhile, and what runs in
them gives up: twenty Debians that began together on two CPUs had failed half of their services after 20 minutes, by
systemd's own deadlines. So as many as there are CPUs have their share, and each other has the least there is until its
turn comes. It loses nothing while CPUs are free: a share is of what is wanted.

A turn ends when the guest's agent answers, when the guest stops, or after a while, as a guest need have no agent; and
nobody is held back twice. Nothing here is needed to survive: a new home gives all of them their share.
"""

import asyncio

from hotvirt.node.cgroups import Cgroups

TURN = 120.0
"""Seconds. An emulated Debian that has a CPU to itself takes about 40 to its agent, beside other work twice that."""


class BootTurns:
    """`turns`: how many boot with their share; 0: all do. A guest is named by its pod's uid."""

    def __init__(self, cgroups: Cgroups, *, turns: int, turn: float = TURN) -> None:
        self._cgroups, self._turns, self._turn = cgroups, turns, turn
        self._on: dict[str, asyncio.TimerHandle] = {}
        self._waiting: dict[str, int] = {}

    def began(self, uid: str, *, millis: int) -> None:
        """`millis`: thousandths of a CPU that its pod asks for."""
        if not self._turns:
            return
        self._waiting[uid] = millis
        if len(self._on) < self._turns:
            self._next()
        else:
            self._cgroups.hold_back(uid)

    def over(self, uid: str) -> None:
        """It has booted, or ends. May be said of any guest at any time."""
        if (timer := self._on.pop(uid, None)) is not None:
            timer.cancel()
            self._next()
        elif (millis := self._waiting.pop(uid, None)) is not None:
            self._cgroups.weigh(uid, millis=millis)

    def _next(self) -> None:
        """Whoever began first."""
        if self._waiting:
            uid = next(iter(self._waiting))
            self._cgroups.weigh(uid, millis=self._waiting.pop(uid))
            self._on[uid] = asyncio.get_running_loop().call_later(self._turn, self.over, uid)
