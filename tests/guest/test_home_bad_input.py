"""What a person gets wrong: each is named with its field and its mend, and the home keeps running."""

import pytest

pytestmark = pytest.mark.guest


def test_unknown_bus_is_refused_with_its_field(home):
    out = home.apply_vm("bus", bus="floppy", check=False)
    assert out.returncode != 0
    assert "spec.template.spec.domain.devices.disks[0].disk.bus" in out.stderr
    assert "virtio" in out.stderr


def test_memory_over_the_maximum_is_refused_with_the_limit(home):
    out = home.apply_vm("big", memory="8Gi", max_memory="4Gi", check=False)
    assert out.returncode != 0
    assert "spec.template.spec.domain.memory.guest" in out.stderr
    assert "4Gi" in out.stderr


def test_unknown_field_is_refused(home):
    out = home.apply_vm("typo", extra={"domain": {"memroy": {"guest": "1Gi"}}}, check=False)
    assert out.returncode != 0
    assert 'unknown field "spec.template.spec.domain.memroy"' in out.stderr


def test_missing_claim_is_a_condition_and_mended_by_creating_it(home):
    home.apply_vm("claimless", claim="nowhere")
    home.wait("vm/claimless", "jsonpath={.status.printableStatus}=ErrorPvcNotFound")
    assert "nowhere" in home.messages("vmi/claimless")
    home.apply_claim("nowhere", "32Mi")
    home.wait_agent("claimless")


def test_too_little_host_memory_is_unschedulable_with_the_numbers(home):
    home.apply_vm("huge", memory="1000Gi", max_memory="1000Gi")
    home.wait("vm/huge", "jsonpath={.status.printableStatus}=ErrorUnschedulable")
    home.wait_message("vmi/huge", "domain.memory.guest")
    assert "1002.2Gi of memory asked for" in home.messages("vmi/huge")


def test_corrupt_image_is_named(home):
    home.put_local_image("broken", b"QFI\xfb" + b"\xff" * 4000)
    home.apply_vm("corrupt", image="local/broken")
    home.wait_message("vmi/corrupt", "local/broken")
    home.apply_vm("healthy")
    home.wait_agent("healthy")


def test_editing_the_instance_is_refused_naming_the_vm(home):
    home.apply_vm("mine")
    home.wait("vm/mine", "jsonpath={.status.created}=true")  # from then on there is an instance to ask
    home.wait("vmi/mine", "jsonpath={.status.phase}=Running")
    out = home.kubectl(
        "patch", "vmi", "mine", "--type=merge", "-p", '{"spec":{"domain":{"memory":{"guest":"2Gi"}}}}', check=False
    )
    assert out.returncode != 0
    assert "kubectl edit vm mine" in out.stderr


def test_a_field_that_needs_a_restart_says_so_and_live_ones_go_through(home):
    home.apply_vm("mixed", memory="1Gi", max_memory="4Gi")
    home.wait_agent("mixed")
    home.kubectl(
        "patch", "vm", "mixed", "--type=merge", "-p",
        '{"spec":{"template":{"spec":{"domain":{"memory":{"guest":"2Gi"},"cpu":{"cores":2}}}}}}',
    )  # fmt: skip
    # Not condition=: kubectl then waits for observedGeneration too, which is, as upstream, that of the running guest.
    home.wait("vm/mixed", 'jsonpath={.status.conditions[?(@.type=="RestartRequired")].status}=True')
    assert "spec.template.spec.domain.cpu.cores" in home.conditions("vm/mixed")["RestartRequired"]["message"]
    home.wait("vmi/mixed", "jsonpath={.status.memory.guestCurrent}=2Gi")


def test_qemu_missing_is_said_and_the_api_still_answers(home_without_qemu):
    home = home_without_qemu
    home.apply_vm("noqemu")
    home.wait_message("vmi/noqemu", "apt-get install")
    assert home.kubectl("get", "--raw", "/readyz").stdout == "ok"
