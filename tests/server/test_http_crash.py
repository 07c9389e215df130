"""SIGKILL in the middle of work, over and over: no acknowledged write is lost, and a watcher that comes back has missed
nothing. Its full length runs in the benchmarks; here it is a few rounds."""

import asyncio
import json
import os
import random
import signal
import ssl
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from hotvirt.server.pki import Pki

pytestmark = pytest.mark.server
ROUNDS = int(os.environ.get("HOTVIRT_CRASH_ROUNDS", "4"))
MAPS = "/api/v1/namespaces/default/configmaps"
SERVER = """
import asyncio, sys
from pathlib import Path
from hotvirt.server.app import ApiServer, ServerConfig

async def main():
    home = Path(sys.argv[1])
    server = ApiServer(ServerConfig(state_db=home / "state.db", pki=home / "pki"))
    await server.start()
    print(server.port, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


class Home:
    """The server process, started again after each kill."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        pki = Pki(directory / "pki")
        pair = pki.client("admin", ("system:masters",))
        self.tls = ssl.create_default_context(cafile=str(pki.ca))
        self.tls.load_cert_chain(pair.certificate, pair.key)
        self.process: asyncio.subprocess.Process | None = None
        self.url = ""

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SERVER, str(self.directory), stdout=asyncio.subprocess.PIPE
        )
        assert self.process.stdout is not None
        self.url = f"https://127.0.0.1:{int(await self.process.stdout.readline())}"

    async def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        await self.process.communicate()

    def session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(self.url, connector=aiohttp.TCPConnector(ssl=self.tls))


class Seen:
    """What clients were told: the last acknowledged state of each object, and a watcher's replica."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, int] = {}
        self.replica: dict[str, int] = {}
        self.version = 0


async def _write(home: Home, seen: Seen, lane: int) -> None:
    """Creates, changes and deletes until the server is gone."""
    async with home.session() as session:
        for step in range(10_000):
            name = f"l{lane}-{step % 7}"
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"x": "y" * 300}}
            patch = {"data": {"step": str(step)}}
            merge = {"Content-Type": "application/merge-patch+json"}
            try:
                if name not in seen.acknowledged:
                    answer = await session.post(MAPS, json=body)
                else:
                    answer = await session.patch(f"{MAPS}/{name}", data=json.dumps(patch), headers=merge)
                doc = await answer.json()
            except (aiohttp.ClientError, ConnectionError):
                return
            if answer.status < 300:
                seen.acknowledged[name] = int(doc["metadata"]["resourceVersion"])
            else:
                assert answer.status == 409, doc  # created by a request whose answer was lost
                seen.acknowledged[name] = 0


async def _watch(home: Home, seen: Seen) -> None:
    async with home.session() as session:
        query = {"watch": "1", "resourceVersion": str(seen.version)}
        try:
            async with session.get(MAPS, params=query) as answer:
                assert answer.status == 200, await answer.text()
                while line := await answer.content.readline():
                    _take(seen, json.loads(line))
        except (aiohttp.ClientError, ConnectionError, json.JSONDecodeError):
            return


def _take(seen: Seen, event: dict[str, Any]) -> None:
    meta = event["object"]["metadata"]
    version = int(meta["resourceVersion"])
    assert version > seen.version, "an event came twice, or out of order"
    seen.version = version
    if event["type"] == "DELETED":
        seen.replica.pop(meta["name"], None)
    else:
        seen.replica[meta["name"]] = version


async def _stored(home: Home) -> tuple[dict[str, int], int]:
    async with home.session() as session, session.get(MAPS) as answer:
        found = await answer.json()
    for item in found["items"]:
        assert item["metadata"]["name"] == "kube-root-ca.crt" or item["data"]["x"] == "y" * 300
    items = {item["metadata"]["name"]: int(item["metadata"]["resourceVersion"]) for item in found["items"]}
    return items, int(found["metadata"]["resourceVersion"])


async def test_what_was_acknowledged_is_there_and_watchers_miss_nothing(tmp_path: Path) -> None:
    home, seen, chance = Home(tmp_path), Seen(), random.Random(7)
    await home.start()
    seen.replica, seen.version = await _stored(home)
    for _ in range(ROUNDS):
        async with asyncio.TaskGroup() as group:
            group.create_task(_watch(home, seen))
            for lane in range(6):
                group.create_task(_write(home, seen, lane))
            await asyncio.sleep(chance.uniform(0.05, 0.4))  # the random point
            await home.kill()
        await home.start()
        items, version = await _stored(home)
        for name, acknowledged in seen.acknowledged.items():
            assert items.get(name, -1) >= acknowledged, f"{name}: acknowledged {acknowledged}, found {items.get(name)}"
        watching = asyncio.create_task(_watch(home, seen))
        async with asyncio.timeout(10):
            while seen.version < max(items.values()):
                await asyncio.sleep(0.01)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        assert seen.replica == items, "the watcher's replica is not what the server has"
        assert version >= max(items.values())
    await home.kill()
