"""The console from a pipe and from a terminal, against a guest that repeats what it hears."""

import asyncio
import contextlib
import os
import pty
import sys
import termios
import time

import pytest
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer

pytestmark = pytest.mark.server  # real programs run

CODE = """
import sys
from hotvirt.cli import terminal
from hotvirt.kube.kubeconfig import Access
terminal.run(Access(server=sys.argv[1]), "/console", linger=0.1)
"""


async def echo(request):
    socket = web.WebSocketResponse(protocols=("plain.kubevirt.io",))
    await socket.prepare(request)
    async for message in socket:
        if message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data.upper())
            if b"poweroff" in message.data:
                break
    return socket


@contextlib.asynccontextmanager
async def guest():
    app = web.Application()
    app.router.add_get("/console", echo)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


@contextlib.asynccontextmanager
async def console(url, **streams):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CODE, url, stderr=asyncio.subprocess.PIPE, **streams
    )
    try:
        async with asyncio.timeout(10):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


PIPES = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}


async def test_piped_input_is_sent_and_the_answer_shown():
    async with guest() as url, console(url, **PIPES) as process:
        out, err = await process.communicate(b"uname\n")
    assert (out, err, process.returncode) == (b"UNAME\n", b"", 0)


async def test_the_guests_end_ends_the_console():
    async with guest() as url, console(url, **PIPES) as process:
        process.stdin.write(b"poweroff\n")  # and the pipe stays open
        assert await process.stdout.read() == b"POWEROFF\n"
        assert await process.wait() == 0


def wait_until_raw(terminal):
    """Until then the terminal itself takes Ctrl+C. Nothing tells of the change, so it is looked for."""
    while termios.tcgetattr(terminal)[3] & termios.ICANON:
        time.sleep(0.01)


async def test_a_terminal_is_raw_and_left_by_the_escape_key():
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    async with guest() as url, console(url, stdin=theirs, stdout=asyncio.subprocess.PIPE) as process:
        await asyncio.to_thread(wait_until_raw, theirs)
        os.write(ours, b"\x03ls")
        assert await process.stdout.readexactly(3) == b"\x03LS"
        os.write(ours, b"\x1dnot sent")
        assert await process.stdout.read() == b""
        assert await process.wait() == 0
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)


async def test_a_refused_stream_gives_the_servers_sentence():
    async def refuse(request):
        return web.json_response({"kind": "Status", "code": 409, "message": "VMI is not running"}, status=409)

    app = web.Application()
    app.router.add_get("/console", refuse)
    async with (
        TestServer(app) as server,
        console(str(server.make_url("")).rstrip("/"), stdin=asyncio.subprocess.DEVNULL) as process,
    ):
        _, err = await process.communicate()
    assert b"Conflict: VMI is not running" in err
