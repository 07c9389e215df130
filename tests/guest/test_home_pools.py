"""Pools, replica sets and instancetypes by hand: real kubectl, real guests."""

import json

import pytest

pytestmark = pytest.mark.guest

BOOT = {
    "kernelBoot": {"container": {"image": "hotvirt/tiny", "kernelPath": "/boot/vmlinuz", "initrdPath": "/boot/initrd"}}
}
SIZE = {"memory": {"guest": "256Mi", "maxGuest": "1Gi"}, "cpu": {"sockets": 1, "maxSockets": 1}}
LABELS = {"app": "web"}


def template(domain=SIZE):
    """Of an instance."""
    return {
        "metadata": {"labels": LABELS},
        "spec": {"terminationGracePeriodSeconds": 5, "domain": {**domain, "firmware": BOOT, "devices": {}}},
    }


def apply(home, kind, name, spec, *, version="kubevirt.io/v1"):
    home.apply({"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec})


def ready(home, what, count):
    home.wait(what, f"jsonpath={{.status.readyReplicas}}={count}", f"jsonpath={{.status.replicas}}={count}")


def names(home, kind):
    return sorted(each["metadata"]["name"] for each in home.kubectl_json("get", kind)["items"])


def edit_pool(home, domain):
    spec = {"virtualMachineTemplate": {"spec": {"template": {"spec": {"domain": domain}}}}}
    home.kubectl("patch", "vmpool", "web", "--type=merge", "-p", json.dumps({"spec": spec}))


def test_a_pool_is_scaled_updated_and_healed(home):
    pool = {
        "replicas": 2,
        "selector": {"matchLabels": LABELS},
        "virtualMachineTemplate": {
            "metadata": {"labels": LABELS},
            "spec": {"runStrategy": "Always", "template": template()},
        },
        "maxUnavailable": 1,
        "scaleInStrategy": {"proactive": {"selectionPolicy": {"sortPolicy": "DescendingOrder"}}},
    }
    apply(home, "VirtualMachinePool", "web", pool, version="pool.kubevirt.io/v1beta1")
    ready(home, "vmpool/web", 2)
    home.kubectl("scale", "vmpool", "web", "--replicas=3")
    ready(home, "vmpool/web", 3)
    table = home.table("get", "vmpool")
    assert (table[0], table[1][:4]) == (["NAME", "DESIRED", "CURRENT", "READY", "AGE"], ["web", "3", "3", "3"])
    assert names(home, "vm") == ["web-0", "web-1", "web-2"]

    home.wait_agent("web-0")
    before = home.facts("web-0")
    edit_pool(home, {"memory": {"guest": "512Mi"}})
    for name in names(home, "vm"):
        home.wait_agent(name)
        home.wait(f"vmi/{name}", "jsonpath={.status.memory.guestCurrent}=512Mi")
    after = home.facts("web-0")
    assert after["bootID"] == before["bootID"], "memory is live: nothing is restarted"
    assert after["memTotalBytes"] - before["memTotalBytes"] > 200 << 20

    home.kubectl("scale", "vmpool", "web", "--replicas=1")
    ready(home, "vmpool/web", 1)
    home.wait_until("the others are gone", lambda: names(home, "vm") == ["web-0"])

    first = home.vmi("web-0")["metadata"]["uid"]
    edit_pool(home, {"cpu": {"cores": 2}})
    home.wait_new_instance("web-0", first)
    home.wait_agent("web-0")
    assert home.facts("web-0")["onlineCPUs"] == 2

    second = home.vmi("web-0")["metadata"]["uid"]
    home.kubectl("delete", "vmi", "web-0")
    home.wait_new_instance("web-0", second)
    ready(home, "vmpool/web", 1)
    revisions = [name for name in names(home, "controllerrevisions") if name.startswith("web-")]
    assert len(revisions) == 1, "states of the pool that nobody was made from are gone"
    home.kubectl("delete", "vmpool", "web")
    home.wait_until("its machines are gone", lambda: names(home, "vm") == [])


def test_a_replica_set_and_a_machine_of_an_instancetype(home):
    spec = {"replicas": 1, "selector": {"matchLabels": LABELS}, "template": template()}
    apply(home, "VirtualMachineInstanceReplicaSet", "set", spec)
    sizes = {"cpu": {"guest": 2}, "memory": {"guest": "768Mi"}}
    apply(home, "VirtualMachineClusterInstancetype", "large", sizes, version="instancetype.kubevirt.io/v1beta1")
    # What every home has.
    machine = {"instancetype": {"name": "u1.nano"}, "preference": {"name": "linux"}, "template": template({})}
    apply(home, "VirtualMachine", "sized", {"runStrategy": "Always", **machine})

    home.wait_agent("sized")
    before = home.facts("sized")
    assert before["onlineCPUs"] == 1
    assert 400 << 20 < before["memTotalBytes"] < 512 << 20
    patch = {"spec": {"instancetype": {"name": "large"}}}
    home.kubectl("patch", "vm", "sized", "--type=merge", "-p", json.dumps(patch))
    home.wait(
        "vmi/sized", "jsonpath={.status.memory.guestCurrent}=768Mi", "jsonpath={.status.currentCPUTopology.sockets}=2"
    )
    after = home.facts("sized")
    assert (after["bootID"], after["onlineCPUs"]) == (before["bootID"], 2)
    assert after["memTotalBytes"] - before["memTotalBytes"] > 200 << 20
    assert "RestartRequired" not in home.conditions("vm/sized")
    home.kubectl("patch", "vm", "sized", "--type=merge", "-p", '{"spec":{"instancetype":{"name":"u1.nano"}}}')
    home.wait(
        "vmi/sized", "jsonpath={.status.memory.guestCurrent}=512Mi", "jsonpath={.status.currentCPUTopology.sockets}=1"
    )
    back = home.facts("sized")
    assert [back[fact] for fact in ("bootID", "onlineCPUs", "memTotalBytes")] == [
        before[fact] for fact in ("bootID", "onlineCPUs", "memTotalBytes")
    ]
    assert "RestartRequired" not in home.conditions("vm/sized")
    own_size = json.dumps({"spec": {"template": {"spec": {"domain": {"memory": {"guest": "1Gi"}}}}}})
    refused = home.kubectl("patch", "vm", "sized", "--type=merge", "-p", own_size, check=False)
    assert "spec.template.spec.domain.memory.guest: the instancetype sets this" in refused.stderr
    for change, field in {"memory=1Gi": "memory.guest", "cpu=2": "cpu.sockets"}.items():
        told = home.hotvirt("why", "vm/sized", change, "--quiet", check=False)
        assert (told.returncode, f"instancetype u1.nano sets domain.{field}" in told.stdout) == (3, True), told.stdout

    ready(home, "vmirs/set", 1)
    home.kubectl("scale", "vmirs", "set", "--replicas=2")
    ready(home, "vmirs/set", 2)
    home.kubectl("scale", "vmirs", "set", "--replicas=0")
    home.wait_until("its guests are gone", lambda: names(home, "vmi") == ["sized"])
