"""What the kinds beside machines may say, by table: `cases/*.yaml`, each object let in, or refused with exactly the
fields named. With the cases of machines (`tests/api_model`) there is one for each rule.

Each entry: `patch`, a merge patch of the smallest object of its `kind`; `refused`, path -> cause (`I R S D` are
FieldValueInvalid, Required, NotSupported and Duplicate); `denied`, part of a refusal that is about no field; `says`,
part of the first fault's sentence; `warns`, part of the warning.
"""

from pathlib import Path

import pytest
import yaml

from hotvirt.api import crds
from hotvirt.kube.admission import AdmissionRequest, User
from hotvirt.kube.resources import Resource
from hotvirt.server.patches.merge import merge_patch
from hotvirt.server.schema import compile_schema
from hotvirt.webhooks.admission import admissions

CASES = yaml.load((Path(__file__).parent / "cases" / "kinds.yaml").read_text(), yaml.CSafeLoader)
REASONS = {
    "I": "FieldValueInvalid",
    "R": "FieldValueRequired",
    "S": "FieldValueNotSupported",
    "D": "FieldValueDuplicate",
}
GUEST = {"domain": {"memory": {"guest": "1Gi"}, "devices": {}}}
LABELLED = {"metadata": {"labels": {"app": "web"}}}
SELECTOR = {"matchLabels": {"app": "web"}}
SIZE = {"cpu": {"guest": 2}, "memory": {"guest": "2Gi"}}
SPECS = {
    "KubeVirt": {"configuration": {}},
    "VirtualMachineInstanceReplicaSet": {"selector": SELECTOR, "template": {**LABELLED, "spec": GUEST}},
    "VirtualMachinePool": {
        "selector": SELECTOR,
        "virtualMachineTemplate": {**LABELLED, "spec": {"runStrategy": "Always", "template": {"spec": GUEST}}},
    },
    "VirtualMachineInstancetype": SIZE,
    "VirtualMachineClusterInstancetype": SIZE,
    "VirtualMachinePreference": {},
    "VirtualMachineClusterPreference": {},
    "VirtualMachineInstanceMigration": {"vmiName": "web"},
    "MigrationPolicy": {"selectors": {}},
}
ADMIN = User("admin", ("system:masters", "system:authenticated"))
DEFINITIONS = {each["spec"]["names"]["kind"]: each for each in crds.crds()}


def request_of(case):
    definition = DEFINITIONS[case["kind"]]["spec"]
    version = next(each for each in definition["versions"] if each["storage"])
    namespaced = definition["scope"] == "Namespaced"
    resource = Resource(
        definition["group"], version["name"], definition["names"]["plural"], case["kind"], namespaced=namespaced
    )
    obj = {
        "apiVersion": f"{definition['group']}/{version['name']}", "kind": case["kind"],
        "metadata": {"name": "web", "namespace": "shop"}, "spec": SPECS[case["kind"]],
    }  # fmt: skip
    obj = merge_patch(obj, case["patch"])
    return version, AdmissionRequest("CREATE", resource, "", "shop", obj["metadata"]["name"], ADMIN, obj, None)


@pytest.mark.parametrize("case", CASES, ids=[f"{case['kind']}: {case['is']}" for case in CASES])
async def test_an_object(case):
    version, request = request_of(case)
    plugin = next(each for each in admissions(lambda: None) if request.resource in each.resources)
    verdict = await plugin.validate(request)
    assert {cause.field: cause.reason for cause in verdict.causes} == {
        path: REASONS[letter] for path, letter in case.get("refused", {}).items()
    }
    assert len(verdict.causes) == len(case.get("refused", {})), "a fault is said once"
    assert case.get("says", "") in (verdict.causes[0].message if verdict.causes else "")
    assert case.get("denied", "") in verdict.denied
    assert bool(verdict.denied) == ("denied" in case)
    assert case.get("warns", "") in "".join(verdict.warnings)
    assert bool(verdict.warnings) == ("warns" in case)
    if not verdict.causes:
        schema = compile_schema(version["schema"]["openAPIV3Schema"])
        assert not schema.validate(request.obj)


def test_there_are_enough():
    machines = Path(__file__).parents[1] / "api_model" / "cases"
    count = len(CASES) + sum(len(yaml.load(f.read_text(), yaml.CSafeLoader)) for f in machines.glob("*.yaml"))
    assert count >= 400
