"""Guests that a dead home left behind are found and shut down, the asked way first."""

import asyncio
import json
import subprocess

import pytest

from hotvirt.home import leftovers
from hotvirt.home.leftovers import Patience
from hotvirt.qemu.process import alive, identify


class Guest:
    """A QMP monitor in front of a process that stands for QEMU: `quit` ends the process."""

    def __init__(self, pod, *, obeys=True, state="running", deaf=0):
        self.pod, self.obeys, self.state, self.deaf, self.asked = pod, obeys, state, deaf, []
        pod.mkdir(parents=True)
        self.process = subprocess.Popen(["sleep", "60"])
        (pod / "pid").write_text(
            json.dumps({"pid": self.process.pid, "start_time": identify(self.process.pid).start_time})
        )

    async def __aenter__(self):
        self.server = await asyncio.start_unix_server(self.talk, self.pod / "qmp.sock")
        return self

    async def __aexit__(self, *_):
        self.server.close()
        self.process.kill()
        self.process.wait()

    async def talk(self, reader, writer):
        def send(message):
            writer.write(json.dumps(message).encode() + b"\r\n")

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
                send({"event": "SHUTDOWN", "data": {"guest": True}, "timestamp": {"seconds": 1, "microseconds": 0}})
            if command == "quit":
                self.process.terminate()
                break
        writer.close()

    @property
    def verbs(self):
        return [each for each in self.asked if not each.startswith(("query", "qmp"))]


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
        assert await leftovers.shut_down(found, patience=Patience(0.2), say=said.append)
        assert guest.process.wait(1) is not None
    assert guest.verbs == verbs
    assert ("powering it off" in " ".join(said)) is not obeys
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


async def test_a_guest_that_still_boots_is_asked_again(tmp_path):
    async with Guest(tmp_path / "pods" / "a", deaf=2) as guest:
        impatient = Patience(grace=5, press_again=0.05)
        assert await leftovers.shut_down(leftovers.find(tmp_path / "pods"), patience=impatient, say=lambda _: None)
    assert guest.verbs == ["system_powerdown"] * 3 + ["quit"]


async def test_what_never_became_a_guest_is_ended_too(tmp_path, lone_process):
    assert await leftovers.shut_down(leftovers.find(tmp_path / "pods"), patience=Patience(1), say=lambda _: None)
    assert not alive(lone_process)


async def test_a_process_that_took_the_pid_over_is_left_alone(tmp_path, lone_process):
    older = {"pid": lone_process.pid, "start_time": lone_process.start_time - 1}
    (tmp_path / "pods" / "a" / "pid").write_text(json.dumps(older))
    assert await leftovers.shut_down(leftovers.find(tmp_path / "pods"), patience=Patience(1), say=lambda _: None)
    assert alive(lone_process)


def test_nothing_there(tmp_path):
    assert leftovers.find(tmp_path / "none") == []
