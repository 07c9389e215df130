"""What a pool decides: how many, which ones, in what order."""

from datetime import UTC, datetime

import pytest

from hotvirt.controllers import pool_objects, pool_plan
from hotvirt.controllers.pool_plan import Seen

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def make_pool(count=2, **spec):
    return {
        "metadata": {"name": "web", "namespace": "default", "uid": "p", "generation": 2},
        "spec": {"replicas": count, "virtualMachineTemplate": {"spec": {"template": {"spec": {}}}}, **spec},
    }


def vm(at, *, created="2026-01-01T00:00:00Z", labels=None, nodes=None, status=None, leaving=False, **metadata):
    if leaving:
        metadata |= {"deletionTimestamp": "now", "finalizers": [pool_objects.FINALIZER]}
    return {
        "metadata": {"name": f"web-{at}", "uid": f"u{at}", "creationTimestamp": created, "generation": 1,
                     "labels": {pool_objects.REVISION: "web-2", **(labels or {})}, **metadata},
        "spec": {"runStrategy": "Always", "template": {"spec": {"nodeSelector": nodes or {}}}},
        "status": {"desiredGeneration": 1, "observedGeneration": 1, **(status or {})},
    }  # fmt: skip


def vmi(at, *, ready=True, revision="web-1", **metadata):
    return {
        "metadata": {"name": f"web-{at}", "labels": {pool_objects.REVISION: revision}, **metadata},
        "status": {"conditions": [{"type": "Ready", "status": str(ready)}]},
    }


def chosen(policy, *vms):
    return [each["metadata"]["name"] for each in pool_plan.selected(list(vms), policy)]


THREE = (vm(1, created="2026-01-02T00:00:00Z"), vm(10, created="2026-01-01T00:00:00Z"),
         vm(2, created="2026-01-03T00:00:00Z"))  # fmt: skip
ORDERS = {
    "AscendingOrder": ["web-1", "web-2", "web-10"],
    "DescendingOrder": ["web-10", "web-2", "web-1"],
    "Newest": ["web-2", "web-1", "web-10"],
    "Oldest": ["web-10", "web-1", "web-2"],
}


@pytest.mark.parametrize(("policy", "expected"), ORDERS.items(), ids=ORDERS)
def test_orders(policy, expected):
    assert chosen({"sortPolicy": policy}, *THREE) == expected


def test_chance_picks_the_same_ones_again():
    assert chosen({}, *THREE) == chosen({"sortPolicy": "Random"}, *reversed(THREE))


def test_only_those_that_match_both_selectors():
    selectors = {
        "labelSelector": {"matchLabels": {"tier": "test"}},
        "nodeSelectorRequirementMatcher": [{"key": "disk", "operator": "In", "values": ["slow"]}],
    }
    vms = (vm(0, labels={"tier": "test"}, nodes={"disk": "slow"}), vm(1, labels={"tier": "test"}),
           vm(2, nodes={"disk": "slow"}))  # fmt: skip
    assert chosen({"selectors": selectors}, *vms) == ["web-0"]


def scaled(pool, *vms):
    found = pool_plan.scale(Seen(pool, vms), NOW)
    return found.create, [each["metadata"]["name"] for each in found.delete], found.wait


def failing(at, seconds):
    since = datetime.fromtimestamp(NOW.timestamp() - seconds, UTC).isoformat()
    ready = {"type": "Ready", "status": "False", "lastTransitionTime": since}
    return vm(at, status={"printableStatus": "ErrorUnschedulable", "conditions": [ready]})


ASCENDING = {"proactive": {"selectionPolicy": {"sortPolicy": "AscendingOrder"}}}
SCALES = {
    "out": (make_pool(3), [vm(0)], (2, [], None)),
    "out, not before one has left": (make_pool(2), [vm(0), vm(1, leaving=True)], (0, [], None)),
    "in": (make_pool(1, scaleInStrategy=ASCENDING), [vm(0), vm(1)], (0, ["web-0"], None)),
    "in, some are leaving": (make_pool(1, scaleInStrategy=ASCENDING), [vm(0), vm(1, leaving=True)], (0, [], None)),
    "in, by others": (make_pool(0, scaleInStrategy={"opportunistic": {}}), [vm(0)], (0, [], None)),
    "not replicas said is one": (make_pool(None), [], (1, [], None)),
    "failing for long": (make_pool(1, autohealing={}), [failing(0, 300)], (0, ["web-0"], None)),
    "failing for a while": (make_pool(1, autohealing={}), [failing(0, 200)], (0, [], 100.0)),
    "failing for longer than said": (
        make_pool(1, autohealing={"minFailingToStartDuration": "1m30s"}), [failing(0, 100)], (0, ["web-0"], None)),
    "failing, and nobody minds": (make_pool(1), [failing(0, 300)], (0, [], None)),
    "failed to start three times": (
        make_pool(1, autohealing={}), [vm(0, status={"startFailure": {"consecutiveFailCount": 3}})],
        (0, ["web-0"], None)),
}  # fmt: skip


@pytest.mark.parametrize(("pool", "vms", "expected"), SCALES.values(), ids=SCALES)
def test_scale(pool, vms, expected):
    assert scaled(pool, *vms) == expected


def updated(pool, vms, vmis, **revisions):
    known = {"web-1": {"virtualMachineTemplate": {}}, "web-2": pool["spec"], **revisions}
    found = pool_plan.update(Seen(pool, tuple(vms), {each["metadata"]["name"]: each for each in vmis}, known))
    return (
        [each["metadata"]["name"] for each in found.write],
        [each["metadata"]["name"] for each, _ in found.restart],
        [each["metadata"]["name"] for each, _ in found.relabel],
        [each["metadata"]["name"] for each in found.replace],
    )


STUCK = {"observedGeneration": 0, "conditions": [{"type": "RestartRequired", "status": "True"}]}
UNSEEN = {**STUCK, "desiredGeneration": 0}
ONE = {"maxUnavailable": 1, "updateStrategy": ASCENDING}
UPDATES = {
    "a machine that is behind is written": (make_pool(), [vm(0, labels={pool_objects.REVISION: "web-1"})], [vmi(0)],
                                            (["web-0"], [], [], [])),
    "one without a label too": (make_pool(), [vm(0, labels={pool_objects.REVISION: ""})], [], (["web-0"], [], [], [])),
    "not when updates are unmanaged": (
        make_pool(updateStrategy={"unmanaged": {}}), [vm(0, labels={pool_objects.REVISION: "web-1"})], [vmi(0)],
        ([], [], [], [])),
    "a guest that has it all is labelled": (make_pool(), [vm(0)], [vmi(0)], ([], [], ["web-0"], [])),
    "a guest of this revision is done": (make_pool(), [vm(0)], [vmi(0, revision="web-2")], ([], [], [], [])),
    "one that needs it is restarted": (make_pool(), [vm(0, status=STUCK)], [vmi(0)], ([], ["web-0"], [], [])),
    "not before it was looked at": (make_pool(), [vm(0, status=UNSEEN)], [vmi(0)], ([], [], [], [])),
    "not while it follows": (make_pool(), [vm(0, status={"observedGeneration": 0})], [vmi(0)], ([], [], [], [])),
    "not when it is opportunistic": (
        make_pool(updateStrategy={"opportunistic": {}}), [vm(0, status=STUCK)], [vmi(0)], ([], [], [], [])),
    "one at a time": (make_pool(**ONE), [vm(0, status=STUCK), vm(1, status=STUCK)], [vmi(0), vmi(1)],
                      ([], ["web-0"], [], [])),
    "none while one is away": (
        make_pool(**ONE), [vm(0, status=STUCK), vm(1)], [vmi(0), vmi(1, deletionTimestamp="now")], ([], [], [], [])),
    "none while one is missing": (make_pool(**ONE), [vm(0, status=STUCK), vm(1)], [vmi(0)], ([], [], [], [])),
    "a broken one has nothing to lose": (
        make_pool(**ONE), [vm(0, status=STUCK), vm(1, status=STUCK)], [vmi(0), vmi(1, ready=False)],
        ([], ["web-1"], [], [])),
}  # fmt: skip


@pytest.mark.parametrize(("pool", "vms", "vmis", "expected"), UPDATES.values(), ids=UPDATES)
def test_update(pool, vms, vmis, expected):
    assert updated(pool, vms, vmis) == expected


def test_other_disks_need_another_machine():
    pool = make_pool(virtualMachineTemplate={"spec": {"dataVolumeTemplates": [{"metadata": {"name": "b"}}]}})
    found = updated(pool, [vm(0, status=STUCK)], [vmi(0)], **{"web-1": {"virtualMachineTemplate": {"spec": {}}}})
    assert found == ([], [], [], ["web-0"])


LIMITS = {"not said": (None, 10), "a number": (3, 3), "percent": ("25%", 2), "at least one": ("1%", 1)}


@pytest.mark.parametrize(("said", "expected"), LIMITS.values(), ids=LIMITS)
def test_max_unavailable(said, expected):
    assert pool_plan.max_unavailable(make_pool(10, maxUnavailable=said)) == expected


def test_free_numbers():
    assert pool_plan.free_numbers("web", {"web-1", "web-x", "db-0"}, 3) == [0, 2, 3]


def test_what_is_a_machines_own_has_its_number():
    volumes = [
        {"name": "root", "dataVolume": {"name": "root"}},
        {"name": "same", "persistentVolumeClaim": {"claimName": "root"}},
        {"name": "shared", "persistentVolumeClaim": {"claimName": "library"}},
        {"name": "config", "configMap": {"name": "config"}},
        {"name": "key", "secret": {"secretName": "key"}},
        {"name": "init", "cloudInitNoCloud": {"secretRef": {"name": "init"}, "networkDataSecretRef": {"name": "net"}}},
    ]
    spec = {"dataVolumeTemplates": [{"metadata": {"name": "root"}}], "template": {"spec": {"volumes": volumes}}}
    pool = make_pool(virtualMachineTemplate={"spec": spec},
                     nameGeneration={"appendIndexToConfigMapRefs": True, "appendIndexToSecretRefs": True})  # fmt: skip
    made = pool_objects.render(pool, 3, "web-2")["spec"]
    assert made["dataVolumeTemplates"][0]["metadata"]["name"] == "root-3"
    assert made["template"]["metadata"]["labels"] == {pool_objects.REVISION: "web-2"}
    assert made["template"]["spec"]["volumes"] == [
        {"name": "root", "dataVolume": {"name": "root-3"}},
        {"name": "same", "persistentVolumeClaim": {"claimName": "root-3"}},
        {"name": "shared", "persistentVolumeClaim": {"claimName": "library"}},
        {"name": "config", "configMap": {"name": "config-3"}},
        {"name": "key", "secret": {"secretName": "key-3"}},
        {"name": "init", "cloudInitNoCloud": {
            "secretRef": {"name": "init-3"}, "networkDataSecretRef": {"name": "net-3"}}},
    ]  # fmt: skip
    del pool["spec"]["nameGeneration"]
    made = pool_objects.render(pool, 3, "web-2")["spec"]["template"]["spec"]["volumes"]
    assert (made[3]["configMap"]["name"], made[4]["secret"]["secretName"]) == ("config", "key")
    assert spec["dataVolumeTemplates"][0]["metadata"]["name"] == "root", "the pool's own stay"


def test_a_machine_keeps_who_it_is_when_it_is_rewritten():
    machine = vm(0, labels={"owner": "me", "old": "x"})
    machine["spec"]["template"]["spec"] = {"domain": {"firmware": {"uuid": "u", "serial": "s"}, "cpu": {"cores": 2}}}
    new = {"metadata": {"labels": {"app": "web"}}, "spec": {"runStrategy": "Always", "template": {"spec": {
        "domain": {"cpu": {"cores": 4}}}}}}  # fmt: skip
    patch = pool_objects.rewritten(make_pool(virtualMachineTemplate=new), machine, "web-3",
                                old={"metadata": {"labels": {"old": "x"}}})  # fmt: skip
    assert patch == {
        "metadata": {"labels": {"old": None, "app": "web", pool_objects.REVISION: "web-3"}, "annotations": {}},
        "spec": {"template": {"metadata": {"labels": {pool_objects.REVISION: "web-3"}},
                              "spec": {"domain": {"cpu": {"cores": 4}}}}},
    }  # fmt: skip
