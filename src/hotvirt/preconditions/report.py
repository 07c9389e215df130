"""Several changes judged for one machine, as one document: what `hotvirt why`, the API and the console show. Pure.

Without a change asked about, it says what could be changed now, and up to where.
"""

from collections.abc import Iterable
from typing import Any

from msgspec import Struct, to_builtins

from hotvirt.api import defaults, disks, quantity
from hotvirt.api.defaults import ClusterSettings
from hotvirt.preconditions import asked, cluster, cpu, guest, memory
from hotvirt.preconditions.changes import CpuChange, MemoryChange, VolumeAdd, VolumeRemove
from hotvirt.preconditions.check import check, check_stopped
from hotvirt.preconditions.facts import Facts
from hotvirt.preconditions.findings import Finding, blockers
from hotvirt.preconditions.space import PAGE_TABLES

Document = dict[str, Any]
KIND, GROUP = "PreconditionReport", "subresources.hotvirt.io/v1alpha1"


class Judgement(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change. `now`, `least` and `most` where what is asked is how far it can go."""

    change: str
    possible: bool
    now: str = ""
    least: str = ""
    most: str = ""
    findings: tuple[Finding, ...] = ()


class Report(Struct, frozen=True, kw_only=True):
    """`rules` says whose: hotvirt's, which change the running QEMU, or upstream KubeVirt's."""

    name: str
    namespace: str
    running: bool
    rules: str
    changes: tuple[Judgement, ...]

    @property
    def possible(self) -> bool:
        return all(each.possible for each in self.changes)

    def document(self) -> Document:
        return {
            "kind": KIND,
            "apiVersion": GROUP,
            "metadata": {"name": self.name, "namespace": self.namespace},
            "rules": self.rules,
            "running": self.running,
            "possible": self.possible,
            "changes": [_judgement(each) for each in self.changes],
        }


def _judgement(found: Judgement) -> Document:
    findings = [
        {key: value for key, value in to_builtins(each).items() if value and key != "change"} for each in found.findings
    ]
    whole: Document = to_builtins(found)
    return {**whole, "findings": findings}


def is_running(vmi: Document | None) -> bool:
    return ((vmi or {}).get("status") or {}).get("phase") == "Running"


def judge(texts: Iterable[str], vm: Document, vmi: Document | None, facts: Facts, kubevirt: Document | None) -> Report:
    """ValueError for a text that names no change."""
    running = vmi if is_running(vmi) else None
    changes = {text: asked.read(text, vm, running) for text in texts}
    if not changes:
        return report(vm, vmi, overview(vm, vmi, facts, kubevirt))
    if running is not None:
        return report(vm, vmi, [judgement(text, check(each, running, facts)) for text, each in changes.items()])
    template = _template(vm, kubevirt)
    return report(vm, vmi, [judgement(text, check_stopped(each, template, facts)) for text, each in changes.items()])


def report(vm: Document, vmi: Document | None, found: Iterable[Judgement], *, rules: str = "hotvirt") -> Report:
    metadata = vm.get("metadata") or {}
    return Report(
        name=str(metadata.get("name") or ""), namespace=str(metadata.get("namespace") or ""),
        running=is_running(vmi), rules=rules, changes=tuple(found),
    )  # fmt: skip


def judgement(change: str, findings: Iterable[Finding], **more: str) -> Judgement:
    found = tuple(findings)
    return Judgement(change=change, possible=not blockers(found), findings=found, **more)


# What could be changed now


def overview(vm: Document, vmi: Document | None, facts: Facts, kubevirt: Document | None) -> list[Judgement]:
    if vmi is None or not is_running(vmi):
        template = _template(vm, kubevirt)
        change = MemoryChange(defaults.guest_memory(template["spec"]["domain"]) or memory.LEAST)
        return [judgement("any", check_stopped(change, template, facts), now="stopped", most="at its next start")]
    return [_memory(vmi, facts), _cpus(vmi, facts), _disks(vmi, facts), *_gone(vmi, facts)]


def _memory(vmi: Document, facts: Facts) -> Judgement:
    domain, status = vmi["spec"].get("domain") or {}, (vmi.get("status") or {}).get("memory") or {}
    asked_for = defaults.guest_memory(domain) or 0
    most = memory.most_memory(vmi)[0] or asked_for
    if facts.room is not None:
        left = max(0, facts.room.memory)
        most = min(most, asked_for + defaults.whole_blocks(left - left // PAGE_TABLES))
    most = max(defaults.whole_blocks(most), memory.LEAST)
    now = status.get("guestCurrent") or quantity.format_bytes(asked_for)
    return judgement(
        "memory", check(MemoryChange(most), vmi, facts), now=str(now), least=_least(quantity.parse_bytes(now), facts),
        most=quantity.format_bytes(most),
    )  # fmt: skip


def _least(current: int, facts: Facts) -> str:
    """As far down as the guest can go now."""
    keeps = memory.LEAST if facts.spare is None else current - max(0, facts.spare - memory.RESERVE)
    blocks = -(-max(memory.LEAST, keeps) // defaults.BLOCK)
    return quantity.format_bytes(blocks * defaults.BLOCK)


def _cpus(vmi: Document, facts: Facts) -> Judgement:
    domain = vmi["spec"].get("domain") or {}
    topology = domain.get("cpu") or {}
    each = int(topology.get("cores") or 1) * int(topology.get("threads") or 1)
    has, most = defaults.sockets(domain), cpu.most_sockets(vmi)
    if facts.room is not None:
        most = max(has, min(most, has + max(0, facts.room.cpu) * facts.cpu_ratio // 1000 // each))
    now = ((vmi.get("status") or {}).get("currentCPUTopology") or {}).get("sockets") or has
    return judgement(
        "cpu", check(CpuChange(most), vmi, facts), now=str(int(now) * each), least=str(each), most=str(most * each)
    )


def _disks(vmi: Document, facts: Facts) -> Judgement:
    """What any disk rests on, and which claims are free to come."""
    any_disk = VolumeAdd({"name": "", "persistentVolumeClaim": {"claimName": ""}}, {"disk": {"bus": "scsi"}})
    facts_of_any = (cluster.patch_vm, cluster.gate, guest.standing)
    here = {disks.claim(volume) for volume in vmi["spec"].get("volumes") or ()}
    users = facts.claim_users or {}
    free = sorted(name for name in facts.claims or () if name not in here and name not in users)
    found = [each for fact in facts_of_any if (each := fact(any_disk, vmi, facts)) is not None]
    count = len(vmi["spec"].get("volumes") or ())
    most = "not known" if facts.claims is None else f"free claims: {', '.join(free[:10])}" if free else "no free claim"
    if facts.places is not None:
        most += f"; places: {facts.places.scsi} scsi, {facts.places.ports} virtio"
    return judgement("disk", found, now=f"{count} volumes", most=most)


def _gone(vmi: Document, facts: Facts) -> list[Judgement]:
    names = [str(v["name"]) for v in vmi["spec"].get("volumes") or () if disks.is_hotpluggable(v)]
    if not names:
        return []
    change = VolumeRemove(names[0])
    found = [each for fact in (cluster.patch_vm, cluster.gate) if (each := fact(change, vmi, facts)) is not None]
    return [judgement("no-disk", found, now=", ".join(names[:10]), most="each of these")]


def _template(vm: Document, kubevirt: Document | None) -> Document:
    """The instance as a start would make it now."""
    spec = ((vm.get("spec") or {}).get("template") or {}).get("spec") or {}
    return defaults.instance({"metadata": vm.get("metadata") or {}, "spec": spec}, ClusterSettings.of(kubevirt))
