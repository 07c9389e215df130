"""Kills the API server in the middle of work, over and over, and looks for anything that was promised and is not there.

    python benchmarks/crash.py                 # 300 kills
    python benchmarks/crash.py --kills 50 --seed 4 --dir /mnt/disk

Writers create, change and delete config maps and custom objects on many connections, a watcher follows; SIGKILL comes
at a random moment. After the restart: every acknowledged write is there, or a later one of its object; no object is
torn (each carries the checksum of its own content); the watcher, going on from its last resourceVersion, has seen
every version once, in order, and holds what the server holds. The first thing that is not so ends the run.

`tests/api/test_crash.py` runs the same, shortened.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import ssl
import sys
import tempfile
import time
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

Doc = dict[str, Any]
GROUP = "crash.hotvirt.io"
PATHS = ("/api/v1/namespaces/default/configmaps", f"/apis/{GROUP}/v1/namespaces/default/notes")
LANES = 8
NAMES = 5  # to a lane and kind
GONE = -1
STEPS = itertools.count()  # no write is like another: one that changes nothing gets an old version
CONNECTION_LOST = (aiohttp.ClientError, ConnectionError, OSError)
SERVER = """
import asyncio, sys
from pathlib import Path
import uvloop
from hotvirt.server.app import ApiServer, ServerConfig

async def main():
    home = Path(sys.argv[1])
    server = ApiServer(ServerConfig(state_db=home / "state.db", pki=home / "pki"))
    await server.start()
    print(server.port, flush=True)
    await asyncio.Event().wait()

uvloop.run(main())
"""


class Home:
    """The server process, started again after each kill."""

    def __init__(self, directory: Path) -> None:
        from hotvirt.server.pki import Pki

        self.directory = directory
        pki = Pki(directory / "pki")
        pair = pki.client("admin", ("system:masters",))
        self.tls = ssl.create_default_context(cafile=str(pki.ca))
        self.tls.load_cert_chain(pair.certificate, pair.key)
        self._process: asyncio.subprocess.Process | None = None
        self.url = ""

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SERVER, str(self.directory), stdout=asyncio.subprocess.PIPE
        )
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        assert line, "the server did not start again"
        self.url = f"https://127.0.0.1:{int(line)}"

    async def kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.communicate()
            self._process = None

    def session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(self.url, connector=aiohttp.TCPConnector(ssl=self.tls, limit=0))


class Seen:
    """What clients were told. `acknowledged`: the version of the last write of each object that was answered, or GONE.
    `open`: objects whose last request got no answer: it may have happened or not. `replica`: a watcher's. `promised`:
    versions that were answered and no watcher has been checked for yet; `watched`: those it was told."""

    def __init__(self) -> None:
        self.acknowledged: dict[tuple[str, str], int] = {}
        self.open: set[tuple[str, str]] = set()
        self.replica: dict[str, dict[str, int]] = {path: {} for path in PATHS}
        self.version = dict.fromkeys(PATHS, 0)
        self.promised: dict[str, set[int]] = {path: set() for path in PATHS}
        self.watched: dict[str, set[int]] = {path: set() for path in PATHS}
        self.writes = self.events = 0


def sealed(path: str, name: str, step: int) -> Doc:
    """An object that shows when a part of it is another's."""
    text = f"{name}:{step}:" + chr(97 + step % 26) * (step * 37 % 3000)
    content = {"text": text, "sum": str(zlib.crc32(text.encode()))}
    meta = {"name": name}
    if path == PATHS[0]:
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": content}
    return {"apiVersion": f"{GROUP}/v1", "kind": "Note", "metadata": meta, "spec": content}


def check_seal(obj: Doc) -> None:
    content = obj.get("spec") or obj.get("data") or {}
    name = obj["metadata"]["name"]
    if name != "kube-root-ca.crt":
        assert content["text"].startswith(f"{name}:"), f"{name} holds another's content"
        assert content["sum"] == str(zlib.crc32(content["text"].encode())), f"{name} is torn"


async def write(home: Home, seen: Seen, lane: int, chance: random.Random) -> None:
    """Until the server is gone. Lanes have names of their own, so that each knows what is to be there."""
    async with home.session() as session:
        while True:
            path, name = chance.choice(PATHS), f"l{lane}-{chance.randrange(NAMES)}"
            key = (path, name)
            doubted = key in seen.open
            seen.open.add(key)
            try:
                version = await _one(session, path, name, exists=seen.acknowledged.get(key, GONE) != GONE,
                                     doubted=doubted, chance=chance)  # fmt: skip
            except CONNECTION_LOST:
                return
            seen.acknowledged[key] = version
            if version != GONE:
                seen.promised[path].add(version)
            seen.open.discard(key)
            seen.writes += 1


async def _one(session: aiohttp.ClientSession, path: str, name: str, *, exists: bool, doubted: bool,
               chance: random.Random) -> int:  # fmt: skip
    """The version that was acknowledged, or GONE."""
    obj = sealed(path, name, next(STEPS))
    if doubted:  # settle it first: is it there?
        async with session.get(f"{path}/{name}") as answer:
            exists = answer.status == 200
            await answer.read()
    if not exists:
        request = session.post(path, json=obj)
    elif chance.random() < 0.25:
        request = session.delete(f"{path}/{name}")
    else:
        content = {key: obj[key] for key in ("data", "spec") if key in obj}
        head = {"Content-Type": "application/merge-patch+json"}
        request = session.patch(f"{path}/{name}", data=json.dumps(content), headers=head)
    async with request as answer:
        doc = await answer.json()
        assert answer.status in (200, 201), f"{answer.method} {path}/{name}: {doc}"
    return GONE if answer.method == "DELETE" else int(doc["metadata"]["resourceVersion"])


async def watch(home: Home, seen: Seen, path: str) -> None:
    """From where it last was, until the server is gone."""
    with contextlib.suppress(*CONNECTION_LOST):
        async with home.session() as session:
            query = {"watch": "1", "resourceVersion": str(seen.version[path]), "allowWatchBookmarks": "true"}
            async with session.get(path, params=query, read_bufsize=2**20) as answer:
                assert answer.status == 200, await answer.text()
                while (line := await answer.content.readline()).endswith(b"\n"):  # else cut off in its middle
                    _take(seen, path, json.loads(line))


def _take(seen: Seen, path: str, event: Doc) -> None:
    meta = event["object"]["metadata"]
    version = int(meta["resourceVersion"])
    if event["type"] == "BOOKMARK":
        assert version >= seen.version[path], "a bookmark went back"
        seen.version[path] = version
        return
    assert version > seen.version[path], f"{meta['name']}: version {version} came twice, or out of order"
    check_seal(event["object"])
    replica = seen.replica[path]
    known = meta["name"] in replica
    assert known is (event["type"] != "ADDED"), f"{meta['name']}: {event['type']}, but it was known: {known}"
    seen.version[path] = version
    seen.events += 1
    seen.watched[path].add(version)
    if event["type"] == "DELETED":
        del replica[meta["name"]]
    else:
        replica[meta["name"]] = version


async def stored(home: Home, path: str) -> tuple[dict[str, int], int]:
    async with home.session() as session, session.get(path) as answer:
        found = await answer.json()
    for item in found["items"]:
        check_seal(item)
    items = {item["metadata"]["name"]: int(item["metadata"]["resourceVersion"]) for item in found["items"]}
    return items, int(found["metadata"]["resourceVersion"])


async def verify(home: Home, seen: Seen) -> None:
    """After a restart, before anything is written."""
    for path in PATHS:
        items, version = await stored(home, path)
        for (where, name), acknowledged in seen.acknowledged.items():
            if where != path or (where, name) in seen.open:
                continue  # the last request got no answer: what became of it is checked by the watcher's order
            found = items.get(name, GONE)
            assert found == acknowledged, f"{path}/{name}: acknowledged {acknowledged}, found {found}"
        for key in [key for key in seen.open if key[0] == path]:
            before = seen.acknowledged.get(key, GONE)
            found = items.get(key[1], GONE)
            assert found == GONE or found >= before, f"{path}/{key[1]}: acknowledged {before}, found {found}"
            seen.acknowledged[key] = found
            seen.open.discard(key)
        watching = asyncio.create_task(watch(home, seen, path))
        try:
            async with asyncio.timeout(20):
                # Both: an object that was made and went again leaves no trace in what is there now.
                while seen.replica[path] != items or seen.promised[path] - seen.watched[path]:
                    assert not watching.done(), f"the watch of {path} ended: {watching.exception()}"
                    await asyncio.sleep(0.005)
        except TimeoutError:
            apart = set(items.items()) ^ set(seen.replica[path].items())
            missed = sorted(seen.promised[path] - seen.watched[path])
            what = f"differ in {apart}; it was never told of versions {missed}"
            raise AssertionError(f"the watcher of {path} and the server (version {version}) {what}") from None
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        seen.promised[path].clear()
        seen.watched[path].clear()


async def _prepare(home: Home, seen: Seen) -> None:
    content = {"type": "object", "required": ["text", "sum"],
               "properties": {"text": {"type": "string"}, "sum": {"type": "string"}}}  # fmt: skip
    version = {"name": "v1", "served": True, "storage": True,
               "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": content}}}}  # fmt: skip
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": f"notes.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": {"plural": "notes", "kind": "Note"},
                 "versions": [version]},
    }  # fmt: skip
    async with home.session() as session:
        async with session.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", json=crd) as answer:
            assert answer.status == 201, await answer.text()
        async with asyncio.timeout(10):
            while True:
                async with session.get(PATHS[1]) as answer:
                    if answer.status == 200:
                        break
    for path in PATHS:
        seen.replica[path], seen.version[path] = await stored(home, path)


@contextlib.asynccontextmanager
async def running(directory: Path) -> AsyncIterator[tuple[Home, Seen]]:
    home, seen = Home(directory), Seen()
    try:
        await home.start()
        await _prepare(home, seen)
        yield home, seen
    finally:
        await home.kill()


async def crash(directory: Path, *, kills: int, seed: int, told: bool = False) -> Seen:
    """Raises AssertionError with what was lost, torn or missed."""
    chance = random.Random(seed)
    async with running(directory) as (home, seen):
        for number in range(1, kills + 1):
            async with asyncio.TaskGroup() as group:
                for path in PATHS:
                    group.create_task(watch(home, seen, path))
                for lane in range(LANES):
                    group.create_task(write(home, seen, lane, random.Random(chance.random())))
                await asyncio.sleep(chance.uniform(0.02, 0.5))  # the random moment
                await home.kill()
            await home.start()
            await verify(home, seen)
            if told and (number % 10 == 0 or number == kills):
                print(f"{number} kills, {seen.writes} acknowledged writes, {seen.events} events: all there", flush=True)
    return seen


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--kills", type=int, default=300)
    arguments.add_argument("--seed", type=int, default=int(time.time()))
    arguments.add_argument("--dir", type=Path, help="where the state goes (the disk that is tried)")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=given.dir) as name:
        print(f"seed {given.seed}, process {os.getpid()}")
        asyncio.run(crash(Path(name), kills=given.kills, seed=given.seed, told=True))


if __name__ == "__main__":
    main()
