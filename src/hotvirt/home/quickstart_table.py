"""The quickstart's closing table. Pure."""

from msgspec import Struct

MIB = 1 << 20


class GuestFacts(Struct, frozen=True):
    """What the guest reports of itself: bytes of MemTotal, CPUs online, boot id, (name, bytes) of each disk."""

    memory: int
    cpus: int
    boot: str
    disks: tuple[tuple[str, int], ...] = ()


class Row(Struct, frozen=True):
    """One step, how long it took, and what the guest said before and after it."""

    step: str
    seconds: float
    before: GuestFacts | None = None
    after: GuestFacts | None = None


def render(rows: list[Row]) -> str:
    """Steps down, facts across; `a -> b` where a step changed the fact."""
    header = ["STEP", "SECONDS", "GUEST: MemTotal", "GUEST: nproc", "GUEST: lsblk"]
    cells = [[row.step, f"{row.seconds:.2f}", *(_cell(row, n) for n in range(3))] for row in rows]
    widths = [max(len(line[column]) for line in [header, *cells]) for column in range(len(header))]

    def line(values: list[str]) -> str:
        padded = (v.rjust(w) if n == 1 else v.ljust(w) for n, (v, w) in enumerate(zip(values, widths, strict=True)))
        return "  ".join(padded).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *(line(row) for row in cells)])


def _cell(row: Row, fact: int) -> str:
    if row.after is None:
        return ""
    after = _words(row.after)[fact]
    before = _words(row.before)[fact] if row.before else after
    return after if before == after else f"{before} -> {after}"


def _words(facts: GuestFacts) -> tuple[str, str, str]:
    disks = ", ".join(f"{name} {size // MIB} MiB" for name, size in facts.disks) or "none"
    return f"{facts.memory // MIB} MiB", str(facts.cpus), disks
