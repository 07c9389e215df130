"""console waits for what is starting, and says at once what will not; vnc finds a viewer and saves pictures."""

import pytest

from hotvirt.cli import streams, terminal
from hotvirt.cli.errors import CliError

KUBEVIRT = "/apis/kubevirt.io/v1/namespaces/default"
VM, VMI = f"{KUBEVIRT}/virtualmachines/web", f"{KUBEVIRT}/virtualmachineinstances/web"
SHOT = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachineinstances/web/vnc/screenshot"


def vm(strategy, state="Stopped"):
    return {"metadata": {"name": "web"}, "spec": {"runStrategy": strategy}, "status": {"printableStatus": state}}


def vmi(phase):
    return {"metadata": {"name": "web", "resourceVersion": "1"}, "status": {"phase": phase}}


@pytest.fixture
def talked(monkeypatch):
    """The paths of the consoles that were opened."""
    paths = []
    monkeypatch.setattr(terminal, "run", lambda access, path, **_: paths.append(path))
    return paths


def test_console_of_what_is_starting(run, api, talked):
    api.answers["GET", VM], api.answers["GET", VMI] = vm("Always", "Starting"), vmi("Scheduling")
    api.streams[f"{KUBEVIRT}/virtualmachineinstances"] = [{"type": "MODIFIED", "object": vmi("Running")}]
    code, _, err = run("console", "web")
    assert (code, err) == (0, "Waiting for web to run (Scheduling) ...\n")
    assert len(talked) == 1


@pytest.mark.parametrize(
    ("machine", "instance", "says"),
    [
        (vm("Halted"), None, "hotvirt start web"),
        (vm("Manual"), None, "hotvirt start web"),
        (None, None, "not found"),
        (vm("Manual"), vmi("Succeeded"), "its last run has succeeded"),
        (vm("Always", "Starting"), vmi("Scheduling"), "does not run after 0.0005 min"),
    ],
)
def test_console_of_what_will_not_run(run, api, talked, machine, instance, says):
    for path, obj in ((VM, machine), (VMI, instance)):
        if obj:
            api.answers["GET", path] = obj
    api.answers["GET", f"{KUBEVIRT}/virtualmachineinstances"] = {"metadata": {"resourceVersion": "1"}, "items": []}
    code, _, err = run("console", "web", "--timeout=0.0005")
    assert (code, talked) == (1, [])
    assert says in err


def test_a_viewer(monkeypatch, tmp_path):
    here = {"vncviewer"}
    monkeypatch.setattr(streams.shutil, "which", lambda name: name in here)
    assert streams.find_viewer(None, None) == ["vncviewer", "127.0.0.1::{port}"]
    with pytest.raises(CliError, match="--proxy-only"):
        streams.find_viewer("remote-viewer", None)
    here.add("remote-viewer")
    assert streams.find_viewer(None, None)[0] == "remote-viewer"
    (tmp_path / "remote-viewer").touch()
    assert streams.find_viewer(None, tmp_path / "remote-viewer")[1] == "vnc://127.0.0.1:{port}"
    with pytest.raises(CliError, match="there is no viewer"):
        streams.find_viewer("tiger", tmp_path / "none")
    assert streams.find_viewer("tiger", None) == ["vncviewer", "127.0.0.1::{port}"]
    assert streams.find_viewer("real", None)[:2] == ["vncviewer", "127.0.0.1:{port}"]
    (tmp_path / "mine").touch()
    assert streams.find_viewer("chicken", tmp_path / "mine") == [str(tmp_path / "mine"), "127.0.0.1:{port}"]
    with pytest.raises(CliError, match="Chicken"):
        streams.find_viewer("chicken", None)


@pytest.mark.parametrize("kind", ["tiger", "chicken", "real", "remote-viewer"])
def test_virtctls_types_of_viewers(run, monkeypatch, kind):
    monkeypatch.setattr(streams.shutil, "which", lambda _name: None)
    assert "no VNC viewer found" in run("vnc", "web", f"--vnc-type={kind}")[2]


def test_a_screenshot(run, api, tmp_path):
    api.answers["GET", SHOT] = "a picture"
    assert run("vnc", "screenshot", "web", f"--file={tmp_path}/a.png", "-m")[0] == 0
    assert (tmp_path / "a.png").read_bytes() == b'"a picture"'
    assert api.asked[0][1] == f"{SHOT}?moveCursor=true"
    assert "--file" in run("vnc", "screenshot", "web")[2]
    assert "cannot write" in run("vnc", "screenshot", "web", f"--file={tmp_path}")[2]
