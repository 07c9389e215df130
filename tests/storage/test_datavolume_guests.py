"""Guests on data volumes: what one writes is what its copies read, and what two copies write stays apart."""

import hashlib
import random
import subprocess

import image_server
import pytest
from guest_homes import manifest
from snapshot_guests import restore, snapshot

pytestmark = [pytest.mark.guest, pytest.mark.timeout(400)]
MIB = 1 << 20
SIZE = 32 * MIB


WHOLE = "dd if=$d bs=1M 2>/dev/null | sha256sum | cut -c1-64"
WRITE = "dd if=/dev/urandom of=$d bs=1M seek=5 count=3 conv=fsync,notrunc 2>/dev/null"
FIND = 'for n in /sys/block/vd*; do [ "$(cat $n/serial)" = data ] && d=/dev/${n##*/}; done'


def on_volume(name, *, strategy="Always"):
    extra = {
        "devices": {"disks": [{"name": "data", "serial": "data", "disk": {"bus": "virtio"}}]},
        "spec": {"volumes": [{"name": "data", "dataVolume": {"name": name}}]},
    }
    return {"memory": "256Mi", "max_memory": "1Gi", "strategy": strategy, "extra": extra}


def template(name, source, size=SIZE):
    storage = {"resources": {"requests": {"storage": str(size)}}} if size else {}
    return {"metadata": {"name": name}, "spec": {"source": source, "storage": storage}}


def make(home, name, volume, source, **settings):
    document = manifest(name, **on_volume(volume, **settings))
    document["spec"]["dataVolumeTemplates"] = [template(volume, source, size=0 if "pvc" in source else SIZE)]
    home.apply(document)


def told(home, name, command):
    """What a command in the guest prints, in a line."""
    with home.console(name) as console:
        console.type(f"\n{FIND}\n")
        console.type(f"echo B-$((1+1)); {command}; echo E-$((1+1))\n")
        console.read_until("B-2")
        return console.read_until("E-2").removesuffix("E-2").strip()


def printable(home, name):
    return home.kubectl("get", "vm", name, "-o", "jsonpath={.status.printableStatus}").stdout


def test_guests_on_data_volumes(home, tmp_path):
    from_a_server(home, tmp_path)
    copies(home)


def test_a_data_volume_of_a_vm_stays_its_own_when_it_is_restored(home):
    """And nothing is put into it again, as its template would have it."""
    make(home, "web", "root", {"blank": {}})
    home.wait_agent("web")
    then = told(home, "web", f"{WRITE}; {WHOLE}")
    home.apply(snapshot("then", "web"))
    home.wait("vmsnapshot/then", "jsonpath={.status.readyToUse}=true")
    spec = home.kubectl_json("get", "vm", "web")["spec"]
    assert told(home, "web", f"{WRITE}; {WHOLE}") != then

    home.apply(restore("in-place", "web", "then", targetReadinessPolicy="StopTarget", volumeRestorePolicy="InPlace"))
    home.wait("vmrestore/in-place", "jsonpath={.status.complete}=true")
    now = home.kubectl_json("get", "vm", "web")["spec"]
    assert {**now, "runStrategy": ""} == {**spec, "runStrategy": ""}, "as its manifest has it"
    home.wait("dv/root", "jsonpath={.status.phase}=Succeeded")
    owned = "jsonpath={.metadata.ownerReferences[0].kind}=DataVolume"
    home.wait("pvc/root", owned)
    home.hotvirt("start", "web")
    home.wait_agent("web")
    assert told(home, "web", WHOLE) == then
    assert told(home, "web", f"{WRITE}; {WHOLE}") != then

    home.apply(
        restore("aside", "web", "then", targetReadinessPolicy="StopTarget", volumeRestorePolicy="PrefixTargetName")
    )
    home.wait("vmrestore/aside", "jsonpath={.status.complete}=true")
    now = home.kubectl_json("get", "vm", "web")["spec"]
    assert [each["metadata"]["name"] for each in now["dataVolumeTemplates"]] == ["web-data"]
    assert {"name": "data", "dataVolume": {"name": "web-data"}} in now["template"]["spec"]["volumes"]
    home.wait("dv/web-data", "jsonpath={.status.phase}=Succeeded")
    home.wait("pvc/web-data", owned)
    assert home.kubectl_json("get", "vmrestore", "aside")["status"]["deletedDataVolumes"] == ["root"]
    home.wait_until("the old one is gone", lambda: home.kubectl("get", "pvc", "root", check=False).returncode)
    home.hotvirt("start", "web")
    home.wait_agent("web")
    assert told(home, "web", WHOLE) == then
    home.kubectl("delete", "vm/web", "vmsnapshot/then")
    home.wait_until("all claims are gone", lambda: not home.kubectl_json("get", "pvc")["items"])


def from_a_server(home, tmp_path):
    raw, packed = tmp_path / "raw", tmp_path / "qcow2"
    data = random.Random(3).randbytes(2 * MIB) + bytes(SIZE - 2 * MIB)
    raw.write_bytes(data)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, packed], check=True)
    with image_server.serve() as images:
        images.put("disk", packed)
        images.pace["disk"] = 1 * MIB
        make(home, "web", "root", {"http": {"url": f"{images.url}/disk"}})
        home.wait_until("it waits for its disk", lambda: printable(home, "web") == "Provisioning")
        assert "root" in home.conditions("vm/web")["Provisioning"]["message"]
        assert home.conditions("vmi/web")["DataVolumesReady"]["status"] == "False"
        home.wait_agent("web")
    assert home.conditions("vmi/web")["DataVolumesReady"]["status"] == "True"
    assert home.kubectl_json("get", "dv", "root")["metadata"]["ownerReferences"][0]["name"] == "web"
    assert told(home, "web", WHOLE) == hashlib.sha256(data).hexdigest(), "the guest reads what was imported"
    pvc = {"pvc": {"name": "root", "namespace": "default"}}
    make(home, "one", "one-root", pvc)
    home.wait_message("pvc/one-root", "claim 'root' is in use: it is copied once its machine has stopped")
    assert home.kubectl_json("get", "pvc", "one-root")["status"]["phase"] == "Pending"
    home.kubectl("delete", "pvc", "root", "--wait=false")
    assert home.kubectl_json("get", "pvc", "root")["status"]["phase"] == "Bound", "in use, so it stays"
    home.hotvirt("stop", "web")
    make(home, "two", "two-root", {"http": {"url": f"{images.url}/gone"}})
    home.wait_until("it says so", lambda: printable(home, "two") == "DataVolumeError")
    assert "the server cannot be reached" in home.messages("vm/two")
    home.kubectl("delete", "vm", "web", "one", "two")
    home.wait_until("all claims are gone", lambda: not home.kubectl_json("get", "pvc")["items"])


def copies(home):
    make(home, "web", "root", {"blank": {}})
    home.wait_agent("web")
    written = told(home, "web", f"{WRITE}; {WHOLE}")
    home.hotvirt("stop", "web")
    home.wait("vm/web", "jsonpath={.status.printableStatus}=Stopped")
    pvc = {"pvc": {"name": "root", "namespace": "default"}}
    for name in ("one", "two"):
        make(home, name, f"{name}-root", pvc)
    home.hotvirt("start", "web")
    for name in ("one", "two", "web"):
        home.wait_agent(name)
        assert told(home, name, WHOLE) == written, name
    (base,) = (home.directory / "volumes" / ".bases").glob("*/disk.*")
    assert base.stat().st_blocks * 512 < 4 * MIB, "stored once, and sparse"
    sums = {name: told(home, name, f"{WRITE}; {WHOLE}") for name in ("one", "web")}
    assert len({*sums.values(), written}) == 3, "each has its own"
    assert told(home, "two", WHOLE) == written, "and the third has what it had"
    home.kill()
    home.up()
    assert told(home, "one", WHOLE) == sums["one"]
    home.kubectl("delete", "vm", "web", "one", "two")
    home.wait_until("nothing is left", lambda: not home.kubectl_json("get", "pv")["items"])
    assert not list((home.directory / "volumes").glob("*/disk.*"))
    assert not list((home.directory / "volumes" / ".bases").iterdir())
