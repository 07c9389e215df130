"""The guest agent's client against a scripted agent: everything a slow, restarted or hostile guest can do to it."""

import asyncio
import base64
import contextlib
import json
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from hotvirt.qemu import facts
from hotvirt.qemu.errors import AgentGone, AgentLacks, AgentNonsense, AgentRefused, AgentTimeout
from hotvirt.qemu.guestagent import MAX_REPLY, GuestAgent

Answer = Callable[[str, dict[str, Any]], Any]


class FakeAgent:
    """Serves the protocol on a socket; `answer` may be changed by a test at any time. None: say nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answer: Answer = lambda command, arguments: {"return": {}}
        self.received: list[str] = []
        self.numbers: list[int] = []
        self.late = b""
        """What it still has to say to whoever was connected before."""
        self.connections = 0
        self.writer: asyncio.StreamWriter | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.changed = asyncio.Condition()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with self.changed, asyncio.timeout(10):
            await self.changed.wait_for(holds)

    async def _note(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writer = writer
        writer.write(self.late)
        await self._note()
        try:
            while line := await reader.readline():
                await self.open.wait()
                message = json.loads(line.lstrip(b"\xff"))
                command, arguments = message["execute"], message.get("arguments", {})
                self.received.append(command)
                await self._note()
                if command == "guest-sync-delimited":
                    self.numbers.append(arguments["id"])
                    writer.write(b"\xff" + json.dumps({"return": arguments["id"]}).encode() + b"\n")
                elif (answer := self.answer(command, arguments)) is not None:
                    writer.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@pytest.fixture
async def fake() -> AsyncIterator[FakeAgent]:
    with tempfile.TemporaryDirectory(prefix="hv-") as directory:
        agent = FakeAgent(Path(directory) / "agent.sock")
        server = await asyncio.start_unix_server(agent.serve, agent.path)
        yield agent
        server.close()
        if agent.writer:
            agent.writer.close()
            await asyncio.sleep(0)


@pytest.fixture
async def client(fake: FakeAgent) -> AsyncIterator[GuestAgent]:
    async with GuestAgent(fake.path, timeout=5.0) as client:
        yield client


async def test_syncs_once_then_asks(fake: FakeAgent, client: GuestAgent) -> None:
    await client.ping()
    await client.ping()
    assert fake.received == ["guest-sync-delimited", "guest-ping", "guest-ping"]


async def test_wait_ready_waits_without_asking_again(fake: FakeAgent, client: GuestAgent) -> None:
    fake.open.clear()
    async with asyncio.TaskGroup() as group:
        ready = group.create_task(client.wait_ready())
        await fake.until(lambda: fake.connections > 0)
        assert not ready.done()
        fake.open.set()
    assert fake.received == ["guest-sync-delimited", "guest-ping"]


async def test_a_late_answer_is_not_taken_for_the_next_one(fake: FakeAgent, client: GuestAgent) -> None:
    fake.answer = lambda command, arguments: None
    with pytest.raises(AgentTimeout, match="is qemu-guest-agent running"):
        await client.call("guest-get-host-name", timeout=0.01)
    assert fake.writer
    fake.writer.write(b'{"return": {"host-name": "late"}}\n')
    fake.answer = lambda command, arguments: {"return": {"host-name": "right"}}
    assert await client.hostname() == "right"


async def test_a_cancelled_call_leaves_no_answer_behind(fake: FakeAgent, client: GuestAgent) -> None:
    fake.answer = lambda command, arguments: None
    task = asyncio.create_task(client.hostname())
    await fake.until(lambda: "guest-get-host-name" in fake.received)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert fake.writer
    fake.writer.write(b'{"return": {"host-name": "late"}}\n')
    fake.answer = lambda command, arguments: {"return": {"host-name": "right"}}
    assert await client.hostname() == "right"


async def test_a_late_answer_to_a_home_that_died_is_not_taken_either(fake: FakeAgent, client: GuestAgent) -> None:
    await client.ping()
    client.close()
    fake.late = b'\xff{"return": %d}\n' % fake.numbers[0]
    fake.answer = lambda command, arguments: {"return": {"host-name": "right"}}
    async with GuestAgent(fake.path) as of_the_new_home:
        assert await of_the_new_home.hostname() == "right"


async def test_who_waited_in_vain_asks_again_on_a_new_connection(fake: FakeAgent, client: GuestAgent) -> None:
    fake.open.clear()
    with pytest.raises(AgentTimeout):
        await client.wait_ready(timeout=0.01)
    fake.open.set()
    await client.wait_ready()
    assert fake.connections == 2


def fill_up(path: str) -> None:
    """The queue before a socket, with clients that are dead already."""
    with contextlib.ExitStack() as dead, contextlib.suppress(BlockingIOError):
        while True:
            client = dead.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect(path)


async def test_a_full_queue_before_the_socket_is_waited_for() -> None:
    """QEMU has not seen yet that the homes before are dead."""
    with tempfile.TemporaryDirectory(prefix="hv-") as directory, socket.socket(socket.AF_UNIX) as listener:
        path = f"{directory}/agent.sock"
        listener.bind(path)
        listener.listen(1)
        fill_up(path)
        fake = FakeAgent(Path(path))
        async with asyncio.TaskGroup() as group, GuestAgent(path) as client:
            ready = group.create_task(client.wait_ready())
            await asyncio.sleep(0.05)
            assert not ready.done()
            async with await asyncio.start_unix_server(fake.serve, sock=listener):
                await ready
        assert fake.received == ["guest-sync-delimited", "guest-ping"]
        assert fake.writer
        await fake.writer.wait_closed()


async def test_errors_keep_the_guests_words_but_clean(fake: FakeAgent, client: GuestAgent) -> None:
    fake.answer = lambda command, arguments: {"error": {"class": "GenericError", "desc": "no\x1b[2J\n" + "x" * 5000}}
    with pytest.raises(AgentRefused) as caught:
        await client.hostname()
    assert caught.value.description.isprintable()
    assert len(caught.value.description) == 256


@pytest.mark.parametrize(
    "error",
    [
        {"class": "CommandNotFound", "desc": "The command guest-x has not been found"},
        {"class": "GenericError", "desc": "Command guest-x has been disabled for this instance"},
    ],
)
async def test_a_command_the_guest_blocks_is_told_apart(
    fake: FakeAgent, client: GuestAgent, error: dict[str, str]
) -> None:
    fake.answer = lambda command, arguments: {"error": error}
    with pytest.raises(AgentLacks):
        await client.call("guest-x")


@pytest.mark.parametrize(
    "reply",
    [
        b"not json\n",
        b"[1]\n",
        b'{"neither": 1}\n',
        b'{"return": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
        b'{"return": "' + b"x" * (MAX_REPLY + 10) + b'"}\n',
        b'{"return": {"host-name": ' * 2 + b"\n",
    ],
)
async def test_nonsense_drops_the_connection_and_the_next_call_starts_anew(
    fake: FakeAgent, client: GuestAgent, reply: bytes
) -> None:
    fake.answer = lambda command, arguments: reply
    with pytest.raises(AgentNonsense):
        await client.hostname()
    fake.answer = lambda command, arguments: {"return": {"host-name": "web"}}
    assert await client.hostname() == "web"
    assert fake.connections == 2


@pytest.mark.parametrize("value", [{"return": 5}, {"return": [5]}, {"return": {"size": "big"}}, {"return": None}])
async def test_answers_of_the_wrong_form_are_nonsense(fake: FakeAgent, client: GuestAgent, value: object) -> None:
    fake.answer = lambda command, arguments: value
    with pytest.raises(AgentNonsense):
        await client.get_memory()


async def test_endless_data_before_the_delimiter_is_given_up(fake: FakeAgent, client: GuestAgent) -> None:
    await client.ping()
    fake.answer = lambda command, arguments: None
    with pytest.raises(AgentTimeout):
        await client.call("guest-ping", timeout=0.01)
    assert fake.writer
    writer = fake.writer

    async def flood() -> None:
        try:
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
        except ConnectionError:
            pass

    async with asyncio.TaskGroup() as group:
        group.create_task(flood())
        with pytest.raises(AgentNonsense, match=r"without end|longer than"):
            await client.ping()


async def test_a_closed_socket_is_gone_and_reconnects(fake: FakeAgent, client: GuestAgent) -> None:
    await client.ping()
    assert fake.writer
    fake.writer.close()
    await fake.writer.wait_closed()
    try:
        await client.ping()  # noticed before anything was sent: a new connection at once
    except AgentGone:
        await client.ping()
    assert fake.connections == 2


async def test_who_waits_for_his_turn_when_it_is_closed_makes_no_new_connection(
    fake: FakeAgent, client: GuestAgent
) -> None:
    """A guest's home is done with it while its QEMU lives for a moment: what connected then stayed open for ever."""
    fake.answer = lambda command, arguments: None
    first = asyncio.create_task(client.ping())
    await fake.until(lambda: "guest-ping" in fake.received)
    second = asyncio.create_task(client.ping(timeout=5))
    await asyncio.sleep(0)  # it waits behind the first
    client.close()
    for each in (first, second):
        with pytest.raises(AgentGone):
            await each
    assert fake.connections == 1


async def test_nobody_listening_is_gone(tmp_path: Path) -> None:
    with pytest.raises(AgentGone):
        await GuestAgent(tmp_path / "none").ping()


async def test_shutdown_does_not_wait_for_an_answer_that_never_comes(fake: FakeAgent, client: GuestAgent) -> None:
    fake.answer = lambda command, arguments: None if command == "guest-shutdown" else {"return": {}}
    await client.shutdown(mode="reboot")
    await fake.until(lambda: "guest-shutdown" in fake.received)


class Files:
    """A guest with these files."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.handles = files, {}
        self.open_now: set[int] = set()

    def __call__(self, command: str, arguments: dict[str, Any]) -> Any:
        if command == "guest-file-open":
            if arguments["path"] not in self.files:
                return {"error": {"class": "GenericError", "desc": "failed to open file"}}
            handle = 1000 + len(self.handles)
            self.handles[handle] = arguments["path"]
            self.open_now.add(handle)
            return {"return": handle}
        if command == "guest-file-read":
            data = self.files[self.handles[arguments["handle"]]][: arguments["count"]]
            return {"return": {"count": len(data), "buf-b64": base64.b64encode(data).decode(), "eof": True}}
        self.open_now.discard(arguments["handle"])
        return {"return": {}}


async def test_files_are_read_and_closed(fake: FakeAgent, client: GuestAgent) -> None:
    files = fake.answer = Files({"/a": b"one", "/b": b"2" * 10})
    one, missing, two = await client.files_read(["/a", "/none", "/b"], limit=4)
    assert (one, two) == (b"one", b"2222")
    assert isinstance(missing, AgentRefused)
    assert files.open_now == set()


async def test_facts_of_a_linux_guest(fake: FakeAgent, client: GuestAgent) -> None:
    fake.answer = Files({
        "/proc/meminfo": b"MemTotal: 1024 kB\nMemAvailable: 512 kB\n",
        "/proc/uptime": b"12.50 3.00\n",
        "/proc/sys/kernel/random/boot_id": b"53de89b5\n",
        "/proc/partitions": b"major minor  #blocks  name\n\n 8 0 65536 sda\n 254 0 1024 vda\n",
        "/sys/devices/system/cpu/online": b"0-1\n",
        "/proc/sys/kernel/osrelease": b"6.1.0\n",
        "/proc/sys/kernel/hostname": b"web\n",
        "/sys/block/sda/device/vpd_pg80": b"\0\x80\0\x04data",
    })  # fmt: skip
    found = await facts.facts(client)
    assert found == facts.GuestFacts(
        mem_total_bytes=1 << 20,
        mem_available_bytes=512 << 10,
        online_cpus=2,
        block_devices=(facts.BlockDevice("sda", 64 << 20, "data"), facts.BlockDevice("vda", 1 << 20)),
        uptime_seconds=12.5,
        boot_id="53de89b5",
        kernel="6.1.0",
        hostname="web",
    )
    assert len(fake.received) - fake.received.count("guest-sync-delimited") == 7 + 14 + 2 + 2


async def test_facts_of_a_guest_that_says_nothing(fake: FakeAgent, client: GuestAgent) -> None:
    fake.answer = lambda command, arguments: {"error": {"class": "CommandNotFound", "desc": "disabled"}}
    assert await facts.facts(client) == facts.GuestFacts()


async def test_users_text_is_cleaned_at_every_depth(fake: FakeAgent, client: GuestAgent) -> None:
    fake.answer = lambda command, arguments: {"return": [{"user": "a\x07", "more": [{"x": "\x1b"}], "n": 5}]}
    (user,) = await client.users()
    assert user == {"user": "a\N{REPLACEMENT CHARACTER}", "more": [{"x": "\N{REPLACEMENT CHARACTER}"}], "n": 5}


@pytest.mark.parametrize("is_windows", [False, True])
async def test_a_program_that_takes_too_long_is_ended_and_its_end_is_collected(
    fake: FakeAgent, client: GuestAgent, is_windows: bool
) -> None:
    started: list[list[str]] = []

    def answer(command: str, arguments: dict[str, Any]) -> object:
        if command == "guest-exec":
            if is_windows and arguments["path"] == "/bin/sh":
                return {"error": {"class": "GenericError", "desc": "no such file"}}
            started.append([arguments["path"], *arguments["arg"]])
            return {"return": {"pid": 100 + len(started)}}
        if command == "guest-exec-status":
            return {"return": {"exited": arguments["pid"] != 101 or len(started) > 1}}
        return {"return": {}}

    fake.answer = answer
    with pytest.raises(TimeoutError):
        await client.exec("/bin/sleep" if not is_windows else "ping", ["100"], timeout=0.2)
    await fake.until(lambda: len(started) == 2 and fake.received[-2:] == ["guest-exec-status"] * 2)
    ender = started[1]
    assert (ender[0], ender[-1]) == ("taskkill" if is_windows else "/bin/sh", "101")


async def test_a_program_that_ends_in_time_is_not_ended(fake: FakeAgent, client: GuestAgent) -> None:
    fake.answer = lambda command, _: {"return": {"pid": 7} if command == "guest-exec" else {"exited": True}}
    assert await client.exec("/bin/true") == (0, b"", b"")
    assert fake.received.count("guest-exec") == 1
