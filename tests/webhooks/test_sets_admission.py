"""Replica sets and pools at the API's door: each fault with its field."""

import pytest

from hotvirt.kube.admission import AdmissionRequest, User, Verdict
from hotvirt.kube.resources import CLUSTER_INSTANCETYPES, POOLS, REPLICA_SETS
from hotvirt.webhooks.admission import admissions

ADMIN = User("admin", ("system:masters", "system:authenticated"))
LABELS = {"labels": {"app": "web", "tier": "a"}}
DOMAIN = {"memory": {"guest": "1Gi"}, "devices": {}}
SELECTOR = {"matchLabels": {"app": "web"}}


def replica_set(template=None, **spec):
    template = template or {"metadata": LABELS, "spec": {"domain": DOMAIN}}
    return {"metadata": {"name": "web", "namespace": "shop"},
            "spec": {"replicas": 2, "selector": SELECTOR, "template": template, **spec}}  # fmt: skip


def pool(vm=None, *, name="web", labels=LABELS, **spec):
    template = {
        "metadata": labels,
        "spec": {"runStrategy": "Always", "template": {"spec": {"domain": DOMAIN}}, **(vm or {})},
    }
    return {"metadata": {"name": name, "namespace": "shop"},
            "spec": {"selector": SELECTOR, "virtualMachineTemplate": template, **spec}}  # fmt: skip


def read(resource, name, namespace):
    if (resource, name, namespace) == (CLUSTER_INSTANCETYPES, "small", ""):
        return {"spec": {"cpu": {"guest": 1}, "memory": {"guest": "1Gi"}}}
    return None


async def judged(resource, obj, old=None, subresource="") -> Verdict:
    plugin = next(each for each in admissions(lambda: None, read) if resource in each.resources)
    operation = "UPDATE" if old else "CREATE"
    request = AdmissionRequest(operation, resource, subresource, "shop", "web", ADMIN, obj, old)
    assert plugin.mutate(request) is None
    return await plugin.validate(request)


HERE = "spec.virtualMachineTemplate.spec"
BARE = {"runStrategy": "Always", "template": {"spec": {"domain": {"devices": {}}}}}
POLICY = "spec.scaleInStrategy.proactive.selectionPolicy"
CASES = {
    "a set": (REPLICA_SETS, replica_set(), []),
    "by expression": (
        REPLICA_SETS,
        replica_set(selector={"matchExpressions": [
            {"key": "app", "operator": "In", "values": ["web", "x"]}, {"key": "tier", "operator": "Exists"},
            {"key": "old", "operator": "DoesNotExist"}, {"key": "app", "operator": "NotIn", "values": ["y"]}]}), []),
    "a set without guests": (REPLICA_SETS, replica_set({"metadata": LABELS}), ["spec.template.spec"]),
    "a guest's fault": (
        REPLICA_SETS, replica_set({"metadata": LABELS, "spec": {"domain": {"devices": {}}}}),
        ["spec.template.spec.domain.memory.guest"]),
    "labels that do not match": (
        REPLICA_SETS, replica_set({"spec": {"domain": DOMAIN}}), ["spec.selector"]),
    "a selector of everything": (REPLICA_SETS, replica_set(selector={}), ["spec.selector"]),
    "no operator": (
        REPLICA_SETS, replica_set(selector={"matchExpressions": [{"key": "app", "operator": "Is"}]}),
        ["spec.selector.matchExpressions[0].operator"]),
    "what is no label": (
        REPLICA_SETS,
        replica_set(selector={"matchLabels": {"a b": "x", "app": "a b"}, "matchExpressions": [
            {"key": "", "operator": "Exists", "values": ["x"]}, {"key": "app", "operator": "In", "values": ["-"]}]}),
        ["spec.selector.matchLabels", "spec.selector.matchLabels[app]", "spec.selector.matchExpressions[0].key",
         "spec.selector.matchExpressions[0].values", "spec.selector.matchExpressions[1].values[0]"]),
    "fewer than none": (REPLICA_SETS, replica_set(replicas=-1), ["spec.replicas"]),
    "a pool": (POOLS, pool(), []),
    "a pool of an instancetype": (POOLS, pool({**BARE, "instancetype": {"name": "small"}}), []),
    "a conflict with it": (
        POOLS, pool({"instancetype": {"name": "small"}}), [f"{HERE}.template.spec.domain.memory.guest"]),
    "a machine's fault": (POOLS, pool({"runStrategy": "Sometimes"}), [f"{HERE}.runStrategy"]),
    "a name without room for a number": (POOLS, pool(name="x" * 60), ["metadata.name"]),
    "other labels": (POOLS, pool(labels={"labels": {"app": "db"}}), ["spec.selector"]),
    "some": (POOLS, pool(maxUnavailable=1), []),
    "a share": (POOLS, pool(maxUnavailable="50%"), []),
    "none": (POOLS, pool(maxUnavailable=0), ["spec.maxUnavailable"]),
    "a share of none": (POOLS, pool(maxUnavailable="0%"), ["spec.maxUnavailable"]),
    "more than all": (POOLS, pool(maxUnavailable="101%"), ["spec.maxUnavailable"]),
    "text": (POOLS, pool(maxUnavailable="half"), ["spec.maxUnavailable"]),
    "two strategies": (
        POOLS, pool(updateStrategy={"unmanaged": {}, "proactive": {}},
                    scaleInStrategy={"opportunistic": {}, "unmanaged": {}}),
        ["spec.updateStrategy", "spec.scaleInStrategy"]),
    "an unknown order": (
        POOLS, pool(scaleInStrategy={"proactive": {"selectionPolicy": {"sortPolicy": "Largest"}}}),
        [f"{POLICY}.sortPolicy"]),
    "selectors": (
        POOLS, pool(scaleInStrategy={"proactive": {"selectionPolicy": {"selectors": {
            "labelSelector": {},
            "nodeSelectorRequirementMatcher": [{"key": "n", "operator": "Gt", "values": ["x"]}]}}}}),
        [f"{POLICY}.selectors.labelSelector", f"{POLICY}.selectors.nodeSelectorRequirementMatcher[0].values"]),
    "what stays": (
        POOLS, pool(scaleInStrategy={"opportunistic": {"statePreservation": "Some"}}),
        ["spec.scaleInStrategy.opportunistic.statePreservation"]),
    "healing": (
        POOLS, pool(autohealing={"startUpFailureThreshold": 0, "minFailingToStartDuration": "soon"}),
        ["spec.autohealing.startUpFailureThreshold", "spec.autohealing.minFailingToStartDuration"]),
    "healing, well": (POOLS, pool(autohealing={"minFailingToStartDuration": "1h30m"}), []),
    "labels of another shape": (
        POOLS, pool({"template": {"metadata": {"annotations": [1]}, "spec": {"domain": DOMAIN}}},
                    labels={"labels": {"app": "web", "n": 1}}),
        [f"{HERE}.template.metadata.annotations", f"{HERE[:-5]}.metadata.labels"]),
    "a set's labels of another shape": (
        REPLICA_SETS, replica_set({"metadata": {"labels": "x"}, "spec": {"domain": DOMAIN}}),
        ["spec.template.metadata.labels", "spec.selector"]),
    "what the schema refuses": (POOLS, pool(maxUnavailable=[]), []),
}  # fmt: skip


@pytest.mark.parametrize(("resource", "obj", "fields"), CASES.values(), ids=CASES)
async def test_sets(resource, obj, fields):
    assert [cause.field for cause in (await judged(resource, obj)).causes] == fields


async def test_a_pools_selector_stays_and_a_sets_may_change():
    other = {"matchLabels": {"tier": "a"}}
    verdict = await judged(POOLS, pool(selector=other), pool())
    assert [cause.field for cause in verdict.causes] == ["spec.selector"]
    assert await judged(REPLICA_SETS, replica_set(selector=other), replica_set()) == Verdict()


async def test_the_labels_to_set_are_told():
    (cause,) = (await judged(POOLS, pool(labels={}))).causes
    assert cause.message == (
        "does not match the template's labels: set app=web in spec.virtualMachineTemplate.metadata.labels"
    )


async def test_what_did_not_change_is_not_judged_again():
    bad = pool(maxUnavailable=0)
    assert await judged(POOLS, {**bad, "metadata": {**bad["metadata"], "labels": {"a": "b"}}}, bad) == Verdict()
    assert await judged(POOLS, {**bad, "status": {}}, pool(), "status") == Verdict()


async def test_a_label_that_an_older_version_let_in_does_not_lock_a_set():
    labels = {"app": "web", "kubevirt.io/nodeName": "one"}
    stored = replica_set({"metadata": {"labels": labels}, "spec": {"domain": DOMAIN}})
    assert await judged(REPLICA_SETS, {**stored, "spec": {**stored["spec"], "replicas": 3}}, stored) == Verdict()
    inner = {"template": {"metadata": {"labels": labels}, "spec": {"domain": DOMAIN}}}
    assert await judged(POOLS, pool(inner, replicas=3), pool(inner)) == Verdict()
    assert len((await judged(POOLS, pool(inner), pool())).causes) == 1


async def test_memory_is_not_kept_and_that_is_said():
    verdict = await judged(POOLS, pool(scaleInStrategy={"proactive": {"statePreservation": "Online"}}))
    assert (verdict.causes, len(verdict.warnings)) == ((), 1)
