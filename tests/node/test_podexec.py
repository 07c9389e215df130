"""Commands in a pod: whose rights they have, and that nothing of them stays. With real processes, ours as the pod's."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from hotvirt.kube.errors import Conflict, Forbidden, InternalError
from hotvirt.kube.podstreams import Command
from hotvirt.node import podexec
from hotvirt.node.cgroups import Cgroups
from hotvirt.node.places import PodPlace
from hotvirt.node.podexec import Program
from hotvirt.qemu.process import Identity, identify

pytestmark = pytest.mark.server  # real programs run

POD = {"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"containers": [{"name": "compute"}]}}
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def test_rights_are_those_of_the_process():
    status = "Name:\tqemu\nUid:\t5\t7\t7\t7\nGid:\t8\t9\t9\t9\nGroups:\t36 44 \n"
    assert podexec.rights(status) == podexec.Rights(7, 9, (36, 44))
    assert podexec.rights("Uid:\t1\t1\t1\t1\nGid:\t1\t1\t1\t1\n").groups == ()


def test_a_terminal_has_a_name():
    assert "TERM" not in podexec.environment(POD, Command(container="compute"))
    assert podexec.environment(POD, Command(container="compute", tty=True))["TERM"] == "xterm"


async def test_a_pod_without_a_process_or_without_rights_of_its_own(tmp_path):
    place = PodPlace(tmp_path)
    for noted in (None, Identity(os.getpid(), 1)):
        if noted:
            place.pid.write_text(json.dumps({"pid": noted.pid, "start_time": noted.start_time}))
        with pytest.raises(Conflict, match="has ended"):
            await podexec.start(POD, place, Command(container="compute"), cgroups=Cgroups(None))
    ours = identify(os.getpid())
    place.pid.write_text(json.dumps({"pid": ours.pid, "start_time": ours.start_time}))
    with pytest.raises(Forbidden, match="run the home as root"):
        await podexec.start(POD, place, Command(container="compute"), cgroups=Cgroups(None))
    place.launch.touch()
    with pytest.raises(Conflict, match="not been started yet"):
        await podexec.start(POD, place, Command(container="compute"), cgroups=Cgroups(None))


async def begun(*argv, pod=None, **wish):
    command = Command(container="compute", argv=argv, stdout=True, stderr=True, **wish)
    request = {
        "argv": argv, "environment": podexec.environment(POD, command), "uid": NOBODY, "gid": NOBODY, "groups": [],
        "isolate": [], "tty": command.tty,
    }  # fmt: skip
    pidfd = os.pidfd_open(pod or os.getpid())
    try:
        program = Program(command, json.dumps(request), pidfd, user=NOBODY)
    finally:
        os.close(pidfd)
    await program.begin()
    return program


async def said(program, stream="stdout"):
    found = b""
    while data := await program.read(stream):
        found += data
    return found.decode()


def running(words):
    """Pids of processes with these words."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and (process / "cmdline").read_text() == words.replace(" ", "\0") + "\0":
                found.append(int(process.name))
        except OSError:
            continue
    return found


@as_root
async def test_a_command_is_fed_heard_and_confined():
    rights = "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status"
    program = await begun("sh", "-c", f"cat; echo bad >&2; {rights}; exit 3", stdin=True)
    await program.write(b"hello\n")
    await program.end_input()
    assert await said(program, "stderr") == "bad\n"
    none = "0000000000000000"
    assert await said(program) == f"hello\nCapEff:\t{none}\nCapBnd:\t{none}\nNoNewPrivs:\t1\nSeccomp:\t2\n"
    assert await program.wait() == 3
    await program.close()
    await program.close()


@as_root
async def test_a_terminal_knows_its_size_and_a_signal_its_number():
    program = await begun("sh", "-c", "read x; stty size; kill -9 $$", stdin=True, tty=True)
    program.resize(101, 37)
    await program.write(b"go\n")
    assert "37 101" in await said(program)
    assert await program.wait() == 137
    await program.close()


@as_root
async def test_what_cannot_be_run_is_said():
    for argv, why in ((("no-such-program",), "not found"), (("/etc/passwd",), "Permission denied")):
        program = await begun(*argv)
        assert await said(program) == ""
        with pytest.raises(InternalError, match=why):
            await program.wait()
        await program.close()


@as_root
async def test_it_has_no_descriptor_of_the_homes_and_no_room_for_a_fork_bomb():
    left_open = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(left_open, True)
    try:
        program = await begun("sh", "-c", "ls /proc/self/fd | wc -l; grep -E '^Max (processes|core)' /proc/self/limits")
    finally:
        os.close(left_open)
    count, *bounds = (await said(program)).splitlines()
    assert count == "4"  # the three, and the directory that ls reads
    assert [line.split()[-3:-1] for line in bounds] == [["0", "0"], ["1024", "1024"]]
    await program.close()


@as_root
@pytest.mark.parametrize("way", [("unshare", "-U"), ("unshare", "-Urn", "id")])
async def test_no_way_to_be_root_somewhere_else(way):
    program = await begun("sh", "-c", " ".join(way))
    assert "ermi" in await said(program, "stderr")  # permitted, permission
    assert await program.wait() != 0
    await program.close()


@as_root
async def test_nothing_stays_however_it_hides():
    program = await begun("sh", "-c", "setsid sleep 87651 & (sleep 87652 &) ; echo up; sleep 87653")
    assert await program.read("stdout") == b"up\n"
    await program.close()
    assert [running(f"sleep 8765{number}") for number in (1, 2, 3)] == [[], [], []]


@as_root
async def test_it_ends_with_its_command_and_with_its_pod():
    program = await begun("sh", "-c", "setsid sleep 87654 & echo up")
    assert await said(program) == "up\n"
    assert await program.wait() == 0
    assert running("sleep 87654") == []
    await program.close()
    pod = await asyncio.create_subprocess_exec("sleep", "87655")
    program = await begun("sleep", "87656", pod=pod.pid)
    pod.kill()
    await pod.wait()
    assert await program.wait() == 137
    assert running("sleep 87656") == []
    await program.close()
