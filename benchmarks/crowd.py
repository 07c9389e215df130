"""Many guests that start at once, each to be asked for itself afterwards: does every one of them answer?

    python benchmarks/crowd.py                        # 20 Debians of 384 MiB, set up by cloud-init
    python benchmarks/crowd.py --image tiny --count 50

Prints when the first, the median and the last one was up, how the API did meanwhile and what the home weighs. A Debian
is up when all of its services are and none failed, by its own systemd through a readiness probe. Ends with an error if
one is not in time, or answers for another. Without KVM a Debian takes some 100 s of a CPU to start. The home lives in a
directory of its own and is taken down at the end.
"""

import argparse
import asyncio
import os
import time
from typing import Any

from latency import Home, has_agent, holds, machine

from hotvirt.kube.resources import VMIS, VMS
from hotvirt.qemu.machine import MIB

UP = ["systemctl", "is-system-running", "--quiet"]
"""Says no while services start, and when one has failed."""
SELDOM = 15.0
"""Seconds between two questions to a guest that answers for itself, but not yet by its own name."""


def guest(name: str, image: str, *, memory: str) -> dict[str, Any]:
    vm = machine(name)
    spec = vm["spec"]["template"]["spec"]
    spec["terminationGracePeriodSeconds"] = 0
    domain = spec["domain"]
    domain["memory"] = {"guest": memory}
    domain["cpu"] = {"sockets": 1, "maxSockets": 1}
    seed = f"#cloud-config\nhostname: {name}\n"
    domain["devices"]["disks"] = [{"name": "seed", "disk": {"bus": "virtio"}}]
    spec["volumes"] = [{"name": "seed", "cloudInitNoCloud": {"userData": seed}}]
    if image == "debian":
        domain.pop("firmware", None)
        spec["readinessProbe"] = {"exec": {"command": UP}, "periodSeconds": 30, "timeoutSeconds": 25}
        domain["devices"]["disks"].insert(0, {"name": "root", "disk": {"bus": "virtio"}})
        spec["volumes"].insert(0, {"name": "root", "containerDisk": {"image": "hotvirt/debian:12"}})
    return vm


async def answers(home: Home, name: str, *, patience: float) -> str:
    """Waits until its agent answers and it is ready, and gives the host name it tells. It is asked seldom: when each
    was asked twice a second, agents and the journals of what they were asked took half of what these guests had."""
    while True:
        await home.seen(name, lambda status: has_agent(status) and holds(status, "Ready"), within=patience)
        told = str((await home.facts(name))["hostname"])
        if told == name:
            return told
        await asyncio.sleep(SELDOM)


async def run(image: str, count: int, *, memory: str, patience: float) -> None:
    names = [f"guest-{number}" for number in range(count)]
    took: list[float] = []
    async with Home(vcpus_each=max(10, -(-count // len(os.sched_getaffinity(0))))) as home:
        began = time.monotonic()

        async def one(name: str) -> None:
            await home.client.create(VMS, guest(name, image, memory=memory), "default")
            await answers(home, name, patience=patience)
            took.append(time.monotonic() - began)

        asked: list[float] = []

        async def look() -> None:
            while len(took) < count:
                at = time.monotonic()
                await home.client.list(VMIS, "default")
                asked.append(time.monotonic() - at)
                await asyncio.sleep(0.5)

        try:
            async with asyncio.timeout(patience), asyncio.TaskGroup() as group:
                group.create_task(look())
                for name in names:
                    group.create_task(one(name))
        finally:
            print(f"{len(took)} of {count} {image} guests answer for themselves")
            if took:
                took.sort()
                print(f"first {took[0]:.1f} s, median {took[len(took) // 2]:.1f} s, last {took[-1]:.1f} s")
            if asked:
                asked.sort()
                print(
                    f"lists meanwhile: median {asked[len(asked) // 2] * 1000:.0f} ms, slowest {asked[-1] * 1000:.0f} ms"
                )
            print(f"the home: {home.resident() / MIB:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", choices=("debian", "tiny"), default="debian")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--memory", default="384Mi")
    parser.add_argument("--patience", type=float, default=3600.0, help="seconds until all have to answer")
    given = parser.parse_args()
    asyncio.run(run(given.image, given.count, memory=given.memory, patience=given.patience))


if __name__ == "__main__":
    main()
