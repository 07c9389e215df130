"""Who asks for a guest to be moved is told what stands in the way, and policies must make sense."""

import pytest

from hotvirt.kube.admission import AdmissionRequest, User, Verdict
from hotvirt.kube.resources import MIGRATION_POLICIES, MIGRATIONS, VMIS
from hotvirt.webhooks.migrations import MigrationPolicies, Migrations

ADMIN = User("admin", ("system:masters",))


def guest(phase="Running", **condition):
    conditions = [{"type": "LiveMigratable", **condition}] if condition else []
    return {"metadata": {"name": "web", "namespace": "shop"}, "status": {"phase": phase, "conditions": conditions}}


ONE_NODE = {"status": "False", "reason": "OneNode", "message": "there is one node"}


async def judged(spec, vmi=None, old=None, subresource=""):
    def read(resource, name, namespace):
        return vmi if (resource, name, namespace) == (VMIS, "web", "shop") else None

    obj = {"metadata": {"name": "move", "namespace": "shop"}, "spec": spec}
    old = {**obj, "spec": old} if old is not None else None
    request = AdmissionRequest(
        "UPDATE" if old else "CREATE", MIGRATIONS, subresource, "shop", "move", ADMIN, obj, old
    )  # fmt: skip
    plugin = Migrations(read)
    assert plugin.mutate(request) is None
    return await plugin.validate(request)


@pytest.mark.parametrize(
    ("vmi", "words"),
    [
        (None, 'the VMI "web" does not exist: name one that runs (kubectl get vmi)'),
        (guest("Succeeded"), 'Cannot migrate VMI in finalized state: "web" has ended'),
        (guest(), "Cannot migrate VMI, Reason: NotReady, Message: it is not known yet whether it can"),
        (guest(**ONE_NODE), "Cannot migrate VMI, Reason: OneNode, Message: there is one node"),
        (guest(status="True"), ""),
    ],
)
async def test_a_guest_that_cannot_move_is_not_asked_to(vmi, words):
    assert await judged({"vmiName": "web"}, vmi) == Verdict(denied=words)


@pytest.mark.parametrize(
    ("spec", "old", "field"),
    [
        ({}, None, "spec.vmiName"),
        ({"vmiName": ""}, None, "spec.vmiName"),
        ({"vmiName": "web", "priority": "system-critical"}, None, "spec.priority"),
        ({"vmiName": "web"}, {"vmiName": "other"}, "spec"),
    ],
)
async def test_what_is_wrong_with_a_migration_is_named(spec, old, field):
    assert [cause.field for cause in (await judged(spec, guest(status="True"), old)).causes] == [field]


async def test_a_migrations_status_is_its_controllers():
    assert await judged({"vmiName": "web"}, None, {"vmiName": "x"}, subresource="status") == Verdict()


@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        ({"selectors": {}, "completionTimeoutPerGiB": 0, "bandwidthPerMigration": "64Mi", "maxDowntimeMs": 300}, []),
        ({"selectors": {}, "completionTimeoutPerGiB": -1, "bandwidthPerMigration": "-1", "maxDowntimeMs": -3},
         ["spec.completionTimeoutPerGiB", "spec.maxDowntimeMs", "spec.bandwidthPerMigration"]),
        ({"selectors": {}, "bandwidthPerMigration": "fast"}, ["spec.bandwidthPerMigration"]),
    ],
)  # fmt: skip
async def test_policies(spec, fields):
    obj = {"metadata": {"name": "gentle"}, "spec": spec}
    request = AdmissionRequest("CREATE", MIGRATION_POLICIES, "", "", "gentle", ADMIN, obj, None)
    assert [cause.field for cause in (await MigrationPolicies().validate(request)).causes] == fields
