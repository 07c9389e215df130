"""What a machine keeps beside its disks is in its snapshots: UEFI variables and its TPM, asked of the guest itself."""

import pytest
from snapshot_guests import restore, snapshot

pytestmark = [pytest.mark.guest, pytest.mark.timeout(900)]
VARIABLES = "/sys/firmware/efi/efivars"
VENDOR = "5ed29a2c-6bcf-4a1c-9d2a-3f2b7a3c0001"
READ_CLOCK = r"\200\001\0\0\0\012\0\0\001\201"
"""TPM2_ReadClock. Bytes 26 to 30 of the answer are how often this TPM was reset: a new one begins to count anew."""
MOUNT = "modprobe efivarfs; mount -t efivarfs none /sys/firmware/efi/efivars 2>/dev/null"


def machine(home, name):
    container = {"image": "hotvirt/tiny", "kernelPath": "/boot/vmlinuz", "initrdPath": "/boot/initrd"}
    firmware = {
        "kernelBoot": {"container": container},
        "bootloader": {"efi": {"secureBoot": False, "persistent": True}},
    }
    disks = [{"name": "one", "disk": {"bus": "virtio"}}]
    home.apply_vm(name, memory="256Mi", max_memory="256Mi", extra={
        "domain": {"firmware": firmware}, "devices": {"disks": disks, "tpm": {"persistent": True}},
        "spec": {"volumes": [{"name": "one", "persistentVolumeClaim": {"claimName": "one"}}]},
    })  # fmt: skip


def told(home, name, command):
    home.wait_agent(name)
    with home.console(name) as console:
        console.type(f"\necho B-$((1+1)); {command}; echo E-$((1+1))\n")
        console.read_until("B-2")
        return console.read_until("E-2").removesuffix("E-2").replace("\r", "").strip()


def variables(home, name):
    """Those that were written here."""
    each = f'for f in *-{VENDOR}; do echo "$f $(tail -c 4 $f)"; done'
    return set(told(home, name, f"{MOUNT}; cd {VARIABLES}; {each}; cd /").replace(f"-{VENDOR}", "").split())


def write(home, name, variable):
    """A new one: the guest's kernel protects those that are there."""
    told(home, name, f"{MOUNT}; printf '\\007\\0\\0\\0{variable}' >{VARIABLES}/{variable}-{VENDOR}")


def resets(home, name):
    command = (
        f"printf '{READ_CLOCK}' >/tmp/q; exec 3<>/dev/tpm0; dd if=/tmp/q bs=10 2>/dev/null >&3; "
        "head -c 64 <&3 | hexdump -v -e '/1 \"%02x\"'; exec 3>&-"
    )
    return int(told(home, name, command)[52:60], 16)


def test_firmware_variables_and_tpm_are_of_the_snapshot(home):
    home.patience = 240  # firmware takes its time without KVM
    home.apply_claim("one", "24Mi")
    machine(home, "web")
    write(home, "web", "then")
    count = resets(home, "web")
    home.apply(snapshot("then", "web"))
    home.wait("vmsnapshot/then", "jsonpath={.status.readyToUse}=true")
    write(home, "web", "late")
    assert variables(home, "web") == {"then", "late"}
    home.apply(restore("back", "web", "then", targetReadinessPolicy="StopTarget"))
    home.wait("vmrestore/back", "jsonpath={.status.complete}=true")
    assert "restore.hotvirt.io/state-from" not in home.kubectl_json("get", "vm", "web")["metadata"]["annotations"]
    home.hotvirt("start", "web")
    assert variables(home, "web") == {"then"}
    assert resets(home, "web") == count + 1, "its TPM is as it was, and was reset once since"

    home.apply({
        "apiVersion": "clone.kubevirt.io/v1beta1", "kind": "VirtualMachineClone", "metadata": {"name": "again"},
        "spec": {
            "source": {"apiGroup": "snapshot.kubevirt.io", "kind": "VirtualMachineSnapshot", "name": "then"},
            "target": {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "twin"},
        },
    })  # fmt: skip
    home.wait("vmclone/again", "jsonpath={.status.phase}=Succeeded")
    home.kubectl("delete", "vmsnapshot", "then")
    home.hotvirt("start", "twin")
    assert variables(home, "twin") == {"then"}
    assert resets(home, "twin") == count + 1
    write(home, "twin", "mine")
    assert variables(home, "twin") == {"then", "mine"}
    assert variables(home, "web") == {"then"}, "each has its own"
    home.kubectl("delete", "vm", "web", "twin")
    home.wait_until("nothing of it is left", lambda: not list((home.directory / "machines").iterdir()))
