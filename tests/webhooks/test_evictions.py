"""Who may be evicted, by eviction strategy; what is said otherwise, and what is marked."""

import pytest

from hotvirt.kube.admission import AdmissionRequest, User
from hotvirt.kube.resources import PODS, VMIS
from hotvirt.webhooks.evictions import Evictions

MOVABLE = {"conditions": [{"type": "LiveMigratable", "status": "True"}], "phase": "Running"}
CANNOT = "VMI web is configured with an eviction strategy but is not live-migratable: stop its VM"
TRIGGERED = 'Eviction triggered evacuation of VMI "shop/web"'


class Api:
    """Notes what is written."""

    def __init__(self, vmi):
        self.vmi, self.patches = vmi, []

    def read(self, resource, name, namespace):
        assert (resource, name, namespace) == (VMIS, "web", "shop")
        return self.vmi

    async def patch(self, resource, name, patch, namespace):
        self.patches.append((resource, name, namespace, patch))


def instance(strategy, *, uid="u-1", deletion=None, **status):
    spec = {"evictionStrategy": strategy} if strategy else {}
    metadata = {"name": "web", "namespace": "shop", "uid": uid}
    metadata |= {"deletionTimestamp": deletion} if deletion else {}
    return {"metadata": metadata, "spec": spec, "status": {"phase": "Running", **status}}


def pod(**metadata):
    owner = {"kind": "VirtualMachineInstance", "name": "web", "uid": "u-1", "controller": True}
    labels = {"kubevirt.io": "virt-launcher"}
    meta = {"name": "virt-launcher-web-1", "namespace": "shop", "labels": labels, "ownerReferences": [owner]}
    return {"metadata": meta | metadata, "spec": {"nodeName": "one"}}


async def evict(vmi, launcher=None, *, dry_run=False, subresource="eviction"):
    api, launcher = Api(vmi), launcher or pod()
    eviction = {"metadata": {"name": launcher["metadata"]["name"], "namespace": "shop"}}
    request = AdmissionRequest(
        "CREATE", PODS, subresource, "shop", eviction["metadata"]["name"], User("drainer"), eviction, launcher, dry_run
    )
    verdict = await Evictions(api.read, lambda: api).validate(request)
    assert (verdict.causes, verdict.denied, verdict.warnings) == ((), "", ())
    return verdict.busy, [patch["status"] for _, _, _, patch in api.patches]


MARK = [{"evacuationNodeName": "one"}]


@pytest.mark.parametrize(
    ("strategy", "status", "says", "marked"),
    [
        (None, {}, "", []),
        ("None", {}, "", []),
        ("None", MOVABLE, "", []),
        ("LiveMigrate", {}, CANNOT, []),
        ("LiveMigrate", MOVABLE, TRIGGERED, MARK),
        ("LiveMigrate", {"phase": "Succeeded"}, "", []),
        ("LiveMigrateIfPossible", {}, "", []),
        ("LiveMigrateIfPossible", MOVABLE, TRIGGERED, MARK),
        ("External", {}, TRIGGERED, MARK),
        ("External", {"evacuationNodeName": "one"}, TRIGGERED, []),
        ("External", {"phase": "Failed"}, "", []),
    ],
)
async def test_an_eviction(strategy, status, says, marked):
    said, patches = await evict(instance(strategy, **status))
    assert said.startswith(says)
    assert bool(said) is bool(says)
    assert patches == marked


async def test_a_dry_run_marks_nothing():
    assert await evict(instance("External"), dry_run=True) == (TRIGGERED, [])


async def test_what_goes_anyhow_is_not_held_back():
    assert await evict(instance("LiveMigrate", deletion="now")) == ("", [])
    assert await evict(instance("LiveMigrate"), pod(deletionTimestamp="now")) == ("", [])


async def test_other_pods_and_other_writes_are_nobodys_concern_here():
    assert await evict(instance("LiveMigrate"), pod(labels={})) == ("", [])
    assert await evict(instance("LiveMigrate"), pod(ownerReferences=[])) == ("", [])
    assert await evict(instance("LiveMigrate", uid="u-2")) == ("", []), "an instance of that name made since"
    assert await evict(None) == ("", [])
    assert await evict(instance("LiveMigrate"), subresource="status") == ("", [])
