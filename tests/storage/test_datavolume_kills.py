"""A home that is killed at random moments of an import, a copy and an upload goes on, and offers no half disk."""

import os
import random
import time

import pytest
from data_volumes import MIB, content, data_volume, done, run, token_of, upload

KILLS = int(os.environ.get("HOTVIRT_KILLS", "8"))
pytestmark = [pytest.mark.server, pytest.mark.timeout(300 + 20 * KILLS)]


def test_a_home_that_is_killed_goes_on(shared, packed):
    """At random moments of an import, a copy and an upload that was received."""
    home, images = shared
    chance = random.Random(7)
    images.put("paced", packed["raw"])
    images.pace["paced"] = 16 * MIB
    home.apply(data_volume("k-source", {"http": {"url": images.put("raw", packed["raw"])}}))
    done(home, "k-source")
    for number in range(KILLS):
        names = [f"k-{kind}-{number}" for kind in ("http", "clone", "upload")]
        home.apply(data_volume(names[2], {"upload": {}}))
        home.wait(f"dv/{names[2]}", "jsonpath={.status.phase}=UploadReady")
        token = token_of(home, names[2])
        home.apply(data_volume(names[1], {"pvc": {"name": "k-source", "namespace": "default"}}, size=0))
        home.apply(data_volume(names[0], {"http": {"url": f"{images.url}/paced"}}))
        code, _ = upload(home, token, packed["qcow2"], path="upload-async")
        assert code == 200
        time.sleep(chance.uniform(0, 1.5))
        directories = {name: home.directory / "volumes" / f"pvc-{uid(home, name)}" for name in names}
        home.kill()
        offered(directories, packed["raw"])
        home.up()
        done(home, *names)
        for name in names:
            assert content(home, name) == packed["raw"], name
        if number % 2:
            write_over(home, "k-source")  # what is copied next has a base more
            packed = {"raw": content(home, "k-source"), "qcow2": as_qcow2(home, "k-source")}
            images.put("paced", packed["raw"])
        home.kubectl("delete", "dv", *names)
        print(f"round {number + 1}: killed, and went on", flush=True)
    assert any(asked for name, asked in images.asked if name == "paced"), "some went on in the middle"


def write_over(home, name):
    claim = home.kubectl_json("get", "pvc", name)
    (disk,) = (home.directory / "volumes" / claim["spec"]["volumeName"]).glob("disk.*")
    kind = "raw" if disk.suffix == ".img" else "qcow2"
    run("qemu-io", "-f", kind, "-c", f"write -P {random.randrange(1, 255)} 1M 64k", disk)


def as_qcow2(home, name):
    folder = home.directory / "volumes"
    raw, out = folder / "as.raw", folder / "as.qcow2"
    raw.write_bytes(content(home, name))
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, out)
    try:
        return out.read_bytes()
    finally:
        raw.unlink()
        out.unlink()


def uid(home, name):
    home.wait_until(f"claim {name} is made", lambda: home.kubectl("get", "pvc", name, check=False).returncode == 0)
    return home.kubectl("get", "pvc", name, "-o", "jsonpath={.metadata.uid}").stdout


def offered(directories, whole):
    """Every disk that is there under its name is whole, at this moment too."""
    for name, directory in directories.items():
        for disk in directory.glob("disk.*"):
            flat = directory / "flat"
            run("qemu-img", "convert", "-f", "raw" if disk.suffix == ".img" else "qcow2", "-O", "raw", disk, flat)
            assert flat.read_bytes() == whole, name
            flat.unlink()
