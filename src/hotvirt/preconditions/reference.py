"""Writes docs/reference/preconditions.md, what each live change rests on: `python -m hotvirt.preconditions.reference`.

The words are those of the findings themselves, asked about one guest for which nothing holds. A test keeps the page
current, and sees to it that every fact is on it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hotvirt.preconditions.changes import Change, CpuChange, MemoryChange, VolumeAdd, VolumeRemove
from hotvirt.preconditions.check import check
from hotvirt.preconditions.cluster import GATES
from hotvirt.preconditions.facts import Facts
from hotvirt.preconditions.findings import Finding

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "preconditions.md"
_HEAD = """\
# Preconditions

What a change of a running guest rests on. Generated from the code that judges changes; do not edit. The same words are
in the VM's `RestartRequired` condition, in events and in answers of the API.

A change is made in the running guest when every fact below holds. One that **blocks** leaves the change for the next
restart, and the condition says so; other changes go through meanwhile. One that does not block is looked at again as
the change is made: the guest itself may refuse. The words are for a VM `web` for which nothing holds.
"""
_VOLUMES = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}, {"name": "root"}]
_WEB: dict[str, Any] = {
    "metadata": {"name": "web"},
    "spec": {
        "architecture": "arm64",
        "domain": {"cpu": {"sockets": 1, "maxSockets": 4}, "memory": {"guest": "1Gi", "maxGuest": "1Mi"}},
        "volumes": _VOLUMES,
    },
}
_DATA = {"name": "data", "persistentVolumeClaim": {"claimName": "store"}}
_CHANGES: dict[str, tuple[Change, str]] = {
    "Memory": (MemoryChange(16 << 20), "`domain.memory.guest`"),
    "CPU sockets": (CpuChange(8), "`domain.cpu.sockets`"),
    "A volume comes": (
        VolumeAdd(_DATA, {"name": "data", "disk": {"bus": "sata"}}),
        "`volumes`, `domain.devices.disks`",
    ),
    "A volume goes": (VolumeRemove("root"), "`volumes`, `domain.devices.disks`"),
}


def findings(change: Change) -> list[Finding]:
    """Every fact of a change, none of which holds."""
    gates = frozenset(names[0] for names in GATES.values())
    nothing = Facts(
        rollout_strategy="Stage", disabled_gates=gates, claims=frozenset(), claim_users={"store": "VM db"},
        memory_hotplug=False, cpu_hotplug=False,
    )  # fmt: skip
    return check(change, _WEB, nothing)


def render() -> str:
    """The page."""
    return "\n".join([_HEAD, *(line for title in _CHANGES for line in _section(title))])


def _section(title: str) -> Iterator[str]:
    change, fields = _CHANGES[title]
    yield from (
        f"## {title}",
        "",
        fields,
        "",
        "| fact | needs | blocks | said when not | mend |",
        "|---|---|---|---|---|",
    )
    for each in findings(change):
        blocks = "yes" if each.status == "fail" else "no"
        yield f"| `{each.id}` | {each.required} | {blocks} | {each.message} | {each.mend} |"
    yield ""


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(render())
