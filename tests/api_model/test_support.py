"""Every field of KubeVirt's specs is accounted for, and nothing that is set is silently ignored."""

import re
from pathlib import Path

import pytest

import hotvirt
from hotvirt.api import crds, explain, fields, schemas, support
from hotvirt.api.support import Support

SOURCE = Path(hotvirt.__file__).parent
KINDS = tuple(each["spec"]["names"]["kind"] for each in crds.crds())


def split(key):
    """`core.LocalObjectReference.name` -> its type and its field."""
    return key.rsplit(".", 1)


def below(root):
    """Every type that can be reached."""
    found, waiting = {}, [root]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = schemas.fields(name)
            waiting += [kind.item for kind in found[name].values() if not kind.is_scalar]
    return found


@pytest.mark.parametrize("root", [root for root, _ in fields.ROOTS.values()])
def test_every_field_below_a_spec_is_classified(root):
    wanted = {f"{name}.{field}" for name, its in below(root).items() for field in its}
    assert fields.treatment(root).keys() == wanted


def test_words_and_reasons_are_of_fields_that_exist():
    known = {f"{kind}.{part}" for kind in KINDS for part in ("spec", "status")}
    known |= {f"{name}.{field}" for name, its in schemas.types().items() for field in its}
    assert explain.WORDS.keys() - known == set()
    assert support.NO_EFFECT.keys() - known == set()


def test_a_field_is_acted_on_or_not():
    assert explain.WORDS.keys() & support.NO_EFFECT.keys() == set()


def test_notations_name_types_of_the_table():
    for name, its in schemas.types().items():
        for field in its:
            kind = schemas.fields(name)[field]
            assert kind.is_scalar or kind.item in schemas.types(), f"{name}.{field}: {kind.item}"


def test_words_are_sentences():
    assert [words for words in explain.WORDS.values() if words != words.strip() or words[-1] not in ".)"] == []


def test_whatever_is_said_to_be_acted_on_is_read_somewhere():
    """A promise needs code: the field's name, as a string, outside the tables that only speak of it."""
    tables = {SOURCE / "api" / name for name in ("explain.py", "support.py", "crds.py", "fields.py")}
    code = "\n".join(p.read_text() for p in SOURCE.rglob("*.py") if p not in tables and p.parent.name != "server")
    literals = set(re.findall(r'"([A-Za-z0-9]+)"', code))
    specs = below("VirtualMachineSpec").keys() | below("KubeVirtSpec").keys()
    promised = {key for key in explain.WORDS if split(key)[0] in specs}
    # Always so, and hence read by nobody: randomness is there.
    always = {"Devices.rng"}
    assert {key for key in promised - always if split(key)[1] not in literals} == set()


REFUSED = {
    "one": ({"domain": {"devices": {"clientPassthrough": {}}}}, ["spec.domain.devices.clientPassthrough"]),
    "an empty object can be the promise": (
        {"domain": {"devices": {"downwardMetrics": {}}}}, ["spec.domain.devices.downwardMetrics"]),
    "in a list": (
        {"volumes": [{"name": "a", "emptyDisk": {"capacity": "1Gi"}}, {"name": "b", "downwardMetrics": {}}]},
        ["spec.volumes[1].downwardMetrics"]),
    "zero is said": ({"domain": {"memory": {"guest": "1Gi", "reservedOverhead": {"addedOverhead": "0"}}}},
                     ["spec.domain.memory.reservedOverhead"]),
    "all of them": (
        {"livenessProbe": {"tcpSocket": {"host": "h"}},
         "domain": {"cpu": {"numa": {}}, "devices": {"gpus": [{"name": "g"}]}}},
        ["spec.livenessProbe.tcpSocket.host", "spec.domain.cpu.numa", "spec.domain.devices.gpus"]),
    "what promises nothing": (
        {"livenessProbe": None, "accessCredentials": [], "domain": {"devices": {"autoattachVSOCK": False}}}, []),
    "below what is without effect": ({"domain": {"features": {"smm": {"enabled": True}}}}, []),
    "below what is read whole": (
        {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}}}, []),
    "what the table does not know is the schema's": ({"nonsense": True}, []),
    "lists and objects may be null": ({"domain": None, "volumes": None}, []),
}  # fmt: skip


@pytest.mark.parametrize(("spec", "paths"), REFUSED.values(), ids=REFUSED)
def test_refused(spec, paths):
    found = dict(support.refused(spec, "VirtualMachineInstanceSpec", "spec"))
    assert list(found) == paths
    for path, sentence in found.items():
        field = path.rsplit(".", 1)[1]
        assert sentence.startswith(f"{field} is not supported by hotvirt yet: ")


def test_the_mend_says_what_to_do_instead():
    assert list(support.refused({"useSerial": True}, "BIOS", "spec.bios")) == [
        ("spec.bios.useSerial", "useSerial is not supported by hotvirt yet: have the guest's boot loader use its port")
    ]  # fmt: skip


def test_mends_are_for_fields_that_are_refused():
    refused = {
        field for name, its in below("VirtualMachineSpec").items() for field in its
        if support.of(name, field).support is Support.REFUSED
    }  # fmt: skip
    assert support._MEND.keys() - refused == set()


def test_the_page_is_current():
    assert fields.PAGE.read_text() == fields.render(), "run: python -m hotvirt.api.fields"


def test_the_page_lists_each_described_field_once():
    described = {
        account.name: account for root, path in fields.ROOTS.values() for account in fields.accounts(root, path)
    }
    rows = re.findall(r"^\| `", fields.render().partition("## Statuses")[0], re.MULTILINE)
    assert len(rows) == sum(len(account.entries) for account in described.values())


UPSTREAM = Path(__file__).with_name("kubevirt-1.9-fields.txt")
"""A line for each type of KubeVirt's own API description that can be reached from its kinds: its name here, its
fields. Names only, taken from the description and not from our tables."""


def test_each_field_of_kubevirts_description_is_in_the_tables_and_no_other():
    upstream = {line.split()[0]: set(line.split()[1:]) for line in UPSTREAM.read_text().splitlines()}
    reached = {name for root, _ in fields.ROOTS.values() for name in below(root)}
    reached |= {name for root in fields.STATUSES.values() for name in below(root)}
    assert upstream == {name: set(schemas.types()[name]) for name in upstream}
    assert {name for name in reached - upstream.keys() if schemas.types()[name]} == set()
