"""A VM whose preconditions are made to fail one after the other, and what its guest has, read at its console."""

import json
import os
import re
import subprocess
from urllib.parse import urlencode

import pytest
from msgspec import Struct

GRAIN = 8
WOULD_NOT = 3
KINDS = {
    "memory": "Memory", "cpu": "CPU sockets", "max-memory": "The most that memory can become",
    "max-sockets": "The most CPU sockets", "disk": "A volume comes", "no-disk": "A volume goes",
    "nic": "A network card comes", "no-nic": "A network card goes", "link": "A cable is plugged in or out",
}  # fmt: skip
"""Changes as they are asked for, and the sections of docs/reference/preconditions.md."""
LOOK = (
    "grep MemTotal /proc/meminfo; echo CPUS $(grep -c ^processor /proc/cpuinfo);"
    " for d in /sys/block/[sv]d*; do echo DISK $(cat $d/size); done;"
    " for c in /sys/class/net/*; do echo LINK $(cat $c/address $c/carrier 2>/dev/null); done"
)
TINY = {
    "stop": "cp /sbin/agent /run/agent; printf '#!/bin/sh\\nexec sleep 99999\\n' >/sbin/agent; kill $(pidof qemu-ga)",
    "start": "until pidof sleep; do usleep 100000; done; cp /run/agent /sbin/agent; kill $(pidof sleep)",
    "restart": "kill $(pidof qemu-ga)",
}
DEBIAN = {verb: f"systemctl {verb} qemu-guest-agent" for verb in ("stop", "start", "restart")}


class Cell(Struct, frozen=True):
    """`#` in a text stands for a number that varies."""

    change: str
    id: str
    message: str
    actual: str
    required: str
    mend: str = ""
    status: str = "fail"


class View(Struct, frozen=True):
    """What the guest has: MiB, CPUs, sizes of its disks in MiB, cables by MAC."""

    memory: int
    cpus: int
    disks: tuple[int, ...]
    links: dict[str, bool]


def ids_of(found):
    return {change: sorted(each) for change, each in found.items()}


class Box:
    """The VM `box`, whose cells these are, and what it is to have now."""

    def __init__(self, home, manifest, agent):
        spec = manifest["spec"]["template"]["spec"]
        self.home, self.cold, self.agent = home, spec["volumes"], agent
        self.cold_disks = spec["domain"]["devices"]["disks"]
        boot = self.boot_size = int(spec["domain"]["memory"]["guest"].removesuffix("Mi"))
        self.seen = set()
        self.is_root = is_root()
        self.node = home.kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}").stdout
        self.wanted = {"memory": boot, "sockets": 1, "hot": {}, "cards": {}, "link": "up", "plain": ()}

    # -- questions -------------------------------------------------------------------------------------------------
    def ask(self, *changes, options=()):
        """By change: all that is not well, by id. The command line and the API must say the same."""
        said, raw = self._asked(changes, options)
        assert ids_of(said) == ids_of(raw)
        return said

    def _asked(self, changes, options):
        """What the command line says, and the API a moment later."""
        done = self.home.hotvirt(*options, "why", "vm/box", *changes, "-o", "json", check=False)
        assert done.stdout, done.stderr
        report = json.loads(done.stdout)
        path = "/apis/subresources.hotvirt.io/v1alpha1/namespaces/default/virtualmachines/box/preconditions"
        query = urlencode([("change", each) for each in changes])
        raw = json.loads(self.home.kubectl(*options, "get", "--raw", f"{path}?{query}").stdout)
        found = [{one["change"]: findings_of(one) for one in answer["changes"]} for answer in (report, raw)]
        failing = any(each["status"] == "fail" for one in found[0].values() for each in one.values())
        assert done.returncode == (WOULD_NOT if failing else 0), done.stdout
        return found

    def told(self, *cells, options=()):
        """Each cell holds, exactly, and nothing else is wrong with those changes. Cells as tuples of their fields. What
        the guest was made to be is seen when its agent has told of it, so it is waited for."""
        cells = [Cell(*cell) for cell in cells]
        for cell in cells:
            self.see(cell.change, cell.id)
        differs = []

        def holds():
            differs[:] = self._differences(cells, options)
            return not differs

        try:
            self.home.wait_until("what was asked is told", holds)
        except AssertionError as error:
            raise AssertionError("\n".join(map(str, [error, *differs]))) from error

    def _differences(self, cells, options):
        found, raw = self._asked(dict.fromkeys(cell.change for cell in cells), options)
        ids = {change: {cell.id for cell in cells if cell.change == change} for change in found}
        differs = [] if ids_of(found) == ids_of(raw) else [("the API", ids_of(raw), ids_of(found))]
        differs += [(change, set(found[change]), ids[change]) for change in found if set(found[change]) != ids[change]]
        for cell in cells:
            said = found[cell.change].get(cell.id, {})
            texts = ("status", "message", "actual", "required", "mend")
            differs += [
                (cell.change, said.get(part), getattr(cell, part))
                for part in texts if not fits(said.get(part, ""), getattr(cell, part))
            ]  # fmt: skip
        return differs

    def see(self, change, id_):
        self.seen.add((KINDS["link" if ",link=" in change else change.partition("=")[0]], id_))

    def would_work(self, *changes):
        assert self.ask(*changes) == {change: {} for change in changes}

    # -- edits -----------------------------------------------------------------------------------------------------
    def edit(self, *, check=True, **parts):
        """Patches the VM to what it is to have. `hot`: volume -> (claim, bus); `cards`: name -> network."""
        want = self.wanted | parts
        if check:
            self.wanted = want
        volumes = [*self.cold, *want["plain"]]
        volumes += [
            {"name": n, "persistentVolumeClaim": {"claimName": c, "hotpluggable": True}}
            for n, (c, _) in want["hot"].items()
        ]
        disks = [*self.cold_disks, *({"name": v["name"], "disk": {"bus": "virtio"}} for v in want["plain"])]
        disks += [{"name": n, "disk": {"bus": bus}} for n, (_, bus) in want["hot"].items()]
        cards = [{"name": "default", "masquerade": {}, "state": want["link"]}]
        cards += [{"name": n, "bridge": {}} for n in want["cards"]]
        networks = [{"name": n, "multus": {"networkName": net}} for n, net in want["cards"].items()]
        spec = {
            "volumes": volumes, "networks": [{"name": "default", "pod": {}}, *networks],
            "domain": {
                "memory": {"guest": f"{want['memory']}Mi"},
                "cpu": {"sockets": want["sockets"]}, "devices": {"disks": disks, "interfaces": cards},
            },
        }  # fmt: skip
        patch = json.dumps({"spec": {"template": {"spec": spec}}})
        return self.home.kubectl("patch", "vm", "box", "--type=merge", "-p", patch, check=check).stderr

    def says(self, kind, *texts):
        """Waits until a condition of the VM has all these words."""
        home, said = self.home, [""]

        def has():
            said[0] = home.conditions("vm/box").get(kind, {}).get("message", "")
            return all(fits_within(said[0], text) for text in texts)

        try:
            home.wait_until(f"{kind} has {texts}", has)
        except AssertionError as error:
            raise AssertionError(f"{error}; it has {said[0]!r}") from None

    def settings(self, **configuration):
        patch = json.dumps({"spec": {"configuration": configuration}})
        self.home.kubectl("patch", "kubevirt", "kubevirt", "-n", "kubevirt", "--type=merge", "-p", patch)

    # -- the guest -------------------------------------------------------------------------------------------------
    def view(self):
        text = self.shell.run(LOOK)
        one = lambda pattern: re.findall(pattern, text, re.MULTILINE)  # noqa: E731
        (memory,), (cpus,) = one(r"^MemTotal: +(\d+)") or [text], one(r"^CPUS (\d+)") or [text]
        return View(
            int(memory) // 1024, int(cpus), tuple(sorted(int(size) // 2048 for size in one(r"^DISK (\d+)"))),
            {mac: up == "1" for mac, up in one(r"^LINK ([0-9a-f:]{17}) ([01])")},
        )  # fmt: skip

    def has(self, *, more=0, cpus=1, disks=(), cables=None):
        """Waits until the guest itself has this: MiB beyond its boot, CPUs, disks that were added, cables that are in
        (the loopback's, too). And the VMI says the same."""
        seen = [None]

        def agrees():
            view = seen[0] = self.view()
            return (
                abs(view.memory - self.boot.memory - more) <= GRAIN and view.cpus == cpus
                and view.disks == tuple(sorted((*self.boot.disks, *disks)))
                and (cables is None or sum(view.links.values()) == cables)
            )  # fmt: skip

        what = f"the guest has {more} MiB more, {cpus} CPUs, disks {disks}, {cables} cables"
        try:
            self.home.wait_until(what, agrees)
        except AssertionError as error:
            raise AssertionError(f"{error}; it has {seen[0]}, and had {self.boot} at its boot") from None
        size = (
            f"{self.boot_size + more}Mi" if (self.boot_size + more) % 1024 else f"{(self.boot_size + more) // 1024}Gi"
        )
        home = self.home
        home.wait(
            "vmi/box", f"jsonpath={{.status.memory.guestCurrent}}={size}",
            f"jsonpath={{.status.currentCPUTopology.sockets}}={cpus}",
        )  # fmt: skip

    def calm(self):
        kinds = {"HotMemoryChange", "HotVCPUChange", "HotVolumeChange", "HotInterfaceChange", "RestartRequired",
                 "Failure", "ResizePending"}  # fmt: skip
        self.home.wait_until("nothing is left to do", lambda: not kinds & self.home.conditions("vm/box").keys())

    def same(self, view):
        now = self.view()
        assert abs(now.memory - view.memory) <= GRAIN
        assert (now.cpus, now.disks, now.links) == (view.cpus, view.disks, view.links)


def findings_of(one):
    return {each["id"]: each for each in one["findings"] if each["status"] != "pass"}


def pattern(text):
    number = r"[0-9]+(\.[0-9]+)?"
    return re.escape(text).replace(r"\#Gi", f"{number}[MG]i").replace(r"\#", number)


def fits(said, text):
    return re.fullmatch(pattern(text), said) is not None


def fits_within(said, text):
    return re.search(pattern(text), said) is not None


def is_root():
    return os.geteuid() == 0


def room_for(boot, *, root="", most=None, annotations=None):
    """The VM `box`: two CPUs may come to what it boots with, and memory up to `most`, else 2 GiB. `root`: a disk with a
    system, else the tiny guest's kernel."""
    disks, volumes = (
        [{"name": "scratch", "disk": {"bus": "scsi"}}],
        [{"name": "scratch", "emptyDisk": {"capacity": "16Mi"}}],
    )
    domain = {
        "memory": {"guest": f"{boot}Mi", "maxGuest": f"{most or boot + 2048}Mi"},
        "cpu": {"sockets": 1, "maxSockets": 3},
        "devices": {"disks": disks, "interfaces": [{"name": "default", "masquerade": {}}]},
    }  # fmt: skip
    if root:
        disks.insert(0, {"name": "root", "disk": {"bus": "virtio"}})
        volumes.insert(0, {"name": "root", "containerDisk": {"image": root}})
    else:
        container = {"image": "hotvirt/tiny", "kernelPath": "/boot/vmlinuz", "initrdPath": "/boot/initrd"}
        domain["firmware"] = {"kernelBoot": {"container": container}}
    spec = {"domain": domain, "networks": [{"name": "default", "pod": {}}], "volumes": volumes}
    return {
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": "box"},
        "spec": {"runStrategy": "Always", "template": {"metadata": {"annotations": annotations or {}}, "spec": spec}},
    }  # fmt: skip


def claims(home):
    for name, size, mode in (
        ("data", "64Mi", "ReadWriteOnce"), ("kept", "8Mi", "ReadWriteOnce"), ("theirs", "1Mi", "ReadWriteOnce"),
        ("lost", "1Mi", "ReadWriteOnce"), ("frozen", "1Mi", "ReadOnlyMany"),
    ):  # fmt: skip
        spec = {"accessModes": [mode], "resources": {"requests": {"storage": size}}}
        metadata = {"name": name, "annotations": {"cdi.kubevirt.io/storage.bind.immediate.requested": "true"}}
        home.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec})
    home.wait("pvc/lost", "jsonpath={.status.phase}=Bound")
    volume = home.kubectl("get", "pvc", "lost", "-o", "jsonpath={.spec.volumeName}").stdout
    home.kubectl("delete", "pv", volume, "--wait=false")
    home.kubectl("patch", "pv", volume, "--type=merge", "-p", '{"metadata":{"finalizers":null}}', check=False)


def fill_the_node(home):
    """`db` has a claim that others would like, and leaves a bit over 1 GiB of the node and 0.15 of its CPUs."""
    (node,) = home.kubectl_json("get", "nodes")["items"]
    (pod,) = home.kubectl_json("get", "pods")["items"]
    asked = next(c["resources"]["requests"] for c in pod["spec"]["containers"] if c["name"] == "compute")
    mib = [int(each["memory"].removesuffix("Mi")) for each in (node["status"]["allocatable"], asked)]
    cpu = int(node["status"]["allocatable"]["cpu"]) * 1000 - 100 - 150
    requests = {"memory": f"{mib[0] - mib[1] - 1400}Mi", "cpu": f"{cpu}m"}
    home.apply_vm(
        "db", memory="128Mi", max_memory="128Mi", max_sockets=1, claim="theirs",
        extra={"domain": {"resources": {"requests": requests}}},
    )  # fmt: skip
    home.wait("vm/db", "condition=Ready")


def a_card_of_a_second_network(box, bridge):
    config = json.dumps({"cniVersion": "1.0.0", "type": "bridge", "bridge": bridge})
    box.home.apply({
        "apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition", "metadata": {"name": "lan"},
        "spec": {"config": config},
    })  # fmt: skip
    box.edit(cards={"lan": "lan"})


@pytest.fixture
def bridge():
    """A bridge of this machine; "" without the rights to make one."""
    if not is_root():
        yield ""
        return
    name = f"hvp{os.getpid()}"
    subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)
    yield name
    subprocess.run(["ip", "link", "del", name], check=True)


@pytest.fixture(params=["tiny", pytest.param("debian", marks=pytest.mark.long)])
def box(request, home, bridge):
    """The VM `box` while its console is open, with a claim that came to it, and as root a card of a second network."""
    tiny = request.param == "tiny"
    home.patience = 90 if tiny else 300
    manifest = room_for(512 if tiny else 1000, root="" if tiny else "hotvirt/debian:12")
    home.apply(manifest)
    claims(home)
    home.wait("vm/box", "condition=Ready")
    fill_the_node(home)
    home.wait_agent("box")
    home.wait("vm/box", "condition=MemoryHotplugAvailable")
    box = Box(home, manifest, TINY if tiny else DEBIAN)
    with home.shell("box") as box.shell:
        box.boot = box.view()
        if bridge:
            a_card_of_a_second_network(box, bridge)
        box.edit(hot={"kept": ("kept", "scsi")})
        box.has(disks=(8,), cables=3 if bridge else 2)
        box.calm()
        yield box


@pytest.fixture
def box_by_dimms(home):
    """A VM `box` whose annotation says DIMMs: its kernel knows both ways to more memory."""
    manifest = room_for(256, most=8192, annotations={"hotvirt.io/memory-device": "dimm"})
    home.apply(manifest)
    home.wait_agent("box")
    home.wait("vm/box", "condition=MemoryHotplugAvailable")
    box = Box(home, manifest, TINY)
    with home.shell("box") as box.shell:
        box.boot = box.view()
        yield box
