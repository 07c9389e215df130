"""`hotvirt down`: the home first, so that nothing starts what is being stopped, then its guests, then the network.

The same way serves a home that died: what it left is found by pid and start time, never by name.
"""

import asyncio

from hotvirt.home import leftovers, lock
from hotvirt.home.leftovers import Say, Waits
from hotvirt.home.paths import Paths
from hotvirt.node import bridge, cgroups
from hotvirt.node.bridge import BridgeNetwork
from hotvirt.qemu.process import Process

HOME_PATIENCE = 20.0


def down(place: Paths, *, keep_guests: bool, grace: float | None, say: Say, waits: Waits) -> bool:
    """True when nothing is left running (but the guests, with `keep_guests`). `grace`: see `leftovers.seconds`."""
    return asyncio.run(_down(place, keep_guests, grace, say, waits))


async def _down(place: Paths, keep_guests: bool, grace: float | None, say: Say, waits: Waits) -> bool:
    running = lock.holder(place.lock)
    if running is None:
        say(f"no home runs in {place.state}")
    else:
        await stop_home(running, say)
    found = leftovers.find(place.pods)
    if keep_guests:
        alive = sum(each.identity is not None for each in found)
        say(f"{alive} {'guest runs' if alive == 1 else 'guests run'} on; 'hotvirt up' takes over what runs")
        return True
    ended = await leftovers.shut_down(found, grace=grace, say=say, waits=waits)
    if ended and not bridge.missing():
        await BridgeNetwork(place.run, is_default=place.is_default).stop(remove=True)
    cgroups.find(bridge.names(place.run, is_default=place.is_default).table).stop()
    return ended


async def stop_home(running: lock.Holder, say: Say) -> None:
    """The home alone; its guests go on."""
    process = Process.open(running.identity)
    if process is None:
        return
    say(f"stopping the home (process {running.pid})")
    with process:
        await process.stop(grace=HOME_PATIENCE)
    say("the home is down")
