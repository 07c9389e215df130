"""What a guest may take of its host: its pod's limits, its place when memory runs out, and a disk that fills up."""

import contextlib
import os
import subprocess
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.guest,
    pytest.mark.timeout(400),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root holds guests to limits"),
]
MIB = 1 << 20
ROOM, DISK = "24m", "96Mi"
HUNGRY = {"resources": {"limits": {"memory": "512Mi", "cpu": "1"}}}


def cgroup(pid, controller):
    """The directory of a process's group, of either version."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            return Path("/sys/fs/cgroup") / controller / path.lstrip("/")
        if not names and (found := Path("/sys/fs/cgroup") / path.lstrip("/")).joinpath("pids.max").exists():
            return found
    return pytest.skip(f"no cgroups for {controller} here")


def held_to(pid):
    """Bytes of memory, CPUs, processes."""
    memory, cpu = cgroup(pid, "memory"), cgroup(pid, "cpu")
    if (memory / "memory.max").exists():
        quota, period = (cpu / "cpu.max").read_text().split()
        limit = int((memory / "memory.max").read_text())
    else:
        quota, period = (cpu / "cpu.cfs_quota_us").read_text(), (cpu / "cpu.cfs_period_us").read_text()
        limit = int((memory / "memory.limit_in_bytes").read_text())
    return limit, int(quota) / int(period), int((cgroup(pid, "pids") / "pids.max").read_text())


def process_of(home, name):
    uid = next(iter(home.vmi(name)["status"]["activePods"]))
    return next(pid for pid in home.guest_processes() if uid in Path(f"/proc/{pid}/cgroup").read_text())


def pod_of(home, name):
    return home.kubectl_json("get", "pods", "-l", f"vm.kubevirt.io/name={name}")["items"][0]


def adjusted(pid):
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


@contextlib.contextmanager
def small_disk(home):
    """A claim that is larger than the filesystem that it lies on."""
    place = home.directory / "volumes"
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8g", "small", place], check=True)
    try:
        home.apply_claim("small", DISK)
        yield place
        home.hotvirt("stop", "full", "--force", "--grace-period=0")
        home.wait("vm/full", "jsonpath={.status.printableStatus}=Stopped")
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_a_guest_takes_no_more_than_its_pod_says_and_harms_nobody(home):
    with small_disk(home) as place:
        home.apply_vm("hungry", memory="256Mi", max_memory="512Mi", extra={"domain": HUNGRY})
        home.apply_vm("full", memory="256Mi", max_memory="512Mi", claim="small")
        for name in ("hungry", "full"):
            home.wait_agent(name)
        check_limits(home)
        check_full_disk(home, place)
        check_out_of_memory(home)


def check_limits(home):
    hungry, full = process_of(home, "hungry"), process_of(home, "full")
    limits = pod_of(home, "hungry")["spec"]["containers"][0]["resources"]["limits"]
    memory, cpus, processes = held_to(hungry)
    # The container that keeps the log has the least there is beside.
    assert 0 <= memory - int(limits["memory"].removesuffix("Mi")) * MIB <= 4 * MIB, limits
    assert (limits["cpu"], cpus) == ("1", pytest.approx(1.0, abs=0.01))
    assert processes == 2048
    requested = int(pod_of(home, "full")["spec"]["containers"][0]["resources"]["requests"]["memory"].removesuffix("Mi"))
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert adjusted(full) == 1000 - 1000 * requested * MIB // pages
    assert adjusted(home.pid) <= 0 < adjusted(hungry), "the home is not to go before a guest"


def check_full_disk(home, place):
    # Others take the room, as no claim is made that does not fit.
    subprocess.run(["mount", "-o", f"remount,size={ROOM}", place], check=True)
    with home.console("full") as console:
        console.type("\n{ cat /dev/urandom >/dev/vdb; sync; echo written-$((40 + 2)); } & echo begun-$((40 + 2))\n")
        console.read_until("begun-42")
        home.wait("vmi/full", "condition=Paused")
        paused = home.conditions("vmi/full")["Paused"]
        assert paused["reason"] == "PausedIOError"
        assert "there is no room left for what the guest writes to volume claimed" in paused["message"]
        assert home.facts("hungry")["onlineCPUs"] == 1
        refused = home.hotvirt("unpause", "vmi", "full", check=False)  # it stops again at once
        assert refused.returncode == 0, refused.stderr
        home.wait("vmi/full", "condition=Paused")
        subprocess.run(["mount", "-o", "remount,size=128m", place], check=True)
        home.wait_message("vmi/full", "there is room for its disks again: the guest goes on")
        console.read_until("No space left on device")  # its own disk's end
        console.read_until("written-42")
    (image,) = place.glob("*/disk.img")
    assert image.stat().st_blocks * 512 == 96 * MIB, "what was written while there was no room is lost"


def check_out_of_memory(home):
    """A limit that the pod outgrows, as one that a person sets too low."""
    old, uid = process_of(home, "hungry"), home.vmi("hungry")["metadata"]["uid"]
    group = cgroup(old, "memory")
    version = "memory.max" if (group / "memory.max").exists() else "memory.limit_in_bytes"
    used = group / ("memory.current" if version == "memory.max" else "memory.usage_in_bytes")
    (group / version).write_text(str(int(used.read_text()) + 16 * MIB))
    with home.console("hungry") as console:
        console.type("\nmount -t tmpfs -o size=240m none /mnt; cat /dev/zero >/mnt/x\n")
        home.wait_new_instance("hungry", uid)
    said = home.messages("vmi/hungry")
    assert "needed more memory than its pod's limit: raise domain.resources.limits.memory" in said
    home.wait_agent("hungry")
    assert home.facts("full")["onlineCPUs"] == 1
