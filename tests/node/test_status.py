"""What a VMI's status says of its guest: patches as they go to the API, from the first look to the end."""

from datetime import UTC, datetime

import pytest
from msgspec import structs

from hotvirt.node import devicestatus, status
from hotvirt.node.guest import AgentView, Job
from hotvirt.node.guestkernel import POLICY, RELEASE, of_linux
from hotvirt.node.hostfacts import HostFacts
from hotvirt.node.seen import Seen
from hotvirt.qemu.errors import HotplugError
from hotvirt.qemu.guestagent import AgentInfo
from hotvirt.qemu.probe import Acceleration
from hotvirt.qemu.state import Dimm, DiskState, MemoryState, Observed, VcpuSlot, VirtioMem
from hotvirt.server.patches.merge import merge_patch

MIB, GIB = 1 << 20, 1 << 30
NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
LATER = datetime(2026, 11, 28, 12, 5, tzinfo=UTC)
T, T2 = "2026-11-28T12:00:00Z", "2026-11-28T12:05:00Z"
KVM = Acceleration("kvm", "KVM runs instructions")
TCG = Acceleration("tcg", "/dev/kvm hangs", "use a machine with hardware virtualization")
VIEW = AgentView(
    info=AgentInfo("7.2", status.BASIC_COMMANDS),
    os={"id": "debian", "pretty-name": "Debian 12", "kernel-release": "6.1.0", "variant": "x"},
    hostname="web",
    interfaces=({"name": "eth0", "hardware-address": "02:00:00:00:00:01"},),
)
LIVE_MIGRATABLE = [
    {
        "type": kind, "status": "False", "lastProbeTime": None, "lastTransitionTime": T,
        "reason": "NotMigratable", "message": "this home has one node; guests are resized in place",
    } for kind in ("LiveMigratable", "StorageLiveMigratable")
]  # fmt: skip


def facts(acceleration=KVM):
    return HostFacts(node_name="n", cpus=4, memory=8 * GIB, is_root=True, acceleration=acceleration)


def vmi(*, memory="1Gi", sockets=1, most=4, volumes=(), devices=None, **state):
    return {
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "domain": {
                "cpu": {"sockets": sockets, "cores": 1, "threads": 1, "maxSockets": most},
                "memory": {"guest": memory, "maxGuest": "4Gi"},
                "machine": {"type": "q35"},
                "devices": {"interfaces": [{"name": "default", "macAddress": "02:00:00:00:00:01"}], **(devices or {})},
            },
            "volumes": list(volumes),
        },
        "status": {"phase": "Running", **state},
    }


def mem(boot=GIB, *, plugged=0, requested=None, ballooned=0):
    wanted = plugged if requested is None else requested
    device = VirtioMem(size=plugged, requested=wanted, capacity=3 * GIB, step=2 * MIB, address=0)
    return MemoryState(boot=boot, device=device, ballooned=ballooned)


def slots(plugged, most=4):
    return tuple(VcpuSlot(n, 0, 0, "cpu", f"/cpu{n}" if n < plugged else "") for n in range(most))


def seen(*, memory=None, plugged=1, vcpus=1, view=VIEW, settled=None, jobs=None, errors=None, disks=(), how="running"):
    observed = Observed(
        status=how, running=how == "running", version=(7, 2, 0), memory=memory or mem(), vcpus=slots(plugged),
        disks=tuple(disks),
    )  # fmt: skip
    return Seen(observed=observed, view=view, vcpus=vcpus, settled=settled, jobs=jobs or {}, volume_errors=errors or {})


def patch(document, look, *, now=NOW, host=None):
    """The fields of the patch; {} for none."""
    return (status.running(document, look, host or facts(), now=now) or {"status": {}})["status"]


def after(document, look, *, now=NOW, host=None):
    """The document with the patch in it, as the API server merges it."""
    return merge_patch(document, status.running(document, look, host or facts(), now=now) or {})


def condition(document, kind):
    return next((c for c in document["status"].get("conditions", ()) if c["type"] == kind), None)


class Task:
    """What `Job.is_running` asks of a task, without a loop."""

    def __init__(self, *, done):
        self._done = done

    def done(self):
        return self._done


def going(target=None):
    return Job(target, task=Task(done=False))


def failed(reason="GuestRefused", message="the guest keeps 512Mi"):
    return Job(None, task=Task(done=True), error=HotplugError(reason, message))


def test_how_far_qemu_can_go_is_told():
    dimms = (Dimm("dimm0", GIB, 4 * GIB),)
    memory = MemoryState(boot=GIB, device=mem().device, dimms=dimms, slots=16, dimm_room=3 * GIB)
    now = after(vmi(), seen(memory=memory))
    assert now["metadata"]["annotations"] == {
        "hotvirt.io/memory-room": "4Gi", "hotvirt.io/memory-slots": "1/16", "hotvirt.io/sockets-room": "4",
    }  # fmt: skip
    assert status.running(now, seen(memory=memory), facts(), now=NOW) is None
    without = after(vmi(), seen(memory=MemoryState(boot=GIB)))
    assert without["metadata"]["annotations"] == {"hotvirt.io/sockets-room": "4"}


# From the launch to a guest at rest


def test_boot():
    """A guest's first look, before its agent answers: the whole patch."""
    started = vmi(
        phase="Scheduled",
        phaseTransitionTimestamps=[{"phase": "Pending", "phaseTransitionTimestamp": T}],
        interfaces=[{"name": "default", "ipAddress": "10.213.0.2"}],
        conditions=[{"type": "Ready", "status": "False", "lastTransitionTime": T}],
    )
    assert patch(started, seen(view=None, vcpus=None)) == {
        "phase": "Running",
        "phaseTransitionTimestamps": [
            {"phase": "Pending", "phaseTransitionTimestamp": T},
            {"phase": "Running", "phaseTransitionTimestamp": T},
        ],
        "memory": {"guestAtBoot": "1Gi", "guestRequested": "1Gi", "guestCurrent": "1Gi"},
        "currentCPUTopology": {"cores": 1, "sockets": 1, "threads": 1},
        "interfaces": [
            {
                "name": "default", "mac": "02:00:00:00:00:01", "queueCount": 1, "linkState": "up",
                "infoSource": "domain", "ipAddress": "10.213.0.2", "ipAddresses": ["10.213.0.2"],
            }
        ],
        "volumeStatus": [],
        "machine": {"type": "q35"},
        "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": T}, *LIVE_MIGRATABLE],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("how", "pod_ready", "ready"),
    [("running", True, "True"), ("running", False, "False"), ("prelaunch", True, "False")],
)
def test_an_instance_is_ready_with_the_write_that_says_it_runs(how, pod_ready, ready):
    started = vmi(phase="Scheduled", conditions=[{"type": "Ready", "status": "False", "lastTransitionTime": T}])
    told = status.running(started, seen(view=None, vcpus=None, how=how), facts(), now=NOW, pod_ready=pod_ready)
    assert condition(told, "Ready")["status"] == ready
    later = status.running(merge_patch(started, told), seen(how=how), facts(), now=NOW, pod_ready=not pod_ready)
    assert condition(later, "Ready")["status"] == ready, "from then on it is the instance controller's to say"


@pytest.mark.parametrize(
    ("noted", "cut_off", "log", "phase", "reason", "message"),
    [
        ("", False, "", "Failed", "QemuEnded", "QEMU ended: no answer"),
        ("", False, "one\ncannot open disk\n", "Failed", "QemuEnded", "QEMU ended: cannot open disk"),
        ("Succeeded", False, "bye", "Succeeded", "GuestNotRunning", "the guest was stopped"),
        ("Failed", False, "bye", "Failed", "QemuEnded", "QEMU ended: bye"),
        ("Succeeded", True, "", "Succeeded", "GuestNotRunning", "its power was cut"),
        ("Failed", True, "", "Failed", "GuestNotRunning", "its power was cut"),
    ],
)
def test_how_a_guest_ended_whose_qemu_is_gone(noted, cut_off, log, phase, reason, message):
    end = status.end_of_qemu(noted, cut_off=cut_off, log=log, why="no answer")
    assert (end.phase, end.reason) == (phase, reason)
    assert message in end.message


def test_the_agent_answers():
    booted = after(vmi(interfaces=[{"name": "default", "ipAddress": "10.213.0.2"}]), seen(view=None, vcpus=None))
    found = patch(booted, seen(), now=LATER)
    assert found["guestOSInfo"] == {"id": "debian", "prettyName": "Debian 12", "kernelRelease": "6.1.0"}
    assert found["interfaces"][0]["infoSource"] == "domain, guest-agent"
    assert found["interfaces"][0]["interfaceName"] == "eth0"
    assert found["interfaces"][0]["ipAddress"] == "10.213.0.2"
    connected = next(c for c in found["conditions"] if c["type"] == "AgentConnected")
    assert (connected["status"], connected["lastTransitionTime"]) == ("True", T2)
    assert set(found) == {"guestOSInfo", "interfaces", "conditions"}, "what did not change is not written again"


def test_at_rest_nothing_is_written():
    at_rest = after(vmi(), seen())
    assert status.running(at_rest, seen(), facts(), now=LATER) is None


def test_adopted_by_another_home():
    """What was settled is not known yet, and a guest that was resized to more stays so."""
    known = after(vmi(memory="2Gi", sockets=2), seen(memory=mem(plugged=GIB), plugged=2, vcpus=2, settled=2 * GIB))
    look = seen(memory=mem(plugged=GIB), plugged=2, vcpus=None, view=None, settled=2 * GIB)
    found = after(known, look, now=LATER)
    assert found["status"]["memory"] == {"guestAtBoot": "1Gi", "guestRequested": "2Gi", "guestCurrent": "2Gi"}
    assert found["status"]["currentCPUTopology"]["sockets"] == 2
    assert condition(found, "AgentConnected") is None
    assert condition(found, "HotMemoryChange") is None
    assert condition(found, "HotVCPUChange") is None


def test_what_was_published_of_an_agent_that_was_not_heard_yet_stays():
    """As after a restart of the home: the guest and its agent never noticed."""
    known = after(vmi(), seen())
    known["status"]["fsFreezeStatus"] = "frozen"
    look = structs.replace(seen(view=None), unheard=True)
    assert patch(known, look, now=LATER) == {}
    gone = after(known, seen(view=None), now=LATER)
    assert condition(gone, "AgentConnected") is None
    assert {"guestOSInfo", "fsFreezeStatus"}.isdisjoint(gone["status"])


def test_the_agent_goes_and_what_it_said_goes_with_it():
    found = after(after(vmi(), seen()), seen(view=None), now=LATER)
    assert condition(found, "AgentConnected") is None
    assert "guestOSInfo" not in found["status"]
    assert found["status"]["interfaces"][0]["infoSource"] == "domain"
    assert patch(found, seen(view=None)) == {}


def test_what_another_system_does_not_say_of_itself_is_forgotten():
    other = AgentView(info=VIEW.info, os={"id": "tiny"})
    found = after(after(vmi(), seen()), seen(view=other), now=LATER)
    assert found["status"]["guestOSInfo"] == {"id": "tiny"}


# Memory


def test_memory_on_its_way_up():
    growing = vmi(memory="2Gi")
    look = seen(memory=mem(plugged=256 * MIB, requested=GIB), settled=GIB, jobs={"memory": going()})
    found = after(growing, look)
    assert found["status"]["memory"] == {"guestAtBoot": "1Gi", "guestRequested": "2Gi", "guestCurrent": "1Gi"}
    assert condition(found, "HotMemoryChange") == {
        "type": "HotMemoryChange", "status": "True", "lastProbeTime": None, "lastTransitionTime": T,
        "reason": "InProgress", "message": "2Gi asked, the guest has 1Gi",
    }  # fmt: skip


def test_memory_is_not_said_to_be_there_before_the_guest_was_seen_to_use_it():
    look = seen(memory=mem(plugged=GIB, requested=GIB), settled=GIB, jobs={"memory": going()})
    assert patch(vmi(memory="2Gi"), look)["memory"]["guestCurrent"] == "1Gi"


def test_memory_on_its_way_down_is_what_qemu_says():
    look = seen(memory=mem(plugged=768 * MIB, requested=0), settled=2 * GIB, jobs={"memory": going()})
    found = after(vmi(memory="1Gi"), look)
    assert found["status"]["memory"] == {"guestAtBoot": "1Gi", "guestRequested": "1Gi", "guestCurrent": "1792Mi"}
    assert condition(found, "HotMemoryChange")["message"] == "1Gi asked, the guest has 1792Mi"


def test_memory_reached():
    look = seen(memory=mem(plugged=256 * MIB, requested=GIB), settled=GIB, jobs={"memory": going()})
    growing = after(vmi(memory="2Gi"), look)
    found = after(growing, seen(memory=mem(plugged=GIB), settled=2 * GIB), now=LATER)
    assert condition(found, "HotMemoryChange") is None
    assert found["status"]["memory"]["guestCurrent"] == "2Gi"


def test_a_grain_more_than_asked_is_what_was_asked():
    """Linux hands memory out in pieces: 2 MiB it cannot let go of are nothing a person wants to hear of."""
    look = seen(memory=mem(plugged=4 * MIB, requested=2 * MIB), settled=GIB + 4 * MIB)
    found = after(vmi(memory="1026Mi"), look)
    assert found["status"]["memory"]["guestCurrent"] == "1026Mi"
    assert condition(found, "HotMemoryChange") is None


def test_memory_refused_says_who_would_not_and_stays_as_it_is():
    look = seen(memory=mem(plugged=512 * MIB, requested=0), settled=1536 * MIB, jobs={"memory": failed()})
    found = after(vmi(memory="1Gi"), look)
    assert condition(found, "HotMemoryChange") == {
        "type": "HotMemoryChange", "status": "False", "lastProbeTime": None, "lastTransitionTime": T,
        "reason": "GuestRefused", "message": "1Gi asked, the guest has 1536Mi: the guest keeps 512Mi",
    }  # fmt: skip
    assert found["status"]["memory"]["guestCurrent"] == "1536Mi"


def test_a_failed_change_given_up_leaves_no_trace():
    look = seen(memory=mem(plugged=512 * MIB, requested=0), settled=1536 * MIB, jobs={"memory": failed()})
    refused = after(vmi(memory="1Gi"), look)
    refused["spec"]["domain"]["memory"]["guest"] = "1536Mi"
    found = after(refused, seen(memory=mem(plugged=512 * MIB), settled=1536 * MIB), now=LATER)
    assert condition(found, "HotMemoryChange") is None


def test_the_balloon_counts_below_boot_size():
    found = patch(vmi(memory="512Mi"), seen(memory=mem(ballooned=512 * MIB), settled=512 * MIB))
    assert found["memory"] == {"guestAtBoot": "1Gi", "guestRequested": "512Mi", "guestCurrent": "512Mi"}


# vCPUs


def test_sockets_on_their_way():
    found = after(vmi(sockets=3), seen(plugged=2, vcpus=1, jobs={"cpu": going()}))
    assert found["status"]["currentCPUTopology"] == {"cores": 1, "sockets": 1, "threads": 1}
    assert condition(found, "HotVCPUChange")["status"] == "True"
    assert condition(found, "HotVCPUChange")["message"] == "3 sockets asked, 1 in use"


def test_sockets_wait_for_the_agent_and_say_so():
    found = after(vmi(sockets=1), seen(plugged=3, vcpus=3, view=None))
    assert condition(found, "HotVCPUChange")["message"] == "1 sockets asked, 3 in use; waiting for the guest agent"


def test_a_parked_vcpu_is_not_in_use():
    """Under emulation a vCPU taken back stays plugged and offline."""
    found = after(vmi(sockets=1), seen(plugged=2, vcpus=1))
    assert found["status"]["currentCPUTopology"]["sockets"] == 1
    assert condition(found, "HotVCPUChange") is None


def test_the_vcpu_that_emulation_boots_with_is_nobodys_business():
    found = after(vmi(sockets=1), seen(plugged=2, vcpus=None, view=None))
    assert found["status"]["currentCPUTopology"]["sockets"] == 1
    assert condition(found, "HotVCPUChange") is None


def test_sockets_refused():
    look = seen(plugged=2, vcpus=2, jobs={"cpu": failed("GuestRefused", "the guest would not offline CPU 1")})
    found = condition(after(vmi(sockets=1), look), "HotVCPUChange")
    assert (found["status"], found["reason"]) == ("False", "GuestRefused")
    assert found["message"] == "1 sockets asked, 2 in use: the guest would not offline CPU 1"


def test_sockets_of_several_vcpus():
    document = vmi(sockets=2)
    document["spec"]["domain"]["cpu"] |= {"cores": 2, "maxSockets": 2}
    found = after(document, seen(plugged=4, vcpus=3))
    assert found["status"]["currentCPUTopology"] == {"cores": 2, "sockets": 1, "threads": 1}


# Volumes

CLAIM = {"name": "data", "persistentVolumeClaim": {"claimName": "data", "hotpluggable": True}}
ROOT = {"name": "root", "containerDisk": {"image": "hotvirt/debian:12"}}
THERE = DiskState(name="data", device=True, driver="scsi-hd", size=GIB, nodes=("disk-data",))


VOLUMES = {
    "not yet begun": ({}, {}, (), {"phase": "AttachedToNode", "reason": "SuccessfulCreate"}),
    "being attached": ({"volume data": going()}, {}, (), {"phase": "AttachedToNode"}),
    "there, and the job not over": ({"volume data": going()}, {}, (THERE,), {"phase": "AttachedToNode"}),
    "ready": ({}, {}, (THERE,), {"phase": "Ready", "reason": "VolumeReady", "target": "scsi-hd", "size": GIB}),
    "waiting for its claim": (
        {}, {"data": ("FailedPvcNotFound", "no claim")}, (),
        {"phase": "Pending", "reason": "FailedPvcNotFound", "message": "no claim"}),
    "refused": (
        {"volume data": failed("NoFreePort", "no port is free")}, {}, (),
        {"phase": "Failed", "reason": "NoFreePort", "message": "no port is free"}),
    "its drive is there, and empty": (
        {}, {"data": ("RestartRequired", "restart")}, (DiskState(name="data", device=True, driver="scsi-cd"),),
        {"phase": "Pending", "reason": "RestartRequired", "message": "restart"}),
    "its image open, but no device": ({}, {}, (DiskState(name="data", device=False),), {"phase": "AttachedToNode"}),
}  # fmt: skip


@pytest.mark.parametrize(("jobs", "errors", "disks", "expected"), VOLUMES.values(), ids=VOLUMES)
def test_a_hotplugged_volume(jobs, errors, disks, expected):
    found = devicestatus.volume_status(vmi(volumes=[CLAIM]), seen(jobs=jobs, errors=errors, disks=disks))
    assert [each["name"] for each in found] == ["data"]
    assert found[0]["hotplugVolume"] == {}
    assert found[0] | expected == found[0]


def test_a_volume_of_the_start_has_no_phase():
    disk = DiskState(name="root", device=True, driver="ide-hd", size=5, nodes=("disk-root",))
    assert devicestatus.volume_status(vmi(volumes=[ROOT]), seen(disks=[disk])) == [
        {"name": "root", "target": "ide-hd", "size": 5}
    ]


def test_a_volume_on_its_way_out_is_still_told_of():
    found = devicestatus.volume_status(vmi(), seen(disks=[THERE], jobs={"volume data": going()}))
    assert found == [
        {
            "name": "data", "target": "", "hotplugVolume": {}, "phase": "Detaching",
            "reason": "Detaching", "message": "waiting for the guest to let go",
        }
    ]  # fmt: skip
    stuck = devicestatus.volume_status(
        vmi(), seen(disks=[THERE], jobs={"volume data": failed("Busy", "it is mounted")})
    )
    assert stuck[0]["message"] == "it is mounted"
    assert devicestatus.volume_status(vmi(), seen(disks=[THERE])) == [], "a disk nobody asked for, and nobody removes"


def test_what_keeps_a_volume_away_is_a_condition():
    waiting = seen(errors={"data": ("FailedPvcNotFound", "volume 'data': there is no claim"), "b": ("x", "also b")})
    found = after(vmi(volumes=[CLAIM]), waiting)
    assert condition(found, "HotVolumeChange")["message"] == "volume 'data': there is no claim; also b"
    assert condition(after(found, seen(disks=[THERE])), "HotVolumeChange") is None
    refused = after(vmi(volumes=[CLAIM]), seen(jobs={"volume data": failed("NoFreePort", "no port is free")}))
    told = condition(refused, "HotVolumeChange")
    assert (told["status"], told["reason"], told["message"]) == ("False", "NoFreePort", "no port is free")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (("attach", "/f"), "volume data is being attached"), (("grow", 5), "volume data is growing"),
        (("detach",), "volume data is to leave, when the guest lets go"), (("eject",), "volume data is being ejected"),
    ],
)  # fmt: skip
def test_a_volume_on_its_way_is_a_condition_until_it_is_there(target, words):
    job = going()
    job.target = target
    found = after(vmi(volumes=[CLAIM]), seen(jobs={"volume data": job}))
    told = condition(found, "HotVolumeChange")
    assert (told["status"], told["reason"], told["message"]) == ("True", "InProgress", words)
    assert condition(after(found, seen(disks=[THERE])), "HotVolumeChange") is None


def test_the_claim_behind_a_volume_is_told_of():
    claim = {
        "metadata": {"name": "c"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}},
        "status": {"capacity": {"storage": "1Gi"}},
    }
    look = structs.replace(seen(disks=[THERE]), claims={"data": claim})
    (entry,) = devicestatus.volume_status(vmi(volumes=[CLAIM]), look)
    assert entry["persistentVolumeClaimInfo"] == {
        "claimName": "c", "accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem",
        "capacity": {"storage": "1Gi"}, "requests": {"storage": "2Gi"},
    }  # fmt: skip


# Other conditions


def test_paused_and_going_on():
    paused = after(vmi(), seen(how="paused"))
    assert condition(paused, "Paused")["status"] == "True"
    assert condition(paused, "Paused")["reason"] == "PausedByUser"
    assert condition(after(paused, seen()), "Paused") is None


def test_emulation_is_said_with_its_reason_and_mend():
    found = condition(after(vmi(), seen(), host=facts(TCG)), "SoftwareEmulation")
    assert found["message"] == "/dev/kvm hangs; use a machine with hardware virtualization"
    assert condition(after(vmi(), seen()), "SoftwareEmulation") is None


def test_a_start_that_failed_first_is_forgotten_once_the_guest_runs():
    troubled = vmi()
    troubled["status"] |= status.out_of_sync(troubled, "FailedVolume", "volume 'a': no such image", now=NOW)["status"]
    assert condition(troubled, "Synchronized")["message"] == "volume 'a': no such image"
    assert condition(after(troubled, seen()), "Synchronized") is None


def test_trouble_of_another_kind_stays():
    other = vmi(conditions=[{"type": "Synchronized", "status": "False", "reason": "SomebodyElses"}])
    assert condition(after(other, seen()), "Synchronized") is not None


def test_the_same_trouble_is_written_once():
    troubled = vmi()
    troubled["status"] |= status.out_of_sync(troubled, "FailedVolume", "no", now=NOW)["status"]
    assert status.out_of_sync(troubled, "FailedVolume", "no", now=LATER) is None
    changed = status.out_of_sync(troubled, "FailedVolume", "still no", now=LATER)["status"]["conditions"][0]
    assert (changed["message"], changed["lastTransitionTime"]) == ("still no", T)


def test_conditions_of_others_stay_where_they_were():
    other = {"type": "Ready", "status": "True", "lastTransitionTime": T}
    found = after(vmi(conditions=[other]), seen())
    assert found["status"]["conditions"][0] == other


# The end


@pytest.mark.parametrize(("phase", "synchronized"), [("Succeeded", None), ("Failed", "the guest's kernel panicked")])
def test_the_end(phase, synchronized):
    ran = after(
        vmi(memory="2Gi", volumes=[CLAIM]),
        seen(how="paused", jobs={"memory": going()}, errors={"data": ("Pending", "not bound")}),
    )
    message = synchronized or "the guest powered off"
    ended = status.final(ran, status.End(phase, "GuestPanicked", message), now=LATER)["status"]
    assert ended["phase"] == phase
    assert ended["phaseTransitionTimestamps"][-1] == {"phase": phase, "phaseTransitionTimestamp": T2}
    kinds = {c["type"]: c for c in ended["conditions"]}
    assert kinds.keys() & {"AgentConnected", "HotMemoryChange", "HotVCPUChange", "HotVolumeChange", "Paused"} == set()
    assert (kinds["Ready"]["status"], kinds["Ready"]["message"]) == ("False", message)
    assert kinds.get("Synchronized", {}).get("message") == synchronized


TWO_NETWORKS = [{"name": "default", "pod": {}}, {"name": "lan", "multus": {"networkName": "lan"}}]


def with_lan(**settings):
    cards = [
        {"name": "default", "macAddress": "02:00:00:00:00:01", **settings},
        {"name": "lan", "macAddress": "02:00:00:00:00:02", "bridge": {}},
    ]
    document = vmi(devices={"interfaces": cards})
    document["spec"]["networks"] = TWO_NETWORKS
    return document


def test_a_card_of_a_second_network_is_listed_while_the_guest_has_it():
    assert [each["name"] for each in devicestatus.interfaces(with_lan(), seen())] == ["default"]
    told = {"name": "eth1", "hardware-address": "02:00:00:00:00:02", "ip-addresses": [{"ip-address": "10.9.0.5"}]}
    look = seen(view=structs.replace(VIEW, interfaces=(*VIEW.interfaces, told)))
    look = structs.replace(look, observed=structs.replace(look.observed, nics=("default", "lan")))
    assert devicestatus.interfaces(with_lan(), look)[1] == {
        "name": "lan", "mac": "02:00:00:00:00:02", "queueCount": 1, "linkState": "up", "interfaceName": "eth1",
        "infoSource": "domain, guest-agent", "ipAddress": "10.9.0.5", "ipAddresses": ["10.9.0.5"],
    }  # fmt: skip


def test_a_cable_is_down_when_it_was_pulled():
    look = structs.replace(seen(), links={"default": True})
    assert devicestatus.interfaces(with_lan(state="down"), look)[0]["linkState"] == "up", "it is still to be pulled"
    look = structs.replace(seen(), links={"default": False})
    assert devicestatus.interfaces(with_lan(state="down"), look)[0]["linkState"] == "down"


def test_what_keeps_a_card_away_is_a_condition():
    look = structs.replace(seen(), card_errors={"lan": ("NetworkNotFound", "interface 'lan': there is none")})
    told = condition(after(with_lan(), look), "HotInterfaceChange")
    assert (told["status"], told["reason"], told["message"]) == ("False", "Waiting", "interface 'lan': there is none")
    job = going()
    job.target = ("detach",)
    moving = after(with_lan(), seen(jobs={"card lan": job}))
    message = condition(moving, "HotInterfaceChange")["message"]
    assert message == "interface lan is to leave, when the guest lets go"
    assert condition(moving, "HotVolumeChange") is None
    assert condition(after(moving, seen()), "HotInterfaceChange") is None


def test_a_change_on_its_way_names_its_deadline():
    job = going()
    job.until = LATER
    found = after(vmi(memory="2Gi"), seen(jobs={"memory": job}))
    message = condition(found, "HotMemoryChange")["message"]
    assert message == f"2Gi asked, the guest has 1Gi; tried until {T2}"


@pytest.mark.parametrize("mac", ["02:00:00:00:00:01", "02:00:00:00:00:01".upper()])
def test_an_interface_is_found_whatever_the_letters_case(mac):
    document = vmi(devices={"interfaces": [{"name": "default", "macAddress": mac}]})
    assert devicestatus.interfaces(document, seen())[0]["interfaceName"] == "eth0"


def test_what_the_guests_kernel_can_take_up_is_told_and_stays_until_it_is_asked_again():
    kernel = of_linux({RELEASE: b"6.1.0\n", POLICY: b"online"}, on_disk=False)
    told = after(vmi(), structs.replace(seen(), kernel=kernel))
    memory, cpus = condition(told, "MemoryHotplugAvailable"), condition(told, "CPUHotplugAvailable")
    assert (memory["status"], memory["reason"]) == ("False", "DriverMissing")
    assert "no driver virtio_mem" in memory["message"]
    assert cpus["status"] == "Unknown"
    assert patch(told, seen(), now=LATER) == {}
    gone = status.final(told, status.ENDS["shutdown"], now=LATER)
    assert not any("Available" in each["type"] for each in gone["status"]["conditions"])


def test_an_agent_that_lacks_what_every_one_is_asked_is_told_of():
    kind = status.UNSUPPORTED_AGENT

    def lacking(old=(), **settings):
        view = structs.replace(VIEW, info=AgentInfo("2.0", status.BASIC_COMMANDS - {"guest-get-users"}), **settings)
        found = after(vmi(conditions=list(old)), seen(view=view))["status"]["conditions"]
        return {c["type"]: c for c in found}.get(kind)

    found = lacking()
    assert (found["status"], found["reason"]) == ("True", "MissingCommands")
    assert found["message"].startswith("qemu-guest-agent 2.0 does not know, or may not run, guest-get-users: ")
    assert lacking(frozen=True) is None  # it knows little then, and that says nothing
    assert lacking([found], frozen=True) == found
    able = after(vmi(conditions=[found]), seen())["status"]["conditions"]
    assert kind not in {c["type"] for c in able}


def test_all_addresses_of_a_guest():
    bridge = {
        "name": "docker0",
        "hardware-address": "02:42:ac:11:00:02",
        "ip-addresses": [{"ip-address": "172.17.0.1"}],
    }
    card = {**VIEW.interfaces[0], "ip-addresses": [{"ip-address": "10.0.2.15"}, {"ip-address": "fd00::5"}]}
    view = structs.replace(VIEW, interfaces=(card, bridge))
    document = vmi(interfaces=[{"name": "default", "ipAddress": "10.213.0.2"}])
    found = devicestatus.interfaces(document, seen(view=view))
    assert [each.get("ipAddresses") for each in found] == [["10.213.0.2", "10.0.2.15", "fd00::5"], ["172.17.0.1"]]
    document["status"]["interfaces"] = found
    assert devicestatus.interfaces(document, seen(view=structs.replace(view, frozen=True))) == found
    alone = devicestatus.interfaces(document, seen(view=None))
    assert [each.get("ipAddresses") for each in alone] == [["10.213.0.2"]]
