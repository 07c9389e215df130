"""Writes docs/reference/preconditions.md, what each live change rests on: `python -m hotvirt.preconditions.reference`.

The words are those of the findings themselves, asked about one guest for which nothing holds. A test keeps the page
current, and sees to it that every fact is on it.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hotvirt.api.attachments import Bridge
from hotvirt.preconditions import cluster, gather, limits, owner, upstream
from hotvirt.preconditions.changes import (
    Change,
    CpuChange,
    CpuLimit,
    MemoryChange,
    MemoryLimit,
    NicAdd,
    NicLink,
    NicRemove,
    VolumeAdd,
    VolumeRemove,
)
from hotvirt.preconditions.check import check
from hotvirt.preconditions.facts import MAKE_CLAIM, PATCH_VM, READ_CLAIM, Caller, Claim, Facts, Places, Quota
from hotvirt.preconditions.findings import Finding
from hotvirt.preconditions.guest import DIMMS_ONLY
from hotvirt.preconditions.room import Demand
from hotvirt.preconditions.upstream import Surroundings

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "preconditions.md"
_HEAD = """\
# Preconditions

What a change of a running guest rests on. Generated from the code that judges changes; do not edit. The same words are
in the VM's `RestartRequired` condition, in events, in `hotvirt why`, and in the API's answer to
`GET /apis/subresources.hotvirt.io/v1alpha1/namespaces/NS/virtualmachines/NAME/preconditions?change=memory=4Gi`.

A change is made in the running guest when every fact below holds. One that **blocks** makes `hotvirt why` say no; what
of it the guest or its limits decide leaves the change for the next restart, and the condition says so, while other
changes go through. One that does not block is looked at again as the change is made: the guest itself may refuse. The
words are for a VM `web` for which nothing holds.

A fact is not told where nobody could ask for it: what the caller may not read, what the guest did not say yet.
"""
_UPSTREAM = """\
# On an upstream KubeVirt

`hotvirt why` asks the API of the cluster it is pointed at. Where that is not hotvirt's, it reads the public objects
with the caller's own rights and judges by upstream's rules. There a change of CPUs or memory moves the guest to a new
pod, so it rests on more.
"""
_WEB: dict[str, Any] = {
    "metadata": {"name": "web", "namespace": "shop", "annotations": {limits.MEMORY_SLOTS: "16/16"}},
    "spec": {
        "architecture": "arm64",
        "domain": {
            "cpu": {"sockets": 1, "maxSockets": 4},
            "memory": {"guest": "1Gi", "maxGuest": "1Mi"},
            "devices": {"interfaces": [{"name": "default", "masquerade": {}}]},
        },
        "networks": [{"name": "default", "pod": {}}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}, {"name": "root"}],
    },
    "status": {
        "nodeName": "node1",
        "memory": {"guestAtBoot": "1Gi", "guestCurrent": "1Gi"},
        "currentCPUTopology": {"sockets": 9},
        "conditions": [
            {"type": "MemoryHotplugAvailable", "status": "False", "reason": DIMMS_ONLY},
            {"type": "CPUHotplugAvailable", "status": "False"},
            {"type": "PCIHotplugAvailable", "status": "False"},
            {
                "type": "HotMemoryChange",
                "status": "False",
                "reason": "GuestRefused",
                "message": "4Gi asked, it has 5Gi",
            },
            {"type": "HotVCPUChange", "status": "False", "reason": "GuestRefused", "message": "1 asked, 2 in use"},
            {"type": "Paused", "status": "True"},
        ],
    },
}
_DATA = {"name": "data", "persistentVolumeClaim": {"claimName": "store"}}
_LOST = {"name": "data", "persistentVolumeClaim": {"claimName": "lost"}}
_VIRTIO = {"name": "data", "disk": {"bus": "virtio"}}
_CHANGES: dict[str, tuple[tuple[Change, ...], str]] = {
    "Memory": ((MemoryChange(17 << 20), MemoryChange(8 << 30)), "`domain.memory.guest`"),
    "CPU sockets": ((CpuChange(8),), "`domain.cpu.sockets`"),
    "The most that memory can become": ((MemoryLimit(16 << 20), MemoryLimit(8 << 30)), "`domain.memory.maxGuest`"),
    "The most CPU sockets": ((CpuLimit(8),), "`domain.cpu.maxSockets`"),
    "A volume comes": (
        (VolumeAdd(_DATA, {"name": "data", "disk": {"bus": "sata"}}), VolumeAdd(_DATA, _VIRTIO),
         VolumeAdd(_LOST, _VIRTIO)),
        "`volumes`, `domain.devices.disks`",
    ),
    "A volume goes": ((VolumeRemove("root"),), "`volumes`, `domain.devices.disks`"),
    "A network card comes": (
        (NicAdd({"name": "default", "masquerade": {}}, {"name": "default", "multus": {"networkName": "lan"}}),
         NicAdd({"name": "odd", "bridge": {}}, {"name": "odd", "multus": {"networkName": "odd"}})),
        "`networks`, `domain.devices.interfaces`",
    ),
    "A network card goes": ((NicRemove("lan"),), "`networks`, `domain.devices.interfaces`"),
    "A cable is plugged in or out": ((NicLink("lan", "down"),), "`domain.devices.interfaces[].state`"),
}  # fmt: skip
_ODD = {"metadata": {"name": "odd", "namespace": "shop"}, "spec": {"config": '{"type": "macvlan"}'}}
_NOTHING = Facts(
    rollout_strategy="Stage", disabled_gates=frozenset(names[0] for names in cluster.GATES.values()),
    claims={"lost": Claim(phase="Lost", modes=("ReadOnlyMany",))}, claim_users={"store": "VM db", "lost": "VM db"},
    joins={"shop/lan": Bridge(name="br1"), "shop/odd": gather.joins(_ODD, "shop")},
    attachments=frozenset(), room=Demand(), spare=0, places=Places(ports=0, scsi=0, network="bridge"),
    quotas=(Quota(name="small", resource="memory", hard=2 << 30, used=2 << 30),
            Quota(name="small", resource="cpu", hard=1000, used=1000)),
    sized_by=dict.fromkeys((owner.MEMORY, owner.SOCKETS, owner.MOST_MEMORY, owner.MOST_SOCKETS), "small"),
    caller=Caller(name="ann", may={PATCH_VM: False, READ_CLAIM: False, MAKE_CLAIM: False}),
)  # fmt: skip


def findings(title: str) -> dict[str, Finding]:
    """Every fact of a section by its id, at its worst: of several changes the first for which it does not hold."""
    found: dict[str, Finding] = {}
    for change in _CHANGES[title][0]:
        for each in check(change, _WEB, _NOTHING):
            if each.id not in found or (found[each.id].status == "pass" and each.status != "pass"):
                found[each.id] = each
    return found


def render() -> str:
    """The page."""
    lines = [_HEAD]
    for title, (_, fields) in _CHANGES.items():
        lines += _section(title, fields, findings(title).values())
    lines.append(_UPSTREAM)
    for title, found in _upstream().items():
        lines += _section(title, "", found)
    return "\n".join(lines)


def _upstream() -> dict[str, list[Finding]]:
    """By upstream's rules. As few of them hold as can fail at once."""
    around = Surroundings(
        rollout_strategy="Stage", update_methods=(), schedulable_nodes=1, migrating=True, facts=_NOTHING
    )
    cpu = {"sockets": 9, "maxSockets": 4, "realtime": {}}
    vmi = {**_WEB, "spec": {**_WEB["spec"], "domain": {**_WEB["spec"]["domain"], "cpu": cpu}}}
    fixed = {"type": "LiveMigratable", "status": "False", "message": "volume data is ReadWriteOnce"}
    vmi["status"] = {**_WEB["status"], "conditions": [*_WEB["status"]["conditions"], fixed]}
    vm = {"status": {"conditions": [{"type": "RestartRequired", "status": "True", "message": "cores changed"}]}}
    small = upstream.check(MemoryChange((512 << 20) + 1), vm, vmi, around)
    large = {each.id: each for each in upstream.check(MemoryChange(8 << 30), vm, vmi, around)}
    return {
        "Memory, upstream": [each if each.status == "fail" else large.get(each.id, each) for each in small],
        "CPU sockets, upstream": upstream.check(CpuChange(8), vm, vmi, around),
        "A volume comes, upstream": upstream.check(VolumeAdd(_LOST, {"name": "data", "disk": {"bus": "sata"}}), vm, vmi,
                                                   around),
        "A network card comes, upstream": upstream.check(NicAdd({"name": "default", "masquerade": {}}, {}), vm, vmi,
                                                         around),
    }  # fmt: skip


def _section(title: str, fields: str, found: Iterable[Finding]) -> Iterator[str]:
    yield from (f"## {title}", "")
    if fields:
        yield from (fields, "")
    yield from ("| fact | needs | blocks | said when not | mend |", "|---|---|---|---|---|")
    for each in found:
        blocks = "yes" if each.status == "fail" else "no"
        yield f"| `{each.id}` | {each.required} | {blocks} | {each.message} | {each.mend} |"
    yield ""


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(render())
