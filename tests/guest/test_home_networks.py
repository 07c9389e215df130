"""Services, policies, names and further networks, as guests and their host see them. One home for all of it.

What is asked of one guest at a time, and of every rule, is in tests/node/test_dataplane_root.py.
"""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from hotvirt.node import bridge

pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(
        bool(bridge.missing()) or os.geteuid() != 0 or not shutil.which("ip"),
        reason=f"no bridge network here: {bridge.missing()}",
    ),
]
LAN = "hvtestlan"
HTTP = {"name": "http", "port": 80}


def ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True, timeout=10).stdout


class Guests:
    """The guests' shells, on their serial consoles."""

    def __init__(self, home):
        self._home = home
        self._consoles = {}

    def pod(self, name):
        found = self._home.kubectl_json("get", "pods", "-l", f"vm.kubevirt.io/name={name}")["items"]
        (pod,) = [each for each in found if each["status"]["phase"] == "Running"]
        return pod

    def meet(self, name):
        """Its address; from now on its console is known, also while no home runs."""
        pod = self.pod(name)
        self._consoles[name] = self._home.directory / "run" / "pods" / pod["metadata"]["uid"] / "serial.sock"
        return pod["status"]["podIP"]

    def told(self, name, command):
        """Asked again after a while: a shell that comes up loses what was typed before."""
        for _ in range(8):
            with contextlib.suppress(TimeoutError), socket.socket(socket.AF_UNIX) as console:
                console.connect(str(self._consoles[name]))
                console.settimeout(12)
                # The echo of the line must not look like its answer.
                console.sendall(f"\necho BE''GIN; {command}; echo DO''NE\n".encode())
                heard = b""
                while b"DONE" not in heard.partition(b"BEGIN")[2]:
                    part = console.recv(4096)
                    assert part, "the console closed"
                    heard += part
                return heard.decode(errors="replace").replace("\r", "").partition("BEGIN\n")[2].partition("DONE")[0]
        raise AssertionError(f"the shell of {name} does not answer")

    def serve(self, name):
        """A web server that says whose it is."""
        said = self.told(name, f"mkdir -p /run/www; echo i-am-{name} >/run/www/index.html; httpd -p 80 -h /run/www")
        assert "bind" not in said

    def fetched(self, name, host, *, port=80):
        """What the web server there says, or why it says nothing. busybox's wget does not survive names."""
        said = self.told(name, f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {host} {port} 2>&1")
        return said.strip().splitlines()[-1] if said.strip() else ""


def service(name, app, **spec):
    return {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": app}, "ports": [{"port": 80, "targetPort": "http"}], **spec},
    }  # fmt: skip


def policy(name, **spec):
    return {
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec,
    }  # fmt: skip


@pytest.fixture
def lan():
    """A bridge of the node's own, with an address."""
    ip("link", "add", LAN, "type", "bridge")
    try:
        ip("addr", "add", "192.168.77.1/24", "dev", LAN)
        ip("link", "set", LAN, "mtu", "1400", "up")
        yield LAN
    finally:
        ip("link", "del", LAN)


def test_guests_find_each_other_by_service(home, lan):
    guests = Guests(home)
    config = json.dumps({"cniVersion": "1.0.0", "type": "bridge", "bridge": lan, "mtu": 1400})
    home.apply(
        {"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition", "metadata": {"name": "lan"},
         "spec": {"config": config}}
    )  # fmt: skip
    two = {
        "devices": {"interfaces": [{"name": "lan", "bridge": {}}, {"name": "default", "masquerade": {}}]},
        "spec": {"networks": [{"name": "lan", "multus": {"networkName": "lan"}}, {"name": "default", "pod": {}}]},
    }
    small = {"memory": "256Mi", "max_memory": "1Gi", "max_sockets": 1}
    named = {"hostname": "first", "subdomain": "all"}
    one = {"devices": {"interfaces": [{"name": "default", "masquerade": {}, "ports": [HTTP, {"port": 22}]}]}}
    home.apply_vm("web", extra={**one, "spec": named}, **small)
    home.apply_vm("client", extra=two, **small)
    home.apply(service("shop", "web"))
    home.apply(service("all", "web", clusterIP="None"))
    exposed = home.hotvirt("expose", "vm/web", "--name=node", "--port=80", "--type=NodePort")
    assert "node" in exposed.stdout + exposed.stderr
    for name in ("web", "client"):
        home.wait_agent(name)
    web, client = guests.meet("web"), guests.meet("client")
    home.wait_until("web has its lease", lambda: f"inet {web}/" in guests.told("web", "ip -4 addr"))
    home.wait_until("client has its lease", lambda: f"inet {client}/" in guests.told("client", "ip -4 addr"))
    guests.serve("web")

    check_names(home, guests, web)
    check_services(home, guests, web)
    check_cards(guests, client)
    check_policies(home, guests, web)
    check_restart(home, guests)

    home.down()
    names = bridge.names(home.directory / "run", is_default=False)
    assert [each["ifname"] for each in json.loads(ip("-j", "link"))] == ["lo", lan], "nothing but the node's own"
    assert names.table not in subprocess.run(["nft", "list", "tables"], capture_output=True, text=True).stdout
    assert "10.96." not in ip("route")
    assert not (Path("/run") / names.table).exists()


def check_names(home, guests, web):
    resolv = guests.told("client", "cat /etc/resolv.conf")
    assert "search default.svc.cluster.local svc.cluster.local cluster.local" in resolv
    shop = home.kubectl_json("get", "svc", "shop")["spec"]["clusterIP"]
    for name, address in {"shop": shop, "shop.default": shop, "all": web, "first.all": web, "first": web}.items():
        assert f"PING {name} ({address})" in guests.told("client", f"ping -c 1 -W 1 {name}")


def check_services(home, guests, web):
    assert guests.fetched("client", "shop") == "i-am-web", "by the service's name, to a port that the guest names"
    assert guests.fetched("client", "all") == "i-am-web", "headless"
    assert guests.fetched("client", web) == "i-am-web", "by the guest's own address"
    assert guests.fetched("web", "shop") == "i-am-web", "itself"
    assert "refused" in guests.fetched("client", web, port=8080), "a port that its interface does not list"
    shop = home.kubectl_json("get", "svc", "shop")["spec"]["clusterIP"]
    assert home.fetched(f"http://{shop}/") == "i-am-web\n", "from the host"
    node = home.kubectl_json("get", "svc", "node")["spec"]["ports"][0]["nodePort"]
    gateway = guests.told("client", "ip route | sed -n 's/default via //p' | cut -d' ' -f1").strip()
    assert home.fetched(f"http://{gateway}:{node}/") == "i-am-web\n", "by a port of the node"
    assert guests.fetched("client", gateway, port=node) == "i-am-web"


def check_cards(guests, client):
    """In the manifest's order, whatever their networks; the node's bridge is what it says."""
    links = guests.told("client", "ip link")
    assert re.search(r"eth0: .* mtu 1400 ", links)
    assert f"inet {client}/" in guests.told("client", "ip -4 addr show eth1")
    guests.told("client", "ip addr add 192.168.77.2/24 dev eth0")
    assert "1 packets received" in guests.told("client", "ping -c 1 -W 5 192.168.77.1")


def check_policies(home, guests, web):
    home.apply(policy("closed", podSelector={"matchLabels": {"app": "web"}}, policyTypes=["Ingress"]))
    home.wait_until("nothing comes in", lambda: "i-am-web" not in guests.fetched("client", "shop"))
    assert home.fetched(f"http://{web}/") == "i-am-web\n", "the guest's own host always may"
    peers = [{"podSelector": {"matchLabels": {"app": "client"}}}]
    home.apply(policy("open", podSelector={"matchLabels": {"app": "web"}}, ingress=[
        {"from": peers, "ports": [{"port": "http"}]}]))  # fmt: skip
    home.wait_until("who may comes in", lambda: guests.fetched("client", "shop") == "i-am-web")
    assert "1 packets received" not in guests.told("client", f"ping -c 1 -W 1 {web}"), "by that port alone"
    home.kubectl("delete", "networkpolicy", "closed", "open")
    home.wait_until("all is open", lambda: "1 packets received" in guests.told("client", f"ping -c 1 -W 1 {web}"))


def check_restart(home, guests):
    """A machine that is started anew has its MAC, and its service leads to its new address."""
    mac, old = home.vmi("web")["status"]["interfaces"][0]["mac"], home.vmi("web")["metadata"]["uid"]
    home.kill()
    assert guests.fetched("client", "shop") == "i-am-web", "services and names need no home"
    home.up()
    assert guests.fetched("client", "shop") == "i-am-web"
    home.hotvirt("restart", "web")
    home.wait_new_instance("web", old)
    home.wait_agent("web")
    assert home.vmi("web")["status"]["interfaces"][0]["mac"] == mac
    guests.meet("web")
    guests.serve("web")
    home.wait_until("its service leads there", lambda: guests.fetched("client", "shop") == "i-am-web")
