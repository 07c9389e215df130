"""Connections to a port of a guest that has an address: bytes over TCP, packets over UDP, and what cannot be had."""

import asyncio
import socket
from contextlib import AsyncExitStack

import pytest

from hotvirt.kube.errors import InternalError
from hotvirt.node import forwarding
from hotvirt.qemu import hostports


def unused_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def test_tcp():
    async def echo(reader, writer):
        writer.write(await reader.read(100))
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        stream = await forwarding.dial("127.0.0.1", server.sockets[0].getsockname()[1], "tcp")
        stream.writer.write(b"\x00\xff")
        assert await stream.reader.read(100) == b"\x00\xff"
        assert await stream.reader.read(100) == b""
        assert stream.why() == "the guest's side ended"
        stream.writer.close()
        await stream.writer.wait_closed()
    with pytest.raises(InternalError, match="refused: nothing listens there in the guest"):
        await forwarding.dial("127.0.0.1", unused_port(), "tcp")


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.transport.sendto(data, addr)
        if data == b"twice":
            self.transport.sendto(b"", addr)
            self.transport.sendto(b"again", addr)


async def test_udp_keeps_packets_apart_and_lets_go_of_its_way():
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    closed = asyncio.Event()
    held = AsyncExitStack()
    held.callback(closed.set)
    stream = await forwarding._packets("127.0.0.1", transport.get_extra_info("sockname")[1], held)
    stream.writer.write(b"one")
    stream.writer.write(b"twice")
    await stream.writer.drain()
    assert [await stream.reader.read(1) for _ in range(3)] == [b"one", b"twice", b"again"]
    assert not closed.is_set()
    waiting = asyncio.create_task(stream.reader.read(1))
    await asyncio.sleep(0)
    stream.writer.close()
    assert stream.writer.is_closing()
    assert await waiting == b""
    await stream.writer.wait_closed()
    assert closed.is_set()
    stream.writer.write(b"late")  # nobody is there: lost, as packets may be
    transport.close()


async def test_udp_where_nothing_listens_says_nothing():
    stream = await forwarding.dial("127.0.0.1", unused_port(), "udp")
    stream.writer.write(b"x")
    await asyncio.sleep(0.01)
    stream.writer.write(b"y")
    stream.writer.close()
    await stream.writer.wait_closed()


async def test_unread_packets_are_bounded():
    packets = forwarding.Packets(AsyncExitStack())
    for number in range(1000):
        packets.datagram_received(b"%d" % number, None)
    assert await packets.read(1) == b"744"


TABLE = """\
Hub -1 (net-default):
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ
  TCP[SYN_SENT]      91      127.64.3.4 44549       10.0.2.15  7777     0     0
  TCP[HOST_FORWARD]  90      127.64.3.4 44549       10.0.2.15  7777     0     0
  TCP[ESTABLISHED]   92       127.0.0.1 42577       10.0.2.15    22     0    12
  TCP[FIN_WAIT_1]    93       127.0.0.1 42578       10.0.2.15  7777     0     0
  UDP[236 sec]       94       127.0.0.1 42579       10.0.2.15    53     0     0
  ICMP[4 sec]        95       10.0.2.15     -         8.8.8.8     -     0     0
"""


@pytest.mark.parametrize(
    ("via", "expected"),
    [(("127.64.3.4", 44549), "SYN_SENT"), (("127.0.0.1", 42577), "ESTABLISHED"), (("127.0.0.1", 42578), ""),
     (("127.0.0.1", 42579), ""), (("127.0.0.1", 7777), "")],
)  # fmt: skip
def test_qemus_table_of_connections(via, expected):
    assert hostports.connection(TABLE, via) == expected
    assert hostports.connection("", via) == ""


class Monitor:
    """QEMU's answers to `info usernet`, one after the other, the last one again and again."""

    def __init__(self, *tables):
        self._tables = list(tables)

    async def execute(self, command, arguments):
        return self._tables.pop(0) if len(self._tables) > 1 else self._tables[0]


@pytest.mark.looptime
async def test_a_connection_is_waited_for_until_it_is_taken_or_refused():
    via = ("127.64.3.4", 44549)
    assert await hostports.taken(Monitor("", TABLE, TABLE.replace("SYN_SENT", "ESTABLISHED")), via)
    assert not await hostports.taken(Monitor("", TABLE, ""), via)
    assert not await hostports.taken(Monitor(TABLE), via)
