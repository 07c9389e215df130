"""`hotvirt why` before a change, fact by fact: each one failing is named, exits with 3, and once mended the change is
made and the guest itself has it. One guest, one boot."""

import json
import subprocess

import pytest
import yaml

pytestmark = pytest.mark.guest
WOULD_NOT = 3


class Why:
    """Asks about several changes at once, as each question costs the start of a process."""

    def __init__(self, home, *, options=()):
        self._home, self._options = home, options

    def __call__(self, *changes):
        """By change: the ids of what fails."""
        done = self._home.hotvirt(*self._options, "why", "vm/web", *changes, "-o", "json", check=False)
        assert done.stdout, done.stderr
        report = json.loads(done.stdout)
        found = {
            one["change"]: {each["id"] for each in one["findings"] if each["status"] == "fail"}
            for one in report["changes"]
        }
        assert done.returncode == (WOULD_NOT if any(found.values()) else 0), done.stdout
        assert {one["change"]: one["possible"] for one in report["changes"]} == {
            change: not failing for change, failing in found.items()
        }
        return found


def disable(home, *gates):
    developer = {"developerConfiguration": {"disabledFeatureGates": list(gates)}}
    patch = json.dumps({"spec": {"configuration": developer}})
    home.kubectl("patch", "kubevirt", "kubevirt", "-n", "kubevirt", "--type=merge", "-p", patch)


def kubeconfig_of(home, account, *, role):
    """An ordinary user's: a service account with one of the API's roles in the namespace."""
    home.kubectl("create", "serviceaccount", account)
    home.kubectl("create", "rolebinding", account, f"--clusterrole={role}", f"--serviceaccount=default:{account}")
    token = home.kubectl("create", "token", account).stdout.strip()
    config = yaml.safe_load((home.directory / "kubeconfig").read_text())
    for user in config["users"]:
        user["user"] = {"token": token}
    path = home.directory / f"{account}.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


def test_each_fact_that_fails_is_named_and_once_mended_the_guest_has_it(home):
    home.apply_vm("web", memory="1Gi", max_memory="3Gi", sockets=1, max_sockets=3)
    home.apply_vm("other", memory="512Mi", strategy="Halted")
    home.wait_agent("web")
    why, boot = Why(home), home.facts("web")

    # What its kernel can was asked of it, and is told to whoever looks at the VM.
    home.wait("vm/web", "condition=MemoryHotplugAvailable", "condition=CPUHotplugAvailable")
    conditions = home.conditions("vm/web")
    assert conditions["MemoryHotplugAvailable"]["reason"] == "DriverLoaded"
    assert boot["kernel"] in conditions["CPUHotplugAvailable"]["message"]
    assert why("memory=2Gi", "cpu=2") == {"memory=2Gi": set(), "cpu=2": set()}

    # Memory: a gate, the maximum, and then it works.
    disable(home, "VMLiveUpdateFeatures")
    assert why("memory=2Gi", "memory=4Gi") == {
        "memory=2Gi": {"cluster.feature-gate"}, "memory=4Gi": {"cluster.feature-gate", "memory.max-guest"},
    }  # fmt: skip
    patch = {"spec": {"template": {"spec": {"domain": {"memory": {"guest": "2Gi"}}}}}}
    warned = home.kubectl("patch", "vm", "web", "--type=merge", "-p", json.dumps(patch)).stderr
    # `kubectl wait` believes no condition of a VM whose observedGeneration lags, as it does until the restart.
    home.wait_until("the VM asks for a restart", lambda: "RestartRequired" in home.conditions("vm/web"))
    for told in (warned, home.conditions("vm/web")["RestartRequired"]["message"]):
        assert "the feature gate VMLiveUpdateFeatures is off" in told, "everywhere the same words"
    home.wait_until("the table shows it", lambda: "2Gi/1Gi" in home.kubectl("get", "vm", "web", "-o", "wide").stdout)
    shown = home.kubectl("get", "vm", "web", "-o", "wide").stdout
    assert "1/1" in shown
    assert "memory needs a restart: the feature gate VMLiveUpdateFeatures is off" in shown
    disable(home)
    home.wait("vmi/web", "jsonpath={.status.memory.guestCurrent}=2Gi")
    home.wait("vm/web", "condition=MemoryAsAsked")
    assert {"RestartRequired", "ResizePending"} & home.conditions("vm/web").keys() == set()
    assert home.facts("web")["memTotalBytes"] - boot["memTotalBytes"] > 1000 << 20
    told = home.messages("vm/web")
    assert "Changing the running guest: domain.memory.guest: 1Gi -> 2Gi" in told
    assert "No edit waits for a restart any more" in told

    # CPUs: a gate of their own, the maximum.
    disable(home, "CPUHotplug")
    assert why("cpu=2", "memory=1Gi") == {"cpu=2": {"cluster.feature-gate"}, "memory=1Gi": set()}
    disable(home)
    assert why("cpu=4", "cpu=2", "memory=4Gi", "memory=16Mi", "disk=data") == {
        "cpu=4": {"cpu.max-sockets"}, "cpu=2": set(), "memory=4Gi": {"memory.max-guest"},
        "memory=16Mi": {"memory.least", "guest.memory-spare"}, "disk=data": {"disk.claim"},
    }  # fmt: skip
    done = home.hotvirt("set", "vm/web", "cpu=2")
    assert "2 CPUs online" in done.stdout
    assert home.facts("web")["onlineCPUs"] == 2

    # A disk: no claim, the wrong bus, a gate, somebody else's.
    home.apply_claim("data", "32Mi")
    assert why("disk=data", "disk=data,bus=sata", "disk=data,bus=virtio") == {
        "disk=data": set(), "disk=data,bus=sata": {"disk.bus"}, "disk=data,bus=virtio": set(),
    }  # fmt: skip
    disable(home, "HotplugVolumes")
    assert why("disk=data") == {"disk=data": {"cluster.feature-gate"}}
    disable(home)
    home.hotvirt("addvolume", "web", "--volume-name=data")
    home.wait_volume("web", "data", "Ready")
    assert "data" in [disk["serial"] for disk in home.facts("web")["blockDevices"]]
    found = why("disk=data", "disk=again,claim=data", "no-disk=data", "no-disk=scratch", "nic=lan")
    assert "nic.network" in found.pop("nic=lan")
    assert found == {
        "disk=data": {"disk.name"}, "disk=again,claim=data": {"disk.claim-free"}, "no-disk=data": set(),
        "no-disk=scratch": {"disk.removable"},
    }  # fmt: skip

    # A guest that does not run has it at its next start, and may not have what another uses.
    stopped = home.hotvirt("why", "vm/other", "memory=16Gi", "disk=data", check=False)
    assert stopped.returncode == WOULD_NOT
    assert "in use by VM web" in stopped.stdout
    assert "memory=16Gi: would work" in stopped.stdout

    # Whoever may only look is told so, with what to ask for; he may ask, and nothing else is hidden from him.
    viewer = Why(home, options=(f"--kubeconfig={kubeconfig_of(home, 'looker', role='view')}",))
    assert viewer("memory=1Gi", "disk=new") == {
        "memory=1Gi": {"caller.patch-vm"}, "disk=new": {"caller.patch-vm", "disk.claim", "caller.create-claim"},
    }  # fmt: skip
    editor = Why(home, options=(f"--kubeconfig={kubeconfig_of(home, 'worker', role='edit')}",))
    assert editor("memory=1Gi") == {"memory=1Gi": set()}

    # A quota counts too.
    home.kubectl("create", "quota", "small", "--hard=requests.memory=1Gi")
    home.wait("quota/small", "jsonpath={.status.hard.requests\\.memory}=1Gi")
    assert why("memory=3Gi", "memory=1Gi", "cpu=1") == {
        "memory=3Gi": {"quota.memory"}, "memory=1Gi": set(), "cpu=1": set(),
    }  # fmt: skip
    home.kubectl("delete", "quota", "small")

    # And back down, in place.
    home.hotvirt("set", "vm/web", "memory=1Gi", "cpu=1")
    after = home.facts("web")
    assert (after["onlineCPUs"], after["bootID"]) == (1, boot["bootID"])
    whole = json.loads(home.hotvirt("why", "vm/web", "-o", "json").stdout)
    reach = {each["change"]: (each.get("now"), each.get("most")) for each in whole["changes"]}
    assert (reach["memory"], reach["cpu"]) == (("1Gi", "3Gi"), ("1", "3"))
    with pytest.raises(subprocess.CalledProcessError):
        subprocess.run([home.bin / "hotvirt", "why", "vm/web", "colour=red"], env=home.env, check=True)
