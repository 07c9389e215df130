"""KubeVirt's subresources against one real guest: what is asked over HTTP and WebSockets, and what the guest then did.

One boot carries all; each step leaves the guest running, or boots it anew in the same QEMU.
"""

import asyncio
import hashlib
import json
import os
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import WSMsgType

from hotvirt.kube import kubeconfig, tls

pytestmark = [pytest.mark.guest, pytest.mark.timeout(360)]

GROUP = "/apis/subresources.kubevirt.io"
VM, VMI = "namespaces/default/virtualmachines/web", "namespaces/default/virtualmachineinstances/web"
PLAIN = ("plain.kubevirt.io",)
# The shell's echo of a line must not look like its answer.
ASK, ANSWER = b"echo $((6 * 7))-it-is\n", b"42-it-is"


class Api:
    def __init__(self, session, base, patience):
        self._session, self._base, self._patience = session, base, patience

    async def ask(self, method, path, body=None, *, version="v1", **query):
        url = f"{self._base}{GROUP}/{version}/{path}"
        async with self._session.request(method, url, json=body, params=query) as answer:
            content = await answer.read()
            if answer.content_type == "application/json" and content:
                return answer.status, json.loads(content)
            return answer.status, content

    async def put(self, path, body=None, **how):
        status, said = await self.ask("PUT", path, body, **how)
        assert status in (200, 202), (path, said)

    async def refused(self, status, says, method, path, body=None, **how):
        got, said = await self.ask(method, path, body, **how)
        assert (got, said["kind"], says in said["message"]) == (status, "Status", True), (path, said)

    async def facts(self):
        url = f"{self._base}/apis/subresources.hotvirt.io/v1alpha1/{VMI}/guestfacts"
        async with self._session.get(url) as answer:
            return answer.status, await answer.json()

    @asynccontextmanager
    async def stream(self, path, *, protocols=PLAIN, **how):
        async with self._session.ws_connect(f"{self._base}{GROUP}/v1/{path}", protocols=protocols, **how) as socket:
            yield Stream(socket, self._patience)

    async def status_of_stream(self, path):
        try:
            async with self._session.ws_connect(f"{self._base}{GROUP}/v1/{path}", protocols=PLAIN):
                return 101
        except aiohttp.WSServerHandshakeError as error:
            return error.status


class Stream:
    """Bytes over a WebSocket, as virtctl has them."""

    def __init__(self, socket, patience):
        self.socket, self._patience, self._heard = socket, patience, b""

    async def say(self, data):
        await self.socket.send_bytes(data)

    async def until(self, text):
        """What came, up to and with `text`."""
        async with asyncio.timeout(self._patience):
            while text not in self._heard:
                message = await self.socket.receive()
                assert message.type is WSMsgType.BINARY, f"{message} before {text!r}, after {self._heard[-300:]!r}"
                self._heard += message.data
        found, _, self._heard = self._heard.partition(text)
        return found + text

    async def exactly(self, count):
        async with asyncio.timeout(self._patience):
            while len(self._heard) < count:
                message = await self.socket.receive()
                assert message.type is WSMsgType.BINARY, message
                self._heard += message.data
        found, self._heard = self._heard[:count], self._heard[count:]
        return found

    async def closes(self):
        """Why, after whatever else is still said."""
        async with asyncio.timeout(self._patience):
            while (message := await self.socket.receive()).type is WSMsgType.BINARY:
                pass
        assert message.type is WSMsgType.CLOSE, message
        return message.data, message.extra


@pytest.fixture
async def api(home):
    @asynccontextmanager
    async def connect():
        access = kubeconfig.load(home.directory / "kubeconfig")
        connector = aiohttp.TCPConnector(ssl=tls.client_context(access))
        timeout = aiohttp.ClientTimeout(total=home.patience)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            yield Api(session, access.server, home.patience)

    return connect


async def test_a_guest_is_reached_and_told_by_every_verb(home, api):
    home.apply_claim("core", "400Mi")
    home.apply_vm("web", memory="256Mi")
    home.wait_agent("web")
    async with api() as web:
        await what_is_asked_of_the_api_alone(web)
        await console(web)
        await ports(web)
        await screen(web)
        await the_guests_own_words(web)
        await frozen_and_thawed(home, web)
        await memory_dump(home, web)
        await paused_and_reset(home, web)
        await rebooted(home, web)
        await while_the_home_is_killed(home, web)
    async with api() as web:
        await thawed_by_the_next_home(home, web)
        await stopped(home, web)


async def what_is_asked_of_the_api_alone(web):
    assert (await web.ask("GET", "version"))[1]["gitVersion"].startswith("v")
    assert (await web.ask("GET", "healthz"))[1]["apiserver"]["connectivity"] == "ok"
    status, vm = await web.ask("GET", f"{VM}/expand-spec")
    assert (status, vm["metadata"]["name"]) == (200, "web")
    status, graph = await web.ask("GET", f"{VM}/objectgraph")
    assert (status, graph["objectReference"]["kind"]) == (200, "VirtualMachine")
    instance = graph["children"][0]
    assert instance["objectReference"]["kind"] == "VirtualMachineInstance"
    assert instance["children"][0]["objectReference"]["name"].startswith("virt-launcher-web-")
    await web.refused(409, "Cannot migrate VMI, Reason: NotMigratable", "PUT", f"{VM}/migrate", {})
    await web.put(f"{VM}/evacuate/cancel", {"evacuationNodeName": ""})
    await web.refused(501, "SEV is not supported here", "GET", f"{VMI}/sev/fetchcertchain")
    await web.refused(501, "USB redirection is not supported here", "GET", f"{VMI}/usbredir")
    await web.refused(400, "unknown field 'colour'", "PUT", f"{VMI}/pause", {"colour": "red"})
    await web.refused(413, "larger than", "PUT", f"{VMI}/pause", {"kind": "x" * 70_000})
    await web.refused(400, "connect to it with a WebSocket", "GET", f"{VMI}/console")


async def console(web):
    path = f"{VMI}/console"
    async with web.stream(path, headers={"Origin": "http://localhost"}) as first:
        assert first.socket.protocol == PLAIN[0]
        await first.say(b"\n" + ASK)
        await first.until(ANSWER)
        await web.refused(400, "preserveSession", "GET", path, preserveSession="maybe")
        assert await web.status_of_stream(f"{path}?preserveSession=true") == 409
        async with web.stream(path, protocols=()) as second:
            assert second.socket.protocol is None
            assert await first.closes() == (1001, "EOF: another client took the session over")
            # More than a terminal takes at once: it has to be waited for, and all of it arrives.
            paste = os.urandom(24_000).hex().encode()
            lines = b"".join(paste[i : i + 200] + b"\n" for i in range(0, len(paste), 200))
            await second.say(b"stty -echo; head -n 240 | md5sum; stty echo\n")
            await second.until(b"\n")
            await second.say(lines)
            await second.until(hashlib.md5(lines).hexdigest().encode())
            await second.say(b"mke2fs -q /dev/vda; mkdir -p /mnt; mount /dev/vda /mnt && " + ASK)
            await second.until(ANSWER)
            ready = b"netstat -ltn | grep -q :7777 && ip addr show eth0 | grep -q 'inet '"
            await second.say(b"nc -ll -p 7777 -e /bin/cat & until " + ready + b"; do sleep 0.2; done; " + ASK)
            await second.until(ANSWER)


async def ports(web):
    data = os.urandom(1 << 20)

    async def send(stream):
        for start in range(0, len(data), 50_000):
            await stream.say(data[start : start + 50_000])

    async with web.stream(f"{VMI}/portforward/7777/tcp") as one, web.stream(f"{VM}/portforward/7777") as other:
        await other.say(b"through the VM")
        assert await other.exactly(14) == b"through the VM"
        sending = asyncio.create_task(send(one))
        assert await one.exactly(len(data)) == data
        await sending
    assert await web.status_of_stream(f"{VMI}/portforward/7778") == 500
    assert await web.status_of_stream(f"{VMI}/portforward/0/tcp") == 400
    assert await web.status_of_stream(f"{VMI}/portforward/7777/sctp") == 400


async def screen(web):
    status, picture = await web.ask("GET", f"{VMI}/vnc/screenshot", moveCursor="true")
    assert (status, picture[:8]) == (200, b"\x89PNG\r\n\x1a\n")
    async with web.stream(f"{VMI}/vnc") as first:
        assert await first.exactly(12) == b"RFB 003.008\n"
        assert await web.status_of_stream(f"{VMI}/vnc?preserveSession=true") == 409
        async with web.stream(f"{VMI}/vnc", protocols=()) as second:
            assert await second.exactly(12) == b"RFB 003.008\n"
            assert (await first.closes())[0] == 1001


async def the_guests_own_words(web):
    status, info = await web.ask("GET", f"{VMI}/guestosinfo", version="v1alpha3")
    assert (status, info["os"]["id"]) == (200, "hotvirt-tiny")
    status, mounted = await web.ask("GET", f"{VMI}/filesystemlist")
    assert (status, mounted["kind"]) == (200, "VirtualMachineInstanceFileSystemList")
    assert [(each["mountPoint"], each["fileSystemType"]) for each in mounted["items"]] == [("/mnt", "ext2")]
    assert 0 < mounted["items"][0]["usedBytes"] < mounted["items"][0]["totalBytes"] < 16 << 20
    status, users = await web.ask("GET", f"{VMI}/userlist")
    assert (status, users["kind"], users["items"]) == (200, "VirtualMachineInstanceGuestOSUserList", [])


async def frozen_and_thawed(home, web):
    await web.refused(400, "Unfreeze timeout in freeze request is not set", "PUT", f"{VMI}/freeze", {})
    await web.refused(400, "is not a duration", "PUT", f"{VMI}/freeze", {"unfreezeTimeout": "soon"})
    await web.put(f"{VMI}/freeze", {"unfreezeTimeout": "0s", "dryRun": ["All"]})
    await web.put(f"{VMI}/freeze", {"unfreezeTimeout": "0s"})
    home.wait("vmi/web", "jsonpath={.status.fsFreezeStatus}=frozen")
    assert home.vmi("web")["status"]["guestOSInfo"]["id"] == "hotvirt-tiny", "what was known stays known"
    async with web.stream(f"{VMI}/console") as console:
        await console.say(b"\n(echo held >/mnt/x; echo $((1 + 1))-written) &\n" + ASK)
        assert b"2-written" not in await console.until(ANSWER)
        await web.put(f"{VMI}/unfreeze")
        await console.until(b"2-written")
    home.wait_until("thawed", lambda: "fsFreezeStatus" not in home.vmi("web")["status"])
    await web.put(f"{VMI}/unfreeze")


async def memory_dump(home, web):
    await web.refused(404, 'persistentvolumeclaims "none" not found', "PUT", f"{VM}/memorydump", {"claimName": "none"})
    await web.refused(409, "no association found", "PUT", f"{VM}/removememorydump")
    await web.put(f"{VM}/memorydump", {"claimName": "core"}, dryRun="All")
    assert "memoryDumpRequest" not in home.kubectl_json("get", "vm", "web")["status"]
    await web.put(f"{VM}/memorydump", {"claimName": "core"})
    home.wait("vm/web", "jsonpath={.status.memoryDumpRequest.phase}=Completed")
    request = home.kubectl_json("get", "vm", "web")["status"]["memoryDumpRequest"]
    volume = home.kubectl_json("get", "pvc", "core")["spec"]["volumeName"]
    core = Path(home.kubectl_json("get", "pv", volume)["spec"]["local"]["path"]) / request["fileName"]
    assert core.stat().st_size > 256 << 20
    with core.open("rb") as file:
        assert file.read(4) == b"\x7fELF"
    assert request["startTimestamp"] <= request["endTimestamp"]
    assert "the guest's memory is in" in home.messages("vm/web")
    await web.put(f"{VM}/removememorydump")
    home.wait_until(
        "the claim is let go of", lambda: "memoryDumpRequest" not in home.kubectl_json("get", "vm", "web")["status"]
    )
    core.unlink()
    assert (await web.facts())[0] == 200, "the guest goes on"


async def paused_and_reset(home, web):
    before = (await web.facts())[1]["bootID"]
    await web.put(f"{VMI}/reset", dryRun="All")
    await web.put(f"{VMI}/pause", {"dryRun": ["All"]})
    await web.refused(409, "VMI is not paused", "PUT", f"{VMI}/unpause", {})
    await web.put(f"{VMI}/pause", {})
    home.wait("vmi/web", "condition=Paused")
    await web.refused(409, "VMI is already paused", "PUT", f"{VMI}/pause", {})
    await web.refused(409, "VMI is paused", "PUT", f"{VMI}/softreboot")
    await web.refused(409, "VMI is paused", "GET", f"{VMI}/guestosinfo")
    assert await web.status_of_stream(f"{VMI}/portforward/7777") == 409
    await web.put(f"{VMI}/reset")
    await web.put(f"{VMI}/unpause", {})
    home.wait_until("paused no more", lambda: "Paused" not in home.conditions("vmi/web"))
    await booted_anew(home, web, before)


async def rebooted(home, web):
    before = (await web.facts())[1]["bootID"]
    await web.put(f"{VMI}/softreboot")
    before = await booted_anew(home, web, before)
    # Without an agent its power button is pressed, and it is switched on again in the same QEMU.
    (process,) = home.guest_processes()
    async with web.stream(f"{VMI}/console") as console:
        await console.say(b"\nmv /usr/sbin/qemu-ga /usr/bin/qemu-ga /tmp; killall qemu-ga; " + ASK)
        await console.until(ANSWER)
    home.wait_until("its agent is gone", lambda: "AgentConnected" not in home.conditions("vmi/web"))
    await web.refused(409, "VMI does not have guest agent connected", "PUT", f"{VMI}/freeze", {"unfreezeTimeout": "5s"})
    await web.put(f"{VMI}/softreboot")
    await booted_anew(home, web, before)
    assert home.guest_processes() == [process]


async def booted_anew(home, web, before):
    async with asyncio.timeout(home.patience):
        while True:
            status, facts = await web.facts()
            if status == 200 and facts["bootID"] != before:
                return facts["bootID"]
            await asyncio.sleep(0.3)


async def while_the_home_is_killed(home, web):
    async with web.stream(f"{VMI}/console") as console:
        await console.say(b"\nmkdir -p /mnt; mount /dev/vda /mnt && " + ASK)
        await console.until(ANSWER)
    await web.put(f"{VMI}/freeze", {"unfreezeTimeout": "8s"})
    home.kill()
    home.up()


async def thawed_by_the_next_home(home, web):
    home.wait_until("its agent answers", lambda: "AgentConnected" in home.conditions("vmi/web"))
    async with web.stream(f"{VMI}/console") as console:
        await console.say(b"\necho held >/mnt/y; " + ASK)
        await console.until(ANSWER)
    home.wait_until("thawed", lambda: "fsFreezeStatus" not in home.vmi("web")["status"])


async def stopped(home, web):
    async with web.stream(f"{VMI}/console") as console:
        await console.say(b"\n" + ASK)
        await console.until(ANSWER)
        await web.put(f"{VM}/stop", {"gracePeriod": 0})
        assert await console.closes() == (1001, "EOF: the guest stopped, or QEMU closed the stream")
    home.kubectl("wait", "vmi/web", "--for=delete", f"--timeout={home.patience}s")
    await web.refused(404, "not found", "PUT", f"{VMI}/pause", {})
    await web.refused(404, "not found", "PUT", f"{VM}/memorydump", {"claimName": "core"})
    home.assert_nothing_left_of_guests()
