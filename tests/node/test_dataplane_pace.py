"""How often the pod network's rules are published while machines come one after another; the network takes its time."""

import asyncio
import importlib.util
import itertools
from pathlib import Path

import pytest

from hotvirt.kube.events import Recorder
from hotvirt.kube.informer import SharedInformers
from hotvirt.kube.resources import PODS
from hotvirt.node.dataplane import GATHER, PAUSE, Dataplane

_path = Path(__file__).parents[1] / "kube" / "memory_api.py"
_spec = importlib.util.spec_from_file_location("memory_api_of_pace", _path)
memory_api = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(memory_api)

pytestmark = pytest.mark.looptime
TAKES = 0.25


class Network:
    kind = "bridge"

    def __init__(self):
        self.published = []

    async def publish(self, world):
        self.published.append((asyncio.get_running_loop().time(), len(world.pods)))
        await asyncio.sleep(TAKES)


async def test_rules_take_a_fifth_of_the_time_and_a_change_after_quiet_none_to_wait():
    api, network = memory_api.MemoryApi(), Network()
    informers = SharedInformers(api)
    recorder = Recorder(api, "test")
    dataplane = Dataplane(informers, network, recorder=recorder)
    tasks = [asyncio.create_task(each) for each in (informers.run(), recorder.run(), dataplane.run())]

    async def pod(name):
        await api.create(PODS, {"metadata": {"name": name}, "spec": {}})

    try:
        for number in range(50):
            await pod(f"a-{number}")
            await asyncio.sleep(0.1)
        await asyncio.sleep(5)
        busy = network.published
        gaps = [after - before for (before, _), (after, _) in itertools.pairwise(busy)]
        assert min(gaps) >= TAKES * (1 + PAUSE)
        assert len(busy) > 3
        assert busy[-1][1] == 50, "what came last is not left out"
        await pod("b")
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(1)
        assert network.published[-1] == (pytest.approx(began + GATHER), 51)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
