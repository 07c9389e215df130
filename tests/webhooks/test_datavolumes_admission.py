"""Data volumes at the door: their spec is fixed, copies of others' claims need leave, templates belong to volumes."""

import pytest

from hotvirt.kube.admission import AdmissionRequest, User
from hotvirt.kube.resources import ACCESS_REVIEWS, CLAIMS, DATA_VOLUMES, POOLS, VMS, VOLUMES
from hotvirt.webhooks import callers, datavolumes

ME = User("me", ("team",))
OURS = User("controller", (callers.OUR_GROUP,))
COPY = {"source": {"pvc": {"namespace": "images", "name": "golden"}}, "storage": {}}
BLANK = {"source": {"blank": {}}, "storage": {"resources": {"requests": {"storage": "1Gi"}}}}


class Asked:
    """A client that answers reviews."""

    def __init__(self, allowed):
        self.allowed, self.reviews = allowed, []

    async def create(self, resource, obj, namespace=None):
        assert resource == ACCESS_REVIEWS
        self.reviews.append(obj["spec"])
        return {"status": {"allowed": self.allowed}}


def request(resource, obj, old=None, *, user=ME, operation=None):
    return AdmissionRequest(
        operation=operation or ("UPDATE" if old else "CREATE"), resource=resource, subresource="", namespace="mine",
        name=obj["metadata"]["name"], user=user, obj=obj, old=old,
    )  # fmt: skip


def volume(spec):
    return {"kind": "DataVolume", "metadata": {"name": "root", "namespace": "mine"}, "spec": spec}


def machine(*templates, volumes=("root",), kind="VirtualMachine"):
    named = [{"name": name, "dataVolume": {"name": name}} for name in volumes]
    spec = {
        "runStrategy": "Halted", "template": {"spec": {"domain": {}, "volumes": named}},
        "dataVolumeTemplates": list(templates),
    }  # fmt: skip
    if kind == POOLS.kind:
        spec = {"virtualMachineTemplate": {"spec": spec}}
    return {"kind": kind, "metadata": {"name": "web", "namespace": "mine"}, "spec": spec}


def template(spec, name="root", **metadata):
    return {"metadata": {"name": name, **metadata}, "spec": spec}


async def judged(plugin, *args, allowed=False, **settings):
    client = Asked(allowed)
    return await plugin(lambda: client).validate(request(*args, **settings)), client


async def test_a_copy_from_another_namespace_needs_leave_there():
    verdict, client = await judged(datavolumes.DataVolumes, DATA_VOLUMES, volume(COPY))
    assert "insufficient permissions in clone source namespace images" in verdict.denied
    (asked,) = client.reviews
    assert (asked["user"], asked["groups"]) == ("me", ["team"])
    assert asked["resourceAttributes"] == {
        "verb": "create", "group": "cdi.kubevirt.io", "resource": "datavolumes", "subresource": "source",
        "namespace": "images",
    }  # fmt: skip
    verdict, _ = await judged(datavolumes.DataVolumes, DATA_VOLUMES, volume(COPY), allowed=True)
    assert not verdict.denied
    verdict, client = await judged(datavolumes.DataVolumes, DATA_VOLUMES, volume(COPY), user=OURS)
    assert not verdict.denied, "whoever made the machine was asked"
    assert not client.reviews
    verdict, client = await judged(datavolumes.DataVolumes, DATA_VOLUMES, volume(BLANK))
    assert not verdict.denied
    assert not client.reviews


async def test_its_spec_is_fixed():
    verdict, _ = await judged(datavolumes.DataVolumes, DATA_VOLUMES, volume(COPY), volume(BLANK))
    assert "Cannot update DataVolume Spec" in verdict.denied
    verdict, _ = await judged(datavolumes.DataVolumes, DATA_VOLUMES, volume(BLANK), volume(BLANK))
    assert not verdict.denied


async def test_faults_have_their_fields():
    verdict, _ = await judged(datavolumes.DataVolumes, DATA_VOLUMES, volume({"source": {"vddk": {}}, "storage": {}}))
    assert {cause.field for cause in verdict.causes} == {
        "spec.source.vddk", "spec.storage.resources.requests.storage"
    }  # fmt: skip


TEMPLATES = {
    "of a volume": (machine(template(BLANK)), set()),
    "of no volume": (machine(template(BLANK), volumes=()), {"spec.dataVolumeTemplates[0]"}),
    "without a name": (machine(template(BLANK, "")), {"spec.dataVolumeTemplates[0].metadata.name"}),
    "twice": (machine(template(BLANK), template(BLANK)), {"spec.dataVolumeTemplates[1].metadata.name"}),
    "of elsewhere": (
        machine(template(BLANK, namespace="other")), {"spec.dataVolumeTemplates[0].metadata.namespace"},
    ),
    "with a fault": (
        machine(template({"source": {"blank": {}}, "storage": {}})),
        {"spec.dataVolumeTemplates[0].spec.storage.resources.requests.storage"},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("obj", "fields"), TEMPLATES.values(), ids=TEMPLATES)
async def test_templates(obj, fields):
    verdict, _ = await judged(datavolumes.Templates, VMS, obj)
    assert {cause.field for cause in verdict.causes} == fields


@pytest.mark.parametrize(("resource", "kind"), [(VMS, "VirtualMachine"), (POOLS, "VirtualMachinePool")])
async def test_a_machine_is_no_way_around_the_leave(resource, kind):
    verdict, client = await judged(datavolumes.Templates, resource, machine(template(COPY), kind=kind))
    assert "insufficient permissions in clone source namespace images" in verdict.denied
    assert client.reviews[0]["user"] == "me"
    same = machine(template(COPY), kind=kind)
    verdict, client = await judged(datavolumes.Templates, resource, same, same)
    assert not verdict.denied, "what did not change was judged before"
    assert not client.reviews


@pytest.mark.parametrize(
    ("resource", "finalizer"),
    [(CLAIMS, "kubernetes.io/pvc-protection"), (VOLUMES, "kubernetes.io/pv-protection")],
)
def test_what_is_in_use_is_protected_from_the_first(resource, finalizer):
    obj = {"kind": resource.kind, "metadata": {"name": "x", "finalizers": ["mine"]}}
    made = datavolumes.Protection().mutate(request(resource, obj))
    assert made["metadata"]["finalizers"] == ["mine", finalizer]
    assert datavolumes.Protection().mutate(request(resource, made)) is None
    assert datavolumes.Protection().mutate(request(resource, obj, obj)) is None
