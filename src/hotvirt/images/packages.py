"""Fetches distribution packages for a guest without installing them: apt finds and verifies, dpkg-deb unpacks.

Works as an ordinary user. The machine's own package lists are used while they serve; where there are none (a fresh
container) or they are out of date, lists are fetched into a private directory, so nothing of the machine changes.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hotvirt.images.errors import ImageError, ToolFailed
from hotvirt.images.tools import Progress, run

Graph = Mapping[str, Sequence[str]]
"""Package name -> names it depends on."""


@dataclass(frozen=True)
class Fetched:
    """Packages unpacked over each other into `root`."""

    root: Path
    versions: Mapping[str, str]


class Apt:
    """apt, reading the machine's sources and keys, and writing only below `work`."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._private = False

    async def dependencies(self, names: Sequence[str]) -> Graph:
        """The dependency graph from these packages on; those that the lists don't know are missing from it."""
        argv = ["apt-cache", *self._options(), "depends", "--recurse", "--important", *names]
        try:
            return parse_depends(await run(argv, deadline=60))
        except ToolFailed as error:
            if "No packages found" in str(error) or "Unable to locate" in str(error):
                return {}
            raise

    async def update(self) -> None:
        """Fetch private lists. One unreachable third-party source must not matter, so the exit code doesn't."""
        self._private = True
        for part in ("state/lists/partial", "cache/archives/partial"):
            (self._work / part).mkdir(parents=True, exist_ok=True)
        try:
            await run(["apt-get", *self._options(), "-qq", "update"], deadline=300)
        except ToolFailed:
            pass

    async def download(self, names: Sequence[str], into: Path) -> dict[str, Path]:
        """Each package's newest version as a .deb file in `into`."""
        into.mkdir(parents=True, exist_ok=True)
        await run(
            ["apt-get", *self._options(), "-q", "download", *names], deadline=900, cwd=into, what="fetching packages"
        )
        return {path.name.split("_", 1)[0]: path for path in sorted(into.glob("*.deb"))}

    def _options(self) -> list[str]:
        options = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
        if self._private:
            settings = {
                "Dir::State": self._work / "state",
                "Dir::State::lists": self._work / "state/lists",
                "Dir::State::status": Path("/var/lib/dpkg/status"),
                "Dir::Cache": self._work / "cache",
                "Dir::Cache::archives": self._work / "cache/archives",
            }
            options += [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
            options += ["-o", "Acquire::Languages=none"]
        return options


def parse_depends(text: str) -> dict[str, list[str]]:
    """`apt-cache depends --recurse` as a graph. Virtual packages (`<name>`) are left out: their providers follow."""
    graph: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        if line and not line[0].isspace() and line[0] != "<":
            current = graph.setdefault(line.split(":", 1)[0], [])
        elif match := re.match(r"^ [ |](?:Pre)?Depends: ([^<\s]+)$", line):
            current.append(match[1].split(":", 1)[0])
    return graph


def closure(start: Iterable[str], graph: Graph, *, keep: re.Pattern[str]) -> list[str]:
    """The packages reachable from `start` by names that `keep` matches, `start` itself first."""
    found = list(dict.fromkeys(start))
    for name in found:
        found += [other for other in graph.get(name, ()) if keep.match(other) and other not in found]
    return found


Selector = Callable[[Graph], list[str]]
"""Chooses which packages to take from a graph; nothing when the graph has not what is needed."""


async def fetch(select: Selector, *, ask: Sequence[str], work: Path, progress: Progress) -> Fetched:
    """Choose packages by what is reachable from `ask`, download and unpack them below `work`.

    When the machine's lists are empty, or so old that a download fails, it is done once more with fresh private ones.
    """
    apt = Apt(work)
    failure: ToolFailed | None = None
    for private in (False, True):
        if private:
            progress("reading the package lists", None)
            await apt.update()
        names = select(await apt.dependencies(ask))
        if not names:
            continue
        progress(f"fetching {len(names)} packages", None)
        try:
            debs = await apt.download(names, work / "debs")
        except ToolFailed as error:
            failure = error
            continue
        progress("unpacking", None)
        return await _unpack([debs[name] for name in names], work / "root")
    raise failure or ImageError(
        f"the package sources of this machine offer none of: {', '.join(ask)}; "
        "check /etc/apt/sources.list and the network, then try again"
    )


async def _unpack(debs: Sequence[Path], root: Path) -> Fetched:
    root.mkdir(parents=True, exist_ok=True)
    for deb in debs:
        await run(["dpkg-deb", "-x", str(deb), str(root)], deadline=120)
    return Fetched(root=root, versions={deb.name.split("_")[0]: deb.name.split("_")[1] for deb in debs})
