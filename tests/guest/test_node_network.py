"""A guest's network as the guest and its host see it: bridge and DHCP with root, forwarded ports without."""

import json
import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from hotvirt.node import bridge

pytestmark = pytest.mark.guest


def shell(home, command, *, timeout=60):
    """What the only guest's shell, on its serial console, answers. Not for a guest whose console is open."""
    (pod,) = (home.directory / "run" / "pods").iterdir()
    with socket.socket(socket.AF_UNIX) as console:
        console.connect(str(pod / "serial.sock"))
        console.settimeout(timeout)
        # The echo of the line must not look like its answer.
        console.sendall(f"\n{command}\necho DO''NE\n".encode())
        heard = b""
        while b"DONE" not in heard:
            part = console.recv(4096)
            assert part, "the console closed"
            heard += part
    return heard.decode(errors="replace").replace("\r", "")


def answer(address, port, *, patience=60):
    """What a server there says first; tried again while it is not up yet."""
    deadline = time.monotonic() + patience
    while True:
        try:
            with socket.create_connection((address, port), timeout=10) as connection:
                if found := connection.recv(100):
                    return found.decode()
        except OSError:
            pass
        assert time.monotonic() < deadline, f"nobody answers on {address}:{port}"
        time.sleep(0.3)


def links():
    return [link["ifname"] for link in json.loads(subprocess.check_output(["ip", "-j", "link"]))]


@pytest.mark.skipif(bool(bridge.missing()), reason=f"no bridge network here: {bridge.missing()}")
def test_a_guest_has_its_pods_address_and_is_reached_there(home):
    names = bridge.names(home.directory / "run", is_default=False)
    home.apply_vm("web")
    home.wait_agent("web")
    (interface,) = home.vmi("web")["status"]["interfaces"]
    address = interface["ipAddress"]
    assert address == home.kubectl_json("get", "pods")["items"][0]["status"]["podIP"]
    home.wait_until("the guest has its lease", lambda: f"inet {address}/" in shell(home, "ip -4 addr show eth0"))
    assert interface["mac"] in shell(home, "ip link show eth0")
    home.wait("vmi/web", "jsonpath={.status.interfaces[0].interfaceName}=eth0")
    shell(home, "(echo hello | nc -l -p 80) >/dev/null 2>&1 &")
    assert answer(address, 80) == "hello\n"
    gateway = "$(ip route | sed -n 's/default via //p' | cut -d' ' -f1)"
    assert "1 packets received" in shell(home, f"ping -c 1 -W 5 {gateway}")
    assert re.search(rf"Address.*{re.escape(address)}", shell(home, "nslookup web"))

    home.kill()
    home.up()
    home.wait_agent("web")
    shell(home, "(echo again | nc -l -p 80) >/dev/null 2>&1 &")
    assert answer(address, 80) == "again\n"

    assert names.bridge in links()
    assert len([link for link in links() if link.startswith(names.tap_prefix)]) == 1
    home.kubectl("delete", "vm", "web", "--timeout=60s")
    assert not [link for link in links() if link.startswith(names.tap_prefix)]
    home.down()
    assert names.bridge not in links()
    assert names.table not in subprocess.check_output(["nft", "list", "tables"], text=True)
    assert not (Path("/run") / names.table).exists()


@pytest.fixture
def home_without_bridge(home_class):
    """A home that may not make network interfaces."""
    if shutil.which("setpriv") is None:
        pytest.skip("util-linux is not installed")

    class Restricted(home_class):
        def _run(self, argv, **how):
            return super()._run(["setpriv", "--bounding-set=-net_admin", *argv], **how)

    directory = Path(tempfile.mkdtemp(prefix="hv-", dir="/tmp"))
    home = Restricted(directory)
    try:
        home.up()
        yield home
    finally:
        home.down()
        left = home.guest_processes()
        shutil.rmtree(directory, ignore_errors=True)
        assert not left


@pytest.fixture
def home_class(request):
    """`Home` of this directory's conftest, which is no module that could be imported."""
    (found,) = [plugin.Home for plugin in request.config.pluginmanager.get_plugins() if hasattr(plugin, "Home")]
    return found


def test_without_a_bridge_a_guests_ports_are_found_on_its_loopback_address(home_without_bridge):
    home = home_without_bridge
    interface = {"name": "default", "masquerade": {}, "ports": [{"port": 80}, {"port": 8080}]}
    scratch = {"name": "scratch", "disk": {"bus": "virtio"}}
    home.apply_vm("web", extra={"domain": {"devices": {"disks": [scratch], "interfaces": [interface]}}})
    home.wait_agent("web")
    address = home.vmi("web")["status"]["interfaces"][0]["ipAddress"]
    assert address.startswith("127.")
    home.wait_until("the guest has an address", lambda: "inet 10." in shell(home, "ip -4 addr show eth0"))
    shell(home, "(echo eighty | nc -l -p 80) >/dev/null 2>&1 & (echo high | nc -l -p 8080) >/dev/null 2>&1 &")
    assert answer(address, 10080) == "eighty\n"
    assert answer(address, 8080) == "high\n"
    node = home.kubectl_json("get", "nodes")["items"][0]
    assert node["metadata"]["annotations"]["hotvirt.io/network"] == "user"
    assert "NET_ADMIN" in (home.directory / "home.log").read_text()

    # What needs routing is said where it is asked for.
    spec = {"selector": {"app": "web"}, "ports": [{"port": 80}]}
    home.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "shop"}, "spec": spec})
    home.wait_message("service/shop", "nothing leads to the service's address or node port")
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "closed"}}
    home.apply({**policy, "spec": {"podSelector": {}}})
    home.wait_message("networkpolicy/closed", "what it may reach is not limited: run the home as root")
