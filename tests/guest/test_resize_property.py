"""Random edits of memory, CPUs, disks and a card's cable of one running guest, with kills of the home between and
amidst them, at any moment.

However they come, the guest ends with what the VM asks for last, and the VMI says the same, or a condition why not.
One home and one guest serve all examples, so each begins where the last one ended. HOTVIRT_LONG=1 makes it some ten
minutes of them.
"""

import json
import os
import re
import subprocess
import time

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

SEQUENCES, STEPS = (40, 6) if os.environ.get("HOTVIRT_LONG") else (4, 4)
pytestmark = [pytest.mark.guest, pytest.mark.timeout(100 * SEQUENCES)]
MIB = 1 << 20
SIZES = (448, 512, 576, 640, 768)
"""MiB; the guest boots with the second."""
BOOT = SIZES[1]
CLAIMS = ("left", "right")
CHANGES = {"HotMemoryChange", "HotVCPUChange", "HotVolumeChange", "HotInterfaceChange"}

memories = st.sampled_from(SIZES).map(lambda size: {"domain": {"memory": {"guest": f"{size}Mi"}}})
cpus = st.integers(1, 3).map(lambda count: {"domain": {"cpu": {"sockets": count}}})


@st.composite
def volumes(draw):
    hot = draw(st.sets(st.sampled_from(CLAIMS)))
    return {
        "volumes": [
            {"name": "scratch", "emptyDisk": {"capacity": "16Mi"}},
            *({"name": n, "persistentVolumeClaim": {"claimName": n, "hotpluggable": True}} for n in sorted(hot)),
        ],
        "domain": {
            "devices": {
                "disks": [
                    {"name": "scratch", "disk": {"bus": "virtio"}},
                    *({"name": n, "disk": {"bus": "scsi"}} for n in sorted(hot)),
                ]
            }
        },
    }


cables = st.sampled_from(("up", "down")).map(
    lambda state: {"domain": {"devices": {"interfaces": [{"name": "default", "masquerade": {}, "state": state}]}}}
)
edits = st.one_of(memories, cpus, volumes(), cables)


class Edits(RuleBasedStateMachine):
    home = None
    """Set by the test."""
    boot = None

    def _send(self, edit):
        patch = json.dumps({"spec": {"template": {"spec": edit}}})
        argv = [str(self.home.bin / "kubectl"), "patch", "vm", "box", "--type=merge", "-p", patch]
        return subprocess.Popen(argv, env=self.home.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    @rule(edit=edits)
    def edit_once(self, edit):
        answered(self._send(edit))

    @rule(burst=st.lists(edits, min_size=3, max_size=6))
    def edit_many_at_once(self, burst):
        for sent in [self._send(edit) for edit in burst]:
            answered(sent)

    @rule(burst=st.lists(edits, min_size=1, max_size=3), after=st.floats(0, 1))
    def home_dies_amidst(self, burst, after):
        sent = [self._send(edit) for edit in burst]
        answered(sent[0])
        time.sleep(after)  # amidst whatever it does by then
        self.home.kill()
        for each in sent[1:]:  # an edit that the home did not acknowledge may be lost, or not
            each.communicate(timeout=60)
        self.home.up()

    def teardown(self):
        home, seen = self.home, {}

        def agrees():
            seen.update(agree(home, self.boot))
            return set(seen["differs"].values()) <= seen["why"].keys()

        try:
            home.wait_until("guest = VMI = VM, or it is said why not", agrees)
        except AssertionError as error:
            print(home.symptoms("box"))  # hypothesis runs the sequence again, and may not come here then
            raise AssertionError(f"{error}: {seen}") from None
        if not seen["differs"]:
            assert not [c for c in seen["conditions"] if c == "RestartRequired"], seen


def answered(sent):
    _, complaint = sent.communicate(timeout=60)
    assert sent.returncode == 0, complaint


def agree(home, boot):
    """What differs between VM, VMI and guest, each with the condition that is to explain it; and what those say."""
    asked = home.kubectl_json("get", "vm", "box")["spec"]["template"]["spec"]
    answer = home.hotvirt("guest", "vm/box", "-o", "json", check=False)
    if answer.returncode:  # a new home has yet to greet the agent, or the guest reboots
        return {"differs": {"the guest does not answer": ""}, "why": {}, "bootID": boot["bootID"]}
    vmi, facts = home.vmi("box"), json.loads(answer.stdout)
    status = vmi["status"]
    size = asked["domain"]["memory"]["guest"]
    hot = {v["name"] for v in asked["volumes"] if v.get("persistentVolumeClaim")}
    cable = asked["domain"]["devices"]["interfaces"][0].get("state", "up")
    found = {c["type"]: c for c in status.get("conditions", ())}
    more = facts["memTotalBytes"] - boot["memTotalBytes"] - (int(size.removesuffix("Mi")) - BOOT) * MIB
    memory, cpus, disks = "HotMemoryChange", "HotVCPUChange", "HotVolumeChange"
    views = {
        "VMI's memory": (memory, status["memory"]["guestCurrent"] == size),
        "guest's memory": (memory, abs(more) <= 8 * MIB),
        "VMI's sockets": (cpus, status["currentCPUTopology"]["sockets"] == asked["domain"]["cpu"]["sockets"]),
        "guest's CPUs": (cpus, facts["onlineCPUs"] == asked["domain"]["cpu"]["sockets"]),
        "VMI's volumes": (disks, {v["name"] for v in status["volumeStatus"] if v.get("phase") == "Ready"} == hot),
        "no volume on its way out": (disks, {v["name"] for v in status["volumeStatus"]} == hot | {"scratch"}),
        "guest's disks": (disks, {d["serial"] for d in facts["blockDevices"] if d["serial"]} == hot),
        "VMI's cable": ("HotInterfaceChange", {each["linkState"] for each in status["interfaces"]} == {cable}),
        **{f"no {kind}": (kind, kind not in found) for kind in CHANGES},
    }
    differs = {view: kind for view, (kind, holds) in views.items() if not holds}
    if not differs and carrier(home) != (cable == "up"):
        differs["guest's cable"] = "HotInterfaceChange"
    why = {kind: c["message"] for kind, c in found.items() if kind in CHANGES and c["status"] == "False"}
    return {"differs": differs, "why": why, "conditions": found, "bootID": facts["bootID"]}


def carrier(home):
    """Whether the guest's card has a cable, by its kernel."""
    with home.console("box") as console:
        console.type("\n")
        console.read_until("# ")
        console.type("echo cable $(cat /sys/class/net/eth0/carrier).\n")
        heard = console.read_until("# ")
        while not (found := re.search(r"cable ([01]?)\.", heard)):
            heard += console.read_until("# ")
        return found[1] == "1"


def test_random_edits_end_where_they_should(home):
    home.apply_vm("box", memory=f"{BOOT}Mi", max_memory="1Gi", max_sockets=3)
    for claim in CLAIMS:
        home.apply_claim(claim, "1Mi")
    home.wait_agent("box")

    class OnThisHome(Edits):
        pass

    OnThisHome.home, OnThisHome.boot = home, home.facts("box")
    began = time.monotonic()
    run_state_machine_as_test(
        OnThisHome,
        settings=settings(
            max_examples=SEQUENCES, stateful_step_count=STEPS, deadline=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck), print_blob=False,
        ),
    )  # fmt: skip
    print(f"{SEQUENCES} sequences took {time.monotonic() - began:.0f} s")

    # Ten edits in a second, and the guest's own reboot: the last one holds, with no error.
    home.hotvirt("soft-reboot", "box")
    for _ in range(5):
        for size, count in ((640, 3), (576, 2)):
            home.patch_vm("box", memory=f"{size}Mi", sockets=count)

    def rebooted_and_agreed():
        found = agree(home, OnThisHome.boot)
        return found.get("bootID") != OnThisHome.boot["bootID"] and not found["differs"]

    home.wait_until("the guest rebooted and has what was asked", rebooted_and_agreed)
