"""exec, attach and port-forward as kubectl asks for them, over WebSockets and over SPDY, each under its own permission.

The program is one in this process, so the cases are the server's and the clients' alone.
"""

import asyncio
import json
import os
import shutil
import ssl
import struct
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from hotvirt.kube.errors import InternalError
from hotvirt.kube.podstreams import Command, Dialled
from hotvirt.kube.resources import CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, PODS
from hotvirt.server.app import ApiServer, ServerConfig
from hotvirt.server.pki import Pki

pytestmark = pytest.mark.server
BESIDE = shutil.which("kubectl", path=str(Path(sys.executable).parent))
SYSTEM = next(filter(None, (shutil.which("kubectl", path=p) for p in ("/usr/bin", "/usr/local/bin"))), None)
SPDY = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false", "KUBECTL_PORT_FORWARD_WEBSOCKETS": "false"}
WAYS = {"websocket": (BESIDE, {}), "spdy": (BESIDE, SPDY), "system": (SYSTEM, {})}
POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
       "spec": {"containers": [{"name": "c", "image": "x"}]}}  # fmt: skip
PATH = "/api/v1/namespaces/default/pods/p"


STARTS = 0.1
"""Seconds until a program speaks or ends, as in a guest it takes at least. kubectl 1.32 drops what comes before it has
opened its side of the streams ("Unknown stream id 3, discarding message"), which it does at the time of the answer."""


class Program:
    """`upper` says its input in capitals; `fail N` says something and exits with N; `missing` can't be run."""

    def __init__(self, command: Command) -> None:
        self._command = command
        self._started = asyncio.create_task(asyncio.sleep(STARTS))
        self._said: asyncio.Queue[bytes] = asyncio.Queue()
        self._complained: asyncio.Queue[bytes] = asyncio.Queue()
        if command.argv[0] == "fail":
            self._said.put_nowait(b"out\n")
            self._complained.put_nowait(b"err\n")
        if not command.stdin:
            self._end()

    def _end(self) -> None:
        self._said.put_nowait(b"")
        self._complained.put_nowait(b"")

    async def read(self, stream: str) -> bytes:
        await asyncio.shield(self._started)
        return await (self._said if stream == "stdout" else self._complained).get()

    async def write(self, data: bytes) -> None:
        self._said.put_nowait(data.upper())

    async def end_input(self) -> None:
        self._end()

    def resize(self, columns: int, rows: int) -> None:
        return

    async def wait(self) -> int:
        await asyncio.shield(self._started)
        if self._command.argv[0] == "missing":
            raise InternalError("executable file missing not found")
        return int(self._command.argv[1]) if self._command.argv[0] == "fail" else 0

    async def close(self) -> None:
        self._started.cancel()


class Runner:
    async def exec(self, pod: Any, command: Command, user: Any) -> Program:
        return Program(command)

    async def attach(self, pod: Any, command: Command, user: Any) -> Program:
        return Program(Command(container="c", argv=("fail", "0")))

    async def dial(self, pod: Any, port: int, user: Any) -> Dialled:
        try:
            return Dialled(*await asyncio.open_connection("127.0.0.1", port))
        except OSError as error:
            raise InternalError(f"port {port}: nothing listens there") from error


class Api:
    def __init__(self, server: ApiServer, directory: Path, pki: Pki) -> None:
        self.server, self._directory, self._pki = server, directory, pki

    def session(self, user: str = "admin", *groups: str) -> aiohttp.ClientSession:
        pair = self._pki.client(user, groups or (("system:masters",) if user == "admin" else ()))
        context = ssl.create_default_context(cafile=str(self._pki.ca))
        context.load_cert_chain(pair.certificate, pair.key)
        connector = aiohttp.TCPConnector(ssl=context)
        return aiohttp.ClientSession(f"https://127.0.0.1:{self.server.port}", connector=connector)

    async def start(self, way: str, *args: str) -> asyncio.subprocess.Process:
        binary, env = WAYS[way]
        if binary is None:
            pytest.skip("this kubectl is not installed")
        pair = self._pki.client("admin", ("system:masters",))
        cluster = {"server": f"https://127.0.0.1:{self.server.port}", "certificate-authority": str(self._pki.ca)}
        user = {"client-certificate": str(pair.certificate), "client-key": str(pair.key)}
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "h",
            "contexts": [{"name": "h", "context": {"cluster": "h", "user": "u"}}],
            "clusters": [{"name": "h", "cluster": cluster}], "users": [{"name": "u", "user": user}],
        }  # fmt: skip
        path = self._directory / "kubeconfig"
        path.write_text(json.dumps(config))
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            binary, *args, stdin=pipe, stdout=pipe, stderr=pipe,
            env={"KUBECONFIG": str(path), "HOME": str(self._directory), "PATH": os.environ["PATH"], **env},
        )  # fmt: skip

    async def kubectl(self, way: str, *args: str, text: bytes | None = None) -> tuple[int | None, str, str]:
        process = await self.start(way, *args)
        out, complaints = await asyncio.wait_for(process.communicate(text), 30)
        return process.returncode, out.decode(), complaints.decode()


@pytest.fixture
async def api(tmp_path: Path, pki: Path) -> AsyncIterator[Api]:
    server = ApiServer(ServerConfig(state_db=tmp_path / "state.db", pki=pki), pod_streams=Runner())  # type: ignore[arg-type]
    await server.start()
    client = server.client()
    await client.create(PODS, POD, "default")
    await client.patch(PODS, "p", {"status": {"phase": "Running"}}, "default", subresource="status")
    yield Api(server, tmp_path, Pki(pki))
    await server.stop()


@pytest.mark.parametrize("way", WAYS)
async def test_exec_and_attach(api: Api, way: str) -> None:
    code, out, complaints = await api.kubectl(way, "exec", "p", "--", "fail", "3")
    assert (code, out) == (3, "out\n")
    assert complaints.startswith("err\n")
    big = b"x" * 300_000
    assert await api.kubectl(way, "exec", "-i", "p", "--", "upper", text=big) == (0, "X" * 300_000, "")
    code, _, complaints = await api.kubectl(way, "exec", "p", "--", "missing")
    assert code == 1
    assert "executable file missing not found" in complaints
    code, _, complaints = await api.kubectl(way, "exec", "p", "-c", "other", "--", "upper")
    assert code == 1
    assert "other" in complaints
    code, out, _ = await api.kubectl(way, "attach", "p")
    assert (code, out) == (0, "out\n")


@pytest.mark.parametrize("way", WAYS)
async def test_port_forward(api: Api, way: str) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data.upper())
        writer.close()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as far:
        port = far.sockets[0].getsockname()[1]
        process = await api.start(way, "port-forward", "pod/p", f":{port}")
        assert process.stdout is not None
        said = (await asyncio.wait_for(process.stdout.readline(), 20)).decode()
        near = int(said.split("127.0.0.1:")[1].split(" ")[0])
        try:
            for _ in range(2):  # one after the other, over the same client's connection
                reader, writer = await asyncio.open_connection("127.0.0.1", near)
                writer.write(b"y" * 200_000)
                assert await asyncio.wait_for(reader.readexactly(200_000), 20) == b"Y" * 200_000
                writer.close()
            far.close()
            await far.wait_closed()
            reader, writer = await asyncio.open_connection("127.0.0.1", near)
            assert await asyncio.wait_for(reader.read(), 20) == b""
            writer.close()
            assert process.stderr is not None
            assert b"nothing listens there" in await asyncio.wait_for(process.stderr.readline(), 20)
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


async def test_ports_by_channels_as_the_python_client_does(api: Api) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello " + await reader.readline())
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as far, api.session() as session:
        port = far.sockets[0].getsockname()[1]
        where = f"{PATH}/portforward?ports={port}"
        async with session.ws_connect(where, protocols=["v4.channel.k8s.io"]) as socket:
            number = struct.pack("<H", port)
            assert [await socket.receive_bytes(), await socket.receive_bytes()] == [b"\0" + number, b"\1" + number]
            await socket.send_bytes(b"\0you\n")
            assert await socket.receive_bytes() == b"\0hello you\n"
            assert (await socket.receive()).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)


async def test_what_is_refused_before_the_upgrade(api: Api) -> None:
    async with api.session() as session:
        for path, status, told in (
            ("exec?command=x&stdout=1", 400, "Upgrade request required"),
            ("exec?stdout=1", 400, "at least 1 command"),
            ("portforward", 400, "Upgrade request required"),
        ):
            answer = await session.get(f"{PATH}/{path}")
            assert (answer.status, told in (await answer.json())["message"]) == (status, True), path
        answer = await session.get("/api/v1/namespaces/default/pods/none/exec?command=x&stdout=1")
        assert answer.status == 404
        for path, protocol in (("exec?command=x&stdout=1", "v9.channel.k8s.io"), ("portforward?ports=1", "other")):
            with pytest.raises(aiohttp.WSServerHandshakeError) as told_so:
                await session.ws_connect(f"{PATH}/{path}", protocols=[protocol])
            assert told_so.value.status == 400


@pytest.mark.parametrize(
    ("resource", "verbs", "status"),
    [
        ("pods/exec", ["create", "get"], 101), ("pods/exec", ["get"], 403), ("pods/exec", ["create"], 403),
        ("pods/*", ["create", "get"], 403), ("pods", ["*"], 403), ("pods/attach", ["*"], 403),
    ],
)  # fmt: skip
async def test_exec_takes_its_own_permission(api: Api, resource: str, verbs: list[str], status: int) -> None:
    client = api.server.client()
    rule = {"apiGroups": [""], "resources": [resource], "verbs": verbs}
    subject = {"kind": "User", "name": "eve", "apiGroup": "rbac.authorization.k8s.io"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "some"}
    head = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "some"}}
    await client.create(CLUSTER_ROLES, {**head, "kind": "ClusterRole", "rules": [rule]})
    await client.create(CLUSTER_ROLE_BINDINGS, {**head, "kind": "ClusterRoleBinding", "roleRef": role,
                                                "subjects": [subject]})  # fmt: skip
    async with api.session("eve") as session:
        where = f"{PATH}/exec?command=upper&stdout=1"
        try:
            socket = await session.ws_connect(where, protocols=["v5.channel.k8s.io"])
            got = 101
            assert json.loads((await socket.receive_bytes())[1:])["status"] == "Success"
            await socket.close()
        except aiohttp.WSServerHandshakeError as error:
            got = error.status
    assert got == status
