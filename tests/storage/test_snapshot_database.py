"""A snapshot of a running Debian that writes databases all the time: its agent makes it one of whole filesystems."""

import sqlite3
import subprocess

import pytest
from snapshot_guests import DISKS, claims_of, consistent, content_of, restore, snapshot

from hotvirt.api.snapshots import INDICATIONS

pytestmark = [pytest.mark.guest, pytest.mark.long, pytest.mark.timeout(420)]

USER_DATA = """#cloud-config
write_files:
  - path: /root/write.py
    content: |
      import sqlite3, glob, os, subprocess
      found = {open(s).read().strip(): s.split("/")[3] for s in glob.glob("/sys/block/vd*/serial")}
      bases = []
      for name in ("one", "two", "three"):
          os.makedirs("/mnt/" + name)
          subprocess.run(["mkfs.ext4", "-q", "/dev/" + found[name]], check=True)
          subprocess.run(["mount", "/dev/" + found[name], "/mnt/" + name], check=True)
          base = sqlite3.connect("/mnt/" + name + "/base.db", isolation_level=None)
          base.execute("create table t (n integer primary key, filler blob)")
          bases.append(base)
      n = 0
      while True:
          n += 1
          for base in bases:
              base.execute("insert into t values (?, randomblob(2000))", (n,))
          open("/mnt/one/unsynced", "a").write("a line that nobody brings to the disk\\n" * 20)
          if n == 30:
              open("/dev/ttyS0", "w").write("DATABASES-WRITTEN\\n")
runcmd:
  - [sh, -c, "exec python3 /root/write.py &"]
"""


def machine():
    disks = [{"name": name, "serial": name, "disk": {"bus": "virtio"}} for name in DISKS]
    claims = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in DISKS]
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": "deb"},
        "spec": {
            "runStrategy": "Always",
            "template": {
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "domain": {
                        "memory": {"guest": "768Mi"},
                        "devices": {
                            "disks": [
                                {"name": "root", "disk": {"bus": "virtio"}},
                                *disks,
                                {"name": "seed", "disk": {"bus": "virtio"}},
                            ]
                        },
                    },
                    "volumes": [
                        {"name": "root", "containerDisk": {"image": "hotvirt/debian:12"}},
                        *claims,
                        {"name": "seed", "cloudInitNoCloud": {"userData": USER_DATA}},
                    ],
                },
            },
        },
    }


def test_databases_on_three_disks(home, tmp_path):
    home.patience = 300
    for name in DISKS:
        home.apply_claim(name, "64Mi")
    home.apply(machine())
    home.wait_agent("deb")
    with home.console("deb") as console:
        console.read_until("DATABASES-WRITTEN")
    home.apply(snapshot("taken", "deb"))
    home.wait("vmsnapshot/taken", "jsonpath={.status.readyToUse}=true")
    assert home.kubectl_json("get", "vmsnapshot", "taken")["status"]["indications"] == ["GuestAgent", "Online"]
    taken = [s["metadata"]["annotations"] for s in home.kubectl_json("get", "volumesnapshots")["items"]]
    assert [notes[INDICATIONS] for notes in taken] == ["GuestAgent,Online"] * 3
    home.apply(restore("out", "copy", "taken", volumeRestorePolicy="PrefixTargetName"))
    home.wait("vmrestore/out", "jsonpath={.status.complete}=true")
    rows = []
    for claim in claims_of(home, "copy"):
        image = tmp_path / f"{claim}.img"
        image.write_bytes(content_of(home, claim))
        # Not even a journal is to be replayed: frozen, they were as whole as unmounted ones.
        subprocess.run(["/sbin/e2fsck", "-fn", str(image)], check=True, capture_output=True)
        features = subprocess.run(["/sbin/dumpe2fs", "-h", str(image)], check=True, capture_output=True, text=True)
        assert "needs_recovery" not in features.stdout
        for file in ("base.db", "base.db-journal"):  # the second is there while a row is written
            out = f"{tmp_path}/{claim}-{file}"
            subprocess.run(["/sbin/debugfs", "-R", f"dump /{file} {out}", str(image)], check=True, capture_output=True)
        base = sqlite3.connect(tmp_path / f"{claim}-base.db")
        assert base.execute("pragma integrity_check").fetchall() == [("ok",)]
        rows.append(base.execute("select count(*), max(n) from t").fetchone())
        base.close()
    assert all(count == last for count, last in rows)
    assert consistent([last for _, last in rows]), rows
    assert rows[0][0] >= 30
    answer = home.facts("deb")  # it is thawed, and answers
    assert answer["bootID"]
