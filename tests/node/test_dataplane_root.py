"""Services, policies and names for real, in a network namespace of the test's own.

Needs root. A guest is a network namespace at the end of a cable: to the host it is what a guest's tap is. Real guests
are in tests/guest.
"""

import asyncio
import importlib.util
import json
import shutil
import subprocess
import sys
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from hotvirt.kube.events import Recorder
from hotvirt.kube.informer import SharedInformers
from hotvirt.kube.resources import EVENTS, NAMESPACES, NETWORK_POLICIES, PODS
from hotvirt.node import bridge
from hotvirt.node.dataplane import Dataplane
from hotvirt.node.rules import Place
from hotvirt.node.world import World

_path = Path(__file__).parents[1] / "kube" / "memory_api.py"
_spec = importlib.util.spec_from_file_location("memory_api_of_dataplane", _path)
memory_api = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(memory_api)

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(
        bool(bridge.missing()) or not shutil.which("ip") or not shutil.which("nsenter"),
        reason=f"no bridge network here: {bridge.missing()}",
    ),
]

SERVER = """
import socket, sys, threading
name, port = sys.argv[1], int(sys.argv[2])
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("", port))
tcp = socket.create_server(("", port), reuse_port=True)
def packets():
    while True:
        _, peer = udp.recvfrom(100)
        udp.sendto(f"{name} {peer[0]}".encode(), peer)
def serve(connection, peer):
    with connection:
        connection.sendall(f"{name} {peer[0]}\\n".encode())
        while said := connection.recv(100):
            connection.sendall(said)
threading.Thread(target=packets, daemon=True).start()
print("ready", flush=True)
while True:
    threading.Thread(target=serve, args=tcp.accept(), daemon=True).start()
"""
CLIENT = """
import socket, sys
kind, host, port, times = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
for _ in range(times):
    try:
        if kind == "tcp":
            with socket.create_connection((host, port), timeout=0.4) as found:
                print(found.recv(100).decode().strip())
        else:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
                found.settimeout(0.4)
                found.connect((host, port))
                found.send(b"?")
                print(found.recv(100).decode())
    except TimeoutError:
        print("silence")
    except OSError as error:
        print(type(error).__name__)
"""
STREAM = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2) as found:
    found.recv(100)
    print("open", flush=True)
    for line in sys.stdin:
        found.sendall(line.encode())
        print(found.recv(100).decode().strip(), flush=True)
"""


def told(*argv, check=True):
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=check).stdout


class Guest:
    """`web` and so on: a network namespace with an address of the pod network."""

    def __init__(self, name, address, mac, device):
        self.name, self.address, self.mac, self.device = name, address, mac, device
        self.processes = []
        self.holder = self.run("unshare", "-n", "sh", "-c", "echo; exec sleep 600", inside=False)
        self.holder.stdout.readline()
        told("ip", "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", str(self.holder.pid))
        self.ip("link", "set", "lo", "up")
        self.ip("link", "set", "eth0", "address", mac, "up")
        self.ip("addr", "add", f"{address}/20", "dev", "eth0")
        self.ip("route", "add", "default", "via", "10.213.0.1")

    def run(self, *argv, inside=True):
        into = ("nsenter", "-t", str(self.holder.pid), "-n") if inside else ()
        pipe = subprocess.PIPE
        process = subprocess.Popen([*into, *argv], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        self.processes.append(process)
        return process

    def told(self, *argv, check=True):
        return told("nsenter", "-t", str(self.holder.pid), "-n", *argv, check=check)

    def ip(self, *argv):
        self.told("ip", *argv)

    def serve(self, port):
        server = self.run(sys.executable, "-c", SERVER, self.name, str(port))
        assert server.stdout.readline() == "ready\n"

    def ask(self, host, port, *, kind="tcp", times=1):
        return self.told(sys.executable, "-c", CLIENT, kind, host, str(port), str(times)).splitlines()

    def pod(self, **labels):
        return {
            "metadata": {"name": self.name, "namespace": "default", "labels": {"app": self.name, **labels}},
            "spec": {"hostname": self.name, "containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]},
            "status": {"podIP": self.address, "phase": "Running"},
        }

    def close(self):
        for process in reversed(self.processes):
            process.kill()
            process.communicate()


class Cluster:
    """A home's network with three guests."""

    def __init__(self, network, guests):
        self.network, self.guests = network, guests
        self.web, self.db, self.client = guests

    def ask(self, host, port, *, kind="tcp", times=1):
        """From the host."""
        return told(sys.executable, "-c", CLIENT, kind, host, str(port), str(times)).splitlines()

    async def publish(self, **world):
        pods = tuple(guest.pod() for guest in self.guests)
        await self.network.publish(World(pods=pods, namespaces=({"metadata": {"name": "default"}},), **world))


def service(name="web", address="10.96.0.7", **spec):
    ports = [
        {"name": "http", "port": 80, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"},
    ]  # fmt: skip
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {"clusterIP": address, "ports": ports, **spec}}


def behind(*guests, name="web", hostname=""):
    named = {"hostname": hostname} if hostname else {}
    return {
        "metadata": {"name": f"{name}-1", "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [
            {"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "dns", "port": 8080, "protocol": "UDP"},
        ],
        "endpoints": [{"addresses": [g.address], "conditions": {"ready": True}, **named} for g in guests],
    }  # fmt: skip


def policy(name, select, **spec):
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {"podSelector": select, **spec}}


@pytest.fixture
async def cluster(own_network, tmp_path):
    tmp_path.chmod(0o700)
    network = bridge.BridgeNetwork(tmp_path / "run", is_default=False)
    guests = []
    try:
        await network.start()
        for number, name in enumerate(("web", "db", "client"), start=2):
            address, mac = str(IPv4Address("10.213.0.0") + number), f"02:00:00:00:00:0{number}"
            device = f"{network._names.tap_prefix}{name}"
            guests.append(Guest(name, address, mac, device))
            await network.connect(device, Place(mac, address))
        for guest in guests[:2]:
            guest.serve(8080)
        yield Cluster(network, guests)
    finally:
        for guest in guests:
            guest.close()
        await network.stop(remove=True)


async def test_services_lead_to_their_endpoints(cluster):
    web, db, client = cluster.guests
    assert client.ask(web.address, 8080) == [f"web {client.address}"], "guests reach each other"
    assert cluster.ask(web.address, 8080) == ["web 10.213.0.1"], "and the host reaches them"

    await cluster.publish(services=(service(),), slices=(behind(web),))
    assert client.ask("10.96.0.7", 80) == [f"web {client.address}"], "who asks is seen"
    assert client.ask("10.96.0.7", 53, kind="udp") == [f"web {client.address}"]
    assert cluster.ask("10.96.0.7", 80) == ["web 10.213.0.1"]
    assert cluster.ask("10.96.0.7", 53, kind="udp") == ["web 10.213.0.1"]
    assert web.ask("10.96.0.7", 80) == ["web 10.213.0.1"], "a guest behind it reaches itself"
    assert client.ask("10.96.0.7", 81) == ["ConnectionRefusedError"], "a port that it does not have"
    assert client.ask("10.96.0.9", 80) == ["ConnectionRefusedError"], "an address that no service has"

    await cluster.publish(services=(service(type="NodePort"),), slices=(behind(web, db),))
    found = client.ask("10.96.0.7", 80, times=30)
    assert {line.split()[0] for line in found} == {"web", "db"}, "several endpoints share"
    await cluster.publish(services=(service(sessionAffinity="ClientIP"),), slices=(behind(web, db),))
    assert len(set(client.ask("10.96.0.7", 80, times=10))) == 1, "a client stays with one"

    node = service()
    node["spec"]["ports"][0]["nodePort"] = 30080
    await cluster.publish(services=(node,), slices=(behind(db),))
    assert cluster.ask("10.213.0.1", 30080) == ["db 10.213.0.1"]
    assert client.ask("10.213.0.1", 30080) == [f"db {client.address}"]

    await cluster.publish(services=(service(),), slices=(behind(),))
    assert client.ask("10.96.0.7", 80) == ["ConnectionRefusedError"], "at once, while nothing is ready"
    assert cluster.ask("10.96.0.7", 80) == ["ConnectionRefusedError"]


async def test_a_connection_stays_when_all_around_it_changes(cluster):
    web, db, client = cluster.guests
    await cluster.publish(services=(service(),), slices=(behind(web),))
    stream = client.run(sys.executable, "-c", STREAM, "10.96.0.7", "80")
    assert stream.stdout.readline() == "open\n"

    def says(text):
        stream.stdin.write(f"{text}\n")
        stream.stdin.flush()
        return stream.stdout.readline()

    assert says("one") == "one\n"
    await cluster.publish(services=(service(),), slices=(behind(db),))
    assert says("two") == "two\n", "its endpoint is another's now"
    closed = policy("closed", {}, policyTypes=["Ingress", "Egress"])
    await cluster.publish(policies=(closed,))
    assert says("three") == "three\n", "its service is gone, and policies would not let it begin"
    assert client.ask(web.address, 8080) == ["silence"]
    again = bridge.BridgeNetwork(cluster.network._directory.parent / "none", is_default=False)
    again._names, again._directory = cluster.network._names, cluster.network._directory
    assert await again._has_rules(), "a home that starts again leaves the rules until it knows better"


async def test_policies(cluster):
    web, db, client = cluster.guests
    closed = policy("closed", {"matchLabels": {"app": "web"}})
    await cluster.publish(policies=(closed,))
    assert client.ask(web.address, 8080) == ["silence"]
    assert client.ask(db.address, 8080) == [f"db {client.address}"], "another guest is as before"
    assert cluster.ask(web.address, 8080) == ["web 10.213.0.1"], "a guest's own host always may"

    peers = [{"podSelector": {"matchLabels": {"app": "client"}}}]
    opened = policy("opened", {"matchLabels": {"app": "web"}}, ingress=[{"from": peers, "ports": [{"port": "http"}]}])
    await cluster.publish(policies=(closed, opened), services=(service(),), slices=(behind(web),))
    assert client.ask(web.address, 8080) == [f"web {client.address}"], "by label, and by the port's name"
    assert client.ask("10.96.0.7", 80) == [f"web {client.address}"], "by the service as well"
    assert client.ask(web.address, 8080, kind="udp") == ["silence"], "TCP alone"
    assert db.ask(web.address, 8080) == ["silence"]
    assert web.ask(db.address, 8080) == [f"db {web.address}"], "answers find back"
    assert web.ask("10.96.0.7", 80) == ["web 10.213.0.1"], "itself it always reaches"

    block = [{"ipBlock": {"cidr": "10.213.0.0/20", "except": [f"{db.address}/32"]}}]
    kept_in = policy(
        "kept-in", {"matchLabels": {"app": "client"}}, policyTypes=["Egress"],
        egress=[{"to": block, "ports": [{"port": 8000, "endPort": 8100}]}],
    )  # fmt: skip
    await cluster.publish(policies=(kept_in,))
    assert client.ask(web.address, 8080) == [f"web {client.address}"], "by block of addresses and range of ports"
    assert client.ask(db.address, 8080) == ["silence"], "but for what is taken out"
    assert client.ask(web.address, 22) == ["silence"]
    await cluster.publish()
    assert client.ask(db.address, 8080) == [f"db {client.address}"]


async def test_a_policy_of_an_older_version_that_nft_would_refuse_closes_its_own_guests_alone(cluster):
    web, db, client = cluster.guests
    api = memory_api.MemoryApi()
    await api.create(NAMESPACES, {"metadata": {"name": "default"}})
    for guest in cluster.guests:
        pod = guest.pod()
        await api.create(PODS, pod)
        await api.patch(PODS, guest.name, {"status": pod["status"]}, subresource="status")
    ports = [{"port": 70000}, {"port": 8080}]
    bad = policy("bad", {"matchLabels": {"app": "web"}}, ingress=[{"ports": ports}])
    informers, recorder = SharedInformers(api), Recorder(api, "test")
    await api.create(NETWORK_POLICIES, bad)
    await api.create(NETWORK_POLICIES, policy("good", {"matchLabels": {"app": "db"}}, ingress=[{"ports": ports[1:]}]))
    dataplane = Dataplane(informers, cluster.network, recorder=recorder)
    tasks = [asyncio.create_task(each) for each in (informers.run(), recorder.run(), dataplane.run())]
    try:
        async with asyncio.timeout(20):
            while await asyncio.to_thread(client.ask, web.address, 8080) != ["silence"] or not api.all(EVENTS):
                await asyncio.sleep(0.05)
        assert client.ask(db.address, 8080) == [f"db {client.address}"], "the other policy holds as it says"
        assert client.ask(db.address, 22) == ["silence"]
        [told] = api.all(EVENTS)
        assert (told["involvedObject"]["name"], told["type"], told["reason"]) == ("bad", "Warning", "InvalidPolicy")
        assert told["message"] == (
            "spec.ingress[0].ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive; until it is "
            "changed or deleted, the policy allows nothing to the pods that it selects (Ingress)"
        )
        await api.patch(NETWORK_POLICIES, "bad", {"spec": {"ingress": [{"ports": ports[1:]}]}})
        async with asyncio.timeout(20):
            while await asyncio.to_thread(client.ask, web.address, 8080) != [f"web {client.address}"]:
                await asyncio.sleep(0.05)
        assert len(api.all(EVENTS)) == 1
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_ports_that_an_interface_lists_are_all_that_is_open(cluster):
    web, _, client = cluster.guests
    web.serve(9090)
    interface = {"name": "default", "masquerade": {}, "ports": [{"port": 8080}]}
    vmi = {"metadata": {"uid": "u", "name": "web"}, "spec": {"domain": {"devices": {"interfaces": [interface]}}}}
    await cluster.network.publish(World(pods=(web.pod(**{"kubevirt.io/created-by": "u"}),), instances=(vmi,)))
    assert client.ask(web.address, 8080) == [f"web {client.address}"]
    assert client.ask(web.address, 9090) == ["ConnectionRefusedError"]
    assert client.ask(web.address, 8080, kind="udp") == ["ConnectionRefusedError"]
    assert cluster.ask(web.address, 9090) == ["ConnectionRefusedError"]


async def test_names_follow_the_objects_and_no_question_is_lost(cluster):
    web, db, client = cluster.guests

    def looked_up(name):
        said = client.told("busybox", "nslookup", name, "10.213.0.1", check=False)
        return sorted(line.split()[-1] for line in said.splitlines() if line.startswith("Address:"))[1:]

    headless = service("all", "None")
    await cluster.publish(services=(service(), headless), slices=(behind(web, db, name="all", hostname="one"),))
    assert looked_up("web.default.svc.cluster.local") == ["10.96.0.7"]
    assert looked_up("all.default.svc.cluster.local") == [web.address, db.address]
    assert looked_up("one.all.default.svc.cluster.local") == [web.address, db.address]
    assert looked_up("db.default.pod.cluster.local") == [db.address]
    assert looked_up("10-213-0-3.default.pod.cluster.local") == [db.address]
    assert looked_up("nobody.default.svc.cluster.local") == []
    for number in range(10, 15):
        await cluster.publish(services=(service(address=f"10.96.0.{number}"),))
        while (found := looked_up("web.default.svc.cluster.local")) != [f"10.96.0.{number}"]:
            assert found, "a question was lost, or the name was gone for a while"
            await asyncio.sleep(0.01)
    assert looked_up("all.default.svc.cluster.local") == []


async def test_a_guest_speaks_for_itself_alone(cluster):
    web, db, client = cluster.guests

    def seen(at):
        return {each["dst"]: each.get("lladdr") for each in json.loads(at.told("ip", "-j", "neigh"))}

    assert client.ask(web.address, 8080) == [f"web {client.address}"]
    client.ip("addr", "add", f"{db.address}/20", "dev", "eth0")
    assert client.told("busybox", "ping", "-c1", "-W1", "-I", db.address, "10.213.0.1", check=False).count(" 0% ") == 0
    client.told("busybox", "arping", "-A", "-c1", "-w1", "-I", "eth0", "-s", db.address, db.address, check=False)
    client.told("busybox", "arping", "-U", "-c1", "-w1", "-I", "eth0", "-s", "10.213.0.1", "10.213.0.1", check=False)
    assert cluster.ask(db.address, 8080) == ["db 10.213.0.1"], "the host still knows where it is"
    assert web.ask(db.address, 8080) == [f"db {web.address}"], "and so do other guests"
    host = json.loads(told("ip", "-j", "neigh", "show", "dev", client.device))
    assert [each["dst"] for each in host] == [client.address], "nothing was learned from it"
    assert client.mac not in seen(web).values()

    client.ip("link", "set", "eth0", "address", "02:00:00:00:00:99")
    assert client.ask(web.address, 8080) != [f"web {client.address}"], "nor under another MAC"
    client.ip("link", "set", "eth0", "address", client.mac)
    assert "lease of" not in client.told(
        "busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-t1", "-T1", "-s/bin/true", check=False
    )


async def test_rules_that_another_threw_away_come_back(cluster, monkeypatch):
    monkeypatch.setattr(bridge, "LOOK_AFTER_RULES", 0.05)
    web, _, client = cluster.guests
    await cluster.publish(services=(service(),), slices=(behind(web),))
    keeper = asyncio.create_task(cluster.network.run())
    try:
        told("nft", "flush", "ruleset")
        async with asyncio.timeout(10):
            while cluster.network._names.table not in told("nft", "list", "tables"):
                await asyncio.sleep(0.05)
        assert client.ask("10.96.0.7", 80) == [f"web {client.address}"]
    finally:
        keeper.cancel()
        await asyncio.wait([keeper])
