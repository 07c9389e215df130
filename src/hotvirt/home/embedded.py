"""`hotvirt up`: API server, controllers and node agent in one process, on one event loop.

The API comes first, then the objects that every home has, then the parts that act on objects, each restarted when it
fails. "Ready" is said when the API answers and the node is registered in it. SIGTERM and SIGINT end it in the
reverse order; guests are processes of their own and go on.
"""

import asyncio
import errno
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from hotvirt.home import bootstrap, keys, lock, logs
from hotvirt.home.assembly import KUBEVIRT, VERSION, Home
from hotvirt.home.contexts import last_port, write_kubeconfigs
from hotvirt.home.errors import HomeError
from hotvirt.home.notify import Notifier
from hotvirt.home.paths import Paths
from hotvirt.home.supervise import keep_running
from hotvirt.kube.kubeconfig import Access
from hotvirt.server.database import StateFileError

log = logging.getLogger("hotvirt.home")


def run(place: Paths, *, port: int | None, log_file: Path | None, notify_fd: int | None, verbose: bool) -> None:
    """Until a signal ends it. HomeError when it cannot start."""
    logs.set_up(log_file, verbose=verbose)
    # Tools such as dnsmasq and nft are where a root shell made by `su` does not look.
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    place.prepare()
    with lock.hold(place.lock) as held:
        keys.make(place.pki)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(place, port, held, Notifier(notify_fd)))


async def _serve(place: Paths, port: int | None, held: lock.Lock, notifier: Notifier) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    notifier.step(f"opening {place.state}")
    async with _api(place, port) as (home, access):
        await bootstrap.ensure(home.client("home"), version=VERSION, speaks=KUBEVIRT)
        notifier.step(write_kubeconfigs(place, access))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(keep_running(name, part), name=name) for name, part in home.parts().items()]
            await home.settled()
            held.say(access.server)
            notifier.ready(access.server)
            await stop.wait()
            log.info("stopping; guests go on")
            for task in tasks:
                task.cancel()


@asynccontextmanager
async def _api(place: Paths, port: int | None) -> AsyncIterator[tuple[Home, Access]]:
    """On the port asked for, else on that of last time, else on a free one."""
    wanted = last_port(place) if port is None else port
    home = Home(place, port=wanted)
    try:
        access = await home.start()
    except StateFileError as error:
        raise HomeError(str(error)) from error
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise HomeError(f"the API cannot listen on 127.0.0.1: {error.strerror}") from error
        if port is not None:
            raise HomeError(f"port {port} on 127.0.0.1 is taken; choose another --port") from error
        log.warning("another program has the port of last time, taking a free one", extra={"port": wanted})
        home = Home(place, port=0)
        access = await home.start()
    try:
        yield home, access
    finally:
        await home.stop()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
