"""Telling people what happened: Kubernetes Events, counted rather than repeated.

`Recorder.event` only puts into a bounded queue, so that no reconcile waits for one, and a full queue drops the oldest.
`run` (one task) writes them: an event said before raises `count` and `lastTimestamp` of the old one by a patch. A
source that says too much about one object is cut off by a token bucket, as in client-go (25 at once, then one in
five minutes). What was said is remembered no longer than the API keeps it, nor more than so much of it. Events are
news, not state: nothing may depend on one having been written.
"""

import asyncio
import logging
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal, NoReturn
from uuid import uuid4

from msgspec import Struct

from hotvirt.kube.client import Client, Document
from hotvirt.kube.errors import ApiError, NotFound, Unreachable
from hotvirt.kube.resources import EVENTS
from hotvirt.kube.times import Clock, stamp, utc_now
from hotvirt.kube.workqueue import TokenBucket

log = logging.getLogger(__name__)

QUEUE, REMEMBERED = 1000, 4096
KEPT = 3600.0
"""Seconds an API keeps an event that is not written again: an older one is made anew."""
BURST, REFILL = 25, 1 / 300.0
MESSAGE = 1024
"""Longest message the API takes."""

EventKind = Literal["Normal", "Warning"]
_Identity = tuple[str, str, str, str, str]


class _Said(Struct, gc=False):
    """An event as last written, at `moment`; `count` times altogether."""

    namespace: str
    name: str
    count: int
    moment: float


class _Waiting(Struct):
    about: Document
    first: str
    last: str
    times: int = 1


def reference(obj: Document) -> Document:
    """An ObjectReference to a document."""
    metadata = obj["metadata"]
    found = {
        "apiVersion": obj.get("apiVersion"), "kind": obj.get("kind"), "name": metadata["name"],
        "namespace": metadata.get("namespace"), "uid": metadata.get("uid"),
        "resourceVersion": metadata.get("resourceVersion"),
    }  # fmt: skip
    return {key: value for key, value in found.items() if value}


class Recorder:
    """For one component, named as the event's source, e.g. `virtualmachine-controller`."""

    def __init__(self, client: Client, component: str, *, host: str = "", clock: Clock = utc_now) -> None:
        self._client, self._component, self._host, self._clock = client, component, host, clock
        self._waiting: OrderedDict[_Identity, _Waiting] = OrderedDict()
        self._said: OrderedDict[int, _Said] = OrderedDict()  # by the identity's hash: the words need not be kept
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()
        self._seconds: Callable[[], float] = lambda: clock().timestamp()
        self._arrived = asyncio.Event()
        self.dropped = 0

    @property
    def remembered(self) -> int:
        """How many events, and objects that they are about, it still knows of."""
        return len(self._said) + len(self._buckets)

    def event(self, obj: Document, kind: EventKind, reason: str, message: str) -> None:
        """Says about `obj` (a whole document or an ObjectReference-like one with metadata) what happened."""
        about, now = reference(obj), stamp(self._clock())
        identity = (about.get("uid") or f"{about.get('namespace')}/{about['name']}", about.get("kind", ""), kind,
                    reason, message[:MESSAGE])  # fmt: skip
        if not self._bucket(identity[0]).take():
            self.dropped += 1
            return
        waiting = self._waiting.get(identity)
        if waiting is not None:
            waiting.times += 1
            waiting.last = now
            return
        if len(self._waiting) >= QUEUE:
            self._waiting.popitem(last=False)
            self.dropped += 1
        self._waiting[identity] = _Waiting(about, now, now)
        self._arrived.set()

    async def run(self) -> NoReturn:
        """Writes until cancelled. What can't be written is dropped: the next one is more useful."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                identity, waiting = self._waiting.popitem(last=False)
                try:
                    await self._write(identity, waiting)
                except (ApiError, Unreachable) as error:
                    self.dropped += 1
                    log.debug("event %s about %s not written: %s", identity[3], waiting.about.get("name"), error)
                self._forget()

    async def _write(self, identity: _Identity, waiting: _Waiting) -> None:
        known = hash(identity)
        said = self._said.get(known)
        if said is not None:
            try:
                patch = {"count": said.count + waiting.times, "lastTimestamp": waiting.last}
                await self._client.patch(EVENTS, said.name, patch, said.namespace)
            except NotFound:
                del self._said[known]  # it aged out of the API; begin anew
            else:
                said.count += waiting.times
                said.moment = self._seconds()
                self._said.move_to_end(known)
                return
        event = self._document(identity, waiting)
        namespace = event["metadata"]["namespace"]
        await self._client.create(EVENTS, event, namespace)
        name = event["metadata"]["name"]
        self._said[known] = _Said(sys.intern(namespace), name, waiting.times, self._seconds())

    def _document(self, identity: _Identity, waiting: _Waiting) -> Document:
        _, _, kind, reason, message = identity
        about = waiting.about
        source = {"component": self._component, **({"host": self._host} if self._host else {})}
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{about['name'][:200]}.{uuid4().hex[:16]}",
                "namespace": about.get("namespace") or "default",
            },
            "involvedObject": about,
            "type": kind,
            "reason": reason,
            "message": message,
            "source": source,
            "reportingComponent": self._component,
            "reportingInstance": self._host,
            "firstTimestamp": waiting.first,
            "lastTimestamp": waiting.last,
            "count": waiting.times,
        }

    def _bucket(self, about: str) -> TokenBucket:
        bucket = self._buckets.get(about)
        if bucket is None:
            bucket = self._buckets[about] = TokenBucket(rate=REFILL, burst=BURST, time=self._seconds)
        self._buckets.move_to_end(about)
        return bucket

    def _forget(self) -> None:
        """What is too old to be of use, and the oldest of what is too much. Both are in the order of their moments."""
        now = self._seconds()
        while self._said and (len(self._said) > REMEMBERED or next(iter(self._said.values())).moment <= now - KEPT):
            self._said.popitem(last=False)
        full = now - BURST / REFILL  # a bucket that is full again is like none
        while self._buckets and (len(self._buckets) > REMEMBERED or next(iter(self._buckets.values())).used_at <= full):
            self._buckets.popitem(last=False)
