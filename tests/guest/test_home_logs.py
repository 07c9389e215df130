"""`kubectl logs` and `hotvirt logs` of a launcher pod: QEMU's own words, up to its last."""

import os
import signal
import subprocess

import pytest

pytestmark = pytest.mark.guest


def test_logs_are_followed_to_qemus_last_words(home):
    home.apply_vm("web", strategy="Once")
    home.wait("vm/web", "jsonpath={.status.created}=true")
    home.wait("vmi/web", "jsonpath={.status.phase}=Running")
    pod = home.kubectl_json("get", "pods")["items"][0]["metadata"]["name"]
    quiet = home.hotvirt("logs", "vm/web")
    assert (quiet.stdout, quiet.stderr) == ("", "QEMU of web has printed nothing.\n")
    refused = home.kubectl("logs", pod, "--previous", check=False)
    assert "previous terminated container" in refused.stderr

    (log,) = (home.directory / "run" / "pods").glob("*/log")
    log.write_text("one\ntwo\n")  # as QEMU would, which here has nothing to complain about
    assert home.kubectl("logs", pod, "-c", "compute").stdout == "one\ntwo\n"
    assert home.hotvirt("logs", "web", "--tail=1").stdout == "two\n"
    commands = [["kubectl", "logs", pod, "-f", "--tail=1"], ["hotvirt", "logs", "vm/web", "-f", "--tail=1"]]
    followers = [
        subprocess.Popen([home.bin / name, *rest], env=home.env, stdout=subprocess.PIPE, text=True)
        for name, *rest in commands
    ]
    try:
        assert [each.stdout.readline() for each in followers] == ["two\n", "two\n"]
        (qemu,) = set(home.guest_processes()) - {home.pid}  # which has the log open for the followers
        os.kill(qemu, signal.SIGTERM)
        for each in followers:
            said, _ = each.communicate(timeout=home.patience)
            assert "terminating on signal 15" in said
            assert each.returncode == 0
    finally:
        for each in followers:
            each.kill()
            each.communicate()
