"""Writes docs/reference/fields.md, what hotvirt does with each field of KubeVirt's objects, and prints the shares:
`python -m hotvirt.api.fields`.

Made from the tables that admission acts by; a test keeps it current.

A type that several fields lead to is described once. Fields below one that is refused or without effect share its
treatment: they are counted, and not listed.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from hotvirt.api import explain, schemas, support
from hotvirt.api.support import Entry, Support

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "fields.md"
ROOTS = {
    "VirtualMachine": ("VirtualMachineSpec", "spec"),
    "VirtualMachineInstance": ("VirtualMachineInstanceSpec", "spec"),
    "VirtualMachineInstanceReplicaSet": ("VirtualMachineInstanceReplicaSetSpec", "spec"),
    "VirtualMachinePool": ("VirtualMachinePoolSpec", "spec"),
    "VirtualMachineInstancetype": ("VirtualMachineInstancetypeSpec", "spec"),
    "VirtualMachinePreference": ("VirtualMachinePreferenceSpec", "spec"),
    "VirtualMachineInstanceMigration": ("VirtualMachineInstanceMigrationSpec", "spec"),
    "MigrationPolicy": ("MigrationPolicySpec", "spec"),
    "KubeVirt": ("KubeVirtSpec", "spec"),
}
"""What people write, by kind. The cluster's instancetypes and preferences have the specs of the others."""
STATUSES = {
    "VirtualMachine": "VirtualMachineStatus",
    "VirtualMachineInstance": "VirtualMachineInstanceStatus",
    "VirtualMachineInstanceReplicaSet": "VirtualMachineInstanceReplicaSetStatus",
    "VirtualMachinePool": "VirtualMachinePoolStatus",
    "VirtualMachineInstanceMigration": "VirtualMachineInstanceMigrationStatus",
    "KubeVirt": "KubeVirtStatus",
}
_HEAD = """\
# Fields

What hotvirt does with each field of KubeVirt's objects. Generated from the tables that admission acts by; do not edit.

* **acted on**: as the words say.
* **no effect**: accepted, for the reason given.
* **refused**: an object that sets it is not stored; the answer names the field and says what to do instead. In the
  KubeVirt object nothing is refused for being without effect, since a manifest written for upstream should go through.

A field whose treatment is that of everything below it tells how many fields that are. A type is described where it
first occurs.
"""
_STATUS_HEAD = """\
## Statuses

What the controllers report. A field that is not reported is never there.
"""


class Account(Struct, frozen=True):
    """A type of the object model that is described field by field, and where the first one is that leads to it."""

    name: str
    path: str
    entries: dict[str, Entry]


def accounts(root: str, path: str) -> list[Account]:
    """The types below `root` that are described, parents first."""
    found: dict[str, Account] = {}
    waiting = [(root, path)]
    while waiting:
        name, here = waiting.pop(0)
        if name in found:
            continue
        fields = schemas.fields(name)
        entries = {field: support.of(name, field) for field in fields}
        found[name] = Account(name, here, entries)
        for field, kind in fields.items():
            if not support.decides(kind, entries[field]):
                waiting.append((kind.item, f"{here}.{field}{'[]' if kind.shape == 'list' else ''}"))
    return [account for account in found.values() if account.entries]


def treatment(root: str) -> dict[str, Support]:
    """`Type.field` -> what becomes of it, for every field that can be reached from `root`."""
    described = {account.name: account for account in accounts(root, "")}
    found = {f"{name}.{f}": entry.support for name, each in described.items() for f, entry in each.entries.items()}
    # What is accepted in one place and refused in another counts as accepted.
    for wanted in (Support.ACTED_ON, Support.NO_EFFECT, Support.REFUSED):
        for name, account in described.items():
            kinds = schemas.fields(name)
            for field, entry in account.entries.items():
                if entry.support is wanted and support.decides(kinds[field], entry):
                    found = {**dict.fromkeys(_below(name, field), wanted), **found}
    return found


def _below(name: str, field: str) -> list[str]:
    """Every `Type.field` below a field, however deep."""
    kind, seen = schemas.fields(name)[field], dict[str, None]()
    waiting = [] if kind.is_scalar else [kind.item]
    while waiting:
        item = waiting.pop()
        if item not in seen:
            seen[item] = None
            waiting += [each.item for each in schemas.fields(item).values() if not each.is_scalar]
    return [f"{item}.{each}" for item in seen for each in schemas.fields(item)]


def shares() -> list[str]:
    """A table: how many of each kind's fields are acted on, have no effect, are refused; then of each status."""
    lines = ["| object | fields | acted on | no effect | refused |", "|---|---|---|---|---|"]
    for kind, (root, _) in ROOTS.items():
        counts = Counter(treatment(root).values())
        total = counts.total()
        shown = (f"{counts[each]} ({100 * counts[each] / total:.0f} %)" for each in Support)
        lines.append(f"| {kind} | {total} | {' | '.join(shown)} |")
    return lines


def render() -> str:
    """The page."""
    seen: set[str] = set()
    described = []
    for root, path in ROOTS.values():
        described += [account for account in accounts(root, path) if account.name not in seen]
        seen |= {account.name for account in described}
    lines = [_HEAD, *shares(), "", *(line for account in described for line in _section(account)), _STATUS_HEAD]
    return "\n".join([*lines, *(line for kind, name in STATUSES.items() for line in _status(kind, name))])


def _status(kind: str, name: str) -> Iterator[str]:
    yield from (f"### {kind} status", "", "| field | |", "|---|---|")
    for field in schemas.fields(name):
        yield f"| `{field}` | {explain.WORDS.get(f'{name}.{field}', 'Not reported.')} |"
    yield ""


def _section(account: Account) -> Iterator[str]:
    yield from (f"## {account.name}", "", f"`{account.path}`", "", "| field | here | |", "|---|---|---|")
    kinds = schemas.fields(account.name)
    for field, entry in account.entries.items():
        yield f"| `{field}` | {entry.support} | {_words(account.name, field, kinds[field], entry)} |"
    yield ""


def _words(name: str, field: str, kind: schemas.Kind, entry: Entry) -> str:
    match entry.support:
        case Support.ACTED_ON:
            words = explain.WORDS[f"{name}.{field}"]
        case Support.NO_EFFECT:
            words = f"{entry.reason[0].upper()}{entry.reason[1:]}."
        case Support.REFUSED:
            mend = support.mend(field)
            words = f"{mend[0].upper()}{mend[1:]}."
    count = len(_below(name, field)) if support.decides(kind, entry) else 0
    return f"{words} ({count} below it)" if count else words


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(render())
    print(*shares(), sep="\n")
