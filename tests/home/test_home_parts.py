"""What every home starts with, and how its parts are kept running."""

import asyncio
import logging

import pytest

from hotvirt.home import bootstrap, roles, supervise
from hotvirt.kube.errors import AlreadyExists, NotFound
from hotvirt.kube.resources import CONFIG_MAPS


class Store:
    """A Client that remembers what was made and patched."""

    def __init__(self):
        self.objects, self.patched = {}, []

    async def create(self, resource, obj, namespace=None):
        key = (resource.plural, obj["metadata"]["name"])
        if key in self.objects:
            raise AlreadyExists(str(key))
        self.objects[key] = {**obj, "metadata": {**obj["metadata"], "generation": 1}}

    async def get(self, resource, name, namespace=None):
        if (resource.plural, name) not in self.objects:
            raise NotFound(name)
        return self.objects[resource.plural, name]

    async def patch(self, resource, name, patch, namespace=None, *, subresource=""):
        self.patched.append((resource.plural, name, subresource))
        if subresource or resource is CONFIG_MAPS:
            self.objects[resource.plural, name].update(patch)


async def test_first_start_makes_everything_and_the_second_leaves_a_persons_changes():
    store = Store()
    await bootstrap.ensure(store, version="v1", speaks="v1.9.0")
    status = store.objects["kubevirts", "kubevirt"]["status"]
    assert status["phase"] == "Deployed"
    # Scripts fetch the virtctl of this version.
    assert (status["operatorVersion"], status["observedKubeVirtVersion"]) == ("v1", "v1.9.0")
    assert ("storageclasses", "hotvirt-directory") in store.objects
    assert store.patched == [
        ("cdis", "cdi", "status"), ("cdiconfigs", "config", "status"), ("kubevirts", "kubevirt", "status")
    ]  # fmt: skip
    store.patched.clear()
    await bootstrap.ensure(store, version="v1", speaks="v1.9.0")
    assert {plural for plural, _, _ in store.patched} == {"clusterroles", "clusterrolebindings"}


async def test_an_instancetype_that_a_person_changed_or_deleted_stays_so_and_what_is_new_is_given():
    store = Store()
    await bootstrap.ensure(store, version="v1")
    small = ("virtualmachineclusterinstancetypes", "u1.small")
    fedora, mine = ("virtualmachineclusterpreferences", "fedora"), {"metadata": {"name": "fedora"}, "spec": {}}
    del store.objects[small]
    store.objects[fedora] = mine
    note = store.objects["configmaps", bootstrap.GIVEN]
    await bootstrap.ensure(store, version="v1")
    assert small not in store.objects
    assert store.objects[fedora] is mine
    # The version that this home was made by did not know these.
    for kind, name in (small, fedora):
        note["data"][kind] = note["data"][kind].replace(name, "").replace("  ", " ")
    await bootstrap.ensure(store, version="v2")
    assert store.objects[small]["spec"] == {"cpu": {"guest": 1}, "memory": {"guest": "2Gi"}}
    assert store.objects[fedora] is mine, "a person's own of that name"
    store.patched.clear()
    await bootstrap.ensure(store, version="v2")
    assert not [each for each in store.patched if each[0] == "configmaps"]


DEFAULT = {"storageclass.kubernetes.io/is-default-class": "true"}


async def test_claims_wait_for_their_first_consumer_by_default_unless_an_older_home_had_another_default():
    store = Store()
    await bootstrap.ensure(store, version="v1")
    classes = {name: obj for (plural, name), obj in store.objects.items() if plural == "storageclasses"}
    assert {name: obj["volumeBindingMode"] for name, obj in classes.items()} == {
        "hotvirt-directory": "Immediate", "hotvirt-directory-wait": "WaitForFirstConsumer",
    }  # fmt: skip
    assert classes["hotvirt-directory-wait"]["metadata"]["annotations"] == DEFAULT
    assert "annotations" not in classes["hotvirt-directory"]["metadata"]
    older = Store()
    older.objects["storageclasses", "hotvirt-directory"] = {"metadata": {"annotations": DEFAULT}}
    await bootstrap.ensure(older, version="v1")
    assert "annotations" not in older.objects["storageclasses", "hotvirt-directory-wait"]["metadata"]


def test_a_viewer_gets_no_console_and_no_verb():
    rules = {role["metadata"]["name"]: role["rules"] for role in roles.roles()}
    view = [f"{r}:{v}" for rule in rules["kubevirt.io:view"] for r in rule["resources"] for v in rule["verbs"]]
    assert "virtualmachines:list" in view
    view.remove("expand-vm-spec:update")  # which writes nothing
    assert not [each for each in view if "console" in each or "vnc" in each or each.endswith((":update", ":delete"))]
    edit = [f"{r}:{v}" for rule in rules["kubevirt.io:edit"] for r in rule["resources"] for v in rule["verbs"]]
    assert "virtualmachineinstances/console:get" in edit
    assert "virtualmachines/start:update" in edit
    assert "virtualmachines:deletecollection" not in edit


@pytest.mark.looptime
async def test_a_failing_part_is_started_again_ever_later(caplog):
    began = []
    loop = asyncio.get_running_loop()

    async def run():
        began.append(round(loop.time()))
        raise ValueError("same again")

    caplog.set_level(logging.INFO)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(70):
            await supervise.keep_running("node", run)
    assert began == [0, 1, 3, 7, 15, 31, 61]
    assert [r.levelname for r in caplog.records if r.exc_info] == ["ERROR"], "the same traceback once"


@pytest.mark.looptime
async def test_a_part_that_ran_well_starts_again_soon(caplog):
    began = []
    loop = asyncio.get_running_loop()

    async def run():
        began.append(round(loop.time()))
        await asyncio.sleep(100)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(310):
            await supervise.keep_running("node", run)
    assert began == [0, 101, 202, 303]
