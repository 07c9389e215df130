"""Ask a guest one probe's question: by its agent, or at a port of it. What it answers is hostile: bounded and cleaned.

`ask` may run for any number of guests at once; for one guest's agent they queue up behind each other.
"""

import asyncio
import ssl
from functools import cache
from typing import Any

from hotvirt.kube.errors import ApiError
from hotvirt.node import forwarding
from hotvirt.node.guest import Guest
from hotvirt.node.probes import Answer, Exec, Http, Ping, Probe, Tcp
from hotvirt.qemu.errors import QemuError
from hotvirt.qemu.guestagent import GuestAgent, clean
from hotvirt.qemu.streams import GuestStream

LONGEST = 160
"""Characters of a guest's own words that are told."""
HEAD = 8192
"""Bytes of a web server's answer that are read to find its status."""
OK = Answer(True)


class Way:
    """How a guest's ports are reached: at its address, or (`interface`) through QEMU's own network."""

    def __init__(self, *, address: str = "", interface: str = "") -> None:
        self.address, self.interface = address, interface

    async def dial(self, guest: Guest, port: int) -> GuestStream:
        if self.interface:
            return await forwarding.dial_by_qemu(guest, self.interface, port, "tcp")
        return await forwarding.dial(self.address, port, "tcp")


async def ask(probe: Probe, guest: Guest, way: Way) -> Answer:
    """Always an answer, within the probe's time."""
    try:
        async with asyncio.timeout(probe.timeout):
            return await _ask(probe, guest, way)
    except TimeoutError:
        return Answer(False, f"no answer within {probe.timeout:g} s")
    except (QemuError, ApiError) as error:
        return Answer(False, clean(error, LONGEST))
    except (OSError, EOFError) as error:  # of a guest's TLS, or of a connection that it cut
        return Answer(False, f"the connection broke: {clean(error, LONGEST)}")


async def _ask(probe: Probe, guest: Guest, way: Way) -> Answer:
    match probe.question:
        case Tcp(port):
            (await way.dial(guest, port)).writer.close()
            return OK
        case Http() as question:
            return await _get(question, await way.dial(guest, question.port), host=way.address or "guest")
        case Ping() | Exec() as question:
            if (agent := guest.answering) is None:
                return Answer(False, "the guest agent does not answer (yet)")
            return await _ask_agent(agent, question, timeout=probe.timeout)


async def _ask_agent(agent: GuestAgent, question: Ping | Exec, *, timeout: float) -> Answer:
    if isinstance(question, Ping):
        await agent.ping(timeout=timeout)
        return OK
    program, *arguments = question.command
    status, out, err = await agent.exec(program, arguments, timeout=timeout)
    if status == 0:
        return OK
    said = clean((err or out)[: 4 * LONGEST].decode(errors="replace").strip(), LONGEST)
    return Answer(False, f"{clean(program, 80)} ended with {status}{f': {said}' if said else ''}")


async def _get(question: Http, stream: GuestStream, *, host: str) -> Answer:
    writer: Any = stream.writer
    try:
        if question.is_tls:
            await writer.start_tls(_unchecked(), server_hostname=host)
        headers = {"Host": f"{host}:{question.port}", "User-Agent": "hotvirt-probe", "Accept": "*/*"}
        headers |= {**dict(question.headers), "Connection": "close"}
        lines = [f"GET {question.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        writer.write("\r\n".join(lines).encode())
        await writer.drain()
        head = b""
        while b"\n" not in head and len(head) < HEAD and (part := await stream.reader.read(HEAD)):
            head += part
    finally:
        writer.transport.abort()
    return judge(head)


def judge(head: bytes) -> Answer:
    """What the beginning of a web server's answer means. Pure."""
    words = head.partition(b"\n")[0].decode(errors="replace").split(maxsplit=2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdecimal():
        return Answer(False, "what answers is no web server")
    status = int(words[1][:3])
    return OK if 200 <= status < 400 else Answer(False, f"HTTP status {status}")


@cache
def _unchecked() -> ssl.SSLContext:
    """As a kubelet does: the guest's certificate is its own affair."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
