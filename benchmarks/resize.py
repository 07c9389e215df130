"""Edit → the guest sees it: memory, vCPUs and disks up and down, beside bare QMP in the same run.

    python benchmarks/resize.py                  # one guest, 20 rounds of each
    python benchmarks/resize.py --many 20        # 20 guests, each change in all of them at once
    python benchmarks/resize.py --rounds 5

One bare guest and one of hotvirt run beside each other and are changed in turn, so that a machine that gets slower does
so for both. The floor makes the same change by QMP and the agent and ends at the guest's own answer. What is printed is
milliseconds and ratios; nothing here passes or fails.
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from bare import BOOT_MEMORY, Bare, until
from latency import Home, head, phases, row

from hotvirt.api.quantity import format_bytes
from hotvirt.images import catalog
from hotvirt.kube.resources import CLAIMS
from hotvirt.qemu import facts
from hotvirt.qemu.machine import GIB, MIB

Change = Callable[[], Awaitable[float]]
LEFT = 16 * MIB
"""What a guest may keep or lack of a change of its memory."""


async def timed(done: Awaitable[object]) -> float:
    began = time.monotonic()
    await done
    return time.monotonic() - began


class Floor:
    """The six changes, on a bare guest."""

    def __init__(self, guest: Bare) -> None:
        self.guest, self.boot = guest, 0

    async def prepare(self) -> None:
        await self.guest.ready()
        self.boot = (await facts.memory(self.guest.agent))[0] or 0

    async def memory(self, added: int) -> float:
        return await timed(self._memory(added))

    async def _memory(self, added: int) -> None:
        device = f"/machine/peripheral/{await self._device()}"
        wish = {"path": device, "property": "requested-size", "value": added}
        await self.guest.monitor.execute("qom-set", wish)

        async def has() -> bool:
            return abs(((await facts.memory(self.guest.agent))[0] or 0) - self.boot - added) <= LEFT

        await until(has)

    async def _device(self) -> str:
        return str((await self.guest.monitor.execute("query-memory-devices"))[0]["data"]["id"])

    async def sockets(self, count: int) -> float:
        return await timed(self._sockets(count))

    async def _sockets(self, count: int) -> None:
        await self.guest.agent.set_vcpus({1: count == 2})

        async def has() -> bool:
            return (await facts.facts(self.guest.agent)).online_cpus == count

        await until(has)

    async def add_disk(self) -> float:
        return await self.guest.add_disk()

    async def remove_disk(self) -> float:
        return await timed(self._remove_disk())

    async def _remove_disk(self) -> None:
        monitor = self.guest.monitor
        with monitor.events("DEVICE_DELETED") as events:
            await monitor.execute("device_del", {"id": "disk-new"})
            await events.wait_for(lambda event: event.data.get("device") == "disk-new")
        await monitor.execute("blockdev-del", {"node-name": "new"})

        async def gone() -> bool:
            return all(disk.size_bytes != 64 * MIB for disk in await facts.disks(self.guest.agent) or ())

        await until(gone)


class Ours:
    """The same by edits of a VM; done when its VMI says so, which it does when the guest confirmed it. `confirm` asks
    the guest itself whether that was true: when all are done, as a guest that answers takes time from the others."""

    def __init__(self, home: Home, name: str) -> None:
        self.home, self.name, self.claim = home, name, f"data-{name}"
        self.boot = 0
        self.expects: Callable[[dict[str, Any]], str] = lambda _: ""

    async def confirm(self) -> None:
        wrong = self.expects(await self.home.facts(self.name))
        assert not wrong, f"{self.name}: {wrong}"

    async def prepare(self) -> None:
        spec: dict[str, object] = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "64Mi"}}}
        spec["storageClassName"] = "hotvirt-directory"  # bound at once
        claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": self.claim}, "spec": spec}
        await self.home.client.create(CLAIMS, claim, "default")
        self.boot = (await self.home.facts(self.name))["memTotalBytes"]

        async def bound() -> bool:
            found = await self.home.client.get(CLAIMS, self.claim, "default")
            return found.get("status", {}).get("phase") == "Bound"

        await until(bound)

    async def memory(self, added: int) -> float:
        wanted = format_bytes(BOOT_MEMORY + added)
        began = time.monotonic()
        await self.home.edit(self.name, {"memory": {"guest": wanted}})
        await self.home.seen(self.name, lambda status: status["memory"]["guestCurrent"] == wanted)
        took = time.monotonic() - began

        def expects(facts: dict[str, Any]) -> str:
            has = facts["memTotalBytes"] - self.boot
            return "" if abs(has - added) <= LEFT else f"the guest itself has {has} bytes more, not {added}"

        self.expects = expects
        return took

    async def sockets(self, count: int) -> float:
        began = time.monotonic()
        await self.home.edit(self.name, {"cpu": {"sockets": count}})
        await self.home.seen(self.name, lambda status: status["currentCPUTopology"]["sockets"] == count)
        took = time.monotonic() - began
        self.expects = lambda facts: "" if facts["onlineCPUs"] == count else f"{facts['onlineCPUs']} CPUs, not {count}"
        return took

    async def add_disk(self) -> float:
        options: dict[str, Any] = {
            "name": self.claim,
            "disk": {"name": self.claim, "disk": {"bus": "scsi"}},
            "volumeSource": {"persistentVolumeClaim": {"claimName": self.claim}},
        }
        began = time.monotonic()
        await self._put("addvolume", options)
        await self.home.seen(self.name, lambda status: ("Ready", self.claim) in phases(status))
        took = time.monotonic() - began
        self.expects = lambda facts: "" if has_disk(facts) else "the guest has no disk of that size"
        return took

    async def remove_disk(self) -> float:
        began = time.monotonic()
        await self._put("removevolume", {"name": self.claim})
        await self.home.seen(self.name, lambda status: self.claim not in {name for _, name in phases(status)})
        took = time.monotonic() - began
        self.expects = lambda facts: "the guest still has the disk" if has_disk(facts) else ""
        return took

    async def _put(self, verb: str, options: dict[str, Any]) -> None:
        path = f"/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachines/{self.name}/{verb}"
        async with self.home.http.put(self.home.access.server + path, json=options) as answer:
            assert answer.status == 202, await answer.text()


def has_disk(facts: dict[str, Any]) -> bool:
    return any(disk["sizeBytes"] == 64 * MIB for disk in facts["blockDevices"])


def changes(one: Floor | Ours, added: int) -> list[tuple[str, Change]]:
    size = format_bytes(added)
    return [
        (f"+{size}", lambda: one.memory(added)), (f"-{size}", lambda: one.memory(0)),
        ("+1 vCPU", lambda: one.sockets(2)),
        # With two vCPUs a guest takes longer to give memory back: it waits for both at each block of it.
        (f"+{size}, 2 vCPUs", lambda: one.memory(added)), (f"-{size}, 2 vCPUs", lambda: one.memory(0)),
        ("-1 vCPU", lambda: one.sockets(1)),
        ("+disk", one.add_disk), ("-disk", one.remove_disk),
    ]  # fmt: skip


async def compare(image: catalog.ImageFiles, *, count: int, rounds: int, added: int) -> None:
    directory = Path(tempfile.mkdtemp(prefix="hvf-", dir="/tmp"))
    results: dict[str, tuple[list[float], list[float]]] = {}
    try:
        async with AsyncExitStack() as stack:
            home = await stack.enter_async_context(Home())
            guests = [Bare(directory / str(index), image) for index in range(count)]
            for guest in guests:
                await guest.start()
                stack.push_async_callback(guest.stop)
            floors = [Floor(guest) for guest in guests]
            for floor in floors:
                await floor.prepare()
            names = [f"r{index}" for index in range(count)]
            await home.create(names)
            await home.agents(names)
            ours = [Ours(home, name) for name in names]
            for one in ours:
                await one.prepare()
            for number in range(rounds):
                print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
                for index, (what, _) in enumerate(changes(floors[0], added)):
                    bare, mine = results.setdefault(what, ([], []))
                    bare += await asyncio.gather(*(changes(one, added)[index][1]() for one in floors))
                    mine += await asyncio.gather(*(changes(one, added)[index][1]() for one in ours))
                    for one in ours:
                        await one.confirm()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    for what, (bare, mine) in results.items():
        row(f"{what} → guest sees it, {count} VM{'s' if count > 1 else ''}", bare, mine)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--many", type=int, metavar="N", help="N guests at once, each with 256 MiB more and less")
    chosen = parser.parse_args()
    image = await catalog.ensure("hotvirt/tiny", catalog.default_cache())
    head()
    if chosen.many:
        # Less for each of many: hotvirt grants no growth that the machine's memory does not cover.
        await compare(image, count=chosen.many, rounds=max(1, chosen.rounds // chosen.many), added=256 * MIB)
    else:
        await compare(image, count=1, rounds=chosen.rounds, added=GIB)


if __name__ == "__main__":
    asyncio.run(main())
