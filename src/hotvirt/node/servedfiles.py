"""The files of a ConfigMap, Secret, account or pod in a directory that a guest sees, and keeps seeing as they change.

As a kubelet does it: the files are links into `..data`, which is a link to a directory of one version, and which is
replaced in one step, so that a guest finds all of the old or all of the new. Doing it twice does nothing; what a home
that died left half done is done by the next.
"""

import hashlib
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

log = logging.getLogger(__name__)

DATA, NEW = "..data", "..new"


def write(directory: Path, files: Mapping[str, bytes], *, owner: int | None) -> bool:
    """Whether there was anything to do. `files`: by relative path. `owner`: whose they are to be, None for ours."""
    files = {name: content for name, content in files.items() if is_name(name)}
    version = f"..{digest(files)}"
    for each in (directory, directory / version):
        each.mkdir(mode=0o755, exist_ok=True)
        _give(each, owner)
    if _target(directory / DATA) == version:
        return False
    for name, content in files.items():
        file = directory / version / name
        for folder in reversed([p for p in PurePosixPath(name).parents if p.name]):
            (directory / version / folder).mkdir(mode=0o755, exist_ok=True)
            _give(directory / version / folder, owner)
        file.write_bytes(content)
        file.chmod(0o644)
        _give(file, owner)
    _link(directory / NEW, version, owner)
    (directory / NEW).rename(directory / DATA)
    tops = {PurePosixPath(name).parts[0] for name in files}
    for top in tops:
        if _target(directory / top) is None:
            _link(directory / top, f"{DATA}/{top}", owner)
    for entry in os.listdir(directory):
        if entry not in tops and not entry.startswith(".."):
            (directory / entry).unlink()
        elif entry.startswith("..") and entry not in (DATA, version):
            shutil.rmtree(directory / entry, ignore_errors=True)
    return True


def is_name(name: str) -> bool:
    """Whether a file may have it: it stays in the directory, and is none of ours there."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not name.startswith(("/", "..")) and ".." not in parts


def digest(files: Mapping[str, bytes]) -> str:
    whole = hashlib.sha256()
    for name, content in sorted(files.items()):
        for part in (name.encode(), content):
            whole.update(len(part).to_bytes(8, "big") + part)
    return whole.hexdigest()[:16]


def _target(link: Path) -> str | None:
    try:
        return os.readlink(link)
    except OSError:
        return None


def _link(link: Path, target: str, owner: int | None) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(target)
    _give(link, owner)


def _give(path: Path, owner: int | None) -> None:
    if owner is not None:
        os.chown(path, owner, owner, follow_symlinks=False)
