"""A finding: one fact a live change rests on, looked at. The same findings speak in conditions, events, CLI and API."""

from collections.abc import Iterable
from typing import Any, Literal

from msgspec import Struct

Status = Literal["pass", "fail", "unknown"]


class Finding(Struct, frozen=True, kw_only=True):
    """`id` such as memory.max-guest; `change` the one asked about, such as memory=4Gi; `field` the path below a VM's
    spec.template.spec, or "". `mend` is a command or an edit that would make it pass, "" when there is none."""

    id: str
    status: Status
    message: str
    change: str = ""
    actual: str = ""
    required: str = ""
    mend: str = ""
    field: str = ""


def verdict(holds: bool | None) -> Status:
    """None: it could not be found out."""
    return "unknown" if holds is None else "pass" if holds else "fail"


def blockers(findings: Iterable[Finding]) -> list[Finding]:
    """The findings that forbid the change. `unknown` does not: QEMU and the guest will tell."""
    return [finding for finding in findings if finding.status == "fail"]


def sentence(findings: Iterable[Finding]) -> str:
    """All that fails, in one line for a person: what, why, and what mends it."""
    return "; ".join(
        f"{finding.message}{f' ({finding.mend})' if finding.mend else ''}" for finding in blockers(findings)
    )


# What facts read of an object again and again


def condition(obj: dict[str, Any] | None, kind: str) -> dict[str, Any] | None:
    found = ((obj or {}).get("status") or {}).get("conditions") or ()
    return next((each for each in found if each.get("type") == kind), None)


def machine(vmi: dict[str, Any]) -> str:
    """Its name, for a command."""
    return str((vmi.get("metadata") or {}).get("name") or "NAME")


def namespace(vmi: dict[str, Any]) -> str:
    return str((vmi.get("metadata") or {}).get("namespace") or "default")
