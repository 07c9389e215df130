"""Reads the file trees that ship inside this package and end up inside guests."""

from importlib.resources.abc import Traversable


def read(directory: Traversable, prefix: str = "") -> list[tuple[str, bytes]]:
    """Every file below `directory` as (relative path, content), in a fixed order."""
    found: list[tuple[str, bytes]] = []
    for entry in sorted(directory.iterdir(), key=lambda entry: entry.name):
        path = prefix + entry.name
        found += read(entry, path + "/") if entry.is_dir() else [(path, entry.read_bytes())]
    return found


def mode(data: bytes) -> int:
    """A script is executable, anything else is not: package installers may lose the mode."""
    return 0o755 if data.startswith(b"#!") else 0o644
