"""What a machine may say, by table: `cases/*.yaml`, each object accepted, or refused with exactly the fields named.

An instance's cases are tried as an instance and as a VM's template. What is accepted must be a document that the API
server's schema takes, and must still be accepted after defaults were filled in.
"""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hotvirt.api import crds, defaults, schemas, validation
from hotvirt.server.patches.merge import merge_patch
from hotvirt.server.schema import compile_schema

DIRECTORY = Path(__file__).parent / "cases"
REASONS = {
    "I": "FieldValueInvalid",
    "R": "FieldValueRequired",
    "S": "FieldValueNotSupported",
    "D": "FieldValueDuplicate",
}
SPEC = {"domain": {"memory": {"guest": "1Gi"}, "devices": {}}}
VM = {
    "apiVersion": "kubevirt.io/v1",
    "kind": "VirtualMachine",
    "metadata": {"name": "web"},
    "spec": {"runStrategy": "Always", "template": {"spec": SPEC}},
}


def load():
    for file in sorted(DIRECTORY.glob("*.yaml")):
        for case in yaml.load(file.read_text(), yaml.CSafeLoader):
            yield pytest.param(case, id=f"{file.stem}: {case['is']}")


CASES = list(load())


@pytest.fixture(scope="module")
def schema():
    return compile_schema(crds.crds()[0]["spec"]["versions"][0]["schema"]["openAPIV3Schema"])


def found(faults):
    return {fault.field: fault.reason for fault in faults}


def expected(case, prefix):
    return {f"{prefix}{path}": REASONS[letter] for path, letter in case.get("refused", {}).items()}


def vm_of(case):
    if "vm" in case:
        return merge_patch(VM, case["vm"])
    return {**VM, "spec": {**VM["spec"], "template": {"spec": merge_patch(SPEC, case["spec"])}}}


@pytest.mark.parametrize("case", CASES)
def test_a_machine(case, schema):
    """One test a case, as there are hundreds: as a VM's template, as an instance, and if accepted with its defaults."""
    checked = validation.virtual_machine(vm_of(case))
    assert found(checked.faults) == expected(case, "spec.template.spec." if "spec" in case else "")
    assert len(checked.faults) == len(case.get("refused", {})), "a fault is said once"
    assert case.get("says", "") in (checked.faults[0].message if checked.faults else "")
    assert case.get("warns", "") in "".join(checked.warnings)
    assert bool(checked.warnings) == ("warns" in case)
    assert all("\n" not in fault.message and 5 < len(fault.message) < 300 for fault in checked.faults)
    if "spec" in case:
        vmi = {"metadata": {"name": "web", "namespace": "default"}, "spec": merge_patch(SPEC, case["spec"])}
        assert found(validation.instance(vmi)) == expected(case, "spec.")
    if "refused" not in case:
        passes_the_schema_and_survives_defaults(vm_of(case), schema)


def passes_the_schema_and_survives_defaults(vm, schema):
    pruned, unknown = schema.prune(vm)
    assert unknown == ()
    assert schema.validate(pruned) == []
    vmi = {"metadata": {"name": "web", "namespace": "default"}, "spec": vm["spec"]["template"]["spec"]}
    filled = defaults.instance(vmi, defaults.ClusterSettings())
    assert validation.instance(filled) == []
    assert schemas.fits(filled["spec"], "VirtualMachineInstanceSpec")


def test_cases_are_many_and_distinct():
    names = [param.id for param in CASES]
    assert len(set(names)) == len(names)
    assert len(names) > 190


def test_inline_data_has_kubevirts_limit():
    for field, text in (("userData", "x" * 2049), ("userData", "ü" * 1025), ("userDataBase64", "eHh4" * 683)):
        volume = {"name": "a", "cloudInitNoCloud": {field: text}}
        faults = validation.instance_spec({**SPEC, "volumes": [volume]}, "spec")
        assert found(faults) == {f"spec.volumes[0].cloudInitNoCloud.{field}": "FieldValueInvalid"}
        assert "secretRef" in faults[0].message
        assert text[:20] not in faults[0].message, "secrets stay out of messages"
    fits = {"name": "a", "cloudInitNoCloud": {"userData": "x" * 2048}}
    assert validation.instance_spec({**SPEC, "volumes": [fits]}, "spec") == []


@pytest.mark.parametrize("length", [256, 257])
def test_serial_numbers_have_a_limit(length):
    spec = {"domain": {**SPEC["domain"], "devices": {"disks": [{"name": "a", "cdrom": {}, "serial": "x" * length}]}}}
    assert len(validation.instance_spec(spec, "spec")) == length - 256


# Any document at all.

_json = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**12) | st.sampled_from(["", "a", "1Gi", "scsi", "q35"]),
    lambda inner: st.lists(inner, max_size=2)
    | st.dictionaries(
        st.sampled_from(
            ["domain", "volumes", "networks", "name", "devices", "disks", "disk", "bus", "cpu", "sockets", "memory",
             "guest", "interfaces", "masquerade", "emptyDisk", "capacity", "firmware", "kernelBoot", "container",
             "resources", "requests", "ports", "port", "cloudInitNoCloud", "secretRef", "features", "machine"]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(_json)
def test_nothing_makes_validation_stumble(spec):
    for fault in validation.instance_spec(spec, "spec") if isinstance(spec, dict) else ():
        assert fault.field.startswith("spec.")
    checked = validation.virtual_machine({"spec": {"runStrategy": "Always", "template": {"spec": spec}}})
    assert isinstance(checked.faults, tuple)
