"""Writes docs/reference/fields.md, what hotvirt does with each field of the specs: `python -m hotvirt.api.fields`.

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
}
_HEAD = """\
# Fields

What hotvirt does with each field of the specs of KubeVirt's VirtualMachine and VirtualMachineInstance. Generated from
the tables that admission acts by; do not edit.

* **acted on**: as the words say.
* **no effect**: accepted, for the reason given.
* **refused**: an object that sets it is not stored; the answer names the field and says what to do instead.

A field whose treatment is that of everything below it tells how many fields that are.
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


def render() -> str:
    """The page."""
    shares = [_HEAD, "| object | fields | acted on | no effect | refused |", "|---|---|---|---|---|"]
    for kind, (root, _) in ROOTS.items():
        counts = Counter(treatment(root).values())
        total = counts.total()
        shown = (f"{counts[each]} ({100 * counts[each] / total:.0f} %)" for each in Support)
        shares.append(f"| {kind} | {total} | {' | '.join(shown)} |")
    root, path = ROOTS["VirtualMachine"]
    return "\n".join([*shares, "", *(line for account in accounts(root, path) for line in _section(account))])


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
