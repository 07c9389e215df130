"""What a guest's file systems are of, and the files in them: all of the old or all of the new, whenever a home dies."""

import os
from pathlib import Path

import pytest

from hotvirt.node import filekeeper, filesystems, servedfiles


def seen(directory: Path) -> dict[str, str]:
    """As the guest sees it."""
    found = {}
    for folder, _, files in os.walk(directory, followlinks=True):
        if not os.path.relpath(folder, directory).startswith(".."):
            found |= {os.path.relpath(f"{folder}/{file}", directory): Path(folder, file).read_text() for file in files}
    return found


def test_files_follow_their_source_and_nothing_old_stays(tmp_path: Path) -> None:
    directory = tmp_path / "served"
    assert servedfiles.write(directory, {"a": b"1", "b": b"2", "deep/c": b"3"}, owner=None)
    assert seen(directory) == {"a": "1", "b": "2", "deep/c": "3"}
    assert not servedfiles.write(directory, {"a": b"1", "b": b"2", "deep/c": b"3"}, owner=None)
    was = os.readlink(directory / "..data")
    assert servedfiles.write(directory, {"b": b"new", "d": b"4"}, owner=None)
    assert seen(directory) == {"b": "new", "d": "4"}
    now = os.readlink(directory / "..data")
    assert sorted(os.listdir(directory)) == sorted(["..data", now, "b", "d"])
    assert was != now


def test_what_a_dead_home_left_half_done_is_done(tmp_path: Path) -> None:
    directory = tmp_path / "served"
    servedfiles.write(directory, {"a": b"1"}, owner=None)
    version = f"..{servedfiles.digest({'a': b'2'})}"
    (directory / version).mkdir()  # died before its files
    (directory / "..new").symlink_to("..nowhere")
    assert servedfiles.write(directory, {"a": b"2"}, owner=None)
    assert seen(directory) == {"a": "2"}
    assert sorted(os.listdir(directory)) == sorted(["..data", version, "a"])


@pytest.mark.parametrize("name", ["../out", "/out", "a/../../out", "..data", "..", ""])
def test_no_file_leaves_the_directory_or_takes_a_name_of_ours(tmp_path: Path, name: str) -> None:
    directory = tmp_path / "served"
    servedfiles.write(directory, {name: b"1", "a": b"2"}, owner=None)
    assert seen(directory) == {"a": "2"}
    assert os.listdir(tmp_path) == ["served"]


SPEC = {
    "domain": {"devices": {"filesystems": [{"name": "c", "virtiofs": {}}, {"name": "p", "virtiofs": {}}]}},
    "volumes": [
        {"name": "d", "emptyDisk": {}}, {"name": "p", "downwardAPI": {}}, {"name": "c", "configMap": {"name": "conf"}},
    ],
}  # fmt: skip


def test_an_instance_is_found_by_what_its_file_systems_follow() -> None:
    assert list(filesystems.wishes(SPEC)) == ["c", "p"]
    assert filesystems.wishes({}) == {}
    vmi = {"metadata": {"namespace": "ns", "name": "web"}, "spec": SPEC}
    assert filekeeper.source_keys(vmi) == ["configMap/ns/conf", "downwardAPI/ns/web"]


def test_a_server_is_told_in_its_own_words() -> None:
    old = filesystems.argv(Path("/usr/lib/qemu/virtiofsd"))
    assert old[:3] == ("/usr/lib/qemu/virtiofsd", "--fd=10", "--rlimit-nofile=0")
    assert "source=/mnt" in old
    new = filesystems.argv(Path("/usr/libexec/virtiofsd"))
    assert "--shared-dir=/mnt" in new
    assert "-o" not in new


def test_a_machine_without_a_server_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystems, "_PLACES", ())
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(filesystems.ServerMissing, match="apt-get install virtiofsd"):
        filesystems.find()
