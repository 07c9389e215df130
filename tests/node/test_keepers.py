"""What sees to guests' network for as long as a home runs is not ended by what passes."""

import asyncio

import pytest

from hotvirt.node import bridge
from hotvirt.node.dnsmasq import Dnsmasq

pytestmark = pytest.mark.looptime


async def goes_on(keeping):
    task = asyncio.create_task(keeping)
    done, _ = await asyncio.wait([task], timeout=60)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return not done


async def test_a_dnsmasq_that_cannot_be_started_for_now_is_started_later(tmp_path, monkeypatch):
    tries = []

    async def none(*_, **__):
        tries.append(1)
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", none)
    assert await goes_on(Dnsmasq(tmp_path / "a" / "b", ["dnsmasq"], files=(), serves="DNS").keep())
    assert len(tries) > 3


async def test_rules_that_cannot_be_looked_at_for_now_are_looked_at_later(tmp_path, monkeypatch):
    tries = []

    async def none(*_, **__):
        tries.append(1)
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(asyncio, "to_thread", none)
    made = bridge.BridgeNetwork(tmp_path, is_default=False, directory=tmp_path / "network")
    assert await goes_on(made._keep_rules())
    assert len(tries) == 2
