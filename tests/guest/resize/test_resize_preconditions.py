"""Every precondition failing on a running guest, one after the other: on the tiny guest, and on a whole Debian.

A cell is a change and the fact that does not hold for it: (change, id, message, actual, required, mend). Of each,
`hotvirt why` and the API have the exact words and values; whoever edits the VM all the same reads those words in its
conditions (or in the API's refusal), and the guest itself has what it had; once it is mended, the guest has what was
asked for. `#` in a text stands for a number that varies. One boot for all cells of a guest; the Debian's takes long and
runs when HOTVIRT_LONG is set (some cells of it are always in test_virtctl_debian.py).
"""

import json
import os
import re

import pytest
import yaml

from hotvirt.preconditions import reference

pytestmark = [pytest.mark.guest, pytest.mark.timeout(3600 if os.environ.get("HOTVIRT_LONG") else 600)]
SETTINGS = "kubectl edit kubevirt kubevirt -n kubevirt"
HIDE = "for d in {}; do [ -d $d ] && mount --bind /run/none $d; done; true"
HOLD = "for d in /sys/devices/system/cpu/cpu[1-9]; do grep -q 1 $d/online && mount --bind /run/none $d; done; true"
FIRST = (
    "c=/sys/devices/system/cpu; grep -q 1 $c/cpu1/online || { echo 1 >$c/cpu1/online; for d in $c/cpu[2-9]; do"
    " grep -q 1 $d/online && echo 0 >$d/online && break; done; }; true"
)
"""cpu1 is among those that are online."""
SHOW = "for d in {}; do umount $d 2>/dev/null; done; true"
KERNEL = (
    "/sys/devices/system/memory /sys/devices/system/cpu/hotplug /sys/devices/system/cpu/cpu1 /sys/module/pciehp "
    "/sys/module/acpiphp"
)
SIZES = {512: "512Mi", 1000: "1000Mi"}
ELSEWHERE = {
    ("Memory", "memory.dimm-slots"), ("Memory", "memory.owner"), ("The most that memory can become", "memory.owner"),
    ("CPU sockets", "cpu.owner"), ("The most CPU sockets", "cpu.owner"),
}  # fmt: skip
"""Of a guest that is given DIMMs: test_dimm_slots.py; of one with an instancetype: test_home_pools.py."""


def names_and_numbers(box):
    boot = box.boot_size
    before = box.view()
    fine = [
        f"memory={boot + 256}Mi",
        f"memory={boot - 64}Mi",
        "cpu=2",
        "disk=data",
        "no-disk=kept",
        "disk=data,bus=virtio",
    ]
    box.would_work(*fine, "nic=default,link=down", *(["no-nic=lan"] if box.is_root else []))
    there = "data, frozen, kept, lost, theirs"
    room = "QEMU has room for up to #Gi, so no restart is needed"
    sata = "SATA disks belong to a machine from its start"
    cards = "default, lan" if box.is_root else "default"
    box.told(
        ("memory=16Mi", "memory.least", "memory 16Mi is too little for a guest", "16Mi", "at least 32Mi",
         "use at least 32Mi"),
        ("memory=16Mi", "guest.memory-spare", f"the guest can do without #Mi now, and is to have {boot - 16}Mi less",
         "#Mi to spare", f"{boot - 16}Mi to spare", "free memory in the guest, or ask for less of a change"),
        (f"memory={boot + 2050}Mi", "memory.max-guest",
         f"memory {boot + 2050}Mi is more than the guest's maximum, {boot + 2048}Mi", f"{boot + 2050}Mi",
         f"at most {boot + 2048}Mi",
         f"use at most {boot + 2048}Mi, or raise domain.memory.maxGuest to {boot + 2050}Mi or more: {room}"),
        (f"memory={boot + 2050}Mi", "node.memory", f"node {box.node} has #Mi of memory free, and #Mi more are needed",
         "#Mi free", "#Mi free", "stop another machine, or ask for less"),
        ("cpu=4", "node.cpu", f"node {box.node} has 0.15 of CPUs free, and 0.3 more are needed", "0.15 free",
         "0.3 free", "stop another machine, or ask for less"),
        ("cpu=4", "cpu.max-sockets", "4 sockets are not within what the guest started with, 1 to 3", "4", "1 to 3",
         "use at most 3, or raise domain.cpu.maxSockets to 4: QEMU has room for #, without a restart"),
        ("disk=data,bus=sata", "disk.bus", f"disk data is on bus sata, which cannot hot-plug: {sata}", "sata",
         "scsi or virtio", "set the bus of disk data to scsi"),
        ("disk=kept", "disk.name", "the name kept is the name of a volume the guest has already", "taken", "free",
         "choose another name"),
        ("disk=nope", "disk.claim", "PersistentVolumeClaim nope does not exist: the disk would wait for it",
         f"missing; there are: {there}", "there", "create PersistentVolumeClaim nope"),
        ("disk=frozen", "disk.access-mode", "claim frozen is ReadOnlyMany: a disk cannot be written on it",
         "ReadOnlyMany", "ReadWriteOnce, ReadWriteOncePod or ReadWriteMany",
         "set readonly: true on disk frozen, or use a claim with ReadWriteOnce"),
        ("disk=lost", "disk.claim-bound", "claim lost has lost its volume", "Lost", "Bound",
         "see why: kubectl describe pvc lost"),
        ("disk=theirs", "disk.claim-free", "claim theirs is in use by VM db", "VM db", "free",
         "detach it there, or use another claim for theirs"),
        ("no-disk=scratch", "disk.removable", "volume scratch is not attached as hotpluggable",
         "not attached as hotpluggable", "attached with hotpluggable: true", "restart to remove it"),
        ("nic=wan,binding=masquerade", "nic.network", "NetworkAttachmentDefinition wan does not exist",
         f"missing; there are: {'lan' if box.is_root else 'none'}", "there",
         "create NetworkAttachmentDefinition wan"),
        ("nic=wan,binding=masquerade", "nic.binding",
         "card wan has binding masquerade, which may not come to a running guest", "masquerade", "bridge",
         "set bridge: {} on interface wan"),
        ("no-nic=nope", "nic.there", "the guest has no card nope", "missing", "there", f"there are: {cards}"),
        ("no-nic=nope", "nic.removable", "card nope is not a bridge to a second network",
         "another binding, or none", "bridge, not of the pod network", "restart to remove it"),
        ("nic=nope,link=down", "nic.there", "the guest has no card nope", "missing", "there", f"there are: {cards}"),
    )  # fmt: skip
    box.told(
        ("max-memory=1Ti", "memory.headroom", "a maximum of 1Ti is not within QEMU's headroom, up to #Gi", "1Ti",
         "at most #Gi", "use at most #Gi; a restart gives it the new maximum"),
        (f"max-memory={boot - 2}Mi", "memory.above-size",
         f"a maximum of {boot - 2}Mi is less than the {SIZES[boot]} that the guest is to have", f"{boot - 2}Mi",
         f"at least {SIZES[boot]}", "lower domain.memory.guest first"),
        ("max-sockets=99", "cpu.headroom", "a maximum of 99 sockets is not within QEMU's room, 1 to #", "99", "1 to #",
         "use at most #; a restart gives it the new maximum"),
    )  # fmt: skip
    odd = box.home.hotvirt("why", "vm/box", f"memory={boot + 257}Mi", "-o", "json").stdout
    (aligned,) = [each for each in json.loads(odd)["changes"][0]["findings"] if each["id"] == "memory.alignment"]
    assert (aligned["status"], aligned["actual"]) == ("pass", f"{boot + 256}Mi")
    assert aligned["message"] == f"memory {boot + 257}Mi is given as {boot + 256}Mi, in whole blocks of 2Mi"
    box.see("memory=", "memory.alignment")
    if box.is_root:
        box.told(
            ("nic=lan", "nic.name", "the name lan is the name of a card the guest has already", "taken", "free",
                 "choose another name"),
        )  # fmt: skip
        networks_that_cannot_be_joined(box)
    # Who edits all the same: the API refuses what no guest could be, and the rest is told and waits.
    for refused, words in (
        ({"memory": 16}, "16Mi is too little to boot anything: use at least 32Mi"),
        ({"memory": boot + 2050}, f"{boot + 2050}Mi is more than maxGuest, {boot + 2048}Mi"),
        ({"sockets": 4}, "4 sockets are more than the most that can be plugged, maxSockets 3"),
        ({"hot": {"data": ("data", "sata")}}, "bus sata cannot hot-plug: set the disk's bus to scsi"),
    ):
        assert words in box.edit(check=False, **refused)
    kept = dict(box.wanted)
    box.edit(hot={**kept["hot"], "more": ("nope", "scsi"), "other": ("theirs", "scsi")})
    box.says("HotVolumeChange", "nope", "theirs")
    box.same(before)
    box.edit(hot=kept["hot"])
    box.calm()
    plain = {"name": "plain", "persistentVolumeClaim": {"claimName": "data"}}
    box.edit(plain=[plain])
    box.says("RestartRequired", "volumes[plain]: unset -> ", "only volumes marked hotpluggable: true come and go")
    box.told(
        ("disk=plain", "disk.source", "volume plain is not a claim marked hotpluggable",
         "persistentVolumeClaim, not hotpluggable", "persistentVolumeClaim with hotpluggable: true",
         "set persistentVolumeClaim.hotpluggable: true, or hotvirt addvolume box --volume-name=data --persist"),
    )  # fmt: skip
    box.same(before)
    box.edit(plain=())
    box.calm()


def networks_that_cannot_be_joined(box):
    for name, config in (("far", {"type": "bridge", "bridge": "hvpnone"}), ("odd", {"type": "macvlan"})):
        box.home.apply({
            "apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition", "metadata": {"name": name},
            "spec": {"config": json.dumps({"cniVersion": "1.0.0", **config})},
        })  # fmt: skip
    report = json.loads(box.home.hotvirt("why", "vm/box", "nic=far", "nic=odd", "-o", "json", check=False).stdout)
    for change, id_, words in (
        ("nic=far", "nic.bridge", "the guest's node has no bridge hvpnone"),
        ("nic=odd", "nic.definition", "NetworkAttachmentDefinition odd: spec.config is not of type bridge"),
    ):
        (judged,) = [each for each in report["changes"] if each["change"] == change]
        (fails,) = [each for each in judged["findings"] if each["status"] == "fail"]
        assert (fails["id"], fails["message"].startswith(words)) == (id_, True)
        box.see(change, id_)
        box.home.kubectl("delete", "net-attach-def", change.removeprefix("nic="))


def everything(box):
    """One edit of each kind that can be asked for at once."""
    return {
        "memory": box.boot_size + 256, "sockets": 2, "hot": {"data": ("data", "scsi")}, "link": "down",
        "cards": {},
    }  # fmt: skip


def the_cluster_forbids(box):
    boot, before, kept = box.boot_size, box.view(), dict(box.wanted)
    off = "spec.configuration.developerConfiguration.disabledFeatureGates"
    box.settings(developerConfiguration={
        "disabledFeatureGates": ["VMLiveUpdateFeatures", "CPUHotplug", "HotplugVolumes", "HotplugNICs"]
    })  # fmt: skip
    live, volumes, cards = (
        f"feature gate {gate} is off" for gate in ("VMLiveUpdateFeatures", "HotplugVolumes", "HotplugNICs")
    )
    both = "feature gates VMLiveUpdateFeatures and CPUHotplug are off"
    mends = {what: f"take {'them' if what == both else 'it'} out of {off}: {SETTINGS}"
         for what in (live, volumes, cards, both)}  # fmt: skip
    changes = {f"memory={boot + 256}Mi": live, "cpu=2": both, "max-memory=4Gi": live, "max-sockets=4": both,
               "disk=data": volumes, "no-disk=kept": volumes,
               "nic=default,link=down": cards}  # fmt: skip
    if box.is_root:
        changes |= {"no-nic=lan": cards, "nic=second,network=lan": cards}
    box.told(*(
        (change, "cluster.feature-gate", f"the {what}", "off", "on", mends[what]) for change, what in changes.items()
    ))  # fmt: skip
    warned = box.edit(**everything(box))
    words = [f"the {what} ({mends[what]})" for what in (live, both, volumes, cards)]
    assert all(each in warned for each in words), warned
    box.says(
        "RestartRequired", *words, f"domain.memory.guest: {SIZES[boot]} -> {boot + 256}Mi",
        "domain.cpu.sockets: 1 -> 2", "volumes[data]: unset -> data", "volumes[kept]: kept -> unset",
        "interfaces[default].state: up -> down", *(["interfaces[lan].state: up -> absent"] if box.is_root else []),
    )  # fmt: skip
    box.same(before)
    box.settings(developerConfiguration=None)
    box.has(more=256, cpus=2, disks=(64,), cables=1)
    box.calm()
    box.edit(**kept)
    box.has(disks=(8,), cables=3 if box.is_root else 2)
    box.calm()

    sizes = (f"memory={boot + 256}Mi", "cpu=2", "max-memory=4Gi", "max-sockets=4")
    box.settings(vmRolloutStrategy="Stage")
    words = "the cluster applies changes at the next restart only", "Stage", "LiveUpdate"
    mend = f"set spec.configuration.vmRolloutStrategy to LiveUpdate: {SETTINGS}"
    box.told(*((each, "cluster.rollout-strategy", *words, mend) for each in sizes))
    box.edit(memory=boot + 256, sockets=2)
    box.says("RestartRequired", f"{words[0]} ({mend})", "sockets: 1 -> 2")
    box.same(before)
    box.settings(vmRolloutStrategy=None)
    box.has(more=256, cpus=2, disks=(8,))
    box.edit(**kept)
    box.has(disks=(8,))
    box.calm()


def no_room(box):
    """`db` holds what `box` would need; a quota holds the rest."""
    boot, before, kept, home = box.boot_size, box.view(), dict(box.wanted), box.home
    (node,) = home.kubectl_json("get", "nodes")["items"]
    name = node["metadata"]["name"]
    memory, cpu = f"memory={boot + 1536}Mi", "cpu=3"
    waits = "stop another machine, or ask for less"
    box.told(
        (memory, "node.memory", f"node {name} has #Mi of memory free, and 1539Mi more are needed", "#Mi free",
         "1539Mi free", waits),
        (cpu, "node.cpu", f"node {name} has 0.15 of CPUs free, and 0.2 more are needed", "0.15 free", "0.2 free",
         waits),
    )  # fmt: skip
    box.edit(memory=boot + 1536, sockets=3)
    words = (f"node {name} has #Mi of memory free, and 1539Mi more are needed ({waits})",
         f"node {name} has 0.15 of CPUs free, and 0.2 more are needed ({waits})")  # fmt: skip
    box.says("Failure", *words)
    box.says("ResizePending", *words)
    box.same(before)
    home.hotvirt("stop", "db")
    box.has(more=1536, cpus=3, disks=(8,))
    box.calm()
    box.edit(**kept)
    box.has(disks=(8,))
    box.calm()

    used = home.kubectl_json("get", "pod", "-l", "vm.kubevirt.io/name=box")["items"][0]["spec"]["containers"]
    (asked,) = [c["resources"]["requests"] for c in used if c["name"] == "compute"]
    hard = f"requests.memory={int(asked['memory'].removesuffix('Mi')) + 128}Mi,requests.cpu=150m"
    home.kubectl("create", "quota", "small", f"--hard={hard}")
    home.wait("quota/small", "jsonpath={.status.used.requests\\.cpu}=100m")
    mend = f"raise it: kubectl edit resourcequota small; or {waits}"
    memory = f"memory={boot + 256}Mi"
    words = ("quota small has 128Mi of memory left of #Mi", "quota small has 0.05 of CPUs left of 0.15")
    box.told(
        (memory, "quota.memory", words[0], "128Mi left", "256Mi left", mend),
        ("cpu=2", "quota.cpu", words[1], "0.05 left", "0.1 left", mend),
    )  # fmt: skip
    box.edit(memory=boot + 256, sockets=2)
    box.says("Failure", *(f"{each} ({mend})" for each in words))
    box.same(before)
    home.kubectl("delete", "quota", "small")
    box.has(more=256, cpus=2, disks=(8,))
    box.calm()
    box.edit(**kept)
    box.has(disks=(8,))
    box.calm()


def whoever_may_not(box):
    home, boot = box.home, box.boot_size
    ask = {"apiGroups": ["subresources.hotvirt.io"], "resources": ["virtualmachines/preconditions"], "verbs": ["get"]}
    see = {"apiGroups": ["kubevirt.io"], "resources": ["virtualmachines"], "verbs": ["get"]}
    for account, rules in (("looker", None), ("asker", [see, ask])):
        home.kubectl("create", "serviceaccount", account)
        if rules:
            rbac = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": account}}
            home.apply({**rbac, "rules": rules})
        role = account if rules else "view"
        home.kubectl("create", "rolebinding", account, f"--clusterrole={role}", f"--serviceaccount=default:{account}")
        config = yaml.safe_load((home.directory / "kubeconfig").read_text())
        token = home.kubectl("create", "token", account).stdout.strip()
        for user in config["users"]:
            user["user"] = {"token": token}
        (home.directory / f"{account}.kubeconfig").write_text(yaml.safe_dump(config))
    looker, asker = (f"--kubeconfig={home.directory}/{who}.kubeconfig" for who in ("looker", "asker"))

    def grant(role, who):
        return (f"ask an administrator for: kubectl create rolebinding vm-{role} -n default --clusterrole={role} "
                f"--serviceaccount=default:{who}")  # fmt: skip

    def patch(change, who):
        denied = f"denied to system:serviceaccount:default:{who}"
        return (
            change,
            "caller.patch-vm",
            "you may not change VM box",
            denied,
            "patch virtualmachines",
            grant("edit", who),
        )

    changes = [f"memory={boot + 256}Mi", "cpu=2", "max-memory=4Gi", "max-sockets=4", "no-disk=kept"]
    changes.append("nic=default,link=down")
    if box.is_root:
        changes += ["no-nic=lan", "nic=second,network=lan"]
    box.told(
        *(patch(each, "looker") for each in changes), patch("disk=new", "looker"),
        ("disk=new", "disk.claim", "PersistentVolumeClaim new does not exist: the disk would wait for it",
         "missing; there are: data, frozen, kept, lost, theirs", "there", "create PersistentVolumeClaim new"),
        ("disk=new", "caller.create-claim", "you may not create PersistentVolumeClaim new",
         "denied to system:serviceaccount:default:looker", "create persistentvolumeclaims", grant("edit", "looker")),
        options=(looker,),
    )  # fmt: skip
    box.told(
        patch("disk=data", "asker"),
        ("disk=data", "caller.read-claim", "you may not read PersistentVolumeClaim data",
         "denied to system:serviceaccount:default:asker", "get persistentvolumeclaims", grant("view", "asker")),
        options=(asker,),
    )  # fmt: skip
    denied = home.kubectl(
        looker, "patch", "vm", "box", "--type=merge", "-p", '{"spec":{"runStrategy":"Halted"}}', check=False
    )
    assert 'cannot patch resource "virtualmachines"' in denied.stderr


def it_stands_still(box):
    boot, kept = box.boot_size, dict(box.wanted)
    box.home.hotvirt("pause", "vm/box")
    box.home.wait("vmi/box", "condition=Paused")
    words = "the guest is paused: it takes nothing up until it goes on", "paused", "running", "hotvirt unpause vm/box"
    changes = [f"memory={boot + 256}Mi", "cpu=2", "disk=data", "no-disk=kept"]
    if box.is_root:
        changes += ["no-nic=lan", "nic=second,network=lan"]
    box.told(*((change, "guest.running", *words, "unknown") for change in changes))
    box.edit(memory=boot + 256, sockets=2, hot={"data": ("data", "scsi")})
    box.says("HotMemoryChange", f"{boot + 256}Mi asked, the guest has ")
    box.home.hotvirt("unpause", "vm/box")
    box.has(more=256, cpus=2, disks=(64,))
    box.calm()
    box.edit(**kept)
    box.has(disks=(8,))
    box.calm()


def its_agent_and_kernel_do_not_help(box):
    """Without the agent, then with a kernel that can take up nothing, as far as its files tell."""
    home, boot, kept = box.home, box.boot_size, dict(box.wanted)
    box.shell.run(f"({box.agent['stop']})")
    home.wait_until("the agent is gone", lambda: "AgentConnected" not in home.conditions("vm/box"))
    words = "the guest agent does not answer (yet): the guest may not act", "not connected", "connected"
    mend = "install and start qemu-guest-agent in the guest"
    box.told(*((each, "guest.agent", *words, mend, "unknown") for each in (f"memory={boot + 256}Mi", "cpu=3")))
    box.edit(sockets=3)
    box.says("HotVCPUChange", "3 sockets asked, 1 in use; waiting for the guest agent")
    assert box.view().cpus == 1
    assert home.vmi("box")["status"]["currentCPUTopology"]["sockets"] == 1
    # New memory that the guest's kernel leaves offline is brought online by the agent, as soon as there is one.
    box.shell.run("echo offline >/sys/devices/system/memory/auto_online_blocks; rm -f /etc/udev/rules.d/40-hotvirt*")
    box.shell.run(f"({box.agent['start']})")
    box.edit(memory=boot + 256)
    box.has(more=256, cpus=3, disks=(8,))
    box.calm()

    box.shell.run(FIRST)
    box.shell.run("mkdir -p /run/none; " + HIDE.format(KERNEL))
    box.shell.run(f"({box.agent['restart']})")
    home.wait("vmi/box", "condition=MemoryHotplugAvailable=False")
    release = box.shell.run("uname -r").split()[-2]
    cannot = {
        "memory": f"kernel {release} was built without CONFIG_MEMORY_HOTPLUG",
        "cpu": f"kernel {release} was built without CONFIG_HOTPLUG_CPU",
        "pci": f"kernel {release} takes up no PCI devices while it runs",
    }  # fmt: skip
    mends = {
        "memory": "use a kernel with CONFIG_VIRTIO_MEM (Linux 5.8 or newer) or CONFIG_ACPI_HOTPLUG_MEMORY, or VirtIO "
                  "drivers on Windows",
        "cpu": "use a kernel with CONFIG_HOTPLUG_CPU",
        "pci": "put the disk on bus scsi, or use a kernel with CONFIG_HOTPLUG_PCI_PCIE",
    }  # fmt: skip
    box.told(
        (f"memory={boot + 512}Mi", "guest.memory-hotplug", cannot["memory"], "missing",
         "driver virtio_mem, or ACPI memory hot-plug", mends["memory"]),
        ("cpu=2", "guest.cpu-hotplug", cannot["cpu"], "missing", "CONFIG_HOTPLUG_CPU", mends["cpu"]),
        ("disk=data,bus=virtio", "guest.pci-hotplug", cannot["pci"], "missing", "PCI Express or ACPI hot-plug",
         mends["pci"]),
    )  # fmt: skip
    before = box.view()
    box.edit(memory=boot + 512, sockets=2, hot={**kept["hot"], "data": ("data", "virtio")})
    box.says("RestartRequired", *(f"{cannot[each]} ({mends[each]})" for each in cannot))
    box.same(before)
    box.shell.run(SHOW.format(KERNEL))
    box.shell.run(f"({box.agent['restart']})")
    box.has(more=512, cpus=2, disks=(8, 64))
    box.calm()
    box.edit(**kept)
    box.has(disks=(8,))
    box.calm()


def the_guest_refuses(box):
    boot, kept = box.boot_size, dict(box.wanted)
    box.edit(memory=boot + 256, sockets=2)
    box.has(more=256, cpus=2, disks=(8,))
    box.calm()
    # All but 100 MiB is taken, and a CPU lets nobody take it offline.
    box.shell.run("mkdir -p /run/none /run/full; mount -t tmpfs -o size=100% full /run/full")
    box.shell.run("dd if=/dev/zero of=/run/full/it bs=1M count=$(($(sed -n 's/^MemAvailable: *//p' /proc/meminfo"
                  " | sed 's/ kB//') / 1024 - 100)) 2>/dev/null")  # fmt: skip
    box.shell.run(HOLD)
    box.edit(memory=boot, sockets=1)
    box.says(
        "HotMemoryChange",
        f"the guest has only # MiB available: free memory in it first; it has # MiB of the {boot} MiB asked for",
    )
    box.says("HotVCPUChange", "1 sockets asked, 2 in use: the guest cannot take more vCPUs offline: 2 stay")
    stuck = box.home.conditions("vmi/box")
    mend = "free memory or unpin programs in the guest, or ask for less"
    found = box.ask(f"memory={boot}Mi", "cpu=1")
    for change, kind, id_ in (
        (f"memory={boot}Mi", "HotMemoryChange", "guest.memory-release"),
        ("cpu=1", "HotVCPUChange", "guest.cpu-release"),
    ):
        said = found[change][id_]
        assert said["message"] == f"the guest did not follow the last change: {stuck[kind]['message']}"
        assert (said["status"], said["actual"], said["required"]) == ("unknown", stuck[kind]["reason"], "no refusal")
        assert said["mend"] == mend
        box.see(change, id_)
    assert box.view().cpus == 2
    box.shell.run(SHOW.format("/sys/devices/system/cpu/cpu[1-9]") + "; umount /run/full")
    box.edit(memory=boot, sockets=2)  # asked anew, a CPU that was refused is not waited for
    box.edit(**kept)
    box.has(disks=(8,))
    box.calm()


def another_architecture(box):
    """As nobody can start here: the object says so, for a moment."""
    boot = box.boot_size
    as_us = [f"--as-group={group}" for group in ("system:serviceaccounts:kubevirt", "system:masters")]
    as_us.append("--as=system:serviceaccount:kubevirt:hotvirt-controller")

    def be(what):
        patch = json.dumps({"spec": {"architecture": what}})
        box.home.kubectl("patch", "vmi", "box", "--type=merge", "-p", patch, *as_us)

    be("arm64")
    words = "arm64 guests cannot be resized while they run", "arm64", "amd64"
    sizes = (f"memory={boot + 256}Mi", "cpu=2", "max-memory=4Gi", "max-sockets=4")
    box.told(*((each, "guest.architecture", *words) for each in sizes))
    be("amd64")


def no_place(box):
    """Its PCIe ports are all taken."""
    home, kept = box.home, dict(box.wanted)
    free = home.kubectl_json("get", "vm", "box") and json.loads(home.hotvirt("why", "vm/box", "-o", "json").stdout)
    (most,) = [each["most"] for each in free["changes"] if each["change"] == "disk"]
    ports = int(re.search(r"(\d+) virtio", most)[1])
    for number in range(ports + 1):
        home.apply_claim(f"p{number}", "2Mi")
    full = {**kept["hot"], **{f"p{n}": (f"p{n}", "virtio") for n in range(ports)}}
    box.edit(hot=full)
    box.has(disks=(8, *[2] * ports))
    box.told(
        ("disk=data,bus=virtio", "disk.place", "the guest has 0 PCIe ports free", "0", "at least 1",
         "use bus scsi, or restart"),
        *([("nic=second,network=lan", "nic.port", "the guest has 0 PCIe ports free", "0", "at least 1",
                "take a virtio disk or a card away, or restart")] if box.is_root else []),
    )  # fmt: skip
    before = box.view()
    box.edit(hot={**full, f"p{ports}": (f"p{ports}", "virtio")})
    taken = "all PCI ports of the guest are taken; use bus scsi for disks, or restart"
    box.says("HotVolumeChange", f"disk 'p{ports}': {taken}")
    box.same(before)
    box.edit(hot=kept["hot"])
    box.has(disks=(8,))
    box.calm()


ALL = (
    names_and_numbers, the_cluster_forbids, no_room, whoever_may_not, it_stands_still, its_agent_and_kernel_do_not_help,
    the_guest_refuses, another_architecture, no_place,
)  # fmt: skip


def test_each_precondition_that_fails_is_told_and_once_mended_the_guest_has_it(box):
    began = box.home.facts("box")["bootID"]
    for cells in ALL:
        cells(box)
    assert box.home.facts("box")["bootID"] == began, "the guest was restarted"
    every = {(title, id_) for title in reference._CHANGES for id_ in reference.findings(title)} - ELSEWHERE
    if not box.is_root:
        every = {(title, id_) for title, id_ in every if "card" not in title}
    assert every - box.seen == set(), "preconditions without a cell"
