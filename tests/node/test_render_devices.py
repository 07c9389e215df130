"""What becomes of a machine's smaller parts on QEMU's command line."""

from datetime import UTC, datetime

import pytest

from hotvirt.node import consolelog, firmware, render_devices, tpm
from hotvirt.node.machinestate import identity
from hotvirt.qemu.machine import Chassis, Disk, Input

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)

CLOCKS = {
    "silent": ({}, "utc"),
    "UTC": ({"utc": {}}, "utc"),
    "ahead": ({"utc": {"offsetSeconds": 3600}}, "2026-01-31T13:00:00"),
    "behind": ({"utc": {"offsetSeconds": -86400}}, "2026-01-30T12:00:00"),
    "a zone": ({"timezone": "Etc/GMT+5"}, "2026-01-31T07:00:00"),
}


@pytest.mark.parametrize(("given", "expected"), CLOCKS.values(), ids=CLOCKS)
def test_clock(given, expected):
    assert render_devices.clock({"clock": given}, NOW) == expected


FLAGS = {
    "silent": ({}, ()),
    "hidden": ({"features": {"kvm": {"hidden": True}}}, ("kvm=off",)),
    "what is switched off": ({"features": {"hyperv": {"relaxed": {"enabled": False}}}}, ()),
    "timers bring their clock": (
        {"features": {"hyperv": {"synictimer": {"direct": {}}}}},
        ("hv_stimer=on", "hv_stimer_direct=on", "hv_time=on")),
    "locks": ({"features": {"hyperv": {"spinlocks": {}}}}, ("hv_spinlocks=0x1000",)),
    "a vendor": ({"features": {"hyperv": {"vendorid": {"vendorid": "No One"}}}}, ("hv_vendor_id=No One",)),
    "all": ({"features": {"hypervPassthrough": {}}}, ("hv_passthrough=on",)),
    "a clock that is declined": ({"clock": {"timer": {"hyperv": {"present": False}}}}, ()),
    "KVM's own": (
        {"features": {"apic": {"endOfInterrupt": True}, "pvspinlock": {"enabled": False}},
         "clock": {"timer": {"kvm": {"present": False}}}},
        ("+kvm_pv_eoi", "-kvm_pv_unhalt", "-kvmclock")),
}  # fmt: skip


@pytest.mark.parametrize(("domain", "expected"), FLAGS.values(), ids=FLAGS)
def test_cpu_flags(domain, expected):
    assert render_devices.cpu_flags(domain) == expected


def test_board():
    timers = {"hpet": {"present": False}, "rtc": {"tickPolicy": "catchup", "track": "guest"}}
    domain = {"features": {"acpi": {"enabled": False}}, "clock": {"timer": timers}}
    assert render_devices.machine_options(domain) == ("hpet=off", "acpi=off")
    assert render_devices.rtc_options(domain) == ("clock=vm", "driftfix=slew")


def test_identity_in_the_dmi_tables():
    domain = {"chassis": {"asset": "a"}, "firmware": {"serial": "s"}}
    found = render_devices.smbios(domain, {"manufacturer": "Us"})
    assert (found.manufacturer, found.product, found.serial) == ("Us", "VirtualMachine", "s")
    assert found.chassis == Chassis(asset="a")


def test_devices():
    given = [{"name": "a", "type": "tablet", "bus": "virtio"}, {"name": "b", "type": "tablet"}]
    assert render_devices.inputs({"inputs": given}) == (Input(name="a", bus="virtio"), Input(name="b"))
    assert render_devices.video({"firmware": {"bootloader": {"efi": {}}}}) == "bochs"
    assert render_devices.video({"devices": {"video": {"type": "virtio"}}}) == "virtio"
    assert render_devices.video({}) == "vga"
    actions = [render_devices.watchdog({"watchdog": {"i6300esb": {"action": a}}}) for a in ("", "poweroff", "shutdown")]
    assert actions == ["reset", "pause", "shutdown"]
    assert render_devices.watchdog({}) is None


def threads(policy, *, own=(), count=None, disks=("a", "b", "c"), vcpus=1):
    domain = {"devices": {"disks": [{"name": name, "dedicatedIOThread": name in own} for name in disks]}}
    domain |= {"ioThreadsPolicy": policy, "ioThreads": {"supplementalPoolThreadCount": count}}
    found = render_devices.with_threads(tuple(Disk(name=name) for name in disks), domain, vcpus=vcpus)
    return [each.io_thread for each in found]


def test_threads():
    assert threads("") == ["", "", ""]
    assert threads("shared") == ["iothread-0"] * 3
    assert threads("auto") == ["iothread-0", "iothread-1", "iothread-0"]
    assert threads("supplementalPool", count=2) == ["iothread-0", "iothread-1", "iothread-0"]
    assert threads("", own=("b",)) == ["iothread-0", "iothread-of-b", "iothread-0"]
    scsi = render_devices.with_threads((Disk(name="s", bus="scsi"),), {"ioThreadsPolicy": "shared"}, vcpus=1)
    assert scsi == (Disk(name="s", bus="scsi"),)


def test_queues_are_the_vcpus():
    domain = {"devices": {"blockMultiQueue": True}}
    assert render_devices.with_threads((Disk(name="a"),), domain, vcpus=3)[0].queues == 3


def boot(**efi):
    return firmware.wish({"domain": {"firmware": {"bootloader": {"efi": efi}}}})


def test_firmware_that_is_missing_is_named(tmp_path):
    assert firmware.wish({"domain": {}}) is None
    assert boot() == firmware.Wish(secure_boot=True, persistent=False)
    with pytest.raises(firmware.FirmwareMissing, match="apt-get install ovmf"):
        firmware.prepare(boot(), keep=tmp_path, descriptors=None, directory=tmp_path)


def test_a_tpm_has_no_guests_user():
    assert tpm.wish({"domain": {"devices": {"tpm": {"enabled": False}}}}) is None
    assert tpm.wish({"domain": {"devices": {"tpm": {}}}}) == tpm.Wish(persistent=False)
    assert {tpm.user_of(61184 + each) for each in range(4096)} == set(range(65280, 65520))


def test_what_is_kept_belongs_to_the_machine():
    owner = {"kind": "VirtualMachine", "controller": True, "uid": "vm"}
    assert identity({"metadata": {"uid": "vmi", "ownerReferences": [owner]}}) == "vm"
    assert identity({"metadata": {"uid": "vmi"}}) == "vmi"


def test_consoles_are_logged_unless_somebody_declines():
    assert consolelog.is_wanted({}, {})
    assert not consolelog.is_wanted({}, {"disableSerialConsoleLog": {}})
    assert not consolelog.is_wanted({"domain": {"devices": {"logSerialConsole": False}}}, {})


def test_disks_are_tried_in_the_manifests_order_where_it_names_none():
    root, blank = Disk(name="root", bus="virtio"), Disk(name="blank", bus="scsi")
    found = render_devices.in_boot_order((root, blank), ())
    assert [(each.name, each.boot_index) for each in found] == [("root", 1), ("blank", 2)]
    asked = Disk(name="blank", bus="scsi", boot_index=1)
    assert render_devices.in_boot_order((root, asked), ()) == (root, asked)
