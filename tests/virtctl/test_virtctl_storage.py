"""addvolume, removevolume, memory-dump: what the guest sees of a disk, and what of the guest is in its dump."""

import gzip

import pytest

pytestmark = [pytest.mark.guest, pytest.mark.timeout(600)]


def disks(web):
    return {disk["serial"]: disk["sizeBytes"] for disk in web.facts()["blockDevices"]}


def test_a_volume_comes_and_goes_while_the_guest_runs(virtctl, home, web):
    boot, before = web.boot(), disks(web)
    home.apply_claim("data", "64Mi")
    virtctl("addvolume", "web", "--volume-name=data", "--dry-run")
    said = virtctl("addvolume", "web", "--volume-name=data", "--serial=DATA1", "--persist")
    assert said == "Successfully submitted add volume request to VM web for volume data\n"
    home.wait_volume("web", "data", "Ready")
    assert disks(web) == {**before, "DATA1": 64 << 20}
    assert "already exists" in virtctl.fails("addvolume", "web", "--volume-name=data")
    said = virtctl("removevolume", "web", "--volume-name=data")
    assert said == "Successfully submitted remove volume request to VM web for volume data\n"
    home.wait_volume_gone("web", "data")
    assert disks(web) == before
    assert web.boot() == boot


def test_a_volume_under_another_name_on_another_bus(virtctl, home, web):
    before = disks(web)
    home.apply_claim("more", "32Mi")
    virtctl("addvolume", "web", "--volume-name=more", "--disk-name=extra", "--bus=virtio", "--cache=none")
    home.wait_volume("web", "extra", "Ready")
    assert disks(web) == {**before, "extra": 32 << 20}
    virtctl("removevolume", "web", "--volume-name=extra")
    home.wait_volume_gone("web", "extra")
    assert "nothing-such" in virtctl.fails("addvolume", "web", "--volume-name=nothing-such")
    assert "does not exist" in virtctl.fails("removevolume", "web", "--volume-name=nothing-such")


def test_a_memory_dump_holds_what_the_guest_had_in_memory(virtctl, home, web):
    web.boot()
    with virtctl.console("web") as console:
        console.type("\n")
        console.read_until("# ")
        console.type("echo the-dump-holds-$((6 * 7))-this > /tmp/marker; echo do''ne\n")
        console.read_until("done")
    said = virtctl("memory-dump", "get", "web", "--claim-name=dump", "--create-claim")
    assert "PVC default/dump created\n" in said
    assert "Successfully submitted memory dump request of VM web\n" in said
    home.wait("vm/web", "jsonpath={.status.memoryDumpRequest.phase}=Completed")
    virtctl("memory-dump", "download", "web", "--output=web.dump.gz")
    with gzip.open(virtctl.directory / "web.dump.gz") as dump:
        data = dump.read()
    # virtctl keeps the archive that an export is, ours takes the dump out of it.
    assert data.startswith(b"\x7fELF") or (not virtctl.is_ours and b"\x7fELF" in data[:4096])
    assert b"the-dump-holds-42-this" in data
    said = virtctl("memory-dump", "remove", "web")
    assert said == "Successfully submitted remove memory dump association of VM web\n"

    def parted() -> bool:
        return not home.kubectl_json("get", "vm", "web")["status"].get("memoryDumpRequest")

    home.wait_until("the dump's claim is free", parted)
