"""A VMI and what was opened for it -> the machine QEMU is given."""

import pytest

from hotvirt.api import defaults
from hotvirt.node import render
from hotvirt.qemu.machine import Disk, File, Kernel, Layer, Machine, Nic, Smbios, Topology, UserNet

CHANNELS = render.Channels(qmp=10, agent=11, serial=12)
GIB = 1 << 30
UUID = "b0a4c35b-6ea5-4aa1-9f45-9a6c5d2e7a11"


def vmi(domain=None, **spec):
    domain = {"firmware": {"uuid": UUID}, "memory": {"guest": "1Gi"}, **(domain or {})}
    return {"metadata": {"name": "web", "namespace": "prod"}, "spec": {"domain": domain, **spec}}


def machine(document, *, accelerator="kvm", disks=(), nics=(), kernel=None):
    return render.machine(document, accelerator=accelerator, disks=disks, nics=nics, kernel=kernel, channels=CHANNELS)


def test_the_smallest():
    assert machine(vmi()) == Machine(
        name="prod_web", uuid=UUID, accelerator="kvm", machine_type="q35", cpu_model="host",
        topology=Topology(), boot_memory=GIB, max_memory=0,
        smbios=Smbios(manufacturer="hotvirt", product="VirtualMachine"),
        qmp_fd=10, agent_fd=11, serial_fd=12, graphics=True, balloon=True,
    )  # fmt: skip


def test_everything():
    disk = Disk(name="root", layers=(Layer(File(fd=20), "qcow2"),), bus="virtio")
    nic = Nic(name="default", mac="02:00:00:00:00:01", backend=UserNet())
    kernel = Kernel(File(fd=21), None, "quiet")
    document = vmi(
        {
            "machine": {"type": "pc-q35-7.2"},
            "cpu": {
                "sockets": 2, "cores": 2, "threads": 2, "maxSockets": 4, "model": "Haswell",
                "features": [
                    {"name": "vmx"}, {"name": "svm", "policy": "disable"}, {"name": "aes", "policy": "optional"},
                    {"name": "pcid", "policy": "force"}, {"name": "mpx", "policy": "forbid"},
                ],
            },
            "memory": {"guest": "1Gi", "maxGuest": "4Gi"},
            "firmware": {"uuid": UUID, "serial": "S1"},
            "devices": {
                "autoattachGraphicsDevice": False, "autoattachMemBalloon": False,
                "panicDevices": [{}, {"model": "pvpanic"}],
            },
            "rebootPolicy": "Terminate",
        },
        startStrategy="Paused",
    )  # fmt: skip
    assert machine(document, accelerator="tcg", disks=(disk,), nics=(nic,), kernel=kernel) == Machine(
        name="prod_web", uuid=UUID, accelerator="tcg", machine_type="pc-q35-7.2", cpu_model="Haswell",
        cpu_features=("+vmx", "-svm", "+pcid", "-mpx"),
        topology=Topology(sockets=2, cores=2, threads=2, max_sockets=4), boot_memory=GIB, max_memory=4 * GIB,
        headroom=12 * GIB, dimm_slots=16,
        kernel=kernel, disks=(disk,), nics=(nic,),
        smbios=Smbios(manufacturer="hotvirt", product="VirtualMachine", serial="S1"),
        qmp_fd=10, agent_fd=11, serial_fd=12, graphics=False, balloon=False, start_paused=True,
        ends_on_reboot=True, panic_devices=("isa", "pvpanic"),
    )  # fmt: skip


MEMORY = {
    "guest": ({"memory": {"guest": "1Gi"}}, GIB, 0),
    "guest and maximum": ({"memory": {"guest": "1Gi", "maxGuest": "2Gi"}}, GIB, 2 * GIB),
    "a maximum that is the guest's": ({"memory": {"guest": "1Gi", "maxGuest": "1Gi"}}, GIB, 0),
    "requests": ({"memory": {}, "resources": {"requests": {"memory": "2Gi"}}}, 2 * GIB, 0),
    "limits": ({"memory": {}, "resources": {"limits": {"memory": "2Gi"}}}, 2 * GIB, 0),
    "whole blocks": ({"memory": {"guest": "1025M", "maxGuest": "3G"}}, 976 << 20, 2860 << 20),
    "nobody says": ({"memory": {}}, 0, 0),
}


@pytest.mark.parametrize(("domain", "boot", "most"), MEMORY.values(), ids=MEMORY)
def test_memory(domain, boot, most):
    found = machine(vmi(domain))
    assert (found.boot_memory, found.max_memory) == (boot, most)


TOPOLOGY = {
    "silent": (None, Topology()),
    "null": ({"sockets": None, "maxSockets": None}, Topology()),
    "no maximum: what it starts with": ({"sockets": 3}, Topology(sockets=3, max_sockets=3)),
    "a maximum below the sockets is none": ({"sockets": 3, "maxSockets": 2}, Topology(sockets=3, max_sockets=3)),
    "room": ({"sockets": 1, "cores": 2, "maxSockets": 4}, Topology(sockets=1, cores=2, max_sockets=4)),
}


@pytest.mark.parametrize(("cpu", "expected"), TOPOLOGY.values(), ids=TOPOLOGY)
def test_topology(cpu, expected):
    assert render.wanted_topology({"domain": {"cpu": cpu}}) == expected


@pytest.mark.parametrize(
    ("named", "kvm", "tcg"),
    [("", "host", "max"), ("host-model", "host", "max"), ("host-passthrough", "host", "max"), ("EPYC", "EPYC", "EPYC")],
)
def test_cpu_model(named, kvm, tcg):
    assert (render.cpu_model(named, "kvm"), render.cpu_model(named, "tcg")) == (kvm, tcg)


def test_a_defaulted_instance_can_be_rendered():
    bare = {"metadata": {"name": "a", "namespace": "b"}, "spec": {"domain": {"memory": {"guest": "1Gi"}}}}
    found = machine(defaults.instance(bare, defaults.ClusterSettings()))
    assert (found.topology.max_sockets, found.max_memory, found.machine_type) == (4, 4 * GIB, "q35")
