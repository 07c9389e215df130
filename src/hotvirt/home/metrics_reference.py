"""Writes docs/reference/metrics.md from the metrics themselves: `python -m hotvirt.home.metrics_reference`.

A test keeps it current.
"""

from pathlib import Path

from hotvirt.controllers import metrics as objects
from hotvirt.controllers.phasetimes import PhaseTimes
from hotvirt.node import metrics as guests

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "metrics.md"
_HEAD = """\
# Metrics

`kubectl get --raw /metrics`, or a Prometheus that is given a client certificate or token of somebody who may `get` the
path `/metrics`. Names and labels are KubeVirt's. Generated from the code; do not edit.

Figures of guests are read when they are asked for: CPU time from QEMU's threads, disks from QEMU, network from the
guest's tap (user-mode networking counts nothing), memory, load and file systems from the guest itself, by its agent.

| metric | type | what it tells |
|---|---|---|
"""


def render() -> str:
    """The page."""
    families = [
        *objects.machines(()), *objects.instances(()), *objects.phases(PhaseTimes()), *guests.families({}, ""),
    ]  # fmt: skip
    rows = []
    for family in families:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        kind = "gauge" if family.type == "unknown" else family.type
        rows.append(f"| `{name}` | {kind} | {family.documentation} |")
    return _HEAD + "\n".join(sorted(rows)) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render())
