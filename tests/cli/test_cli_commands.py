"""What each command asks of the API, and what it tells a person."""

import json

import pytest

SUB = "/apis/subresources.kubevirt.io/v1/namespaces/default"
VM = f"{SUB}/virtualmachines/web"
VMI = f"{SUB}/virtualmachineinstances/web"


@pytest.mark.parametrize(
    ("words", "path", "body"),
    [
        (["start", "web"], f"{VM}/start", {}),
        (["start", "vm/web", "--paused"], f"{VM}/start", {"paused": True}),
        (["stop", "web"], f"{VM}/stop", {}),
        (["stop", "web", "--force", "--grace-period=0"], f"{VM}/stop", {"gracePeriod": 0}),
        (["stop", "web", "--grace-period=9", "--dry-run"], f"{VM}/stop", {"gracePeriod": 9, "dryRun": ["All"]}),
        (["restart", "web"], f"{VM}/restart", {}),
        (["restart", "web", "--force"], f"{VM}/restart", {"gracePeriodSeconds": 0}),
        (["pause", "vmi/web"], f"{VMI}/pause", {}),
        (["unpause", "web"], f"{VMI}/unpause", {}),
        (["start", "-n", "other", "web"], f"{VM}/start".replace("default", "other"), {}),
        (["removevolume", "web", "--volume-name=data"], f"{VM}/removevolume", {"name": "data"}),
    ],
)
def test_verbs_are_kubevirts_subresources(run, api, words, path, body):
    api.answers["PUT", path] = {}
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    assert out
    assert api.asked == [("PUT", path, body)]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["stop", "web", "--grace-period=0"], "confirm with --force"),
        (["stop", "web", "--force"], "--grace-period=0"),
        (["start", "pod/web"], "vm/web or vmi/web"),
        (["strat", "web"], "start"),
        (["addvolume", "web"], "--volume-name"),
        (["start", "vmi/web"], "vm/web"),
    ],
)
def test_wrong_usage_is_told_without_asking_the_api(run, api, words, says):
    code, _, err = run(*words)
    assert code != 0
    assert says in err
    assert api.asked == []


def test_a_refusal_is_the_servers_own_sentence(run, api):
    api.answers["PUT", f"{VM}/start"] = (409, {"kind": "Status", "code": 409, "message": "VM is already running"})
    assert run("start", "web") == (1, "", "VM is already running")


def test_an_invalid_object_names_every_field(run, api):
    causes = [{"field": "spec.a", "message": "too big"}, {"field": "spec.b", "message": "too small"}]
    invalid = {"reason": "Invalid", "code": 422, "message": "no", "details": {"causes": causes}}
    api.answers["PUT", f"{VM}/start"] = (422, invalid)
    assert run("start", "web")[2] == "spec.a: too big; spec.b: too small"


def test_addvolume_prefers_a_datavolume_and_demands_a_claim(run, api):
    api.answers["PUT", f"{VM}/addvolume"] = {}
    code, _, err = run("addvolume", "web", "--volume-name=data")
    assert code == 1
    assert "no PersistentVolumeClaim data" in err
    api.answers["GET", "/api/v1/namespaces/default/persistentvolumeclaims/data"] = {}
    assert run("addvolume", "web", "--volume-name=data", "--bus=virtio", "--serial=S", "--persist")[0] == 0
    assert api.asked[-1][2] == {
        "name": "data",
        "disk": {"name": "data", "serial": "S", "disk": {"bus": "virtio"}},
        "volumeSource": {"persistentVolumeClaim": {"claimName": "data"}},
    }
    api.answers["GET", "/apis/cdi.kubevirt.io/v1beta1/namespaces/default/datavolumes/data"] = {}
    run("addvolume", "web", "--volume-name=data")
    assert api.asked[-1][2]["volumeSource"] == {"dataVolume": {"name": "data"}}


FACTS = "/apis/subresources.hotvirt.io/v1alpha1/namespaces/default/virtualmachineinstances/web/guestfacts"
GUEST = {
    "kind": "GuestFacts", "memTotalBytes": 2 << 30, "onlineCPUs": 2, "uptimeSeconds": 61.5, "bootID": "b",
    "kernel": "6", "hostname": "ev\x1b[2Jil",
    "blockDevices": [{"name": "sda", "sizeBytes": 64 << 20, "serial": "data"}],
}  # fmt: skip


def test_guest_shows_facts_and_keeps_its_words_from_the_terminal(run, api):
    api.answers["GET", FACTS] = GUEST
    _, out, _ = run("guest", "vm/web")
    assert "Memory: 2 GiB" in " ".join(out.split())
    assert "sda    64 MiB   data" in out
    assert "\x1b" not in out
    assert json.loads(run("guest", "vm/web", "-o", "json")[1])["memTotalBytes"] == 2 << 30


def test_start_waits_for_the_guest_to_run(run, api):
    vms = "/apis/kubevirt.io/v1/namespaces/default/virtualmachines"
    api.answers["PUT", f"{VM}/start"] = {}
    starting = {"metadata": {"name": "web", "resourceVersion": "5"}, "status": {"printableStatus": "Starting"}}
    api.answers["GET", f"{vms}/web"] = starting
    api.streams[vms] = [{"type": "MODIFIED", "object": {**starting, "status": {"printableStatus": "Running"}}}]
    assert run("start", "web", "--wait") == (0, "VM web was scheduled to start\nVM web is started\n", "")


def test_no_server_is_one_line_with_the_mend(api):
    from click.testing import CliRunner

    from hotvirt.cli.errors import explain
    from hotvirt.cli.main import hotvirt
    from hotvirt.kube.kubeconfig import Access

    result = CliRunner().invoke(hotvirt, ["start", "web"], obj=Access(server="http://127.0.0.1:9"))
    assert explain(result.exception) == (
        "no answer from http://127.0.0.1:9: connection refused; is the home running? Start it with: hotvirt up --detach"
    )


@pytest.mark.parametrize(
    ("server", "mend"),
    [("https://127.0.0.1:6443", "hotvirt up --detach"), ("https://[::1]:6443", "hotvirt up --detach"),
     ("https://localhost:6443", "hotvirt up --detach"), ("https://10.0.0.1:6443", "choose one with --context"),
     ("https://localhost.example.org:6443", "choose one with --context")],
)  # fmt: skip
def test_an_api_elsewhere_is_not_started_here(server, mend):
    from hotvirt.cli.errors import explain
    from hotvirt.kube.errors import Unreachable

    told = explain(Unreachable(f"no answer from {server}: timed out"))
    assert told is not None
    assert told.endswith(mend)


def test_a_volume_of_an_instance_without_a_vm_and_only_to_try(run, api):
    api.answers["GET", "/apis/kubevirt.io/v1/namespaces/default/virtualmachineinstances/web"] = {}
    api.answers["PUT", f"{VMI}/removevolume"] = {}
    assert run("removevolume", "web", "--volume-name=data", "--dry-run")[0] == 0
    assert api.asked[-1] == ("PUT", f"{VMI}/removevolume", {"name": "data", "dryRun": ["All"]})


def test_version_without_a_server_is_still_our_own(run, api):
    code, out, err = run("version")
    assert (code, out.startswith("Client Version: "), "not found" in err) == (1, True, True)


def test_version_tells_both_sides(run, api):
    api.answers["GET", "/apis/subresources.kubevirt.io/v1/version"] = {"gitVersion": "v9"}
    assert 'Server Version: version.Info{GitVersion:"v9", ' in run("version")[1]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(run, shell):
    assert "_HOTVIRT_COMPLETE" in run("completion", shell)[1]
