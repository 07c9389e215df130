"""ssh, scp and port-forward: the command lines, the ports, and bytes through a stream of the API."""

import asyncio
import contextlib
import os
import socket
import sys
from datetime import UTC, datetime, timedelta

import click
import pytest
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer

from hotvirt.cli import portforward, proxy, terminal
from hotvirt.cli.portforward import Ports, parse_ports, resolve
from hotvirt.cli.ssh import Options, parse_copy, plan_scp, plan_ssh
from hotvirt.cli.targets import Target, parse
from hotvirt.kube.errors import InternalError
from hotvirt.kube.kubeconfig import Access
from hotvirt.kube.resources import VMIS, VMS

VMI = "/apis/kubevirt.io/v1/namespaces/default/virtualmachineinstances/web"
PLAIN = Options(proxy="me port-forward --stdio vm/web/default 22")


def test_ssh():
    plain = ["ssh", "-o", "ProxyCommand=me port-forward --stdio vm/web/default 22"]
    assert plan_ssh(PLAIN, Target(None, "web"), "default", []) == [*plain, "vm.web.default"]
    options = Options(proxy=PLAIN.proxy, user="ada", identity="key", known_hosts="hosts", extra=("-v", "-o A=b"))
    assert plan_ssh(options, Target(VMIS, "web"), "prod", ["uname"]) == [
        *plain, "-o", "UserKnownHostsFile=hosts", "-v", "-o A=b", "-i", "key", "ada@vmi.web.prod", "uname",
    ]  # fmt: skip


def test_scp():
    assert plan_scp(PLAIN, ["-r"], ["a", "vm.web.default:b"])[3:] == ["-r", "a", "vm.web.default:b"]
    assert parse_copy("a", "root@vm/web/prod:/b:c") == (Target(VMS, "web", "prod", "root"), "/b:c", "a", True)
    assert parse_copy("web:b", ".") == (Target(None, "web"), "b", ".", False)
    for words in (("a", "b"), ("web:a", "db:b"), ("pod/web:a", "b")):
        with pytest.raises(click.UsageError, match="write"):
            parse_copy(*words)


def test_ssh_reaches_the_same_api_by_the_same_program(run, api, monkeypatch):
    became = []
    monkeypatch.setattr(os, "execvp", lambda program, words: became.append(words))
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    monkeypatch.setenv("USER", "me")
    code, _, err = run("--kubeconfig=/a b/c", "ssh", "vm/web/prod", "-p", "2222", "-c", "uname -r", "-t", "-o X=100%")
    assert (code, err) == (0, "")
    proxy = f"{sys.executable} -m hotvirt '--kubeconfig=/a b/c' port-forward --stdio --wait vm/web/prod 2222"
    assert became == [
        ["ssh", "-o", f"ProxyCommand={proxy}", "-o X=100%", "me@vm.web.prod", "uname -r"]
    ]  # fmt: skip


def running_since(seconds):
    began = (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()
    status = {"phase": "Running", "phaseTransitionTimestamps": [
        {"phase": "Scheduled", "phaseTransitionTimestamp": began},
        {"phase": "Running", "phaseTransitionTimestamp": began},
    ]}  # fmt: skip
    return {"metadata": {"name": "web", "resourceVersion": "1"}, "status": status}


@pytest.fixture
def refusals(monkeypatch):
    """What the guest's port says, before it answers."""
    waiting = []

    def connect(access, path, **_):
        if waiting:
            raise InternalError(waiting.pop(0))

    monkeypatch.setattr(terminal, "run", connect)
    monkeypatch.setattr(portforward, "AGAIN", 0)
    return waiting


def test_a_guest_that_boots_is_waited_for(run, api, refusals):
    api.answers["GET", VMI] = running_since(20)
    refusals += ["port 22: cannot be reached: No route to host", "port 22: refused"]
    code, _, err = run("port-forward", "--stdio", "--wait", "vm/web", "22")
    assert (code, refusals) == (0, [])
    said = "Waiting for web, which is still booting (port 22: cannot be reached: No route to host) ...\n"
    assert err == said


@pytest.mark.parametrize(("words", "seconds"), [(["--wait"], 3600), ([], 20)])
def test_a_guest_that_has_booted_or_is_not_to_be_waited_for_is_asked_once(run, api, refusals, words, seconds):
    api.answers["GET", VMI] = running_since(seconds)
    refusals += ["port 22: refused", "port 22: refused"]
    code, _, err = run("port-forward", "--stdio", *words, "vm/web", "22")
    assert (code, err, len(refusals)) == (1, "port 22: refused", 1)


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("80", Ports("tcp", 80, 80)),
        ("8080:80", Ports("tcp", 8080, 80)),
        ("0:80", Ports("tcp", 0, 80)),
        ("UDP/5353:53", Ports("udp", 5353, 53)),
    ],
)
def test_ports(text, ports):
    assert parse_ports(text) == ports


@pytest.mark.parametrize("text", ["", "http", "80:", "0", "80:0", "80:99999", "sctp/80", "1:2:3", "-1"])
def test_what_is_no_port(text):
    with pytest.raises(ValueError, match="write"):
        parse_ports(text)


def test_an_address_that_is_none():
    assert resolve("::1") == "::1"
    assert parse("web").short == "vm"


async def echo(request):
    if request.match_info["port"] == "9":
        return web.json_response({"kind": "Status", "code": 409, "message": "VMI is not running"}, status=409)
    stream = web.WebSocketResponse(protocols=("plain.kubevirt.io",))
    await stream.prepare(request)
    async for message in stream:
        if message.type is WSMsgType.BINARY:
            await stream.send_bytes(message.data.upper())
            if b"bye" in message.data:
                break
    return stream


@contextlib.asynccontextmanager
async def forwarding(*forwards):
    """The local ports that lead to a guest which answers in capitals."""
    app = web.Application()
    app.router.add_get("/{port}", echo)
    async with TestServer(app) as server:
        access, ready = Access(server=str(server.make_url("")).rstrip("/")), asyncio.Queue()
        serving = asyncio.create_task(proxy._serve(access, forwards, "127.0.0.1", ready.put_nowait, False, None))
        try:
            async with asyncio.timeout(10):
                yield await ready.get()
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


async def test_tcp_each_connection_is_a_stream_of_its_own():
    async with forwarding(proxy.Forward(path="/1", port=0), proxy.Forward(path="/2", port=0)) as ports:
        assert len(set(ports)) == 2
        first, second = [await asyncio.open_connection("127.0.0.1", port) for port in ports]
        second[1].write(b"two")
        first[1].write(b"one")
        assert await first[0].readexactly(3) == b"ONE"
        assert await second[0].readexactly(3) == b"TWO"
        first[1].write(b"bye")
        assert await first[0].read() == b"BYE"
        for _, writer in (first, second):
            writer.close()
            await writer.wait_closed()


async def test_tcp_a_refusal_is_told_and_the_next_connection_tried(capsys):
    async with forwarding(proxy.Forward(path="/9", port=0)) as [port]:
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
    assert capsys.readouterr().err == "error: VMI is not running\n" * 2


async def test_udp_each_sender_has_a_stream_of_its_own():
    loop = asyncio.get_running_loop()
    async with forwarding(proxy.Forward(path="/1", port=0, protocol="udp")) as [port]:
        with socket.socket(type=socket.SOCK_DGRAM) as one, socket.socket(type=socket.SOCK_DGRAM) as two:
            for each in (one, two):
                each.setblocking(False)
                each.connect(("127.0.0.1", port))
            one.send(b"one")
            two.send(b"two")
            one.send(b"again")
            assert await loop.sock_recv(one, 100) == b"ONE"
            assert await loop.sock_recv(two, 100) == b"TWO"
            assert await loop.sock_recv(one, 100) == b"AGAIN"
