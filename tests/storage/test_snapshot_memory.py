"""A guest's memory in a snapshot: what ran then runs on after a restore, with the disk as it was at that instant."""

import json
import re

import pytest
from snapshot_guests import claims_of, content_of, restore, snapshot, type_script

pytestmark = [pytest.mark.guest, pytest.mark.timeout(400)]
MEMORY = "snapshot.hotvirt.io/memory"
COUNTER = """
for n in /sys/block/vd*; do [ "$(cat $n/serial)" = one ] && d=/dev/${n##*/}; done
token=$(head -c 12 /dev/urandom | base64 | tr -dc a-z0-9)
i=0
while :; do
  i=$((i+1))
  printf '%-511d\\n' $i | dd of=$d bs=512 conv=fsync,notrunc 2>/dev/null
  echo "$token $i" >/tmp/count
  [ $i = 5 ] && echo COUNTER-"RUNS"
  sleep 0.05
done
"""
"""A process whose number is in its memory, in a file in memory and, after, on the disk: a process that began anew would
have another token."""


def memory(document):
    document["metadata"]["annotations"] = {MEMORY: "true"}
    return document


def machine(home, name, **settings):
    devices = {"disks": [{"name": "one", "serial": "one", "disk": {"bus": "virtio"}}]}
    volumes = {"volumes": [{"name": "one", "persistentVolumeClaim": {"claimName": settings.pop("claim", "one")}}]}
    return home.apply_vm(name, memory="256Mi", extra={"devices": devices, "spec": volumes}, **settings)


def counted(home, name):
    """Who counts in the guest, and how far it is."""
    with home.console(name) as console:
        console.type("\necho B-$((1+1)); cat /tmp/count; echo E-$((1+1))\n")
        console.read_until("B-2")
        found = re.search(r"(\w+) (\d+)", console.read_until("E-2").removesuffix("E-2"))
    assert found
    return found[1], int(found[2])


def on_disk(home, claim="one"):
    return int(content_of(home, claim)[:512])


def test_a_guest_goes_on_where_it_was(home):
    home.apply_claim("one", "24Mi")
    machine(home, "db")
    home.wait_agent("db")
    type_script(home, "db", COUNTER, "COUNTER-RUNS")
    who, _ = counted(home, "db")
    home.apply(memory(snapshot("then", "db")))
    home.wait("vmsnapshot/then", "jsonpath={.status.readyToUse}=true")
    assert home.kubectl_json("get", "vmsnapshot", "then")["status"]["indications"] == ["Memory", "Online"]
    again, after = counted(home, "db")
    assert again == who, "it ran on"
    home.wait_until("it counts on", lambda: counted(home, "db")[1] > after)

    home.apply(restore("back", "db", "then", targetReadinessPolicy="StopTarget", volumeRestorePolicy="InPlace"))
    home.wait("vmrestore/back", "jsonpath={.status.complete}=true")
    then = on_disk(home)
    assert 0 < then <= after
    home.hotvirt("start", "db")
    home.wait_message("vmi/db", "the guest goes on from the memory that was restored")
    home.wait_agent("db")
    token, number = counted(home, "db")
    assert token == who, "the same process"
    assert number >= then
    home.wait_until("it counts on", lambda: counted(home, "db")[1] > number)
    home.wait_until("on its disk too", lambda: on_disk(home) > number)
    assert on_disk(home) - counted(home, "db")[1] <= 1, "disk and memory are of one instant"
    uid = home.kubectl_json("get", "vm", "db")["metadata"]["uid"]
    home.wait_until("it is gone on from once", lambda: not list((home.directory / "machines" / uid).glob("memory*")))

    # The next start is a boot.
    home.hotvirt("restart", "db", "--force", "--grace-period=0")
    home.wait_until("it booted", lambda: "No such file" in _said(home))

    # The home may die between the restore and the start, and while the guest takes up its memory.
    home.apply(restore("again", "db", "then", targetReadinessPolicy="StopTarget"))
    home.wait("vmrestore/again", "jsonpath={.status.complete}=true")
    home.kill()
    home.up()
    home.hotvirt("start", "db")
    home.wait_until("it has an instance", lambda: home.kubectl("get", "vmi", "db", check=False).returncode == 0)
    home.wait("vmi/db", "jsonpath={.status.phase}=Scheduled")
    home.kill()
    home.up()
    home.wait_agent("db")
    assert counted(home, "db")[0] == who
    home.wait_until("its disk goes on", lambda: on_disk(home, claims_of(home, "db")[0]) > then)

    # Restored elsewhere, or with the annotation, it boots from the disks.
    home.apply(restore("aside", "twin", "then"))
    home.wait("vmrestore/aside", "jsonpath={.status.complete}=true")
    assert not list((home.directory / "machines").glob("*/memory*"))
    home.kubectl("delete", "vm", "db", "twin")


def _said(home):
    if home.kubectl("get", "vmi", "db", check=False).returncode:
        return ""
    home.wait_agent("db")
    with home.console("db") as console:
        console.type("\ncat /tmp/count; echo E-$((1+1))\n")
        return console.read_until("E-2")


def test_what_cannot_be_kept_is_refused(home):
    home.apply_claim("one", "24Mi")
    machine(home, "off", strategy="Halted", max_memory="1Gi")
    said = refused(home, "off")
    assert "VM off does not run, so it has no memory" in said
    home.apply_vm("scratchy", memory="256Mi", max_memory="1Gi")
    home.wait_agent("scratchy")
    assert "volume scratch (emptyDisk) is in no snapshot" in refused(home, "scratchy")
    home.kubectl("delete", "vm", "scratchy")
    home.hotvirt("start", "off")
    home.wait_agent("off")
    home.patch_vm("off", memory="384Mi")
    home.wait("vmi/off", "jsonpath={.status.memory.guestCurrent}=384Mi")
    home.apply(memory(snapshot("grown", "off")))
    home.wait_until("it says why", lambda: "domain.memory was changed while the guest ran" in error(home, "grown"))


def error(home, name):
    status = home.kubectl_json("get", "vmsnapshot", name).get("status") or {}  # none, before a controller saw it
    return (status.get("error") or {}).get("message", "")


def refused(home, name):
    document = memory(snapshot(f"of-{name}", name))
    done = home.kubectl("apply", "-f", "-", text=json.dumps(document), check=False)
    assert done.returncode, done.stdout
    return done.stderr
