"""The receiver becomes what it is told, with the descriptors, rights and limits it is told. No QEMU: Python reports."""

import asyncio
import json
import os
import shutil
import socket
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hotvirt.qemu import launch
from hotvirt.qemu.errors import LaunchError
from hotvirt.qemu.launch import (
    Descriptors,
    Request,
    Share,
    listening_socket,
    read_log,
    send_launch,
    spawn_receiver,
    trim_log,
)
from hotvirt.qemu.process import Identity, Process

REPORT = """
import json, os, resource, sys
fds = {}
for name in os.listdir("/proc/self/fd"):
    try: fds[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    except OSError: pass
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
print(json.dumps({"fds": fds, "uid": os.getresuid(), "groups": os.getgroups(), "nnp": status["NoNewPrivs"],
    "caps": status["CapEff"], "nofile": resource.getrlimit(resource.RLIMIT_NOFILE), "sid": os.getsid(0),
    "pid": os.getpid(), "env": dict(os.environ), "net": os.readlink("/proc/self/ns/net"), "argv": sys.argv[1:]}))
"""


@pytest.fixture
def pod() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hv-") as directory:
        os.chmod(directory, 0o755)
        yield Path(directory)


def _spawn(pod: Path) -> Identity:
    listener = listening_socket(pod / "launch.sock")
    try:
        return spawn_receiver(listener, log=pod / "log")
    finally:
        listener.close()


async def _finish(identity: Identity) -> int:
    """Its exit code. It is a child of ours, and may have ended long ago."""
    async with asyncio.timeout(20):
        _, status = await asyncio.to_thread(os.waitpid, identity.pid, 0)
    return os.waitstatus_to_exitcode(status)


def _request(*, python: str = sys.executable, **options: object) -> Request:
    return Request(argv=(python, "-I", "-S", "-c", REPORT, "--", "-x"), **options)


async def test_descriptors_get_their_numbers_and_nothing_else_is_inherited(pod: Path) -> None:
    identity = _spawn(pod)
    with Descriptors(first=3) as descriptors:
        numbers = []
        for name in "abcde":
            (pod / name).write_text(name)
            numbers.append(descriptors.open(pod / name, read_only=True).fd)
        assert numbers == [3, 4, 5, 6, 7]
        # Crosswise, so that every number is another's source somewhere.
        mapping = dict(zip(reversed(numbers), descriptors.mapping.values(), strict=True))
        await send_launch(pod / "launch.sock", _request(), descriptors=mapping)
    assert await _finish(identity) == 0
    report = json.loads(read_log(pod / "log"))
    fds = {int(number): target for number, target in report["fds"].items()}
    assert {number: Path(fds[number]).name for number in range(3, 8)} == {7: "a", 6: "b", 5: "c", 4: "d", 3: "e"}
    assert not [target for number, target in fds.items() if number > 7 and not target.startswith("/proc/")]
    assert fds[0] == "/dev/null"
    assert fds[1] == fds[2] == str(pod / "log")
    assert report["argv"] == ["--", "-x"] or report["argv"] == ["-x"]


async def test_the_process_is_the_same_one_in_a_session_of_its_own(pod: Path) -> None:
    identity = _spawn(pod)
    await send_launch(pod / "launch.sock", _request(environment={"A": "b"}), descriptors={})
    await _finish(identity)
    report = json.loads(read_log(pod / "log"))
    assert report["pid"] == report["sid"] == identity.pid
    assert report["nnp"].strip() == "1"
    assert report["env"].get("A") == "b"
    assert "HOME" not in report["env"]


async def test_limits_are_lowered_as_far_as_allowed(pod: Path) -> None:
    identity = _spawn(pod)
    await send_launch(pod / "launch.sock", _request(rlimits={"nofile": 123, "memlock": 1 << 60}), descriptors={})
    await _finish(identity)
    assert json.loads(read_log(pod / "log"))["nofile"] == [123, 123]


@pytest.mark.skipif(os.getuid() != 0, reason="becoming another user takes root")
async def test_rights_are_given_up(pod: Path) -> None:
    identity = _spawn(pod)
    python = shutil.which("python3", path="/usr/bin")
    if python is None:
        pytest.skip("the tests' own Python may be out of another user's reach, and there is no /usr/bin/python3")
    request = _request(python=python, uid=65534, gid=65533, groups=(65532,), isolate=("net",))
    await send_launch(pod / "launch.sock", request, descriptors={})
    await _finish(identity)
    report = json.loads(read_log(pod / "log"))
    assert report["uid"] == [65534, 65534, 65534]
    assert report["groups"] in ([65532], [65532, 65533])
    assert int(report["caps"], 16) == 0
    assert report["net"] != os.readlink("/proc/self/ns/net")


async def test_a_bad_request_is_told_and_the_receiver_waits_on(pod: Path) -> None:
    identity = _spawn(pod)
    with pytest.raises(LaunchError, match="/none/qemu cannot be executed"):
        await send_launch(pod / "launch.sock", Request(argv=("/none/qemu",)), descriptors={})
    with pytest.raises(LaunchError, match="above 2"):
        await send_launch(pod / "launch.sock", _request(), descriptors={1: 0})
    with pytest.raises(LaunchError, match="has a NUL in it"):
        await send_launch(pod / "launch.sock", Request(argv=(sys.executable, "a\0b")), descriptors={})
    for bad, why in ((b"argv\0two\0", "ValueError"), (b"argv\x001\0x\0", "KeyError: 'fds'"), (b"", "KeyError: 'fds'")):
        assert _told(pod / "launch.sock", bad).startswith(why)
    await send_launch(pod / "launch.sock", _request(), descriptors={})
    assert await _finish(identity) == 0


def _told(path: Path, text: bytes) -> str:
    """What the receiver answers to a request that is none."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        sock.sendall(struct.pack("!I", len(text)) + text)
        return sock.recv(4096).decode()


async def test_words_that_are_no_text_reach_the_program(pod: Path) -> None:
    """A path need not be UTF-8."""
    identity = _spawn(pod)
    word = os.fsdecode(b"caf\xe9 \xff")
    request = Request(argv=(*_request().argv, word, "", "a\nb"), environment={"A": "x=y", "B": ""})
    await send_launch(pod / "launch.sock", request, descriptors={})
    await _finish(identity)
    report = json.loads(read_log(pod / "log"))
    assert report["argv"][-3:] == [word, "", "a\nb"]
    assert {name: report["env"][name] for name in "AB"} == {"A": "x=y", "B": ""}


async def test_what_fails_after_the_point_of_no_return_is_told(pod: Path) -> None:
    identity = _spawn(pod)
    (pod / "broken").write_bytes(b"\x7fELF broken")
    (pod / "broken").chmod(0o755)
    with pytest.raises(LaunchError, match="Exec format error"):
        await send_launch(pod / "launch.sock", Request(argv=(str(pod / "broken"),)), descriptors={})
    assert await _finish(identity) == 1


async def test_no_receiver(pod: Path) -> None:
    with pytest.raises(LaunchError, match="no launch receiver"):
        await send_launch(pod / "launch.sock", _request(), descriptors={})


async def test_a_killed_receiver_is_seen(pod: Path) -> None:
    identity = _spawn(pod)
    with Process.open(identity) as process:
        assert await process.stop(grace=5.0) == -15
        assert process.send(9) is False
    assert Process.open(identity) is None


def test_sockets_are_private_and_replace_what_was_left(pod: Path) -> None:
    for _ in range(2):
        listener = listening_socket(pod / "s")
        assert (pod / "s").stat().st_mode & 0o777 == 0o600
        listener.close()
    with pytest.raises(LaunchError, match="shorter --home"):
        listening_socket(pod / ("x" * 120))


def test_descriptors_close_what_they_own(pod: Path) -> None:
    with Descriptors() as descriptors:
        number = descriptors.listen(pod / "s")
        ours = descriptors.mapping[number]
        assert number == launch.FIRST_FD
        assert socket.socket(fileno=os.dup(ours)).close() is None
    with pytest.raises(OSError):
        os.fstat(ours)


def test_logs_stay_short_and_keep_their_end(pod: Path) -> None:
    log = pod / "log"
    trim_log(log)
    assert read_log(log) == ""
    log.write_text("".join(f"line {i}\n" for i in range(1000)))
    with log.open("ab") as writer:
        trim_log(log, 1000)
        writer.write(b"after\n")
    text = log.read_text()
    assert len(text) <= 510
    assert text.endswith("line 999\nafter\n")
    assert text.startswith("line ")
    trim_log(log, 1000)
    assert log.read_text() == text


SERVE = """
import json, os
found = {"names": sorted(os.listdir("/mnt")), "uid": os.getuid(), "owners": [os.stat(f"/mnt/{n}").st_uid for n in "ab"]}
for name, path in (("inside", "/mnt/new"), ("outside", OUTSIDE)):
    try: open(path, "w"); found[name] = "written"
    except OSError as error: found[name] = error.strerror
print(json.dumps(found))
"""


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize("maps", [True, False])
async def test_a_server_is_root_over_one_directory_and_nobody_elsewhere(
    pod: Path, maps: bool, read_only: bool
) -> None:  # fmt: skip
    if maps and os.geteuid():
        pytest.skip("only root can give away users")
    share, first = pod / "share", 0x70000000
    share.mkdir()
    for name, owner in (("a", 0), ("b", 1000 if maps else 0)):
        (share / name).write_text(name)
        if maps:
            os.chown(share / name, first + owner, first + owner)
    if maps:
        os.chown(share, first, first)
    outside = pod / "outside"  # root's: in the namespace without a map of users, still our own
    program = SERVE.replace("OUTSIDE", repr(str(outside)))
    python = shutil.which("python3", path="/usr/bin") or pytest.skip("no /usr/bin/python3, which every user may run")
    request = Request(
        argv=(python, "-I", "-S", "-c", program), share=Share(str(share), read_only),
        users=(first, 65536) if maps else None,
    )  # fmt: skip
    identity = _spawn(pod)
    await send_launch(pod / "launch.sock", request, descriptors={}, timeout=30)
    assert await _finish(identity) == 0
    found = json.loads(read_log(pod / "log"))
    assert (found["names"], found["uid"], found["owners"]) == (["a", "b"], 0, [0, 1000 if maps else 0])
    assert found["inside"] == ("Read-only file system" if read_only else "written")
    if maps:
        assert found["outside"] == "Permission denied"
    assert not any(Path("/mnt").glob("[ab]"))  # nobody else sees it
