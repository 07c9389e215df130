"""Verbs that make or show objects: create, expand, expose, objectgraph, permitted-devices, version, credentials."""

import json
import re

import pytest
import yaml

pytestmark = [pytest.mark.guest, pytest.mark.timeout(600)]


def test_version(virtctl):
    assert virtctl("version", "--client").startswith("Client Version: version.Info{GitVersion:")
    both = re.findall(r'GitVersion:"(v[0-9][^"]*)"', virtctl("version"))
    assert len(both) == 2 or not virtctl.is_ours


def test_permitted_devices(virtctl):
    assert virtctl("permitted-devices", "-n", "kubevirt").split("\n")[0] == "Permitted Devices: "


def test_expose_a_vm_an_instance_and_what_they_declare(virtctl, home, web):
    web.boot()
    said = virtctl("expose", "vm", "web", "--name=web", "--port=80", "--target-port=8080", "--type=NodePort")
    assert said == "Service web successfully created for vm web\n"
    service = home.kubectl_json("get", "service", "web")
    [owner] = service["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"]) == ("VirtualMachine", "web")
    assert service["spec"]["selector"] == {"vmi.kubevirt.io/id": "web"}
    [port] = service["spec"]["ports"]
    assert (port["port"], port["targetPort"], port["protocol"]) == (80, 8080, "TCP")
    assert service["spec"]["type"] == "NodePort"
    # The label by which the service finds the guest's pod is on it.
    pods = home.kubectl_json("get", "pods", "-l", "vmi.kubevirt.io/id=web")["items"]
    assert [pod["metadata"]["labels"]["vm.kubevirt.io/name"] for pod in pods] == ["web"]
    home.wait("endpoints/web", f"jsonpath={{.subsets[0].addresses[0].ip}}={pods[0]['status']['podIP']}")
    virtctl("expose", "vmi", "web", "--name=dns", "--port=53", "--protocol=UDP", "--cluster-ip=None")
    assert home.kubectl_json("get", "service", "dns")["spec"]["clusterIP"] == "None"
    assert "port" in virtctl.fails("expose", "vm", "web", "--name=none")
    assert "already exists" in virtctl.fails("expose", "vm", "web", "--name=web", "--port=80")
    home.kubectl("delete", "service", "web", "dns")


def test_create_instance_type_and_preference_and_use_them(virtctl, home):
    for words in (["instancetype", "--name=small", "--cpu=2", "--memory=128Mi"], ["preference", "--name=threads",
                  "--cpu-topology=threads"]):  # fmt: skip
        home.kubectl("create", "-f", "-", text=virtctl("create", *words))
    manifest = virtctl(
        "create", "vm", "--name=typed", "--instancetype=small", "--preference=threads", "--run-strategy=Halted",
        "--volume-containerdisk=src:hotvirt/debian:12",
    )  # fmt: skip
    home.kubectl("create", "-f", "-", text=manifest)
    (virtctl.directory / "typed.yaml").write_text(manifest)
    for words in (["--vm", "typed"], ["--file", "typed.yaml"]):
        domain = yaml.safe_load(virtctl("expand", *words))["spec"]["template"]["spec"]["domain"]
        assert domain["memory"]["guest"] == "128Mi"
        assert domain["cpu"]["threads"] == 2
    assert json.loads(virtctl("expand", "--vm", "typed", "-o", "json"))["kind"] == "VirtualMachine"
    home.kubectl("delete", "vm/typed", "virtualmachineclusterinstancetype/small",
                 "virtualmachineclusterpreference/threads")  # fmt: skip


def test_create_clone(virtctl):
    made = yaml.safe_load(virtctl("create", "clone", "--source-name=web", "--target-name=web-2"))
    assert made["kind"] == "VirtualMachineClone"
    assert made["spec"]["source"] == {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "web"}


def test_objectgraph(virtctl, web):
    web.boot()
    graph = json.loads(virtctl("objectgraph", "web"))
    assert graph["objectReference"]["name"] == "web"
    names = [child["objectReference"]["kind"] for child in graph["children"]]
    assert any("instance" in name.lower() for name in names), names
    assert yaml.safe_load(virtctl("objectgraph", "web", "--vmi", "-o", "yaml"))["objectReference"]["name"] == "web"


def authorized_keys(virtctl):
    """Of the tiny guest's root, as its shell shows them."""
    with virtctl.console("web") as console:
        console.type("\n")
        console.read_until("# ")
        console.type("cat /root/.ssh/authorized_keys; echo; echo do''ne\n")
        return [line for line in console.read_until("done").splitlines() if line.startswith("ssh-")]


def test_keys_reach_a_guest_and_leave_it_while_it_runs(virtctl, home, web):
    web.boot()
    one, two = "ssh-ed25519 AAAAone me@here", "ssh-ed25519 AAAAtwo you@there"
    (virtctl.directory / "two.pub").write_text(two)  # virtctl knows a key again only without the line's end
    words = ["credentials", "add-ssh-key", "web", "--user=root"]
    assert "--force" in virtctl.fails(*words, f"--value={one}")
    virtctl(*words, f"--value={one}", "--force")
    virtctl("restart", "web", "--force", "--grace-period=0")  # from which on it has the secret
    home.wait("vm/web", "condition=AccessCredentialsSynchronized")
    home.wait_until("its first key", lambda: authorized_keys(virtctl) == [one])
    virtctl(*words, "--file=two.pub")
    home.wait_until("both keys", lambda: authorized_keys(virtctl) == sorted([one, two]))
    assert "already" in virtctl(*words, "--file=two.pub")
    virtctl("credentials", "remove-ssh-key", "web", "--user=root", f"--value={one}")
    home.wait_until("its second key", lambda: authorized_keys(virtctl) == [two])
    assert "secret" in virtctl.fails("credentials", "set-password", "web", "--user=root", "--password=x")
