"""What this machine has: a QEMU, and KVM that works or not. And knowing a process again."""

import os
import sys
from pathlib import Path

import pytest

from hotvirt.qemu import binary, probe
from hotvirt.qemu.errors import QemuMissing
from hotvirt.qemu.process import Identity, Process, alive, identify


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright", (7, 2, 22)),
        ("QEMU emulator version 8.2.2 (Debian 1:8.2.2+ds-0ubuntu1)", (8, 2, 2)),
        ("QEMU emulator version 10.0", (10, 0, 0)),
        ("something else", None),
    ],
)
def test_versions(text: str, version: tuple[int, int, int] | None) -> None:
    assert binary.parse_version(text) == version


def _program(path: Path, says: str) -> Path:
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def test_a_missing_qemu_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(QemuMissing, match=r"apt-get install --no-install-recommends qemu-system-x86$"):
        binary.find(str(tmp_path))
    with pytest.raises(QemuMissing, match=r"apt-get install --no-install-recommends qemu-utils$"):
        binary.find_img(str(tmp_path))


def test_an_old_qemu_says_what_is_needed(tmp_path: Path) -> None:
    _program(tmp_path / "qemu-system-x86_64", "QEMU emulator version 6.1.0")
    with pytest.raises(QemuMissing, match=r"version 6\.1\.0; hotvirt needs 7.2 or newer"):
        binary.find(str(tmp_path))


def test_a_good_qemu_is_found(tmp_path: Path) -> None:
    path = _program(tmp_path / "qemu-system-x86_64", "QEMU emulator version 9.1.0")
    assert binary.find(str(tmp_path)) == binary.QemuBinary(str(path), (9, 1, 0))


def test_no_device_means_no_kvm_and_how_to_get_it(tmp_path: Path) -> None:
    found = probe.probe(device=str(tmp_path / "kvm"))
    assert found.kind == "tcg"
    assert found.reason == f"there is no {tmp_path / 'kvm'}"
    assert "modprobe kvm_intel" in found.mend


def test_a_device_that_is_not_kvm_is_not_believed() -> None:
    found = probe.probe(device="/dev/null")
    assert found.kind == "tcg"
    assert "KVM cannot run a guest (OSError" in found.reason


def test_the_answer_is_kept_for_this_boot(tmp_path: Path) -> None:
    cache = tmp_path / "state" / "kvm.json"
    first = probe.probe(cache, device="/dev/null")
    cache.write_text(cache.read_text().replace("KVM cannot", "kept: KVM cannot"))
    assert probe.probe(cache, device="/dev/null").reason == "kept: " + first.reason
    cache.write_text(cache.read_text().replace('"boot_id":"', '"boot_id":"another'))
    assert probe.probe(cache, device="/dev/null") == first
    cache.write_text("rubbish")
    assert probe.probe(cache, device="/dev/null") == first


@pytest.mark.parametrize(
    ("word", "kind", "part"),
    [
        ("ok", "kvm", "KVM runs 1500 million"),
        ("slow", "tcg", "emulates: 1500.0 million"),
        ("hang", "tcg", "did not end"),
        ("it ended with -11", "tcg", "(it ended with -11)"),
    ],
)
def test_findings_are_told(word: str, kind: str, part: str) -> None:
    found = probe.interpret(word, 1500.0)
    assert found.kind == kind
    assert part in found.reason
    assert bool(found.mend) is (kind == "tcg")


def test_a_process_is_known_by_number_and_start() -> None:
    me = identify(os.getpid())
    assert me is not None
    assert alive(me)
    assert not alive(Identity(me.pid, me.start_time + 1))
    assert Process.open(Identity(me.pid, me.start_time + 1)) is None


async def test_a_child_is_waited_for_by_any_number_and_collected_once() -> None:
    pid = os.posix_spawn(  # noqa: ASYNC221  returns at once
        sys.executable, [sys.executable, "-I", "-S", "-c", "raise SystemExit(7)"], {}
    )
    identity = identify(pid)
    assert identity is not None
    process = Process.open(identity)
    if process is not None:  # it may be quick
        with process:
            assert await process.wait() == 7
            assert await process.wait() is None
    assert identify(pid) is None
