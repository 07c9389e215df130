"""What GET /metrics answers: machines and instances as the API knows them, and what guests use at this moment.

Made when asked for. Whoever asks again within FRESH seconds gets the same answer, so that many scrapers cost the guests
no more than one.
"""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

from hotvirt import __version__
from hotvirt.controllers.phasetimes import PhaseTimes
from hotvirt.kube.client import Client
from hotvirt.kube.informer import Key
from hotvirt.kube.resources import VMIS, VMS
from hotvirt.node.samples import GuestSample

FRESH = 2.0
Samples = Callable[[], Awaitable[dict[Key, GuestSample]]]


class Metrics:
    """`samples` gives what guests use, by namespace and name; `node` is the name they run under. Concurrent calls share
    one answer."""

    def __init__(self, client: Client, samples: Samples, *, node: str, phases: PhaseTimes) -> None:
        self._client, self._samples, self._node, self._phases = client, samples, node, phases
        self._lock = asyncio.Lock()
        self._made_at, self._text = -FRESH, b""

    async def text(self) -> bytes:
        """In Prometheus' text format."""
        async with self._lock:
            if monotonic() - self._made_at >= FRESH:
                self._text = await self._make()
                self._made_at = monotonic()
            return self._text

    async def _make(self) -> bytes:
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client.core import GaugeMetricFamily
        from prometheus_client.metrics_core import Metric
        from prometheus_client.registry import Collector

        from hotvirt.controllers import metrics as objects
        from hotvirt.node import metrics as guests

        vms, vmis = await self._client.list(VMS), await self._client.list(VMIS)
        samples = await self._samples()
        info = GaugeMetricFamily("kubevirt_info", "The version that runs.", labels=("kubeversion",))
        info.add_metric((f"v{__version__}",), 1)
        found = [
            info,
            *objects.machines(vms["items"]),
            *objects.instances(vmis["items"]),
            *objects.phases(self._phases),
            *guests.families(samples, self._node),
        ]

        class Once(Collector):
            def collect(self) -> list[Metric]:
                return found

        registry = CollectorRegistry(auto_describe=False)
        registry.register(Once())
        return generate_latest(registry)
