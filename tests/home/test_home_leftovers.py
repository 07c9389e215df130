"""Guests that a dead home left behind are found and shut down, the asked way first."""

import asyncio
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from hotvirt.cli.up import waiting
from hotvirt.home import leftovers
from hotvirt.node import stopping
from hotvirt.qemu.process import alive, identify


class Agent:
    """A guest's agent behind its socket. Told to shut down, the guest does, unless its filesystems are frozen."""

    def __init__(self, guest, *, frozen=False):
        self.guest, self.is_frozen, self.asked = guest, frozen, []

    async def talk(self, reader, writer):
        while line := await reader.readline():
            message = json.loads(line.lstrip(b"\xff"))
            command, arguments = message["execute"], message.get("arguments") or {}
            self.asked.append(command)
            if command == "guest-shutdown":
                if arguments == {"mode": "powerdown"} and not self.is_frozen:
                    self.guest.goes_down()
                continue
            if command == "guest-fsfreeze-thaw":
                self.is_frozen = False
            answer = {
                "guest-sync-delimited": arguments.get("id"),
                "guest-info": {"version": "7", "supported_commands": []},
                "guest-fsfreeze-status": "frozen" if self.is_frozen else "thawed",
                "guest-fsfreeze-thaw": 1,
                "guest-ping": {},
            }.get(command)
            said = {"error": {"class": "CommandNotFound", "desc": "no"}} if answer is None else {"return": answer}
            writer.write((b"\xff" if "sync" in command else b"") + json.dumps(said).encode() + b"\n")
        writer.close()


class Guest:
    """A QMP monitor in front of a process that stands for QEMU: `quit` ends the process."""

    def __init__(self, pod, *, obeys=True, state="running", deaf=0):
        self.pod, self.obeys, self.state, self.deaf, self.asked = pod, obeys, state, deaf, []
        pod.mkdir(parents=True)
        self.agent, self.writer = None, None
        self.process = subprocess.Popen(["sleep", "60"])
        (pod / "pid").write_text(
            json.dumps({"pid": self.process.pid, "start_time": identify(self.process.pid).start_time})
        )

    async def __aenter__(self):
        self.servers = [await asyncio.start_unix_server(self.talk, self.pod / "qmp.sock")]
        if self.agent is not None:
            self.servers.append(await asyncio.start_unix_server(self.agent.talk, self.pod / "agent.sock"))
        return self

    async def __aexit__(self, *_):
        for server in self.servers:
            server.close()
        self.process.kill()
        self.process.wait()

    def goes_down(self):
        self.send({"event": "SHUTDOWN", "data": {"guest": True}, "timestamp": {"seconds": 1, "microseconds": 0}})

    def send(self, message):
        self.writer.write(json.dumps(message).encode() + b"\r\n")

    async def talk(self, reader, writer):
        self.writer, send = writer, self.send
        send({"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}, "capabilities": []}})
        while data := await reader.read(4096):  # the library sends one message at a time, without a line's end
            message = json.loads(data)
            command = message["execute"]
            self.asked.append(command)
            answer = {"query-name": {"name": "default/web"}, "query-status": {"status": self.state}}.get(command, {})
            send({"return": answer, **({"id": message["id"]} if "id" in message else {})})
            if command == "system_powerdown" and self.deaf:
                self.deaf -= 1
            elif command == "system_powerdown" and self.obeys:
                self.goes_down()
            if command == "quit":
                self.process.terminate()
                break
        writer.close()

    @property
    def verbs(self):
        return [each for each in self.asked if not each.startswith(("query", "qmp"))]


def ignored(_):
    pass


async def end_all(home, *, grace, say=ignored, waits=ignored):
    return await leftovers.shut_down(leftovers.find(home / "pods"), grace=grace, say=say, waits=waits)


@pytest.mark.parametrize(
    ("obeys", "state", "verbs"),
    [
        (True, "running", ["system_powerdown", "quit"]),
        (False, "running", ["system_powerdown", "quit"]),
        (True, "paused", ["cont", "system_powerdown", "quit"]),
        (True, "shutdown", ["quit"]),
    ],
)
async def test_a_guest_is_asked_first(tmp_path, obeys, state, verbs):
    said = []
    async with Guest(tmp_path / "pods" / "a", obeys=obeys, state=state) as guest:
        found = leftovers.find(tmp_path / "pods")
        assert await leftovers.shut_down(found, grace=0.2, say=said.append, waits=ignored)
        assert guest.process.wait(1) is not None
    assert guest.verbs == verbs
    assert ("its power was cut" in " ".join(said)) is not obeys
    assert said[-1] == "default/web is down"
    assert leftovers.find(tmp_path / "pods") == []


@pytest.fixture
def lone_process(tmp_path):
    """A pod directory whose process has no monitor."""
    with subprocess.Popen(["sleep", "60"]) as process:
        pod = tmp_path / "pods" / "a"
        pod.mkdir(parents=True)
        identity = identify(process.pid)
        (pod / "pid").write_text(json.dumps({"pid": identity.pid, "start_time": identity.start_time}))
        yield identity
        process.kill()


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(stopping, "PRESS_AGAIN", 0.05)


async def test_a_guest_that_still_boots_is_asked_again(tmp_path, impatient):
    async with Guest(tmp_path / "pods" / "a", deaf=2) as guest:
        assert await end_all(tmp_path, grace=5)
    assert guest.verbs == ["system_powerdown"] * 3 + ["quit"]


@pytest.mark.parametrize("frozen", [False, True])
async def test_a_guest_without_a_power_button_is_asked_by_its_agent(tmp_path, impatient, frozen):
    guest = Guest(tmp_path / "pods" / "a", obeys=False)
    guest.agent = Agent(guest, frozen=frozen)
    said = []
    async with guest:
        assert await end_all(tmp_path, grace=20, say=said.append)
    assert "guest-shutdown" in guest.agent.asked
    assert "its power was cut" not in " ".join(said)
    assert ("guest-fsfreeze-thaw" in guest.agent.asked) is frozen


def spec(pod, **fields):
    (pod / "started.json").write_text(json.dumps({"shape": [], "spec": fields}))


@pytest.mark.parametrize(
    ("own", "asked", "told"),
    [(3600, None, 3600), (30, None, 60), (None, None, 60), (3600, 5.0, 5), (30, 90.0, 90)],
)
async def test_a_guest_has_what_its_vm_gives_it_unless_a_person_says(tmp_path, own, asked, told):
    said = []
    async with Guest(tmp_path / "pods" / "a") as guest:
        if own is not None:
            spec(guest.pod, terminationGracePeriodSeconds=own)
        assert await end_all(tmp_path, grace=asked, say=said.append)
    assert said == [f"default/web: asking the guest to shut down, within {told} s", "default/web is down"]


async def test_no_time_is_no_question(tmp_path):
    said = []
    async with Guest(tmp_path / "pods" / "a") as guest:
        assert await end_all(tmp_path, grace=0, say=said.append)
    assert guest.verbs == ["quit"]
    assert said == ["default/web: powering it off", "default/web is down"]


async def test_while_it_waits_it_tells_for_whom_and_until_when(tmp_path, impatient, monkeypatch):
    monkeypatch.setattr(leftovers, "TELL_EVERY", 0.01)
    guest, told = Guest(tmp_path / "pods" / "a", obeys=False), []

    def waits(until):
        if not told:
            guest.goes_down()
        told.append(until)

    async with guest:
        began = asyncio.get_running_loop().time()
        assert await end_all(tmp_path, grace=300, waits=waits)
    assert list(told[0]) == ["default/web"]
    assert 300 <= told[0]["default/web"] - began < 310


async def test_who_stops_waiting_leaves_guests_to_their_shutdown_and_finds_them_again(tmp_path, impatient):
    async with Guest(tmp_path / "pods" / "a", obeys=False) as guest:
        waiting = asyncio.create_task(end_all(tmp_path, grace=300))
        while "system_powerdown" not in guest.asked:
            await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert guest.process.poll() is None
        assert "quit" not in guest.asked
        assert await end_all(tmp_path, grace=0)


async def test_ctrl_c_says_what_becomes_of_the_guests_and_what_there_is_to_do(tmp_path):
    home = Path(tempfile.mkdtemp(prefix="hv-", dir="/tmp"))  # short: unix sockets live below it
    try:
        async with Guest(home / "run" / "pods" / "a", obeys=False) as guest:
            spec(guest.pod, terminationGracePeriodSeconds=3600)
            pipe = subprocess.PIPE
            words = (sys.executable, "-m", "hotvirt", "down", "--home", home)
            down = await asyncio.create_subprocess_exec(*words, stdout=pipe, stderr=pipe)
            line = (await down.stderr.readline()).decode()
            assert re.fullmatch(r" +\d+\.\d s  waiting for default/web, until 360\d s at most .*\n", line)
            down.send_signal(signal.SIGINT)
            said, rest = (part.decode() for part in await down.communicate())
            assert guest.process.poll() is None
        assert down.returncode == 130
        assert said.splitlines()[-1].endswith("to switch them off now: hotvirt down --grace=0")
        assert "Traceback" not in rest
    finally:
        shutil.rmtree(home)


@pytest.mark.parametrize(
    ("until", "words"),
    [
        ({"vm/b": 62.2, "vm/a": 61.0}, "vm/a, vm/b, until 62 s"),
        ({f"vm/{number}": 60.0 for number in range(5)}, "vm/0, vm/1, vm/2, vm/3, vm/4, until"),
        ({f"vm/{number}": 60.0 for number in range(6)}, "vm/0, vm/1, vm/2, vm/3, 2 others, until"),
    ],
)
def test_whom_it_waits_for_in_words(until, words):
    assert words in waiting(until)


async def test_what_never_became_a_guest_is_ended_too(tmp_path, lone_process):
    assert await end_all(tmp_path, grace=1)
    assert not alive(lone_process)


async def test_a_process_that_took_the_pid_over_is_left_alone(tmp_path, lone_process):
    older = {"pid": lone_process.pid, "start_time": lone_process.start_time - 1}
    (tmp_path / "pods" / "a" / "pid").write_text(json.dumps(older))
    assert await end_all(tmp_path, grace=1)
    assert alive(lone_process)


def test_nothing_there(tmp_path):
    assert leftovers.find(tmp_path / "none") == []
