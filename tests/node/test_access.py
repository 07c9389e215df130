"""The API's way into a guest: one console at a time, whoever came last; and words for what cannot be."""

import asyncio
import contextlib
import socket
from types import SimpleNamespace

import pytest

from hotvirt.kube.errors import Conflict, InternalError, NotFound
from hotvirt.node.access import LocalGuestAccess
from hotvirt.node.guest import AgentView
from hotvirt.node.network import NetworkError, UserNetwork
from hotvirt.node.places import PodPlace
from hotvirt.qemu.errors import AgentLacks, AgentTimeout, QemuTimeout
from hotvirt.qemu.guestagent import AgentInfo


class Agent:
    """Of the guest: answers, or raises, what it is given."""

    def __init__(self, **answers):
        self.answers = answers

    def __getattr__(self, name):
        async def answer(**_):
            found = self.answers.get(name)
            if isinstance(found, Exception):
                raise found
            return found

        return answer


class Monitor:
    name = "web"

    def __init__(self):
        self.asked = []

    async def execute(self, command, arguments=None):
        self.asked.append(command)


class Guest:
    is_gone = False

    def __init__(self, directory, *, status="running", agent=None, uid="u-1"):
        self.uid, self.status, self.answering = uid, status, agent
        self.place = PodPlace(directory)
        self.monitor = Monitor()
        self.pokes = 0
        info = AgentInfo("7.2", frozenset({"guest-ping"}))
        self.view = AgentView(info=info, hostname="web", os={"id": "x"}) if agent else None

    def poke(self):
        self.pokes += 1

    async def observe(self):
        if isinstance(self.status, Exception):
            raise self.status
        return SimpleNamespace(status=self.status)


def access(*guests):
    async def guest_of(key, *, answering=False):
        return next((guest for guest in guests if key.name == "web"), None)

    return LocalGuestAccess(SimpleNamespace(guest_of=guest_of))


async def answer(reader, writer):
    while line := await reader.readline():
        writer.write(b"guest heard " + line)
    writer.close()


@pytest.fixture
async def serial(tmp_path):
    """A console as QEMU has it: whoever comes second is not listened to before the first is gone."""
    turn = asyncio.Lock()

    async def serve(reader, writer):
        async with turn:
            await answer(reader, writer)

    server = await asyncio.start_unix_server(serve, tmp_path / "serial.sock")
    async with server:
        yield


async def say(stream, text):
    stream.writer.write(text + b"\n")
    async with asyncio.timeout(5):
        return await stream.reader.readline()


async def test_a_second_console_displaces_the_first(serial, tmp_path):
    into = access(Guest(tmp_path))
    first = await into.console("default", "web")
    assert await say(first, b"one") == b"guest heard one\n"
    second = await into.console("default", "web")
    assert await first.reader.read() == b""
    assert await say(second, b"two") == b"guest heard two\n"
    second.writer.close()
    third = await into.console("default", "web")
    assert await say(third, b"three") == b"guest heard three\n"
    third.writer.close()


async def test_of_consoles_opened_at_once_one_is_left(serial, tmp_path):
    into = access(Guest(tmp_path))
    streams = await asyncio.gather(*(into.console("default", "web") for _ in range(3)))
    (last,) = [each for each in streams if not each.writer.is_closing()]
    assert await say(last, b"it") == b"guest heard it\n"
    last.writer.close()


def fill_up(path):
    """The queue before a socket, with clients that are dead already."""
    with contextlib.ExitStack() as dead, contextlib.suppress(BlockingIOError):
        while True:
            client = dead.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect(str(path))


@pytest.fixture
def crowded(tmp_path):
    """A console's listener with no place left before it: QEMU has not seen yet that those who wait are gone."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "serial.sock"))
        listener.listen(1)
        fill_up(tmp_path / "serial.sock")
        yield listener


async def test_a_full_queue_before_the_console_is_waited_for(crowded, tmp_path):
    async with asyncio.TaskGroup() as group:
        opening = group.create_task(access(Guest(tmp_path)).console("default", "web"))
        await asyncio.sleep(0.05)
        assert not opening.done()
        async with await asyncio.start_unix_server(answer, sock=crowded):
            stream = await opening
            assert await say(stream, b"it") == b"guest heard it\n"
            stream.writer.write_eof()
            assert await stream.reader.read() == b""
            stream.writer.close()


@pytest.mark.looptime
async def test_a_queue_that_stays_full_is_said_so(crowded, tmp_path):
    with pytest.raises(InternalError, match="the console of web was not free within 10 s"):
        await access(Guest(tmp_path)).console("default", "web")


async def test_consoles_of_guests_that_are_gone_are_forgotten(serial, tmp_path):
    first, second = Guest(tmp_path, uid="u-1"), Guest(tmp_path, uid="u-2")
    guests = [first]
    into = access()
    into._agent = SimpleNamespace(guest_of=lambda key: asyncio.sleep(0, guests[0]))
    (await into.console("default", "web")).writer.close()
    guests[0] = second
    (await into.console("default", "web")).writer.close()
    assert (into.console_in_use("u-1"), into.console_in_use("u-2")) == (False, False)
    assert list(into._sessions._held) == [("console", "u-2")]


async def test_whoever_stops_ends_all_streams_and_says_so(serial, tmp_path):
    into = access(Guest(tmp_path))
    into._agent.network, into._agent.address_of = SimpleNamespace(kind="bridge"), lambda guest, namespace: "127.0.0.1"
    console = await into.console("default", "web")

    async def listen(reader, writer):
        await reader.read()
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with server:
        number = server.sockets[0].getsockname()[1]
        tcp, udp = [
            await into.port_forward("default", "web", port=number, protocol=protocol, interface="default")
            for protocol in ("tcp", "udp")
        ]
        into.close()
        for stream in (console, tcp, udp):
            assert await stream.reader.read(1) == b""
            assert stream.writer.is_closing()
        await udp.writer.wait_closed()
    assert (console.why(), tcp.why()) == (
        "EOF: hotvirt is stopping, the guest goes on: connect again", "the guest's side ended",
    )  # fmt: skip


async def test_places_are_told_with_the_networks_of_the_node(tmp_path):
    guest = Guest(tmp_path)
    guest.observe = lambda: asyncio.sleep(0, SimpleNamespace(disks=[], free_ports=["a", "b"]))
    into = access(guest)
    into._agent.network = UserNetwork()
    told = await into.places("default", "web")
    assert (told["ports"], told["network"], told["bridges"]) == (2, "user", {})

    async def fail():
        raise NetworkError("the node's bridges cannot be listed")

    into._agent.network = SimpleNamespace(kind="bridge", bridges=fail)
    with pytest.raises(InternalError, match="cannot be listed"):
        await into.places("default", "web")


async def test_no_guest_no_console(tmp_path):
    with pytest.raises(NotFound, match="no guest of web runs in namespace default: start the VM first"):
        await access().console("default", "web")
    with pytest.raises(InternalError, match="the console of web cannot be opened"):
        await access(Guest(tmp_path)).console("default", "web")


PAUSES = {
    "pause": ("pause", "running", ["stop"]),
    "pause again": ("pause", "paused", None),
    "unpause": ("unpause", "paused", ["cont"]),
    "unpause again": ("unpause", "running", None),
    "pause after a reset": ("pause", "prelaunch", None),
    "go on after a reset": ("unpause", "prelaunch", ["cont"]),
    "reset": ("reset", "running", ["system_reset"]),
    "reset while paused": ("reset", "paused", ["system_reset"]),
    "soft reboot without an agent": ("soft_reboot", "running", ["system_powerdown"]),
}


@pytest.mark.parametrize(("verb", "status", "expected"), PAUSES.values(), ids=PAUSES)
async def test_pause_and_unpause(tmp_path, verb, status, expected):
    guest = Guest(tmp_path, status=status)
    if expected is None:
        with pytest.raises(Conflict):
            await getattr(access(guest), verb)("default", "web")
    else:
        await getattr(access(guest), verb)("default", "web")
    assert guest.monitor.asked == (expected or [])


async def test_a_qemu_that_hangs_is_said(tmp_path):
    guest = Guest(tmp_path, status=QemuTimeout("QEMU of web did not answer"))
    with pytest.raises(InternalError, match="web: QEMU of web did not answer"):
        await access(guest).pause("default", "web")


async def test_without_an_agent_what_needs_it_says_what_to_do(tmp_path):
    for ask in ("facts", "guest_os_info", "users", "filesystems", "unfreeze"):
        with pytest.raises(Conflict, match="install qemu-guest-agent in the guest"):
            await getattr(access(Guest(tmp_path)), ask)("default", "web")
    with pytest.raises(Conflict, match="install qemu-guest-agent in the guest"):
        await access(Guest(tmp_path)).freeze("default", "web", seconds=5)


async def test_what_an_agent_will_not_tell_is_left_out_and_what_hangs_is_said(tmp_path):
    lacks = AgentLacks("guest-get-users", "CommandNotFound", "no")
    mounted = {"name": "vda1", "mountpoint": "/", "type": "ext4", "used-bytes": 7, "total-bytes": True, "x": "y"}
    mounted["disk"] = [{"bus-type": "virtio", "serial": "s-1", "unit": 0}, "nonsense"]
    guest = Guest(tmp_path, agent=Agent(timezone="UTC", users=lacks, fsinfo=[mounted]))
    assert await access(guest).guest_os_info("default", "web") == {
        "guestAgentVersion": "7.2", "supportedCommands": [{"name": "guest-ping", "enabled": True}], "hostname": "web",
        "os": {"id": "x"}, "timezone": "UTC", "userList": [], "fsFreezeStatus": "thawed",
        "fsInfo": {"disks": [{
            "diskName": "vda1", "mountPoint": "/", "fileSystemType": "ext4", "usedBytes": 7, "totalBytes": 0,
            "disk": [{"busType": "virtio", "serial": "s-1"}],
        }]},
    }  # fmt: skip
    guest.answering = Agent(timezone=AgentTimeout("the guest agent did not answer"))
    with pytest.raises(InternalError, match="did not answer"):
        await access(guest).guest_os_info("default", "web")
