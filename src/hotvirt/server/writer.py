"""The one thread that touches the state file, and group commit.

The loop hands over rows in revision order; the thread stores all that wait in one transaction and reports each batch
back to the loop in the same order. Reads of history, compaction and backups are jobs in the same queue, so nothing ever
waits for a lock of SQLite's. Rows handed over before `close` are still stored.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hotvirt.server.database import Database, Full, Row

LARGEST_BATCH = 256
T = TypeVar("T")
Done = Callable[[Sequence[Row], Exception | None], None]
_log = logging.getLogger(__name__)


class _Job:
    __slots__ = ("future", "run")

    def __init__(self, run: Callable[[Database], Any], future: "asyncio.Future[Any]") -> None:
        self.run, self.future = run, future


class Writer:
    """`done` is called on the loop for each batch: rows, and why they could not be stored or None."""

    def __init__(self, database: Database, done: Done) -> None:
        self._database, self._done = database, done
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Row | _Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="hotvirt-store", daemon=True)
        self._thread.start()

    def submit(self, row: Row) -> None:
        self._queue.put(row)

    async def run(self, job: Callable[[Database], T]) -> T:
        """The job's result, after everything submitted so far."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(_Job(job, future))
        return await future

    async def close(self) -> None:
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        waiting: Row | _Job | None = None
        while True:
            first = waiting or self._queue.get()
            waiting = None
            if first is None:
                return
            if isinstance(first, _Job):
                self._run(first)
                continue
            batch = [first]
            while len(batch) < LARGEST_BATCH and not self._queue.empty():
                following = self._queue.get()
                if not isinstance(following, Row):
                    if following is None:
                        self._store(batch)
                        return
                    waiting = following
                    break
                batch.append(following)
            self._store(batch)

    def _store(self, batch: list[Row]) -> None:
        try:
            self._database.commit(batch)
        except Exception as error:  # noqa: BLE001  whatever it is, the writes have failed and this thread goes on
            if not isinstance(error, Full):
                _log.error("the state file could not be written: %s", error)
            self._report(self._done, batch, error)
        else:
            self._report(self._done, batch, None)

    def _run(self, job: _Job) -> None:
        try:
            result = job.run(self._database)
        except Exception as error:  # noqa: BLE001  whatever it is belongs to who asked, not to this thread
            self._report(_fail, job.future, error)
        else:
            self._report(_fulfil, job.future, result)

    def _report(self, call: Callable[..., None], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *args)
        except RuntimeError:  # the loop is closed: nobody is left to hear it
            _log.debug("the loop ended before a result of the store could be reported")


def _fulfil(future: "asyncio.Future[Any]", result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: "asyncio.Future[Any]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
