"""Documents of the API as they are printed, memory dumps, and migrations."""

import io
import json
import tarfile
from pathlib import Path

import pytest
import yaml

from hotvirt.cli import downloads
from hotvirt.cli.memorydump import claim_size

CORE, KUBEVIRT = "/api/v1/namespaces/default", "/apis/kubevirt.io/v1/namespaces/default"
SUB = "/apis/subresources.kubevirt.io/v1/namespaces/default"
VM, VMI = f"{SUB}/virtualmachines/web", f"{SUB}/virtualmachineinstances/web"
MIGRATIONS = f"{KUBEVIRT}/virtualmachineinstancemigrations"
EVIL = {"hostname": "ev\x1b[2Jil"}


@pytest.mark.parametrize(
    ("words", "method", "path", "body"),
    [
        (["guestosinfo", "web"], "GET", f"{VMI}/guestosinfo", None),
        (["userlist", "vmi/web"], "GET", f"{VMI}/userlist", None),
        (["fslist", "vm", "web"], "GET", f"{VMI}/filesystemlist", None),
        (["expand", "--vm", "web", "-o", "json"], "GET", f"{VM}/expand-spec", None),
        (["objectgraph", "web"], "GET", f"{VM}/objectgraph", {"includeOptionalNodes": True}),
        (["objectgraph", "--vmi", "web", "--exclude-optional", "--selector=a=b,c=d"], "GET", f"{VMI}/objectgraph",
         {"includeOptionalNodes": False, "labelSelector": {"matchLabels": {"a": "b", "c": "d"}}}),
    ],
)  # fmt: skip
def test_documents_are_printed_without_control_characters(run, api, words, method, path, body):
    api.answers[method, path] = EVIL
    code, out, _ = run(*words)
    assert (code, json.loads(out), "\x1b" in out) == (0, EVIL, False)
    assert api.asked == [(method, path, body)]


def test_expand_a_file(run, api, tmp_path):
    (tmp_path / "vm.yaml").write_text("kind: VirtualMachine\nmetadata: {name: x}\n")
    api.answers["PUT", f"{SUB}/expand-vm-spec"] = {"kind": "VirtualMachine"}
    assert yaml.safe_load(run("expand", f"--file={tmp_path}/vm.yaml")[1]) == {"kind": "VirtualMachine"}
    assert api.asked[0][2] == {"kind": "VirtualMachine", "metadata": {"name": "x"}}
    (tmp_path / "pod.yaml").write_text("kind: Pod\n")
    assert "no VirtualMachine" in run("expand", f"--file={tmp_path}/pod.yaml")[2]
    assert "name one VM" in run("expand")[2]


def test_a_vm_that_is_off_is_told_how_to_start(run, api):
    api.answers["GET", f"{KUBEVIRT}/virtualmachines/web"] = {}
    for words in (["guestosinfo", "web"], ["reset", "web"], ["pause", "vm", "web"]):
        assert run(*words)[2] == "VM web is not running; start it with: hotvirt start web"
    assert "not found" in run("reset", "vmi/web")[2]


def test_permitted_devices(run, api):
    permitted = {"pciHostDevices": [{"resourceName": "a/b"}], "mediatedDevices": [{"resourceName": "c/d"}]}
    kubevirt = {"spec": {"configuration": {"permittedHostDevices": permitted}}}
    api.answers["GET", f"{KUBEVIRT}/kubevirts"] = {"items": []}
    api.answers["GET", "/apis/kubevirt.io/v1/kubevirts"] = {"items": [kubevirt]}
    assert run("permitted-devices")[1] == "Permitted Devices: \nHost Devices: \na/b \nGPU Devices: \nc/d\n"


def dump(phase, **more):
    return {"metadata": {"name": "web", "resourceVersion": "1"},
            "status": {"memoryDumpRequest": {"claimName": "dump", "phase": phase, **more}}}  # fmt: skip


def test_a_dump_to_a_claim_of_its_own(run, api):
    vm = {"metadata": {"name": "web"}}
    api.answers["GET", f"{KUBEVIRT}/virtualmachines/web"] = vm
    api.answers["GET", f"{KUBEVIRT}/virtualmachineinstances/web"] = {"spec": {"domain": {"memory": {"guest": "1Gi"}}}}
    api.answers["POST", f"{CORE}/persistentvolumeclaims"] = api.answers["PUT", f"{VM}/memorydump"] = {}
    words = ["memory-dump", "get", "web", "--claim-name=dump", "--create-claim", "--storage-class=fast"]
    assert run(*words)[:2] == (
        0, "PVC default/dump created\nSuccessfully submitted memory dump request of VM web\n"
    )  # fmt: skip
    claim, request = [body for method, _, body in api.asked if method in ("POST", "PUT")]
    assert claim["spec"] == {
        "accessModes": ["ReadWriteOnce"], "storageClassName": "fast",
        "resources": {"requests": {"storage": "1190Mi"}},
    }  # fmt: skip
    assert request == {"claimName": "dump"}


def test_a_claim_is_large_enough():
    vmi = {"spec": {"domain": {"resources": {"requests": {"memory": "100Mi"}}}}}
    assert claim_size(vmi) == 212 << 20


def test_a_dump_is_fetched_once_it_is_complete(run, api, tmp_path):
    (tmp_path / "d.dump").write_bytes(b"memory")
    api.answers["GET", f"{KUBEVIRT}/virtualmachines/web"] = dump("InProgress")
    done = {"type": "MODIFIED", "object": dump("Completed", fileName="d.dump")}
    api.streams[f"{KUBEVIRT}/virtualmachines"] = [done]
    api.answers["GET", f"{CORE}/persistentvolumeclaims/dump"] = {"spec": {"volumeName": "pv"}}
    volume = {"metadata": {"name": "pv"}, "spec": {"local": {"path": str(tmp_path)}}}
    api.answers["GET", "/api/v1/persistentvolumes/pv"] = volume
    out = tmp_path / "out"
    assert run("memory-dump", "download", "web", f"--output={out}", "--format=raw")[0] == 0
    assert Path(out).read_bytes() == b"memory"
    volume["spec"]["local"]["path"] = "/elsewhere"
    assert "run this where it is: /elsewhere" in run("memory-dump", "download", "web", f"--output={out}")[2]


@pytest.mark.parametrize(("flags", "is_forwarded"), [([], False), (["--port-forward=true", "--local-port=5410"], True)])
def test_a_dump_elsewhere_comes_by_an_export_and_where_asked_by_the_apis_address(
    run, api, tmp_path, monkeypatch, flags, is_forwarded
):
    asked, packed = [], io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        (tmp_path / "d.dump").write_bytes(b"memory")
        tar.add(tmp_path / "d.dump", "d.dump")

    def fetch(_api, _export, url, *, service):
        asked.append((url, service))
        return iter([packed.getvalue()])

    monkeypatch.setattr(downloads, "fetch", fetch)
    files = {"name": "dump", "formats": [{"format": "tar.gz", "url": "https://export/dump.tar.gz"}]}
    status = {"phase": "Ready", "links": {"external": {"volumes": [files]}}}
    exports = "/apis/export.kubevirt.io/v1/namespaces/default/virtualmachineexports"
    export = {"metadata": {"name": "memory-dump-dump", "uid": "u", "resourceVersion": "1"}, "status": status}
    api.answers["GET", f"{KUBEVIRT}/virtualmachines/web"] = dump("Completed", fileName="d.dump")
    api.answers["GET", f"{CORE}/persistentvolumeclaims/dump"] = {"spec": {"volumeName": "pv"}}
    volume = {"metadata": {"name": "pv"}, "spec": {"local": {"path": "/elsewhere"}}}
    api.answers["GET", "/api/v1/persistentvolumes/pv"] = volume
    api.answers["POST", exports] = api.answers["GET", f"{exports}/memory-dump-dump"] = export
    api.answers["POST", f"{CORE}/secrets"] = api.answers["DELETE", f"{exports}/memory-dump-dump"] = {}
    out = tmp_path / "out"
    code, _, err = run("memory-dump", "download", "web", f"--output={out}", "--format=raw", *flags)
    assert (code, out.read_bytes() if out.exists() else err) == (0, b"memory")
    here = api.access.server.removeprefix("http://")
    assert asked == [("https://export/dump.tar.gz", here if is_forwarded else "")]


@pytest.mark.parametrize(
    ("vm", "says"),
    [({"metadata": {"resourceVersion": "1"}}, "memory-dump get web"), (dump("Failed", message="no space"), "no space")],
)
def test_a_dump_that_will_not_come(run, api, vm, says):
    api.answers["GET", f"{KUBEVIRT}/virtualmachines/web"] = vm
    assert says in run("memory-dump", "download", "web", "--output=x")[2]


def test_migrate(run, api):
    api.answers["PUT", f"{VM}/migrate"] = {}
    assert run("migrate", "web", "--addedNodeSelector=a=b", "--dry-run=true")[0] == 0
    assert api.asked[0][2] == {"addedNodeSelector": {"a": "b"}, "dryRun": ["All"]}


def test_migrate_cancel(run, api):
    def migration(name, phase):
        return {"metadata": {"name": name}, "status": {"phase": phase}}

    assert "nothing to cancel" in run("migrate-cancel", "web")[2]
    api.answers["GET", MIGRATIONS] = {"items": [migration("old", "Succeeded"), migration("now", "Running")]}
    api.answers["DELETE", f"{MIGRATIONS}/now"] = {}
    assert run("migrate-cancel", "web")[1] == "VM web was scheduled to migrate-cancel\n"
    assert api.asked[-1][:2] == ("DELETE", f"{MIGRATIONS}/now")


def test_evacuate_cancel(run, api):
    vmi = {"status": {}}
    api.answers["GET", f"{KUBEVIRT}/virtualmachineinstances/web"] = vmi
    assert "on no node" in run("evacuate-cancel", "vm", "web")[2]
    vmi["status"]["nodeName"] = "here"
    api.answers["PUT", f"{VM}/evacuate/cancel"] = {}
    assert run("evacuate-cancel", "vm", "web")[1] == "VM default/web was canceled evacuation\n"
    assert api.asked[-1][2] == {"evacuationNodeName": "here"}
