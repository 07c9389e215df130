"""The main job by hand: apply, look, edit while it runs, take back, attach, detach, stop. Real kubectl, real guest."""

import pytest

pytestmark = pytest.mark.guest


def test_apply_look_and_resize(home):
    home.apply_vm("web", memory="1Gi", max_memory="4Gi", sockets=1, max_sockets=4)
    home.wait_agent("web")

    vm_row, vmi_row = home.table("get", "vm"), home.table("get", "vmi")
    assert vm_row[0] == ["NAME", "AGE", "STATUS", "READY"]
    assert [vm_row[1][0], *vm_row[1][2:]] == ["web", "Running", "True"]
    assert vmi_row[0] == ["NAME", "AGE", "PHASE", "IP", "NODENAME", "READY"]
    assert vmi_row[1][2] == "Running"
    pod = home.kubectl_json("get", "pods")["items"][0]
    assert pod["status"]["phase"] == "Running"
    assert pod["status"]["podIP"] == vmi_row[1][3]

    boot = home.facts("web")
    assert boot["onlineCPUs"] == 1

    home.patch_vm("web", memory="2Gi")
    home.wait("vmi/web", "jsonpath={.status.memory.guestCurrent}=2Gi")
    grown = home.facts("web")
    assert grown["memTotalBytes"] - boot["memTotalBytes"] > 1000 << 20

    check_metrics(metrics_of(home), grown)

    home.patch_vm("web", sockets=3)
    home.wait("vmi/web", "jsonpath={.status.currentCPUTopology.sockets}=3")
    assert home.facts("web")["onlineCPUs"] == 3

    home.patch_vm("web", memory="1Gi", sockets=1)
    home.wait(
        "vmi/web", "jsonpath={.status.memory.guestCurrent}=1Gi", "jsonpath={.status.currentCPUTopology.sockets}=1"
    )
    back = home.facts("web")
    assert back["memTotalBytes"] == boot["memTotalBytes"]
    assert back["onlineCPUs"] == 1
    assert back["bootID"] == boot["bootID"], "the guest was restarted"
    conditions = home.conditions("vm/web")
    assert "RestartRequired" not in conditions
    assert "HotMemoryChange" not in conditions
    assert "HotVCPUChange" not in conditions


def metrics_of(home) -> dict[str, float]:
    lines = home.kubectl("get", "--raw", "/metrics").stdout.splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def check_metrics(found, facts):
    """What the metrics tell of the guest is what the guest tells of itself."""
    one = {name.split("{")[0]: value for name, value in found.items() if 'name="web"' in name}
    assert one["kubevirt_vmi_memory_domain_bytes"] == 2 << 30
    assert one["kubevirt_vmi_memory_available_bytes"] == facts["memTotalBytes"]
    assert one["kubevirt_vmi_cpu_usage_seconds_total"] > 0.5, "it booted under emulation"
    assert one["kubevirt_vmi_memory_resident_bytes"] > 64 << 20
    assert one["kubevirt_vmi_vcpu_seconds_total"] >= 0
    assert found['kubevirt_number_of_vms{namespace="default"}'] == 1
    phases = "kubevirt_vmi_phase_transition_time_from_creation_seconds_count"
    assert found[phases + '{phase="Running"}'] == 1


def test_volumes_come_and_go_while_the_guest_runs(home):
    home.apply_vm("disky", max_sockets=4)
    home.apply_claim("data", "64Mi")
    home.wait_agent("disky")
    boot = home.facts("disky")["bootID"]
    own = disks_of(home, "disky")
    home.hotvirt("addvolume", "disky", "--volume-name=data", "--persist")
    home.wait_volume("disky", "data", "Ready")
    assert disks_of(home, "disky") == {**own, "data": 64 << 20}
    home.hotvirt("removevolume", "disky", "--volume-name=data")
    home.wait_volume_gone("disky", "data")
    assert disks_of(home, "disky") == own

    # One of this run only.
    refused = home.hotvirt("addvolume", "vmi/disky", "--volume-name=data", check=False)
    assert "VMI disky is owned by a VM" in refused.stderr
    assert "the feature gate HotplugVolumes" in refused.stderr
    gates = '{"spec":{"configuration":{"developerConfiguration":{"featureGates":["HotplugVolumes"]}}}}'
    home.kubectl("patch", "kubevirt", "kubevirt", "-n", "kubevirt", "--type=merge", "-p", gates)
    home.hotvirt("addvolume", "vmi/disky", "--volume-name=data")
    home.wait_volume("disky", "data", "Ready")
    assert disks_of(home, "disky") == {**own, "data": 64 << 20}

    # Another home, and an edit of the machine: it stays, and nobody asks for a restart.
    home.kill()
    home.up()
    home.wait_agent("disky")
    home.patch_vm("disky", sockets=2)
    home.wait("vmi/disky", "jsonpath={.status.currentCPUTopology.sockets}=2")
    assert disks_of(home, "disky") == {**own, "data": 64 << 20}
    assert home.facts("disky")["bootID"] == boot
    assert "RestartRequired" not in home.conditions("vm/disky")
    template = home.kubectl_json("get", "vm", "disky")["spec"]["template"]["spec"]
    assert [volume["name"] for volume in template["volumes"]] == ["scratch"]

    uid = home.vmi("disky")["metadata"]["uid"]
    home.hotvirt("restart", "disky")
    home.wait_new_instance("disky", uid)
    home.wait_agent("disky")
    assert disks_of(home, "disky") == own
    home.hotvirt("addvolume", "vmi/disky", "--volume-name=data")
    home.wait_volume("disky", "data", "Ready")
    home.hotvirt("removevolume", "vmi/disky", "--volume-name=data")
    home.wait_volume_gone("disky", "data")
    assert disks_of(home, "disky") == own


def disks_of(home, name):
    """Sizes by what each disk says of itself, else by its name in the guest."""
    return {disk["serial"] or disk["name"]: disk["sizeBytes"] for disk in home.facts(name)["blockDevices"]}


def test_stop_start_restart(home):
    home.apply_vm("cycle", strategy="Manual")
    home.wait("vm/cycle", "jsonpath={.status.printableStatus}=Stopped")
    home.hotvirt("start", "cycle")
    home.wait_agent("cycle")
    first = home.facts("cycle")["bootID"]
    uid = home.vmi("cycle")["metadata"]["uid"]
    home.hotvirt("restart", "cycle")
    home.wait_new_instance("cycle", uid)
    home.wait_agent("cycle")
    assert home.facts("cycle")["bootID"] != first
    home.hotvirt("stop", "cycle")
    home.wait("vm/cycle", "jsonpath={.status.printableStatus}=Stopped")  # said when the guest is down
    home.wait_until("nothing left of its run", lambda: home.kubectl_json("get", "vmi,pods")["items"] == [])


def test_delete_leaves_nothing(home):
    home.apply_vm("gone")
    home.wait("vmi/gone", "jsonpath={.status.phase}=Running")
    home.kubectl("delete", "vm", "gone", "--timeout=60s")
    assert home.kubectl_json("get", "vm,vmi,pods")["items"] == []
    home.assert_nothing_left_of_guests()
