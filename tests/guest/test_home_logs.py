"""`kubectl logs` and `hotvirt logs` of a launcher pod: QEMU's own words, up to its last."""

import os
import signal
import subprocess

import pytest

pytestmark = pytest.mark.guest


def test_logs_are_followed_to_qemus_last_words(home):
    home.apply_vm("web", strategy="Once")
    home.wait("vmi/web", "jsonpath={.status.phase}=Running")
    pod = home.kubectl_json("get", "pods")["items"][0]["metadata"]["name"]
    quiet = home.hotvirt("logs", "vm/web")
    assert (quiet.stdout, quiet.stderr) == ("", "QEMU of web has printed nothing.\n")
    pipe = subprocess.PIPE
    commands = [["kubectl", "logs", pod, "-f"], ["hotvirt", "logs", "vm/web", "--follow"]]
    followers = [subprocess.Popen([home.bin / name, *rest], env=home.env, stdout=pipe, text=True)
                 for name, *rest in commands]  # fmt: skip
    try:
        (qemu,) = home.guest_processes()
        os.kill(qemu, signal.SIGTERM)
        for each in followers:
            said, _ = each.communicate(timeout=home.patience)
            assert "terminating on signal 15" in said
            assert each.returncode == 0
    finally:
        for each in followers:
            each.kill()
            each.communicate()
    # What a pod that has ended printed can still be read, for as long as there is the pod.
    home.wait(f"pod/{pod}", "jsonpath={.status.containerStatuses[0].ready}=false")
    assert "terminating on signal 15" in home.kubectl("logs", pod, "-c", "compute", "--tail=1").stdout
    refused = home.kubectl("logs", pod, "--previous", check=False)
    assert "previous terminated container" in refused.stderr
