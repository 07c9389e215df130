"""Many machines, many at once, and one again and again: what is slow, what sticks, what is left behind.

    python benchmarks/lifecycle.py                     # 1,000 machines; 50 guests at once; 200 starts and stops
    python benchmarks/lifecycle.py --only cycles --count 40

* `restart`: machines in mixed states, each edited while the home is dead (killed). From the start of the new home's
  process: until the API answers, until all are listed, until every one of them shows that its edit was dealt with, as a
  watch that goes on from before the kill tells.
* `crowd`: real guests that start, pause, go on, restart and stop, all at once.
* `cycles`: one machine started and stopped, now in order, now by force, now deleted with its pod. Then what is left of
  it: processes, descriptors, sockets, files, taps, cgroups, objects; and whether the home's memory still grew in the
  second half of the cycles as it did in the first (a leak), or less and less (a cache that fills). The more cycles, the
  smaller a leak is told apart from noise: 1,000 take five minutes.

Prints figures; what sticks ends in a timeout. `tests/guest/test_home_crowd.py` runs the same, shortened. Homes live in
directories of their own and are taken down at the end.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from bare import until
from latency import Home, machine

from hotvirt.kube.errors import NotFound
from hotvirt.kube.resources import CONFIG_MAPS, CONTROLLER_REVISIONS, EVENTS, PODS, VMIS, VMS
from hotvirt.node import bridge
from hotvirt.qemu.machine import MIB
from hotvirt.server.app import ApiServer, ServerConfig

Doc = dict[str, Any]
HOLD = "bench.hotvirt.io/held"
MEMORY = "128Mi"
CLOSING = 40
"""Seconds. A TLS connection whose client left without a word is open for 30 more: asyncio waits for its farewell."""
WARM_UP = 5
NOISE = 1.5
"""MiB by which a home's least memory differs while nothing grows: allocators take and give it in large pieces."""
SAMPLES = 20


# Machines


def small(name: str, strategy: str, *, grace: int = 0) -> Doc:
    vm = machine(name)
    vm["spec"]["runStrategy"] = strategy
    template = vm["spec"]["template"]["spec"]
    template["terminationGracePeriodSeconds"] = grace
    template["domain"]["memory"] = {"guest": MEMORY}
    template["domain"]["cpu"] = {"sockets": 1, "maxSockets": 1}
    return vm


def mixed(count: int) -> list[Doc]:
    """1 in 100 runs, a few wait for what is not there, some are going and held; the rest is stopped."""
    found = []
    for index in range(count):
        name, share = f"m{index}", index * 100 // count
        strategy = "Halted" if share < 65 else "Manual" if share < 80 else "Always"
        vm = small(name, strategy)
        spec = vm["spec"]["template"]["spec"]
        if 80 <= share < 88:
            spec["nodeSelector"] = {"nowhere": "to-be-found"}
        elif 88 <= share < 95:
            spec["domain"]["devices"]["disks"].append({"name": "claimed", "disk": {"bus": "virtio"}})
            spec["volumes"].append({"name": "claimed", "persistentVolumeClaim": {"claimName": f"{name}-missing"}})
        elif 95 <= share < 99:
            vm["spec"]["runStrategy"] = "Halted"
            vm["metadata"]["finalizers"] = [HOLD]
        found.append(vm)
    return found


def expected(vm: Doc) -> str:
    spec = vm["spec"]["template"]["spec"]
    if vm["metadata"].get("finalizers"):
        return "Terminating"
    if spec.get("nodeSelector"):
        return "ErrorUnschedulable"
    if len(spec["volumes"]) > 1:
        return "ErrorPvcNotFound"
    return "Running" if vm["spec"]["runStrategy"] == "Always" else "Stopped"


def status(vm: Doc) -> str:
    return str((vm.get("status") or {}).get("printableStatus"))


async def followed(
    home: Home, what: str, names: Iterable[str], holds: Callable[[Doc], bool], *, since: str = ""
) -> None:
    """Until `holds` was seen of the VM of each name, by a list and a watch from there, or by a watch from `since`."""
    waiting = set(names)
    listed = {"items": [], "metadata": {"resourceVersion": since}} if since else await home.client.list(VMS, "default")
    waiting -= {vm["metadata"]["name"] for vm in listed["items"] if holds(vm)}
    try:
        async with asyncio.timeout(home.patience):
            version = listed["metadata"]["resourceVersion"]
            while waiting:
                async for event in home.client.watch(VMS, "default", resource_version=version):
                    version = event.object["metadata"]["resourceVersion"]
                    if event.type != "BOOKMARK" and holds(event.object):
                        waiting.discard(event.object["metadata"]["name"])
                    if not waiting:
                        return
    except TimeoutError:
        raise AssertionError(f"{what}: stuck are {sorted(waiting)}") from None


async def each(names: Iterable[Any], act: Callable[[Any], Awaitable[object]], *, lanes: int = 16) -> None:
    """`act` for all, `lanes` at a time."""
    queue = iter(list(names))

    async def lane() -> None:
        for name in queue:
            await act(name)

    async with asyncio.TaskGroup() as group:
        for _ in range(lanes):
            group.create_task(lane())


async def verb(home: Home, kind: str, name: str, action: str, body: Doc | None = None) -> None:
    plural = "virtualmachines" if kind == "vm" else "virtualmachineinstances"
    path = f"/apis/subresources.kubevirt.io/v1/namespaces/default/{plural}/{name}/{action}"
    async with home.http.put(home.access.server + path, json=body or {}) as answer:
        assert answer.status in (200, 202), f"{action} {name}: {await answer.text()}"


# Many


async def restart(home: Home, count: int) -> dict[str, tuple[float, float]]:
    """Seconds from the start of the new home's process to each step, and of CPU that it has used until then."""
    machines = mixed(count)
    wanted = {vm["metadata"]["name"]: expected(vm) for vm in machines}
    await each(machines, lambda vm: home.client.create(VMS, vm, "default"))
    going = [name for name, word in wanted.items() if word == "Terminating"]
    await each(going, lambda name: home.client.delete(VMS, name, "default"))
    await followed(home, "the first start", wanted, lambda vm: status(vm) == wanted[vm["metadata"]["name"]])
    print(f"{count} machines: {dict(Counter(wanted.values()))}", flush=True)
    await kill(home)
    since = await edit_all(home, sorted(wanted.keys() - set(going)))
    began = time.monotonic()
    await home.hotvirt("up", "--detach")
    took = {"the API answers": (time.monotonic() - began, cpu(home))}
    listed = await home.client.list(VMS, "default")
    assert len(listed["items"]) == count
    took["all are listed"] = (time.monotonic() - began, cpu(home))

    def dealt_with(vm: Doc) -> bool:
        found = vm.get("status") or {}
        return found.get("desiredGeneration") == vm["metadata"]["generation"] > 1

    rest = wanted.keys() - set(going)
    await followed(home, "after the kill", rest, dealt_with, since=since)
    took["all are reconciled"] = (time.monotonic() - began, cpu(home))
    after = {vm["metadata"]["name"]: status(vm) for vm in (await home.client.list(VMS, "default"))["items"]}
    assert after == wanted, "states changed with the restart"
    await each(going, lambda name: home.client.patch(VMS, name, {"metadata": {"finalizers": None}}, "default"))
    await home.remove(sorted(rest))
    return took


def cpu(home: Home) -> float:
    """Seconds of CPU that the home's process has used."""
    fields = Path(f"/proc/{home.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def kill(home: Home) -> None:
    waiter = os.pidfd_open(home.pid)
    signal.pidfd_send_signal(waiter, signal.SIGKILL)
    loop, gone = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(waiter, gone.set)
    try:
        async with asyncio.timeout(10):
            await gone.wait()
    finally:
        loop.remove_reader(waiter)
        os.close(waiter)


async def edit_all(home: Home, names: list[str]) -> str:
    """Edits machines with nobody there to act on it, by an API over the same state. Gives the version before."""
    server = ApiServer(ServerConfig(state_db=home.directory / "state.db", pki=home.directory / "pki", listen=False))
    await server.start()
    try:
        client = server.client()
        before = str((await client.list(VMS, "default"))["metadata"]["resourceVersion"])
        note = {"spec": {"template": {"metadata": {"annotations": {"bench.hotvirt.io/edited": "yes"}}}}}
        await each(names, lambda name: client.patch(VMS, name, note, "default"))
        return before
    finally:
        await server.stop()


# At once


async def crowd(home: Home, count: int) -> list[tuple[str, float]]:
    """What each step took until the last guest was there."""
    names = [f"g{index}" for index in range(count)]
    await each(names, lambda name: home.client.create(VMS, small(name, "Manual", grace=120), "default"))
    await followed(home, "create", names, lambda vm: status(vm) == "Stopped")
    took: list[tuple[str, float]] = []

    async def step(what: str, act: Callable[[str], Awaitable[object]], *seen: Callable[[Doc], bool]) -> None:
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(act(name))  # type: ignore[arg-type]
        took.append((f"{what}: asked", time.monotonic() - began))
        for holds in seen:
            await followed(home, what, names, holds)
        took.append((what, time.monotonic() - began))
        print(f"  {count} at once, {what}: {took[-1][1]:.1f} s (asked after {took[-2][1]:.1f} s)", flush=True)

    await step("start", lambda name: verb(home, "vm", name, "start"), is_running, has_agent)
    await step("pause", lambda name: verb(home, "vmi", name, "pause"), lambda vm: status(vm) == "Paused")
    await step("go on", lambda name: verb(home, "vmi", name, "unpause"), is_running)
    first = {vmi["metadata"]["name"]: vmi["metadata"]["uid"] for vmi in (await home.client.list(VMIS))["items"]}
    await step("restart", lambda name: verb(home, "vm", name, "restart"), lambda vm: not has_agent(vm), has_agent)
    again = {vmi["metadata"]["name"]: vmi["metadata"]["uid"] for vmi in (await home.client.list(VMIS))["items"]}
    same = [name for name in names if first[name] == again.get(name)]
    assert first.keys() == again.keys()
    assert not same, f"not started anew: {same}"
    await step("stop", lambda name: verb(home, "vm", name, "stop"), lambda vm: status(vm) == "Stopped")
    await each(names, lambda name: home.client.delete(VMS, name, "default"))
    await until(lambda: is_empty(home), patience=120)
    return took


def is_running(vm: Doc) -> bool:
    return status(vm) == "Running" and condition(vm, "Ready")


def has_agent(vm: Doc) -> bool:
    return condition(vm, "AgentConnected")


def condition(vm: Doc, kind: str) -> bool:
    found = (vm.get("status") or {}).get("conditions") or ()
    return any(c["type"] == kind and c["status"] == "True" for c in found)


async def is_empty(home: Home) -> bool:
    return not any([(await home.client.list(kind))["items"] for kind in (VMS, VMIS, PODS, CONTROLLER_REVISIONS)])


# Again and again


async def cycles(
    home: Home, count: int, *, boots: int = 20, window: int = 5000
) -> tuple[dict[str, tuple[float, float]], str]:
    """`count` starts and stops of one machine; every so often (`boots`) its guest boots, and is shut down in order.
    What there was of each thing after the first few, and after the last; and the word on the home's memory."""
    await fill_window(home, writes=window)
    await home.client.create(VMS, small("again", "Manual"), "default")
    for index in range(WARM_UP):
        await cycle(home, "again", index, boots=index % boots == boots - 1)
    before = after = await quiet(home)
    memory = [(0, before["memory, MiB"])]
    took, every = 0.0, max(1, count // SAMPLES)
    for done in range(every, count + 1, every):
        began = time.monotonic()
        for index in range(WARM_UP + done - every, WARM_UP + done):
            await cycle(home, "again", index, boots=index % boots == boots - 1)
        took += time.monotonic() - began
        after = await quiet(home, like=before)
        memory.append((done, after["memory, MiB"]))
        print(f"  after {done}: {memory[-1][1]:.1f} MiB", flush=True)
    print(f"  {memory[-1][0]} starts and stops: {took / memory[-1][0]:.2f} s each", flush=True)
    await home.client.delete(VMS, "again", "default")
    await until(lambda: is_empty(home), patience=60)
    found = {what: (before.get(what, 0), after.get(what, 0)) for what in sorted(before.keys() | after.keys())}
    return found, verdict(memory)


def verdict(memory: Sequence[tuple[int, float]]) -> str:
    """On memory (MiB) after so many cycles. What fills up to a bound grows less in the second half; a leak does not.
    Counted is the least of each quarter: in between it is higher by what is about to be collected."""
    quarter = len(memory) / 4
    least = [min(memory[round(i * quarter) : round((i + 1) * quarter)], key=lambda each: each[1]) for i in range(4)]
    early, late = least[1][1] - least[0][1], least[3][1] - least[2][1]
    figures = f"{early:+.1f} MiB in the first half of {memory[-1][0]} cycles, {late:+.1f} MiB in the second"
    if late <= NOISE:
        return f"flat: {figures}"
    if late <= early / 2:
        return f"a cache that fills: {figures}"
    return f"A LEAK, or a cache that takes longer to fill (try more cycles): {figures}"


async def fill_window(home: Home, *, writes: int) -> None:
    """What the API keeps in memory of late changes, for watches to go on from, has a bound. It is reached here, so that
    what grows afterwards is something else."""
    names = [f"filler{index}" for index in range(16)]
    await each(names, lambda name: home.client.create(CONFIG_MAPS, {"metadata": {"name": name}}, "default"))

    async def fill(index: int) -> None:
        text = f"{index:4}" * 500
        await home.client.patch(CONFIG_MAPS, names[index % 16], {"data": {"text": text}}, "default")

    await each(range(writes), fill)
    await each(names, lambda name: home.client.delete(CONFIG_MAPS, name, "default"))


async def cycle(home: Home, name: str, index: int, *, boots: bool) -> None:
    await verb(home, "vm", name, "start")
    await followed(home, "start", [name], has_agent if boots else is_running)
    if boots:
        await verb(home, "vm", name, "stop", {"gracePeriod": 60})
    elif index % 3 == 0:
        await verb(home, "vm", name, "stop")
    elif index % 3 == 1:
        await verb(home, "vm", name, "stop", {"gracePeriod": 0})
    else:
        (pod,) = (await home.client.list(PODS, "default"))["items"]
        await home.client.delete(PODS, pod["metadata"]["name"], "default", grace_period_seconds=0)
    await followed(home, "stop", [name], lambda vm: status(vm) == "Stopped")
    if not boots and index % 3 == 2:
        # Its pod was taken away, so its instance has failed, and stays for who wants to know why.
        await home.client.delete(VMIS, name, "default")
        await until(lambda: is_gone(home, name), patience=30)


async def is_gone(home: Home, name: str) -> bool:
    try:
        await home.client.get(VMIS, name, "default")
    except NotFound:
        return True
    return False


async def quiet(home: Home, like: dict[str, float] | None = None) -> dict[str, float]:
    """What there is once nothing moves any more: the same twice, a second apart. Without events, which else are there
    for an hour. What is there beside `like`'s has CLOSING seconds to go."""
    began = time.monotonic()
    for event in (await home.client.list(EVENTS, "default"))["items"]:
        await home.client.delete(EVENTS, event["metadata"]["name"], "default")
    last = await census(home)
    async with asyncio.timeout(CLOSING + 30):
        while True:
            await asyncio.sleep(1)
            now = await census(home)
            counted = {**now, "memory, MiB": 0.0}
            more = like is not None and any(count > like.get(what, 0) for what, count in counted.items())
            if counted == {**last, "memory, MiB": 0.0} and not (more and time.monotonic() < began + CLOSING):
                return now
            last = now


async def census(home: Home) -> dict[str, float]:
    """What this home has, by kind; but for its log, and the connections of its clients. Trees are walked as os.walk
    does, which bears that a directory goes meanwhile."""
    pid, directory = home.pid, str(home.directory)
    proc, names = Path(f"/proc/{pid}"), bridge.names(home.directory / "run", is_default=False)
    found: dict[str, float] = {
        "memory, MiB": round(own_memory(home) / MIB, 2),
        "descriptors": len(descriptors(proc)),
        "threads": len(list((proc / "task").iterdir())),
        "children": len((proc / "task" / str(pid) / "children").read_text().split()),
        "guest processes": len([p for p in Path("/proc").iterdir() if p.name.isdigit() and holds(p, directory, pid)]),
        "unix sockets": Path("/proc/net/unix").read_text().count(directory),
        "taps": len([link for link in Path("/sys/class/net").iterdir() if (link / "tun_flags").exists()]),
        "cgroups": sum(len(below) for path, below, _ in os.walk("/sys/fs/cgroup") if Path(path).name == names.table),
        "files": sum(
            "home.log" not in name for _, below, files in os.walk(home.directory) for name in (*below, *files)
        ),
    }
    for kind in (VMS, VMIS, PODS, CONTROLLER_REVISIONS):
        found[kind.plural] = len((await home.client.list(kind))["items"])
    return found


def own_memory(home: Home) -> int:
    """Bytes that are the home's alone. Its part of what it shares (libraries) goes up by ten MiB when another Python on
    the machine ends."""
    for line in Path(f"/proc/{home.pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss_Anon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no Pss_Anon in smaps_rollup")


def descriptors(proc: Path) -> list[str]:
    clients = {line.split()[9] for line in (proc / "net/tcp").read_text().splitlines()[1:]}
    links = []
    for fd in (proc / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            links.append(os.readlink(fd))
    return [link for link in links if link.removeprefix("socket:[").removesuffix("]") not in clients]


def holds(process: Path, directory: str, home: int) -> bool:
    if int(process.name) in (home, os.getpid()):
        return False
    try:
        return any(os.readlink(fd).startswith(f"{directory}/run/pods") for fd in (process / "fd").iterdir())
    except OSError:
        return False


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("restart", "crowd", "cycles"))
    parser.add_argument("--count", type=int, help="machines, guests or cycles, in place of 1000, 50 and 200")
    parser.add_argument(
        "--patience", type=int, default=Home.patience, help="seconds after which a step counts as stuck"
    )
    chosen = parser.parse_args()
    Home.patience = chosen.patience
    if chosen.only in (None, "restart"):
        async with Home() as home:
            for what, (seconds, used) in (await restart(home, chosen.count or 1000)).items():
                print(f"  after a kill, {what}: {seconds:.2f} s ({used:.2f} s of CPU)", flush=True)
    if chosen.only in (None, "crowd"):
        async with Home() as home:
            await crowd(home, chosen.count or 50)
    if chosen.only in (None, "cycles"):
        count = chosen.count or 200
        async with Home() as home:
            found, word = await cycles(home, count)
            print(f"{'':20} {'before':>10} {'after':>10} {'more':>8}")
            for what, (before, after) in found.items():
                print(f"{what:20} {before:10g} {after:10g} {after - before:+8g}", flush=True)
            print(f"memory is {word}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
