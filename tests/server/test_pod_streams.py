"""exec, attach and port-forward before and after the upgrade: what is asked for, what is refused, what comes back."""

import asyncio
import json
from typing import Any

import pytest
from multidict import MultiDict

from hotvirt.kube.errors import BadRequest, Conflict, InternalError
from hotvirt.kube.podstreams import Command
from hotvirt.server import podstreams, remotecommand

POD = {
    "metadata": {"name": "p", "namespace": "n"},
    "spec": {"containers": [{"name": "c"}, {"name": "d"}]},
    "status": {"phase": "Running"},
}


def query(text: str) -> "MultiDict[str]":
    return MultiDict([tuple(part.split("=", 1)) for part in text.split("&")])  # type: ignore[misc]


def test_what_a_query_asks_for() -> None:
    asked = podstreams.command(query("command=sh&command=-c&command=a b&container=d&stdin=1&stdout=true&tty=true"), POD,
                               attach=False)  # fmt: skip
    assert asked == Command(container="d", argv=("sh", "-c", "a b"), stdin=True, stdout=True, tty=True)
    assert podstreams.command(query("stdout=1"), POD, attach=True) == Command(container="c", stdout=True)
    assert podstreams.ports(query("ports=80,443&ports=22")) == [80, 443, 22]


@pytest.mark.parametrize(
    ("text", "attach", "told"),
    [
        ("stdout=1", False, "at least 1 command"),
        ("command=sh", False, "at least one of stdin, stdout, stderr"),
        ("command=sh&stdout=1&container=x", False, "it has c, d"),
        ("container=x&stdout=1", True, "container x is not valid for pod p"),
    ],
)
def test_what_cannot_be_had_is_said(text: str, attach: bool, told: str) -> None:
    with pytest.raises(BadRequest, match=told):
        podstreams.command(query(text), POD, attach=attach)


def test_a_pod_that_does_not_run_is_said() -> None:
    waiting = {**POD, "status": {"phase": "Pending"}}
    with pytest.raises(Conflict, match="its phase is Pending"):
        podstreams.command(query("command=sh&stdout=1"), waiting, attach=False)


@pytest.mark.parametrize("text", ["ports=0", "ports=x", "ports=65536", "ports=1,", "other=1"])
def test_ports_that_are_none(text: str) -> None:
    with pytest.raises(BadRequest):
        podstreams.ports(query(text))


class Program:
    """Echoes its input until that ends, then exits."""

    def __init__(self, *, code: int | Exception = 0) -> None:
        self._said: asyncio.Queue[bytes] = asyncio.Queue()
        self._code, self.sizes, self.closed = code, [], 0

    async def read(self, stream: str) -> bytes:
        return await self._said.get() if stream == "stdout" else b""

    async def write(self, data: bytes) -> None:
        self._said.put_nowait(data.upper())

    async def end_input(self) -> None:
        self._said.put_nowait(b"")

    def resize(self, columns: int, rows: int) -> None:
        self.sizes.append((columns, rows))

    async def wait(self) -> int:
        if isinstance(self._code, Exception):
            raise self._code
        return self._code

    async def close(self) -> None:
        self.closed += 1


class Peer:
    def __init__(self, *received: tuple[str, bytes] | None) -> None:
        self._received = list(received)
        self.told: list[tuple[str, bytes]] = []
        self.status: dict[str, Any] = {}

    async def receive(self) -> tuple[str, bytes] | None:
        if not self._received:
            await asyncio.Event().wait()
        return self._received.pop(0)

    async def send(self, channel: str, data: bytes) -> None:
        self.told.append((channel, data))

    async def finish(self, status: dict[str, Any]) -> None:
        self.status = status


INTERACTIVE = Command(container="c", argv=("cat",), stdin=True, stdout=True, stderr=True)


async def test_a_program_is_fed_heard_and_its_end_told() -> None:
    program = Program(code=3)
    peer = Peer(("resize", b'{"Width":80,"Height":24}'), ("resize", b"junk"), ("stdin", b"hi"), ("stdin", b""))
    await remotecommand.carry(peer, program, INTERACTIVE)  # type: ignore[arg-type]
    assert peer.told == [("stdout", b"HI")]
    assert program.sizes == [(80, 24)]
    assert program.closed == 1
    assert peer.status["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]


async def test_a_client_that_goes_takes_its_program_along() -> None:
    program, peer = Program(), Peer(("stdin", b"hi"), None)
    await remotecommand.carry(peer, program, INTERACTIVE)  # type: ignore[arg-type]
    assert (program.closed, peer.status) == (1, {})


async def test_what_could_not_be_run_is_told() -> None:
    program, peer = Program(code=InternalError("no such file")), Peer(("stdin", b""))
    await remotecommand.carry(peer, program, INTERACTIVE)  # type: ignore[arg-type]
    assert (peer.status["message"], program.closed) == ("no such file", 1)


def test_the_last_word_by_protocol() -> None:
    good, bad = remotecommand.outcome(0), remotecommand.outcome(2)
    assert json.loads(remotecommand.last_word(good, "v4.channel.k8s.io")) == {"metadata": {}, "status": "Success"}
    assert json.loads(remotecommand.last_word(bad, "v5.channel.k8s.io"))["reason"] == "NonZeroExitCode"
    assert remotecommand.last_word(good, "channel.k8s.io") == b""
    assert b"exit status 2" in remotecommand.last_word(bad, "v2.channel.k8s.io")
