"""The monitor against a scripted QMP server."""

import array
import asyncio
import json
import os
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hotvirt.qemu import qmp
from hotvirt.qemu.errors import NotThere, QemuGone, QemuTimeout, QmpError
from hotvirt.qemu.qmp import Event, Monitor, Pace

GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": ""}, "capabilities": []}}


class FakeQemu:
    """One client at a time, as QEMU. Commands are answered from `answers`; `commands` tells what came."""

    def __init__(self, path: Path) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.listener.setblocking(False)
        self.path = path
        self.answers: dict[str, Any] = {}
        self.commands: asyncio.Queue[str] = asyncio.Queue()
        self.descriptors: list[int] = []
        self.client: socket.socket | None = None
        self.task = asyncio.create_task(self._serve())

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self.client, _address = await loop.sock_accept(self.listener)
            self.client.setblocking(False)
            try:
                await self._converse()
            except ConnectionError:  # it gave up while it waited for its turn
                pass
            self.client.close()

    async def _converse(self) -> None:
        await self.send(GREETING)
        buffered = b""
        while data := await self._receive():
            *texts, buffered = _texts(buffered + data)
            for text in texts:
                await self._answer(json.loads(text))

    async def _receive(self) -> bytes:
        loop, client = asyncio.get_running_loop(), self.client
        assert client
        readable = asyncio.Event()
        loop.add_reader(client, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(client)
        size = array.array("i").itemsize
        data, ancillary, _flags, _address = client.recvmsg(65536, socket.CMSG_SPACE(4 * size))
        for _level, _kind, raw in ancillary:
            numbers = array.array("i")
            numbers.frombytes(raw)
            self.descriptors += numbers
        return data

    async def _answer(self, message: dict[str, Any]) -> None:
        command = message["execute"]
        self.commands.put_nowait(command)
        answer = {"return": {}} if command == "qmp_capabilities" else self.answers.get(command, {"return": {}})
        if answer is not None:
            await self.send({**answer, "id": message["id"]} if "id" in message else answer)

    async def send(self, message: dict[str, Any]) -> None:
        assert self.client
        await asyncio.get_running_loop().sock_sendall(self.client, json.dumps(message).encode() + b"\r\n")

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.listener.close()
        if self.client:
            self.client.close()
        for descriptor in self.descriptors:
            os.close(descriptor)


def _texts(buffered: bytes) -> list[bytes]:
    """qemu.qmp sends JSON texts without a line end; each fits one packet here."""
    decoder, text, found = json.JSONDecoder(), buffered.decode().lstrip(), []
    while text:
        try:
            value, end = decoder.raw_decode(text)
        except ValueError:
            break
        found.append(json.dumps(value).encode())
        text = text[end:].lstrip()
    return [*found, text.encode()]


@pytest.fixture
async def qemu() -> AsyncIterator[FakeQemu]:
    with tempfile.TemporaryDirectory(prefix="hv-") as directory:
        fake = FakeQemu(Path(directory) / "qmp.sock")
        yield fake
        await fake.stop()


@pytest.fixture
async def monitor(qemu: FakeQemu) -> AsyncIterator[Monitor]:
    async with await Monitor.connect(qemu.path, name="web") as monitor:
        yield monitor


async def test_connect_reads_the_version(monitor: Monitor) -> None:
    assert monitor.version == (7, 2, 22)


async def test_execute_returns_what_qemu_returns(qemu: FakeQemu, monitor: Monitor) -> None:
    qemu.answers["query-status"] = {"return": {"status": "running"}}
    assert await monitor.execute("query-status") == {"status": "running"}


async def test_many_at_once(qemu: FakeQemu, monitor: Monitor) -> None:
    qemu.answers["a"], qemu.answers["b"] = {"return": 1}, {"return": 2}
    assert await asyncio.gather(*(monitor.execute(c) for c in "abab")) == [1, 2, 1, 2]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"class": "GenericError", "desc": "Bus 'pcie.0' does not support hotplugging"}, QmpError),
        ({"class": "DeviceNotFound", "desc": "Device 'x' not found"}, NotThere),
        ({"class": "GenericError", "desc": "Failed to find node with node-name='x'"}, QmpError),
    ],
)
async def test_refusals_say_command_and_reason(
    qemu: FakeQemu, monitor: Monitor, error: dict[str, str], kind: type[QmpError]
) -> None:
    qemu.answers["device_del"] = {"error": error}
    with pytest.raises(kind) as caught:
        await monitor.execute("device_del", {"id": "x"})
    assert str(caught.value) == f"QEMU refused device_del: {error['desc']}"


async def test_a_hanging_qemu_is_a_timeout(qemu: FakeQemu, monitor: Monitor) -> None:
    qemu.answers["stop"] = None
    with pytest.raises(QemuTimeout, match="did not answer stop within"):
        await monitor.execute("stop", timeout=0.01)


async def test_events_reach_every_subscriber_that_asked_for_them(qemu: FakeQemu, monitor: Monitor) -> None:
    with monitor.events("STOP") as stops, monitor.events() as every:
        await qemu.send({"event": "RESUME", "timestamp": {"seconds": 5, "microseconds": 500000}})
        await qemu.send({"event": "STOP", "data": {"x": 1}, "timestamp": {"seconds": 6, "microseconds": 0}})
        assert await stops.get() == Event("STOP", {"x": 1}, 6.0)
        assert [(await every.get()).name for _ in range(2)] == ["RESUME", "STOP"]
        assert await stops.get_within(0) is None


async def test_when_qemu_dies_all_that_wait_are_told(qemu: FakeQemu, monitor: Monitor) -> None:
    qemu.answers["stop"] = None
    with monitor.events() as events:
        waiting = asyncio.create_task(monitor.execute("stop"))
        while await qemu.commands.get() != "stop":
            pass
        assert qemu.client
        qemu.client.shutdown(socket.SHUT_RDWR)
        with pytest.raises(QemuGone):
            await waiting
        assert "closed its QMP connection" in str(await monitor.closed)
        with pytest.raises(QemuGone):
            await events.get()
    with pytest.raises(QemuGone):
        await monitor.execute("query-status")
    with monitor.events() as late, pytest.raises(QemuGone):
        await late.get()
    await monitor.close()


async def test_leaving_is_not_an_error_and_another_may_come(qemu: FakeQemu) -> None:
    first = await Monitor.connect(qemu.path)
    with pytest.raises(QemuTimeout, match="another client holds this QMP socket"):
        await Monitor.connect(qemu.path, timeout=0.05)
    await first.close()
    await first.close()
    assert await first.closed is None
    async with await Monitor.connect(qemu.path) as second:
        assert await second.execute("query-status") == {}


async def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(QemuGone, match="nobody answers"):
        await Monitor.connect(tmp_path / "qmp.sock")


async def test_descriptors_travel_with_their_command(qemu: FakeQemu, monitor: Monitor, tmp_path: Path) -> None:
    qemu.answers["add-fd"] = {"return": {"fdset-id": 7, "fd": 20}}
    (tmp_path / "disk").write_bytes(b"content")
    with (tmp_path / "disk").open("rb") as disk:
        numbers = await asyncio.gather(*(monitor.add_fd(disk.fileno(), opaque="data") for _ in range(3)))
    assert numbers == [7, 7, 7]
    assert len(qemu.descriptors) == 3
    assert os.pread(qemu.descriptors[0], 10, 0) == b"content"


def test_events_are_taken_at_a_pace():
    pace = Pace()
    waits = [pace.take(100.0) for _ in range(qmp.BURST + 3)]
    assert waits[: qmp.BURST] == [0.0] * qmp.BURST
    assert waits[qmp.BURST :] == [pytest.approx(n / qmp.A_SECOND) for n in (1, 2, 3)]
    assert pace.take(100.0 + 4 / qmp.A_SECOND) == 0.0
    assert [pace.take(1000.0) for _ in range(qmp.BURST)] == [0.0] * qmp.BURST
    assert pace.take(1000.0) > 0


async def test_a_guest_that_reports_without_end_leaves_the_loop_to_others(qemu: FakeQemu, monitor: Monitor) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    monitor._client._pace = Pace(5.0, began)
    with monitor.events() as events:
        for number in range(30):
            await qemu.send({"event": "ACPI_DEVICE_OST", "data": {"n": number}, "timestamp": {}})
        assert [(await events.get()).data["n"] for _ in range(30)] == list(range(30))
    assert loop.time() - began >= 20 / qmp.A_SECOND, "all were taken at once"
    assert await monitor.execute("query-status") == {}
